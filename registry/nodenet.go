package registry

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/cluster"
)

const (
	// A node gets addresses in blocks of four networks.
	blockBits   = 22
	networkBits = 24
	// A node keeps two networks free: a new app need not wait for a block.
	spare = 2
)

// nodeNets returns what must change so that each node has addresses of its own
// for its networks, and the others know where they are.
func nodeNets(s Snapshot) []Action {
	if !s.Pool.IsValid() {
		return nil
	}
	written := make(map[cluster.NodeID]cluster.NodeNet, len(s.Nets))
	taken := []netip.Prefix{}
	for _, n := range s.Nets {
		written[n.Node] = n
		taken = append(taken, n.Blocks...)
	}
	wanted := map[cluster.NodeID]map[cluster.NetworkName]bool{}
	for _, p := range s.Placements {
		if p.Spec.NetworkMode != "" {
			continue
		}
		for _, n := range p.Spec.Networks {
			if wanted[p.Node] == nil {
				wanted[p.Node] = map[cluster.NetworkName]bool{}
			}
			wanted[p.Node][n.Name] = true
		}
	}
	nodes := slices.SortedFunc(slices.Values(s.Nodes), func(a, b cluster.Node) int { return strings.Compare(string(a.ID), string(b.ID)) })
	there := map[cluster.NodeID]bool{}
	networks := make(map[cluster.NodeID]map[cluster.NetworkName]netip.Prefix, len(nodes))
	outside := map[cluster.NodeID][]cluster.NetworkName{}
	for _, n := range nodes {
		there[n.ID] = true
		own := owns(n, written)
		networks[n.ID], outside[n.ID] = believed(n, own, wanted[n.ID]), outsideOf(n, own, wanted[n.ID])
		for _, p := range networks[n.ID] {
			taken = append(taken, p)
		}
	}
	var out []Action
	for _, n := range nodes {
		old, known := written[n.ID]
		want := cluster.NodeNet{Node: n.ID, Address: n.Info.Address, Networks: networks[n.ID], Outside: outside[n.ID], Away: !n.Alive, Blocks: slices.Clone(old.Blocks), Rev: old.Rev}
		missing := len(wanted[n.ID]) + spare - room(want.Blocks)
		for name, p := range networks[n.ID] {
			if !slices.ContainsFunc(want.Blocks, p.Overlaps) && wanted[n.ID][name] {
				missing-- // it has an address from before there were blocks
			}
		}
		for missing > 0 {
			b, ok := freeBlock(s.Pool, taken)
			if !ok {
				break
			}
			taken, want.Blocks = append(taken, b), append(want.Blocks, b)
			missing -= room([]netip.Prefix{b})
		}
		want.Short = max(missing, 0)
		if !known || !sameNet(want, old) {
			out = append(out, PutNodeNet{Net: want})
		}
	}
	for _, n := range slices.SortedFunc(maps.Values(written), func(a, b cluster.NodeNet) int { return strings.Compare(string(a.Node), string(b.Node)) }) {
		if !there[n.Node] {
			out = append(out, DeleteNodeNet{Node: n.Node, Rev: n.Rev})
		}
	}
	return out
}

// believed is what counts of the networks that a node says it has. Others make
// routes and rules of them: a node that joined is believed only about networks that its
// tasks were placed on.
func believed(n cluster.Node, own ownership, wanted map[cluster.NetworkName]bool) map[cluster.NetworkName]netip.Prefix {
	out := map[cluster.NetworkName]netip.Prefix{}
	for name, p := range n.Info.Networks {
		if own.has(p) && (n.Key == "" || wanted[name]) {
			out[name] = p
		}
	}
	return out
}

// outsideOf are the networks with tasks that the node says it has, in addresses that are not
// its own: it was removed and joined again, and another node may have them now, or the store
// was put back to before it was given them.
func outsideOf(n cluster.Node, own ownership, wanted map[cluster.NetworkName]bool) (out []cluster.NetworkName) {
	for name, p := range n.Info.Networks {
		if wanted[name] && !own.has(p) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// ownership says which addresses are a node's own: those of its blocks. A server may have
// networks from before there were blocks, which no other node was given.
type ownership struct {
	blocks, others []netip.Prefix
	server         bool
}

func owns(n cluster.Node, nets map[cluster.NodeID]cluster.NodeNet) ownership {
	o := ownership{blocks: nets[n.ID].Blocks, server: n.Key == ""}
	if o.server {
		for _, x := range nets {
			if x.Node != n.ID {
				o.others = append(o.others, x.Blocks...)
			}
		}
	}
	return o
}

func (o ownership) has(p netip.Prefix) bool {
	return cluster.Within(o.blocks, p) || o.server && !slices.ContainsFunc(o.others, p.Overlaps)
}

// room is how many networks blocks hold.
func room(blocks []netip.Prefix) int {
	n := 0
	for _, b := range blocks {
		n += 1 << max(networkBits-b.Bits(), 0)
	}
	return n
}

// freeBlock returns the lowest block of the pool that overlaps none of taken; one
// network's worth where no whole block is left.
func freeBlock(pool netip.Prefix, taken []netip.Prefix) (netip.Prefix, bool) {
	pool = pool.Masked()
	for _, bits := range []int{max(blockBits, pool.Bits()), networkBits} {
		for a := pool.Addr(); pool.Contains(a); {
			p := netip.PrefixFrom(a, bits)
			if !slices.ContainsFunc(taken, p.Overlaps) {
				return p, true
			}
			raw := a.As4()
			next := uint64(binary.BigEndian.Uint32(raw[:])) + 1<<(32-bits)
			if next > 1<<32-1 {
				break
			}
			binary.BigEndian.PutUint32(raw[:], uint32(next))
			a = netip.AddrFrom4(raw)
		}
	}
	return netip.Prefix{}, false
}

func sameNet(a, b cluster.NodeNet) bool {
	return a.Address == b.Address && a.Away == b.Away && a.Short == b.Short && slices.Equal(a.Blocks, b.Blocks) && slices.Equal(a.Outside, b.Outside) && maps.Equal(a.Networks, b.Networks)
}
