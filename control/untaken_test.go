package control

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// stingy takes no value for one key, as if it were too large, while on.
type stingy struct {
	store.Store
	key string
	on  *atomic.Bool
}

func (s stingy) Commit(ctx context.Context, t store.Txn) (int64, error) {
	for _, op := range t.Then {
		if op.Key == s.key && s.on.Load() {
			return 0, cluster.Invalidf("transaction of 2000000 bytes")
		}
	}
	return s.Store.Commit(ctx, t)
}

// twoServices are of an app, each with a task that is to run on a node of its own.
type twoServices struct {
	t         *testing.T
	st        *store.Memory
	m         *store.Mirror
	bad, good cluster.ServiceID
}

func inTwoServices(t *testing.T, f func(w *twoServices)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		st := store.NewMemory()
		w := &twoServices{
			t: t, st: st, m: store.NewMirror(st, store.Root, hclog.NewNullLogger()),
			bad: cluster.ServiceID{App: "shop", Name: "bad"}, good: cluster.ServiceID{App: "shop", Name: "good"},
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = w.m.Run(ctx) }()
		<-w.m.Ready()
		f(w)
	})
}

func (w *twoServices) declare(id cluster.ServiceID, node cluster.NodeID) {
	spec := cluster.ServiceSpec{Mode: cluster.Replicated, Replicas: 1, Task: cluster.TaskSpec{Image: "a", Networks: []cluster.NetworkRef{{Name: "shop_default"}}}}
	write(w.t, w.st, store.NodeInfoKey(node), cluster.NodeInfo{ID: node})
	write(w.t, w.st, store.AliveKey(node), "x")
	write(w.t, w.st, store.ServiceKey(id), cluster.Service{ServiceID: id, Version: spec.Task.Hash(), Release: 1, Spec: spec})
}

// task gives a service a task that is placed, with a status that is written as it is.
func (w *twoServices) task(id cluster.ServiceID, node cluster.NodeID, status string) {
	spec := cluster.TaskSpec{Image: "a", Networks: []cluster.NetworkRef{{Name: "shop_default"}}}
	task := cluster.TaskID("shop_" + id.Name + ".1.x")
	write(w.t, w.st, store.TaskKey("shop", task), cluster.Task{ID: task, ServiceID: id, Slot: 1, Version: spec.Hash(), Release: 1, Spec: spec, Desire: cluster.DesireRun, Created: time.Now()})
	write(w.t, w.st, store.PlacementKey(node, task), cluster.NodePlacement{Task: task, Node: node, ServiceID: id, Slot: 1, Spec: spec, Desire: cluster.DesireRun})
	if status == "" {
		return
	}
	head := fmt.Sprintf(`{"task":%q,"node":%q,"app":"shop","name":%q,"slot":1,"at":"2026-01-01T00:00:00Z",`, task, node, id.Name)
	if !json.Valid([]byte(head + status + "}")) {
		w.t.Fatal("no JSON")
	}
	op := store.Op{Key: store.StatusKey(node, task), Value: []byte(head + status + "}")}
	if _, err := w.st.Commit(w.t.Context(), store.Txn{Then: []store.Op{op}}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *twoServices) there(key string) bool {
	_, err := w.st.Get(w.t.Context(), key)
	if err != nil && cluster.KindOf(err) != cluster.KindNotFound {
		w.t.Fatal(err)
	}
	return err == nil
}

func (w *twoServices) run(run func(context.Context) error) {
	ctx, cancel := context.WithCancel(w.t.Context())
	w.t.Cleanup(cancel)
	go func() { _ = run(ctx) }()
}

func (w *twoServices) registry(st store.Store) {
	w.run(Registry(strict{st, w.t, store.WriterRegistry}, w.m, RegistryOptions{Addresses: netip.MustParsePrefix("10.212.0.0/16"), Now: time.Now}, hclog.NewNullLogger()).Run)
}

func (w *twoServices) rollout(st store.Store) {
	w.run(Rollout(strict{st, w.t, store.WriterRollout}, w.m, time.Now, hclog.NewNullLogger()).Run)
}

func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// A stolen node fills a status as far as etcd takes it. What would be made of that no store
// takes: nothing is, and all else goes on.
func TestWhatANodeFillsHoldsNobodyUp(t *testing.T) {
	ready := `"state":"running","ready":true,"addresses":{"shop_default":"10.213.0.2"}`
	var names strings.Builder
	for i := range 30000 {
		fmt.Fprintf(&names, `,"network-%020d":"10.213.0.2"`, i)
	}
	huge := map[string]string{
		"addresses": `"state":"running","ready":true,"addresses":{"shop_default":"10.213.0.2"` + names.String() + "}",
		"reason":    `"state":"failed","exit_code":1,"reason":"` + strings.Repeat("<", 1300<<10) + `"`, // six times as much once written anew
		"log":       `"state":"failed","exit_code":1,"log_tail":["` + strings.Repeat("<", 1300<<10) + `"]`,
	}
	for name, status := range huge {
		t.Run(name, func(t *testing.T) {
			inTwoServices(t, func(w *twoServices) {
				w.declare(w.bad, "a-thief")
				w.declare(w.good, "n1")
				w.task(w.bad, "a-thief", status)
				w.task(w.good, "n1", ready)
				pass(time.Second)
				w.registry(w.st)
				w.rollout(w.st)
				pass(time.Second)
				if !w.there(store.RolloutKey(w.good)) || !w.serves(w.good) {
					w.t.Error("the other service has no rollout, or no endpoints")
				}
				var bad cluster.Task
				for _, x := range w.tasks() {
					if x.ServiceID == w.bad {
						bad = x
					}
				}
				if bad.Outcome != nil && len(bad.Outcome.Reason) > 100<<10 {
					w.t.Errorf("an outcome of %d bytes", len(bad.Outcome.Reason))
				}
			})
		})
	}
}

func (w *twoServices) serves(id cluster.ServiceID) (yes bool) {
	w.m.Read(func(v store.View) {
		for _, e := range store.EndpointSets(v) {
			yes = yes || e.ServiceID == id && len(e.Tasks) == 1
		}
	})
	return yes
}

func (w *twoServices) tasks() (out []cluster.Task) {
	w.m.Read(func(v store.View) { out = store.Tasks(v) })
	return out
}

// What is as large as a node may have it is copied in part: outcomes, messages and the last
// lines of several tasks fit into one record.
func TestANodesWordsAreCutShort(t *testing.T) {
	inTwoServices(t, func(w *twoServices) {
		w.declare(w.bad, "a-thief")
		w.task(w.bad, "a-thief", `"state":"failed","exit_code":1,"reason":"`+strings.Repeat("<", 60<<10)+`","log_tail":["`+strings.Repeat("<", 9<<10)+`","last"]`)
		pass(time.Second)
		w.rollout(w.st)
		pass(time.Second)
		for _, key := range []string{store.TaskKey("shop", "shop_bad.1.x"), store.RolloutKey(w.bad)} {
			e, err := w.st.Get(w.t.Context(), key)
			if err != nil || len(e.Value) > 200<<10 {
				w.t.Errorf("%s of %d bytes: %v", key, len(e.Value), err)
			}
		}
		for _, x := range w.tasks() {
			if x.ID == "shop_bad.1.x" && (x.Outcome == nil || len(x.Outcome.LogTail) != 2 || len(x.Outcome.Reason) < 4<<10) {
				w.t.Errorf("its end is %+v", x.Outcome)
			}
		}
	})
}

// One service that the store does not take keeps no other waiting, whoever made it so, and
// is written once it is taken.
func TestWhatIsNotTakenHoldsNobodyUp(t *testing.T) {
	for name, key := range map[string]func(cluster.ServiceID) string{"registry": store.EndpointsKey, "rollout": store.RolloutKey} {
		t.Run(name, func(t *testing.T) {
			inTwoServices(t, func(w *twoServices) {
				on := &atomic.Bool{}
				on.Store(true)
				st := stingy{w.st, key(w.bad), on}
				if name == "registry" {
					w.registry(st)
				} else {
					w.rollout(st)
				}
				w.declare(w.bad, "n1")
				w.declare(w.good, "n1")
				pass(time.Second)
				if !w.there(key(w.good)) || w.there(key(w.bad)) {
					w.t.Error("the other one waits, or this one was taken")
				}
				// What happens then is not late for it either: the loop does not wait as for a failure.
				later := cluster.ServiceID{App: "shop", Name: "later"}
				pass(time.Minute)
				w.declare(later, "n1")
				pass(100 * time.Millisecond)
				if !w.there(key(later)) {
					w.t.Error("what came later waits")
				}
				on.Store(false)
				pass(time.Minute)
				if !w.there(key(w.bad)) {
					w.t.Error("it is not written though it is taken now")
				}
			})
		})
	}
}

func TestHooksThatAreNotTakenHoldNobodyUp(t *testing.T) {
	inTwoServices(t, func(w *twoServices) {
		on := &atomic.Bool{}
		on.Store(true)
		for _, app := range []cluster.AppName{"bad", "good"} {
			write(w.t, w.st, store.AppKey(app), cluster.App{Name: app, Release: 1})
			write(w.t, w.st, store.ChangeKey(app), cluster.PendingChange{App: app, ID: 1, Action: cluster.HookUpgrade, Release: 2, From: 1, Hooks: []cluster.Hook{
				{Service: "backup", Events: []cluster.HookEvent{cluster.PreUpgrade}},
			}})
		}
		st := stingy{w.st, store.ChangeRecordKey("bad"), on}
		w.run(Hooks(strict{st, w.t, store.WriterHooks}, w.m, time.Now, hclog.NewNullLogger()).Run)
		pass(time.Second)
		if !w.there(store.ChangeRecordKey("good")) || w.there(store.ChangeRecordKey("bad")) {
			w.t.Error("the other app's hooks wait, or these were taken")
		}
		on.Store(false)
		pass(time.Minute)
		if !w.there(store.ChangeRecordKey("bad")) {
			w.t.Error("they are not written though they are taken now")
		}
	})
}
