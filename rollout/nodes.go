package rollout

import (
	"cmp"
	"fmt"
	"maps"
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
	return v.excluded(n) == ""
}

// constraint is one of the service. An odd one, that is not understood, holds nowhere; the
// scheduler says so.
type constraint struct {
	cluster.Constraint
	odd bool
}

func constraints(texts []string) []constraint {
	out := make([]constraint, 0, len(texts))
	for _, text := range texts {
		c, err := cluster.ParseConstraint(text)
		out = append(out, constraint{c, err != nil})
	}
	return out
}

// excluded returns the constraint of the service that n does not fulfil; "" is none.
func (v *service) excluded(n cluster.Node) string { return unfulfilled(v.constraints, n) }

func unfulfilled(cs []constraint, n cluster.Node) string {
	for _, c := range cs {
		if c.odd || !c.Holds(&n) {
			return c.Text
		}
	}
	return ""
}

// misplaced reports whether a task should move: its node is drained, or no longer
// fulfils the constraints, which or whose labels have changed. A local volume cannot
// move, nor can a task whose node may be the only one; until there is a place the task
// stays and serves.
func (v *service) misplaced(t *task) bool {
	if t.Node != "" || t.node == "" || t.Spec.HasLocalVolume() {
		return false
	}
	if n := v.nodes[t.node]; n.Availability != cluster.Drain && (!n.Alive || v.excluded(n) == "") {
		return false
	}
	alone := t.Spec.HasVolume() // it stops first: not before there is a node for it
	return slices.ContainsFunc(v.Nodes, func(n cluster.Node) bool {
		return n.Schedulable() && (!alone || v.excluded(n) == "")
	})
}

// waitFor notes what a task that is as it should be, but for its place or not ready,
// waits for that no rollout can give it.
func (v *service) waitFor(t *task) {
	if t.node == "" || !t.Spec.HasLocalVolume() {
		return
	}
	if !t.alive {
		v.waits = append(v.waits, fmt.Sprintf("%s waits for node %s, which is gone and has its volume", v.address(t), t.node))
	} else if c := v.excluded(v.nodes[t.node]); c != "" {
		v.waits = append(v.waits, fmt.Sprintf("%s stays on node %s, which has its volume and does not fulfil the constraint %s", v.address(t), t.node, c))
	}
}

// NotReplaced is in the message of a rollout that waits for a node to take tasks again.
const NotReplaced = " is not replaced: "

// held reports whether a slot's task cannot be replaced, as its node, which has its
// volumes, takes no other one now. It stays and serves.
func (v *service) held(s *slot) bool {
	if !s.goal.task.HasLocalVolume() {
		return false
	}
	for _, t := range s.run {
		if t.Node != "" || t.node == "" || !t.Spec.HasLocalVolume() || slices.Contains(v.Lost, t.node) {
			continue
		}
		what := ""
		if n := v.nodes[t.node]; !n.Schedulable() {
			what = "takes no tasks now"
		} else if c := v.excluded(n); c != "" {
			what = "does not fulfil the constraint " + c
		}
		if what != "" {
			v.waits = append(v.waits, fmt.Sprintf("%s%snode %s, which has its volume, %s", v.address(t), NotReplaced, t.node, what))
			return true
		}
	}
	return false
}

// keepPlaces notes, ahead of them, where the volumes of the tasks are that the plan
// forgets from an action on. Those of a global service are where its nodes are.
func (p *planner) keepPlaces(id cluster.ServiceID, from int) {
	places := p.kept[id]
	changed := false
	for _, a := range p.out[from:] {
		d, ok := a.(Delete)
		if !ok || d.Task.Outcome == nil || d.Task.Outcome.Node == "" || d.Task.Node != "" || !d.Task.Spec.HasLocalVolume() {
			continue
		}
		if have, ok := places.Slots[d.Task.Slot]; ok && d.Task.Rev <= have.Ended {
			continue
		}
		if !changed { // the snapshot's is not ours to write
			places = cluster.VolumePlaces{ServiceID: id, Slots: maps.Clone(places.Slots), Rev: places.Rev}
			changed = true
		}
		if places.Slots == nil {
			places.Slots = map[int]cluster.VolumePlace{}
		}
		places.Slots[d.Task.Slot] = cluster.VolumePlace{
			Node: d.Task.Outcome.Node, Volumes: d.Task.Spec.LocalVolumes(), Ended: d.Task.Rev,
		}
	}
	if changed {
		p.out = slices.Insert(p.out, from, Action(Keep{places}))
	}
}
