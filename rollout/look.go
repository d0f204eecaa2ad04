package rollout

import (
	"slices"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// Look notes since when the tasks of rollouts under way have not been ready, as the one who
// looks at one snapshot after the other has seen it; before is what it noted last. A task whose
// node is away, or its engine, is left out, and so are all while no node is there: when it is
// back the task has its time again.
func Look(before map[cluster.TaskID]time.Time, s Snapshot) map[cluster.TaskID]time.Time {
	first := map[cluster.ServiceID]int64{}
	for _, r := range s.Rollouts {
		switch r.State {
		case cluster.RolloutRunning, cluster.RolloutRollingBack, cluster.RolloutFailed:
			first[r.ServiceID] = r.FirstTask
		case cluster.RolloutComplete, cluster.RolloutRolledBack, cluster.RolloutPaused:
		}
	}
	out := map[cluster.TaskID]time.Time{}
	if len(first) == 0 {
		return out
	}
	there := map[cluster.NodeID]bool{}
	for _, n := range s.Nodes {
		if n.Alive && !n.Info.EngineAway {
			there[n.ID] = true
		}
	}
	if len(there) == 0 {
		return out
	}
	nowhere := s.nowhere(there)
	for i := range s.Tasks {
		t := &s.Tasks[i]
		if from, under := first[t.ServiceID]; !under || t.N < from || t.Hook != "" || t.Outcome != nil || t.Desire != cluster.DesireRun {
			continue
		}
		if nowhere(t) {
			continue
		}
		at, known := before[t.ID]
		if !known || at.After(s.Now) {
			at = s.Now
		}
		out[t.ID] = at
	}
	on := make(map[cluster.TaskID]cluster.NodeID, len(s.Placements))
	for i := range s.Placements {
		p := &s.Placements[i]
		on[p.Task] = p.Node
		if !there[p.Node] {
			delete(out, p.Task)
		}
	}
	for i := range s.Statuses {
		if st := &s.Statuses[i]; st.Ready && on[st.Task] == st.Node { // which alone speaks for it
			delete(out, st.Task)
		}
	}
	return out
}

// nowhere tells of tasks that are not placed whether all nodes where they can be are away.
func (s *Snapshot) nowhere(there map[cluster.NodeID]bool) func(*cluster.Task) bool {
	placed := map[cluster.TaskID]bool{}
	for i := range s.Placements {
		placed[s.Placements[i].Task] = true
	}
	wants := map[cluster.ServiceID][]string{}
	for i := range s.Services {
		wants[s.Services[i].ServiceID] = s.Services[i].Spec.Placement.Constraints
	}
	away := map[cluster.ServiceID]bool{}
	return func(t *cluster.Task) bool {
		if placed[t.ID] {
			return false
		}
		if home := s.home(t); home != "" && !there[home] {
			return true
		}
		is, known := away[t.ServiceID]
		if !known {
			is = onlyAway(s.Nodes, constraints(wants[t.ServiceID]))
			away[t.ServiceID] = is
		}
		return is
	}
}

// onlyAway reports whether all nodes that fulfil the constraints, of which there are some, are
// away.
func onlyAway(nodes []cluster.Node, cs []constraint) bool {
	away := false
	for _, n := range nodes {
		switch {
		case unfulfilled(cs, n) != "":
		case n.Schedulable():
			return false
		case !n.Alive || n.Info.EngineAway:
			away = true
		}
	}
	return away
}

// home is the only node where a task can be: the one that it is made for, or that has its
// volumes. "": there is none.
func (s *Snapshot) home(t *cluster.Task) cluster.NodeID {
	if t.Node != "" || !t.Spec.HasLocalVolume() {
		return t.Node
	}
	at, newest := cluster.NodeID(""), int64(-1)
	for i := range s.Tasks {
		x := &s.Tasks[i]
		if x.ServiceID == t.ServiceID && x.Slot == t.Slot && x.Outcome != nil && x.Outcome.Node != "" && x.N > newest && x.Spec.HasLocalVolume() {
			at, newest = x.Outcome.Node, x.N
		}
	}
	if at == "" {
		for _, k := range s.Kept {
			if k.ServiceID == t.ServiceID {
				at = k.Slots[t.Slot].Node
			}
		}
	}
	if slices.Contains(s.Lost, at) {
		return ""
	}
	return at
}
