package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/agent/taskinit"
	"github.com/fairlead/fairlead/cluster"
)

// live returns a task with its container, and its placement when it has one.
func (a *Agent) live(id cluster.TaskID, running bool) (*task, docker.Container, *cluster.NodePlacement, error) {
	t := a.find(id)
	if t == nil {
		return nil, docker.Container{}, nil, cluster.NotFoundf("task %s is not on this node", id)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.container == nil:
		return t, docker.Container{}, t.placement, cluster.NotFoundf("%s has no container now: it is %s", t.named(), orState(t.prev.State))
	case running && t.container.State != docker.Running:
		// Not transient: the node answers, and whoever asks would take it for one that does not.
		return t, docker.Container{}, t.placement, cluster.Conflictf("%s does not run now: its container is %s", t.named(), t.container.State)
	}
	return t, *t.container, t.placement, nil
}

// named is a task as users name it: its address, where it is known.
func (t *task) named() string {
	if p := t.placement; p != nil {
		return cluster.Address{App: p.App, Service: p.Name, Slot: p.Slot}.String()
	}
	return "task " + string(t.id)
}

func orState(s cluster.TaskState) cluster.TaskState {
	if s == "" {
		return cluster.StateAccepted
	}
	return s
}

// Logs calls emit with a task's log lines, oldest first. With Follow it goes on
// over restarts of the container, until the task or ctx ends.
func (a *Agent) Logs(ctx context.Context, id cluster.TaskID, o cluster.LogOptions, emit func(cluster.LogLine) error) error {
	last := o.Since
	for {
		t, c, _, err := a.live(id, false)
		if err != nil && !o.Follow {
			return err
		}
		if err == nil {
			began := c.Started
			err = a.cfg.Engine.Logs(ctx, c.ID, c.TTY, o, func(l cluster.LogLine) error {
				if !l.Time.IsZero() {
					last = l.Time
				}
				l.Task = id
				return emit(l)
			})
			if err != nil || !o.Follow {
				return err
			}
			// The container ended: the next run's lines come after the last one seen.
			o.Tail, o.Since = -1, last.Add(time.Nanosecond)
			if done := t.awaitRun(ctx, began); done {
				return nil
			}
			continue
		}
		if t == nil || t.awaitRun(ctx, time.Time{}) {
			if o.Since.IsZero() {
				return err
			}
			return nil
		}
	}
}

// awaitRun waits until the task's container runs with another start than began;
// true when that will not be.
func (t *task) awaitRun(ctx context.Context, began time.Time) bool {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		t.mu.Lock()
		c, ended := t.container, t.mem.Ended != nil || t.placement == nil || t.placement.Desire == cluster.DesireStop
		t.mu.Unlock()
		if c != nil && c.State == docker.Running && !c.Started.Equal(began) {
			return false
		}
		if ended {
			return true
		}
		select {
		case <-ctx.Done():
			return true
		case <-tick.C:
		}
	}
}

// Exec runs a command in a task's container and returns its exit code. The
// command sees the secrets that the task's environment holds.
func (a *Agent) Exec(ctx context.Context, id cluster.TaskID, o cluster.ExecOptions, s ExecStreams) (int, error) {
	_, c, p, err := a.live(id, true)
	if err != nil {
		return 0, err
	}
	if len(o.Command) == 0 {
		return 0, cluster.Invalidf("exec needs a command")
	}
	if p != nil && len(p.Spec.SecretEnv) > 0 {
		o.Command = slices.Concat([]string{taskinit.Program, taskinit.Command}, o.Command)
	}
	return a.cfg.Engine.Exec(ctx, c.ID, docker.Exec{ExecOptions: o, In: s.In, Out: s.Out, Err: s.Err, Resize: s.Resize})
}

// ExecStreams are a command's streams. In may be nil; with a terminal Err is not used.
type ExecStreams struct {
	In       io.Reader
	Out, Err io.Writer
	// Resize carries the terminal's width and height.
	Resize <-chan [2]uint
}

// CopyTo unpacks a tar stream into a directory of a task's container.
func (a *Agent) CopyTo(ctx context.Context, id cluster.TaskID, dir string, tar io.Reader) error {
	_, c, _, err := a.live(id, false)
	if err != nil {
		return err
	}
	return a.cfg.Engine.CopyTo(ctx, c.ID, dir, tar)
}

// CopyFrom returns a file or directory of a task's container as a tar stream.
func (a *Agent) CopyFrom(ctx context.Context, id cluster.TaskID, path string) (io.ReadCloser, error) {
	_, c, _, err := a.live(id, false)
	if err != nil {
		return nil, err
	}
	return a.cfg.Engine.CopyFrom(ctx, c.ID, path)
}

// Dial opens a TCP connection to a port of a task, also one that its program
// opens on the container's loopback address only.
func (a *Agent) Dial(ctx context.Context, id cluster.TaskID, port int) (net.Conn, error) {
	t, c, p, err := a.live(id, true)
	if err != nil {
		return nil, err
	}
	if port < 1 || port > 65535 {
		return nil, cluster.Invalidf("port %d: ports are 1 to 65535", port)
	}
	host := ""
	if p != nil {
		t.mu.Lock()
		host = t.probeHost(&c)
		t.mu.Unlock()
	}
	var d net.Dialer
	if host != "" {
		conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err == nil || !errors.Is(err, syscall.ECONNREFUSED) {
			return conn, err
		}
	}
	return dialInside(ctx, c.Pid, port)
}

// dialInside connects to the loopback address of a process's network namespace.
func dialInside(ctx context.Context, pid, port int) (net.Conn, error) {
	ns, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the task's network namespace: %w", err)
	}
	defer func() { _ = unix.Close(ns) }()
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go onOwnThread(func() {
		if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
			done <- result{nil, fmt.Errorf("enter the task's network namespace: %w", err)}
			return
		}
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		done <- result{conn, err}
	})
	r := <-done
	return r.conn, r.err
}

// onOwnThread runs f on a thread that ends with the calling goroutine, so that no
// other code can find itself where f has moved the thread to. It must not be
// the process's first thread, which does not end: /proc/self would show that
// namespace as the process's own from then on.
func onOwnThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	done := make(chan struct{})
	go func() { defer close(done); onOwnThread(f) }()
	<-done // while this goroutine holds the first thread, the other gets another
	runtime.UnlockOSThread()
}

// Build builds an image on this node's engine and returns its ID.
func (a *Agent) Build(ctx context.Context, b docker.Build) (string, error) {
	return a.cfg.Engine.Build(ctx, b)
}

// Images lists the images on this node.
func (a *Agent) Images(ctx context.Context) ([]cluster.Image, error) { return a.cfg.Engine.Images(ctx) }

// ImageID returns the ID of an image on this node, NotFound when there is none
// of that name. It never asks a registry.
func (a *Agent) ImageID(ctx context.Context, ref string) (string, error) {
	i, err := a.images.info(ctx, ref)
	return i.ID, err
}

// Running is a task with a process on this node.
type Running struct {
	Task      cluster.TaskID
	Container string // Docker's ID
	Pid       int
}

// Containers lists what runs on this node, by task.
func (a *Agent) Containers() []Running {
	var out []Running
	for _, t := range a.all() {
		t.mu.Lock()
		if c := t.container; c != nil && c.State == docker.Running && c.Pid != 0 && !t.gone {
			out = append(out, Running{Task: t.id, Container: c.ID, Pid: c.Pid})
		}
		t.mu.Unlock()
	}
	return out
}
