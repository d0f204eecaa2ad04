package integration

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/metrics"

	"github.com/fairlead/fairlead/integration/need"
)

// TestMetricsOfRealContainers measures a container that keeps one core busy and
// one that does nothing, and compares with the kernel's own count of the busy
// process.
func TestMetricsOfRealContainers(t *testing.T) {
	if os.Getuid() != 0 {
		need.Skip(t, "needs root")
	}
	e, err := docker.New("")
	if err != nil {
		need.Skip(t, "needs a Docker engine: %v", err)
	}
	if _, err := e.Info(t.Context()); err != nil {
		need.Skip(t, "needs a Docker engine: %v", err)
	}
	if _, err := testapp(); err != nil {
		t.Fatal(err)
	}
	id := "metrics-" + strings.ToLower(t.Name())
	t.Cleanup(func() {
		if _, err := e.Purge(context.WithoutCancel(t.Context()), id); err != nil {
			t.Error(err)
		}
		_ = e.Close()
	})
	run := func(task string, command ...string) metrics.Target {
		c, err := e.Create(t.Context(), docker.Create{
			Name: id + "-" + task, Image: testImage, Command: command, Spec: &cluster.TaskSpec{NetworkMode: "none"},
			Labels: map[string]string{cluster.LabelCluster: id, cluster.LabelTask: task},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Start(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		x, err := e.Inspect(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		return metrics.Target{Task: cluster.TaskID(task), Container: c, Pid: x.Pid}
	}
	busy, idle := run("busy", "hash-cpu"), run("idle", "sleep", "1h")
	c := metrics.New(metrics.Config{Now: time.Now, Log: hclog.NewNullLogger()})
	targets := []metrics.Target{busy, idle, {Task: "gone", Container: busy.Container, Pid: 1 << 22}}

	want := usedBetween(t, busy.Pid, func() { c.Collect(targets) })
	got := map[cluster.TaskID]cluster.Sample{}
	for _, s := range c.Samples() {
		got[s.Task] = s
	}
	if len(got) != 2 {
		t.Fatalf("samples: %+v", got)
	}
	// The machine may give the loop less than a core: the kernel's count of the
	// process says how much.
	if cpu := float64(got["busy"].CPU); math.Abs(cpu-want) > 60 || cpu < 50 {
		t.Errorf("busy: %v thousandths of a core, the process says %.0f", cpu, want)
	}
	if cpu := got["idle"].CPU; cpu > 30 {
		t.Errorf("idle: %d thousandths of a core", cpu)
	}
	for task, s := range got {
		if s.Memory < 100<<10 || s.Memory > 256<<20 {
			t.Errorf("%s: %d bytes of memory", task, s.Memory)
		}
		if w := s.Window.D(); w < 2*time.Second || w > 20*time.Second {
			t.Errorf("%s: window %s", task, w)
		}
	}
}

// usedBetween collects twice, seconds apart, and returns how many thousandths of a core the
// process used in between. It is looked at just before each: where the machine stood still
// there, the two say nothing of each other, and it is done again.
func usedBetween(t *testing.T, pid int, collect func()) (cpu float64) {
	t.Helper()
	look := func() (used time.Duration, at time.Time, near bool) {
		at = time.Now()
		used = processTime(t, pid)
		collect()
		return used, at, time.Since(at) <= 20*time.Millisecond
	}
	before, began, near := look()
	for range 20 {
		<-time.After(3 * time.Second)
		used, now, alsoNear := look()
		cpu = float64(used-before) / float64(now.Sub(began)) * 1000
		if near && alsoNear {
			break
		}
		before, began, near = used, now, alsoNear
	}
	return cpu
}

// processTime is what the threads of a process have used, by the kernel's scheduler.
func processTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(files) == 0 {
		t.Fatalf("threads of process %d: %v", pid, err)
	}
	var sum time.Duration
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // the thread has ended
		}
		ns, err := strconv.ParseInt(strings.Fields(string(b))[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += time.Duration(ns)
	}
	return sum
}
