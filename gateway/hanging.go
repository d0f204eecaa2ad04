package gateway

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/fairlead/fairlead/outage"
)

// A node that has lost its power answers nothing, and until its endpoints are
// withdrawn each request that meets one of its tasks waits for Traefik's dial to time
// out. So the gateway looks at the dials under way. To a server that leaves one
// hanging it has the kernel refuse Traefik's next ones for a while, and a request that
// is refused is sent on to the next server at once (docs/adr/0017).
const (
	dialsEvery   = 250 * time.Millisecond
	hangingAfter = 400 * time.Millisecond // well below Traefik's dial timeout, above the way round the world
	refuseFor    = 3 * time.Second

	// A look goes past all connections of the machine: with 10,000 of them it takes a
	// millisecond. One that takes longer is taken less often while nothing is under way.
	dialsSeldom = 500 * time.Millisecond
	dialsCost   = time.Millisecond
)

// dial is a connection that waits for the answer to its first packet.
type dial struct {
	to netip.AddrPort
	id uint64 // the kernel's number of the socket, which no other ever has
}

// dials is what is known of them.
type dials struct {
	since   map[dial]time.Time // seen first, of those that hang still
	refused map[netip.AddrPort]time.Time
	alone   bool // nothing is refused but that: marks of the gateway before this one are gone
}

// see takes note of the dials under way, and of marks that have run out.
func (d *dials) see(now time.Time, under []dial) {
	since := make(map[dial]time.Time, len(under))
	for _, s := range under {
		since[s] = now
		if t, ok := d.since[s]; ok {
			since[s] = t
		}
	}
	d.since = since
	maps.DeleteFunc(d.refused, func(_ netip.AddrPort, until time.Time) bool { return !now.Before(until) })
}

// plan returns which servers are to be refused from now on, and which no longer. A
// server is refused only where each service that it serves has another one that
// answers as far as is known: where all hang the link is bad, or the gateway's own,
// and waiting is all that can help.
func (d *dials) plan(now time.Time, services map[string][]netip.AddrPort) (add, del []netip.AddrPort) {
	hangs := map[netip.AddrPort]bool{}
	for a := range d.refused {
		hangs[a] = true
	}
	for s, t := range d.since {
		if now.Sub(t) >= hangingAfter {
			hangs[s.to] = true
		}
	}
	served, needed := map[netip.AddrPort]bool{}, map[netip.AddrPort]bool{}
	for _, servers := range services {
		all := !slices.ContainsFunc(servers, func(a netip.AddrPort) bool { return !hangs[a] })
		for _, a := range servers {
			served[a] = true
			needed[a] = needed[a] || all
		}
	}
	for a := range hangs {
		_, is := d.refused[a]
		switch want := served[a] && !needed[a]; {
		case want && !is:
			add = append(add, a)
		case is && !want:
			del = append(del, a)
		}
	}
	slices.SortFunc(add, netip.AddrPort.Compare)
	slices.SortFunc(del, netip.AddrPort.Compare)
	return add, del
}

// changed takes note of what was done.
func (d *dials) changed(until time.Time, add, del []netip.AddrPort) {
	if d.refused == nil {
		d.refused = map[netip.AddrPort]time.Time{}
	}
	for _, a := range del {
		delete(d.refused, a)
	}
	for _, a := range add {
		d.refused[a] = until
	}
}

// watchDials has servers refused that leave dials hanging.
func (g *Gateway) watchDials(ctx context.Context) error {
	var (
		known    dials
		services map[string][]netip.AddrPort
		changed  <-chan struct{}
		rev      int64
		away     outage.Outage
	)
	for ctx.Err() == nil {
		if now := g.tree.now(); services == nil || now != rev {
			services, changed = g.tree.servers()
			rev = now
		}
		if len(known.refused) == 0 && !balanced(services) { // there is nowhere else to send a request
			select {
			case <-ctx.Done():
			case <-changed:
			}
			continue
		}
		began := g.cfg.Now()
		err := g.lookAtDials(ctx, &known, services)
		pause := dialsEvery
		if len(known.since) == 0 && g.cfg.Now().Sub(began) > dialsCost {
			pause = dialsSeldom
		}
		if err == nil {
			away.Over(g.log, "servers that do not answer are passed by again")
		} else if ctx.Err() == nil {
			away.Failed(g.log, "cannot pass by servers that do not answer", "error", err, "retry_in", lookEvery)
			pause = lookEvery
		}
		var soon <-chan struct{}
		if len(known.refused) > 0 {
			soon = changed // the others may be gone
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-soon:
		case <-t.C:
		}
		t.Stop()
	}
	return context.Cause(ctx)
}

// balanced reports whether any service has several servers.
func balanced(services map[string][]netip.AddrPort) bool {
	for _, s := range services {
		if len(s) > 1 {
			return true
		}
	}
	return false
}

func (g *Gateway) lookAtDials(ctx context.Context, known *dials, services map[string][]netip.AddrPort) error {
	under, err := dialsUnderWay()
	if err != nil {
		return err
	}
	now := g.cfg.Now()
	known.see(now, under)
	add, del := known.plan(now, services)
	if len(add)+len(del) == 0 {
		return nil
	}
	if err := g.nat.refuse(ctx, add, del, !known.alone); err != nil {
		return err
	}
	known.alone = true
	// Not from before it was done: where the kernel still refuses, this must know.
	known.changed(g.cfg.Now().Add(refuseFor), add, del)
	if len(add) > 0 {
		g.log.Debug("servers leave connections hanging; passing them by", "servers", add, "for", refuseFor)
	}
	return nil
}

// dialsUnderWay asks the kernel for the TCP connections of this thread's network
// namespace that wait for an answer to their first packet. Of IPv4 alone, as
// containers' addresses are. Those of other users are left out: whoever may send
// packets that get nowhere (a TTL of 1) could have servers passed by.
func dialsUnderWay() ([]dial, error) {
	// struct inet_diag_req_v2, and the struct inet_diag_msg that answers it.
	const (
		sizeRequest, sizeAnswer                             = 56, 72
		atProtocol, atStates                                = 1, 4
		atState, atPort, atAddress, atCookie, atUID, sizeIP = 1, 6, 24, 44, 64, 4
	)
	b := make([]byte, sizeRequest)
	b[0], b[atProtocol] = unix.AF_INET, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(b[atStates:], 1<<netlink.TCP_SYN_SENT)
	req := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
	req.AddRawData(b)
	own := uint32(os.Geteuid()) //nolint:gosec // a user's number
	var out []dial
	err := req.ExecuteIter(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY, func(m []byte) bool {
		if len(m) < sizeAnswer || m[atState] != netlink.TCP_SYN_SENT || binary.NativeEndian.Uint32(m[atUID:]) != own {
			return true
		}
		to, _ := netip.AddrFromSlice(m[atAddress : atAddress+sizeIP])
		out = append(out, dial{
			to: netip.AddrPortFrom(to, binary.BigEndian.Uint16(m[atPort:])), id: binary.NativeEndian.Uint64(m[atCookie:]),
		})
		return true
	})
	if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) { // what came or went meanwhile does not hang
		return nil, fmt.Errorf("ask for connections under way: %w", err)
	}
	return out, nil
}
