//go:build linux

package mesh

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// What lies between the nodes may drop packets with addresses that it did not give (a cloud's
// check of sources), though the nodes themselves reach each other. Nobody is told of it but by
// requests that hang, so the mesh tries: a packet from an address of its containers to one of
// the other node's, which is to be forwarded there and may not be, as its hops are used up. Of that
// a kernel tells the sender before any firewall of that node decides.

const (
	tryEvery = 20 * time.Second
	tryTime  = 5 * time.Second // longer than a kernel asks for a neighbor that is not there
	lostFrom = 3               // tries in a row
	packets  = 3               // of a try: one that gets through is enough
)

// trial is such a packet, and by which node it goes.
type trial struct {
	from, to, via netip.Addr
}

// outcome is what came of a trial.
type outcome int

const (
	untold  outcome = iota // the node itself is not there, or nothing can be told
	arrived                // and its answer came back
	gotLost
)

// trials are those that tell of each peer that is there and has networks.
func trials(nets []Network, peers []Peer) map[cluster.NodeID]trial {
	out := map[cluster.NodeID]trial{}
	var from netip.Addr
	for _, n := range slices.SortedFunc(slices.Values(nets), func(a, b Network) int { return strings.Compare(string(a.Name), string(b.Name)) }) {
		if !n.External && n.Gateway.Is4() {
			from = n.Gateway
			break
		}
	}
	if !from.IsValid() {
		return out
	}
	for _, p := range peers {
		if p.Away {
			continue // nothing gets there, whatever is between
		}
		for _, name := range slices.Sorted(maps.Keys(p.Networks)) {
			if to := lastOf(p.Networks[name]); to.IsValid() {
				out[p.Node] = trial{from, to, p.Address}
				break
			}
		}
	}
	return out
}

// lastOf is the last address of a subnet that a container may have, which none has but in a full one.
func lastOf(p netip.Prefix) netip.Addr {
	if !p.Addr().Is4() || p.Bits() > 30 {
		return netip.Addr{}
	}
	a := p.Masked().Addr().As4()
	for i := range 32 - p.Bits() {
		a[3-i/8] |= 1 << (i % 8)
	}
	return netip.AddrFrom4(a).Prev()
}

// judged is how often in a row each peer's packets were lost, after one more trial.
func judged(before map[cluster.NodeID]int, got map[cluster.NodeID]outcome) map[cluster.NodeID]int {
	after := map[cluster.NodeID]int{}
	for node, o := range got {
		if o == gotLost {
			after[node] = before[node] + 1
		}
	}
	return after
}

// lostOnTheWay says which peers' containers are not reached though the nodes are there.
func lostOnTheWay(lost map[cluster.NodeID]int, tried map[cluster.NodeID]trial) error {
	var errs []error
	for _, node := range slices.Sorted(maps.Keys(lost)) {
		if t, is := tried[node]; is && lost[node] >= lostFrom {
			errs = append(errs, unreachedf(node, "the node is alive, and packets from %s to %s get lost between: have the network let through addresses that it did not give (a cloud's source/destination check, port security or anti-spoofing; AllowedIPs of WireGuard)", t.from, t.to))
		}
	}
	return errors.Join(errs...)
}

// tryPaths tries the ways to the peers' containers until ctx ends.
func (m *Mesh) tryPaths(ctx context.Context) {
	tick := time.NewTicker(tryEvery)
	defer tick.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := m.tryOnce(ctx); err != nil && ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			m.cfg.Log.Warn("cannot tell whether containers of other nodes are reached", "error", err)
		}
	}
}

func (m *Mesh) tryOnce(ctx context.Context) error {
	m.mu.Lock()
	all := trials(m.networks, m.peers)
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	got, err := m.host.try(ctx, all)
	if err != nil {
		return fmt.Errorf("try the ways to other nodes: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lost = judged(m.lost, got)
	m.blocked = lostOnTheWay(m.lost, trials(m.networks, m.peers))
	m.tellUnreached()
	return nil
}
