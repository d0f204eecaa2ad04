package control

import (
	"context"
	"time"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// committed is a loop's last write.
type committed struct {
	rev int64
	// turn is of which of the store's histories that was (store.Mirror.Turn).
	turn int64
}

// add takes a write that was made at rev.
func (c *committed) add(m *store.Mirror, rev int64) {
	if t := m.Turn(); t != c.turn {
		*c = committed{turn: t}
	}
	c.rev = max(c.rev, rev)
}

// caughtUp waits until m holds what was committed, unless the store was put back to a state
// from before that. Without it a loop plans on the state from before its own write and loses
// a comparison for it.
func caughtUp(ctx context.Context, m *store.Mirror, last committed) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-m.Ready():
	}
	var bound <-chan time.Time
	for {
		changed := m.Changed()
		if m.Rev() >= last.rev || m.Turn() != last.turn {
			return nil
		}
		if bound == nil {
			t := time.NewTimer(5 * time.Second)
			defer t.Stop()
			bound = t.C
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		case <-bound:
			return cluster.Transientf("the store's mirror stands at %d and does not reach %d", m.Rev(), last.rev)
		}
	}
}
