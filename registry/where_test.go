package registry

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/fairlead/fairlead/cluster"
)

// joined is a snapshot of a ready task on a node that joined, beside a server. It is on a
// network of the app, and on one of others.
func joined() Snapshot {
	s := one()
	s.Pool = prefix("10.213.0.0/16")
	spec := cluster.TaskSpec{Networks: []cluster.NetworkRef{{Name: "shop_default"}, {Name: "lan", External: true}}}
	s.Services[0].Spec.Task, s.Tasks[0].Spec, s.Placements[0].Spec = spec, spec, spec
	s.Nodes[0].Key = "k1"
	s.Nodes = append(s.Nodes, cluster.Node{NodeSpec: cluster.NodeSpec{ID: "s1"}, Info: cluster.NodeInfo{ID: "s1", Address: "192.0.2.9"}, Alive: true})
	s.Nets = []cluster.NodeNet{
		{Node: "n1", Blocks: []netip.Prefix{prefix("10.213.0.0/22")}},
		{Node: "s1", Blocks: []netip.Prefix{prefix("10.213.4.0/22")}},
	}
	return s
}

// What a node says of its tasks' addresses leads requests of everybody, so it is to lead
// nowhere else than to its tasks.
func TestWhereTasksOfANodeThatJoinedAre(t *testing.T) {
	for name, c := range map[string]struct {
		network cluster.NetworkName
		said    string
		want    string // "": none
	}{
		"its own":                         {"shop_default", "10.213.0.2", "10.213.0.2"},
		"its own, written as IPv6":        {"shop_default", "::ffff:10.213.0.2", "10.213.0.2"},
		"another node's":                  {"shop_default", "10.213.4.9", ""},
		"another node's, written as IPv6": {"shop_default", "::ffff:10.213.4.9", ""},
		"and so in hexadecimal":           {"shop_default", "::ffff:0ad5:0409", ""},
		"nobody's":                        {"shop_default", "10.213.40.9", ""},
		"a service's":                     {"shop_default", "10.212.0.9", ""},
		"whoever's asks":                  {"shop_default", "127.0.0.1", ""},
		"its cloud's":                     {"shop_default", "169.254.169.254", ""},
		"a machine's":                     {"shop_default", "192.0.2.9", ""},
		"a machine's by IPv6":             {"shop_default", "2001:db8::9", ""},
		"none":                            {"shop_default", "web.example.com", ""},
		"on a network that it is not on":  {"bank_default", "10.213.0.2", ""},

		"of others":                                  {"lan", "172.20.0.9", "172.20.0.9"},
		"of others by IPv6":                          {"lan", "2001:DB8:0::9", "2001:db8::9"},
		"of others, its own":                         {"lan", "10.213.0.2", "10.213.0.2"},
		"of others, another node's":                  {"lan", "10.213.4.9", ""},
		"of others, another node's, written as IPv6": {"lan", "::ffff:10.213.4.9", ""},
		"of others, nobody's":                        {"lan", "10.213.40.9", ""},
		"of others, a service's":                     {"lan", "10.212.0.9", ""},
		"of others, whoever's asks":                  {"lan", "127.0.0.1", ""},
		"of others, whoever's, written as IPv6":      {"lan", "::ffff:127.0.0.1", ""},
		"of others, whoever's by IPv6":               {"lan", "::1", ""},
		"of others, its cloud's":                     {"lan", "169.254.169.254", ""},
		"of others, of a link":                       {"lan", "fe80::9%eth0", ""},
		"of others, with a zone":                     {"lan", "2001:db8::9%eth0", ""},
		"of others, everybody's":                     {"lan", "224.0.0.1", ""},
		"of others, everybody's on the network":      {"lan", "255.255.255.255", ""},
		"of others, none":                            {"lan", "0.0.0.0", ""},
		"of others, none by IPv6":                    {"lan", "::", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := joined()
			s.Statuses[0].Addresses = map[cluster.NetworkName]string{c.network: c.said}
			e := endpointsOf(t, Plan(s))
			var got map[cluster.NetworkName]string
			for _, x := range e.Tasks {
				got = x.Addresses
			}
			want := map[cluster.NetworkName]string{}
			if c.want != "" {
				want[c.network] = c.want
			}
			if !maps.Equal(got, want) {
				t.Errorf("it is reached at %v, want %v", got, want)
			}
			if len(e.Networks) != 2 {
				t.Errorf("the service is on %v", e.Networks)
			}
		})
	}
}

// A task on its node's own network is where its node says that it is. A server that has no
// other machines has but a loopback address.
func TestWhereNodesAre(t *testing.T) {
	for name, c := range map[string]struct {
		said         string
		node, server string
	}{
		"a machine's":          {"192.0.2.1", "192.0.2.1", "192.0.2.1"},
		"written as IPv6":      {"::ffff:192.0.2.1", "192.0.2.1", "::ffff:192.0.2.1"},
		"whoever's asks":       {"127.0.0.1", "", "127.0.0.1"},
		"so written as IPv6":   {"::ffff:127.0.0.1", "", "::ffff:127.0.0.1"},
		"its cloud's":          {"169.254.169.254", "", "169.254.169.254"},
		"another's container":  {"10.213.4.9", "", "10.213.4.9"},
		"a service's":          {"10.212.0.9", "", "10.212.0.9"},
		"a name":               {"bank.example.com", "", "bank.example.com"},
		"none, as none is set": {"", "", ""},
	} {
		for _, key := range []string{"k1", ""} {
			s := joined()
			s.Tasks[0].Spec.NetworkMode, s.Placements[0].Spec.NetworkMode = "host", "host"
			s.Nodes[0].Key, s.Nodes[0].Info.Address = key, c.said
			got := ""
			for _, x := range endpointsOf(t, Plan(s)).Tasks {
				got = x.Host
			}
			want := c.node
			if key == "" {
				want = c.server
			}
			if got != want {
				t.Errorf("%s, with the key %q: it is reached at %q, want %q", name, key, got, want)
			}
		}
	}
}

// Whatever a node that joined says, what is published of it is of the networks that its
// tasks were placed with, and of its own addresses or of nobody's that the cluster gives.
func TestWhereLaws(t *testing.T) {
	text := rapid.OneOf(
		rapid.SampledFrom([]string{"10.213.0.2", "10.213.4.9", "10.212.0.9", "127.0.0.1", "169.254.169.254", "192.0.2.9", "::1", "fe80::1", "x"}),
		rapid.Custom(func(t *rapid.T) string {
			raw := [4]byte{byte(rapid.IntRange(0, 255).Draw(t, "a")), byte(rapid.SampledFrom([]int{0, 212, 213}).Draw(t, "b")), byte(rapid.IntRange(0, 8).Draw(t, "c")), 9}
			if rapid.Bool().Draw(t, "ten") {
				raw[0] = 10
			}
			a := netip.AddrFrom4(raw)
			if rapid.Bool().Draw(t, "mapped") {
				a = netip.AddrFrom16(a.As16())
			}
			return a.String()
		}))
	rapid.Check(t, func(t *rapid.T) {
		s := joined()
		s.Statuses[0].Addresses = rapid.MapOf(rapid.SampledFrom([]cluster.NetworkName{"shop_default", "lan", "bank_default"}), text).Draw(t, "said")
		for _, e := range serving(s)[id("web")] {
			for n, said := range e.Addresses {
				a, err := netip.ParseAddr(said)
				own := s.Nets[0].Blocks[0].Contains(a)
				external := n == "lan" && !s.Pool.Contains(a) && !s.Range.Contains(a)
				odd := a.Is4In6() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified()
				if err != nil || odd || !own && !external || !slices.Contains([]cluster.NetworkName{"shop_default", "lan"}, n) {
					t.Fatalf("%s is published on %s", said, n)
				}
			}
		}
	})
}
