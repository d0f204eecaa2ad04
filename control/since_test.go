package control

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/rollout"
)

// TestNodesFollowTheFirstOneBack: while no node is there nothing can be replaced, and what
// was gone then is not counted against those that come back after the first.
func TestNodesFollowTheFirstOneBack(t *testing.T) {
	r := &rolloutStore{gone: map[cluster.NodeID]time.Time{}}
	at := func(second int, alive ...bool) (since []int, lost time.Duration) {
		s := rollout.Snapshot{Now: time.Unix(int64(second), 0)}
		for i, a := range alive {
			s.Nodes = append(s.Nodes, cluster.Node{NodeSpec: cluster.NodeSpec{ID: cluster.NodeID(fmt.Sprint("n", i))}, Alive: a})
		}
		r.since(&s)
		for _, n := range s.Nodes {
			if n.Since.IsZero() {
				since = append(since, -1)
				continue
			}
			since = append(since, int(n.Since.Unix()))
		}
		return since, s.LostAfter
	}
	for _, step := range []struct {
		second int
		alive  []bool
		since  []int
		lost   time.Duration
	}{
		{100, []bool{true, true, false}, []int{-1, -1, 100}, lostAfter},
		{110, []bool{true, false, false}, []int{-1, 110, 100}, lostAfter},
		{120, []bool{false, false, false}, []int{-1, -1, -1}, 0},
		{150, []bool{false, true, false}, []int{150, -1, 150}, lostAfter},
		{151, []bool{true, true, false}, []int{-1, -1, 150}, lostAfter},
		{90, []bool{true, true, false}, []int{-1, -1, 90}, lostAfter}, // the clock is set back
		{94, []bool{true, true, false}, []int{-1, -1, 90}, lostAfter},
	} {
		since, lost := at(step.second, step.alive...)
		if !slices.Equal(since, step.since) || lost != step.lost {
			t.Errorf("at %d: since %v, lost after %s; want %v, %s", step.second, since, lost, step.since, step.lost)
		}
	}
}
