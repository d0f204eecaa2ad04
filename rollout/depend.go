package rollout

import (
	"github.com/fairlead/fairlead/cluster"
)

// gate finds out whether the target's first tasks must wait for another
// service. Once the target has a task, its dependencies are asked no more: what
// runs is never taken down for them.
func (v *service) gate() {
	if v.rec.State != cluster.RolloutRunning && v.rec.State != cluster.RolloutFailed {
		return
	}
	for _, t := range v.tasks[v.spec.ServiceID] {
		if t.Version == v.rec.Target && (t.Outcome == nil || t.Outcome.State == cluster.StateComplete) {
			return
		}
	}
	for _, d := range v.spec.Spec.DependsOn {
		if v.gated = v.waitsFor(d); v.gated != "" {
			return
		}
	}
}

// waitsFor says what is missing of a dependency; "" is nothing.
func (v *service) waitsFor(d cluster.Dependency) string {
	id := cluster.ServiceID{App: v.spec.App, Name: d.Service}
	dep, exists := v.services[id]
	if !exists {
		if d.Optional {
			return ""
		}
		return "waits for " + string(d.Service) + ", which does not exist"
	}
	count, scaled := v.scales[id]
	if !scaled {
		count = dep.Spec.Replicas
	}
	if dep.Spec.Mode == cluster.Global {
		count = 1
	}
	if count == 0 {
		return "" // someone chose that none of it runs
	}
	started, healthy, complete := 0, 0, 0
	for _, t := range v.tasks[id] {
		if t.Version != dep.Version {
			continue
		}
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
	rec := v.rollouts[id]
	failed := rec.Target == dep.Version && rec.Created == dep.Created && givenUp(rec.State)
	met, what := started+healthy+complete > 0, " to start"
	switch d.Condition {
	case "service_healthy":
		met, what = healthy > 0 && !failed, " to be healthy"
	case "service_completed_successfully":
		met, what = complete >= count, " to complete"
	}
	switch {
	case met:
		return ""
	case failed:
		return "waits for " + string(d.Service) + what + ", but its rollout failed"
	}
	return "waits for " + string(d.Service) + what
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
