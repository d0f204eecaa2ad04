package control

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// What is changed by hand while the source is away is undone, or said, by the last good release;
// what is undone and was not written down, as whoever did it ended, is said by the next one.
func TestAnAppIsKeptWhileItsSourceIsAway(t *testing.T) {
	for _, drift := range []string{cluster.DriftCorrect, cluster.DriftReport} {
		inOrigin(t, func(o *origin) {
			o.follow("shop", func(d *cluster.Delivery) { d.Drift, d.Interval = drift, cluster.Duration(time.Minute) })
			byHand := func(content string) {
				o.mu.Lock()
				defer o.mu.Unlock()
				o.release("shop", content)
			}
			told := func() (out []string) {
				o.mu.Lock()
				defer o.mu.Unlock()
				for _, e := range o.sent {
					if e.Event == cluster.EventDrift {
						out = append(out, e.Message)
					}
				}
				return out
			}
			o.lead(func() {
				time.Sleep(10 * time.Second)
				o.mu.Lock()
				o.away = cluster.Transientf("no route")
				o.mu.Unlock()
				byHand("by hand")
				time.Sleep(10 * time.Minute)
			})
			want, says := "one", []string{"corrected: update service web"}
			if drift == cluster.DriftReport {
				want, says = "by hand", []string{"update service web"}
			}
			if st := o.state("shop"); o.app != want || !slices.Equal(told(), says) || st.Phase != cluster.PhaseFailed || st.Watch != nil || len(st.Drift) != len(says)-map[bool]int{true: 1}[want == "one"] {
				t.Errorf("%s: the app is %q, %s; told %q; %+v", drift, o.app, st.Phase, told(), st.Drift)
			}
			if drift == cluster.DriftReport {
				return
			}
			byHand("one")
			write(t, o.st, store.ReleaseKey("shop", o.at), cluster.Release{
				App: "shop", Number: o.at, By: cluster.Delivery{Name: "shop"}.Actor(), Origin: &cluster.Origin{Revision: "one"},
			})
			made := o.at
			o.lead(func() { time.Sleep(20 * time.Minute) })
			says = append(says, fmt.Sprintf("corrected: release %d", made))
			if st := o.state("shop"); o.at != made || !slices.Equal(told(), says) || st.Good.Release != made || st.Watch != nil {
				t.Errorf("after a crash: at %d, told %q, good %d", o.at, told(), st.Good.Release)
			}
			o.mu.Lock()
			o.away = nil
			o.mu.Unlock()
			o.push("two", 1)
			o.lead(func() { time.Sleep(time.Minute) })
			if st := o.state("shop"); st.Phase != cluster.PhaseReady || o.app != "two" || st.Failures != 0 {
				t.Errorf("%s, the app is %q, %d failures", st.Phase, o.app, st.Failures)
			}
		})
	}
}
