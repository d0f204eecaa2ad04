package proc_test

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead/fairlead/proc"
)

// endThreads ends every thread of this process that has nothing to do, as the goroutines do that
// enter another network namespace for a connection.
func endThreads() {
	const more = 64 // than there are
	var locked, over sync.WaitGroup
	all := make(chan struct{})
	locked.Add(more)
	for range more {
		over.Go(func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
			locked.Done()
			<-all // each keeps a thread to itself until then
		})
	}
	locked.Wait()
	close(all)
	over.Wait()
}

// tethered is a command that runs until it is killed, and what ends with it.
func tethered(t *testing.T) (*exec.Cmd, *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	cmd := exec.CommandContext(t.Context(), "sleep", "1000")
	cmd.ExtraFiles = []*os.File{w}
	return cmd, r
}

// lives reports whether it still runs after so long.
func lives(t *testing.T, r *os.File, after time.Duration) bool {
	t.Helper()
	if err := r.SetReadDeadline(time.Now().Add(after)); err != nil {
		t.Fatal(err)
	}
	_, err := r.Read(make([]byte, 1))
	if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return errors.Is(err, os.ErrDeadlineExceeded)
}

// busy has goroutines wait for their turn, so that one which comes back from the kernel goes on
// on another thread.
func busy() (stop func()) {
	var over sync.WaitGroup
	var done atomic.Bool
	for range 4 * runtime.GOMAXPROCS(0) {
		over.Go(func() {
			for !done.Load() {
				runtime.Gosched()
			}
		})
	}
	return func() { done.Store(true); over.Wait() }
}

// parent is the thread of this process that started a process.
func parent(t *testing.T, pid int) int {
	t.Helper()
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil || len(lists) == 0 {
		t.Fatalf("no lists of children: %v", err)
	}
	for _, list := range lists {
		b, _ := os.ReadFile(list) // of a thread that may have ended
		if slices.Contains(strings.Fields(string(b)), strconv.Itoa(pid)) {
			tid, err := strconv.Atoi(filepath.Base(filepath.Dir(list)))
			if err != nil {
				t.Fatal(err)
			}
			return tid
		}
	}
	t.Fatalf("no thread of this process started %d", pid)
	return 0
}

// othersGet reports whether a goroutine gets a thread, of more than there are to get.
func othersGet(tid int) bool {
	var locked, over sync.WaitGroup
	var got atomic.Bool
	const more = 64
	all := make(chan struct{})
	locked.Add(more)
	for range more {
		over.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			if unix.Gettid() == tid {
				got.Store(true)
			}
			locked.Done()
			<-all // each keeps a thread to itself until then
		})
	}
	locked.Wait()
	close(all)
	over.Wait()
	return got.Load()
}

// held is what writes to it wait for.
type held struct{ written, free chan struct{} }

func (h held) Write(b []byte) (int, error) {
	close(h.written)
	<-h.free
	return len(b), nil
}

// The thread that started a command is nobody else's until Wait has returned. While the command
// runs the kernel has the thread, kept or not: here Wait has its end and waits for its output,
// when nothing but the lock keeps the thread.
func TestTiedKeepsItsThread(t *testing.T) {
	out := held{make(chan struct{}), make(chan struct{})}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "echo x; exec sleep 1000")
	cmd.Stdout = out
	ended, err := proc.StartTied(cmd)
	if err != nil {
		t.Fatal(err)
	}
	<-out.written
	tid := parent(t, cmd.Process.Pid)
	if othersGet(tid) {
		t.Error("while it runs its thread is another's")
	}
	_ = cmd.Process.Kill()
	for deadline := time.Now().Add(10 * time.Second); syscall.Kill(cmd.Process.Pid, 0) == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("its end is not seen")
		}
	}
	for range 20 {
		if othersGet(tid) {
			t.Fatal("before Wait has returned its thread is another's")
		}
	}
	select {
	case err := <-ended:
		t.Fatalf("its output is not read, and it ended: %v", err)
	default:
	}
	close(out.free)
	if err := <-ended; err == nil {
		t.Error("it was killed, and its end is none")
	}
}

// Commands that are tied to this process outlive threads of it. Without a kept thread one of a
// hundred does not.
func TestTiedOutlivesThreads(t *testing.T) {
	type tied struct {
		cmd   *exec.Cmd
		r     *os.File
		ended <-chan error
	}
	var all []tied
	stop := busy()
	for range 20 {
		cmd, r := tethered(t)
		ended, err := proc.StartTied(cmd)
		if err != nil {
			t.Fatal(err)
		}
		_ = cmd.ExtraFiles[0].Close()
		all = append(all, tied{cmd, r, ended})
	}
	stop()
	for range 5 {
		endThreads()
	}
	for i, c := range all {
		if !lives(t, c.r, 10*time.Millisecond) {
			t.Errorf("%d ended with a thread: %v", i, <-c.ended)
			continue
		}
		_ = c.cmd.Process.Kill()
		var exit *exec.ExitError
		if err := <-c.ended; !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Errorf("its end is %v", err)
		}
		if err, more := <-c.ended; more {
			t.Errorf("it ends twice: %v", err)
		}
	}
}

// What the test before goes by: without a thread that is kept for it, a command ends with one.
func TestThreadsEndWhatTheyStarted(t *testing.T) {
	for range 100 {
		cmd, r := tethered(t)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		var err error
		first := make(chan bool)
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			err = cmd.Start()
			first <- unix.Gettid() == unix.Getpid()
		}()
		onFirst := <-first
		if err != nil {
			t.Fatal(err)
		}
		_ = cmd.ExtraFiles[0].Close()
		if !onFirst { // which never ends
			for i := 0; ; i++ {
				if endThreads(); !lives(t, r, 10*time.Millisecond) {
					break
				}
				if i == 100 {
					t.Fatal("without a thread of its own it lives on: this test sees nothing")
				}
			}
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if !onFirst {
			return
		}
	}
	t.Fatal("each was started by the first thread")
}

func TestTiedThatCannotStart(t *testing.T) {
	if ended, err := proc.StartTied(exec.CommandContext(t.Context(), "/none/of/that/name")); !errors.Is(err, os.ErrNotExist) || ended != nil {
		t.Errorf("%v, %v", ended, err)
	}
}
