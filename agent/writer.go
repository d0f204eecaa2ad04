package agent

import (
	"context"
	"reflect"
	"sync"
	"time"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/outage"
)

// gather is the least time between two writes of statuses: what changes
// meanwhile goes into one transaction.
const gather = 25 * time.Millisecond

// canWait is how long a status may wait for others to be written with. Each write
// has the whole cluster look at its state anew; while fifty containers start, most
// of what they say on the way is of interest to nobody but who watches them start.
const canWait = 200 * time.Millisecond

// patience says how long a change of a task's status may wait: not at all, unless it
// is a step of a start on which nothing waits.
func patience(prev, next cluster.Status) time.Duration {
	onTheWay := next.State == cluster.StateStarting || next.State == cluster.StateRunning && !next.Ready
	if onTheWay && !prev.Ready && prev.Task != "" && next.Restarts == prev.Restarts && next.ExitCode == prev.ExitCode {
		return canWait
	}
	return 0
}

// statusWriter writes the newest status of each task to the store.
type statusWriter struct {
	cfg  *Config
	kick chan struct{} // something must be written now

	mu      sync.Mutex
	pending map[cluster.TaskID]*cluster.Status // nil: the task is gone
	writing bool                               // what was pending
	writes  int                                // that succeeded
	waits   *time.Timer                        // kicks when what waits must be written; nil: nothing waits
}

func newStatusWriter(cfg *Config) *statusWriter {
	return &statusWriter{cfg: cfg, kick: make(chan struct{}, 1), pending: map[cluster.TaskID]*cluster.Status{}}
}

func (w *statusWriter) put(s cluster.Status, wait time.Duration) { w.set(s.Task, &s, wait) }
func (w *statusWriter) gone(id cluster.TaskID)                   { w.set(id, nil, 0) }

func (w *statusWriter) set(id cluster.TaskID, s *cluster.Status, wait time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pending[id] = s
	switch {
	case wait == 0:
		w.again()
	case w.waits == nil:
		w.waits = time.AfterFunc(wait, w.again)
	}
}

func (w *statusWriter) take() map[cluster.TaskID]*cluster.Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.pending
	w.pending, w.writing = map[cluster.TaskID]*cluster.Status{}, true
	if w.waits != nil {
		w.waits.Stop()
		w.waits = nil
	}
	return out
}

// back puts what could not be written behind what came since.
func (w *statusWriter) back(batch map[cluster.TaskID]*cluster.Status) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, s := range batch {
		if _, newer := w.pending[id]; !newer {
			w.pending[id] = s
		}
	}
}

// run writes until ctx ends. The first change after a quiet time goes out at once,
// if it may not wait; what waits goes out with it.
func (w *statusWriter) run(ctx context.Context) error {
	wait := gather
	var away outage.Outage
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-w.kick:
		}
		batch := w.take()
		var put []cluster.Status
		var gone []cluster.TaskID
		for id, s := range batch {
			if s == nil {
				gone = append(gone, id)
			} else {
				put = append(put, *s)
			}
		}
		if len(batch) == 0 {
			w.wrote(true)
			continue
		}
		if err := w.cfg.Store.WriteStatus(ctx, w.cfg.Node, put, gone); err != nil && ctx.Err() == nil {
			away.Failed(w.cfg.Log, "could not write statuses; will retry", "error", err)
			w.back(batch)
			w.again()
			w.wrote(false)
			wait = min(max(2*wait, 100*time.Millisecond), 2*time.Second)
		} else {
			away.Over(w.cfg.Log, "wrote statuses")
			w.wrote(true)
			wait = gather
		}
		pause(ctx, wait)
	}
}

func (w *statusWriter) wrote(ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writing = false
	if ok {
		w.writes++
	}
}

// flushed waits until all is written that was put before.
func (w *statusWriter) flushed(ctx context.Context) error {
	w.mu.Lock()
	enough := w.writes + 1
	if w.writing {
		enough++
	}
	w.mu.Unlock()
	for ctx.Err() == nil {
		w.mu.Lock()
		done := w.writes >= enough || len(w.pending) == 0 && !w.writing
		w.mu.Unlock()
		if done {
			return nil
		}
		pause(ctx, 5*time.Millisecond)
	}
	return context.Cause(ctx)
}

func (w *statusWriter) again() {
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// sameStatus compares all but the time of observation.
func sameStatus(a, b cluster.Status) bool {
	a.At, b.At, a.Rev, b.Rev = time.Time{}, time.Time{}, 0, 0
	if len(a.LogTail) == 0 && len(b.LogTail) == 0 {
		a.LogTail, b.LogTail = nil, nil
	}
	if !a.Started.Equal(b.Started) || !a.ReadySince.Equal(b.ReadySince) {
		return false
	}
	a.Started, a.ReadySince, b.Started, b.ReadySince = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	return reflect.DeepEqual(a, b)
}
