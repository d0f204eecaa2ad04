package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/proc"
)

// Up makes a lab, or starts again one that does not run, and waits until it is
// ready; out is told of each step. What it made itself it takes down again when
// ctx ends first.
func Up(ctx context.Context, root string, want State, limit time.Duration, out io.Writer) (Status, error) {
	if err := requireRoot(); err != nil {
		return Status{}, err
	}
	d := DirOf(root, want.Spec.Name)
	made, err := bringUp(ctx, root, d, want, out)
	brought := err == nil
	var s Status
	if brought {
		s, err = Await(ctx, d, limit, out)
	}
	if made && (!brought || ctx.Err() != nil) {
		_, _ = fmt.Fprintf(out, "taking lab %s down again\n", want.Spec.Name)
		_, derr := Down(context.WithoutCancel(ctx), root, want.Spec.Name)
		return Status{}, errors.Join(err, derr)
	}
	return s, err
}

// bringUp makes what is missing of a lab. One that is there must be as it is wanted.
func bringUp(ctx context.Context, root string, d Dir, want State, out io.Writer) (made bool, err error) {
	held, unlock, err := lock(ctx, root)
	if err != nil {
		return false, err
	}
	defer unlock()
	if err := strange(d, "give another --name or --dir, or move it away"); err != nil {
		return false, err
	}
	st, err := Read(d)
	switch {
	case err == nil && st.Spec != want.Spec:
		return false, &cluster.Error{Kind: cluster.KindConflict, Msg: fmt.Sprintf(
			"lab %s is there and was made with --nodes %d --servers %d --gateways %d --engine %s --domain %s: take it down first, or give this one another --name",
			st.Spec.Name, st.Spec.Nodes, st.Spec.Servers, st.Spec.Gateways, st.Spec.Engine, st.Spec.Domain)}
	case err == nil:
	case cluster.KindOf(err) == cluster.KindNotFound:
		made = true
		if err := makeDir(d, want, out); err != nil {
			return made, err
		}
		st = want
	default:
		return false, err
	}
	if len(racks(d)) > 0 {
		return made, nil
	}
	if err := spareBridges(bridgeSwitches, loadBridgeFilter); err != nil {
		_, _ = fmt.Fprintf(out, "the kernel has br_netfilter now, and what passes this machine's own bridges passes its firewall: set net.bridge.bridge-nf-call-iptables=0 (and ip6tables, arptables) if it must not: %v\n", err)
	}
	return made, startRack(ctx, d, st, held)
}

// makeDir makes the directory of a lab.
func makeDir(d Dir, st State, out io.Writer) error {
	_, _ = fmt.Fprintf(out, "making lab %s in %s\n", st.Spec.Name, d)
	if err := claim(d); err != nil {
		return err
	}
	if err := os.Mkdir(d.path("bin"), 0o700); err != nil {
		return err
	}
	// A copy: the lab outlives a new build, and its machines find it by this name.
	self, err := os.Executable()
	if err == nil {
		err = copyFile(self, d.program())
	}
	if err != nil {
		return fmt.Errorf("copy this program: %w", err)
	}
	return st.write(d)
}

func copyFile(from, to string) error {
	in, err := os.Open(from) //nolint:gosec // this program
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755) //nolint:gosec // a program
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// startRack starts the process that the lab is. Its ports are of this machine's
// network, so they are opened here. It keeps the lock until it can be found: were
// this program killed now, Down would still wait for it.
func startRack(ctx context.Context, d Dir, st State, held *os.File) error {
	files := []*os.File{held}
	defer func() {
		for _, f := range files[1:] {
			_ = f.Close()
		}
	}()
	st = st.clone()
	for i, p := range st.Ports {
		l, err := listenPort(ctx, p.Port)
		if err != nil {
			return err
		}
		f, err := l.File()
		if st.Ports[i].Port = l.Addr().(*net.TCPAddr).Port; err != nil { //nolint:forcetypeassert // it listens on TCP
			return err
		}
		_ = l.Close()
		files = append(files, f)
	}
	if err := st.write(d); err != nil {
		return err
	}
	log, err := os.OpenFile(d.path("rack.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(d.program(), "lab", "rack", string(d)) //nolint:noctx,gosec // it outlives this program
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles, cmd.Dir = log, log, files, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true, Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID,
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the lab: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	for len(racks(d)) == 0 { // for an instant the kernel knows no command line of it
		select {
		case <-ended:
			return cluster.Transientf("the lab does not start: %s", lastLine(d.path("rack.log")))
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// listenPort opens the port that a lab had before, or any when another has it now.
func listenPort(ctx context.Context, port int) (*net.TCPListener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil && port != 0 {
		l, err = lc.Listen(ctx, "tcp", "127.0.0.1:0")
	}
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil //nolint:forcetypeassert // it listens on TCP
}

// racks are the processes that a lab is: one, or none.
func racks(d Dir) []proc.Found { return labProcesses("rack", d) }

func labProcesses(what string, d Dir, more ...string) []proc.Found {
	tail := append([]string{"lab", what, string(d)}, more...)
	return proc.Find(func(args []string) bool { return len(args) > 0 && slices.Equal(args[1:], tail) })
}

// Await waits until a lab is ready; out is told what it waits for.
func Await(ctx context.Context, d Dir, limit time.Duration, out io.Writer) (Status, error) {
	end := now().Add(limit)
	said := ""
	for {
		s, err := Ask(ctx, d, Request{Op: OpStatus})
		switch {
		case ctx.Err() != nil:
			return s, context.Cause(ctx)
		case err != nil && len(racks(d)) == 0:
			if _, err := Read(d); err != nil {
				return s, err
			}
			return s, cluster.Transientf("the lab ended: %s", lastLine(d.path("rack.log")))
		case err == nil:
			waiting := s.Waiting()
			if waiting == "" {
				return s, nil
			}
			if waiting != said {
				said = waiting
				_, _ = fmt.Fprintln(out, "waiting for", waiting)
			}
			if node, unit, ended := s.Ailing(); node != "" {
				log := d.disk(node, unit+".log")
				return s, cluster.Transientf("%s on %s %s again and again: %s (its log is %s)", unit, node, ended, lastLine(log), log)
			}
		}
		if now().After(end) {
			return s, fmt.Errorf("the lab is not ready after %s, waiting for %s: %w%s", limit, s.Waiting(), context.DeadlineExceeded, s.reasons())
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return s, err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// lastLine is what a program said last.
func lastLine(file string) string {
	b, err := os.ReadFile(file) //nolint:gosec // a log of the lab
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if last := lines[len(lines)-1]; err == nil && last != "" {
		return last
	}
	return "it said nothing"
}

// Down ends a lab and removes all that it had; false: there was none. It needs
// nothing of the lab to be whole but its mark: another directory stays as it is.
func Down(ctx context.Context, root, name string) (bool, error) {
	if err := requireRoot(); err != nil {
		return false, err
	}
	return takeDown(ctx, root, DirOf(root, name))
}

func takeDown(ctx context.Context, root string, d Dir) (bool, error) {
	_, unlock, err := lock(ctx, root)
	if err != nil {
		return false, err
	}
	defer unlock()
	marked, err := isLab(d)
	if err != nil {
		return false, err
	}
	found := marked
	for _, p := range racks(d) {
		found = true
		if err := end(ctx, p.ID); err != nil {
			return true, err
		}
	}
	for tries := 0; !removeCgroups(d.group()); tries++ {
		if found = true; tries == 100 {
			return true, cluster.Transientf("control groups of lab %s cannot be removed: %v", filepath.Base(string(d)), cgroupDirs(cgroupRoot, d.group()))
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return true, err
		}
	}
	_ = os.Remove(filepath.Join(cgroupRoot, "fairlead-lab")) // of all labs: when this was the last
	tops, _ := filepath.Glob(filepath.Join(cgroupRoot, "*", "fairlead-lab"))
	for _, t := range tops {
		_ = os.Remove(t)
	}
	if err := dropPassing(d); err != nil {
		return found, err
	}
	if !marked {
		return found, strange(d, "the directory stays as it is")
	}
	return true, remove(d)
}

// end kills a lab's rack. With the first process of a namespace the kernel ends all
// others in it before that one is gone.
func end(ctx context.Context, id proc.ID) error {
	exited, ok := proc.Adopt(ctx, id)
	if !ok {
		return nil
	}
	if err := syscall.Kill(id.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	t := time.NewTimer(time.Minute)
	defer t.Stop()
	select {
	case <-exited:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return cluster.Transientf("the lab's process %d does not end", id.PID)
	}
}

// lock lets one program at a time make and remove labs below root, which it makes.
// The last one to leave removes it when no lab is there. Whoever else is given the file
// holds the lock too, until it closes it.
func lock(ctx context.Context, root string) (held *os.File, unlock func(), err error) {
	for {
		if err := os.MkdirAll(root, 0o700); err != nil {
			return nil, nil, err
		}
		f, err := os.Open(root) //nolint:gosec // root names the directory
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		for err = syscall.EWOULDBLOCK; errors.Is(err, syscall.EWOULDBLOCK); {
			if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, syscall.EWOULDBLOCK) {
				if perr := pause(ctx, 50*time.Millisecond); perr != nil {
					return nil, nil, errors.Join(perr, f.Close())
				}
			}
		}
		if err != nil {
			return nil, nil, errors.Join(fmt.Errorf("lock %s: %w", root, err), f.Close())
		}
		mine, err1 := f.Stat()
		now, err2 := os.Stat(root)
		if err1 == nil && err2 == nil && os.SameFile(mine, now) {
			return f, func() { _ = os.Remove(root); _ = f.Close() }, nil
		}
		_ = f.Close() // it was removed meanwhile
	}
}

func requireRoot() error {
	if os.Geteuid() != 0 {
		return errRoot
	}
	return nil
}
