package agent

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/cluster"
)

// task runs one task: its goroutine asks Next, does the step, and asks again.
type task struct {
	id   cluster.TaskID
	a    *Agent
	wake chan struct{}

	mu        sync.Mutex
	placement *cluster.NodePlacement
	sealed    *cluster.Sealed
	synced    bool
	engine    bool
	session   int

	container *docker.Container
	dirty     bool // the container must be looked at again
	doing     Step // the step being done
	liveIn    int  // the session in which the container was last seen live; 0 never
	stopped   bool // Interrupted
	gone      bool // its process has ended, though the engine has not said so
	awayAt    time.Time
	tail      []string
	mem       Memory
	prev      cluster.Status
	watch     *watch             // probes and exit of the running container
	told      chan struct{}      // closed once all that was told of its runs has been taken in
	cancel    context.CancelFunc // ends the pull being done
	// spawn runs f until the task's goroutine ends or cancel is called.
	spawn func(f func(context.Context)) (cancel func())
}

func newTask(a *Agent, id cluster.TaskID) *task {
	return &task{id: id, a: a, wake: make(chan struct{}, 1)}
}

func (t *task) nudge() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// recall takes up what was known of the task before the agent restarted.
func (t *task) recall(r record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.prev, t.mem.EverReady, t.mem.Restarts, t.mem.Streak = r.Status, r.EverReady, r.Status.Restarts, r.Streak
	if r.Status.Ready && r.Pid != 0 && !isContainer(r.Pid, r.Status.Container) {
		// The machine was off, or its engine killed: it serves nobody, whatever was said.
		t.prev.Ready, t.prev.ReadySince, t.prev.Reason = false, time.Time{}, cluster.ProcessEnded
	}
	if s := r.Status; s.State.Terminal() {
		t.mem.Ended = &End{State: s.State, ExitCode: s.ExitCode, Reason: s.Reason}
	}
}

// assign sets what is wanted, and reports whether that differs.
func (t *task) assign(p *cluster.NodePlacement, s *cluster.Sealed, synced bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	same := (p == nil) == (t.placement == nil) && (s == nil) == (t.sealed == nil)
	if same && p != nil {
		same = p.Desire == t.placement.Desire
	}
	if same && s != nil {
		same = slices.Equal(s.Data, t.sealed.Data)
	}
	if !same {
		if t.placement == nil && p != nil {
			t.mem.NeedsPull = p.Spec.PullPolicy == "always"
		}
		t.placement, t.sealed = p, s
		if t.cancel != nil && (p == nil || p.Desire == cluster.DesireStop) {
			t.cancel() // a pull that nobody waits for any more
		}
	}
	if !same || t.synced != synced {
		t.synced = synced
		t.nudge()
	}
	return !same
}

func (t *task) placed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.placement != nil
}

// networks are the networks that the task needs.
func (t *task) networks() []cluster.NetworkRef {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.placement == nil {
		return nil
	}
	return t.placement.Spec.Networks
}

// world tells the task whether the engine is there and the store was read.
func (t *task) world(engine bool, session int, synced bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.engine != engine || t.session != session || t.synced != synced {
		t.engine, t.session, t.synced = engine, session, synced
		t.nudge()
	}
}

// listed tells the task what a list of all containers, read in a session, said
// of it. That the engine is there becomes known in the same step as the
// container: in between, a task would think that it has none.
func (t *task) listed(c docker.Container, ok bool, session int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	begin := t.session != session || !t.engine
	t.engine, t.session = true, session
	switch {
	case t.doing != nil:
		// What the list says is older than what the step will find.
		t.dirty = t.dirty || t.container != nil
	case !ok:
		t.container, t.dirty = nil, false
	case begin || t.container == nil || t.container.ID != c.ID || t.container.State != c.State:
		if t.container == nil || t.container.ID != c.ID {
			t.container = &c
		}
		t.dirty = true
	}
	t.nudge()
}

// event takes in what the engine says happened to the task's container.
func (t *task) event(e docker.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.container
	switch {
	case c == nil || c.ID != e.Container:
		return // it belongs to a container that the step being done makes, or to an earlier one
	case e.Action == "destroy":
		t.container, t.dirty = nil, false
	case e.Action == "die" && !t.starting() && (t.placement == nil || t.placement.Desire == cluster.DesireStop):
		// It goes anyway: why it ended does not matter, and asking costs time.
		x := *c
		x.State = docker.Exited
		t.container = &x
	case e.Action == "start" && (t.starting() || c.State == docker.Running):
		return
	case e.Action == "health_status" && e.Health != "unhealthy":
		x := *c
		x.Health = e.Health
		t.container = &x
	default:
		t.dirty = true
	}
	t.nudge()
}

// save adds what must survive the agent to out.
func (t *task) save(out *assignment) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.placement == nil {
		return
	}
	out.Placements = append(out.Placements, *t.placement)
	if t.sealed != nil {
		out.Sealed = append(out.Sealed, *t.sealed)
	}
	if t.prev.Task != "" {
		r := record{Status: t.prev, EverReady: t.mem.EverReady, Streak: t.mem.Streak}
		if t.container != nil && t.container.Live() {
			r.Pid = t.container.Pid
		}
		out.Records = append(out.Records, r)
	}
}

// loop runs the task until it is forgotten or ctx ends.
func (t *task) loop(ctx context.Context) {
	slot := false // held from one heavy step to the next, so that what was begun is finished first
	release := func() {
		if slot {
			<-t.a.slots
			slot = false
		}
	}
	defer release()
	t.mu.Lock()
	t.spawn = func(f func(context.Context)) func() {
		fctx, cancel := context.WithCancel(ctx)
		go f(fctx)
		return cancel
	}
	t.mu.Unlock()
	defer t.allTold()
	defer t.unwatch()
	for ctx.Err() == nil {
		if err := t.look(ctx); err != nil {
			release()
			t.retry(ctx, err)
			continue
		}
		d, o := t.facts()
		now := t.a.cfg.Now()
		step, err := Next(d, o, now)
		if err != nil {
			t.a.cfg.Log.Error("cannot tell what to do for a task", "task", t.id, "error", err)
			step = Wait{}
		}
		t.report(d, o, step, now)
		switch s := step.(type) {
		case Wait:
			release()
			t.sleep(ctx, t.until(s.Until, now), now)
			continue
		case Forget:
			t.a.files.remove(t.id)
			if t.a.forget(t) {
				return
			}
			continue
		case Create, Start, Remove:
			if !slot {
				select {
				case t.a.slots <- struct{}{}:
					slot = true
				case <-ctx.Done():
					return
				}
				continue // the wait may have changed what is to be done
			}
		case Pull, Signal, End:
			release()
		}
		t.begin(step)
		err = t.do(ctx, d, step)
		t.begin(nil)
		t.took(step, err)
	}
}

func (t *task) begin(s Step) {
	t.mu.Lock()
	t.doing = s
	t.mu.Unlock()
}

// starting reports whether the step being done makes or starts the container:
// it looks itself at what came of that.
func (t *task) starting() bool {
	switch t.doing.(type) {
	case Create, Start:
		return true
	case Wait, Pull, Signal, Remove, End, Forget:
	}
	return false
}

func (t *task) sleep(ctx context.Context, until, now time.Time) {
	var timer <-chan time.Time
	if !until.IsZero() {
		tm := time.NewTimer(max(until.Sub(now), time.Millisecond))
		defer tm.Stop()
		timer = tm.C
	}
	select {
	case <-ctx.Done():
	case <-t.wake:
	case <-timer:
	}
}

// until puts the end of a wait no later than the next attempt to reach an engine
// that did not answer.
func (t *task) until(at, now time.Time) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.awayAt.IsZero() {
		return at
	}
	if again := t.awayAt.Add(time.Second); again.After(now) && (at.IsZero() || again.Before(at)) {
		return again
	}
	return at
}

// retry waits a little after the engine did not answer.
func (t *task) retry(ctx context.Context, err error) {
	if ctx.Err() == nil && !errors.Is(err, docker.ErrAway) {
		t.a.cfg.Log.Warn("could not look at a container; will retry", "task", t.id, "error", err)
	}
	t.sleep(ctx, t.a.cfg.Now().Add(time.Second), t.a.cfg.Now())
}

// look inspects the container if something happened to it.
func (t *task) look(ctx context.Context) error {
	t.mu.Lock()
	c, dirty, session := t.container, t.dirty && t.engine, t.session
	t.dirty = t.dirty && !dirty
	t.mu.Unlock()
	if !dirty || c == nil {
		return nil
	}
	again := func() {
		t.mu.Lock()
		t.dirty = true
		t.mu.Unlock()
	}
	ictx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	x, err := t.inspect(ictx, c.ID)
	if cluster.KindOf(err) == cluster.KindNotFound {
		t.mu.Lock()
		t.container = nil
		t.mu.Unlock()
		return nil
	}
	if err != nil {
		again()
		return err
	}
	if x.State == docker.Exited && t.unasked() {
		// An engine that is shutting down stops its containers before its last
		// connections end: what they exited with is then not their own doing.
		if !t.a.cfg.Engine.Accepts(ictx) {
			again()
			t.a.suspect()
			return docker.ErrAway
		}
		if x.ExitCode != 0 {
			t.setTail(t.a.tail(ictx, x))
		}
	}
	t.seen(x, session)
	return nil
}

// inspect asks the engine for a container, and the first time also what its image was
// pulled by: that stays as it is.
func (t *task) inspect(ctx context.Context, id string) (docker.Container, error) {
	x, err := t.a.cfg.Engine.Inspect(ctx, id)
	if err != nil {
		return x, err
	}
	t.mu.Lock()
	p, prev := t.placement, t.prev
	t.mu.Unlock()
	switch {
	case prev.Container == x.ID && prev.ImageDigest != "":
		x.ImageDigest = prev.ImageDigest
	case p != nil && x.ImageID != "":
		x.ImageDigest = t.a.images.pulledBy(ctx, &p.Spec, x.ImageID)
	}
	return x, nil
}

func (t *task) setTail(lines []string) {
	t.mu.Lock()
	t.tail = lines
	t.mu.Unlock()
}

// unasked reports whether nobody told the container to end.
func (t *task) unasked() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.placement != nil && t.placement.Desire != cluster.DesireStop && t.mem.Ended == nil
}

// seen takes in a container as it was found in a session.
func (t *task) seen(x docker.Container, session int) {
	t.a.mu.Lock()
	age := t.a.engineAge
	t.a.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case x.Live():
		t.liveIn, t.stopped = session, false
	case x.State != docker.Exited || t.mem.Unhealthy != "" || !t.mem.SignalAt.IsZero():
	case t.liveIn != 0:
		t.stopped = t.liveIn != session
	default:
		t.stopped = !x.Started.IsZero() && x.Started.Before(age)
	}
	if t.container == nil || t.container.ID != x.ID || !t.container.Started.Equal(x.Started) {
		t.gone = false
	}
	if h := x.Health; x.State == docker.Exited && (h == "" || h == "none") && !t.probes() && x.Finished.Sub(x.Started) >= proven {
		t.mem.EverReady = true
	}
	t.container = &x
}

// proven is how long a container without a health check must run to count as
// one that once worked.
const proven = 5 * time.Second

// probes reports whether the agent itself checks the task's health.
func (t *task) probes() bool {
	if t.placement == nil || t.placement.Spec.Health == nil {
		return false
	}
	h := t.placement.Spec.Health
	return h.HTTPPort != 0 || h.TCPPort != 0
}

// facts are what Next decides on.
func (t *task) facts() (Desired, Observed) {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := Desired{Placement: t.placement, Synced: t.synced, Payload: t.sealed != nil}
	o := Observed{Engine: t.engine && !t.dirty, Away: !t.engine, Container: t.container, Interrupted: t.stopped, Gone: t.gone, Memory: t.mem}
	now := t.a.cfg.Now()
	t.observeLive(&o, now)
	if !t.awayAt.IsZero() && now.Before(t.awayAt.Add(time.Second)) {
		o.Engine, o.Away = false, true
	}
	return d, o
}

// observeLive fills in what only matters while the container has a process.
func (t *task) observeLive(o *Observed, now time.Time) {
	c := t.container
	if c == nil || !c.Live() || c.Pid == 0 {
		t.unwatchLocked()
		return
	}
	if t.placement == nil || t.placement.Desire == cluster.DesireStop {
		if t.mem.StopSince.IsZero() {
			t.mem.StopSince = now
			o.Memory.StopSince = now
		}
		if t.mem.SignalAt.IsZero() {
			o.Quiet = c.HostNetwork || quiet(c.Pid)
		}
		return
	}
	o.Addresses = t.a.nets.named(c.Addresses)
	t.watchLocked(c)
	o.Health, o.HealthReason = t.health()
	if o.Health == HealthGood {
		t.mem.EverReady = true
		o.Memory.EverReady = true
	}
}

// report derives the status and passes it on when it changed.
func (t *task) report(d Desired, o Observed, step Step, now time.Time) {
	if d.Placement == nil {
		return
	}
	t.mu.Lock()
	prev := t.prev
	if t.tail != nil {
		prev.LogTail = t.tail
	}
	s := Report(d, o, step, prev, now)
	changed, wait := !sameStatus(s, t.prev), patience(t.prev, s)
	if changed {
		s.At = now
		t.prev = s
	}
	t.mu.Unlock()
	if changed {
		t.a.writer.put(s, wait)
		t.a.disk.changed()
	}
}
