package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// Shell opens a shell on a node and returns its exit code.
//
// At a terminal it gets one of its own, in a session of its own. The one of this program
// belongs to process groups that the node's processes do not see: a shell that wants to
// give it back to the group which had it finds none. dash ends with an error then, and
// stopped programs have nobody to wake them.
func Shell(ctx context.Context, root, name, node, shell string, at Streams) (int, error) {
	args := here([]string{shell})
	if !at.terminal() {
		return 0, Enter(root, name, node, []string{shell}, os.Environ())
	}
	args, env, err := entering(root, name, node, ownSession(args), os.Environ())
	if err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...) //nolint:gosec // the user's own shell
	cmd.Env = env
	return atTerminal(cmd, at)
}

// ownSession runs a program in a session whose terminal its standard input is.
func ownSession(args []string) []string { return append([]string{"setsid", "-c"}, args...) }

func (s Streams) terminal() bool {
	return s.In != nil && s.Out != nil && term.IsTerminal(int(s.In.Fd())) && term.IsTerminal(int(s.Out.Fd()))
}

// drainTime is how long what a program has written may take to be read once it has ended:
// one that it left behind may hold its terminal for ever.
const drainTime = 300 * time.Millisecond

// atTerminal runs cmd at a terminal of its own, which is shown at the user's, and returns
// its exit code.
func atTerminal(cmd *exec.Cmd, at Streams) (int, error) {
	master, slave, err := openTerminal()
	if err != nil {
		return 0, fmt.Errorf("make a terminal: %w", err)
	}
	defer master.Close() //nolint:errcheck // what is left in it nobody reads
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	if at.Err != nil && !term.IsTerminal(int(at.Err.Fd())) {
		cmd.Stderr = at.Err
	}
	users := int(at.In.Fd())
	defer followSize(users, master)()
	old, err := term.MakeRaw(users) // all that is typed is the program's, ctrl-C too
	if err != nil {
		return 0, errors.Join(err, slave.Close())
	}
	defer term.Restore(users, old) //nolint:errcheck // nothing better to do with it
	err = cmd.Start()
	_ = slave.Close()
	if err != nil {
		return 0, err
	}
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		_, _ = io.Copy(at.Out, master)
	}()
	go func() {
		_, _ = io.Copy(master, at.In)
		_, _ = master.Write([]byte{4}) // ctrl-D: no more is typed
	}()
	err = cmd.Wait()
	late := time.NewTimer(drainTime)
	defer late.Stop()
	select {
	case <-shown:
	case <-late.C:
	}
	return exitCode(err)
}

// exitCode is what a shell would say of how a program ended.
func exitCode(err error) (int, error) {
	e, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return 0, err
	}
	if s, is := e.Sys().(syscall.WaitStatus); is && s.Signaled() {
		return 128 + int(s.Signal()), nil
	}
	return e.ExitCode(), nil
}

// openTerminal makes a terminal: what is written to one end is typed at the other.
func openTerminal() (master, slave *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		return nil, nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "/dev/ptmx"), slave, nil
}

// followSize gives a terminal the size of the user's, now and until stop is called.
func followSize(users int, master *os.File) (stop func()) {
	set := func() {
		size, err := unix.IoctlGetWinsize(users, unix.TIOCGWINSZ)
		if err != nil {
			return
		}
		if raw, err := master.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { _ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, size) })
		}
	}
	set()
	changed, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(changed, unix.SIGWINCH)
	go func() {
		for {
			select {
			case <-changed:
				set()
			case <-done:
				return
			}
		}
	}()
	return func() { signal.Stop(changed); close(done) }
}
