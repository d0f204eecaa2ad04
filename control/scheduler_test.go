package control

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// schedulerWorld is a store with a scheduler at work on it.
type schedulerWorld struct {
	t    *testing.T
	st   store.Store
	web  cluster.ServiceID
	txns atomic.Int64
	// broken, when set, runs a transaction and reports it as failed.
	broken atomic.Bool
}

func (w *schedulerWorld) Commit(ctx context.Context, txn store.Txn) (int64, error) {
	w.txns.Add(1)
	rev, err := (strict{w.st, w.t, store.WriterScheduler}).Commit(ctx, txn)
	if err == nil && w.broken.Swap(false) {
		return 0, cluster.Transientf("the answer was lost")
	}
	return rev, err
}

// wrapped is the world's store with its own Commit.
type wrapped struct {
	store.Store
	w *schedulerWorld
}

func (x wrapped) Commit(ctx context.Context, txn store.Txn) (int64, error) {
	return x.w.Commit(ctx, txn)
}

func runScheduler(t *testing.T, f func(w *schedulerWorld)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &schedulerWorld{t: t, st: store.NewMemory(), web: cluster.ServiceID{App: "shop", Name: "web"}}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		log := hclog.NewNullLogger()
		m := store.NewMirror(w.st, store.Root, log)
		l := Scheduler(wrapped{w.st, w}, m, time.Now, log)
		for _, run := range []func(context.Context) error{m.Run, l.Run} {
			go func() { _ = run(ctx) }()
		}
		f(w)
		cancel()
		synctest.Wait()
	})
}

func (w *schedulerWorld) node(id cluster.NodeID, cpu int64) {
	w.t.Helper()
	write(w.t, w.st, store.AliveKey(id), "x")
	write(w.t, w.st, store.NodeInfoKey(id), cluster.NodeInfo{ID: id, CPU: cpu, Memory: 1 << 30, OS: "linux", Arch: "amd64"})
}

func (w *schedulerWorld) tasks(n int, spec cluster.TaskSpec) {
	w.t.Helper()
	write(w.t, w.st, store.ServiceKey(w.web), cluster.Service{ServiceID: w.web, Version: spec.Hash(), Spec: cluster.ServiceSpec{Task: spec}})
	for i := range n {
		id := cluster.NewTaskID(w.web, i+1, 1, int64(i), "")
		write(w.t, w.st, store.TaskKey("shop", id), cluster.Task{
			ID: id, ServiceID: w.web, Slot: i + 1, Version: spec.Hash(), Spec: spec, Desire: cluster.DesireRun, N: int64(i),
		})
	}
}

// settle lets the loops come to rest.
func (w *schedulerWorld) settle() {
	time.Sleep(2 * time.Second) // fake time
	synctest.Wait()
}

func (w *schedulerWorld) placements() []cluster.NodePlacement {
	return read[cluster.NodePlacement](w.t, w.st, store.PrefixPlacements)
}

func (w *schedulerWorld) decisions() []cluster.Decision {
	return read[cluster.Decision](w.t, w.st, store.PrefixDecisions)
}

func read[T any](t *testing.T, st store.Store, prefix string) []T {
	t.Helper()
	entries, _, err := st.List(t.Context(), prefix)
	if err != nil {
		t.Fatal(err)
	}
	var out []T
	for _, e := range entries {
		var v T
		if err := json.Unmarshal(e.Value, &v); err != nil {
			t.Fatal(err)
		}
		out = append(out, v)
	}
	return out
}

// Fifty tasks take two transactions, and follow their tasks to the end.
func TestSchedulerPlacesAndFollows(t *testing.T) {
	runScheduler(t, func(w *schedulerWorld) {
		w.tasks(50, cluster.TaskSpec{Image: "i"})
		w.settle()
		w.txns.Store(0)
		w.node("n1", 4000)
		w.settle()
		ps := w.placements()
		if len(ps) != 50 {
			w.t.Fatalf("%d placements", len(ps))
		}
		// The notes on them go along with the second.
		if n := w.txns.Load(); n != 2 {
			w.t.Errorf("took %d transactions", n)
		}
		if ds := w.decisions(); len(ds) != 0 {
			w.t.Errorf("notes on placed tasks are left: %+v", ds[0])
		}
		task := read[cluster.Task](w.t, w.st, store.TaskKey("shop", ps[0].Task))[0]
		task.Desire = cluster.DesireStop
		write(w.t, w.st, store.TaskKey("shop", task.ID), task)
		w.settle()
		key := store.PlacementKey("n1", task.ID)
		if got := read[cluster.NodePlacement](w.t, w.st, key); len(got) != 1 || got[0].Desire != cluster.DesireStop {
			w.t.Errorf("the desire did not follow: %+v", got)
		}
		write(w.t, w.st, store.StatusKey("n1", task.ID), cluster.Status{Task: task.ID, Node: "n1", ServiceID: w.web, State: cluster.StateStopped})
		w.settle()
		if got := read[cluster.NodePlacement](w.t, w.st, key); len(got) != 1 {
			w.t.Errorf("the placement went before the outcome was on record")
		}
		task.Outcome = &cluster.Outcome{State: cluster.StateStopped, Node: "n1"}
		write(w.t, w.st, store.TaskKey("shop", task.ID), task)
		w.settle()
		if got := read[cluster.NodePlacement](w.t, w.st, key); len(got) != 0 {
			w.t.Errorf("the placement of an ended task is left: %+v", got)
		}
	})
}

// What does not fit is told once, and told no more when it fits.
func TestSchedulerExplains(t *testing.T) {
	runScheduler(t, func(w *schedulerWorld) {
		w.node("n1", 1000)
		w.tasks(2, cluster.TaskSpec{Image: "i", Resources: cluster.Resources{ReserveCPU: 600}})
		w.settle()
		ds := w.decisions()
		want := "no suitable node (insufficient resources on 1 node, n1: needs 0.6 CPU, 0.4 free)"
		if len(ds) != 1 || ds[0].Reason != want || ds[0].Object != "shop/web.2" || ds[0].Task == "" || ds[0].Loop != "scheduler" || len(ds[0].Refusals) != 1 {
			w.t.Fatalf("decisions: %+v", ds)
		}
		n := w.txns.Load()
		time.Sleep(10 * time.Minute) // fake time: resyncs
		if got := w.txns.Load(); got != n {
			w.t.Errorf("%d transactions without a change", got-n)
		}
		w.node("n2", 1000)
		w.settle()
		if ps, ds := w.placements(), w.decisions(); len(ps) != 2 || len(ds) != 0 {
			w.t.Errorf("%d placements, decisions %+v", len(ps), ds)
		}
	})
}

// A write that is reported as failed but was done gives no task a second node,
// though the scheduler's look at the store is then older than the write.
func TestSchedulerLostAnswer(t *testing.T) {
	runScheduler(t, func(w *schedulerWorld) {
		for i := range 3 {
			w.node(cluster.NodeID(fmt.Sprint("n", i)), 4000)
		}
		w.settle()
		w.broken.Store(true)
		w.tasks(60, cluster.TaskSpec{Image: "i"})
		w.settle()
		seen := map[cluster.TaskID]cluster.NodeID{}
		for _, p := range w.placements() {
			if other, ok := seen[p.Task]; ok {
				w.t.Errorf("task %s is on %s and %s", p.Task, other, p.Node)
			}
			seen[p.Task] = p.Node
		}
		if len(seen) != 60 || w.broken.Load() {
			w.t.Errorf("%d tasks are placed", len(seen))
		}
	})
}

// Of two decisions on one look at the store only the first stands.
func TestSchedulerStaleTurn(t *testing.T) {
	w := &schedulerWorld{t: t, st: store.NewMemory()}
	first := &turns{store: w.st, key: store.TurnKey("scheduler"), value: []byte(`"x"`)}
	second := &turns{store: w.st, key: store.TurnKey("scheduler"), value: []byte(`"x"`)}
	for i, one := range []*turns{first, second} {
		if err := one.add(t.Context(), nil, store.Op{Key: store.PlacementKey(cluster.NodeID(fmt.Sprint("n", i)), "t"), Value: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
	}
	if err := first.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := second.flush(t.Context()); cluster.KindOf(err) != cluster.KindConflict {
		t.Errorf("two nodes for one task from two looks at the store: %v", err)
	}
}
