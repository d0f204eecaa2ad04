package rollout

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// service plans one service.
type service struct {
	*planner
	spec      cluster.Service
	rec       cluster.Rollout // as it will be saved
	published cluster.Endpoints
	start     int     // of its actions in the plan
	slots     []*slot // by number
	want      int     // wanted slots

	constraints []constraint

	goal    goal
	gated   string // why no task of the target may be made yet; "" when it may
	creates []Create
	waits   []string // what single slots wait for
}

// slot is one place to fill, and the tasks that are in it.
type slot struct {
	n      int
	node   cluster.NodeID // of a global service
	wanted bool
	goal   goal // the service's, but for what keeps its version

	run     []*task // to run, newest first
	leaving []*task // draining or stopping
	ended   []*task // newest first
	failure *failure

	state slotState
}

// slotState is what a slot does to the progress of a rollout.
type slotState int

const (
	slotBusy     slotState = iota // in progress: counts against parallelism
	slotSettled                   // has what it should have
	slotOutdated                  // runs something else and waits for its turn
	slotGivenUp                   // failed, and the rollout goes on without it
)

func (p *planner) plan(spec cluster.Service) {
	v := &service{planner: p, spec: spec, published: p.endpoints[spec.ServiceID], start: len(p.out), constraints: constraints(spec.Spec.Placement.Constraints)}
	v.begin()
	v.collect()
	v.assess()
	v.gate()
	v.aim()
	v.keep()
	for _, s := range v.slots {
		v.settle(s)
	}
	v.update()
	v.finish()
	v.rewind()
	for _, s := range v.slots {
		for _, t := range s.leaving {
			if t.Desire == cluster.DesireDrain && !t.moved {
				v.drain(t)
			}
		}
		v.forget(s)
	}
	v.save()
}

// begin takes the record over, or starts a new rollout when the service changed.
func (v *service) begin() {
	old, known := v.rollouts[v.spec.ServiceID]
	v.rec = old
	v.back(&v.rec.Settled)
	if known && old.Created == v.spec.Created && old.Target == v.spec.Version && old.Release == v.spec.Release {
		return
	}
	v.rec = cluster.Rollout{
		ServiceID: v.spec.ServiceID, Target: v.spec.Version, Release: v.spec.Release,
		State: cluster.RolloutRunning, Started: v.Now,
		NextTask: old.NextTask, FirstTask: old.NextTask, Created: v.spec.Created, Rev: old.Rev,
	}
	if old.Created == v.spec.Created {
		v.rec.Stable, v.rec.StableRelease = old.Stable, old.StableRelease
	}
}

// collect sorts the tasks into slots and records which have ended.
func (v *service) collect() {
	byNumber := map[int]*slot{}
	at := func(n int) *slot {
		if byNumber[n] == nil {
			byNumber[n] = &slot{n: n}
			v.slots = append(v.slots, byNumber[n])
		}
		return byNumber[n]
	}
	if v.spec.Spec.Mode == cluster.Global {
		for n, node := range v.globalSlots() {
			s := at(n)
			s.wanted, s.node = true, node
		}
	} else {
		count, ok := v.scales[v.spec.ServiceID]
		if !ok {
			count = v.spec.Spec.Replicas
		}
		for n := 1; n <= count; n++ {
			at(n).wanted = true
		}
	}
	for _, t := range v.tasks[v.spec.ServiceID] {
		s := at(t.Slot)
		v.observeEnd(t, !s.wanted)
		switch {
		case t.Outcome != nil:
			s.ended = append(s.ended, t)
		case t.Desire == cluster.DesireRun:
			s.run = append(s.run, t)
		default:
			s.leaving = append(s.leaving, t)
		}
	}
	slices.SortFunc(v.slots, func(a, b *slot) int { return cmp.Compare(a.n, b.n) })
	for _, s := range v.slots {
		if s.wanted {
			v.want++
		}
	}
}

// settle decides what happens within one slot, and what it means for the rollout.
func (v *service) settle(s *slot) {
	if !s.wanted {
		for _, t := range s.run {
			v.retire(t, "the service was scaled down")
		}
		s.state = slotSettled
		return
	}
	fits, others := v.split(s)
	switch {
	case fits != nil && fits.ready():
		v.waitFor(fits)
		v.retireAll(others, v.replaceReason(s))
		s.state = slotSettled
	case fits != nil && s.goal.own && len(others) == 0: // not to be changed now
		v.waitFor(fits)
		s.state = slotGivenUp
	case fits != nil:
		v.waitFor(fits)
		v.keepBest(others)
		s.state = slotBusy
	case v.done(s):
		v.retireAll(others, v.replaceReason(s))
		s.state = slotSettled
	case len(others) > 0:
		v.keepBest(others)
		s.state = slotOutdated
	default:
		s.state = slotBusy
		v.fill(s)
	}
	if s.state != slotBusy && v.leavingCounts(s) {
		s.state = slotBusy
	}
	if s.state == slotBusy && v.tolerated(s) {
		s.state = slotGivenUp
	}
}

// split returns the slot's task that is as it should be, if there is one, and
// the other tasks that are to run there.
func (v *service) split(s *slot) (fits *task, others []*task) {
	for _, t := range s.run {
		if t.Version != s.goal.version || t.Node != s.node || v.misplaced(t) {
			others = append(others, t)
			continue
		}
		switch {
		case fits == nil:
			fits = t
		case t.ready() && !fits.ready():
			others, fits = append(others, fits), t
		default:
			others = append(others, t)
		}
	}
	return fits, others
}

// keepBest keeps the task that serves best until the slot has what it should
// have, and retires the rest.
func (v *service) keepBest(ts []*task) {
	if len(ts) < 2 {
		return
	}
	best := slices.MaxFunc(ts, func(a, b *task) int {
		return cmp.Or(boolCompare(a.ready(), b.ready()), cmp.Compare(b.N, a.N), cmp.Compare(b.ID, a.ID))
	})
	for _, t := range ts {
		if t != best {
			v.retire(t, "another task serves in its slot")
		}
	}
}

func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func (v *service) retireAll(ts []*task, reason string) {
	for _, t := range ts {
		v.retire(t, reason)
	}
}

func (v *service) replaceReason(s *slot) string {
	switch v.rec.State {
	case cluster.RolloutRollingBack:
		// The container goes: whoever lists its task reads here what became of it.
		return fmt.Sprintf("replaced: the service goes back to release %d: %s", s.goal.release, v.rec.Message)
	case cluster.RolloutRolledBack:
		return fmt.Sprintf("replaced: the service goes back to release %d", s.goal.release)
	case cluster.RolloutRunning, cluster.RolloutComplete, cluster.RolloutPaused, cluster.RolloutFailed:
	}
	return fmt.Sprintf("replaced by a task of release %d", s.goal.release)
}

// leavingCounts reports whether the slot's last task is still on its way out.
// One on a node that is gone is not waited for.
func (v *service) leavingCounts(s *slot) bool {
	for _, ts := range [][]*task{s.leaving, s.run} {
		for _, t := range ts {
			if t.Desire != cluster.DesireRun && (t.alive || t.node == "") {
				return true
			}
		}
	}
	return false
}

// fill makes a task for an empty slot, unless something says to wait.
func (v *service) fill(s *slot) {
	if s.goal.none {
		return
	}
	if s.goal.stopFirst() {
		for _, t := range s.leaving {
			if t.alive || t.node == "" || t.Spec.HasLocalVolume() {
				v.waitFor(t)
				return // its volume or its port is not free yet
			}
		}
	}
	attempt, may := v.backoff(s)
	if may {
		v.create(s, attempt)
	}
	if last := v.lastEnded(s, s.goal.version); last != nil && v.usedUp(last) {
		v.waits = append(v.waits, fmt.Sprintf("%s failed%s: %s%s", v.address(last), on(last.Outcome.Node), why(last.Outcome.ExitCode, last.Outcome.Reason), v.attempts()))
	}
}

func (v *service) create(s *slot, attempt int) {
	n := v.rec.NextTask
	v.rec.NextTask++
	v.creates = append(v.creates, Create{cluster.Task{
		ID: cluster.NewTaskID(v.spec.ServiceID, s.n, v.spec.Created, n, v.Salt), ServiceID: v.spec.ServiceID, Slot: s.n,
		Version: s.goal.version, Release: s.goal.release, Spec: s.goal.task,
		Desire: cluster.DesireRun, Created: v.Now, Since: v.Now, Node: s.node, N: n, Attempt: attempt,
	}})
}

// update starts on as many outdated slots as the policy allows.
func (v *service) update() {
	var due []*slot
	busy := 0
	for _, s := range v.slots {
		switch s.state {
		case slotBusy:
			busy++
		case slotOutdated:
			due = append(due, s)
		case slotSettled, slotGivenUp:
		}
	}
	// What failed before, then what does not serve anyway, loses least by going first.
	slices.SortStableFunc(due, func(a, b *slot) int {
		return cmp.Or(boolCompare(b.failure != nil, a.failure != nil), boolCompare(serves(a), serves(b)))
	})
	free := v.parallelism() - busy
	if busy == 0 && v.goal.policy.Delay > 0 && v.underWay() && v.begun() &&
		(v.rec.Settled.IsZero() || !v.passed(v.rec.Settled, v.goal.policy.Delay.D())) {
		free = 0
	}
	for _, s := range due {
		if !s.mayUpdate() || v.held(s) {
			continue
		}
		attempt, may := v.backoff(s)
		if v.tolerated(s) {
			s.state = slotGivenUp
			if may {
				v.create(s, attempt)
			}
			continue
		}
		if free > 0 && may {
			v.replace(s, attempt)
		}
		if free > 0 {
			free--
		}
	}
}

// replace starts on an outdated slot.
func (v *service) replace(s *slot, attempt int) {
	s.state = slotBusy
	if s.goal.stopFirst() && (!s.movesOnly() || s.goal.task.HasVolume()) { // what only one can have is on the node, or moves too
		v.retireAll(s.run, v.replaceReason(s))
		return
	}
	v.create(s, attempt)
}

func serves(s *slot) bool { return slices.ContainsFunc(s.run, (*task).ready) }

// mayUpdate reports whether an outdated slot may be changed now.
func (s *slot) mayUpdate() bool {
	return !s.goal.none && (!s.goal.hold || s.movesOnly())
}

// movesOnly reports whether the slot's version is right, and only its node is not.
func (s *slot) movesOnly() bool {
	return !slices.ContainsFunc(s.run, func(t *task) bool {
		return t.Desire == cluster.DesireRun && t.Version != s.goal.version
	})
}

// underWay reports whether versions are replaced, which waits in between. What only moves
// does not.
func (v *service) underWay() bool {
	switch v.rec.State {
	case cluster.RolloutRunning, cluster.RolloutRollingBack, cluster.RolloutFailed:
		return !v.goal.hold
	case cluster.RolloutComplete, cluster.RolloutRolledBack, cluster.RolloutPaused:
	}
	return false
}

// begun reports whether this rollout has made tasks.
func (v *service) begun() bool { return v.rec.NextTask > v.rec.FirstTask }

func (v *service) parallelism() int {
	if n := v.goal.policy.Parallelism; n > 0 {
		return n
	}
	return max(1, v.want/4)
}

// backoff says whether the slot may have its next task now, and which attempt
// that is.
func (v *service) backoff(s *slot) (attempt int, may bool) {
	last := v.lastEnded(s, s.goal.version)
	if last == nil || (last.Outcome.State != cluster.StateFailed && last.Outcome.State != cluster.StateComplete) {
		return 0, true
	}
	if lastTry(v.spec.Spec.Restart, v.rec.FirstTask, last) {
		return 0, false
	}
	attempt = last.Attempt
	if last.Outcome.At.Sub(last.Created) >= backoffReset {
		attempt = 0
	}
	first := cmp.Or(v.spec.Spec.Restart.Delay.D(), firstBackoff)
	wait := min(first<<min(attempt, 10), max(maxBackoff, first))
	return attempt + 1, v.passed(last.Outcome.At, wait)
}

// attempts says that there are no more.
func (v *service) attempts() string {
	return fmt.Sprintf("; max_attempts (%d) is reached: a new release or fairlead restart tries again", v.spec.Spec.Restart.MaxAttempts)
}

// lastEnded returns the newest ended task of a version in the slot.
func (v *service) lastEnded(s *slot, version string) *task {
	for _, t := range s.ended {
		if t.Version == version {
			return t
		}
	}
	return nil
}

// done reports whether the slot's work is finished: its task ended with success
// and is not to be started again.
func (v *service) done(s *slot) bool {
	if c := v.spec.Spec.Restart.Condition; c != "none" && c != "on-failure" {
		return false
	}
	last := v.lastEnded(s, s.goal.version)
	return last != nil && last.Outcome.State == cluster.StateComplete
}

// forget deletes what the history of the slot need not keep.
func (v *service) forget(s *slot) {
	kept := 0
	for _, t := range s.ended {
		if s.wanted && kept < history {
			kept++
			continue
		}
		if !t.traces && !t.moved {
			v.emit(Delete{t.Task})
		}
	}
}

// save writes the record when it changed, ahead of all else, and the new tasks
// last.
func (v *service) save() {
	v.keepPlaces(v.spec.ServiceID, v.start)
	if old, known := v.rollouts[v.spec.ServiceID]; !known || !reflect.DeepEqual(old, v.rec) {
		v.out = slices.Insert(v.out, v.start, Action(Save{v.rec}))
	}
	for _, c := range v.creates {
		v.emit(c)
	}
}

func (v *service) monitor() time.Duration {
	return cmp.Or(v.goal.policy.Monitor.D(), defaultMonitor)
}
