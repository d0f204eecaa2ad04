package mesh

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
	"sigs.k8s.io/knftables"

	"github.com/fairlead/fairlead/cluster"
)

var (
	front = Network{Name: "shop_front", Bridge: "br-front", Subnet: netip.MustParsePrefix("10.213.1.0/24"), Gateway: netip.MustParseAddr("10.213.1.1")}
	back  = Network{Name: "shop_back", Bridge: "br-back", Subnet: netip.MustParsePrefix("10.213.2.0/24"), Gateway: netip.MustParseAddr("10.213.2.1"), Internal: true}
)

func at(slot int, addrs ...string) cluster.Endpoint {
	e := cluster.Endpoint{Task: cluster.TaskID(fmt.Sprint("t", slot)), Slot: slot, Addresses: map[cluster.NetworkName]string{}}
	for _, a := range addrs {
		switch {
		case front.Subnet.Contains(netip.MustParseAddr(a)):
			e.Addresses[front.Name] = a
		default:
			e.Addresses[back.Name] = a
		}
	}
	return e
}

func service(name, vip string, nets []cluster.NetworkName, tasks ...cluster.Endpoint) cluster.Endpoints {
	return cluster.Endpoints{
		ServiceID: cluster.ServiceID{App: "shop", Name: cluster.ServiceName(name)}, Address: vip, Networks: nets, Tasks: tasks,
	}
}

func TestRules(t *testing.T) {
	both := []cluster.NetworkName{front.Name, back.Name}
	nets := []Network{front, back}
	for _, c := range []struct {
		name     string
		eps      []cluster.Endpoints
		nets     []Network
		chains   map[string]string
		services map[string]string
	}{
		{
			name: "one task needs no choice",
			eps:  []cluster.Endpoints{service("api", "10.212.0.1", both[:1], at(1, "10.213.1.5"))}, nets: nets,
			chains:   map[string]string{"to-10.212.0.1-br-front": "dnat to 10.213.1.5"},
			services: map[string]string{"br-front . 10.212.0.1": "goto to-10.212.0.1-br-front"},
		},
		{
			name: "on two networks, each with its own addresses",
			eps:  []cluster.Endpoints{service("api", "10.212.0.1", both, at(2, "10.213.1.6", "10.213.2.6"), at(1, "10.213.1.5"))}, nets: nets,
			chains: map[string]string{
				"to-10.212.0.1-br-front": "dnat to numgen random mod 2 map { 0 : 10.213.1.5, 1 : 10.213.1.6 }",
				"to-10.212.0.1-br-back":  "dnat to 10.213.2.6",
			},
			services: map[string]string{
				"br-front . 10.212.0.1": "goto to-10.212.0.1-br-front",
				"br-back . 10.212.0.1":  "goto to-10.212.0.1-br-back",
			},
		},
		{name: "no ready task, no rule", eps: []cluster.Endpoints{service("api", "10.212.0.1", both)}, nets: nets},
		{name: "dnsrr has no address", eps: []cluster.Endpoints{service("api", "", both, at(1, "10.213.1.5"))}, nets: nets},
		{name: "a network that is not here", eps: []cluster.Endpoints{service("api", "10.212.0.1", both[:1], at(1, "10.213.1.5"))}, nets: []Network{back}},
		{
			name: "a task's address outside of the network is not trusted",
			eps: []cluster.Endpoints{service("api", "10.212.0.1", both[:1], cluster.Endpoint{
				Addresses: map[cluster.NetworkName]string{front.Name: "192.0.2.1"},
			})}, nets: nets,
		},
		{
			name: "a bridge name that nft would misread",
			eps:  []cluster.Endpoints{service("api", "10.212.0.1", both[:1], at(1, "10.213.1.5"))},
			nets: []Network{{Name: front.Name, Bridge: `x" . 1`, Subnet: front.Subnet}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			rs := Rules(c.eps, c.nets, nil)
			if d := cmp.Diff(or(c.chains), rs.chains); d != "" {
				t.Error("chains", d)
			}
			got := map[string]string{}
			for e, v := range rs.elements {
				if e.set == mapServices {
					got[e.key] = v
				}
			}
			if d := cmp.Diff(or(c.services), got); d != "" {
				t.Error("services", d)
			}
		})
	}
}

func or(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

func TestInternalNetworksAreSealed(t *testing.T) {
	rs := Rules(nil, []Network{front, back}, nil)
	want := []element{
		{setBridges, "br-back"},
		{setBridges, "br-front"},
		{setGuarded, "br-back"},
		{setGuarded, "br-front"},
		{setHome, "br-back . 10.213.2.0/24"},
		{setInside, "br-back . br-back"},
		{setInside, "br-front . br-front"},
		{setOwn, "br-back . 10.213.2.0/24"},
		{setOwn, "br-front . 10.213.1.0/24"},
		{setSealed, "br-back"},
	}
	if d := cmp.Diff(want, slices.SortedFunc(maps.Keys(rs.elements), element.compare), cmp.AllowUnexported(element{})); d != "" {
		t.Error(d)
	}
}

// The same network on another node is one with this one; another's is not.
func TestPeers(t *testing.T) {
	theirs := front
	theirs.External = true
	far := Peer{
		Address: netip.MustParseAddr("10.99.0.2"), Blocks: []netip.Prefix{netip.MustParsePrefix("10.213.8.0/22")},
		Networks: map[cluster.NetworkName]netip.Prefix{front.Name: netip.MustParsePrefix("10.213.8.0/24"), "other": netip.MustParsePrefix("10.213.9.0/24")},
	}
	api := service("api", "10.212.0.1", []cluster.NetworkName{front.Name}, at(1, "10.213.1.5"))
	api.Tasks = append(api.Tasks,
		cluster.Endpoint{Task: "t2", Slot: 2, Addresses: map[cluster.NetworkName]string{front.Name: "10.213.8.7"}},
		// An address that no node has said to be on this network.
		cluster.Endpoint{Task: "t3", Slot: 3, Addresses: map[cluster.NetworkName]string{front.Name: "10.213.9.7"}})
	rs := Rules([]cluster.Endpoints{api}, []Network{theirs, back}, []Peer{far})
	if got := rs.chains["to-10.212.0.1-br-front"]; got != "dnat to numgen random mod 2 map { 0 : 10.213.1.5, 1 : 10.213.8.7 }" {
		t.Error(got)
	}
	want := []element{{setBlocks, "10.213.8.0/22"}, {setGuarded, "br-back"}, {setNodes, "10.99.0.2"}, {setPeers, "br-front . 10.213.8.0/24"}}
	got := slices.DeleteFunc(slices.SortedFunc(maps.Keys(rs.elements), element.compare), func(e element) bool {
		return !slices.Contains([]string{setBlocks, setGuarded, setNodes, setPeers}, e.set)
	})
	if d := cmp.Diff(want, got, cmp.AllowUnexported(element{})); d != "" {
		t.Error(d)
	}
}

// A network of Fairlead's sends from its own subnet alone. What another's sends from is
// not known: a machine's uplink may be on it.
func TestSourcesStayInside(t *testing.T) {
	theirs := back
	theirs.External = true
	off := front
	off.Subnet = netip.MustParsePrefix("10.213.1.1/24")
	rs := Rules(nil, []Network{off, theirs}, nil)
	got := slices.DeleteFunc(slices.SortedFunc(maps.Keys(rs.elements), element.compare), func(e element) bool { return e.set != setOwn && e.set != setGuarded })
	want := []element{{setGuarded, "br-front"}, {setOwn, "br-front . 10.213.1.0/24"}}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(element{})); d != "" {
		t.Error(d)
	}

	fake := knftables.NewFake(knftables.IPv4Family, "t")
	tx := fake.NewTransaction()
	layout{services: netip.MustParsePrefix("10.212.0.0/16")}.writeBase(tx)
	if err := fake.Run(t.Context(), tx); err != nil {
		t.Fatal(err)
	}
	rules, err := fake.ListRules(t.Context(), chainSources)
	if err != nil {
		t.Fatal(err)
	}
	texts := make([]string, 0, len(rules))
	for _, r := range rules {
		texts = append(texts, r.Rule)
	}
	if d := cmp.Diff([]string{
		"ct state established ct direction reply ip saddr != @blocks ip saddr != @nodes accept",
		"iifname @guarded iifname . ip saddr != @own ip saddr != 0.0.0.0 drop",
	}, texts); d != "" {
		t.Error(d)
	}
}

// drawState makes up endpoints and networks, good and bad ones.
func drawState(t *rapid.T, label string) ([]cluster.Endpoints, []Network) {
	all := make([]Network, 4)
	for i := range all {
		all[i] = Network{
			Name: cluster.NetworkName(fmt.Sprint("n", i)), Bridge: fmt.Sprint("br", i),
			Subnet: netip.MustParsePrefix(fmt.Sprintf("10.213.%d.0/24", i)), Internal: i == 3,
		}
	}
	nets := rapid.SliceOfNDistinct(rapid.SampledFrom(all), 0, 4, func(n Network) cluster.NetworkName { return n.Name }).Draw(t, label+"nets")
	var eps []cluster.Endpoints
	for s := range rapid.IntRange(0, 6).Draw(t, label+"services") {
		e := service(fmt.Sprint("s", s), fmt.Sprintf("10.212.0.%d", s), nil)
		if rapid.IntRange(0, 9).Draw(t, label+"bad") == 0 {
			e.Address = rapid.SampledFrom([]string{"", "nonsense", "::1"}).Draw(t, label+"address")
		}
		for _, n := range all {
			if rapid.Bool().Draw(t, label+"on") {
				e.Networks = append(e.Networks, n.Name)
			}
		}
		for slot := range rapid.IntRange(0, 4).Draw(t, label+"tasks") {
			x := cluster.Endpoint{Slot: slot, Addresses: map[cluster.NetworkName]string{}}
			for i, n := range all {
				if rapid.Bool().Draw(t, label+"has") {
					x.Addresses[n.Name] = fmt.Sprintf("10.213.%d.%d", i, rapid.IntRange(2, 30).Draw(t, label+"host"))
				}
			}
			e.Tasks = append(e.Tasks, x)
		}
		eps = append(eps, e)
	}
	return eps, nets
}

// TestRulesLaws: what a caller on a network can be sent to is exactly the ready
// tasks of the services on it, at their addresses there.
func TestRulesLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		eps, nets := drawState(t, "")
		rs := Rules(eps, nets, nil)
		want := map[backend]bool{}
		for _, e := range eps {
			vip, err := netip.ParseAddr(e.Address)
			if err != nil || !vip.Is4() {
				continue
			}
			for _, n := range nets {
				if !slices.Contains(e.Networks, n.Name) {
					continue
				}
				for _, x := range e.Tasks {
					if a := x.Addresses[n.Name]; a != "" {
						want[backend{vip, netip.MustParseAddr(a)}] = true
					}
				}
			}
		}
		if d := cmp.Diff(want, rs.backends, cmp.AllowUnexported(backend{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
			t.Fatal(d)
		}
		if len(rs.chains) != countServices(rs) {
			t.Fatalf("%d chains for %d entries of the services map", len(rs.chains), countServices(rs))
		}
		// The order of the input does not matter.
		slices.Reverse(eps)
		slices.Reverse(nets)
		if !diff(rs, Rules(eps, nets, nil)).empty() {
			t.Fatal("another order of the input gives other rules")
		}
	})
}

func countServices(rs Ruleset) int {
	n := 0
	for e := range rs.elements {
		if e.set == mapServices {
			n++
		}
	}
	return n
}

// A service that leaves a network for another is reached on the one where a task is.
func TestRoutesToAServiceThatMoves(t *testing.T) {
	vip := netip.MustParseAddr("10.212.0.1")
	e := service("api", vip.String(), []cluster.NetworkName{back.Name, front.Name})
	for _, c := range []struct {
		name  string
		tasks []cluster.NetworkName
		want  []route
	}{
		{"no task yet", nil, nil},
		{"on the old one", []cluster.NetworkName{back.Name}, []route{{vip, back.Gateway}}},
		{"on both", []cluster.NetworkName{back.Name, front.Name}, nil},
		{"on the new one", []cluster.NetworkName{front.Name}, nil},
	} {
		e.Tasks = nil
		for _, n := range c.tasks {
			e.Tasks = append(e.Tasks, cluster.Endpoint{Task: "t", Addresses: map[cluster.NetworkName]string{n: "10.213.0.2"}})
		}
		on := Container{Networks: []cluster.NetworkName{back.Name, front.Name}}
		if got := routes([]cluster.Endpoints{e}, []Network{back, front}, on, front.Gateway); !slices.Equal(got, c.want) {
			t.Errorf("%s: routes %v, want %v", c.name, got, c.want)
		}
	}
}

func TestRoutes(t *testing.T) {
	vip := netip.MustParseAddr("10.212.0.1")
	on := func(n ...Network) []cluster.NetworkName {
		var out []cluster.NetworkName
		for _, x := range n {
			out = append(out, x.Name)
		}
		return out
	}
	for _, c := range []struct {
		name              string
		service, attached []cluster.NetworkName
		gateway           netip.Addr
		want              []route
	}{
		{"its default network", on(front), on(front, back), front.Gateway, nil},
		{"both networks", on(front, back), on(front, back), back.Gateway, nil},
		{"the other network", on(back), on(front, back), front.Gateway, []route{{vip, back.Gateway}}},
		{"no default route", on(back), on(back), netip.Addr{}, []route{{vip, back.Gateway}}},
		{"not one of its networks", on(back), on(front), front.Gateway, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			// Without a ready task: routes do not come and go with tasks.
			eps := []cluster.Endpoints{service("api", vip.String(), c.service), service("rr", "", c.service)}
			got := routes(eps, []Network{back, front}, Container{Networks: c.attached}, c.gateway)
			if !slices.Equal(got, c.want) {
				t.Errorf("routes %v, want %v", got, c.want)
			}
		})
	}
}
