package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/agent/probe"
	"github.com/fairlead/fairlead/cluster"
)

// watch follows one run of a container: whether its process lives, and its health.
type watch struct {
	id      string
	started time.Time
	stops   []func()
	known   bool // a probe has said something
	good    bool
	bad     bool
	reason  string
}

func (t *task) unwatch() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unwatchLocked()
}

func (t *task) unwatchLocked() {
	if t.watch == nil {
		return
	}
	for _, stop := range t.watch.stops {
		stop()
	}
	t.watch = nil
}

// watchLocked follows this run of the container unless it does already.
func (t *task) watchLocked(c *docker.Container) {
	if w := t.watch; w != nil && w.id == c.ID && w.started.Equal(c.Started) {
		return
	}
	t.unwatchLocked()
	w := &watch{id: c.ID, started: c.Started}
	t.watch = w
	// A task that was good before this agent started stays so until a probe says otherwise.
	w.good = t.prev.Ready && t.prev.Container == c.ID && t.prev.Started.Equal(c.Started)
	pid := c.Pid
	w.stops = append(w.stops, t.spawn(func(ctx context.Context) {
		if awaitExit(ctx, pid) {
			t.probed(w, func() { t.gone = true })
		}
	}))
	run := Started{
		Task: t.id, App: t.placement.App, Pid: pid, Addresses: t.a.nets.named(c.Addresses), OwnServers: len(t.placement.Spec.DNS) > 0,
	}
	begun := t.inTurnLocked()
	w.stops = append(w.stops,
		t.spawn(func(ctx context.Context) { begun(func() { t.a.cfg.OnStart(ctx, run) }) }),
		func() { go t.inTurnLocked()(func() { t.a.cfg.OnEnd(run.Task) }) })
	h := t.placement.Spec.Health
	switch {
	case t.probes():
		t.probe(w, c, *h)
	case c.Health != "" && c.Health != "none" && len(c.HealthTest) > 0 && !w.good:
		t.boost(w, c, h)
	}
}

// inTurnLocked takes the next turn to tell others of this task's runs, outside
// its lock: they may have to wait for locks of their own. The function that it
// returns must be called, once; it waits for the turns before.
func (t *task) inTurnLocked() func(tell func()) {
	before, done := t.told, make(chan struct{})
	t.told = done
	return func(tell func()) {
		defer close(done)
		if before != nil {
			<-before
		}
		tell()
	}
}

// allTold waits until all that was told has been taken in.
func (t *task) allTold() {
	t.mu.Lock()
	told := t.told
	t.mu.Unlock()
	if told != nil {
		<-told
	}
}

// probed changes the watch's verdict if it is still the current one.
func (t *task) probed(w *watch, change func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.watch == w {
		change()
		t.nudge()
	}
}

func (t *task) probe(w *watch, c *docker.Container, h cluster.Health) {
	host := t.probeHost(c)
	check := func(ctx context.Context) error {
		if h.HTTPPort != 0 {
			return probe.HTTP(ctx, net.JoinHostPort(host, strconv.Itoa(h.HTTPPort)), h.HTTPPath)
		}
		return probe.TCP(ctx, net.JoinHostPort(host, strconv.Itoa(h.TCPPort)))
	}
	if host == "" {
		check = func(context.Context) error { return errors.New("the task has no address to probe") }
	}
	good := w.good
	w.stops = append(w.stops, t.spawn(func(ctx context.Context) {
		probe.Run(ctx, probe.Of(h), good, check, func(r probe.Result) {
			t.probed(w, func() { w.known, w.good, w.bad, w.reason = true, r.Good, !r.Good && !r.Starting, r.Reason })
		})
	}))
}

// boost runs Docker's own check earlier than Docker does: its first run comes
// only after a whole interval. Once good, Docker's verdict is what counts.
func (t *task) boost(w *watch, c *docker.Container, h *cluster.Health) {
	cmd := healthCommand(c.HealthTest)
	if cmd == nil {
		return
	}
	cfg := probe.Config{Interval: 2 * time.Second, Timeout: 10 * time.Second, Retries: 1 << 20, StartInterval: 0}
	if h != nil && h.StartInterval > 0 {
		cfg.StartInterval = h.StartInterval.D()
	}
	id := c.ID
	w.stops = append(w.stops, t.spawn(func(ctx context.Context) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		check := func(ctx context.Context) error { return t.a.runCheck(ctx, id, cmd) }
		probe.Run(ctx, cfg, false, check, func(r probe.Result) {
			t.probed(w, func() { w.good, w.reason = r.Good, r.Reason })
			if r.Good {
				cancel()
			}
		})
	}))
}

// runCheck runs a health check's command in a container, few at a time.
func (a *Agent) runCheck(ctx context.Context, id string, cmd []string) error {
	select {
	case a.execs <- struct{}{}:
		defer func() { <-a.execs }()
	case <-ctx.Done():
		return ctx.Err()
	}
	var out bytes.Buffer
	code, err := a.cfg.Engine.Exec(ctx, id, docker.Exec{
		ExecOptions: cluster.ExecOptions{Command: cmd}, Out: &out, Err: &out,
	})
	if err != nil {
		return err
	}
	if code != 0 {
		return fmt.Errorf("exit code %d: %s", code, oneLine(out.String()))
	}
	return nil
}

// healthCommand turns Docker's form of a check into a command.
func healthCommand(test []string) []string {
	switch {
	case len(test) < 2:
		return nil
	case test[0] == "CMD":
		return test[1:]
	case test[0] == "CMD-SHELL":
		return []string{"/bin/sh", "-c", test[1]}
	}
	return nil
}

// health is the verdict about the running container.
func (t *task) health() (Health, string) {
	c, w := t.container, t.watch
	if t.probes() {
		switch {
		case w.good:
			return HealthGood, ""
		case w.bad:
			return HealthBad, w.reason
		}
		return HealthStarting, w.reason
	}
	switch c.Health {
	case "", "none":
		return HealthNone, ""
	case "healthy":
		return HealthGood, ""
	case "unhealthy":
		return HealthBad, oneLine(c.HealthOutput)
	}
	if w.good {
		return HealthGood, ""
	}
	return HealthStarting, w.reason
}

// probeHost is the address that reaches the task from its node.
func (t *task) probeHost(c *docker.Container) string {
	if c.HostNetwork {
		return "127.0.0.1"
	}
	named := t.a.nets.named(c.Addresses)
	for _, n := range t.placement.Spec.Networks {
		if ip := named[n.Name]; ip != "" {
			return ip
		}
	}
	return ""
}

func oneLine(s string) string {
	const most = 300
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > most {
		s = s[:most] + "…"
	}
	return s
}

// isContainer reports whether a process is of a container: its control groups have
// the container's ID. Where that cannot be read, nothing says that it is not.
func isContainer(pid int, container string) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ESRCH)
	}
	return strings.Contains(string(b), container)
}

// awaitExit waits until a process ends; false when that cannot be known.
func awaitExit(ctx context.Context, pid int) bool {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return errors.Is(err, unix.ESRCH)
	}
	f := os.NewFile(uintptr(fd), "pidfd") // non-blocking: it waits in Go's poller and holds no thread
	stop := context.AfterFunc(ctx, func() { _ = f.Close() })
	defer func() {
		if stop() {
			_ = f.Close()
		}
	}()
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	ended := false
	err = raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}} //nolint:gosec // a file descriptor fits
		n, err := unix.Poll(p, 0)
		ended = err == nil && n == 1
		return ended || err != nil && !errors.Is(err, unix.EINTR)
	})
	return err == nil && ended
}
