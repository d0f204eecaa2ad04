//go:build linux

package mesh

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"

	"github.com/fairlead/fairlead/cluster"
)

func peer(n int, address string) Peer {
	a, _ := netip.ParseAddr(address)
	return Peer{
		Node: cluster.NodeID(fmt.Sprintf("n%d", n)), Address: a, Blocks: prefixes(fmt.Sprintf("10.213.%d.0/22", 4*n)),
		Networks: map[cluster.NetworkName]netip.Prefix{front.Name: netip.MustParsePrefix(fmt.Sprintf("10.213.%d.0/24", 4*n))},
	}
}

// What one node says of itself, as whoever stole its certificate can, must not keep the
// others from what they serve: nft would refuse the whole of a transaction with it.
func TestANodeWithoutAnIPv4AddressIsLeftOut(t *testing.T) {
	for name, odd := range map[string]struct {
		peer Peer
		says string
	}{
		"IPv6":               {peer(3, "fd00::3"), "its address is fd00::3,"},
		"IPv6 with a zone":   {peer(3, "fe80::3%eth0 } ; flush"), "its address is fe80::3,"},
		"IPv4 in IPv6":       {peer(3, "::ffff:10.0.0.3"), "its address is ::ffff:10.0.0.3,"},
		"none":               {peer(3, "nonsense"), "what it gives as its address is none"},
		"none with a v6 one": {Peer{Node: "n3", Blocks: prefixes("fd00::/64")}, "what it gives as its address is none"},
	} {
		t.Run(name, func(t *testing.T) {
			w, nft, h := newWorld(), newFake(), &fakeHost{}
			on := func(slot int, address string) cluster.Endpoint {
				return cluster.Endpoint{Task: "t", Slot: slot, Addresses: map[cluster.NetworkName]string{front.Name: address}}
			}
			w.set(1, service("api", "10.212.0.1", []cluster.NetworkName{front.Name}, on(1, "10.213.8.5"), on(2, "10.213.12.5")))
			cfg := w.config()
			var told []string
			cfg.Peers, cfg.Unreached = true, func(text string) { told = append(told, text) }
			m := ready(cfg, nft, h)
			if err := m.SetNetworks(t.Context(), []Network{front}); err != nil {
				t.Fatal(err)
			}
			self, good := netip.MustParseAddr("10.0.0.1"), peer(2, "10.0.0.2")
			good.Networks["six"] = netip.MustParsePrefix("fd00::/64")
			if err := m.SetPeers(t.Context(), self, []Peer{odd.peer, good}); err != nil {
				t.Fatal(err)
			}
			elements, err := nft.ListElements(t.Context(), "set", setNodes)
			if err != nil || len(elements) != 1 || elements[0].Key[0] != "10.0.0.2" {
				t.Errorf("other nodes in the rules: %v, %v", elements, err)
			}
			if blocks, err := nft.ListElements(t.Context(), "set", setBlocks); err != nil || len(blocks) != 1 || blocks[0].Key[0] != "10.213.8.0/22" {
				t.Errorf("their containers in the rules: %v, %v", blocks, err)
			}
			if got := m.applied.chains["to-10.212.0.1-br-front"]; got != "dnat to 10.213.8.5" {
				t.Errorf("the service goes by %q", got)
			}
			want := peer(2, "10.0.0.2")
			if d := cmp.Diff([]Peer{want}, h.peers, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); d != "" || h.self != self {
				t.Errorf("routes to: %s, from %s", d, h.self)
			}
			if len(told) != 1 || !strings.Contains(told[0], "node n3 are not reached: "+odd.says) || !strings.Contains(told[0], "--advertise there") || strings.Contains(told[0], "flush") {
				t.Errorf("told %q", told)
			}
			if err := m.SetPeers(t.Context(), self, []Peer{good}); err != nil || len(told) != 2 || told[1] != "" {
				t.Errorf("once it is gone: told %q, %v", told, err)
			}
		})
	}
}

// telling is a mesh with one network, and what it tells of other nodes.
func telling(t *testing.T, h *fakeHost) (_ *Mesh, told *[]string) {
	t.Helper()
	w := newWorld()
	w.set(1)
	cfg := w.config()
	told = new([]string)
	cfg.Peers, cfg.Unreached = true, func(text string) { *told = append(*told, text) }
	m := ready(cfg, newFake(), h)
	if err := m.SetNetworks(t.Context(), []Network{front}); err != nil {
		t.Fatal(err)
	}
	return m, told
}

// Which nodes are not reached is told once, and when that is over.
func TestUnreachedNodesAreTold(t *testing.T) {
	h := &fakeHost{}
	m, told := telling(t, h)
	var many []error
	for i := range 7 {
		many = append(many, fmt.Errorf("n%d is away", i))
	}
	for _, away := range []error{nil, errors.New("n2 is away"), errors.New("n2 is away"), errors.Join(many...), nil} {
		h.away = away
		if err := m.SetPeers(t.Context(), netip.Addr{}, []Peer{peer(2, "10.0.0.2")}); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"n2 is away", "n0 is away; n1 is away; n2 is away; n3 is away; n4 is away; and 2 more", ""}
	if !slices.Equal(*told, want) {
		t.Errorf("told %q", *told)
	}
}

// The other nodes know this one by one of its addresses, and let in what comes from that
// one alone: what this node itself sends to their containers has it, also where it is not
// the first of its interface.
func TestRoutesToPeersAreFromTheAddressThatTheyKnow(t *testing.T) {
	inNamespace(t)
	uplink := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "up0"}}
	if err := netlink.LinkAdd(uplink); err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"10.0.0.7/24", "10.0.0.1/24"} {
		ip, n, err := net.ParseCIDR(a)
		if err == nil {
			err = netlink.AddrAdd(uplink, &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: n.Mask}})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := netlink.LinkSetUp(uplink); err != nil {
		t.Fatal(err)
	}
	k := &kernel{cluster: "c1"}
	two, three := peer(2, "10.0.0.2"), peer(3, "192.0.2.3")
	for _, c := range []struct {
		self  string
		peers []Peer
		want  string
		says  string
	}{
		{"", []Peer{two}, "10.213.8.0/22 by 10.0.0.2", ""},
		{"10.0.0.1", []Peer{two}, "10.213.8.0/22 by 10.0.0.2 from 10.0.0.1", ""},
		{"10.0.0.1", []Peer{two}, "10.213.8.0/22 by 10.0.0.2 from 10.0.0.1", ""},
		{"10.0.0.9", []Peer{two}, "10.213.8.0/22 by 10.0.0.2", ""}, // it has that one no more
		{"10.0.0.1", []Peer{peer(2, "10.0.0.4")}, "10.213.8.0/22 by 10.0.0.4 from 10.0.0.1", ""},
		{"10.0.0.1", []Peer{three, two}, "10.213.8.0/22 by 10.0.0.2 from 10.0.0.1", "containers of node n3 are not reached: route 10.213.12.0/22 by 192.0.2.3: "},
		{"10.0.0.1", []Peer{peer(2, "192.0.2.2")}, "", "containers of node n2 are not reached: "}, // the former way is none either
		{"10.0.0.1", nil, "", ""},
	} {
		self, _ := netip.ParseAddr(c.self)
		err := k.reach(self, c.peers, nil)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("from %q: %v; want %q", c.self, err, c.says)
		}
		all, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: RouteProtocol}, netlink.RT_FILTER_PROTOCOL)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range all {
			text := fmt.Sprintf("%s by %s", r.Dst, r.Gw)
			if r.Src != nil {
				text += " from " + r.Src.String()
			}
			got = append(got, text)
		}
		if strings.Join(got, ", ") != c.want {
			t.Errorf("from %q: %v; want %s", c.self, got, c.want)
		}
	}
}
