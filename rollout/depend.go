package rollout

import (
	"github.com/fairlead/fairlead/cluster"
)

// gate finds out whether the target's first tasks must wait for another
// service. Once the target has a task, its dependencies are asked no more: what
// runs is never taken down for them.
func (v *service) gate() {
	v.rec.Blocked = false
	if v.rec.State != cluster.RolloutRunning && v.rec.State != cluster.RolloutFailed {
		return
	}
	for _, t := range v.tasks[v.spec.ServiceID] {
		if t.Version == v.rec.Target && (t.Outcome == nil || t.Outcome.State == cluster.StateComplete) {
			return
		}
	}
	for _, d := range v.spec.Spec.DependsOn {
		waits, vain := v.waitsFor(d)
		if waits == "" || (v.gated != "" && !vain) {
			continue
		}
		v.gated, v.rec.Blocked = waits, vain && v.rec.State == cluster.RolloutRunning
		if vain {
			return
		}
	}
}

// waitsFor says what is missing of a dependency, "" is nothing, and whether it will
// not come without help.
func (v *service) waitsFor(d cluster.Dependency) (waits string, vain bool) {
	id := cluster.ServiceID{App: v.spec.App, Name: d.Service}
	dep, exists := v.services[id]
	if !exists {
		if d.Optional {
			return "", false
		}
		return "waits for " + string(d.Service) + ", which does not exist", false
	}
	count, scaled := v.scales[id]
	if !scaled {
		count = dep.Spec.Replicas
	}
	if dep.Spec.Mode == cluster.Global {
		count = 1
	}
	if count == 0 {
		return "", false // someone chose that none of it runs
	}
	rec := v.rollouts[id]
	if rec.Target != dep.Version || rec.Created != dep.Created || rec.Release != dep.Release {
		rec = cluster.Rollout{} // of an earlier one
	}
	started, healthy, complete, spent := 0, 0, 0, 0
	newest := map[int]bool{}
	for _, t := range v.tasks[id] {
		if t.Version != dep.Version {
			continue
		}
		if !newest[t.Slot] && lastTry(dep.Spec.Restart, rec.FirstTask, t) {
			spent++
		}
		newest[t.Slot] = true
		switch {
		case t.Outcome != nil && t.Outcome.State == cluster.StateComplete, t.status.State == cluster.StateComplete:
			complete++
		case t.Outcome != nil || t.Desire != cluster.DesireRun:
		case t.ready():
			healthy++
		case t.alive && t.status.State == cluster.StateRunning:
			started++
		}
	}
	failed := givenUp(rec.State)
	met, what := started+healthy+complete > 0, " to start"
	switch d.Condition {
	case "service_healthy":
		met, what = healthy > 0 && !failed, " to be healthy"
	case "service_completed_successfully":
		met, what = complete >= count, " to complete"
	}
	switch waits = "waits for " + string(d.Service) + what; {
	case met:
		return "", false
	case failed:
		return waits + ", but its rollout failed", true
	case rec.Blocked:
		return waits + ", but that waits in vain: " + rec.Message, true
	case rec.State == cluster.RolloutComplete && spent >= count:
		return waits + ", but it failed and is not started again", true
	}
	return waits, false
}

// givenUp reports whether a target has failed.
func givenUp(s cluster.RolloutState) bool {
	switch s {
	case cluster.RolloutFailed, cluster.RolloutPaused, cluster.RolloutRollingBack, cluster.RolloutRolledBack:
		return true
	case cluster.RolloutRunning, cluster.RolloutComplete:
	}
	return false
}
