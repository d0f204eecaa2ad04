package proc

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"
	"time"
)

func own(t *testing.T) ID {
	t.Helper()
	start, _, err := stat(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	return ID{os.Getpid(), start}
}

func wantEnd(t *testing.T, exited <-chan struct{}) {
	t.Helper()
	select {
	case <-exited:
	case <-time.After(10 * time.Second):
		t.Fatal("its end is not seen")
	}
}

func TestAdoptionIsByStartTimeToo(t *testing.T) {
	id := own(t)
	if !id.Alive() {
		t.Error("this process is not alive")
	}
	if _, ok := Adopt(t.Context(), id); !ok {
		t.Error("cannot adopt this process")
	}
	id.Start++
	if _, ok := Adopt(t.Context(), id); ok || id.Alive() {
		t.Error("adopted a process that only has the same PID")
	}
	if _, ok := Adopt(t.Context(), ID{PID: 1 << 30}); ok {
		t.Error("adopted a process that is not there")
	}
}

func TestEndsAreSeen(t *testing.T) {
	id, exited, err := Start(exec.CommandContext(t.Context(), "sleep", "60"))
	if err != nil {
		t.Fatal(err)
	}
	adopted, ok := Adopt(t.Context(), id)
	if !ok {
		t.Fatal("cannot adopt what was just started")
	}
	ctx, cancel := context.WithCancel(t.Context())
	left, ok := Adopt(ctx, id)
	if !ok {
		t.Fatal("cannot adopt it twice")
	}
	cancel()
	if err := Stop(t.Context(), id, exited, "sleep", 10*time.Second); err != nil {
		t.Fatal(err)
	}
	wantEnd(t, adopted)
	select {
	case <-left:
		t.Error("an adoption that was given up tells of an end")
	default:
	}
	if err := Stop(t.Context(), id, exited, "sleep", time.Second); err != nil || id.Alive() {
		t.Errorf("stopped again: %v, alive %v", err, id.Alive())
	}
}

func TestWhatIgnoresSIGTERMIsKilled(t *testing.T) {
	// The shell reads what never comes, so that no child of it is left behind.
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `trap "" TERM; echo; read x`)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	id, exited, err := Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil { // the trap is set
		t.Fatal(err)
	}
	if err := Stop(t.Context(), id, exited, "sh", 10*time.Millisecond); err != nil || id.Alive() {
		t.Errorf("stop: %v, alive %v", err, id.Alive())
	}
}

// A program that ends at once was started all the same: its end is told as an end.
func TestAProcessThatEndedHasAStart(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	deadline := time.Now().Add(10 * time.Second)
	for {
		start, ended, err := stat(cmd.Process.Pid)
		if err != nil || start == 0 {
			t.Fatalf("start %d, ended %v: %v", start, ended, err)
		}
		if ended {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not end")
		}
		runtime.Gosched()
	}
	start, _, _ := stat(cmd.Process.Pid)
	if _, ok := Adopt(t.Context(), ID{cmd.Process.Pid, start}); ok {
		t.Error("a process that has ended can be taken over")
	}
}

func TestFind(t *testing.T) {
	args := []string{"sleep", "61.25"}
	id, exited, err := Start(exec.CommandContext(t.Context(), args[0], args[1:]...))
	if err != nil {
		t.Fatal(err)
	}
	same := func(a []string) bool { return slices.Equal(a, args) }
	if got := Find(same); len(got) != 1 || got[0].ID != id {
		t.Errorf("found %v, want %v", got, id)
	}
	if err := Stop(t.Context(), id, exited, "sleep", 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if got := Find(same); len(got) != 0 {
		t.Errorf("found %v after its end", got)
	}
}
