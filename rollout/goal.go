package rollout

import (
	"cmp"
	"slices"

	"github.com/fairlead/fairlead/cluster"
)

// goal is what the slots should run now. It differs from the target while the
// service goes back, is paused, or waits for a dependency.
type goal struct {
	task    cluster.TaskSpec
	version string
	release int
	policy  cluster.UpdatePolicy
	none    bool // nothing may be made at all
	hold    bool // tasks of other versions are left as they are
	own     bool // a slot keeps the version that it has
}

// aim chooses what the slots should run now.
func (v *service) aim() {
	target := goal{
		task: v.spec.Spec.Task, version: v.spec.Version, release: v.spec.Release, policy: v.spec.Spec.Update,
	}
	stable := target
	if v.canGoBack() {
		stable = goal{
			task: *v.rec.Stable, version: v.rec.Stable.Hash(), release: v.rec.StableRelease, policy: v.spec.Spec.Rollback,
		}
	}
	v.goal = target
	switch v.rec.State {
	case cluster.RolloutRollingBack, cluster.RolloutRolledBack:
		v.goal = stable
	case cluster.RolloutPaused:
		v.goal = stable
		v.goal.hold = true
	case cluster.RolloutRunning, cluster.RolloutComplete, cluster.RolloutFailed:
		if v.gated != "" {
			v.goal = stable
			v.goal.hold = true
			v.goal.none = !v.canGoBack()
		}
	}
}

// keep gives the slots their goals. In a rollout that is paused a slot that has nothing else
// keeps its version: what must leave its node is made again as it was, and so is what was lost.
func (v *service) keep() {
	for _, s := range v.slots {
		s.goal = v.goal
		if v.rec.State != cluster.RolloutPaused {
			continue
		}
		if t := s.last(v.goal.version); t.Version != v.goal.version && (len(s.run) > 0 || t.Version == v.rec.Target) {
			s.goal.task, s.goal.version, s.goal.release, s.goal.own = t.Spec, t.Version, t.Release, true
		}
	}
}

// last is the task whose version a slot has: one to run, of the version that is asked for if
// there is one; else the one that leaves it, or left it last, and did not end by itself.
func (s *slot) last(version string) *task {
	none := &task{Task: cluster.Task{Version: version}}
	switch {
	case slices.ContainsFunc(s.run, func(t *task) bool { return t.Version == version }):
		return none
	case len(s.run) > 0:
		return s.run[0]
	case len(s.leaving) > 0:
		return s.leaving[0]
	case len(s.ended) == 0:
		return none
	}
	t := slices.MaxFunc(s.ended, func(a, b *task) int { return cmp.Or(a.Outcome.At.Compare(b.Outcome.At), cmp.Compare(a.N, b.N)) })
	if t.Outcome.State != cluster.StateLost && t.Outcome.State != cluster.StateStopped {
		return none
	}
	return t
}

// canGoBack reports whether there is another version to serve.
func (v *service) canGoBack() bool {
	return v.rec.Stable != nil && v.rec.Stable.Hash() != v.rec.Target
}

// stopFirst reports whether a new task must wait for the old one to end: always
// where both need what only one can have, unless the user says otherwise.
func (g *goal) stopFirst() bool {
	switch g.policy.Order {
	case "stop-first":
		return true
	case "start-first":
		return false
	}
	t := g.task
	return t.HasVolume() || len(t.NodePorts) > 0 || t.NetworkMode == "host"
}
