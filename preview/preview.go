package preview

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/rollout"
	"github.com/fairlead/fairlead/scheduler"
)

// Snapshot is the cluster as it is, at one store revision.
type Snapshot struct {
	Now        time.Time
	Nodes      []cluster.Node
	Lost       []cluster.NodeID // as in scheduler.Snapshot
	Kept       []cluster.VolumePlaces
	Services   []cluster.Service
	Scales     []cluster.Scale
	Tasks      []cluster.Task
	Placements []cluster.NodePlacement
	Statuses   []cluster.Status
	Rollouts   []cluster.Rollout
}

// Change is an app as it would be: all of its services, with their counts.
type Change struct {
	App      cluster.AppName
	Services []cluster.Service
	Scales   []cluster.Scale
}

// maxRounds bounds what is simulated. A batch of an update takes two rounds, so
// only updates in more than 100 batches are not seen to their end; they move.
const maxRounds = 200

// Waits returns the services of the app that would not get all they should have,
// sorted by name.
func Waits(s Snapshot, c Change) []cluster.Wait {
	w := newWorld(s, c)
	settled := false
	for range maxRounds {
		if settled = !w.step(); settled {
			break
		}
	}
	var out []cluster.Wait
	for _, svc := range w.services {
		if x, waits := w.wait(svc, settled); waits {
			out = append(out, x)
		}
	}
	return out
}

// world is the cluster of the simulation. Of the app it holds all that the
// rollout looks at, of other apps only what takes room.
type world struct {
	now      time.Time
	nodes    []cluster.Node
	lost     []cluster.NodeID
	kept     []cluster.VolumePlaces
	alive    map[cluster.NodeID]bool
	services []cluster.Service // of the app, by name
	others   []cluster.Service
	scales   []cluster.Scale
	counts   map[cluster.ServiceID]int
	// jobs are services that others wait for to complete.
	jobs map[cluster.ServiceID]bool

	tasks      map[cluster.TaskID]cluster.Task // of the app
	history    []cluster.Task                  // that failed before: they say only where volumes are
	elsewhere  []cluster.Task                  // of other apps, not on any node
	placements map[cluster.TaskID]cluster.NodePlacement
	statuses   map[cluster.TaskID]cluster.Status
	rollouts   map[cluster.ServiceID]cluster.Rollout
	refused    map[cluster.TaskID]scheduler.Unplaced
}

func newWorld(s Snapshot, c Change) *world {
	w := &world{
		now: s.Now, nodes: s.Nodes, lost: s.Lost, kept: s.Kept, alive: map[cluster.NodeID]bool{}, scales: c.Scales,
		services: slices.Clone(c.Services), counts: map[cluster.ServiceID]int{}, jobs: map[cluster.ServiceID]bool{},
		tasks: map[cluster.TaskID]cluster.Task{}, placements: map[cluster.TaskID]cluster.NodePlacement{},
		statuses: map[cluster.TaskID]cluster.Status{}, rollouts: map[cluster.ServiceID]cluster.Rollout{},
	}
	slices.SortFunc(w.services, func(a, b cluster.Service) int { return a.Compare(b.ServiceID) })
	for i := range w.services {
		// A delay between batches changes when, not where.
		w.services[i].Spec.Update.Delay, w.services[i].Spec.Rollback.Delay = 0, 0
		for _, d := range w.services[i].Spec.DependsOn {
			if d.Condition == "service_completed_successfully" {
				w.jobs[cluster.ServiceID{App: c.App, Name: d.Service}] = true
			}
		}
	}
	for _, n := range s.Nodes {
		w.alive[n.ID] = n.Alive
	}
	for _, x := range c.Scales {
		w.counts[x.ServiceID] = x.Replicas
	}
	for _, x := range s.Services {
		if x.App != c.App {
			w.others = append(w.others, x)
		}
	}
	for _, p := range s.Placements {
		w.placements[p.Task] = p
	}
	for _, st := range s.Statuses {
		if w.placements[st.Task].Node == st.Node {
			w.statuses[st.Task] = st
		}
	}
	for _, r := range s.Rollouts {
		if r.App == c.App {
			w.rollouts[r.ServiceID] = r
		}
	}
	for _, t := range s.Tasks {
		switch {
		case t.App != c.App:
			if _, placed := w.placements[t.ID]; !placed { // the placement says all else
				w.elsewhere = append(w.elsewhere, t)
			}
		case failed(t, w.statuses[t.ID]):
			// The back-off after it is over in a moment.
			if t.Outcome == nil {
				t.Outcome = &cluster.Outcome{State: cluster.StateFailed, Node: w.placements[t.ID].Node, At: s.Now}
			}
			w.history = append(w.history, t)
			w.end(t.ID)
		default:
			w.tasks[t.ID] = t
		}
	}
	return w
}

func failed(t cluster.Task, st cluster.Status) bool {
	if t.Outcome != nil {
		return t.Outcome.State != cluster.StateComplete
	}
	return st.State.Terminal() && st.State != cluster.StateComplete
}

// step lets each part act once, and reports whether anything moved.
func (w *world) step() bool {
	moved := w.roll()
	moved = w.schedule() || moved
	return w.run() || moved
}

// roll applies the rollout's plan. A task that is to go is gone at once.
func (w *world) roll() bool {
	s := rollout.Snapshot{
		Now: w.now, Services: w.services, Scales: w.scales, Nodes: w.nodes, Tasks: values(w.tasks),
		Placements: values(w.placements), Statuses: values(w.statuses), Rollouts: values(w.rollouts), Kept: w.kept,
	}
	moved := false
	for _, a := range rollout.Plan(s) {
		switch a := a.(type) {
		case rollout.Create:
			w.tasks[a.Task.ID], moved = a.Task, true
		case rollout.Drain:
			w.leave(a.Task)
			moved = true
		case rollout.Stop:
			w.leave(a.Task)
			moved = true
		case rollout.Record:
			w.tasks[a.Task.ID], moved = a.Task, true
			w.end(a.Task.ID)
		case rollout.Rewind:
			w.tasks[a.Task.ID], moved = a.Task, true
		case rollout.Delete:
			delete(w.tasks, a.Task.ID)
		case rollout.Save:
			w.rollouts[a.Rollout.ServiceID], moved = a.Rollout, true
		case rollout.Keep:
			w.kept = slices.DeleteFunc(slices.Clone(w.kept), func(x cluster.VolumePlaces) bool { return x.ServiceID == a.Places.ServiceID })
			w.kept = append(w.kept, a.Places)
		case rollout.Withdraw, rollout.Forget, rollout.Settle, rollout.Unsettle, rollout.Explain:
		}
	}
	return moved
}

// leave ends a task, unless nobody on its node can.
func (w *world) leave(t cluster.Task) {
	if p, placed := w.placements[t.ID]; placed && !w.alive[p.Node] {
		w.tasks[t.ID] = t
		return
	}
	node := w.placements[t.ID].Node
	t.Desire, t.Outcome = cluster.DesireStop, &cluster.Outcome{State: cluster.StateStopped, Node: node, At: w.now}
	w.tasks[t.ID] = t
	w.end(t.ID)
}

func (w *world) end(id cluster.TaskID) {
	delete(w.placements, id)
	delete(w.statuses, id)
}

// schedule applies the scheduler's plan and keeps what it refused.
func (w *world) schedule() bool {
	s := scheduler.Snapshot{
		Now: w.now, Nodes: w.nodes, Lost: w.lost, Kept: w.kept, Services: slices.Concat(w.services, w.others),
		Tasks:      slices.Concat(values(w.tasks), w.history, w.elsewhere),
		Placements: values(w.placements), Statuses: values(w.statuses),
	}
	w.refused = map[cluster.TaskID]scheduler.Unplaced{}
	moved := false
	for _, a := range scheduler.Plan(s) {
		switch a := a.(type) {
		case scheduler.Place:
			w.placements[a.Placement.Task], moved = a.Placement, true
		case scheduler.Unplaced:
			w.refused[a.Task] = a
		case scheduler.Remove, scheduler.SetDesire, scheduler.Forget:
			// Tasks of other apps on their way out still take their room.
		}
	}
	return moved
}

// run makes every placed task of the app ready, and completes jobs.
func (w *world) run() bool {
	moved := false
	for id, t := range w.tasks {
		p, placed := w.placements[id]
		if !placed || !w.alive[p.Node] || t.Desire != cluster.DesireRun || t.Outcome != nil {
			continue
		}
		if w.statuses[id].Ready || w.statuses[id].State == cluster.StateComplete {
			continue
		}
		st := cluster.Status{
			Task: id, Node: p.Node, ServiceID: t.ServiceID, Slot: t.Slot, Version: t.Version,
			State: cluster.StateRunning, Ready: true, ReadySince: w.now, Started: w.now,
		}
		if w.jobs[t.ServiceID] {
			st.State, st.Ready = cluster.StateComplete, false
		}
		w.statuses[id], moved = st, true
	}
	return moved
}

// wait says what a service lacks in the end, and why.
func (w *world) wait(svc cluster.Service, settled bool) (cluster.Wait, bool) {
	out := cluster.Wait{ServiceID: svc.ServiceID}
	have, lack, old := map[int]bool{}, map[int]bool{}, map[int]bool{}
	var first *scheduler.Unplaced
	for _, t := range w.tasks {
		u, refused := w.refused[t.ID]
		switch {
		case t.ServiceID != svc.ServiceID:
		case refused:
			lack[t.Slot] = true
			if first == nil || cmp.Or(cmp.Compare(u.Slot, first.Slot), cmp.Compare(u.Task, first.Task)) < 0 {
				first = &u
			}
		case t.Outcome != nil && t.Outcome.State == cluster.StateComplete && t.Version == svc.Version:
			have[t.Slot] = true
		case t.Outcome != nil || t.Desire != cluster.DesireRun:
		case t.Version == svc.Version || givenUp(w.rollouts[svc.ServiceID], svc):
			have[t.Slot] = true
		default:
			old[t.Slot] = true
		}
	}
	out.Wanted = w.wanted(svc, have, lack, old)
	for slot := range have {
		if lack[slot] { // moves to another node
			delete(have, slot)
			old[slot] = true
		}
	}
	out.Waiting = out.Wanted - len(have)
	message := w.rollouts[svc.ServiceID].Message
	switch {
	case first != nil:
		out.Reason, out.Refusals, out.Beside = first.Reason, first.Refusals, old[first.Slot]
	case settled && (strings.HasPrefix(message, "waits for ") || strings.Contains(message, rollout.NotReplaced)):
		out.Reason = message
	}
	if !settled && first != nil {
		out.Waiting = len(lack)
	}
	return out, out.Waiting > 0 && out.Reason != ""
}

// wanted is how many tasks the service should have; a global one has a slot for
// each of its nodes.
func (w *world) wanted(svc cluster.Service, slots ...map[int]bool) int {
	if svc.Spec.Mode != cluster.Global {
		if n, ok := w.counts[svc.ServiceID]; ok {
			return n
		}
		return svc.Spec.Replicas
	}
	all := map[int]bool{}
	for _, m := range slots {
		for s := range m {
			all[s] = true
		}
	}
	return len(all)
}

// givenUp reports whether the service keeps an earlier version, by a decision
// made before this change.
func givenUp(r cluster.Rollout, svc cluster.Service) bool {
	if r.Target != svc.Version || r.Release != svc.Release {
		return false
	}
	switch r.State {
	case cluster.RolloutRollingBack, cluster.RolloutRolledBack, cluster.RolloutPaused:
		return true
	case cluster.RolloutRunning, cluster.RolloutComplete, cluster.RolloutFailed:
	}
	return false
}

// values needs no order: the planners' results do not depend on it.
func values[K comparable, V any](m map[K]V) []V {
	out := make([]V, 0, len(m))
	for _, v := range m {
		out = append(out, v)
	}
	return out
}
