package control_test

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// thief is a stolen node that knows of every task at once and says the same of each, until
// ctx ends. Nothing is placed on it.
func (w *world) thief(ctx context.Context, state cluster.TaskState) {
	write(w.t, w.st, store.NodeInfoKey("a-thief"), cluster.NodeInfo{ID: "a-thief", CPU: 64000, Memory: 64 << 30, OS: "linux", Arch: "amd64"})
	write(w.t, w.st, store.NodeSpecKey("a-thief"), cluster.NodeSpec{ID: "a-thief", Availability: cluster.Pause})
	write(w.t, w.st, store.AliveKey("a-thief"), true)
	for said := map[cluster.TaskID]bool{}; ctx.Err() == nil; {
		for _, x := range all[cluster.Task](w, store.PrefixTasks) {
			if !said[x.ID] {
				said[x.ID] = true
				write(w.t, w.st, store.StatusKey("a-thief", x.ID), cluster.Status{
					Task: x.ID, Node: "a-thief", ServiceID: x.ServiceID, Slot: x.Slot, Version: x.Version, State: state,
					Ready: state == cluster.StateRunning, Started: time.Now(), ReadySince: time.Now(), ExitCode: 1, Container: "c",
				})
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Millisecond):
		}
	}
}

// A stolen node changes nothing of what becomes of an app whose tasks it was not given:
// what runs where, how often hooks run, how a release ends, and that all of it goes.
func TestAThiefIsNotBelieved(t *testing.T) {
	for _, state := range []cluster.TaskState{cluster.StateRunning, cluster.StateComplete, cluster.StateFailed} {
		t.Run(string(state), func(t *testing.T) {
			inWorld(t, func(w *world) {
				t := w.t
				ctx, cancel := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				wg.Go(func() { w.thief(ctx, state) })
				defer wg.Wait()
				defer cancel()
				const one = "old is old:1, web is web:1, 2 of old=old:1, 2 of web=web:1, complete, uninstalled false"
				w.must(http.MethodPost, "/deploy", version1())
				if got := w.picture(); got != one || w.begun() != 3 {
					t.Fatalf("%d hooks ran, and there is %s", w.begun(), got)
				}
				svc := all[cluster.Service](w, store.AppPrefix("shop")+"services/web")[0]
				entry, err := w.st.Get(t.Context(), store.ServiceKey(svc.ServiceID))
				if err != nil {
					t.Fatal(err)
				}
				for _, x := range all[cluster.Task](w, store.PrefixTasks) {
					if x.Outcome != nil {
						t.Errorf("%s ended: %+v", x.ID, x.Outcome)
					}
					for _, created := range []int64{entry.Created, 0, 1} { // what a node may find out
						if x.ID == cluster.NewTaskID(x.ServiceID, x.Slot, cluster.StoreRev(created), x.N, "") {
							t.Errorf("the name %s can be worked out", x.ID)
						}
					}
				}
				w.must(http.MethodDelete, "", nil)
				if got := w.picture(); got != "no app" || w.begun() != 5 {
					t.Errorf("after its removal %d hooks ran, and there is %q", w.begun(), got)
				}
			})
		})
	}
}
