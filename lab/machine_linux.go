package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// rackFD is where a machine finds its connection to the rack.
const rackFD = 3

// RunMachine is the first process of a machine: it makes the machine of the
// namespaces it is started in, and keeps its units running until it is killed.
// It returns only when it could not start, or was told to halt.
func RunMachine() error {
	f := os.NewFile(rackFD, "rack")
	conn, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		return errors.New("`fairlead lab machine` is run by the rack of a lab, which talks to it")
	}
	orders, out := json.NewDecoder(conn), json.NewEncoder(conn)
	var first order
	if err := orders.Decode(&first); err != nil || first.Boot == nil {
		return fmt.Errorf("the rack said nothing: %w", err)
	}
	b := *first.Boot
	if err := errors.Join(mountMachine(b), connectMachine(b.Self)); err != nil {
		return errors.Join(err, out.Encode(report{Failed: err.Error()}))
	}
	i := &initProcess{out: out, units: map[string]*unit{}, stopped: b.Stopped}
	for _, u := range b.Units {
		i.units[u.Name] = &unit{Unit: u, state: UnitState{Name: u.Name}}
		i.order = append(i.order, u.Name)
	}
	incoming := make(chan order)
	go func() {
		defer close(incoming)
		for {
			var o order
			if orders.Decode(&o) != nil {
				return
			}
			incoming <- o
		}
	}()
	i.run(incoming)
	return nil
}

// mountMachine gives the machine mounts of its own: what is in memory on a real one
// begins empty, and names are its own.
func mountMachine(b boot) error {
	if err := syscall.Sethostname([]byte(b.Self.Name)); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := mountSys(); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	// The target is in /run on many systems: found before that is covered.
	resolv := followLink("/etc/resolv.conf")
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	var hosts strings.Builder
	hosts.WriteString("127.0.0.1 localhost\n")
	for _, m := range b.All {
		fmt.Fprintln(&hosts, m.Address, m.Name)
	}
	for target, content := range map[string]string{
		resolv:       "nameserver 127.0.0.1\n", // nobody: names outside fail at once instead of late
		"/etc/hosts": hosts.String(), "/etc/hostname": b.Self.Name + "\n",
	} {
		source := filepath.Join("/run", "lab-"+filepath.Base(target))
		if err := os.WriteFile(source, []byte(content), 0o644); err != nil { //nolint:gosec // everyone reads these
			return err
		}
		if strings.HasPrefix(target, "/run/") {
			if err := errors.Join(os.MkdirAll(filepath.Dir(target), 0o755), os.WriteFile(target, []byte(content), 0o644)); err != nil { //nolint:gosec // as above
				return err
			}
			continue
		}
		if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("mount %s: %w", target, err)
		}
	}
	return os.WriteFile(b.Dir.disk(b.Self.Name, "daemon.json"), []byte("{}\n"), 0o600)
}

// mountSys gives the machine a /sys that shows its own links, where it would show
// those of the network it was made in. Control groups stay as they are.
func mountSys() error {
	const fresh = "/run" // covered before and after by something else
	if err := unix.Mount("sysfs", fresh, "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	if err := unix.Mount(cgroupRoot, fresh+"/fs/cgroup", "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	return unix.Mount(fresh, "/sys", "", unix.MS_MOVE, "")
}

// followLink is where a path leads, also when nothing is there.
func followLink(path string) string {
	for range 10 {
		to, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = to
	}
	if rest, ok := strings.CutPrefix(path, "/var/run/"); ok {
		path = "/run/" + rest
	}
	return path
}

// connectMachine sets up the machine's end of its link.
func connectMachine(m Machine) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	eth, err := netlink.LinkByName(machineLink)
	if err != nil {
		return fmt.Errorf("the link to the switch: %w", err)
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: m.Address.AsSlice(), Mask: net.CIDRMask(network.Bits(), 32)}}
	for _, err := range []error{
		netlink.LinkSetUp(lo), netlink.AddrAdd(eth, addr), netlink.LinkSetUp(eth),
		netlink.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Gw: switchAddress().AsSlice()}),
	} {
		if err != nil {
			return fmt.Errorf("set up the link to the switch: %w", err)
		}
	}
	return nil
}

// initProcess is what init is to a machine.
type initProcess struct {
	out     *json.Encoder
	units   map[string]*unit
	order   []string // of the units
	stopped Set
	token   string
	halting bool
	killAt  time.Time // when halting
}

type unit struct {
	Unit
	state     UnitState
	notBefore time.Time
	told      bool // to end
}

// patience is how long a unit that is told to end is waited for.
const patience = 15 * time.Second

func (i *initProcess) run(orders <-chan order) {
	ended := make(chan os.Signal, 8)
	signal.Notify(ended, syscall.SIGCHLD)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		changed := i.step()
		if changed {
			i.report()
		}
		if i.halting && !slices.ContainsFunc(i.order, func(n string) bool { return i.units[n].state.PID != 0 }) {
			return
		}
		select {
		case o, ok := <-orders:
			if !ok {
				return // the rack is gone, and the machine with it
			}
			i.obey(o)
		case <-ended:
		case <-tick.C:
		}
		if i.reap() {
			i.report()
		}
	}
}

func (i *initProcess) obey(o order) {
	if o.Token != "" {
		i.token = o.Token
	}
	if o.Halt {
		i.halting = true
		i.killAt = now().Add(patience)
	}
	if o.Pace != nil {
		if err := slowMachine(*o.Pace); err != nil {
			fmt.Fprintln(os.Stderr, "slow:", err) // the console
		}
	}
	if o.Stop == nil {
		return
	}
	i.stopped = o.Stop.Units
	for _, name := range i.order {
		u := i.units[name]
		if i.stopped.Has(name) {
			if u.state.PID != 0 {
				_ = syscall.Kill(u.state.PID, syscall.SIGKILL)
			}
		} else {
			u.notBefore = time.Time{}
		}
	}
}

// step starts what should run and ends what should not, in the order of the units;
// true: something was changed.
func (i *initProcess) step() (changed bool) {
	if i.halting {
		i.halt()
		return false
	}
	for _, name := range i.order {
		u := i.units[name]
		if u.state.PID != 0 || i.stopped.Has(name) || now().Before(u.notBefore) || !listens(u.After) {
			continue
		}
		if u.Token && i.token == "" && !joined(u.DataDir) {
			continue
		}
		changed = true
		u.state.Starts++
		if err := u.start(i.token); err != nil {
			u.state.Ended, u.notBefore = err.Error(), now().Add(time.Second)
		}
	}
	return changed
}

// halt ends the units in reverse order, one after the other.
func (i *initProcess) halt() {
	for _, name := range slices.Backward(i.order) {
		u := i.units[name]
		if u.state.PID == 0 {
			continue
		}
		switch {
		case !u.told:
			u.told = true
			_ = syscall.Kill(u.state.PID, syscall.SIGTERM)
		case now().After(i.killAt):
			_ = syscall.Kill(u.state.PID, syscall.SIGKILL)
		}
		return
	}
}

// joined reports whether what keeps its data there was told of its cluster.
func joined(dataDir string) bool {
	for _, file := range []string{"membership.json", "server.json"} { // of a node, of a server
		if _, err := os.Stat(filepath.Join(dataDir, file)); err == nil {
			return true
		}
	}
	return false
}

// listens reports whether something listens on a socket; "" always does.
func listens(socket string) bool {
	if socket == "" {
		return true
	}
	c, err := net.DialTimeout("unix", socket, time.Second) //nolint:noctx // it is bounded, and on this machine
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

func (u *unit) start(token string) error {
	log, err := os.OpenFile(u.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	in, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	if u.Name == UnitDocker { // what an engine that was killed leaves behind
		_ = os.Remove("/run/docker.pid")
		_ = os.Remove("/run/docker/containerd/containerd.pid")
	}
	env := u.Env
	if u.Token && token != "" {
		env = append(slices.Clone(env), "FAIRLEAD_JOIN_TOKEN="+token)
	}
	path, err := lookPath(u.Args[0], u.Env)
	if err != nil {
		return err
	}
	p, err := os.StartProcess(path, u.Args, &os.ProcAttr{
		Dir: "/", Env: env, Files: []*os.File{in, log, log}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return err
	}
	u.state.PID, u.told = p.Pid, false
	return p.Release() // all ends are seen by reap
}

// lookPath finds a program on the PATH of env.
func lookPath(program string, env []string) (string, error) {
	if filepath.IsAbs(program) {
		return program, nil
	}
	for _, e := range env {
		dirs, ok := strings.CutPrefix(e, "PATH=")
		if !ok {
			continue
		}
		for _, dir := range filepath.SplitList(dirs) {
			p := filepath.Join(dir, program)
			if info, err := os.Stat(p); err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
				return p, nil
			}
		}
	}
	return "", fmt.Errorf("there is no %s on PATH", program)
}

// reap takes note of all processes that have ended, orphans of others among them;
// true: a unit was one.
func (i *initProcess) reap() (changed bool) {
	for {
		var st syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &st, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return changed
		}
		for _, u := range i.units {
			if u.state.PID != pid {
				continue
			}
			changed = true
			u.state.PID, u.notBefore, u.state.Ended = 0, now().Add(time.Second), fmt.Sprintf("ended with exit code %d", st.ExitStatus())
			if st.Signaled() {
				u.state.Ended = "ended by signal " + st.Signal().String()
			}
		}
	}
}

func (i *initProcess) report() {
	var r report
	for _, name := range i.order {
		r.Units = append(r.Units, i.units[name].state)
	}
	_ = i.out.Encode(r) // a rack that is gone ends the machine too
}
