package rollout

import (
	"testing"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// The node that a task is on says whether it is ready; what another one says of it makes
// no task late at once.
func TestLookHearsTheTasksNodeAlone(t *testing.T) {
	id := cluster.ServiceID{App: "a", Name: "web"}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	before := map[cluster.TaskID]time.Time{"t": now.Add(-time.Minute)}
	for _, c := range []struct {
		node  cluster.NodeID
		ready bool
		kept  bool
	}{{"n1", false, true}, {"n1", true, false}, {"n2", true, true}, {"n3", false, true}} {
		s := Snapshot{
			Now:        now,
			Rollouts:   []cluster.Rollout{{ServiceID: id, State: cluster.RolloutRunning}},
			Nodes:      []cluster.Node{{NodeSpec: cluster.NodeSpec{ID: "n1"}, Alive: true}, {NodeSpec: cluster.NodeSpec{ID: "n2"}, Alive: true}, {NodeSpec: cluster.NodeSpec{ID: "n3"}}},
			Tasks:      []cluster.Task{{ID: "t", ServiceID: id, Desire: cluster.DesireRun}},
			Placements: []cluster.NodePlacement{{Task: "t", Node: "n1", ServiceID: id}},
			Statuses:   []cluster.Status{{Task: "t", Node: c.node, Ready: c.ready}},
		}
		if at, kept := Look(before, s)["t"]; kept != c.kept || kept && !at.Equal(before["t"]) {
			t.Errorf("%s says ready %v: %v, %v", c.node, c.ready, at, kept)
		}
	}
}
