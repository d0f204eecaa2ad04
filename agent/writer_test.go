package agent

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
)

// written is a store that keeps what was written, and when.
type written struct {
	Store
	began   time.Time
	batches []batch
}

type batch struct {
	after time.Duration
	put   []cluster.Status
}

func (w *written) WriteStatus(_ context.Context, _ cluster.NodeID, put []cluster.Status, _ []cluster.TaskID) error {
	w.batches = append(w.batches, batch{time.Since(w.began), put})
	return nil
}

// What is on the way to ready is written with others, and soon in any case; what
// somebody waits for is written at once, with what waits.
func TestStatusesOnTheWayAreWrittenTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &written{began: time.Now()}
		w := newStatusWriter(&Config{Store: store, Log: hclog.NewNullLogger()})
		ctx, cancel := context.WithCancelCause(t.Context())
		ended := make(chan error)
		go func() { ended <- w.run(ctx) }()

		w.put(cluster.Status{Task: "a", State: cluster.StateStarting}, canWait)
		time.Sleep(canWait / 2)
		w.put(cluster.Status{Task: "a", State: cluster.StateRunning}, canWait)
		w.put(cluster.Status{Task: "b", State: cluster.StateStarting}, canWait)
		time.Sleep(time.Second)
		synctest.Wait()
		if len(store.batches) != 1 || store.batches[0].after != canWait || len(store.batches[0].put) != 2 {
			t.Fatalf("wrote %+v, want both tasks once, %v after the first", store.batches, canWait)
		}

		store.batches = nil
		w.put(cluster.Status{Task: "b", State: cluster.StateRunning}, canWait)
		w.put(cluster.Status{Task: "a", State: cluster.StateRunning, Ready: true}, 0)
		synctest.Wait()
		if len(store.batches) != 1 || len(store.batches[0].put) != 2 {
			t.Fatalf("wrote %+v, want what waits at once with what cannot", store.batches)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if len(store.batches) != 1 {
			t.Fatalf("wrote %+v again", store.batches[1:])
		}
		end := errors.New("the end")
		cancel(end)
		if err := <-ended; !errors.Is(err, end) {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestPatience(t *testing.T) {
	s := func(state cluster.TaskState, ready bool, restarts int) cluster.Status {
		return cluster.Status{Task: "a", State: state, Ready: ready, Restarts: restarts}
	}
	for name, c := range map[string]struct {
		prev, next cluster.Status
		waits      bool
	}{
		"the first":              {cluster.Status{}, s(cluster.StateStarting, false, 0), false},
		"its container is made":  {s(cluster.StateStarting, false, 0), s(cluster.StateStarting, false, 0), true},
		"it runs, not ready yet": {s(cluster.StateStarting, false, 0), s(cluster.StateRunning, false, 0), true},
		"ready":                  {s(cluster.StateRunning, false, 0), s(cluster.StateRunning, true, 0), false},
		"not ready any more":     {s(cluster.StateRunning, true, 0), s(cluster.StateRunning, false, 0), false},
		"it ended":               {s(cluster.StateRunning, true, 0), s(cluster.StateStarting, false, 0), false},
		"it starts once more":    {s(cluster.StateStarting, false, 0), s(cluster.StateStarting, false, 1), false},
		"failed":                 {s(cluster.StateRunning, false, 0), s(cluster.StateFailed, false, 0), false},
		"stops":                  {s(cluster.StateStarting, false, 0), s(cluster.StateStopping, false, 0), false},
	} {
		if got := patience(c.prev, c.next) > 0; got != c.waits {
			t.Errorf("%s: waits %v, want %v", name, got, c.waits)
		}
	}
}
