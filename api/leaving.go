package api

import (
	"fmt"
	"slices"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

// movesFrom says of each task on a node that is drained how it comes away from there.
func (m *model) movesFrom(n cluster.Node) []v1.Leaving {
	if n.Availability != cluster.Drain {
		return nil
	}
	out := []v1.Leaving{}
	for _, t := range m.tasks {
		if ts := m.task(t); ts.Node == n.ID && !ts.Ended() {
			l := m.moves(t, n.ID)
			l.Task, l.Address, l.ServiceID = t.ID, ts.Address, t.ServiceID
			out = append(out, l)
		}
	}
	return out
}

func (m *model) moves(t cluster.Task, from cluster.NodeID) v1.Leaving {
	switch {
	case t.Desire != cluster.DesireRun || t.Node != "": // a global service has no task here any more
		return v1.Leaving{State: v1.LeavingStops}
	case t.Spec.HasLocalVolume():
		return v1.Leaving{State: v1.LeavingHeld, Reason: fmt.Sprintf("its volumes are on node %s", from)}
	}
	for _, x := range slices.Backward(m.ofService[t.ServiceID]) {
		if x.ID == t.ID || x.Slot != t.Slot || x.Outcome != nil || x.Desire != cluster.DesireRun {
			continue
		}
		switch ts := m.task(x); {
		case ts.State == stateUnplaced:
			return v1.Leaving{State: v1.LeavingNowhere, Reason: ts.Reason}
		case ts.Ready:
			return v1.Leaving{State: v1.LeavingStops, To: ts.Node}
		default:
			return v1.Leaving{State: v1.LeavingStarts, To: ts.Node, Reason: ts.Reason}
		}
	}
	for _, other := range m.nodes {
		if other.Schedulable() {
			return v1.Leaving{State: v1.LeavingWaits, Reason: m.rollouts[t.ServiceID].Message}
		}
	}
	return v1.Leaving{State: v1.LeavingNowhere, Reason: "no other node takes tasks"}
}
