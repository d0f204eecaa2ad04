//go:build linux

package mesh

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/cluster"
)

// SetPeers says which other nodes there are, and by which address they know this one; it
// may be not valid. It returns once the kernel knows how to reach their containers. A node
// that nobody could reach is left out, and told of: rules and routes are for IPv4, and one
// that is not would have the kernel refuse all of them.
func (m *Mesh) SetPeers(ctx context.Context, self netip.Addr, peers []Peer) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.peers, m.odd = usable(peers)
	m.self, m.peersKnown, m.reached = self, true, false
	return m.sync(ctx, false)
}

// usable are the peers that the kernel's rules can have, and what is wrong with the others.
func usable(peers []Peer) (out []Peer, odd error) {
	var errs []error
	for _, p := range peers {
		if !p.Address.Is4() {
			has := "what it gives as its address is none"
			if p.Address.IsValid() {
				has = "its address is " + p.Address.WithZone("").String()
			}
			errs = append(errs, unreachedf(p.Node, "%s, and containers are reached by IPv4 alone (--advertise there names another one)", has))
			continue
		}
		p.Blocks = slices.DeleteFunc(slices.Clone(p.Blocks), func(b netip.Prefix) bool { return !b.Addr().Is4() })
		nets := make(map[cluster.NetworkName]netip.Prefix, len(p.Networks))
		for name, n := range p.Networks {
			if n.Addr().Is4() {
				nets[name] = n
			}
		}
		p.Networks = nets
		out = append(out, p)
	}
	return out, errors.Join(errs...)
}

func unreachedf(node cluster.NodeID, format string, args ...any) error {
	return fmt.Errorf("containers of node %s are not reached: "+format, append([]any{node}, args...)...)
}

// reach sets the routes to other nodes' containers. One that cannot be set holds
// up nothing else: it is tried again.
func (m *Mesh) reach() {
	if m.reached {
		return
	}
	m.unrouted = m.host.reach(m.self, m.peers, calledNets(m.networks))
	m.reached = m.unrouted == nil
	m.tellUnreached()
}

// tellUnreached tells which nodes' containers are not reached, where that changed.
func (m *Mesh) tellUnreached() {
	text := ""
	if err := errors.Join(m.odd, m.unrouted, m.blocked); err != nil {
		text = few(strings.Split(err.Error(), "\n"))
	}
	if text == m.unreached {
		return
	}
	m.unreached = text
	if text != "" {
		m.cfg.Log.Error("containers of other nodes are not reached; will look again", "error", text)
	}
	if m.cfg.Unreached != nil {
		m.cfg.Unreached(text)
	}
}

// few is the first few of many lines, in one.
func few(lines []string) string {
	const most = 5
	if n := len(lines); n > most {
		lines = append(slices.Clone(lines[:most]), fmt.Sprintf("and %d more", n-most))
	}
	return strings.Join(lines, "; ")
}

// doubtRoutes has the routes to other nodes looked at again: others may have
// removed them.
func (m *Mesh) doubtRoutes() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reached = m.reached && len(m.peers) == 0
}
