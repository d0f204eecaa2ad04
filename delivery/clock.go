package delivery

import (
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// rewound takes times back that lie further ahead than they are ever put: a leader whose clock was
// ahead wrote them, or the clock was set back since, and the source would not be looked at, nor
// news be sent, for as long.
func rewound(i Item, now time.Time) (cluster.DeliveryState, bool) {
	st, ahead := i.State, false
	back := func(at *time.Time, most time.Duration) {
		if latest := now.Add(most); at.After(latest) {
			*at, ahead = latest, true
		}
	}
	wait := max(i.Spec.Filled().Interval.D(), maxBackoff)
	back(&st.Next, wait+wait/10) // which is spread
	back(&st.NotifyNext, notifyAgain)
	back(&st.Looked, 0)
	back(&st.Checked, 0)
	if st.Watch != nil && st.Watch.Since.After(now) {
		w := *st.Watch
		back(&w.Since, 0)
		st.Watch = &w
	}
	return st, ahead
}
