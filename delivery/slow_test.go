package delivery_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery"
)

// Sources that hang hold up themselves: after a while others have their hands, those of other
// hosts first of all.
func TestWhatHangsGivesItsHandBack(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	const hands = 4
	for _, tc := range []struct {
		what      string
		hang      int           // looks that are under way
		since     time.Duration // for so long
		same, ask bool          // the next are from the same host, somebody asks for them
		want      int           // of ten that are due
		wake      time.Duration
	}{
		{"they have just begun", 4, 0, false, false, 0, 10 * time.Second},
		{"nearly", 4, 9 * time.Second, false, false, 0, time.Second},
		{"they hang", 4, 10 * time.Second, false, false, 4, time.Second},
		{"of one host", 4, 10 * time.Second, true, false, 2, time.Second},
		{"of one host, and somebody asks", 4, 10 * time.Second, true, true, 4, time.Second},
		{"all places for those that hang are taken", 10, time.Minute, false, false, 2, time.Second},
		{"more than that", 12, time.Minute, false, false, 0, time.Second},
		{"far more", 20, time.Minute, false, false, 0, time.Second},
	} {
		s := delivery.Snapshot{
			Now: now, Free: hands - tc.hang, Busy: map[cluster.DeliveryName]cluster.StoreRev{}, Since: map[cluster.DeliveryName]time.Time{},
		}
		for n := range tc.hang {
			i := item(cluster.DeliveryName(fmt.Sprintf("mute%d", n)), cluster.DeliveryState{Next: now.Add(-time.Hour)})
			i.Spec.Source.URL = "https://mute.example.com/a.git"
			s.Deliveries, s.Busy[i.Spec.Name], s.Since[i.Spec.Name] = append(s.Deliveries, i), i.Spec.Rev, now.Add(-tc.since)
		}
		if w := delivery.Wake(s); tc.since < 10*time.Second && w != tc.wake {
			t.Errorf("%s: it wakes in %s", tc.what, w)
		}
		for n := range 10 {
			i := item(cluster.DeliveryName(fmt.Sprintf("good%d", n)), cluster.DeliveryState{Next: now})
			i.Spec.Source.URL = "https://good.example.com/a.git"
			if tc.same {
				i.Spec.Source.URL = "https://mute.example.com/b.git"
			}
			if tc.ask {
				i.Ask = 1
			}
			s.Deliveries = append(s.Deliveries, i)
		}
		if got := len(delivery.Plan(s)); got != tc.want {
			t.Errorf("%s: %d are begun, not %d", tc.what, got, tc.want)
		}
	}
}
