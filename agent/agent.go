package agent

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/outage"
)

// Agent runs the tasks of one node.
type Agent struct {
	cfg    Config
	nets   *netset
	images *imageCache
	files  *payloads
	writer *statusWriter
	disk   *disk
	about  *description
	slots  chan struct{} // bounds work on the engine
	execs  chan struct{} // bounds health checks run by the agent itself

	mu        sync.Mutex
	tasks     map[cluster.TaskID]*task
	synced    bool          // the placements were read from the store
	read      chan struct{} // closed then
	settled   chan struct{} // closed once the store says what the agent knows
	engineUp  bool
	session   int       // counts connections to the engine
	engineAge time.Time // when this engine's process, or the machine, started
	info      docker.Info
	hangUp    context.CancelCauseFunc // ends the connection to the engine
	run       func(*task)             // starts a task's goroutine, while Run runs
}

// New makes an agent. Run starts it.
func New(cfg Config) (*Agent, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	about := newDescription(cfg.Address)
	serve := cfg.OnNetworks
	cfg.OnNetworks = func(nets []Network) {
		about.setNetworks(nets)
		serve(nets)
	}
	a := &Agent{
		cfg: cfg, about: about, tasks: map[cluster.TaskID]*task{},
		read: make(chan struct{}), settled: make(chan struct{}),
		slots: make(chan struct{}, cfg.Concurrency), execs: make(chan struct{}, 4),
	}
	a.nets = newNetset(&a.cfg, a.externalInUse)
	a.nets.address = about.where
	a.images = newImageCache(&a.cfg)
	a.files = newPayloads(&a.cfg)
	a.writer = newStatusWriter(&a.cfg)
	a.disk = newDisk(&a.cfg, a.about.setDisk)
	return a, nil
}

// Run runs the agent until ctx ends, and leaves the containers running.
func (a *Agent) Run(ctx context.Context) error {
	saved, err := a.disk.load()
	if err != nil {
		// A broken file must not keep a node from working: the store has it all.
		a.cfg.Log.Error("could not read the assignment from disk; waiting for the store", "error", err)
	}
	g, gctx := errgroup.WithContext(ctx)
	a.mu.Lock()
	a.run = func(t *task) { g.Go(func() error { t.loop(gctx); return nil }) }
	a.mu.Unlock()
	if err := a.images.pulled.load(a.cfg.Now()); err != nil {
		a.cfg.Log.Error("could not read which images were pulled; none of them will be removed", "error", err)
	}
	a.restore(saved)

	g.Go(func() error { return a.followEngine(gctx) })
	g.Go(func() error { return a.writer.run(gctx) })
	g.Go(func() error { return a.disk.run(gctx, a.assignment) })
	g.Go(func() error { return a.beat(gctx) })
	g.Go(func() error { return a.describe(gctx) })
	g.Go(func() error { return a.tidy(gctx) })
	g.Go(func() error { return a.settle(gctx) })
	g.Go(func() error { return (&imageGC{a: a}).run(gctx) })
	g.Go(func() error {
		return a.cfg.Store.Follow(gctx, a.cfg.Node, func(p []cluster.NodePlacement, s []cluster.Sealed) { a.assign(p, s, true) })
	})
	err = g.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// restore takes up what the agent knew when it last ran.
func (a *Agent) restore(saved assignment) {
	a.mu.Lock()
	records := map[cluster.TaskID]record{}
	for _, r := range saved.Records {
		records[r.Status.Task] = r
	}
	a.mu.Unlock()
	a.assignWith(saved.Placements, saved.Sealed, false, records)
}

// assign takes the node's placements and payloads, all of them.
func (a *Agent) assign(ps []cluster.NodePlacement, sealed []cluster.Sealed, synced bool) {
	a.assignWith(ps, sealed, synced, nil)
}

func (a *Agent) assignWith(ps []cluster.NodePlacement, sealed []cluster.Sealed, synced bool, records map[cluster.TaskID]record) {
	bySealed := make(map[cluster.TaskID]cluster.Sealed, len(sealed))
	for _, s := range sealed {
		bySealed[s.Task] = s
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	first := synced && !a.synced
	if first {
		a.synced = true
		close(a.read)
	}
	here := make(map[cluster.TaskID]bool, len(ps))
	changed := first
	for i := range ps {
		p := &ps[i]
		here[p.Task] = true
		t := a.task(p.Task)
		if r, ok := records[p.Task]; ok {
			t.recall(r)
			a.nets.addresses.recall(p.Task, r.Status.Addresses)
		}
		var s *cluster.Sealed
		if x, ok := bySealed[p.Task]; ok {
			s = &x
		}
		if t.assign(p, s, a.synced) {
			changed = true
		}
	}
	for id, t := range a.tasks {
		if !here[id] && t.assign(nil, nil, a.synced) {
			changed = true
		}
	}
	if changed && synced {
		a.disk.changed()
	}
}

// task returns the task of that name, made and started when there is none. The
// caller holds a.mu.
func (a *Agent) task(id cluster.TaskID) *task {
	t := a.tasks[id]
	if t == nil {
		t = newTask(a, id)
		t.world(a.engineUp, a.session, a.synced)
		a.tasks[id] = t
		a.run(t)
	}
	return t
}

// forget drops a task unless it was placed here again meanwhile.
func (a *Agent) forget(t *task) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if t.placed() {
		return false
	}
	delete(a.tasks, t.id)
	a.writer.gone(t.id)
	a.disk.changed()
	return true
}

func (a *Agent) find(id cluster.TaskID) *task {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.tasks[id]
}

// all returns the tasks by name.
func (a *Agent) all() []*task {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]*task, 0, len(a.tasks))
	for _, id := range slices.Sorted(maps.Keys(a.tasks)) {
		out = append(out, a.tasks[id])
	}
	return out
}

// assignment is what is kept on disk.
func (a *Agent) assignment() assignment {
	var out assignment
	for _, t := range a.all() {
		t.save(&out)
	}
	return out
}

// settle makes the statuses in the store what the agent knows, once it has read
// its placements: what it wrote last may not have arrived before it ended.
func (a *Agent) settle(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-a.read:
	}
	var away outage.Outage
	for ctx.Err() == nil {
		old, err := a.cfg.Store.Statuses(ctx, a.cfg.Node)
		if err != nil {
			away.Failed(a.cfg.Log, "could not read this node's statuses; will retry", "error", err)
			pause(ctx, time.Second)
			continue
		}
		away.Over(a.cfg.Log, "read this node's statuses")
		known := map[cluster.TaskID]cluster.Status{}
		for _, s := range old {
			known[s.Task] = s
			if a.find(s.Task) == nil {
				a.writer.gone(s.Task)
			}
		}
		for _, t := range a.all() {
			t.mu.Lock()
			s, placed := t.prev, t.placement != nil
			t.mu.Unlock()
			if placed && s.Task != "" && !sameStatus(s, known[s.Task]) {
				a.writer.put(s, 0)
			}
		}
		if err := a.writer.flushed(ctx); err != nil {
			return err
		}
		close(a.settled)
		return nil
	}
	return context.Cause(ctx)
}

// beat keeps the heartbeat in the store, from when the store says of this node's tasks
// what the agent knows: what it said before the machine was off is not true any more,
// and the heartbeat vouches for it.
func (a *Agent) beat(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-a.settled:
	}
	said := time.Time{}
	for ctx.Err() == nil {
		err := a.cfg.Store.Beat(ctx, a.cfg.Node, a.cfg.TTL)
		if now := a.cfg.Now(); ctx.Err() == nil && now.Sub(said) > time.Minute {
			said = now
			a.cfg.Log.Warn("lost the heartbeat; beginning again", "error", err)
		}
		pause(ctx, a.cfg.TTL/10)
	}
	return context.Cause(ctx)
}

// followEngine keeps a connection to the engine and passes on what happens there.
func (a *Agent) followEngine(ctx context.Context) error {
	wait := 50 * time.Millisecond
	for ctx.Err() == nil {
		a.about.lost(a.cfg.Now()) // until it answers
		err := a.oneSession(ctx, func() {
			wait = 50 * time.Millisecond
			a.about.back()
		})
		a.engineGone()
		if ctx.Err() != nil {
			break
		}
		a.cfg.Log.Warn("the connection to the Docker engine ended; connecting again", "error", err)
		pause(ctx, wait)
		wait = min(2*wait, time.Second)
	}
	return context.Cause(ctx)
}

func (a *Agent) oneSession(ctx context.Context, up func()) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	a.mu.Lock()
	a.hangUp = cancel
	a.mu.Unlock()
	var wg sync.WaitGroup
	defer wg.Wait()
	// Events first, then the list: nothing can fall between them.
	err := a.cfg.Engine.Events(ctx, a.cfg.ClusterID, a.cfg.Node, func() {
		wg.Go(func() {
			if err := a.resync(ctx, true); err != nil {
				cancel(err)
				return
			}
			up()
			cancel(a.resyncs(ctx))
		})
	}, a.event)
	cancel(err)
	return err
}

// resyncs lists the containers now and then, in case an event was lost, until the
// engine does not answer: it can be stuck while its events are still connected.
func (a *Agent) resyncs(ctx context.Context) error {
	for ctx.Err() == nil {
		pause(ctx, time.Minute)
		err := a.resync(ctx, false)
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, docker.ErrAway):
			return err
		case err != nil:
			a.cfg.Log.Warn("could not list the containers", "error", err)
		}
	}
	return context.Cause(ctx)
}

// resync reads what is on the engine and tells every task its container.
func (a *Agent) resync(ctx context.Context, begin bool) error {
	lctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if begin {
		info, err := a.cfg.Engine.Info(lctx)
		if err != nil {
			return err
		}
		if err := a.nets.load(lctx); err != nil {
			return err
		}
		age := a.cfg.Engine.Started(lctx)
		a.images.clear()
		a.about.setEngine(info)
		a.nets.addresses.forget()
		a.mu.Lock()
		a.info, a.engineAge = info, age
		a.mu.Unlock()
	}
	list, err := a.cfg.Engine.List(lctx, a.cfg.ClusterID, a.cfg.Node)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if begin {
		a.engineUp = true
		a.session++
	}
	here := map[cluster.TaskID]docker.Container{}
	for _, c := range list {
		if id := c.Task(); id != "" && c.Name == string(id) {
			here[id] = c
			a.task(id)
		}
	}
	a.nets.addresses.listed(a.nets.fixedOf(list), func(id cluster.TaskID) bool { return a.tasks[id] != nil && a.tasks[id].placed() })
	for id, t := range a.tasks {
		c, ok := here[id]
		t.listed(c, ok, a.session)
	}
	return nil
}

// suspect ends the connection to an engine that seems to be shutting down: what
// it says of ended containers is believed in the next session only.
func (a *Agent) suspect() {
	a.engineGone()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.hangUp != nil {
		a.hangUp(docker.ErrAway)
	}
}

func (a *Agent) engineGone() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.engineUp = false
	for _, t := range a.tasks {
		t.world(false, a.session, a.synced)
	}
}

func (a *Agent) event(e docker.Event) {
	if e.Image {
		a.images.clear()
		if e.Removed != "" { // whoever brings it back, it is theirs
			a.images.pulled.forget(func(p pulledImage) bool { return p.ID == e.Removed })
		}
		return
	}
	if t := a.find(e.Task); t != nil {
		t.event(e)
	}
}

// tidy removes networks that nothing has used for a while.
func (a *Agent) tidy(ctx context.Context) error {
	for ctx.Err() == nil {
		pause(ctx, tidyEvery)
		a.mu.Lock()
		ready := a.synced && a.engineUp
		a.mu.Unlock()
		if !ready || ctx.Err() != nil {
			continue
		}
		if err := a.nets.tidy(ctx, a.networksInUse); err != nil && !errors.Is(err, docker.ErrAway) {
			a.cfg.Log.Warn("could not remove an unused network", "error", err)
		}
	}
	return context.Cause(ctx)
}

func (a *Agent) networksInUse() map[cluster.NetworkName]bool {
	used := map[cluster.NetworkName]bool{}
	for _, t := range a.all() {
		for _, n := range t.networks() {
			used[n.Name] = true
		}
	}
	return used
}

// externalInUse are the networks of others that this node's tasks are placed on.
func (a *Agent) externalInUse() map[cluster.NetworkName]bool {
	used := map[cluster.NetworkName]bool{}
	for _, t := range a.all() {
		for _, n := range t.networks() {
			if n.External {
				used[n.Name] = true
			}
		}
	}
	return used
}

const (
	callTimeout = 30 * time.Second
	// engineAway is how long the engine may not answer before the node says so, and
	// gets no new tasks: longer than a restart of Docker takes.
	engineAway = 10 * time.Second
	tidyEvery  = 10 * time.Second
)

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
