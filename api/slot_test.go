package api_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// A slot is explained by what is in it, not by what is said of its service.
func TestExplainASlot(t *testing.T) {
	b := newBench(t)
	svc := deployWeb(t, b, cluster.RolloutComplete)
	at := time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)
	task := func(slot int, n int64, o *cluster.Outcome, st *cluster.Status) {
		full := cluster.TaskID(fmt.Sprintf("shop_web.%d.%c", slot, 'a'+rune(n)-1))
		desire := cluster.DesireRun
		if o != nil {
			desire = cluster.DesireStop
		}
		b.put(store.TaskKey("shop", full), cluster.Task{
			ID: full, ServiceID: webID, Slot: slot, N: n, Version: svc.Version, Release: 1, Spec: svc.Spec.Task, Desire: desire,
			Created: at.Add(time.Duration(n) * time.Minute), Attempt: int(n) - 1, Outcome: o,
		})
		if st != nil {
			st.Task, st.Node, st.ServiceID, st.Slot = full, "n1", webID, slot
			b.put(store.PlacementKey("n1", full), cluster.NodePlacement{Task: full, Node: "n1", ServiceID: webID, Slot: slot})
			b.put(store.StatusKey("n1", full), *st)
		}
	}
	task(1, 1, &cluster.Outcome{State: cluster.StateFailed, ExitCode: 3, Node: "n1", At: at, LogTail: []string{"begin", "no database"}}, nil)
	task(1, 2, nil, &cluster.Status{State: cluster.StateRunning, Ready: true, Restarts: 2, ExitCode: 137})
	task(2, 1, &cluster.Outcome{State: cluster.StateFailed, ExitCode: 3, Node: "n1", At: at, LogTail: []string{"no database"}}, nil)
	task(3, 1, nil, nil)
	b.put(store.DecisionKey("scheduler", "shop/web.3"), cluster.Decision{Loop: "scheduler", Object: "shop/web.3", Verdict: "unplaced", Reason: "no suitable node"})
	explain := func(slot int) []string {
		t.Helper()
		list, err := b.Explain(t.Context(), cluster.Address{App: "shop", Service: "web", Slot: slot})
		if err != nil || len(list) != 1 {
			t.Fatalf("%+v %v", list, err)
		}
		return list[0].Summary
	}
	const whole = "shop/web as a whole: release 1 is complete; 1 of 2 ready"
	for slot, want := range map[int][]string{
		1: {
			"shop_web.1.b on n1: running and ready", "it is of release 1, from image web:1", "it is on n1 because there is no other node",
			"its container was started again 2 times, the last time after exit code 137", "the task before it in this slot failed",
			"the last one that failed here: shop_web.1.a on n1, at 2026-03-01 12:00:00 UTC: exited with code 3", "its last line: no database", whole,
		},
		2: {
			"shop_web.2.a on n1: failed: exited with code 3", "it is of release 1, from image web:1", "it is on n1 because there is no other node",
			"its last line: no database", whole,
		},
		3: {"shop_web.3.a: unplaced: no suitable node", "it is of release 1, from image web:1", whole},
	} {
		if d := cmp.Diff(want, explain(slot)); d != "" {
			t.Errorf("slot %d (-want +got)\n%s", slot, d)
		}
	}
	b.put(store.NodeInfoKey("n2"), cluster.NodeInfo{ID: "n2"})
	if got, want := explain(1)[2], "n1 was the best of the nodes that could take it (fewest tasks of the service, then most room)"; got != want {
		t.Errorf("%q", got)
	}
	b.put(store.PlacementKey("n1", "shop_web.1.b"), cluster.NodePlacement{Task: "shop_web.1.b", Node: "n1", ServiceID: webID, Slot: 1, Why: "the only one of 2 nodes that could take it; n2: drained"})
	if got, want := explain(1)[2], "n1 was the only one of 2 nodes that could take it; n2: drained"; got != want {
		t.Errorf("%q", got)
	}
	if _, err := b.Explain(t.Context(), cluster.Address{App: "shop", Service: "web", Slot: 9}); cluster.KindOf(err) != cluster.KindNotFound {
		t.Errorf("a slot that never was: %v", err)
	}
}
