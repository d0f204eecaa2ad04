// Package dockerd starts Docker engines of a test's own, each in a network
// namespace of its own: they can be stopped and killed without harm to others.
package dockerd

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead/fairlead/agent/docker"

	"github.com/fairlead/fairlead/integration/need"
)

// Engine is one engine.
type Engine struct {
	t    testing.TB
	dir  string
	ns   string
	args []string
	cmd  *exec.Cmd
	done chan struct{}
}

// New starts an engine with more arguments for dockerd, and removes it and all
// it leaves behind when the test ends.
func New(tb testing.TB, args ...string) *Engine {
	tb.Helper()
	if os.Getuid() != 0 {
		need.Skip(tb, "needs root")
	}
	for _, bin := range []string{"dockerd", "nsenter", "ip"} {
		if _, err := exec.LookPath(bin); err != nil {
			need.Skip(tb, "needs %s", bin)
		}
	}
	d := &Engine{t: tb, args: args, ns: fmt.Sprintf("fl-docker-%06x", rand.N(1<<24))}
	dir, err := os.MkdirTemp("", "fairlead-dockerd-") //nolint:usetesting // a socket's path has few characters
	if err != nil {
		tb.Fatal(err)
	}
	d.dir = dir
	tb.Cleanup(d.remove)
	d.ip("netns", "add", d.ns)
	tb.Cleanup(func() { _ = exec.Command("ip", "netns", "del", d.ns).Run() })
	d.ip("-n", d.ns, "link", "set", "lo", "up")
	tb.Cleanup(func() {
		if d.cmd != nil {
			d.End(syscall.SIGTERM)
		}
	})
	d.Start()
	return d
}

// remove deletes what an engine leaves behind, above all one that was killed:
// processes that hold its containers, and mounts.
func (d *Engine) remove() {
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range procs {
		b, err := os.ReadFile(f)
		if err != nil || !strings.Contains(string(b), d.dir+"/") {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil && pid != os.Getpid() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	b, _ := os.ReadFile("/proc/self/mounts")
	mounts := strings.Split(string(b), "\n")
	for _, m := range slices.Backward(mounts) {
		if f := strings.Fields(m); len(f) > 1 && strings.HasPrefix(f[1], d.dir+"/") {
			_ = syscall.Unmount(f[1], syscall.MNT_DETACH)
		}
	}
	if err := os.RemoveAll(d.dir); err != nil {
		d.t.Error(err)
	}
}

func (d *Engine) ip(args ...string) {
	d.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		d.t.Fatalf("ip %v: %v: %s", args, err, out)
	}
}

// Host is the engine's address.
func (d *Engine) Host() string { return "unix://" + filepath.Join(d.dir, "d.sock") }

// Namespace is the path of the engine's network namespace.
func (d *Engine) Namespace() string { return "/run/netns/" + d.ns }

// Start starts the engine again and waits until it answers.
func (d *Engine) Start() {
	d.t.Helper()
	log, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer log.Close()
	_ = os.Remove(filepath.Join(d.dir, "pid"))
	// containerd dies with a killed dockerd; where nobody reaps it, it looks alive.
	_ = os.Remove(filepath.Join(d.dir, "exec", "containerd", "containerd.pid"))
	d.cmd = exec.Command("nsenter", "--net="+d.Namespace(), "dockerd", "-H", d.Host(), "--data-root", filepath.Join(d.dir, "data"),
		"--exec-root", filepath.Join(d.dir, "exec"), "--pidfile", filepath.Join(d.dir, "pid"), "--bip", "10.210.77.1/24", "--shutdown-timeout", "3")
	d.cmd.Args = append(d.cmd.Args, d.args...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.done = make(chan struct{})
	go func(c *exec.Cmd, done chan struct{}) { _ = c.Wait(); close(done) }(d.cmd, d.done)
	e, err := docker.New(d.Host())
	if err != nil {
		d.t.Fatal(err)
	}
	defer e.Close()
	deadline := time.After(60 * time.Second)
	for {
		if _, err := e.Info(d.t.Context()); err == nil {
			return
		}
		select {
		case <-d.done:
			b, _ := os.ReadFile(filepath.Join(d.dir, "log"))
			d.t.Fatalf("dockerd ended:\n%s", b)
		case <-deadline:
			b, _ := os.ReadFile(filepath.Join(d.dir, "log"))
			d.t.Fatalf("dockerd did not come up:\n%s", b)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// End ends the engine by a signal: nsenter became dockerd, so it is that process.
func (d *Engine) End(sig syscall.Signal) {
	d.t.Helper()
	_ = d.cmd.Process.Signal(sig)
	select {
	case <-d.done:
	case <-time.After(60 * time.Second):
		d.t.Error("dockerd did not end")
		_ = d.cmd.Process.Kill()
	}
	d.cmd = nil
}
