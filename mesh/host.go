package mesh

import (
	"context"
	"net/netip"

	"github.com/fairlead/fairlead/cluster"
)

// flow is a UDP conversation, or a TCP connection that nobody has answered yet, as
// the kernel tracks it.
type flow struct {
	from netip.Addr // who started it
	to   netip.Addr // the address it was sent to
	via  netip.Addr // who answers: the task
}

// host is what the mesh needs of the kernel besides nftables.
type host interface {
	// filterBridges makes bridged packets pass address translation, or says why not.
	filterBridges() error
	// hairpin lets each port of the bridges send a packet back to where it came
	// from: without it a task never gets what it sends to its own service.
	hairpin(bridges []string) error
	// setRoutes makes plan's routes the only ones of ours in a network namespace. It
	// hands plan the namespace's default gateway, invalid when there is none.
	setRoutes(netns string, plan func(gateway netip.Addr) []route) error
	ways
	// dropFlows forgets the flows to these addresses (none: to any) for which
	// gone returns true.
	dropFlows(to []netip.Addr, gone func(flow) bool) error
	// deletions calls told after the table or its first rules were deleted, by anyone, until ctx ends.
	deletions(ctx context.Context, told func()) error
}

// ways are those to other nodes' containers.
type ways interface {
	// reach makes these the only routes of ours to other nodes' containers, which this
	// node calls from self, the address that they know it by, where it has that one. It
	// has the engine let in what the rules mark, and past its filters what goes to this
	// node's own networks.
	reach(self netip.Addr, peers []Peer, own []netip.Prefix) error
	// try sends each packet and says what came of it: what is not answered within the time of ctx
	// is lost.
	try(ctx context.Context, all map[cluster.NodeID]trial) (map[cluster.NodeID]outcome, error)
}
