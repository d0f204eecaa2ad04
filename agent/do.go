package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/cluster"
)

const (
	slowCall  = 2 * time.Minute  // making and starting a container on a busy machine
	pullLimit = 30 * time.Minute // one attempt to pull
)

// do does one step. Doing it twice does no more than doing it once.
func (t *task) do(ctx context.Context, d Desired, step Step) error {
	switch s := step.(type) {
	case Pull:
		pctx, cancel := context.WithTimeout(ctx, pullLimit)
		defer cancel()
		return t.doPull(pctx, &d.Placement.Spec)
	case Create:
		cctx, cancel := context.WithTimeout(ctx, slowCall)
		defer cancel()
		return t.doCreate(cctx, d.Placement)
	case Start:
		cctx, cancel := context.WithTimeout(ctx, slowCall)
		defer cancel()
		return t.doStart(cctx, d.Placement, s)
	case Signal:
		cctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		return t.doSignal(cctx, s)
	case Remove:
		cctx, cancel := context.WithTimeout(ctx, slowCall)
		defer cancel()
		return t.doRemove(cctx)
	case End:
		t.doEnd(ctx, s)
	case Wait, Forget: // the loop's own
	}
	return nil
}

// took remembers how a step went.
func (t *task) took(step Step, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.a.cfg.Now()
	switch {
	case err == nil:
		t.awayAt = time.Time{}
		if counts(step) {
			t.mem.worked()
		}
	case errors.Is(err, context.Canceled):
	case errors.Is(err, docker.ErrAway):
		t.awayAt, t.dirty = now, t.container != nil
	case counts(step):
		if k := cluster.KindOf(err); k == cluster.KindTransient {
			t.mem.delayed(docker.Message(err), now)
		} else {
			t.mem.faulted(docker.Message(err), k == cluster.KindInvalid || k == cluster.KindNotFound, now)
		}
		t.a.cfg.Log.Warn("a step of a task failed", "task", t.id, "step", fmt.Sprintf("%T", step), "error", err)
	default:
		t.awayAt = now // try again in a while; a task does not fail for being hard to stop
		t.dirty = t.container != nil
		t.a.cfg.Log.Warn("could not stop or remove a container; will retry", "task", t.id, "error", err)
	}
}

// counts reports whether a task fails when the step fails again and again.
func counts(step Step) bool {
	switch step.(type) {
	case Pull, Create, Start:
		return true
	case Wait, Signal, Remove, End, Forget:
	}
	return false
}

// errImageMissing asks for a pull.
var errImageMissing = errors.New("the image is not here")

func (t *task) doPull(ctx context.Context, s *cluster.TaskSpec) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t.mu.Lock()
	t.cancel = cancel
	t.mu.Unlock()
	err := t.a.images.pull(ctx, s, func(p string) {
		t.mu.Lock()
		t.mem.Pulling = p
		t.mu.Unlock()
		t.progress(p)
	})
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mem.Pulling, t.cancel = "", nil
	if err == nil {
		t.mem.NeedsPull = false
	}
	return err
}

// progress puts a pull's progress into the status; the task's goroutine is busy pulling.
func (t *task) progress(string) {
	d, o := t.facts()
	t.report(d, o, Pull{}, t.a.cfg.Now())
}

func (t *task) doCreate(ctx context.Context, p *cluster.NodePlacement) error {
	image, err := t.a.images.resolve(ctx, &p.Spec)
	if errors.Is(err, errImageMissing) {
		return t.needsPull(p)
	} else if err != nil {
		return err
	}
	t.mu.Lock()
	sealed := t.sealed
	t.mu.Unlock()
	files, err := t.a.files.write(p, sealed)
	if err != nil {
		return err
	}
	nets, err := t.a.nets.ensure(ctx, p)
	if err != nil {
		return err
	}
	c, err := t.a.containerOf(p, image, nets, files)
	if err != nil {
		return err
	}
	for _, m := range c.Mounts {
		if err := t.ensureMount(ctx, p, m); err != nil {
			return err
		}
	}
	id, err := t.a.cfg.Engine.Create(ctx, c)
	switch {
	case cluster.KindOf(err) == cluster.KindConflict:
		return t.adopt(ctx)
	case cluster.KindOf(err) == cluster.KindNotFound && strings.Contains(err.Error(), "No such image"):
		t.a.images.clear()
		return t.needsPull(p)
	case cluster.KindOf(err) == cluster.KindNotFound:
		// A network or volume went away under us: the next attempt makes it again.
		t.a.nets.doubt()
		return fmt.Errorf("%s", docker.Message(err))
	case err != nil:
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.container = &docker.Container{ID: id, Name: c.Name, Labels: c.Labels, State: docker.Created}
	t.stopped, t.dirty, t.gone, t.liveIn = false, false, false, 0
	t.mem.created()
	return nil
}

func (t *task) needsPull(p *cluster.NodePlacement) error {
	if p.Spec.PullPolicy == pullNever && t.a.cfg.Fetch == nil {
		return notPresent(&p.Spec)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mem.NeedsPull = true
	return nil
}

// ensureMount makes what a mount needs on the host.
func (t *task) ensureMount(ctx context.Context, p *cluster.NodePlacement, m cluster.Mount) error {
	switch {
	case m.Type == cluster.MountVolume && m.Source != "":
		return t.a.cfg.Engine.EnsureVolume(ctx, m, t.a.labels(p, nil, false))
	case m.Type == cluster.MountBind:
		return t.ensureBind(m)
	}
	return nil
}

// ensureBind makes a missing directory, as docker compose does, on the only node. Of
// several another may have it: a database that began with an empty one here would have
// two histories.
func (t *task) ensureBind(m cluster.Mount) error {
	if _, err := os.Stat(m.Source); !errors.Is(err, os.ErrNotExist) {
		return nil // what else is wrong with it the engine says
	}
	if m.NoCreate {
		return cluster.Invalidf("bind mount %s: it is not on this node, and create_host_path: false says not to make it", m.Source)
	}
	if !m.Create {
		switch alone, err := t.a.cfg.Alone(); {
		case err != nil:
			return fmt.Errorf("bind mount %s: %w", m.Source, err)
		case !alone:
			return cluster.Invalidf("bind mount %s: it is not on node %s, and is not made empty where another node may have it: "+
				"keep data in a volume, pin the service to the node that has it (deploy.placement.constraints), or make it there (mkdir, or bind: {create_host_path: true})", m.Source, t.a.cfg.Node)
		}
	}
	if err := os.MkdirAll(m.Source, 0o755); err != nil { //nolint:gosec // the container's user must enter it
		return cluster.Invalidf("bind mount %s: %w", m.Source, err)
	}
	return nil
}

// adopt takes the container that already has the task's name, if it is the task's.
func (t *task) adopt(ctx context.Context) error {
	x, err := t.inspect(ctx, string(t.id))
	if err != nil {
		return fmt.Errorf("look at the container that has the task's name: %w", err)
	}
	if x.Labels[cluster.LabelCluster] != t.a.cfg.ClusterID || x.Labels[cluster.LabelNode] != string(t.a.cfg.Node) || x.Task() != t.id {
		return cluster.Invalidf("a container named %s exists, and it is not Fairlead's: rename or remove it", t.id)
	}
	t.seen(x, t.currentSession())
	return nil
}

func (t *task) currentSession() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.session
}

func (t *task) doStart(ctx context.Context, p *cluster.NodePlacement, s Start) error {
	t.mu.Lock()
	sealed, c, session := t.sealed, t.container, t.session
	t.mu.Unlock()
	if c == nil {
		return nil
	}
	if _, err := t.a.files.write(p, sealed); err != nil {
		return err
	}
	err := t.a.cfg.Engine.Start(ctx, c.ID)
	if err != nil && !errors.Is(err, docker.ErrAway) {
		return t.startFailed(err)
	} else if err != nil {
		return err
	}
	t.mu.Lock()
	t.stopped, t.gone, t.tail = false, false, nil
	t.mem.started(s, c, t.a.cfg.Now())
	t.mu.Unlock()
	return t.inspectNow(ctx, c.ID, session)
}

// inspectNow reads the state of a container that was just started.
func (t *task) inspectNow(ctx context.Context, id string, session int) error {
	x, err := t.inspect(ctx, id)
	if err != nil {
		// It was started all the same: looking again is all there is to do.
		t.mu.Lock()
		t.dirty = true
		t.mu.Unlock()
		return nil //nolint:nilerr // the next look finds out
	}
	t.mu.Lock()
	// It has been live in this session, even if it has ended by now.
	t.liveIn = session
	t.mu.Unlock()
	if x.State == docker.Exited && x.ExitCode != 0 {
		t.setTail(t.a.tail(ctx, x))
	}
	t.seen(x, session)
	return nil
}

// startFailed sorts a refusal to start: containers that can never start again are made anew.
func (t *task) startFailed(err error) error {
	k, msg := cluster.KindOf(err), startMessage(docker.Message(err))
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case k == cluster.KindNotFound && strings.Contains(msg, "No such container"):
		t.container = nil
		return nil
	case strings.Contains(msg, "Address already in use"):
		// Something else on the network has its address.
		t.mem.Recreate = true
		t.a.nets.addresses.lost(t.id)
	case strings.Contains(msg, "network") && strings.Contains(msg, "not found"),
		strings.Contains(msg, "bind source path does not exist"):
		t.mem.Recreate = true
		t.a.nets.doubt()
	}
	if noProgram(msg) {
		return cluster.Invalidf("%s", msg)
	}
	return fmt.Errorf("%s", msg) // whatever its kind: port conflicts and the like pass
}

// startMessage leaves out of an engine's complaint the names of its own parts.
func startMessage(msg string) string {
	if _, rest, ok := strings.Cut(msg, "unable to start container process: "); ok {
		msg = rest
	}
	return strings.TrimSuffix(msg, ": unknown")
}

// noProgram reports that a container's program does not exist or cannot be
// executed, which no further attempt changes.
func noProgram(msg string) bool {
	if !strings.HasPrefix(msg, "exec: ") {
		return false
	}
	for _, s := range []string{"no such file or directory", "executable file not found", "permission denied", "exec format error"} {
		if strings.Contains(msg, s) {
			return true
		}
	}
	return false
}

func (t *task) doSignal(ctx context.Context, s Signal) error {
	t.mu.Lock()
	c := t.container
	t.mu.Unlock()
	if c == nil {
		return nil
	}
	if c.State == docker.Paused {
		if err := t.a.cfg.Engine.Unpause(ctx, c.ID); err != nil {
			return err
		}
	}
	err := t.a.cfg.Engine.Signal(ctx, c.ID, s.Signal)
	k := cluster.KindOf(err)
	if err != nil && k != cluster.KindNotFound && k != cluster.KindConflict {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil { // it ended before the signal
		t.dirty = true
	}
	t.mem.signalled(s, t.a.cfg.Now())
	return nil
}

func (t *task) doRemove(ctx context.Context) error {
	t.mu.Lock()
	c := t.container
	t.mu.Unlock()
	if c == nil {
		return nil
	}
	if err := t.a.cfg.Engine.Remove(ctx, c.ID); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.container, t.dirty, t.mem.Recreate = nil, false, false
	return nil
}

// doEnd records the task's end, with its last words when it ended by itself: its
// container goes, and with it what it wrote.
func (t *task) doEnd(ctx context.Context, e End) {
	t.mu.Lock()
	c := t.container
	t.mu.Unlock()
	var tail []string
	if (e.State == cluster.StateFailed || e.State == cluster.StateComplete) && c != nil {
		tctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		tail = t.a.tail(tctx, *c)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mem.Ended = &e
	t.tail = nil
	t.prev.LogTail = tail
	if e.State == cluster.StateStopped {
		t.a.files.remove(t.id)
	}
}

// tail returns the last lines of a container's log.
func (a *Agent) tail(ctx context.Context, c docker.Container) []string {
	var out []string
	err := a.cfg.Engine.Logs(ctx, c.ID, c.TTY, cluster.LogOptions{Tail: tailLines}, func(l cluster.LogLine) error {
		out = append(out, cutLine(l.Text))
		return nil
	})
	if err != nil {
		a.cfg.Log.Debug("could not read the end of a log", "container", c.ID, "error", err)
	}
	return lastLines(out)
}
