package agent

import (
	"testing"

	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/cluster"
)

// A task that only starts is no node that cannot be reached, and is named as its
// user names it.
func TestExecIntoWhatDoesNotRun(t *testing.T) {
	t.Parallel()
	const id = "shop_web.1.7"
	x := &task{id: id, placement: &cluster.NodePlacement{Task: id, ServiceID: cluster.ServiceID{App: "shop", Name: "web"}, Slot: 1}}
	a := &Agent{tasks: map[cluster.TaskID]*task{id: x}}
	for _, c := range []struct {
		container *docker.Container
		placed    bool
		kind      cluster.Kind
		says      string
	}{
		{&docker.Container{State: docker.Created}, true, cluster.KindConflict, "shop/web.1 does not run now: its container is created"},
		{nil, true, cluster.KindNotFound, "shop/web.1 has no container now: it is accepted"},
		{&docker.Container{State: docker.Exited}, false, cluster.KindConflict, "task shop_web.1.7 does not run now: its container is exited"},
	} {
		x.container = c.container
		if !c.placed {
			x.placement = nil
		}
		_, err := a.Exec(t.Context(), id, cluster.ExecOptions{Command: []string{"sh"}}, ExecStreams{})
		if cluster.KindOf(err) != c.kind || err == nil || err.Error() != c.says {
			t.Errorf("%v (%v), want %s", err, cluster.KindOf(err), c.says)
		}
	}
}
