package control

import (
	"context"
	"time"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// caughtUp waits until m holds what was committed at rev. Without it a loop
// plans on the state from before its own write and loses a comparison for it.
func caughtUp(ctx context.Context, m *store.Mirror, rev int64) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-m.Ready():
	}
	var bound <-chan time.Time
	for {
		changed := m.Changed()
		if m.Rev() >= rev {
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
			return cluster.Transientf("the store's mirror stands at %d and does not reach %d", m.Rev(), rev)
		}
	}
}
