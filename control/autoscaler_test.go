package control

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/autoscaler"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// meter gives every task of a service its share of a load; frozen, it repeats itself.
type meter struct {
	mu     sync.Mutex
	tasks  int
	load   int64
	frozen time.Time
	others []cluster.Sample // beside those of the node that the tasks are on
}

func (m *meter) set(tasks int, load int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tasks, m.load = tasks, load
}

func (m *meter) freeze(at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.frozen = at
}

func (m *meter) samples() []cluster.Sample {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := time.Now()
	if !m.frozen.IsZero() {
		at = m.frozen
	}
	var out []cluster.Sample
	for i := range m.tasks {
		out = append(out, cluster.Sample{Node: "n1", Task: cluster.TaskID(fmt.Sprint("t", i)), CPU: m.load / int64(m.tasks), At: at, Window: cluster.Duration(time.Second)})
	}
	return append(out, m.others...)
}

func (m *meter) also(s ...cluster.Sample) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.others = s
}

type autoscalerWorld struct {
	t     *testing.T
	st    store.Store
	web   cluster.ServiceID
	meter meter
}

func runAutoscaler(t *testing.T, f func(w *autoscalerWorld)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &autoscalerWorld{t: t, st: store.NewMemory(), web: cluster.ServiceID{App: "shop", Name: "web"}}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		log := hclog.NewNullLogger()
		m := store.NewMirror(w.st, store.Root, log)
		l := Autoscaler(strict{w.st, t, store.WriterAutoscaler}, m, AutoscalerOptions{Samples: w.meter.samples, Now: time.Now}, log)
		write(t, w.st, store.ServiceKey(w.web), cluster.Service{ServiceID: w.web, Spec: cluster.ServiceSpec{
			Mode: cluster.Replicated, Autoscale: &cluster.Autoscale{Min: 1, Max: 6, CPUPercent: 50},
		}})
		for _, run := range []func(context.Context) error{m.Run, l.Run} {
			go func() { _ = run(ctx) }()
		}
		f(w)
		cancel()
		synctest.Wait()
	})
}

// tasks makes n tasks that have run for a while.
func (w *autoscalerWorld) tasks(n int) {
	w.t.Helper()
	for i := range n {
		id := cluster.TaskID(fmt.Sprint("t", i))
		write(w.t, w.st, store.TaskKey("shop", id), cluster.Task{
			ID: id, ServiceID: w.web, Slot: i + 1, Desire: cluster.DesireRun, Spec: cluster.TaskSpec{Resources: cluster.Resources{ReserveCPU: 100}},
		})
		write(w.t, w.st, store.PlacementKey("n1", id), cluster.NodePlacement{Task: id, Node: "n1", ServiceID: w.web})
		write(w.t, w.st, store.StatusKey("n1", id), cluster.Status{
			Task: id, Node: "n1", ServiceID: w.web, State: cluster.StateRunning, Ready: true,
			Started: time.Now().Add(-time.Hour), ReadySince: time.Now().Add(-time.Hour),
		})
	}
}

func (w *autoscalerWorld) count() cluster.Scale {
	w.t.Helper()
	return read[cluster.Scale](w.t, w.st, store.ScaleKey(w.web))[0]
}

func (w *autoscalerWorld) pass(d time.Duration) {
	time.Sleep(d) // fake time
	synctest.Wait()
}

func TestAutoscalerGrowsShrinksAndForgets(t *testing.T) {
	runAutoscaler(t, func(w *autoscalerWorld) {
		write(w.t, w.st, store.ScaleKey(w.web), cluster.Scale{ServiceID: w.web, Replicas: 2, Owner: "release"})
		w.tasks(2)
		w.meter.set(2, 180) // 90 % of the reservation
		w.pass(20 * time.Second)
		if got := w.count(); got.Replicas != 4 || got.Owner != "autoscaler" || got.Reason != "cpu is at 90% of the reservation, the target is 50%" {
			w.t.Fatalf("scale: %+v", got)
		}
		d := read[cluster.Decision](w.t, w.st, store.DecisionKey("autoscaler", "shop/web"))
		if len(d) != 1 || d[0].Verdict != "scaled 2 to 4" {
			w.t.Errorf("decision: %+v", d)
		}
		w.tasks(4)
		w.meter.set(4, 10)
		w.pass(4 * time.Minute)
		if got := w.count(); got.Replicas != 4 {
			w.t.Errorf("shrank before the window: %+v", got)
		}
		w.pass(2 * time.Minute)
		if got := w.count(); got.Replicas != 1 {
			w.t.Errorf("did not shrink after the window: %+v", got)
		}
		write(w.t, w.st, store.ServiceKey(w.web), cluster.Service{ServiceID: w.web})
		w.pass(time.Minute)
		if left := read[autoscaler.State](w.t, w.st, store.PrefixDemand); len(left) != 0 {
			w.t.Errorf("state of a service that is not scaled is left: %+v", left)
		}
	})
}

// A person's count between the look and the write wins, and is where it goes on from.
func TestAutoscalerTakesAPersonsCount(t *testing.T) {
	runAutoscaler(t, func(w *autoscalerWorld) {
		write(w.t, w.st, store.ScaleKey(w.web), cluster.Scale{ServiceID: w.web, Replicas: 1, Owner: "release"})
		w.tasks(1)
		w.meter.set(1, 10)
		w.pass(10 * time.Minute)
		write(w.t, w.st, store.ScaleKey(w.web), cluster.Scale{ServiceID: w.web, Replicas: 5, Owner: "person"})
		w.pass(4 * time.Minute)
		if got := w.count(); got.Replicas != 5 || got.Owner != "person" {
			w.t.Errorf("a person's count was taken back: %+v", got)
		}
		w.pass(2 * time.Minute)
		if got := w.count(); got.Replicas != 1 || got.Owner != "autoscaler" {
			w.t.Errorf("after the window: %+v", got)
		}
	})
}

// A node that repeats one sample says nothing: its clock does not matter, only
// that the sample does not change.
func TestAutoscalerLeavesOutOldSamples(t *testing.T) {
	runAutoscaler(t, func(w *autoscalerWorld) {
		write(w.t, w.st, store.ScaleKey(w.web), cluster.Scale{ServiceID: w.web, Replicas: 2, Owner: "release"})
		w.tasks(2)
		w.meter.freeze(time.Now().Add(-30 * time.Minute)) // the node's clock is behind
		w.meter.set(2, 100)
		w.pass(30 * time.Second)
		if s := read[autoscaler.State](w.t, w.st, store.PrefixDemand); len(s) != 1 || s[0].Blocked {
			w.t.Errorf("a node's wrong clock makes its samples old: %+v", s)
		}
		w.pass(2 * time.Minute)
		s := read[autoscaler.State](w.t, w.st, store.PrefixDemand)
		if len(s) != 1 || !s[0].Blocked {
			w.t.Errorf("old samples count: %+v", s)
		}
	})
}

// A node is asked of the tasks that are placed on it alone: what another one says of them,
// by whichever clock, neither scales a service nor keeps it from being scaled.
func TestAutoscalerHearsOfATaskFromItsNode(t *testing.T) {
	for name, clock := range map[string]time.Duration{"as late": 0, "from the past": -time.Hour, "from the future": 24 * time.Hour} {
		runAutoscaler(t, func(w *autoscalerWorld) {
			write(w.t, w.st, store.ScaleKey(w.web), cluster.Scale{ServiceID: w.web, Replicas: 2, Owner: "release"})
			w.tasks(2)
			for _, id := range []cluster.TaskID{"t0", "t1"} {
				write(w.t, w.st, store.StatusKey("a", id), cluster.Status{Task: id, Node: "a", ServiceID: w.web, State: cluster.StateFailed})
			}
			w.meter.set(2, 100) // at the target
			w.meter.also(
				cluster.Sample{Node: "a", Task: "t0", CPU: 90_000, At: time.Now().Add(clock)}, cluster.Sample{Node: "z", Task: "t1", CPU: 90_000, At: time.Now().Add(clock)},
				cluster.Sample{Node: "z", Task: "t9", CPU: 90_000, At: time.Now().Add(clock)},
			)
			w.pass(10 * time.Minute)
			if got := w.count(); got.Replicas != 2 || got.Owner != "release" {
				w.t.Errorf("%s: scaled by what another node says: %+v", name, got)
			}
			if s := read[autoscaler.State](w.t, w.st, store.PrefixDemand); len(s) != 1 || s[0].Blocked {
				w.t.Errorf("%s: not scaled, as another node says something: %+v", name, s)
			}
			w.meter.freeze(time.Now())
			w.pass(5 * time.Minute)
			if s := read[autoscaler.State](w.t, w.st, store.PrefixDemand); len(s) != 1 || !s[0].Blocked {
				w.t.Errorf("%s: old samples are new, as another node says something: %+v", name, s)
			}
		})
	}
}
