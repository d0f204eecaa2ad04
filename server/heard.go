package server

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/outage"
	"github.com/fairlead/fairlead/store"
)

const (
	// hearEvery is how often the store is asked whether a majority stands behind it. It is
	// asked beside what users ask: no answer of the API waits for that.
	hearEvery = 2 * time.Second
	// hearPatience is how long one question may take.
	hearPatience = 2 * time.Second
	// currentFor is how long what the store confirmed counts as current: a question that
	// takes its time, and the next.
	currentFor = hearEvery + hearPatience + time.Second
)

// heard knows when a majority last confirmed what the mirror holds: one that is cut off
// goes on showing what it had.
type heard struct {
	// ask asks the store what only a majority can answer.
	ask     func(ctx context.Context) error
	follows func() bool
	now     func() time.Time
	log     hclog.Logger
	last    atomic.Pointer[time.Time]
}

func newHeard(st store.Store, mirror *store.Mirror, now func() time.Time, log hclog.Logger) *heard {
	h := &heard{
		ask: func(ctx context.Context) error {
			_, err := st.Get(ctx, store.LockKey("leader")) // linearizable, and of a few bytes
			return err
		},
		follows: mirror.Follows, now: now, log: log,
	}
	h.heard(now())
	return h
}

func (h *heard) heard(at time.Time) { h.last.Store(&at) }

// run asks until ctx ends, and says when what the server shows is old, and no longer so.
func (h *heard) run(ctx context.Context) error {
	tick := time.NewTicker(hearEvery)
	defer tick.Stop()
	var away outage.Outage
	for {
		began := h.now()
		if h.confirmed(ctx) {
			h.heard(began)
			away.Over(h.log, "this server hears from a majority again")
		} else if d := h.stale(); d > 0 && ctx.Err() == nil {
			away.Failed(h.log, "this server has not heard from a majority: what it shows may be old", "for", d.Round(time.Second))
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// confirmed reports whether a majority answers, and the mirror is told what it decides.
func (h *heard) confirmed(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, hearPatience)
	defer cancel()
	err := h.ask(ctx)
	answered := err == nil || cluster.KindOf(err) == cluster.KindNotFound
	return answered && h.follows()
}

// stale is for how long nothing was confirmed; 0 while that is not longer than it may be.
func (h *heard) stale() time.Duration { return staleFor(*h.last.Load(), h.now()) }

func staleFor(last, now time.Time) time.Duration {
	if d := now.Sub(last); d > currentFor {
		return d
	}
	return 0
}
