package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// What users write as failure_action.
const (
	actionPause    = "pause"
	actionContinue = "continue"
)

// failure is why a slot failed in this rollout.
type failure struct {
	message string
	tail    []string
}

// assess looks for failed slots while a rollout is under way, and turns the
// rollout when there are too many.
func (v *service) assess() {
	version, restarts := v.rec.Target, freeRestarts
	switch v.rec.State {
	case cluster.RolloutRunning, cluster.RolloutFailed:
		if v.canGoBack() {
			restarts = 0
		}
	case cluster.RolloutRollingBack:
		version = v.rec.Stable.Hash()
	case cluster.RolloutComplete, cluster.RolloutRolledBack, cluster.RolloutPaused:
		return
	}
	var first *failure
	count := 0
	for _, s := range v.slots {
		if !s.wanted {
			continue
		}
		if s.failure = v.failureOf(s, version, restarts); s.failure != nil {
			count++
			first = cmp.Or(first, s.failure)
		}
	}
	if v.rec.State == cluster.RolloutRollingBack {
		v.stuck(count, first)
		return
	}
	v.rec.Failures = count
	switch {
	case first == nil:
	case v.rec.State == cluster.RolloutFailed:
		v.blame(first)
	case !v.tooMany(count):
		v.rec.Message = fmt.Sprintf("%d of %d failed: %s", count, v.want, first.message)
		v.rec.Tail = first.tail
	case v.spec.Spec.Update.FailureAction == actionContinue:
		v.blame(first)
	default:
		v.turn(first)
	}
}

// blame says in the record what failed. The tail changes with the message
// alone: a task that crashes again and again must not write each time.
func (v *service) blame(f *failure) {
	if v.rec.Message != f.message {
		v.rec.Message, v.rec.Tail = f.message, f.tail
	}
}

// stuck ends a way back on which too many slots fail. By default they are tried
// again, ahead of the others.
func (v *service) stuck(failures int, first *failure) {
	if !v.tooMany(failures) || v.spec.Spec.Rollback.FailureAction == actionContinue {
		return
	}
	v.rec.Settled, v.rec.State, v.rec.Ended = time.Time{}, cluster.RolloutRolledBack, v.Now
	v.rec.Message += fmt.Sprintf("; release %d fails as well now: %s", v.rec.StableRelease, first.message)
	if v.spec.Spec.Rollback.FailureAction == actionPause {
		v.rec.State = cluster.RolloutPaused
		v.explain("paused", v.rec.Message)
	}
}

// tooMany reports whether more slots failed than the policy of the way forward,
// or back, allows.
func (v *service) tooMany(failures int) bool {
	policy := v.spec.Spec.Update
	if v.rec.State == cluster.RolloutRollingBack {
		policy = v.spec.Spec.Rollback
	}
	return float64(failures) > policy.MaxFailureRatio*float64(v.want)+1e-9
}

// turn ends the way forward: the service goes back, pauses, or stays failed.
func (v *service) turn(f *failure) {
	v.blame(f)
	v.rec.Settled = time.Time{}
	verdict := "failed"
	switch {
	case v.spec.Spec.Update.FailureAction == actionPause:
		v.rec.State, v.rec.Ended, verdict = cluster.RolloutPaused, v.Now, "paused"
	case v.canGoBack():
		v.rec.State, v.rec.FirstTask = cluster.RolloutRollingBack, v.rec.NextTask
		verdict = fmt.Sprintf("rolling back to release %d", v.rec.StableRelease)
	default:
		v.rec.State, v.rec.Ended = cluster.RolloutFailed, v.Now
	}
	v.explain(verdict, f.message)
	if v.rec.State == cluster.RolloutFailed {
		return // its slots keep their failures: they are tried again with a back-off
	}
	for _, s := range v.slots {
		s.failure = nil
	}
}

func (v *service) explain(verdict, reason string) {
	v.emit(Explain{Service: v.spec.ServiceID, Decision: cluster.Decision{
		Loop: "rollout", Object: v.spec.String(), Verdict: verdict, Reason: reason, At: v.Now,
	}})
}

// failureOf looks for a failure of a version among the tasks that this rollout
// made in a slot.
func (v *service) failureOf(s *slot, version string, restarts int) *failure {
	for _, t := range s.run {
		if t.Version != version || t.N < v.rec.FirstTask {
			continue
		}
		st := t.status
		if st.Restarts > restarts {
			return &failure{fmt.Sprintf("%s was started again%s: %s", v.address(t), t.at(), why(st.ExitCode, st.Reason)), st.LogTail}
		}
		if bound, late := v.late(t); late {
			reason := cmp.Or(st.Reason, v.Unplaced[t.ID])
			if reason == "" && t.node == "" {
				reason = "no node was found for it"
			}
			if reason != "" {
				reason = ": " + reason
			}
			return &failure{fmt.Sprintf("%s is not ready after %s%s%s", v.address(t), bound, t.at(), reason), st.LogTail}
		}
	}
	for _, t := range s.ended {
		if t.Version == version && t.N >= v.rec.FirstTask && t.Outcome.State == cluster.StateFailed {
			message := fmt.Sprintf("%s failed%s: %s", v.address(t), on(t.Outcome.Node), why(t.Outcome.ExitCode, t.Outcome.Reason))
			if v.usedUp(t) && !v.canGoBack() {
				message += v.attempts()
			}
			return &failure{message, t.Outcome.LogTail}
		}
	}
	return nil
}

func on(n cluster.NodeID) string {
	if n == "" {
		return ""
	}
	return " on " + string(n)
}

func why(exit int, reason string) string {
	switch {
	case reason == "":
		return fmt.Sprintf("exit code %d", exit)
	case exit == 0, strings.Contains(reason, fmt.Sprintf("code %d", exit)): // it says so already
		return reason
	}
	return fmt.Sprintf("exit code %d: %s", exit, reason)
}

// address names a task as users do.
func (v *service) address(t *task) string {
	return cluster.Address{App: t.App, Service: t.Name, Slot: t.Slot}.String()
}

// late reports whether a task should have been ready by now, and the bound that
// it was given. It counts from the start of the container by its node's clock,
// held between the task's creation and now: a clock that is wrong by minutes
// moves the bound by as much and no more. Where the task was ready since, or
// nobody was there to see it, it counts from the end of that (see Look). One
// whose node is away is not late: it is lost, or waited for.
func (v *service) late(t *task) (time.Duration, bool) {
	if t.ready() || v.away(t) {
		return 0, false
	}
	allowed := progressBound
	if h := t.Spec.Health; h != nil {
		interval := 10 * time.Second
		if len(h.Test) > 0 {
			interval = 30 * time.Second
		}
		allowed += h.StartPeriod.D() + time.Duration(cmp.Or(h.Retries, 3))*cmp.Or(h.Interval.D(), interval)
	}
	from, bound := t.Created, startBound
	switch st := t.status; {
	case !st.Started.IsZero():
		bound = allowed
		if st.Started.After(from) {
			from = st.Started
		}
		if from.After(v.Now) {
			from = v.Now
		}
	case t.node == "" && onlyAway(v.Nodes, v.constraints): // machines that boot
	case t.node == "", st.State == cluster.StateWaiting:
		bound = allowed
	}
	return bound, v.passed(from, bound) && v.passed(v.Unready[t.ID], allowed)
}

// away reports whether nothing can be known of a task now, as the node is away that it is on
// or must be on, or the engine there does not answer, or all nodes are away.
func (v *service) away(t *task) bool {
	node := t.node
	if node == "" {
		node = v.home(&t.Task)
	}
	n := v.nodes[node]
	switch {
	case node == "":
		return !slices.ContainsFunc(v.Nodes, func(n cluster.Node) bool { return n.Alive })
	case !n.Alive:
		if t.node == "" {
			v.waits = append(v.waits, fmt.Sprintf("%s waits for node %s, which is gone", v.address(t), node))
		}
		return true
	case n.Info.EngineAway && (t.node == "" || !t.status.Started.IsZero()):
		v.waits = append(v.waits, fmt.Sprintf("%s waits for node %s, whose Docker does not answer", v.address(t), node))
		return true
	}
	return false
}

// tolerated reports whether the rollout goes on without a slot that failed.
func (v *service) tolerated(s *slot) bool {
	if s.failure == nil {
		return false
	}
	switch v.rec.State {
	case cluster.RolloutRunning, cluster.RolloutRollingBack: // it would have turned, were there too many
		return true
	case cluster.RolloutFailed:
		return v.spec.Spec.Update.FailureAction == actionContinue
	case cluster.RolloutComplete, cluster.RolloutRolledBack, cluster.RolloutPaused:
	}
	return false
}

// finish moves the record on when all slots have what they should have.
func (v *service) finish() {
	count := map[slotState]int{}
	failing := slices.IndexFunc(v.slots, func(s *slot) bool { return s.failure != nil })
	for _, s := range v.slots {
		if s.wanted {
			count[s.state]++
		}
	}
	switch v.rec.State {
	case cluster.RolloutComplete:
		v.rec.Message = v.waiting()
		return
	case cluster.RolloutRolledBack, cluster.RolloutPaused:
		return
	case cluster.RolloutRollingBack, cluster.RolloutRunning, cluster.RolloutFailed:
	}
	if v.gated != "" {
		v.rec.Settled = time.Time{}
		if v.rec.State == cluster.RolloutRunning {
			v.rec.Message = v.gated
		}
		return
	}
	if v.rec.State == cluster.RolloutRunning && failing < 0 {
		v.rec.Message, v.rec.Tail = v.waiting(), nil
	}
	if count[slotBusy] > 0 {
		v.rec.Settled = time.Time{}
		return
	}
	if v.rec.Settled.IsZero() {
		v.rec.Settled = v.Now
	}
	open := count[slotOutdated]
	if v.rec.State == cluster.RolloutFailed {
		open += count[slotGivenUp]
	}
	if open > 0 || (v.begun() && !v.passed(v.rec.Settled, v.monitor())) {
		return
	}
	v.conclude()
}

func (v *service) conclude() {
	v.rec.Settled, v.rec.Ended = time.Time{}, v.Now
	switch {
	case v.rec.State == cluster.RolloutRollingBack:
		v.rec.State = cluster.RolloutRolledBack
		v.rec.Message += fmt.Sprintf("; release %d serves again", v.rec.StableRelease)
		if i := slices.IndexFunc(v.slots, func(s *slot) bool { return s.failure != nil }); i >= 0 {
			v.rec.Message += ", but not everywhere: " + v.slots[i].failure.message
		}
	case v.rec.State == cluster.RolloutRunning && v.tooMany(v.rec.Failures):
		v.rec.State = cluster.RolloutFailed
	default:
		spec := v.spec.Spec.Task
		v.rec.State, v.rec.Stable, v.rec.StableRelease = cluster.RolloutComplete, &spec, v.rec.Release
		v.rec.Message, v.rec.Tail = v.waiting(), nil
	}
}

// waiting is what the first slot that waits waits for.
func (v *service) waiting() string {
	if len(v.waits) == 0 {
		return ""
	}
	return v.waits[0]
}

// usedUp reports whether a failed task was the last that max_attempts allows.
func (v *service) usedUp(t *task) bool {
	return failedSince(v.rec.FirstTask, t) && spent(v.spec.Spec.Restart, t)
}

// lastTry reports whether a task failed, and the policy allows no other in its slot in
// the rollout that began with the task numbered first.
func lastTry(policy cluster.RestartPolicy, first int64, t *task) bool {
	return failedSince(first, t) && (policy.Condition == "none" || spent(policy, t))
}

// failedSince reports whether a task failed that is of the rollout which began with the
// task numbered first: a new release counts anew.
func failedSince(first int64, t *task) bool {
	return t.Outcome != nil && t.Outcome.State == cluster.StateFailed && t.N >= first
}

// spent counts containers started again and tasks made again.
func spent(policy cluster.RestartPolicy, t *task) bool {
	return policy.MaxAttempts > 0 && t.Attempt+t.Outcome.Restarts >= policy.MaxAttempts
}
