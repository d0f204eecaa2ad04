package control_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/control"
	"github.com/fairlead/fairlead/rollout"
	"github.com/fairlead/fairlead/scheduler"
	"github.com/fairlead/fairlead/store"
)

// counted counts the transactions, and fails those that hold more than allowed.
type counted struct {
	store.Store
	t    *testing.T
	txns int
	mix  func() // runs before a commit
}

func (c *counted) Commit(ctx context.Context, t store.Txn) (int64, error) {
	if err := t.Check(); err != nil {
		c.t.Errorf("transaction: %v", err)
	}
	c.txns++
	if c.mix != nil {
		c.mix()
	}
	return c.Store.Commit(ctx, t)
}

func write(t *testing.T, st store.Store, key string, v any) {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: key, Value: b}}}); err != nil {
		t.Fatal(err)
	}
}

func erase(t *testing.T, st store.Store, keys ...string) {
	t.Helper()
	for _, k := range keys {
		if _, err := st.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: k, Delete: true}}}); err != nil {
			t.Fatal(err)
		}
	}
}

func tasksIn(t *testing.T, st store.Store) map[cluster.Desire]int {
	t.Helper()
	entries, _, err := st.List(t.Context(), store.PrefixTasks)
	if err != nil {
		t.Fatal(err)
	}
	out := map[cluster.Desire]int{}
	for _, e := range entries {
		var x cluster.Task
		if err := json.Unmarshal(e.Value, &x); err != nil {
			t.Fatal(err)
		}
		out[x.Desire]++
	}
	return out
}

var web = cluster.ServiceID{App: "shop", Name: "web"}

func webService(image string) cluster.Service {
	s := cluster.Service{ServiceID: web, Release: 1, Spec: cluster.ServiceSpec{Mode: cluster.Replicated, Task: cluster.TaskSpec{Image: image}}}
	s.Version = s.Spec.Task.Hash()
	return s
}

func TestRolloutWritesThroughTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := store.NewMemory()
		st := &counted{Store: store.Guarded(mem, store.WriterRollout), t: t}
		m := store.NewMirror(mem, store.Root, hclog.NewNullLogger())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{}, 2)
		go func() { _ = m.Run(ctx); done <- struct{}{} }()
		go func() {
			_ = control.Rollout(st, m, time.Now, hclog.NewNullLogger()).Run(ctx)
			done <- struct{}{}
		}()
		defer func() { cancel(); <-done; <-done }()

		// More tasks than fit in a transaction, while someone else scales.
		write(t, mem, store.ScaleKey(web), cluster.Scale{ServiceID: web, Replicas: 250})
		st.mix = func() {
			if st.txns == 2 {
				write(t, mem, store.ScaleKey(web), cluster.Scale{ServiceID: web, Replicas: 240})
			}
		}
		write(t, mem, store.ServiceKey(web), webService("v1"))
		write(t, mem, store.AppKey("shop"), cluster.App{Name: "shop", Release: 1}) // the last of a deploy
		settle(t)
		if got := tasksIn(t, mem); got[cluster.DesireRun] != 240 {
			t.Fatalf("tasks %v, want 240 to run", got)
		}
		var rec cluster.Rollout
		read(t, mem, store.RolloutKey(web), &rec)
		if rec.State != cluster.RolloutRunning || rec.NextTask < 240 {
			t.Fatalf("record %+v", rec)
		}
		var o cluster.ReleaseOutcome
		read(t, mem, store.OutcomeKey("shop", 1), &o)
		if o.State != "running" {
			t.Fatalf("outcome %+v", o)
		}
		txns := st.txns
		time.Sleep(29 * time.Second)
		settle(t)
		if st.txns != txns {
			t.Fatalf("%d transactions while nothing happened", st.txns-txns)
		}

		// The app goes: nothing of it is left.
		erase(t, mem, store.AppKey("shop"), store.ScaleKey(web), store.ServiceKey(web))
		time.Sleep(time.Second)
		settle(t)
		for _, prefix := range []string{store.PrefixTasks, store.PrefixRollouts, store.PrefixOutcomes, store.PrefixDecisions} {
			if entries, _, err := mem.List(t.Context(), prefix); err != nil || len(entries) > 0 {
				t.Fatalf("%d left below %s (%v), first %s", len(entries), prefix, err, entries[0].Key)
			}
		}
	})
}

// The loop notes since when a task is not ready: one that was is not late at once.
func TestRolloutCountsFromWhenItSawATaskReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := store.NewMemory()
		m := store.NewMirror(mem, store.Root, hclog.NewNullLogger())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{}, 2)
		go func() { _ = m.Run(ctx); done <- struct{}{} }()
		go func() {
			_ = control.Rollout(mem, m, time.Now, hclog.NewNullLogger()).Run(ctx)
			done <- struct{}{}
		}()
		defer func() { cancel(); <-done; <-done }()
		write(t, mem, store.NodeInfoKey("n1"), cluster.NodeInfo{ID: "n1"})
		write(t, mem, store.AliveKey("n1"), struct{}{})
		svc := webService("v1")
		svc.Spec.Update.Monitor = cluster.Duration(time.Hour)
		write(t, mem, store.ScaleKey(web), cluster.Scale{ServiceID: web, Replicas: 1})
		write(t, mem, store.ServiceKey(web), svc)
		write(t, mem, store.AppKey("shop"), cluster.App{Name: "shop", Release: 1})
		settle(t)
		entries, _, err := mem.List(t.Context(), store.PrefixTasks)
		if err != nil || len(entries) != 1 {
			t.Fatalf("%d tasks, %v", len(entries), err)
		}
		var x cluster.Task
		read(t, mem, entries[0].Key, &x)
		write(t, mem, store.PlacementKey("n1", x.ID), cluster.NodePlacement{Task: x.ID, Node: "n1", ServiceID: web, Slot: 1, Desire: cluster.DesireRun})
		status := cluster.Status{Task: x.ID, Node: "n1", ServiceID: web, Slot: 1, Version: x.Version, State: cluster.StateRunning, Ready: true, Started: time.Now()}
		write(t, mem, store.StatusKey("n1", x.ID), status)
		time.Sleep(10 * time.Minute)
		status.Ready = false
		write(t, mem, store.StatusKey("n1", x.ID), status)
		for _, then := range []struct {
			wait time.Duration
			want cluster.RolloutState
		}{{59 * time.Second, cluster.RolloutRunning}, {2 * time.Second, cluster.RolloutFailed}} {
			time.Sleep(then.wait)
			settle(t)
			var rec cluster.Rollout
			if read(t, mem, store.RolloutKey(web), &rec); rec.State != then.want {
				t.Errorf("%s later it is %s: %s", then.wait, rec.State, rec.Message)
			}
		}
	})
}

// What became of a release is kept as long as the release is, however many came since.
func TestOutcomesStayWithTheirReleases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := store.NewMemory()
		const current = 1000
		write(t, mem, store.AppKey("shop"), cluster.App{Name: "shop", Release: current, Uninstalled: true})
		app, err := mem.Get(t.Context(), store.AppKey("shop"))
		if err != nil {
			t.Fatal(err)
		}
		write(t, mem, store.ReleaseKey("shop", 1), cluster.Release{App: "shop", Number: 1})
		for _, n := range []int{1, 2, current - 1} {
			write(t, mem, store.OutcomeKey("shop", n), cluster.ReleaseOutcome{App: "shop", Number: n, State: "complete", Created: cluster.StoreRev(app.Created)})
		}
		m := store.NewMirror(mem, store.Root, hclog.NewNullLogger())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{}, 2)
		go func() { _ = m.Run(ctx); done <- struct{}{} }()
		go func() {
			_ = control.Rollout(store.Guarded(mem, store.WriterRollout), m, time.Now, hclog.NewNullLogger()).Run(ctx)
			done <- struct{}{}
		}()
		defer func() { cancel(); <-done; <-done }()
		settle(t)
		left, _, err := mem.List(t.Context(), store.PrefixOutcomes)
		if err != nil || len(left) != 2 || left[0].Key != store.OutcomeKey("shop", 1) || left[1].Key != store.OutcomeKey("shop", current-1) {
			t.Errorf("outcomes are left: %v, %v", left, err)
		}
	})
}

func settle(t *testing.T) {
	t.Helper()
	time.Sleep(500 * time.Millisecond) // fake time: conflicts back off
	synctest.Wait()
}

func read(t *testing.T, st store.Store, key string, v any) {
	t.Helper()
	e, err := st.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(e.Value, v); err != nil {
		t.Fatal(err)
	}
}

// The two readings of placement constraints are one: a global service gets a
// task for a node exactly when the scheduler lets it go there.
func TestGlobalTasksAreMadeForNodesThatTheSchedulerAccepts(t *testing.T) {
	node := cluster.Node{
		NodeSpec: cluster.NodeSpec{ID: "n1", Labels: map[string]string{"zone": "A", "Disk": "ssd"}}, Alive: true,
		Info: cluster.NodeInfo{
			ID: "n1", Hostname: "Host1", Address: "10.1.2.3", OS: "linux", Arch: "x86_64", CPU: 4000, Memory: 1 << 30,
			Roles: []string{"server", "agent"}, Labels: map[string]string{"gpu": "yes"},
		},
	}
	for _, c := range []string{
		"", "node.id==n1", "node.id == N1", "node.id!=n1", "node.hostname==host1", "node.hostname != other",
		"node.labels.zone==a", "node.labels.zone!=a", "node.labels.Zone==a", "NODE.LABELS.zone==A", "node.labels.none==x",
		"node.labels.none!=x", "node.labels.disk==ssd", "node.labels.Disk==SSD", "node.labels.==x", "engine.labels.gpu==yes",
		"engine.labels.gpu!=yes", "node.role==manager", "node.role==worker", "node.role!=worker", "node.role==agent",
		"node.role==gateway", "node.platform.os==Linux", "node.platform.arch==amd64", "node.platform.arch==x86-64",
		"node.platform.arch!=aarch64", "node.ip==10.1.2.3", "node.ip==10.1.0.0/16", "node.ip!=10.0.0.0/8", "node.ip==none",
		"node.labels.zone", "node.labels.zone==", "node.colour==red", "node.colour!=red", "node.id!=a==b",
	} {
		t.Run(c, func(t *testing.T) {
			svc := webService("v1")
			svc.Rev, svc.Created, svc.Spec.Mode = 5, 5, cluster.Global
			if c != "" {
				svc.Spec.Placement.Constraints = []string{c}
			}
			made := 0
			for _, a := range rollout.Plan(rollout.Snapshot{Now: time.Unix(1, 0), Services: []cluster.Service{svc}, Nodes: []cluster.Node{node}}) {
				if _, ok := a.(rollout.Create); ok {
					made++
				}
			}
			task := cluster.Task{ID: "x", ServiceID: web, Slot: 1, Version: svc.Version, Spec: svc.Spec.Task, Desire: cluster.DesireRun, Node: "n1", Rev: 6}
			placed := 0
			acts := scheduler.Plan(scheduler.Snapshot{
				Now: time.Unix(1, 0), Services: []cluster.Service{svc}, Nodes: []cluster.Node{node}, Tasks: []cluster.Task{task},
			})
			for _, a := range acts {
				if _, ok := a.(scheduler.Place); ok {
					placed++
				}
			}
			if made != placed {
				t.Errorf("rollout makes %d tasks, the scheduler places %d: %s", made, placed, fmt.Sprint(acts))
			}
		})
	}
}
