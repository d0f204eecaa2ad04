package api

import (
	"strings"
	"testing"

	"github.com/fairlead/fairlead/cluster"
)

// A task whose volumes are on a node that is lost, or drained, says so, and what to do.
func TestATaskSaysThatItsVolumesHoldIt(t *testing.T) {
	const id = cluster.TaskID("shop_db.1.a")
	node := func(alive bool, av cluster.Availability) map[cluster.NodeID]cluster.Node {
		return map[cluster.NodeID]cluster.Node{"n3": {NodeSpec: cluster.NodeSpec{ID: "n3", Availability: av}, Alive: alive}}
	}
	volume := []cluster.Mount{{Type: cluster.MountVolume, Source: "shop_data", Target: "/data"}}
	for name, c := range map[string]struct {
		nodes  map[cluster.NodeID]cluster.Node
		mounts []cluster.Mount
		state  string
		says   []string
		not    string
		alarms int
	}{
		"all is well":           {nodes: node(true, cluster.Active), mounts: volume, state: "running"},
		"drained":               {nodes: node(true, cluster.Drain), mounts: volume, state: "running", says: []string{"its volumes are on node n3", "drained"}},
		"drained, no volume":    {nodes: node(true, cluster.Drain), state: "running"},
		"lost":                  {nodes: node(false, cluster.Active), mounts: volume, state: "unknown", says: []string{"node n3 does not answer", "node rm n3 --lose-volumes"}},
		"lost, no volume":       {nodes: node(false, cluster.Active), state: "unknown", says: []string{"node n3 does not answer"}, not: "volumes"},
		"removed":               {mounts: volume, state: "unknown", says: []string{"n3 is not part of the cluster any more", "node rm n3 --lose-volumes"}, alarms: 1},
		"removed, and it moves": {state: "unknown", says: []string{"n3 is not part of the cluster any more"}, not: "volumes"},
	} {
		task := cluster.Task{ID: id, ServiceID: cluster.ServiceID{App: "shop", Name: "db"}, Slot: 1, Desire: cluster.DesireRun, Node: "n3", Spec: cluster.TaskSpec{Mounts: c.mounts}}
		m := &model{
			tasks: []cluster.Task{task}, nodes: c.nodes,
			placements: map[cluster.TaskID]cluster.NodePlacement{id: {Task: id, Node: "n3"}},
			statuses:   map[cluster.TaskID]cluster.Status{id: {Task: id, Node: "n3", State: cluster.StateRunning, Ready: true}},
		}
		got := m.task(task)
		if got.State != c.state || got.Ready != (c.state == "running") {
			t.Errorf("%s: %s, ready %v", name, got.State, got.Ready)
		}
		for _, s := range c.says {
			if !strings.Contains(got.Reason, s) {
				t.Errorf("%s: %q does not say %q", name, got.Reason, s)
			}
		}
		if len(c.says) == 0 && got.Reason != "" || c.not != "" && strings.Contains(got.Reason, c.not) {
			t.Errorf("%s: %q", name, got.Reason)
		}
		if alarms := m.stranded(); len(alarms) != c.alarms || c.alarms > 0 && !strings.HasPrefix(alarms[0], "shop/db.1: node n3") {
			t.Errorf("%s: alarms %q", name, alarms)
		}
	}
}
