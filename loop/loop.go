package loop

import (
	"context"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/outage"
)

// Loop runs a planner against the store.
//
// S is the snapshot, A the closed set of actions.
type Loop[S, A any] struct {
	Name string
	// Snapshot returns the state and the revision it stands at.
	Snapshot func(ctx context.Context) (S, error)
	Plan     func(S) []A
	// Apply writes what was planned, comparing the revisions in S.
	Apply func(ctx context.Context, s S, acts []A) error
	// Changed returns a channel that receives (or closes) after the next change of
	// what Snapshot reads. It is asked for before the snapshot is taken, so that
	// no change is lost.
	Changed func() <-chan struct{}
	// Wake, when not nil, says how long until the plan could differ without a
	// change in the store (a back-off ends, a window passes); 0 means never.
	Wake func(S) time.Duration

	Resync time.Duration // plan at least this often
	// Gather waits this long after a change for more of them; 0 plans at once.
	Gather time.Duration
	Log    hclog.Logger
}

const (
	firstBackoff = 20 * time.Millisecond
	maxBackoff   = 5 * time.Second
)

// Run plans until ctx ends and returns the context's cause.
func (l *Loop[S, A]) Run(ctx context.Context) error {
	backoff := time.Duration(0)
	var away outage.Outage
	for ctx.Err() == nil {
		changed := l.Changed()
		wait, err := l.once(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			backoff = min(max(2*backoff, firstBackoff), maxBackoff)
			if cluster.KindOf(err) == cluster.KindConflict {
				l.Log.Debug("state moved on while planning; planning again", "loop", l.Name, "error", err)
			} else {
				away.Failed(l.Log, "could not apply the plan; planning again", "loop", l.Name, "error", err, "retry_in", backoff)
			}
			wait, changed = backoff, nil
		default:
			backoff = 0
			if err == nil {
				away.Over(l.Log, "applied the plan", "loop", l.Name)
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-changed:
			if l.Gather > 0 {
				gather := time.NewTimer(l.Gather)
				select {
				case <-ctx.Done():
				case <-gather.C:
				}
				gather.Stop()
			}
		case <-timer.C:
		}
		timer.Stop()
	}
	return context.Cause(ctx)
}

// once plans and applies, and returns how long to wait when nothing changes.
func (l *Loop[S, A]) once(ctx context.Context) (time.Duration, error) {
	s, err := l.Snapshot(ctx)
	if err != nil {
		return 0, err
	}
	if acts := l.Plan(s); len(acts) > 0 {
		if err := l.Apply(ctx, s, acts); err != nil {
			return 0, err
		}
	}
	wait := l.Resync
	if l.Wake != nil {
		if w := l.Wake(s); w > 0 && w < wait {
			wait = w
		}
	}
	return wait, nil
}
