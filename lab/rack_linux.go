package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

// What the rack is started with: the lock on the labs' directory, and the listening
// sockets that are in the network of this machine, as the rack is not.
const (
	lockFD      = 3
	firstPortFD = 4
)

// rack is the process that a lab is.
type rack struct {
	dir     Dir
	name    string // the lab's
	log     hclog.Logger
	hosts   map[string]*host
	wake    chan struct{}
	changes chan change
	rules   string // of the switch; of the loop alone

	mu    sync.Mutex // state and trouble are written by the loop alone
	state State
	// trouble is what the last round could not do; shown in the status.
	trouble error
}

// change is a request to the rack's loop; done gets its result once it is carried out.
type change struct {
	apply func(*State) error
	done  chan error
}

// RunRack runs a lab's rack until ctx ends. It is the first process of a process
// namespace, and in a network and mounts of its own.
func RunRack(ctx context.Context, d Dir) error {
	if os.Getpid() != 1 {
		return errors.New("`fairlead lab rack` is run by `fairlead lab up`")
	}
	// From now on it is found by its command line, and can be ended.
	if err := os.NewFile(lockFD, "lock").Close(); err != nil {
		return err
	}
	st, err := Read(d)
	if err != nil {
		return err
	}
	if err := errors.Join(mountRack(), makeSwitch()); err != nil {
		return err
	}
	log := hclog.New(&hclog.LoggerOptions{Name: "rack", Level: hclog.Info, Output: os.Stderr})
	r := &rack{
		dir: d, name: st.Spec.Name, log: log, state: st, hosts: map[string]*host{}, wake: make(chan struct{}, 1), changes: make(chan change),
	}
	for _, m := range st.Spec.Machines() {
		r.hosts[m.Name] = &host{Machine: m, rack: r}
	}
	g, gctx := errgroup.WithContext(ctx)
	for i, p := range st.Ports {
		l, err := net.FileListener(os.NewFile(uintptr(firstPortFD+i), "port"))
		if err != nil {
			return fmt.Errorf("port %d of this machine: %w", p.Port, err)
		}
		m, err := st.Spec.Machine(p.Node)
		if err != nil {
			return err
		}
		to := net.JoinHostPort(m.Address.String(), fmt.Sprint(p.To))
		g.Go(func() error {
			return forward(gctx, l, func(ctx context.Context) (net.Conn, error) { return dial(ctx, "tcp", to) })
		})
	}
	for _, m := range st.Spec.Machines() {
		if !m.Server {
			continue
		}
		l, err := listenUnix(gctx, d.APISocket(m.Name))
		if err != nil {
			return err
		}
		g.Go(func() error { return forward(gctx, l, r.hosts[m.Name].dialAPI) })
	}
	l, err := listenUnix(gctx, d.control())
	if err != nil {
		return err
	}
	g.Go(func() error { return r.serve(gctx, l) })
	g.Go(func() error { return r.loop(gctx) })
	return g.Wait()
}

// mountRack makes the rack's mounts its own, without those of other programs.
func mountRack() error {
	// Slaves: what is unmounted on this machine is in the lab too, and nothing else
	// goes either way that matters.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make mounts the lab's own: %w", err)
	}
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for _, m := range foreign(parseMounts(string(info))) {
		_ = unix.Unmount(m, unix.MNT_DETACH) // it may be gone with one above it
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return nil
}

func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // the socket has its own mode
		return nil, err
	}
	_ = os.Remove(path) // of a rack before this one
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	return l, os.Chmod(path, 0o600)
}

// look wakes the loop.
func (r *rack) look() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// change has the loop change what is wanted, and waits until it is so.
func (r *rack) change(ctx context.Context, apply func(*State) error) error {
	c := change{apply: apply, done: make(chan error, 1)}
	select {
	case r.changes <- c:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case err := <-c.done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// loop keeps the lab as it is wanted. Only it changes the rack's fields.
func (r *rack) loop(ctx context.Context) error {
	for {
		err := r.round(ctx)
		if err != nil && (r.trouble == nil || r.trouble.Error() != err.Error()) {
			r.log.Warn("not all is as it should be", "error", err)
		}
		r.mu.Lock()
		r.trouble = err
		r.mu.Unlock()
		// What nobody tells of, a server that begins to answer, is looked at in a while.
		t := time.NewTimer(100 * time.Millisecond)
		select {
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		case <-r.wake:
		case <-t.C:
		case c := <-r.changes:
			next := r.state.clone()
			err := c.apply(&next)
			if err == nil {
				err = next.write(r.dir)
			}
			if err == nil {
				r.mu.Lock()
				r.state = next
				r.mu.Unlock()
				err = r.round(ctx)
			}
			c.done <- err
		}
		t.Stop()
	}
}

// round does what is to do now.
func (r *rack) round(ctx context.Context) error {
	var errs []error
	for _, s := range Plan(r.snapshot(ctx)) {
		if err := r.do(ctx, s); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (r *rack) snapshot(ctx context.Context) Snapshot {
	s := Snapshot{State: r.state, Machines: map[string]Seen{}, Rules: r.rules}
	waiting := false
	for name, h := range r.hosts {
		seen := h.seen()
		s.Machines[name] = seen
		waiting = waiting || h.joins() && seen.Running && !seen.Joined && !seen.Invited
	}
	if waiting { // else nobody needs to know
		s.Serving = r.apiAnswers(ctx)
	}
	return s
}

func (r *rack) do(ctx context.Context, s Step) error {
	switch s := s.(type) {
	case SetRules:
		if err := setRules(s.Rules); err != nil {
			return err
		}
		r.rules = s.Rules
	case PowerOff:
		return r.hosts[s.Node].off()
	case PowerOn:
		return r.hosts[s.Node].on(ctx, r.state)
	case SetPace:
		return r.hosts[s.Node].setPace(s.Pace)
	case Tell:
		return r.hosts[s.Node].tell(s.Stopped)
	case Invite:
		return r.invite(ctx, s)
	}
	return nil
}

// invite asks a server for a token, as `fairlead node invite` and `server invite`
// do, and gives it to the machines.
func (r *rack) invite(ctx context.Context, s Invite) error {
	var inv v1.Invitation
	err := r.askAny(ctx, func(server *voice) (err error) {
		inv, err = server.Invite(ctx, v1.Invite{TTL: cluster.Duration(10 * time.Minute), Uses: len(s.Nodes), Server: s.Server})
		return err
	})
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range s.Nodes {
		errs = append(errs, r.hosts[n].invite(inv.Value))
	}
	return errors.Join(errs...)
}

// halt ends the machines that run, gently, for their disks to be copied.
func (r *rack) halt() error {
	var g errgroup.Group
	for _, name := range r.names() {
		g.Go(r.hosts[name].halt)
	}
	return g.Wait()
}

func (r *rack) names() (out []string) {
	for _, m := range r.state.Spec.Machines() {
		out = append(out, m.Name)
	}
	return out
}

// status is what the lab looks like.
func (r *rack) status(ctx context.Context) Status {
	r.mu.Lock()
	s := newStatus(r.dir, r.state)
	if r.trouble != nil {
		s.Trouble = r.trouble.Error()
	}
	r.mu.Unlock()
	s.Running, s.Snapshots = true, snapshots(r.dir)
	engines := make([]bool, len(s.Nodes))
	var asked sync.WaitGroup
	for i, n := range s.Nodes {
		asked.Go(func() { engines[i] = r.hosts[n.Name].seen().Running && engineAnswers(ctx, r.dir.DockerSocket(n.Name)) })
	}
	said := r.clusterSays(ctx)
	asked.Wait()
	s.Doubt = said.doubt
	for i := range s.Nodes {
		n := &s.Nodes[i]
		h := r.hosts[n.Name]
		seen := h.seen()
		n.Power, n.Units = seen.Running, h.units()
		n.Docker = seen.Running && engines[i]
		n.Alive, n.Unknown = said.alive[n.Name], said.nothing
		if n.Gateway {
			problem, ok := said.gateways[n.Name]
			n.GatewayServes, n.GatewayProblem = ok && problem == "", problem
		}
	}
	s.Ready = s.Waiting() == ""
	return s
}
