package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/integration/need"
	"github.com/fairlead/fairlead/lab"
)

var fairlead, app string // the built programs; app is what is deployed

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "fairlead-lab-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	fairlead, app = filepath.Join(dir, "fairlead"), filepath.Join(dir, "app")
	for path, pkg := range map[string]string{fairlead: "../../cmd/fairlead", app: "../e2e/app"} {
		if err := need.Program(path, pkg); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return m.Run()
}

// bed is a lab of a test's own, and how it is asked.
type bed struct {
	t    *testing.T
	root string // of labs
	name string
	ns   string // network namespace in which commands run; "" is the test's
	env  []string
}

// newBed is a lab that is not made yet. Whatever becomes of it, nothing of it is left
// when the test ends.
func newBed(t *testing.T) *bed {
	t.Helper()
	if os.Geteuid() != 0 {
		need.Skip(t, "needs root")
	}
	for _, bin := range []string{"dockerd", "containerd", "nsenter", "nft"} {
		if _, err := exec.LookPath(bin); err != nil {
			need.Skip(t, "needs %s", bin)
		}
	}
	root, err := os.MkdirTemp("/var/tmp", "fl-lab-") //nolint:usetesting // on a disk, and a socket's path has few characters
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{t: t, root: root, name: fmt.Sprintf("t%06x", rand.N(1<<24))}
	t.Cleanup(b.remove)
	return b
}

func (b *bed) remove() {
	if b.t.Failed() {
		b.dump()
	}
	if out, err := b.try("down"); err != nil {
		b.t.Errorf("take the lab down: %v: %s", err, out)
	}
	b.nothingLeft()
	if err := os.RemoveAll(b.root); err != nil {
		b.t.Error(err)
	}
}

// nothingLeft looks for what a lab could leave on this machine.
func (b *bed) nothingLeft() {
	b.t.Helper()
	dir := string(lab.DirOf(b.root, b.name))
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		b.t.Errorf("%s is left: %v", dir, err)
	}
	for _, p := range b.processes() {
		b.t.Errorf("process %s is left", p)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || bytes.Contains(mounts, []byte(dir)) {
		b.t.Errorf("mounts are left: %v\n%s", err, mounts)
	}
	for _, pattern := range []string{"/sys/fs/cgroup/fairlead-lab/", "/sys/fs/cgroup/*/fairlead-lab/"} {
		if left, _ := filepath.Glob(pattern + b.name + "-*"); len(left) > 0 {
			b.t.Errorf("control groups are left: %v", left)
		}
	}
}

// processes are those of the lab, each with its arguments: they have its directory in an
// argument, in PATH, in their own files or in a mount, or are in its control groups. What
// the test itself has started is none, nor what that has started: a command on a node has such
// arguments too, and nsenter is its parent. What is left of a lab has init above it.
func (b *bed) processes() (out []string) {
	dir := string(lab.DirOf(b.root, b.name))
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	own := descendants(dirs)
	for _, p := range dirs {
		has := func(file, what string) bool {
			text, _ := os.ReadFile(filepath.Join(p, file)) // nothing of one that has ended
			return bytes.Contains(text, []byte(what))
		}
		line, _ := os.ReadFile(filepath.Join(p, "cmdline"))
		if len(line) == 0 || own[filepath.Base(p)] {
			continue // it has ended, is the kernel's own, or the test's
		}
		is := bytes.Contains(line, []byte(dir+"/")) || has("environ", "PATH="+dir+"/") || has("mountinfo", dir+"/") || has("cgroup", "/fairlead-lab/"+b.name+"-")
		for _, link := range []string{"cwd", "root", "exe"} {
			to, _ := os.Readlink(filepath.Join(p, link))
			is = is || strings.HasPrefix(to, dir+"/")
		}
		if is {
			out = append(out, fmt.Sprintf("%s %q", filepath.Base(p), bytes.Split(bytes.TrimSuffix(line, []byte{0}), []byte{0})))
		}
	}
	return out
}

// descendants are those of the test itself among processes, given as directories of /proc.
func descendants(dirs []string) map[string]bool {
	children := map[string][]string{}
	for _, p := range dirs {
		text, _ := os.ReadFile(filepath.Join(p, "status")) // nothing of one that has ended
		_, after, _ := strings.Cut(string(text), "\nPPid:\t")
		parent, _, _ := strings.Cut(after, "\n")
		children[parent] = append(children[parent], filepath.Base(p))
	}
	out := map[string]bool{}
	for next := children[strconv.Itoa(os.Getpid())]; len(next) > 0; next = next[1:] {
		if !out[next[0]] {
			out[next[0]] = true
			next = append(next, children[next[0]]...)
		}
	}
	return out
}

func (b *bed) dump() {
	out, err := b.try("status", "-o", "json")
	b.t.Logf("status (%v):\n%s", err, out)
	logs, _ := filepath.Glob(filepath.Join(b.root, b.name, "nodes", "*", "*.log"))
	for _, f := range append(logs, filepath.Join(b.root, b.name, "rack.log")) {
		text, _ := os.ReadFile(f)
		if len(text) > 4<<10 {
			text = text[len(text)-4<<10:]
		}
		b.t.Logf("%s:\n%s", f, text)
	}
}

// command is a command of the lab.
func (b *bed) command(ctx context.Context, args ...string) *exec.Cmd {
	full := append([]string{"lab", args[0], "--dir", b.root, "--name", b.name}, args[1:]...)
	return b.fairlead(ctx, full...)
}

// fairlead is any command, on this machine, with the lab's server as its own.
func (b *bed) fairlead(ctx context.Context, args ...string) *exec.Cmd {
	full := append([]string{fairlead}, args...)
	if b.ns != "" {
		full = append([]string{"nsenter", "--net=" + b.ns}, full...)
	}
	cmd := exec.CommandContext(ctx, full[0], full[1:]...)
	cmd.Env = append(os.Environ(), "FAIRLEAD_SOCKET="+lab.DirOf(b.root, b.name).APISocket("n1"))
	cmd.Env = append(cmd.Env, b.env...)
	return cmd
}

func output(cmd *exec.Cmd) (string, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

func (b *bed) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), need.Patience*3*time.Minute)
	defer cancel()
	return output(b.command(ctx, args...))
}

// do runs a command of the lab that must succeed.
func (b *bed) do(args ...string) string {
	b.t.Helper()
	out, err := b.try(args...)
	if err != nil {
		b.t.Fatalf("lab %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// cluster runs a command of the cluster that must succeed.
func (b *bed) cluster(args ...string) string {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), need.Patience*3*time.Minute)
	defer cancel()
	out, err := output(b.fairlead(ctx, args...))
	if err != nil {
		b.t.Fatalf("fairlead %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func decode[T any](b *bed, cmd *exec.Cmd) (v T) {
	b.t.Helper()
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &v)
	}
	if err != nil {
		b.t.Fatalf("%v: %v\n%s\n%s", cmd.Args, err, out, errs.String())
	}
	return v
}

func (b *bed) status() lab.Status {
	b.t.Helper()
	return decode[lab.Status](b, b.command(b.t.Context(), "status", "-o", "json"))
}

// alive are the nodes that the cluster counts on.
func (b *bed) alive() string {
	b.t.Helper()
	var out []string
	for _, n := range decode[[]struct {
		ID    string
		Alive bool
	}](b, b.fairlead(b.t.Context(), "node", "ls", "-o", "json")) {
		if n.Alive {
			out = append(out, n.ID)
		}
	}
	return strings.Join(out, " ")
}

// eventually polls f until it returns nil.
func (b *bed) eventually(limit time.Duration, what string, f func() error) {
	b.t.Helper()
	limit *= need.Patience
	deadline := time.Now().Add(limit)
	for {
		from := time.Now()
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("%s: not within %s: %v", what, limit, err)
		}
		time.Sleep(need.Pause(time.Since(from)))
	}
}

func (b *bed) aliveSoon(want string) {
	b.t.Helper()
	b.eventually(time.Minute, "alive are "+want, func() error {
		if got := b.alive(); got != want {
			return errors.New(got)
		}
		return nil
	})
}

// answer fetches what the first gateway answers for a host.
func (b *bed) answer(host string) (string, error) {
	for _, u := range b.status().URLs {
		if strings.HasPrefix(u, "http://") {
			return b.fetch(u, host)
		}
	}
	return "", errors.New("the lab has no gateway")
}

func (b *bed) fetch(url, host string) (string, error) {
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	req.Host = host
	resp, err := (&http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.200s", resp.Status, body)
	}
	return string(body), err
}

func (b *bed) asks(url, host string) error {
	_, err := b.fetch(url, host)
	return err
}

type serverRow struct {
	Node     string
	Standing string
	Answers  bool
	Leader   bool
}

func (b *bed) servers() []serverRow {
	b.t.Helper()
	return decode[[]serverRow](b, b.fairlead(b.t.Context(), "server", "ls", "-o", "json"))
}

func (b *bed) leader() string {
	b.t.Helper()
	for _, s := range b.servers() {
		if s.Leader {
			return s.Node
		}
	}
	b.t.Fatal("nobody leads")
	return ""
}

// deploy runs an app of so many tasks, whose image is built on n1.
func (b *bed) deploy(replicas int) {
	b.t.Helper()
	b.deployVersion("1", replicas, "")
}

// deployAt runs it with so many tasks on one node.
func (b *bed) deployAt(node string, replicas int) {
	b.t.Helper()
	b.deployWeb("1", fmt.Sprintf("{replicas: %d, placement: {constraints: [node.hostname == %s]}}", replicas, node), "")
}

// deployVersion deploys a version of it; more are further services.
func (b *bed) deployVersion(version string, replicas int, more string) {
	b.t.Helper()
	b.deployWeb(version, fmt.Sprintf("{replicas: %d, update_config: {monitor: 1s}}", replicas), more)
}

func (b *bed) deployWeb(version, how, more string) {
	b.t.Helper()
	dir := b.t.TempDir()
	if err := os.Link(app, filepath.Join(dir, "app")); err != nil {
		b.t.Fatal(err)
	}
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			b.t.Fatal(err)
		}
		return path
	}
	file("Dockerfile", "FROM scratch\nCOPY app /app\nEXPOSE 8080\nENTRYPOINT [\"/app\"]\n")
	b.cluster("deploy", "-f", file("compose.yaml", fmt.Sprintf(`
name: demo
services:
  web:
    build: .
    image: demo-web
    environment: {VERSION: %q}
    deploy: %s
    x-fairlead: {health: {port: 8080, http: /health, interval: 1s, timeout: 10s, start_period: 20s}, routes: [{host: demo.example.com, port: 8080}]}
%s`, version, how, more)))
}

// row is a task, as ps has it.
type row struct {
	Address, Node, Service, Container string
	Ready                             bool
	Started                           time.Time
}

// rows are the ready tasks of a service of the app, "" of all.
func (b *bed) rows(service string) []row {
	b.t.Helper()
	return b.rowsOf("demo", service)
}

func (b *bed) rowsOf(app, service string) []row {
	b.t.Helper()
	return slices.DeleteFunc(decode[[]row](b, b.fairlead(b.t.Context(), "ps", app, "-o", "json")), func(r row) bool {
		return !r.Ready || service != "" && r.Service != service
	})
}

// tasks counts the app's ready tasks by node.
func (b *bed) tasks() map[string]int {
	b.t.Helper()
	return b.tasksOf("")
}

func (b *bed) tasksOf(service string) map[string]int {
	b.t.Helper()
	out := map[string]int{}
	for _, r := range b.rows(service) {
		out[r.Node]++
	}
	return out
}

// served waits until the gateway answers from so many tasks.
func (b *bed) served(tasks int) {
	b.t.Helper()
	b.eventually(time.Minute, fmt.Sprintf("%d tasks answer", tasks), func() error {
		seen := map[string]bool{}
		for range 8 * tasks {
			body, err := b.answer("demo.example.com")
			if err != nil {
				return err
			}
			seen[body] = true
		}
		if len(seen) != tasks {
			return fmt.Errorf("answers of %d", len(seen))
		}
		return nil
	})
}
