package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead/fairlead/cluster"
)

// ID names a process for good, also in a file for the next Fairlead.
type ID struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // the kernel's start time, in ticks since boot
}

// Alive reports whether the process has not ended.
func (id ID) Alive() bool {
	start, ended, err := stat(id.PID)
	return err == nil && !ended && start == id.Start
}

// Start starts a command in a session of its own. The channel is closed when it
// has ended. Give it files to write to, no pipes: those end with this process.
func Start(cmd *exec.Cmd) (ID, <-chan struct{}, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true
	if err := cmd.Start(); err != nil {
		return ID{}, nil, err
	}
	id, exited := ID{PID: cmd.Process.Pid}, make(chan struct{})
	// Before it is waited for: until then the kernel keeps its entry, ended or not.
	var err error
	id.Start, _, err = stat(id.PID)
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	if err != nil {
		_ = cmd.Process.Kill()
		return ID{}, nil, err
	}
	return id, exited, nil
}

// Adopt watches a process that this one has not started; false when it has ended.
// The channel is closed at its end, and never when ctx ends first.
func Adopt(ctx context.Context, id ID) (<-chan struct{}, bool) {
	fd, err := unix.PidfdOpen(id.PID, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, false
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	// One that is alive now was alive when the descriptor was opened: it is of it.
	conn, err := f.SyscallConn()
	if err != nil || !id.Alive() {
		_ = f.Close()
		return nil, false
	}
	exited := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { _ = f.Close() })
	go func() {
		defer f.Close() //nolint:errcheck // nothing was written
		defer stop()
		err := conn.Read(func(fd uintptr) bool {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0) //nolint:gosec // a small number
			return n > 0 || (err != nil && !errors.Is(err, unix.EINTR))
		})
		if err == nil && ctx.Err() == nil {
			close(exited)
		}
	}()
	return exited, true
}

// Stop ends a process: gently, then after grace by force. It returns once it is
// gone. what names it in an error.
func Stop(ctx context.Context, id ID, exited <-chan struct{}, what string, grace time.Duration) error {
	for _, step := range []struct {
		sig  syscall.Signal
		wait time.Duration
	}{{syscall.SIGTERM, grace}, {syscall.SIGKILL, 5 * time.Second}} {
		if !id.Alive() {
			return nil
		}
		if err := syscall.Kill(id.PID, step.sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop %s (PID %d): %w", what, id.PID, err)
		}
		t := time.NewTimer(step.wait)
		select {
		case <-exited:
			t.Stop()
			return nil
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		case <-t.C:
		}
	}
	return cluster.Transientf("%s (PID %d) does not end", what, id.PID)
}

// stat returns when a process started, and whether it has ended and only its
// parent has not yet asked how.
func stat(pid int) (start uint64, ended bool, err error) {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, false, err
	}
	// The name in parentheses may hold anything, spaces too.
	_, rest, ok := bytes.Cut(b[max(0, bytes.LastIndexByte(b, ')')):], []byte(" "))
	fields := bytes.Fields(rest)
	if !ok || len(fields) < 20 {
		return 0, false, fmt.Errorf("/proc/%d/stat is not as proc(5) has it", pid)
	}
	start, err = strconv.ParseUint(string(fields[19]), 10, 64)
	return start, fields[0][0] == 'Z', err
}

// Found is a process and its command line.
type Found struct {
	ID
	Args []string
}

// Find returns the processes whose command line match accepts.
func Find(match func(args []string) bool) []Found {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var out []Found
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", d.Name(), "cmdline"))
		if err != nil || len(line) == 0 {
			continue
		}
		args := strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
		if !match(args) {
			continue
		}
		if start, ended, err := stat(pid); err == nil && !ended {
			out = append(out, Found{ID{pid, start}, args})
		}
	}
	return out
}

// FileID returns what changes when a file does; "" when there is none.
func FileID(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%d-%d", info.Size(), info.ModTime().UnixNano())
}
