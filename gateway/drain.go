package gateway

import (
	"context"
	"time"
)

const (
	drainMargin = 5 * time.Second
	drainLook   = 2 * time.Second // at a replaced process that has long connections
	// maxReplaced bounds how many replaced processes live on for their connections,
	// and longestDrain for how long.
	maxReplaced  = 3
	longestDrain = 24 * time.Hour
)

// drain waits until nobody is connected to a replaced process, or for as long as it
// may live on for those who are, then ends it.
func (g *Gateway) drain(ctx context.Context, p *process) {
	since := g.cfg.Now()
	look := time.NewTicker(250 * time.Millisecond)
	defer look.Stop()
	for quiet, deaf := 0, 0; quiet < 4 && !p.gone(); {
		select {
		case <-ctx.Done():
			return // the next Fairlead goes on
		case <-look.C:
		}
		if n, err := connections(p); err == nil && n == 0 {
			quiet++
		} else {
			quiet = 0
		}
		drained := g.cfg.Now().Sub(since)
		if drained <= g.shortDrain() {
			continue
		}
		// What has connections still has long ones: they are looked at less often.
		look.Reset(drainLook)
		if _, err := p.api.marker(ctx); err != nil {
			deaf++
		} else {
			deaf = 0
		}
		if cutOff(drained, deaf, g.replacedAfter(p)) {
			g.log.Info("ending a replaced Traefik that still has connections", "pid", p.PID)
			break
		}
	}
	if err := p.stop(ctx, g.cfg.Grace); err != nil && ctx.Err() == nil {
		g.log.Error("could not stop a replaced Traefik", "error", err)
	}
	select {
	case g.drained <- p:
	case <-ctx.Done():
	}
}

// cutOff decides whether a replaced process that has only long connections left is
// ended: after a day, when it has not answered so often in a row (acknowledgements wait
// for it), or when so many were replaced after it and live on too.
func cutOff(drained time.Duration, deaf, after int) bool {
	return drained > longestDrain || deaf > 2 || after >= maxReplaced
}

// shortDrain is how long connections can last that clients keep between requests. One
// is closed with the first answer after its time is up, so one that was opened just
// before the swap needs longer than that time.
func (g *Gateway) shortDrain() time.Duration { return 2*g.cfg.KeepAliveMaxTime + drainMargin }

// replacedAfter counts the processes that were replaced after p and live on.
func (g *Gateway) replacedAfter(p *process) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, o := range g.serving {
		if o.Generation > p.Generation && !o.gone() {
			n++
		}
	}
	return n - 1 // the current one
}
