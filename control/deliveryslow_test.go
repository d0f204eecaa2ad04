package control

import (
	"fmt"
	"testing"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// As many sources as there are hands hang at once, each for the first time: the others wait for
// seconds, and not until those are given up.
func TestAsManyHangAsThereAreHands(t *testing.T) {
	inOrigin(t, func(o *origin) {
		o.hang = true
		for n := range deliveriesAtOnce {
			o.follow(cluster.DeliveryName(fmt.Sprintf("mute%d", n)))
		}
		o.lead(func() {
			time.Sleep(5 * time.Second)
			if n := o.looked("mute3"); n != 1 {
				t.Fatalf("looked at %d times", n)
			}
			o.mu.Lock()
			o.hang = false
			o.mu.Unlock()
			o.follow("shop")
			time.Sleep(10 * time.Second)
			if n := o.looked("shop"); n == 0 {
				t.Error("nobody looked at shop")
			}
		})
	})
}
