package gateway

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/fairlead/fairlead/outage"
)

// A server whose node is gone leaves dials hanging until its endpoint is withdrawn.
// Traefik sends a request that met it to the next server after the dial's timeout; here
// such a server is noticed sooner and its dials are refused, so that each goes on at once.
const (
	dialsEvery = 200 * time.Millisecond
	// hangsAfter is how long a dial is unanswered, far longer than one takes, before
	// its server is passed by; half of Traefik's dial timeout.
	hangsAfter = 500 * time.Millisecond
	// passedBy is how long dials are refused: then the next request tries it again.
	passedBy = 6 * time.Second
)

// dial is a connection that is not answered yet.
type dial struct {
	from uint16
	to   netip.AddrPort
}

// hanging tells servers whose dials hang by looking at the dials again and again.
type hanging struct {
	since  map[dial]time.Time
	marked map[netip.AddrPort]time.Time // servers that are passed by, until when
}

// look returns which servers to pass by from now on. Of the servers of a service at least
// one is left that is neither passed by nor hangs: where all hang the link is bad, and
// waiting is better than no answer.
func (h *hanging) look(dials []dial, services func() [][]netip.AddrPort, now time.Time) []netip.AddrPort {
	since, hang := map[dial]time.Time{}, map[netip.AddrPort]bool{}
	for _, d := range dials {
		first, known := h.since[d]
		if !known {
			first = now
		}
		since[d] = first
		if now.Sub(first) >= hangsAfter {
			hang[d.to] = true
		}
	}
	h.since = since
	maps.DeleteFunc(h.marked, func(_ netip.AddrPort, until time.Time) bool { return !now.Before(until) })
	maps.DeleteFunc(hang, func(s netip.AddrPort, _ bool) bool { return h.passed(s) })
	if len(hang) == 0 {
		return nil
	}
	stays := func(s netip.AddrPort) bool { return !hang[s] && !h.passed(s) }
	served := map[netip.AddrPort]bool{} // by others too, in each service that has the server
	for _, servers := range services() {
		others := slices.ContainsFunc(servers, stays)
		for _, s := range servers {
			before, known := served[s]
			served[s] = others && (before || !known)
		}
	}
	var out []netip.AddrPort
	for s := range hang {
		if served[s] {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	for _, s := range out {
		if h.marked == nil {
			h.marked = map[netip.AddrPort]time.Time{}
		}
		h.marked[s] = now.Add(passedBy)
	}
	return out
}

func (h *hanging) passed(s netip.AddrPort) bool {
	_, is := h.marked[s]
	return is
}

// passByHanging keeps requests from servers whose dials hang. Without it they are slower,
// and not lost: it ends with the context alone.
func (g *Gateway) passByHanging(ctx context.Context) error {
	var (
		h    hanging
		away outage.Outage
	)
	tick := time.NewTicker(dialsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		dials, err := openDials()
		if err == nil {
			if marks := h.look(dials, g.tree.servers, g.cfg.Now()); len(marks) > 0 {
				g.log.Info("connections to servers hang; passing them by for a moment", "servers", marks)
				err = g.nat.refuse(ctx, marks)
			}
		}
		switch {
		case ctx.Err() != nil:
		case err != nil:
			away.Failed(g.log, "cannot tell servers whose connections hang: requests wait for them", "error", err)
		default:
			away.Over(g.log, "servers whose connections hang are passed by again")
		}
	}
}

// Of the kernel's interface for looking at sockets, which package unix has not.
const (
	tcpSynSent     = 2
	lenDiagRequest = 56
	lenDiagMessage = 72
)

// diagRequest asks for the TCP sockets by IPv4 that are in SYN_SENT. Containers have IPv4.
type diagRequest struct{}

func (diagRequest) Len() int { return lenDiagRequest }

func (diagRequest) Serialize() []byte {
	b := make([]byte, lenDiagRequest)
	b[0], b[1] = unix.AF_INET, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(b[4:], 1<<tcpSynSent)
	return b
}

// openDials are the connections of this network namespace that are not answered yet.
func openDials() ([]dial, error) {
	req := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
	req.AddData(diagRequest{})
	messages, err := req.Execute(unix.NETLINK_INET_DIAG, 0)
	if err != nil {
		return nil, fmt.Errorf("list connections that are not answered: %w", err)
	}
	out := make([]dial, 0, len(messages))
	for _, m := range messages {
		if len(m) < lenDiagMessage || m[1] != tcpSynSent {
			continue
		}
		to := netip.AddrFrom4([4]byte(m[24:28]))
		out = append(out, dial{from: binary.BigEndian.Uint16(m[4:]), to: netip.AddrPortFrom(to, binary.BigEndian.Uint16(m[6:]))})
	}
	return out, nil
}
