package mesh

import (
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/go-iptables/iptables"
	"golang.org/x/sys/unix"
)

func prefixes(text ...string) (out []netip.Prefix) {
	for _, s := range text {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestCalledNets(t *testing.T) {
	got := calledNets([]Network{
		{Bridge: "b1", Subnet: netip.MustParsePrefix("10.213.0.1/24")},
		{Bridge: "b2", Subnet: netip.MustParsePrefix("10.213.1.0/24"), Internal: true}, // nothing is filtered there
		{Bridge: "b3", Subnet: netip.MustParsePrefix("172.18.0.0/16"), External: true}, // others'
		{Bridge: "b4"},
	})
	if !slices.Equal(got, prefixes("10.213.0.0/24")) {
		t.Errorf("%v", got)
	}
}

// The interface that a network names for other nodes' packets was renamed, or another
// took over: what the engine still drops by it is let past, before it drops.
func TestPasses(t *testing.T) {
	const (
		policy = "-P PREROUTING ACCEPT"
		admin  = "-A PREROUTING -s 203.0.113.0/24 -j DROP"
		trust  = "-A PREROUTING -d 10.213.0.2/32 -i eth0 -j ACCEPT" // the interface of before
		drop   = "-A PREROUTING -d 10.213.0.2/32 ! -i flabcdefg234 -j DROP"
		others = "-A PREROUTING -d 172.18.0.2/32 ! -i br-0123456789ab -j DROP"
		ours   = `-A PREROUTING -d 10.213.0.0/24 ! -i fl+ -m comment --comment fairlead-c1 -j ACCEPT`
		quoted = `-A PREROUTING -d 10.213.0.0/24 ! -i fl+ -m comment --comment "fairlead-c1" -j ACCEPT`
		ours2  = `-A PREROUTING -d 10.213.1.0/24 ! -i fl+ -m comment --comment fairlead-c1 -j ACCEPT`
		theirs = `-A PREROUTING -d 10.213.0.0/24 ! -i fl+ -m comment --comment fairlead-c2 -j ACCEPT`
	)
	for _, c := range []struct {
		name   string
		have   []string
		own    []netip.Prefix
		add    []netip.Prefix
		at     int
		remove []netip.Prefix
	}{
		{"nothing is there", []string{policy}, nil, nil, 1, nil},
		{"no container yet", []string{policy, admin}, prefixes("10.213.0.0/24"), prefixes("10.213.0.0/24"), 2, nil},
		{"the engine drops", []string{policy, admin, others, trust, drop}, prefixes("10.213.0.0/24", "10.213.1.0/24"), prefixes("10.213.0.0/24", "10.213.1.0/24"), 4, nil},
		{"it stands", []string{policy, admin, quoted, trust, drop}, prefixes("10.213.0.0/24"), nil, 4, nil},
		{"one network more", []string{policy, ours, drop}, prefixes("10.213.0.0/24", "10.213.1.0/24"), prefixes("10.213.1.0/24"), 2, nil},
		{"a network went", []string{policy, ours, ours2, drop}, prefixes("10.213.0.0/24"), nil, 3, prefixes("10.213.1.0/24")},
		{"it stands behind the engine's", []string{policy, drop, ours}, prefixes("10.213.0.0/24"), prefixes("10.213.0.0/24"), 1, prefixes("10.213.0.0/24")},
		{"twice", []string{policy, ours, ours, drop}, prefixes("10.213.0.0/24"), nil, 3, prefixes("10.213.0.0/24")},
		{"no other node", []string{policy, ours, drop}, nil, nil, 3, prefixes("10.213.0.0/24")},
		{"another cluster's", []string{policy, theirs, drop}, prefixes("10.213.0.0/24"), prefixes("10.213.0.0/24"), 2, nil},
	} {
		add, at, remove := passes(c.have, "c1", c.own)
		if !slices.Equal(add, c.add) || at != c.at || !slices.Equal(remove, c.remove) {
			t.Errorf("%s: add %v at %d, remove %v; want %v at %d, %v", c.name, add, at, remove, c.add, c.at, c.remove)
		}
	}
}

// inNamespace has a test run in a network namespace of its own.
func inNamespace(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for a network namespace")
	}
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("no network namespace: %v", err)
	}
}

// The rules that the kernel lists are those that were written: they settle, and go.
func TestTheEnginesFilterIsPassed(t *testing.T) {
	inNamespace(t)
	ipt, err := iptables.New()
	if err != nil {
		t.Skip(err)
	}
	if err := ipt.Append("raw", engineRaw, "-d", "10.213.0.2", "!", "-i", "flabcdefg234", "-j", "DROP"); err != nil {
		t.Skipf("no such table: %v", err)
	}
	k, other := &kernel{cluster: "c1"}, &kernel{cluster: "c2"}
	list := func() string {
		t.Helper()
		all, err := ipt.List("raw", engineRaw)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, line := range all[1:] {
			words := strings.Fields(line)
			out = append(out, words[slices.Index(words, "-d")+1]+" "+words[len(words)-1])
		}
		return strings.Join(out, ", ")
	}
	for _, c := range []struct {
		k    *kernel
		own  []netip.Prefix
		want string
	}{
		{k, prefixes("10.213.0.0/24"), "10.213.0.0/24 ACCEPT, 10.213.0.2/32 DROP"},
		{k, prefixes("10.213.0.0/24"), "10.213.0.0/24 ACCEPT, 10.213.0.2/32 DROP"},
		{other, prefixes("10.213.4.0/24"), "10.213.0.0/24 ACCEPT, 10.213.0.2/32 DROP, 10.213.4.0/24 ACCEPT"},
		{k, prefixes("10.213.0.0/24", "10.213.1.0/24"), "10.213.0.0/24 ACCEPT, 10.213.1.0/24 ACCEPT, 10.213.0.2/32 DROP, 10.213.4.0/24 ACCEPT"},
		{k, nil, "10.213.0.2/32 DROP, 10.213.4.0/24 ACCEPT"},
		{other, nil, "10.213.0.2/32 DROP"},
	} {
		if err := c.k.letPast(c.own); err != nil {
			t.Fatal(err)
		}
		if got := list(); got != c.want {
			t.Fatalf("%s with %v: %s; want %s", c.k.cluster, c.own, got, c.want)
		}
	}
}
