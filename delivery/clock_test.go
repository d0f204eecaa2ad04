package delivery_test

import (
	"testing"
	"time"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery"
)

// What a leader wrote whose clock was a day ahead holds a delivery up no longer than what one
// writes whose clock is right; what is due in its time is left alone.
func TestAClockThatWasAhead(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	ahead := now.Add(24 * time.Hour)
	const most = 11 * time.Minute // the longest back-off, and a tenth
	news := []cluster.DeliveryEvent{{ID: 1, At: now}}
	for name, tc := range map[string]struct {
		state   cluster.DeliveryState
		release int
		within  time.Duration // until something is done but a Save
	}{
		"the next look":    {cluster.DeliveryState{Phase: cluster.PhaseReady, Next: ahead.Add(time.Minute)}, 0, most},
		"the way back":     {cluster.DeliveryState{Phase: cluster.PhaseFailed, Going: true, Next: ahead, Looked: ahead, Checked: ahead}, 0, most},
		"a failed look":    {cluster.DeliveryState{Phase: cluster.PhaseFailed, Failures: 3, Next: ahead, Looked: ahead}, 0, most},
		"news":             {cluster.DeliveryState{Phase: cluster.PhaseReady, Next: now.Add(time.Minute), Outbox: news, NotifyNext: ahead}, 0, 30 * time.Second},
		"a watched one":    {cluster.DeliveryState{Phase: cluster.PhaseDeploying, Next: now.Add(5 * time.Minute), Watch: &cluster.DeliveryWatch{Release: 2, Since: ahead}, Failures: 0}, 2, most},
		"one in its time":  {cluster.DeliveryState{Phase: cluster.PhaseReady, Next: now.Add(time.Minute), Looked: now, Checked: now}, 0, time.Minute},
		"a long back-off":  {cluster.DeliveryState{Phase: cluster.PhaseFailed, Failures: 9, Next: now.Add(most), Looked: now}, 0, most},
		"both, and waited": {cluster.DeliveryState{Phase: cluster.PhaseReady, Next: ahead, Outbox: news, NotifyNext: ahead}, 0, 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			i := item("shop", tc.state)
			i.Release = tc.release
			at, saves := now, 0
			for done := false; !done; {
				s := delivery.Snapshot{Now: at, Free: 1, Deliveries: []delivery.Item{i}}
				acts := delivery.Plan(s)
				for _, a := range acts {
					switch a := a.(type) {
					case delivery.Save:
						if saves++; saves > 3 {
							t.Fatalf("it is written again and again: %+v", a.State)
						}
						i.State = a.State
					case delivery.Fetch, delivery.GoBack, delivery.Send:
						done = true
					case delivery.Forget, delivery.End:
						t.Fatalf("%+v", a)
					}
				}
				if len(acts) == 0 {
					at = at.Add(delivery.Wake(s))
				}
				if at.Sub(now) > 48*time.Hour {
					t.Fatal("nothing is ever done")
				}
			}
			if took := at.Sub(now); took > tc.within {
				t.Errorf("it took %s, at most %s are right", took, tc.within)
			}
			if tc.state.Watch != nil && i.State.Watch != nil && i.State.Watch.Since.After(now) {
				t.Errorf("it would be late after %s", i.State.Watch.Since.Sub(now))
			}
		})
	}
}
