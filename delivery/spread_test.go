package delivery_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery"
)

// Looks at sources do not come together: each delivery's next one is up to a tenth earlier
// or later than its interval says, and another time after each.
func TestLooksAreSpread(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	const interval, deliveries = 10 * time.Minute, 200
	minutes := map[int]int{} // how many look in each tenth of the span
	for i := range deliveries {
		name := cluster.DeliveryName(fmt.Sprintf("app%d", i))
		it := item(name, cluster.DeliveryState{})
		it.Spec.Interval = cluster.Duration(interval)
		pauses := map[time.Duration]bool{}
		for range 5 {
			it.State = delivery.Looked(it, delivery.Look{Verdict: delivery.Keep}, now)
			pause := it.State.Next.Sub(now)
			if pause < interval*9/10 || pause >= interval*11/10 {
				t.Fatalf("%s looks again after %s", name, pause)
			}
			pauses[pause] = true
			minutes[int((pause-interval*9/10)/(interval/50))]++
			it.State.Checks++
		}
		if len(pauses) < 2 {
			t.Errorf("%s always looks after the same time", name)
		}
	}
	for tenth := range 10 {
		if n := minutes[tenth]; n < 5*deliveries/10/2 || n > 5*deliveries/10*2 {
			t.Errorf("%d of %d looks are in tenth %d of the span", n, 5*deliveries, tenth)
		}
	}
}
