package loop_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/loop"
)

// counter is a store that counts: a snapshot is the count, an action adds one.
type counter struct {
	snapshots, value int
	want             int
	err              error
	changed          chan struct{}
}

func (c *counter) loop() *loop.Loop[int, int] {
	return &loop.Loop[int, int]{
		Name: "counter", Resync: time.Hour, Log: hclog.NewNullLogger(),
		Snapshot: func(context.Context) (int, error) { c.snapshots++; return c.value, nil },
		Plan: func(have int) []int {
			if have < c.want {
				return []int{1}
			}
			return nil
		},
		Apply: func(_ context.Context, _ int, acts []int) error {
			if c.err != nil {
				return c.err
			}
			c.value += len(acts)
			return nil
		},
		Changed: func() <-chan struct{} { return c.changed },
	}
}

// run runs l for d of fake time and returns what Run returned.
func run[S, A any](t *testing.T, l *loop.Loop[S, A], d time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	time.Sleep(d)
	synctest.Wait()
	cancel(errStop)
	return <-done
}

var errStop = errors.New("stop")

func TestResyncsWithoutEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counter{}
		if err := run(t, c.loop(), 24*time.Hour+time.Second); !errors.Is(err, errStop) {
			t.Errorf("Run = %v, want the context's cause", err)
		}
		if c.snapshots != 25 {
			t.Errorf("planned %d times in a day, want 25", c.snapshots)
		}
	})
}

func TestPlansAgainAfterAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counter{changed: make(chan struct{}, 1)}
		c.changed <- struct{}{}
		_ = run(t, c.loop(), time.Minute)
		if c.snapshots != 2 {
			t.Errorf("planned %d times, want 2: at start and after the change", c.snapshots)
		}
	})
}

func TestConflictMeansAFreshSnapshotSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counter{want: 1, err: cluster.Conflictf("moved on")}
		_ = run(t, c.loop(), 2*time.Second)
		if c.snapshots < 5 || c.snapshots > 20 {
			t.Errorf("planned %d times in 2s of conflicts, want a doubling back-off", c.snapshots)
		}
		if c.value != 0 {
			t.Errorf("value %d: a failed decision was applied", c.value)
		}
	})
}

func TestWakesForADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counter{}
		l := c.loop()
		l.Wake = func(int) time.Duration { return 10 * time.Second }
		_ = run(t, l, time.Minute+time.Second)
		if c.snapshots != 7 {
			t.Errorf("planned %d times in a minute, want 7", c.snapshots)
		}
	})
}

func TestGathersChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counter{}
		l := c.loop()
		l.Gather = time.Second
		var mu sync.Mutex
		changed := make(chan struct{})
		l.Changed = func() <-chan struct{} {
			mu.Lock()
			defer mu.Unlock()
			return changed
		}
		go func() {
			for range 5 { // five changes within the second that the loop gathers for
				time.Sleep(100 * time.Millisecond)
				mu.Lock()
				close(changed)
				changed = make(chan struct{})
				mu.Unlock()
			}
		}()
		_ = run(t, l, 10*time.Second)
		if c.snapshots != 2 {
			t.Errorf("planned %d times for five changes close together, want 2", c.snapshots)
		}
	})
}
