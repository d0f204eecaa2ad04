package gateway

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

const (
	pollFast = 12 * time.Millisecond // while a revision is awaited
	pollSlow = 5 * time.Second
	// settle lies between the two looks that confirm a revision. Traefik switches
	// its entry points one after the other, its API's own among them, so the first
	// look can be a moment ahead of the public ones.
	settle     = 10 * time.Millisecond
	lagAlarm   = 10 * time.Second
	alarmEvery = time.Minute
	saveEvery  = time.Second
)

// shown is what a process's API showed, and what of it is confirmed.
type shown struct {
	confirmed int64
	candidate int64
	at        time.Time // of candidate
}

func (s *shown) confirm(rev int64) { s.confirmed, s.candidate = rev, rev }

// look notes that the API showed rev at now.
func (s *shown) look(rev int64, now time.Time) {
	switch {
	case rev < s.candidate: // the store was put back to an older state
		*s = shown{confirmed: min(s.confirmed, rev), candidate: rev, at: now}
	case s.candidate > s.confirmed && now.Sub(s.at) >= settle:
		s.confirmed, s.candidate, s.at = s.candidate, rev, now
	case rev > s.candidate && s.candidate <= s.confirmed:
		s.candidate, s.at = rev, now
	}
}

// acknowledge reads the revision back from Traefik and records it.
func (g *Gateway) acknowledge(ctx context.Context) error {
	var a acker
	for {
		want, _, changed := g.tree.wanted()
		pause := g.poll(ctx, &a, want)
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		case <-t.C:
		case <-changed:
		case <-g.news:
		}
		t.Stop()
	}
}

// acker is the memory of acknowledge.
type acker struct {
	written cluster.GatewayAck
	behind  time.Time // since when Traefik lags; zero when it does not
	alarmed time.Time
	saved   int64 // the tree's revision that is on disk
	savedAt time.Time
}

// poll looks at every serving process once, records what it may, and returns how
// long to wait.
func (g *Gateway) poll(ctx context.Context, a *acker, want int64) time.Duration {
	g.mu.Lock()
	serving := g.serving
	ack := cluster.GatewayAck{Node: g.cfg.Node, Route: -1, Entries: g.entries, Refused: g.refused, Since: g.since}
	g.mu.Unlock()
	now := g.cfg.Now()
	for _, p := range serving {
		if p.gone() {
			continue
		}
		rev, err := p.api.marker(ctx)
		if err != nil {
			if p.gone() {
				continue
			}
			rev = p.shown.confirmed // no news: it may have connections, so it counts
		}
		p.shown.look(rev, g.cfg.Now())
		if ack.Route < 0 || int64(ack.Route) > p.shown.confirmed {
			ack.Route = cluster.StoreRev(p.shown.confirmed)
		}
		ack.Traefik = p.Version
	}
	if ctx.Err() != nil {
		return pollSlow
	}
	pause := pollSlow
	switch {
	case ack.Route < 0:
		ack.Route = a.written.Route // nobody serves: nothing new to acknowledge
		pause = 10 * pollFast
		a.lag(now)
	case int64(ack.Route) < want:
		pause = pollFast
		a.lag(now)
	default:
		a.behind = time.Time{}
		g.keep(a, want, now)
	}
	if !a.behind.IsZero() && now.Sub(a.behind) > lagAlarm {
		pause = 20 * pollFast
		ack.Error = g.alarm(a, serving, want, now)
	}
	if !sameAck(ack, a.written) {
		if err := g.cluster.Ack(ctx, ack); err != nil {
			if ctx.Err() == nil {
				g.log.Debug("could not record the revision served; will try again", "error", err)
			}
			return max(pause, 200*time.Millisecond)
		}
		a.written = ack
	}
	return pause
}

func sameAck(a, b cluster.GatewayAck) bool {
	return a.Node == b.Node && a.Route == b.Route && a.Traefik == b.Traefik && a.Error == b.Error &&
		slices.Equal(a.Entries, b.Entries) && maps.Equal(a.Refused, b.Refused)
}

func (a *acker) lag(now time.Time) {
	if a.behind.IsZero() {
		a.behind = now
	}
}

func (g *Gateway) alarm(a *acker, serving []*process, want int64, now time.Time) string {
	text := "no Traefik runs"
	for _, p := range serving {
		if !p.gone() {
			text = "Traefik does not take the routes: " + lastWords(g.cfg, p)
		}
	}
	if a.alarmed.IsZero() || now.Sub(a.alarmed) > alarmEvery {
		a.alarmed = now
		g.log.Error("the gateway lags behind the cluster's routes", "wanted", want, "since", a.behind.UTC().Format(time.RFC3339), "reason", text)
	}
	return text
}

// keep writes the routes to disk once Traefik has shown that it takes them.
func (g *Gateway) keep(a *acker, marker int64, now time.Time) {
	rev := g.tree.now()
	if rev == a.saved || now.Sub(a.savedAt) < saveEvery {
		return
	}
	ok, err := g.tree.save(g.cfg.dataDir(), marker)
	if err != nil {
		g.log.Error("could not keep the routes for a start without the control plane", "error", err)
	}
	if ok {
		a.saved, a.savedAt = rev, now
	}
}
