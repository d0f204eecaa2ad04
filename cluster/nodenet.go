package cluster

import (
	"net/netip"
	"slices"
)

// NodeNet is where a node's containers are, for the other nodes: their routes and
// rules are made of it. Key pools/nodes/<node>. Writer: registry.
type NodeNet struct {
	Node    NodeID `json:"node"`
	Address string `json:"address"` // IP that other nodes reach
	// Blocks are the node's own part of the cluster's address range: networks are
	// carved from them on that node alone.
	Blocks []netip.Prefix `json:"blocks"`
	// Short is how many networks the node needs and keeps free beyond what Blocks hold: the
	// cluster's address range is used up.
	Short int `json:"short,omitempty"`
	// Outside are networks with tasks whose addresses on the node are none of its own: those of
	// another node, or of nobody. Nothing is sent to them.
	Outside []NetworkName `json:"outside,omitempty"`
	// Networks are the subnets of the networks that the node has now.
	Networks map[NetworkName]netip.Prefix `json:"networks,omitempty"`
	// Away: nothing was heard of the node for as long as its lease is.
	Away bool `json:"away,omitempty"`

	Rev StoreRev `json:"-"`
}

// Within reports whether one of a node's blocks holds all of p.
func Within(blocks []netip.Prefix, p netip.Prefix) bool {
	return slices.ContainsFunc(blocks, func(b netip.Prefix) bool {
		return p.IsValid() && b.Bits() <= p.Bits() && b.Contains(p.Addr())
	})
}
