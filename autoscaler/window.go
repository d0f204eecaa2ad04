package autoscaler

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

const (
	downWindow = 5 * time.Minute
	growPeriod = 15 * time.Second // in which the count grows by at most
	growBy     = 4                // so many
	growTimes  = 2                // or to so many times what it was, whichever is more
)

// windows returns the stabilisation windows.
func windows(a cluster.Autoscale) (up, down time.Duration) {
	return a.UpWindow.D(), cmp.Or(a.DownWindow.D(), downWindow)
}

// stabilize brings a recommendation to what the windows allow: up to the lowest
// one within the window up, down to the highest within the window down.
func (s *State) stabilize(now time.Time, a cluster.Autoscale, current, want int) int {
	up, down := windows(a)
	lowest, highest := want, want
	for _, r := range s.Recommended {
		if r.At.After(now.Add(-up)) {
			lowest = min(lowest, r.Replicas)
		}
		if r.At.After(now.Add(-down)) {
			highest = max(highest, r.Replicas)
		}
	}
	s.Recommended = append(s.Recommended, Recommendation{now, want})
	return min(max(current, lowest), highest)
}

// growth is the highest count that the limit on growth allows.
func (s *State) growth(now time.Time, current int) int {
	start := current
	for _, c := range s.Changes {
		if c.At.After(now.Add(-growPeriod)) {
			start -= c.By
		}
	}
	return max(current, start+growBy, start*growTimes)
}

// prune forgets what can decide nothing any more: what is older than the
// windows, and recommendations between later ones that are at least as low and at
// least as high. What is left is bounded by the number of counts, whatever the window.
func (s *State) prune(now time.Time, a cluster.Autoscale) {
	up, down := windows(a)
	var kept []Recommendation
	lowest, highest := math.MaxInt, math.MinInt
	for _, r := range slices.Backward(s.Recommended) {
		if !r.At.After(now.Add(-max(up, down))) || (r.Replicas >= lowest && r.Replicas <= highest) {
			continue
		}
		lowest, highest = min(lowest, r.Replicas), max(highest, r.Replicas)
		kept = append(kept, r)
	}
	slices.Reverse(kept)
	s.Recommended = kept
	s.Changes = slices.DeleteFunc(s.Changes, func(c Change) bool { return !c.At.After(now.Add(-growPeriod)) })
}

// rewind makes times that lie ahead, written by a leader whose clock was ahead,
// those of now: a window must end some day.
func (s *State) rewind(now time.Time) {
	for i := range s.Recommended {
		if s.Recommended[i].At.After(now) {
			s.Recommended[i].At = now
		}
	}
	for i := range s.Changes {
		if s.Changes[i].At.After(now) {
			s.Changes[i].At = now
		}
	}
}
