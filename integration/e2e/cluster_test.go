package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead/fairlead/integration/etcdd"
	"github.com/fairlead/fairlead/integration/load"
	"github.com/fairlead/fairlead/integration/need"
)

var fairlead, app string // the built programs; app is what is deployed

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "fairlead-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	fairlead, app = filepath.Join(dir, "fairlead"), filepath.Join(dir, "app")
	for path, pkg := range map[string]string{fairlead: "../../cmd/fairlead", app: "./app"} {
		if err := need.Program(path, pkg); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return m.Run()
}

// node is one running server with everything in it.
type node struct {
	t                     *testing.T
	dir, data, run        string
	http, https, internal int
	program               string
	args                  []string
	engine                string // address of its Docker engine; "" is the machine's
	ns                    string // network namespace that it runs in; "" is the test's
	addr                  string // where its gateway answers
	outside               string // the test's own address, as the node reaches it
	stdin                 io.Reader
	made                  []string // images, removed with it
	mu                    sync.Mutex
	cmd                   *exec.Cmd
	log                   *os.File
}

// start starts a cluster of one and removes all of it when the test ends. Its etcd is
// the embedded one, or of the version that FAIRLEAD_TEST_ETCD names.
func start(t *testing.T, extra ...string) *node {
	t.Helper()
	needDocker(t)
	n := newNode(t)
	n.args = append(n.args, extra...)
	if !slices.Contains(extra, "--etcd-endpoints") {
		n.operated("127.0.0.1")
	}
	t.Cleanup(n.remove)
	n.up()
	return n
}

// operated gives the server an etcd of the version that FAIRLEAD_TEST_ETCD names, on
// an address of this machine's, if it names one.
func (n *node) operated(addr string) {
	n.t.Helper()
	if v := os.Getenv("FAIRLEAD_TEST_ETCD"); v != "" {
		n.args = append(n.args, etcdd.StartAt(n.t, v, addr).Flags()...)
	}
}

// needDocker is for tests that use the machine's engine.
func needDocker(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("docker", "version", "--format", "{{.Server.Version}}").CombinedOutput(); err != nil {
		need.Skip(t, "needs Docker: %v: %s", err, out)
	}
}

// newNode is a cluster of one that is not started yet.
func newNode(t *testing.T) *node {
	t.Helper()
	if os.Geteuid() != 0 {
		need.Skip(t, "needs root")
	}
	dir, err := os.MkdirTemp("", "fl-") //nolint:usetesting // a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, program: fairlead, dir: dir, data: filepath.Join(dir, "data"), run: filepath.Join(dir, "run"), addr: "127.0.0.1"}
	n.http, n.https, n.internal = need.Port(t), need.Port(t), need.Port(t)
	n.args = []string{
		"server", "--data-dir", n.data, "--run-dir", n.run, "--node", "n1", "--listen", "none", "--domain", "localhost",
		"--http-port", fmt.Sprint(n.http), "--https-port", fmt.Sprint(n.https), "--internal-port", fmt.Sprint(n.internal),
		"--etcd-client-port", fmt.Sprint(need.Port(t)), "--etcd-peer-port", fmt.Sprint(need.Port(t)),
		"--pool", "10.233.0.0/16", "--service-range", "10.232.0.0/16", "--log-level", "debug",
	}
	return n
}

// up starts the server and waits until it answers.
func (n *node) up() {
	n.t.Helper()
	log, err := os.OpenFile(filepath.Join(n.dir, "server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		n.t.Fatal(err)
	}
	n.mu.Lock()
	n.log = log
	n.cmd = n.inside(context.Background(), n.program, n.args...)
	n.cmd.Stdout, n.cmd.Stderr = log, log
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = n.cmd.Start()
	n.mu.Unlock()
	if err != nil {
		n.t.Fatal(err)
	}
	n.eventually(time.Minute, "the server answers", func() error {
		if stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n.cmd.Process.Pid)); bytes.Contains(stat, []byte(") Z ")) {
			n.t.Fatal("the server has ended") // its log says why
		}
		out, err := n.try("system", "status", "--run-dir", n.run)
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// stop ends the server with a signal and waits for its end.
func (n *node) stop(sig syscall.Signal) {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Signal(sig)
	done := make(chan struct{})
	go func() { _ = n.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(40 * time.Second):
		n.t.Errorf("the server does not stop after %v", sig)
		_ = n.cmd.Process.Kill()
		<-done
	}
	n.cmd = nil
	n.log.Close()
}

func (n *node) remove() {
	if n.t.Failed() {
		n.dump()
	}
	n.stop(syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(context.Background(), need.Patience*2*time.Minute)
	defer cancel()
	out, err := n.inside(ctx, fairlead, "system", "uninstall", "--purge", "--yes", "--data-dir", n.data, "--run-dir", n.run, "--docker", n.engine).CombinedOutput()
	switch {
	case err == nil:
	case strings.Contains(string(out), "Docker counts a container on it, and none is there"):
		// The engine's own miscount (seen with 20.10): nothing of ours is left but an empty network.
		n.t.Logf("remove the cluster: %s", out)
		_ = syscall.Unmount(n.run, syscall.MNT_DETACH)
	default:
		n.t.Errorf("remove the cluster: %v: %s", err, out)
	}
	for _, ref := range n.made { // no container has it any more
		_ = n.docker("rmi", ref).Run()
	}
	os.RemoveAll(n.dir)
}

// dump shows the state that a failed test left.
func (n *node) dump() {
	for _, args := range [][]string{{"ps", "-o", "wide"}, {"explain"}} {
		out, err := n.try(args...)
		n.t.Logf("fairlead %s (%v):\n%s", strings.Join(args, " "), err, out)
	}
	b, _ := os.ReadFile(filepath.Join(n.dir, "server.log"))
	var lines []string
	for line := range strings.Lines(string(b)) {
		if !strings.Contains(line, "[DEBUG] fairlead.etcd") {
			lines = append(lines, line)
		}
	}
	n.t.Logf("server log:\n%s", strings.Join(lines[max(0, len(lines)-100):], ""))
}

// inside is a command that runs in the node's network.
func (n *node) inside(ctx context.Context, program string, args ...string) *exec.Cmd {
	if n.ns == "" {
		return exec.CommandContext(ctx, program, args...)
	}
	return exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + n.ns, program}, args...)...)
}

// docker is a command to the node's engine.
func (n *node) docker(args ...string) *exec.Cmd {
	cmd := exec.Command("docker", args...)
	if cmd.Env = os.Environ(); n.engine != "" {
		cmd.Env = append(cmd.Env, "DOCKER_HOST="+n.engine)
	}
	return cmd
}

// command is the command line, talking to this cluster.
func (n *node) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, fairlead, args...)
	cmd.Env = append(os.Environ(), "FAIRLEAD_SOCKET="+filepath.Join(n.run, "fairlead.sock"), "HOME="+n.dir)
	if n.engine != "" {
		cmd.Env = append(cmd.Env, "DOCKER_HOST="+n.engine)
	}
	return cmd
}

func (n *node) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), need.Patience*3*time.Minute)
	defer cancel()
	var out bytes.Buffer
	cmd := n.command(ctx, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// do runs a command that must succeed, and returns what it printed.
func (n *node) do(args ...string) string {
	n.t.Helper()
	out, err := n.try(args...)
	if err != nil {
		n.t.Fatalf("fairlead %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// get decodes what a command prints with -o json.
func get[T any](n *node, args ...string) T {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), need.Patience*time.Minute)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := n.command(ctx, append(args, "-o", "json")...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		n.t.Fatalf("fairlead %s: %v\n%s", strings.Join(args, " "), err, errs.String())
	}
	var v T
	if err := json.Unmarshal(out.Bytes(), &v); err != nil {
		n.t.Fatalf("fairlead %s: %v\n%s", strings.Join(args, " "), err, out.String())
	}
	return v
}

// eventually polls f until it returns nil.
func (n *node) eventually(limit time.Duration, what string, f func() error) {
	n.t.Helper()
	limit *= need.Patience
	begun := time.Now()
	for {
		from := time.Now()
		err := f()
		if err == nil {
			n.t.Logf("%s, after %s", what, time.Since(begun).Round(100*time.Millisecond))
			return
		}
		if time.Since(begun) > limit {
			n.t.Fatalf("%s: not within %s: %v", what, limit, err)
		}
		time.Sleep(need.Pause(time.Since(from)))
	}
}

// client speaks to the gateway's public port, whatever host a URL names.
func (n *node) client(keepAlive bool) *http.Client {
	return &http.Client{
		Timeout: 15 * time.Second,
		Transport: &http.Transport{
			DisableKeepAlives: !keepAlive, MaxIdleConnsPerHost: 16,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "tcp", fmt.Sprintf("%s:%d", n.addr, n.http))
			},
		},
	}
}

// startLoad makes requests to this node's gateway until the load is ended.
func (n *node) startLoad(kinds []load.Request) *load.Load {
	n.t.Helper()
	return load.Start(n.t, n.client, kinds)
}

// write puts a file into the test's directory and returns its path.
func (n *node) write(name, content string) string {
	n.t.Helper()
	path := filepath.Join(n.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
		n.t.Fatal(err)
	}
	return path
}
