package mesh

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-iptables/iptables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/fairlead/fairlead/cluster"
)

func TestTrials(t *testing.T) {
	addr := netip.MustParseAddr
	back := Network{Name: "back", Gateway: addr("10.213.1.1")}
	bare, two := Peer{Node: "n3"}, Peer{Node: "n2", Address: addr("10.0.0.2"), Networks: map[cluster.NetworkName]netip.Prefix{
		"front": netip.MustParsePrefix("10.213.9.0/24"), "cache": netip.MustParsePrefix("10.213.8.0/24"),
	}}
	outside := Network{Name: "a", Gateway: addr("172.18.0.1"), External: true}
	got := trials([]Network{front, outside, {Name: "b"}, back}, []Peer{bare, two})
	if want := (trial{addr("10.213.1.1"), addr("10.213.8.254"), addr("10.0.0.2")}); len(got) != 1 || got["n2"] != want {
		t.Errorf("%v", got)
	}
	two.Away = true
	if got := trials([]Network{back}, []Peer{two}); len(got) > 0 {
		t.Errorf("to a node that is away: %v", got)
	}
	two.Away = false
	if got := trials([]Network{outside}, []Peer{two}); len(got) > 0 {
		t.Errorf("from another's network: %v", got)
	}
	for text, want := range map[string]string{
		"10.213.8.0/24": "10.213.8.254", "10.213.8.64/26": "10.213.8.126", "10.213.0.0/16": "10.213.255.254", "10.0.0.0/31": "invalid IP", "fd00::/64": "invalid IP",
	} {
		if got := lastOf(netip.MustParsePrefix(text)); got.String() != want {
			t.Errorf("%s: %s", text, got)
		}
	}
}

// A way on which three packets in a row got lost is told, and when one arrived since; a node that is
// not there itself is not.
func TestWaysThatLosePacketsAreTold(t *testing.T) {
	h := &fakeHost{}
	m, told := telling(t, h)
	two := peer(2, "10.0.0.2")
	if err := m.SetPeers(t.Context(), netip.Addr{}, []Peer{two}); err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		ways []outcome
		told int
		says string
	}{
		{[]outcome{arrived, gotLost, gotLost, arrived, gotLost, gotLost, untold, gotLost, gotLost}, 0, ""},
		{[]outcome{gotLost, gotLost, gotLost}, 1, "containers of node n2 are not reached: the node is alive, and packets from " + front.Gateway.String() + " to 10.213.8.254 get lost between"},
		{[]outcome{untold}, 2, ""},
		{[]outcome{gotLost, gotLost, gotLost}, 3, "get lost between"},
		{[]outcome{arrived}, 4, ""},
	} {
		for _, o := range c.ways {
			h.ways = map[cluster.NodeID]outcome{"n2": o}
			if err := m.tryOnce(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		last := ""
		if n := len(*told); n > 0 {
			last = (*told)[n-1]
		}
		if len(*told) != c.told || !strings.Contains(last, c.says) || (last == "") != (c.says == "") {
			t.Errorf("%d: told %q", i, *told)
		}
	}
	if len(h.tried) != 1 {
		t.Errorf("tried %v", h.tried)
	}
}

// end is one of two machines on a wire.
type end struct {
	link       netlink.Link
	at, others string // addresses
	bridge     string // of its containers
	blocks     string // the other's
}

func (e end) set(t *testing.T) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	give := func(l netlink.Link, text string) {
		t.Helper()
		a, err := netlink.ParseAddr(text)
		check(err)
		check(netlink.AddrAdd(l, a))
		check(netlink.LinkSetUp(l))
	}
	lo, err := netlink.LinkByName("lo") // by which a kernel tells itself
	check(err)
	check(netlink.LinkSetUp(lo))
	give(e.link, e.at)
	b := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "fl0"}}
	check(netlink.LinkAdd(b))
	give(b, e.bridge)
	_, to, err := net.ParseCIDR(e.blocks)
	check(err)
	check(netlink.RouteAdd(&netlink.Route{Dst: to, Gw: net.ParseIP(e.others)}))
	check(os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644))
}

// Two kernels on a wire: what arrives, what is dropped because of its address, what a firewall of the
// other machine does not take, and that nobody is there.
func TestPacketsBetweenNodes(t *testing.T) {
	inNamespace(t)
	here, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = here.Close() }()
	there, err := netns.New() // and this thread is in it
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = there.Close() }()
	in := func(ns netns.NsHandle, f func()) {
		t.Helper()
		if err := netns.Set(ns); err != nil {
			t.Fatal(err)
		}
		f()
		if err := netns.Set(here); err != nil {
			t.Fatal(err)
		}
	}
	var near, far netlink.Link
	in(here, func() {
		near = &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "near"}, PeerName: "far", PeerNamespace: netlink.NsFd(there)}
		if err := netlink.LinkAdd(near); err != nil {
			t.Fatal(err)
		}
		end{near, "192.0.2.1/24", "192.0.2.2", "10.213.0.1/24", "10.213.4.0/24"}.set(t)
	})
	in(there, func() {
		if far, err = netlink.LinkByName("far"); err != nil {
			t.Fatal(err)
		}
		end{far, "192.0.2.2/24", "192.0.2.1", "10.213.4.1/24", "10.213.0.0/24"}.set(t)
	})
	all := map[cluster.NodeID]trial{"n2": {netip.MustParseAddr("10.213.0.1"), netip.MustParseAddr("10.213.4.254"), netip.MustParseAddr("192.0.2.2")}}
	try := func(what string, want outcome) {
		t.Helper()
		wait := tryTime
		if want == gotLost {
			wait = time.Second
		}
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		defer cancel()
		got, err := (&kernel{cluster: "c1"}).try(ctx, all)
		if err != nil || len(got) != 1 || got["n2"] != want {
			t.Errorf("%s: %v, %v; want %d", what, got, err, want)
		}
	}
	rule := func(ns netns.NsHandle, do func(*iptables.IPTables) error) {
		t.Helper()
		in(ns, func() {
			ipt, err := iptables.New()
			if err == nil {
				err = do(ipt)
			}
			if err != nil {
				t.Fatal(err)
			}
		})
	}
	try("an open way", arrived)
	for _, chain := range []string{"INPUT", "FORWARD"} {
		rule(there, func(ipt *iptables.IPTables) error { return ipt.ChangePolicy("filter", chain, "DROP") })
	}
	try("a firewall on the other node", arrived)
	source := []string{"-i", "far", "-s", "10.213.0.0/16", "-j", "DROP"}
	rule(there, func(ipt *iptables.IPTables) error { return ipt.Append("raw", "PREROUTING", source...) })
	try("a check of sources", gotLost)
	rule(there, func(ipt *iptables.IPTables) error { return ipt.Delete("raw", "PREROUTING", source...) })
	try("the way is open again", arrived)
	destination := []string{"-i", "near", "-d", "10.213.0.0/16", "-j", "DROP"}
	rule(here, func(ipt *iptables.IPTables) error { return ipt.Append("raw", "PREROUTING", destination...) })
	try("a check of destinations", gotLost)
	rule(here, func(ipt *iptables.IPTables) error { return ipt.Delete("raw", "PREROUTING", destination...) })
	in(there, func() {
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/far/arp_ignore", []byte("8"), 0o644); err != nil { // of a machine that is off
			t.Fatal(err)
		}
	})
	in(here, func() {
		known, err := netlink.NeighList(near.Attrs().Index, netlink.FAMILY_V4)
		if err != nil || len(known) == 0 {
			t.Fatal(known, err)
		}
		for _, n := range known {
			if err := netlink.NeighDel(&n); err != nil {
				t.Fatal(err)
			}
		}
	})
	try("nobody is there", untold)
	t2 := all["n2"]
	all["n2"] = trial{netip.MustParseAddr("10.213.9.1"), t2.to, t2.via}
	try("from an address that is none of this machine", untold)
	all["n2"] = trial{t2.from, t2.to, netip.MustParseAddr("192.0.2.3")}
	try("the route is not by that node", untold)
}
