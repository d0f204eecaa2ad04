package rollout

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/fairlead/fairlead/cluster"
)

// globalSlots gives each node that should run a task of a global service its
// slot: the one that its tasks have had, else the smallest that is free.
func (v *service) globalSlots() map[int]cluster.NodeID {
	slotOf := map[cluster.NodeID]int{}
	taken := map[int]bool{}
	live := map[cluster.NodeID]bool{}
	for _, t := range v.tasks[v.spec.ServiceID] { // by slot: the same for any order of the input
		if t.Node == "" {
			continue
		}
		if _, known := slotOf[t.Node]; !known && !taken[t.Slot] {
			slotOf[t.Node] = t.Slot
		}
		taken[t.Slot] = true
		if t.Outcome == nil && t.Desire == cluster.DesireRun {
			live[t.Node] = true
		}
	}
	out := map[int]cluster.NodeID{}
	free := 1
	for _, n := range slices.SortedFunc(slices.Values(v.Nodes), func(a, b cluster.Node) int { return cmp.Compare(a.ID, b.ID) }) {
		if !v.wantsNode(n, live[n.ID]) {
			continue
		}
		slot, known := slotOf[n.ID]
		if !known {
			for taken[free] {
				free++
			}
			slot, taken[free] = free, true
		}
		out[slot] = n.ID
	}
	return out
}

// wantsNode reports whether a global service should have a task on n. A node
// that is paused, or gone for a while, keeps what it has.
func (v *service) wantsNode(n cluster.Node, has bool) bool {
	if len(n.Info.Roles) > 0 && !n.HasRole("agent") {
		return false
	}
	if !n.Schedulable() && (!has || n.Availability == cluster.Drain) {
		return false
	}
	for _, c := range v.spec.Spec.Placement.Constraints {
		// One that is not understood holds nowhere; the scheduler says so.
		if parsed, err := cluster.ParseConstraint(c); err != nil || !parsed.Holds(&n) {
			return false
		}
	}
	return true
}

// misplaced reports whether a task should move because its node is drained. A
// local volume cannot move, and with nowhere to go the task stays and serves.
func (v *service) misplaced(t *task) bool {
	if t.Node != "" || t.node == "" || t.Spec.HasLocalVolume() || v.nodes[t.node].Availability != cluster.Drain {
		return false
	}
	return slices.ContainsFunc(v.Nodes, cluster.Node.Schedulable)
}

// waitFor notes what a task that is as it should be, but not ready, waits for
// that no rollout can give it.
func (v *service) waitFor(t *task) {
	if t.node != "" && !t.alive && t.Spec.HasLocalVolume() {
		v.waits = append(v.waits, fmt.Sprintf("%s waits for node %s, which is gone and has its volume", v.address(t), t.node))
	}
}
