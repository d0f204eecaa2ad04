package agent

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/cluster"
)

func testNetwork() docker.Network {
	s := netip.MustParsePrefix("10.213.7.0/24")
	return docker.Network{ID: "net", Subnets: []netip.Prefix{s}, Gateway: s.Addr().Next(), Dynamic: dynamicOf(s)}
}

// Whatever comes and goes: no address is had twice, none is the network's own,
// the gateway's, or one that the engine may give to others; a task keeps its
// address; and what was given back is not given again soon.
func TestAddressesAreApart(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(3, 4))
	a, x := newAddresses(), testNetwork()
	have := map[cluster.TaskID]netip.Addr{}
	var recent []netip.Addr
	for i := range 5000 {
		id := cluster.TaskID(fmt.Sprint("t", i))
		ip := a.give(id, "n", x)
		if !fixable(x, ip) {
			t.Fatalf("step %d: %s is no container's", i, ip)
		}
		for other, o := range have {
			if o == ip {
				t.Fatalf("step %d: %s is %s's already", i, ip, other)
			}
		}
		for _, o := range recent {
			if o == ip {
				t.Fatalf("step %d: %s was given back just now", i, ip)
			}
		}
		have[id] = ip
		if again := a.give(id, "n", x); again != ip {
			t.Fatalf("step %d: %s, then %s", i, ip, again)
		}
		for len(have) > 100 || len(have) > 0 && rnd.IntN(2) == 0 {
			for gone, ip := range have {
				delete(have, gone)
				recent = append(recent, ip)
				break
			}
		}
		recent = recent[max(0, len(recent)-100):]
		fixed := map[cluster.TaskID]map[cluster.NetworkName]netip.Addr{}
		for id, ip := range have {
			fixed[id] = map[cluster.NetworkName]netip.Addr{"n": ip}
		}
		if rnd.IntN(20) == 0 { // the agent starts again, and finds its containers
			a = newAddresses()
			recent = nil
		}
		a.listed(fixed, func(cluster.TaskID) bool { return false })
	}
}

func TestAddressesRunOut(t *testing.T) {
	t.Parallel()
	a, x := newAddresses(), testNetwork()
	n := 0
	for ; a.give(cluster.TaskID(fmt.Sprint(n)), "n", x).IsValid(); n++ {
		if n > 256 {
			t.Fatal("it gives more than there are")
		}
	}
	if n != 256-64-2 {
		t.Errorf("%d addresses of a /24", n)
	}
	a.listed(nil, func(id cluster.TaskID) bool { return id != "17" })
	if ip := a.give("new", "n", x); ip.String() != "10.213.7.19" {
		t.Errorf("%s is given, 10.213.7.19 was given back", ip)
	}
	// Where the engine may give any address to others, none is fixed.
	x.Dynamic = netip.Prefix{}
	if ip := a.give("0", "n", x); ip.IsValid() {
		t.Errorf("%s is given", ip)
	}
}

func TestAddressesAreRecalledAndLost(t *testing.T) {
	t.Parallel()
	a, x := newAddresses(), testNetwork()
	a.recall("one", map[cluster.NetworkName]string{"n": "10.213.7.9"})
	a.recall("two", map[cluster.NetworkName]string{"n": "10.213.7.9"}) // as it cannot be
	if ip := a.give("two", "n", x); ip.String() != "10.213.7.2" {
		t.Errorf("two has %s", ip)
	}
	if ip := a.give("one", "n", x); ip.String() != "10.213.7.9" {
		t.Errorf("one has %s", ip)
	}
	a.lost("one")
	if ip := a.give("one", "n", x); ip.String() != "10.213.7.3" {
		t.Errorf("one has %s after it lost its own", ip)
	}
	// Not of this network any more: it was made anew elsewhere.
	a.recall("three", map[cluster.NetworkName]string{"n": "10.99.0.9"})
	if ip := a.give("three", "n", x); !x.Subnets[0].Contains(ip) {
		t.Errorf("three has %s", ip)
	}
}
