package delivery_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery"
)

// held is one that was gone back from, r2 with content b; it stays at r1 with content a.
func held(change func(*cluster.Delivery)) delivery.Item {
	d := cluster.Delivery{Name: "shop", OnFailure: cluster.OnFailureRollback}
	st := cluster.DeliveryState{
		Phase: cluster.PhaseHeld, Failed: d.Key("r2"), Terms: d.Terms(), Checked: time.Unix(1, 0), Looked: time.Unix(1, 0),
		Applied: &cluster.Applied{Key: d.Key("r2"), Origin: cluster.Origin{Revision: "r2"}, Release: 2, Content: "b"},
		Good:    &cluster.Applied{Key: d.Key("r1"), Origin: cluster.Origin{Revision: "r1"}, Release: 3, Content: "a"},
		Told:    []string{"failed", "back"},
	}
	if change != nil {
		change(&d)
	}
	return delivery.Item{Spec: d, State: st, Release: 3}
}

// What failed is not tried again because of a commit elsewhere in the repository; it is where
// somebody asks for that, or gives it another chance.
func TestWhatFailedIsHeld(t *testing.T) {
	for _, tc := range []struct {
		what, revision, content string
		change                  func(*cluster.Delivery)
		again                   bool
		want                    delivery.Verdict
	}{
		{"the same commit", "r2", "b", nil, false, delivery.Hold},
		{"a commit elsewhere", "r3", "b", nil, false, delivery.Hold},
		{"another commit", "r3", "c", nil, false, delivery.Deploy},
		{"one of which the content is not known", "r3", "", nil, false, delivery.Deploy},
		{"asked to try again", "r2", "b", nil, true, delivery.Deploy},
		{"asked to, after a commit elsewhere", "r3", "b", nil, true, delivery.Deploy},
		{"more time", "r2", "b", func(d *cluster.Delivery) { d.Timeout = cluster.Duration(time.Hour) }, false, delivery.Deploy},
		{"to be retried", "r2", "b", func(d *cluster.Delivery) { d.OnFailure = cluster.OnFailureRetry }, false, delivery.Deploy},
		{"looked at less", "r2", "b", func(d *cluster.Delivery) { d.Interval = cluster.Duration(time.Hour) }, false, delivery.Hold},
	} {
		i := held(tc.change)
		i.Again = tc.again
		if got := delivery.Decide(i, delivery.Look{Origin: cluster.Origin{Revision: tc.revision}, Content: tc.content, Changes: []string{"x"}}); got != tc.want {
			t.Errorf("%s: %s, not %s", tc.what, got, tc.want)
		}
	}
	i := held(nil)
	i.State.Terms = "" // before they were kept
	if got := delivery.Decide(i, delivery.Look{Origin: cluster.Origin{Revision: "r2"}, Changes: []string{"x"}}); got != delivery.Hold {
		t.Errorf("of an earlier version: %s", got)
	}
}

// A commit elsewhere leaves what is held as it is, and says of which commit; nothing is told.
func TestACommitElsewhereIsNoNews(t *testing.T) {
	i := held(nil)
	l := delivery.Look{Origin: cluster.Origin{Revision: "r3"}, Content: "b", Release: 3, Verdict: delivery.Hold}
	st := delivery.Looked(i, l, time.Unix(100, 0))
	if st.Phase != cluster.PhaseHeld || st.Message != "r2 failed; it stays at r1 until a new one comes" || st.Events != 0 || st.Applied.Key != st.Failed || !st.Back() || st.Seen.Revision != "r3" {
		t.Errorf("%+v", st)
	}
	// Of one that is ready it is where the app is now, and no news either.
	a := &cluster.Applied{Key: i.Spec.Key("r1"), Origin: cluster.Origin{Revision: "r1"}, Release: 3, Content: "a"}
	i = delivery.Item{Spec: i.Spec, Release: 3, State: cluster.DeliveryState{Phase: cluster.PhaseReady, Applied: a, Good: a}}
	l = delivery.Look{Origin: cluster.Origin{Revision: "r4"}, Content: "a", Release: 3, Verdict: delivery.Keep}
	if st = delivery.Looked(i, l, time.Unix(100, 0)); st.Phase != cluster.PhaseReady || st.Events != 0 || st.Applied.Origin.Revision != "r4" || st.Good.Origin.Revision != "r4" || st.Watch != nil {
		t.Errorf("%+v", st)
	}
	// One that failed, and is taken back at the source, is news.
	back := held(nil)
	if st = delivery.Looked(back, l, time.Unix(100, 0)); st.Phase != cluster.PhaseReady || st.Events != 1 || st.History[0].Event != cluster.EventReady || st.Failed != "" {
		t.Errorf("%+v", st)
	}
}

// What is only to be reported stays so after a commit elsewhere.
func TestACommitElsewhereOverwritesNothing(t *testing.T) {
	d := cluster.Delivery{Drift: cluster.DriftReport}
	a := &cluster.Applied{Key: d.Key("r1"), Release: 1, Content: "a"}
	i := delivery.Item{Spec: d, Release: 2, State: cluster.DeliveryState{Phase: cluster.PhaseReady, Applied: a, Good: a}}
	for content, want := range map[string]delivery.Verdict{"a": delivery.Report, "b": delivery.Deploy, "": delivery.Deploy} {
		if got := delivery.Decide(i, delivery.Look{Origin: cluster.Origin{Revision: "r2"}, Content: content, Changes: []string{"x"}}); got != want {
			t.Errorf("content %q: %s, not %s", content, got, want)
		}
	}
}

// A look that fails once leaves a delivery as it is, says why, and keeps nobody waiting who
// depends on it; the next one that works is no news. What lasts is, and so is its end.
func TestAnOutageAndItsEnd(t *testing.T) {
	d := cluster.Delivery{Name: "shop"}
	a := &cluster.Applied{Key: d.Key("r1"), Origin: cluster.Origin{Revision: "r1"}, Release: 1}
	fresh := func() delivery.Item {
		return delivery.Item{Spec: d, Release: 1, State: cluster.DeliveryState{Phase: cluster.PhaseReady, Applied: a, Good: a}}
	}
	keep := delivery.Look{Origin: cluster.Origin{Revision: "r1"}, Release: 1, Verdict: delivery.Keep}
	for misses, want := range []struct {
		phase  string
		events int64
		end    int64 // of them, after a look that works
	}{{cluster.PhaseReady, 0, 0}, {cluster.PhaseReady, 0, 0}, {cluster.PhaseReady, 0, 0}, {cluster.PhaseFailed, 1, 2}, {cluster.PhaseFailed, 1, 2}} {
		for _, err := range []error{cluster.Transientf("no route"), cluster.Conflictf("somebody was faster")} {
			i := fresh()
			for range misses {
				i.State = delivery.Missed(i, delivery.Look{}, err, time.Unix(1, 0))
			}
			if st := i.State; st.Phase != want.phase || st.Events != want.events || misses > 0 && st.Message != err.Error() || st.Failures != misses {
				t.Errorf("missed %d times: %s, %d events: %s", misses, st.Phase, st.Events, st.Message)
			}
			if st := delivery.Looked(i, keep, time.Unix(2, 0)); st.Phase != cluster.PhaseReady || st.Events != want.end || st.Message != "" || st.Failures != 0 || st.Watch != nil {
				t.Errorf("missed %d times, and looked at: %+v", misses, st)
			}
		}
	}
	i := fresh()
	i.Ask = 1
	if st := delivery.Missed(i, delivery.Look{}, cluster.Transientf("no route"), time.Unix(1, 0)); st.Phase != cluster.PhaseFailed || st.Events != 0 {
		t.Errorf("whoever asked is not told: %s", st.Phase)
	}
	i = held(nil)
	was := i.State.Message
	if st := delivery.Missed(i, delivery.Look{}, cluster.Transientf("no route"), time.Unix(1, 0)); st.Phase != cluster.PhaseHeld || st.Message != was || !st.Back() {
		t.Errorf("%s: %s", st.Phase, st.Message)
	}
	i = fresh()
	i.State = delivery.Missed(i, delivery.Look{}, cluster.Invalidf("compose.yaml:1: no"), time.Unix(1, 0))
	if st := delivery.Looked(i, keep, time.Unix(2, 0)); i.State.Phase != cluster.PhaseFailed || st.Events != 2 || !strings.Contains(fmt.Sprint(st.History), cluster.EventReady) {
		t.Errorf("a commit that cannot be read, taken back: %+v", st.History)
	}
}
