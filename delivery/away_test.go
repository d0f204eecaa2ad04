package delivery_test

import (
	"testing"
	"time"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery"
)

// drifts counts what was told of drift.
func (w *world) drifts() (n int) {
	for _, e := range w.i.State.History {
		if e.Event == cluster.EventDrift {
			n++
		}
	}
	return n
}

// What is changed by hand while the source is away is undone or said, of one that is ready and of
// one that is held, and a crash in between takes nothing from that; the source is missed as ever.
func TestLawAnAppIsKeptWhileItsSourceIsAway(t *testing.T) {
	for seed := range uint64(120) {
		report, held := seed%2 == 0, seed%3 == 0
		d := cluster.Delivery{OnFailure: cluster.OnFailureRollback}
		if report {
			d.Drift = cluster.DriftReport
		}
		w := newWorld(t, seed, d)
		w.run(60, false)
		phase, changed := cluster.PhaseReady, cluster.PhaseDrifted
		if held {
			w.head, w.bad[2] = 2, true
			w.i.Ask++
			w.run(400, false)
			phase, changed = cluster.PhaseHeld, cluster.PhaseHeld
		}
		if w.wants != "1+0" || w.i.State.Phase != phase {
			t.Fatalf("seed %d: the app is %q, %s: %s", seed, w.wants, w.i.State.Phase, w.i.State.Message)
		}
		w.away = true
		w.run(w.r.IntN(100), false)
		w.release("by hand")
		w.run(30, true)
		w.run(100, false)
		want, drift := "1+0", 0
		if report {
			want, drift, phase = "by hand", 1, changed
		}
		if st := w.i.State; w.wants != want || len(st.Drift) != drift || st.Going || st.Watch != nil || w.drifts() != 1 {
			t.Fatalf("seed %d: away, the app is %q, %s: %s; told %d times: %+v", seed, w.wants, st.Phase, st.Message, w.drifts(), st)
		}
		if st := w.i.State; !held && (st.Phase != cluster.PhaseFailed || st.Failures < 3) {
			t.Errorf("seed %d: it does not say that its source is away: %s: %s", seed, st.Phase, st.Message)
		}
		w.away = false
		w.i.Ask++
		w.run(200, false)
		if st := w.i.State; w.wants != want || len(st.Drift) != drift || st.Phase != phase || st.Failures != 0 || w.drifts() != 1 {
			t.Fatalf("seed %d: the app is %q, %s: %s; told %d times", seed, w.wants, st.Phase, st.Message, w.drifts())
		}
	}
}

// What the delivery itself deployed, and could not write down, is not gone back from as if somebody had
// changed it by hand.
func TestLawADeployIsNoChangeByHand(t *testing.T) {
	for seed := range uint64(60) {
		w := newWorld(t, seed, cluster.Delivery{OnFailure: cluster.OnFailureRollback})
		w.run(60, false)
		want, held := "2+0", seed%2 == 0
		if held {
			w.head, w.bad[2] = 2, true
			w.i.Ask++
			w.run(400, false)
			want = "3+0"
		}
		w.head++
		w.run(1, false)
		for w.wants != want {
			w.step(true)
		}
		w.away = true
		w.run(100, false)
		if st := w.i.State; w.wants != want || w.drifts() > 0 {
			t.Fatalf("seed %d: the app is %q, %s: %s", seed, w.wants, st.Phase, st.Message)
		}
		w.away = false
		w.run(300, false)
		if st := w.i.State; w.wants != want || st.Phase != cluster.PhaseReady {
			t.Fatalf("seed %d: at last the app is %q, %s: %s", seed, w.wants, st.Phase, st.Message)
		}
	}
}

// Whoever asks for a look, changed what is followed or removed the app hears of the source alone; so
// does one whose last release is on its way, or failed.
func TestKeepsWhatWasGoodAlone(t *testing.T) {
	d := cluster.Delivery{Name: "shop", App: "shop", Rev: 3}
	good := &cluster.Applied{Origin: cluster.Origin{Revision: "r1"}, Key: d.Key("r1"), Release: 4}
	ready := delivery.Item{Spec: d, Release: 5, State: cluster.DeliveryState{Phase: cluster.PhaseReady, Spec: 3, Applied: good, Good: good, Seen: &good.Origin, Accepted: 4}}
	if !delivery.Keeps(ready) || delivery.Remakes(ready, nil) || !delivery.Remakes(ready, []string{"x"}) {
		t.Errorf("one that is ready is not kept")
	}
	for name, change := range map[string]func(i *delivery.Item){
		"asked for":      func(i *delivery.Item) { i.Ask = 1 },
		"changed":        func(i *delivery.Item) { i.Spec.Rev = 4 },
		"another path":   func(i *delivery.Item) { i.Spec.Path = "b"; i.State.Spec = i.Spec.Rev },
		"uninstalled":    func(i *delivery.Item) { i.Release = 0 },
		"on its way":     func(i *delivery.Item) { i.State.Watch = &cluster.DeliveryWatch{Release: 5} },
		"never deployed": func(i *delivery.Item) { i.State.Applied, i.State.Good = nil, nil },
		"its hooks run":  func(i *delivery.Item) { i.Busy = 5 },
		"newer seen":     func(i *delivery.Item) { i.State.Seen = &cluster.Origin{Revision: "r2"} },
		"never accepted": func(i *delivery.Item) { i.State.Accepted = 0 },
		"newer deployed": func(i *delivery.Item) { i.State.Applied = &cluster.Applied{Key: d.Key("r2"), Release: 5} },
	} {
		i := ready
		if change(&i); delivery.Keeps(i) {
			t.Errorf("%s: it is kept", name)
		}
	}
}

// A release that undoes what was changed by hand and fails is said once, and made again.
func TestWhatIsKeptMayFail(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	d := cluster.Delivery{Name: "shop", App: "shop", OnFailure: cluster.OnFailureRollback}
	good := &cluster.Applied{Origin: cluster.Origin{Revision: "r1"}, Key: d.Key("r1"), Release: 4}
	i := delivery.Item{Spec: d, Release: 5, State: cluster.DeliveryState{Phase: cluster.PhaseReady, Applied: good, Good: good, Accepted: 4}}
	failed, undone := 0, 0
	for n := range 3 {
		i.State = delivery.Kept(i, cluster.Transientf("no route"), []string{"x"}, i.Release+1, now)
		i.Release++
		if w := i.State.Watch; w == nil || w.Release != i.Release || i.State.Good.Release != 4 || i.State.Failed != "" {
			t.Fatalf("%d: %+v", n, i.State)
		}
		i.Outcome = &cluster.ReleaseOutcome{Number: i.Release, State: "failed", Message: "web: no"}
		acts := delivery.Plan(delivery.Snapshot{Now: now, Deliveries: []delivery.Item{i}, Free: 1})
		save, is := acts[0].(delivery.Save)
		if !is || save.State.Watch != nil || save.State.Going || save.State.Phase != cluster.PhaseFailed {
			t.Fatalf("%d: %+v", n, acts)
		}
		i.State = save.State
		if !delivery.Keeps(i) {
			t.Fatalf("%d: it is not tried again: %+v", n, i.State)
		}
	}
	for _, e := range i.State.History {
		if e.Event == cluster.EventFailed && e.Message != "no route" {
			failed++
		}
		if e.Event == cluster.EventDrift {
			undone++
		}
	}
	if failed != 1 || undone != 1 {
		t.Errorf("told %d and %d times: %+v", failed, undone, i.State.History)
	}
}

// Once the source answers again, and asks for what undid it, that is watched as any other release.
func TestWhatIsKeptIsAcceptedWhenTheSourceIsBack(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	d := cluster.Delivery{Name: "shop", App: "shop"}
	good := &cluster.Applied{Origin: cluster.Origin{Revision: "r1"}, Key: d.Key("r1"), Release: 6}
	i := delivery.Item{Spec: d, Release: 6, State: cluster.DeliveryState{
		Phase: cluster.PhaseFailed, Message: "no route", Failures: 4, Applied: good, Good: good, Accepted: 4, Watch: &cluster.DeliveryWatch{Release: 6, Since: now, Kept: true},
	}}
	i.State = delivery.Looked(i, delivery.Look{Origin: good.Origin, Verdict: delivery.Keep, Release: 6}, now)
	if w := i.State.Watch; w == nil || w.Kept || w.Release != 6 || i.State.Phase != cluster.PhaseDeploying {
		t.Fatalf("%+v", i.State)
	}
	i.Outcome = &cluster.ReleaseOutcome{Number: 6, State: "complete"}
	acts := delivery.Plan(delivery.Snapshot{Now: now, Deliveries: []delivery.Item{i}, Free: 1})
	if save, is := acts[0].(delivery.Save); !is || save.State.Phase != cluster.PhaseReady || save.State.Failures != 0 || save.State.Accepted != 6 {
		t.Errorf("%+v", acts)
	}
}
