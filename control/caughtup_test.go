package control

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/store"
)

// at is an empty store that stands at a revision; a watch ends when it is another.
type at struct {
	store.Store
	rev   atomic.Int64
	moved chan struct{}
}

func (a *at) List(context.Context, string) ([]store.Entry, int64, error) {
	return nil, a.rev.Load(), nil
}

func (a *at) Watch(ctx context.Context, _ string, _ int64) <-chan store.Batch {
	out := make(chan store.Batch)
	go func() {
		defer close(out)
		select {
		case <-ctx.Done():
		case <-a.moved:
		}
	}()
	return out
}

// A loop waits to see what it wrote, but not for what is gone because the store was put back
// to a state from before that.
func TestCaughtUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		st := &at{moved: make(chan struct{})}
		move := func(rev int64) {
			st.rev.Store(rev)
			st.moved <- struct{}{}
			time.Sleep(time.Minute)
		}
		m := store.NewMirror(st, "", hclog.NewNullLogger())
		go func() { _ = m.Run(ctx) }()
		st.rev.Store(100)
		<-m.Ready()
		var last committed
		last.add(m, 172)
		if err := caughtUp(ctx, m, last); err == nil {
			t.Error("the mirror stands at 100, and the loop goes on without what it wrote at 172")
		}
		move(180)
		if err := caughtUp(ctx, m, last); err != nil {
			t.Error(err)
		}
		last.add(m, 190)
		move(60) // put back
		if err := caughtUp(ctx, m, last); err != nil {
			t.Errorf("what was written at 190 is gone, and waited for: %v", err)
		}
		last.add(m, 70)
		if err := caughtUp(ctx, m, last); err == nil {
			t.Error("the mirror stands at 60, and the loop goes on without what it wrote at 70")
		}
		move(70)
		if err := caughtUp(ctx, m, last); err != nil {
			t.Error(err)
		}
	})
}
