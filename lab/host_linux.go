package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead/fairlead/cluster"
)

// host is a machine as the rack sees it.
type host struct {
	Machine
	rack *rack

	mu      sync.Mutex
	pid     int // 0: no power
	gone    chan struct{}
	conn    net.Conn
	orders  *json.Encoder
	invited bool
	stopped Set
	pace    Pace
	line    *line // nil: the cable is in the switch
	last    []UnitState
	failed  string // why it could not start
	retryAt time.Time
}

func (h *host) seen() Seen {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := Seen{Running: h.pid != 0, Invited: h.invited, Stopped: h.stopped, Pace: h.pace}
	s.Joined = joined(h.rack.dir.disk(h.Name, "fairlead"))
	return s
}

func (h *host) units() []UnitState {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.last)
}

// on starts the machine.
func (h *host) on(_ context.Context, s State) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now().Before(h.retryAt) {
		return fmt.Errorf("%s does not start: %s", h.Name, h.failed)
	}
	h.retryAt = now().Add(2 * time.Second)
	err := h.start(s)
	if err != nil {
		h.failed = err.Error()
	}
	return err
}

func (h *host) start(s State) error {
	d := h.rack.dir
	if err := errors.Join(os.MkdirAll(d.disk(h.Name), 0o700), os.MkdirAll(filepath.Dir(d.DockerSocket(h.Name)), 0o700)); err != nil {
		return err
	}
	removeCgroups(d.group() + "/" + h.Name) // of a machine whose power was cut
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	mine, theirs := os.NewFile(uintptr(pair[0]), "machine"), os.NewFile(uintptr(pair[1]), "rack")
	defer func() { _ = theirs.Close() }()
	conn, err := net.FileConn(mine)
	_ = mine.Close()
	if err != nil {
		return err
	}
	console, err := os.OpenFile(d.disk(h.Name, "console.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	defer func() { _ = console.Close() }()
	cmd := exec.Command(d.program(), "lab", "machine", string(d), h.Name) //nolint:noctx,gosec // our own program, as long as its power is on
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = console, console, []*os.File{theirs}
	cmd.Env = Environment(d, s, h.Name)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
	}
	if err := cmd.Start(); err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", h.Name, err), conn.Close())
	}
	gone := make(chan struct{})
	h.pid, h.gone, h.conn, h.orders = cmd.Process.Pid, gone, conn, json.NewEncoder(conn)
	h.invited, h.last, h.failed, h.pace = false, nil, "", Pace{}
	h.stopped = stopped(s, h.Name)
	go h.listen(conn)
	go func() {
		_ = cmd.Wait()
		h.mu.Lock()
		h.pid, h.last = 0, nil
		unplug(h.Name)
		if h.line != nil {
			_ = h.line.close()
			h.line = nil
		}
		h.mu.Unlock()
		_ = conn.Close()
		close(gone)
		h.rack.look()
	}()
	if err := plug(h.Name, h.pid); err != nil {
		_ = cmd.Process.Kill()
		return err
	}
	return h.orders.Encode(order{Boot: &boot{
		Lab: s.Spec.Name, Dir: d, Self: h.Machine, All: s.Spec.Machines(), Units: Units(d, s, h.Machine), Stopped: h.stopped,
	}})
}

// listen keeps what the machine says of itself.
func (h *host) listen(conn net.Conn) {
	in := json.NewDecoder(conn)
	for {
		var r report
		if in.Decode(&r) != nil {
			return
		}
		h.mu.Lock()
		if r.Failed != "" {
			h.failed = r.Failed
		}
		for _, u := range r.Units {
			// It could not join: the token was used or has ended.
			if u.Name == UnitFairlead && u.PID == 0 && u.Ended != "" {
				h.invited = false
			}
		}
		h.last = r.Units
		h.mu.Unlock()
		h.rack.look()
	}
}

// off cuts the machine's power: its first process is killed, and with it the
// kernel ends all others. It returns once none is left.
func (h *host) off() error {
	h.mu.Lock()
	pid, gone := h.pid, h.gone
	h.mu.Unlock()
	if pid == 0 {
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return h.awaitEnd(gone, 30*time.Second)
}

// halt ends the machine gently.
func (h *host) halt() error {
	h.mu.Lock()
	pid, gone := h.pid, h.gone
	if pid != 0 {
		_ = h.orders.Encode(order{Halt: true})
	}
	h.mu.Unlock()
	if pid == 0 {
		return nil
	}
	return h.awaitEnd(gone, patience+10*time.Second)
}

func (h *host) awaitEnd(gone <-chan struct{}, limit time.Duration) error {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-gone:
		removeCgroups(h.rack.dir.group() + "/" + h.Name)
		return nil
	case <-t.C:
		return cluster.Transientf("%s does not end within %s", h.Name, limit)
	}
}

// send gives the machine an order; one without power needs none.
func (h *host) send(o order) error {
	if h.pid == 0 {
		return nil
	}
	return h.orders.Encode(o)
}

func (h *host) tell(stopped Set) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopped = stopped
	return h.send(order{Stop: &stop{stopped}})
}

func (h *host) invite(token string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.invited = true
	return h.send(order{Token: token})
}

// setPace makes the machine's link so slow, in both directions.
func (h *host) setPace(p Pace) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pid == 0 {
		return nil // with its power it loses its pace
	}
	if h.line != nil {
		if err := h.line.close(); err != nil {
			return err
		}
		h.line = nil
	}
	cable, err := netlink.LinkByName(h.Name)
	if err != nil {
		return err
	}
	if err := errors.Join(setRate(cable, p), h.send(order{Pace: &p})); err != nil {
		return err
	}
	if p.Delay > 0 || p.Loss > 0 {
		if h.line, err = openLine(h.Name, p); err != nil {
			return err
		}
	}
	h.pace = p
	return nil
}

// dialAPI connects to the API's socket, which is in the machine's own mounts.
func (h *host) dialAPI(ctx context.Context) (net.Conn, error) {
	h.mu.Lock()
	pid := h.pid
	h.mu.Unlock()
	if pid == 0 {
		return nil, fmt.Errorf("%s has no power", h.Name)
	}
	return dial(ctx, "unix", filepath.Join("/proc", fmt.Sprint(pid), "root", runDir(h.rack.name, h.Name), "fairlead.sock"))
}
