package api

import (
	"testing"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/google/go-cmp/cmp"
)

// How each task comes away from a drained node: n2 is drained, and n3 takes tasks or not.
func TestMovesFromANode(t *testing.T) {
	web := cluster.ServiceID{App: "shop", Name: "web"}
	volume := cluster.TaskSpec{Mounts: []cluster.Mount{{Type: cluster.MountVolume, Source: "shop_data", Target: "/data"}}}
	const old, young = cluster.TaskID("shop_web.1.a"), cluster.TaskID("shop_web.1.b")
	on := func(id cluster.TaskID, node cluster.NodeID, ready bool) (cluster.NodePlacement, cluster.Status) {
		return cluster.NodePlacement{Task: id, Node: node}, cluster.Status{Task: id, Node: node, State: cluster.StateRunning, Ready: ready, Reason: "checked"}
	}
	type change func(m *model)
	replaced := func(node cluster.NodeID, ready bool) change {
		return func(m *model) {
			m.ofService[web] = append(m.ofService[web], cluster.Task{ID: young, ServiceID: web, Slot: 1, Desire: cluster.DesireRun})
			if node != "" {
				m.placements[young], m.statuses[young] = on(young, node, ready)
			}
		}
	}
	for name, c := range map[string]struct {
		spec   cluster.TaskSpec
		desire cluster.Desire
		global bool
		other  cluster.Availability
		change change
		want   v1.Leaving
	}{
		"waits":          {want: v1.Leaving{State: v1.LeavingWaits}},
		"of a rollout":   {change: func(m *model) { m.rollouts[web] = cluster.Rollout{Message: "paused"} }, want: v1.Leaving{State: v1.LeavingWaits, Reason: "paused"}},
		"no other node":  {other: cluster.Pause, want: v1.Leaving{State: v1.LeavingNowhere, Reason: "no other node takes tasks"}},
		"stops":          {desire: cluster.DesireStop, spec: volume, want: v1.Leaving{State: v1.LeavingStops}},
		"held":           {spec: volume, want: v1.Leaving{State: v1.LeavingHeld, Reason: "its volumes are on node n2"}},
		"global":         {spec: volume, global: true, want: v1.Leaving{State: v1.LeavingStops}},
		"not placed yet": {change: replaced("", false), want: v1.Leaving{State: v1.LeavingStarts, Reason: "waits for the scheduler"}},
		"starts":         {change: replaced("n3", false), want: v1.Leaving{State: v1.LeavingStarts, To: "n3", Reason: "checked"}},
		"is replaced":    {change: replaced("n3", true), want: v1.Leaving{State: v1.LeavingStops, To: "n3"}},
		"nowhere to go": {change: func(m *model) {
			replaced("", false)(m)
			m.decisions[string(young)] = []cluster.Decision{{Loop: "scheduler", Reason: "no suitable node"}}
		}, want: v1.Leaving{State: v1.LeavingNowhere, Reason: "no suitable node"}},
		"one that ended is no replacement": {change: func(m *model) {
			m.ofService[web] = append(m.ofService[web], cluster.Task{ID: young, ServiceID: web, Slot: 1, Desire: cluster.DesireRun, Outcome: &cluster.Outcome{}})
		}, want: v1.Leaving{State: v1.LeavingWaits}},
	} {
		task := cluster.Task{ID: old, ServiceID: web, Slot: 1, Desire: cluster.DesireRun, Spec: c.spec}
		if c.desire != "" {
			task.Desire = c.desire
		}
		if c.global {
			task.Node = "n2"
		}
		p, st := on(old, "n2", true)
		m := &model{
			tasks: []cluster.Task{task}, ofService: map[cluster.ServiceID][]cluster.Task{web: {task}},
			nodes: map[cluster.NodeID]cluster.Node{
				"n2": {NodeSpec: cluster.NodeSpec{ID: "n2", Availability: cluster.Drain}, Alive: true},
				"n3": {NodeSpec: cluster.NodeSpec{ID: "n3", Availability: c.other}, Alive: true},
			},
			placements: map[cluster.TaskID]cluster.NodePlacement{old: p}, statuses: map[cluster.TaskID]cluster.Status{old: st},
			rollouts: map[cluster.ServiceID]cluster.Rollout{}, decisions: map[string][]cluster.Decision{},
		}
		if c.change != nil {
			c.change(m)
		}
		c.want.Task, c.want.Address, c.want.ServiceID = old, "shop/web.1", web
		if d := cmp.Diff([]v1.Leaving{c.want}, m.movesFrom(m.nodes["n2"])); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		if got := m.movesFrom(m.nodes["n3"]); got != nil {
			t.Errorf("%s: n3 is not drained: %v", name, got)
		}
	}
}
