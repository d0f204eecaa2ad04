package lab

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/fairlead/fairlead/integration/need"
	"github.com/fairlead/fairlead/lab"
	"github.com/fairlead/fairlead/pki"
	"github.com/fairlead/fairlead/store"
)

// onEngines runs a test on a lab of each engine. flags are of `lab up`.
func onEngines(t *testing.T, flags []string, run func(b *bed)) {
	t.Helper()
	for _, engine := range []string{lab.EngineDistro, lab.EngineCurrent} {
		t.Run(engine, func(t *testing.T) {
			b := newBed(t)
			out, err := b.try(append([]string{"up", "--engine", engine}, flags...)...)
			if err != nil && strings.Contains(out, "make engine") {
				need.Skip(t, "needs a current engine: make engine")
			}
			if err != nil {
				t.Fatalf("up: %v\n%s", err, out)
			}
			run(b)
		})
	}
}

// part runs a part of a test on its lab. The next ones need the lab as it leaves it:
// where it fails, they say nothing.
func (b *bed) part(name string, f func(b *bed)) {
	b.t.Helper()
	ok := b.t.Run(name, func(t *testing.T) {
		one := *b
		one.t = t
		f(&one)
	})
	if !ok {
		b.t.Fatalf("%s failed", name)
	}
}

// What goes on between nodes: who may take tasks, who reaches whom, what the tunnels
// carry, where volumes are, and how machines join. One lab, one part after the other.
func TestAcrossNodes(t *testing.T) {
	onEngines(t, []string{"--nodes", "3"}, func(b *bed) {
		b.aliveSoon("n1 n2 n3")
		short := b.invited("--ttl", "1m") // has ended when machines join
		b.part("built", built)
		b.deploy(3) // every node has the image
		b.part("bound", bound)
		b.part("pause", paused)
		b.part("labels", labels)
		b.part("networks", networks)
		b.part("behind NAT", behindNAT)
		b.part("killed", killed)
		b.part("busy", busy)
		b.part("volume", volume)
		b.part("join", func(b *bed) { joins(b, short) })
		b.part("vault", vaulted)
	})
}

// What was built on one node, and runs there alone, is on a second one: a third gets it
// from there while the builder's engine is away.
func built(b *bed) {
	b.deployAt("n1", 1)
	images := func(node string) []string {
		return strings.Fields(b.do("exec", node, "--", "docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "fairlead/demo-web"))
	}
	refs := images("n2")
	if len(refs) != 1 || len(images("n3")) != 0 {
		b.t.Fatalf("built on n1, n2 has %v and n3 %v", refs, images("n3"))
	}
	b.do("kill", "n1/docker")
	b.run("name: later\nservices:\n  web:\n    image: " + refs[0] + "\n    pull_policy: never\n" + at("n3") + "    x-fairlead: {health: {port: 8080, http: /health}}\n")
	b.readySoon("later", 1)
	b.cluster("rm", "later", "-y")
	b.do("start", "n1/docker")
	b.do("status", "--wait", "1m")
}

// A path that is not on a node is not made there: another may have it.
func bound(b *bed) {
	dir := filepath.Join(b.t.TempDir(), "absent")
	out, err := b.tryCluster("deploy", "-f", b.file("compose.yaml",
		"name: bound\nservices:\n  web:\n"+image+"    volumes: [\""+dir+":/data\"]\n"+at("n2")))
	if err == nil || !strings.Contains(out, "bind mount "+dir+": it is not on node n2") {
		b.t.Errorf("a path that is not there: %v: %s", err, out)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		b.t.Errorf("%s was made: %v", dir, err)
	}
	b.cluster("rm", "bound", "-y")
}

// taskRow is a task as ps shows it.
type taskRow struct {
	ID, Address, Node, State, Reason, Container string
	Ready                                       bool
	Restarts                                    int
	Started                                     time.Time
	Addresses                                   map[string]string
}

// ps are the tasks of an app, those that have ended not among them, by address.
func (b *bed) ps(app string) []taskRow {
	b.t.Helper()
	list := decode[[]taskRow](b, b.fairlead(b.t.Context(), "ps", app, "-o", "json"))
	slices.SortFunc(list, func(x, y taskRow) int { return strings.Compare(x.Address+x.ID, y.Address+y.ID) })
	return list
}

// readySoon waits until so many tasks of an app are ready, and none else is there.
func (b *bed) readySoon(app string, want int) (out []taskRow) {
	b.t.Helper()
	b.eventually(time.Minute, fmt.Sprintf("%d tasks of %s are ready", want, app), func() error {
		out = b.ps(app)
		if len(out) != want || slices.ContainsFunc(out, func(t taskRow) bool { return !t.Ready }) {
			return fmt.Errorf("%+v", out)
		}
		return nil
	})
	return out
}

// on are those of the tasks that are on a node.
func on(tasks []taskRow, node string) []taskRow {
	return slices.DeleteFunc(slices.Clone(tasks), func(t taskRow) bool { return t.Node != node })
}

// gone are those of before whose very containers do not run after: of the same tasks, and
// started when they were.
func gone(before, after []taskRow) []taskRow {
	key := func(t taskRow) string { return t.ID + " " + t.Container + " " + t.Started.String() }
	have := map[string]bool{}
	for _, t := range after {
		have[key(t)] = true
	}
	return slices.DeleteFunc(slices.Clone(before), func(t taskRow) bool { return have[key(t)] })
}

// same fails the test unless the very containers of before run.
func (b *bed) same(when string, before, after []taskRow) {
	b.t.Helper()
	for _, t := range gone(before, after) {
		b.t.Errorf("%s: %s on %s was started anew or replaced; there are %+v", when, t.ID, t.Node, after)
	}
	if len(after) != len(before) {
		b.t.Errorf("%s: %d tasks, %d before", when, len(after), len(before))
	}
}

// run deploys an app from the text of its Compose file.
func (b *bed) run(text string) {
	b.t.Helper()
	b.cluster("deploy", "-f", b.file("compose.yaml", text))
}

func (b *bed) file(name, text string) string {
	b.t.Helper()
	path := filepath.Join(b.t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	return path
}

func (b *bed) read(path string) string {
	b.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		b.t.Fatal(err)
	}
	return string(text)
}

// image is what apps after the first one run.
const image = `    image: demo-web
    healthcheck: {test: [CMD, /app, check], interval: 1s, timeout: 10s, retries: 3, start_period: 20s}
`

// at has a service run on one node.
func at(node string) string {
	return fmt.Sprintf("    deploy: {placement: {constraints: [node.hostname == %s]}}\n", node)
}

// route is the route of an app's service for a host.
func route(host string) string {
	return fmt.Sprintf("    x-fairlead: {routes: [{host: %s.example.com, port: 8080}]}\n", host)
}

// ask asks a service at its route, through the first gateway.
func (b *bed) ask(host, path string, query ...string) (string, error) {
	b.t.Helper()
	v := url.Values{}
	for i := 0; i+1 < len(query); i += 2 {
		v.Set(query[i], query[i+1])
	}
	return b.fetch(fmt.Sprintf("http://%s%s?%s", b.gates()[0].addr, path, v.Encode()), host+".example.com")
}

// containers are an engine's containers of an app, by ID; all: also those that ended.
func (b *bed) containers(node, app string, all bool) []string {
	b.t.Helper()
	args := []string{"exec", node, "--", "docker", "ps", "-q", "--no-trunc", "--filter", "label=io.fairlead.app=" + app}
	if all {
		args = append(args, "-a")
	}
	ids := strings.Fields(b.do(args...))
	slices.Sort(ids)
	return ids
}

// machine is the first process of a node, as this machine knows it.
func (b *bed) machine(node string) int {
	b.t.Helper()
	pid := find("\x00lab\x00machine\x00" + filepath.Join(b.root, b.name) + "\x00" + node + "\x00")
	if pid == 0 {
		b.t.Fatalf("%s has no power", node)
	}
	return pid
}

// find finds the process whose command line has a part; 0 is none.
func find(part string) (pid int) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		if line, _ := os.ReadFile(filepath.Join(d, "cmdline")); bytes.Contains(line, []byte(part)) {
			_, _ = fmt.Sscan(filepath.Base(d), &pid)
		}
	}
	return pid
}

// inNetOf runs f with a node's network: sockets that it opens are there.
func (b *bed) inNetOf(node string, f func() error) error {
	b.t.Helper()
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", b.machine(node)))
	if err != nil {
		b.t.Fatal(err)
	}
	defer ns.Close()
	// A thread that ended would take with it what it has started that is to end with the test.
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		b.t.Fatal(err)
	}
	defer home.Close()
	err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
	if err == nil {
		err = f()
	}
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, back) // and the thread stays this goroutine's
	}
	runtime.UnlockOSThread()
	return err
}

// A node that is paused keeps what it has and takes nothing new; active again, it
// does. One that was cut off has nothing double when it is back, and takes new work.
func paused(b *bed) {
	before := b.readySoon("demo", 3)
	if len(on(before, "n2")) != 1 {
		b.t.Fatalf("not spread: %+v", before)
	}
	b.cluster("node", "pause", "n2")
	b.cluster("scale", "demo/web=7")
	after := b.readySoon("demo", 7)
	b.same("n2 is paused", on(before, "n2"), on(after, "n2"))
	b.cluster("node", "activate", "n2")
	b.cluster("scale", "demo/web=9")
	if now := on(b.readySoon("demo", 9), "n2"); len(now) != 3 {
		b.t.Errorf("n2 is active again and has, of 9 tasks, %+v", now)
	}

	b.do("cut", "n2")
	b.spread(9, "n2")
	if got := b.containers("n2", "demo", false); len(got) != 3 {
		b.t.Errorf("cut off, n2 runs %v", got)
	}
	elsewhere := b.readySoon("demo", 9)
	b.do("heal", "n2")
	b.aliveSoon("n1 n2 n3")
	b.eventually(30*time.Second, "n2 has nothing double", func() error {
		if got := b.containers("n2", "demo", true); len(got) > 0 {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
	b.same("n2 is back", elsewhere, b.readySoon("demo", 9))
	b.cluster("scale", "demo/web=12")
	if now := on(b.readySoon("demo", 12), "n2"); len(now) != 3 {
		b.t.Errorf("n2 is back and has, of 3 new tasks, %+v", now)
	}
	b.cluster("scale", "demo/web=3")
	b.readySoon("demo", 3)
}

// Labels choose nodes, and go on choosing: tasks move when a label or a constraint does,
// and the service is served all the while.
func labels(b *bed) {
	pinned := func(constraint string) string {
		return "name: pinned\nservices:\n  web:\n" + image + route("pinned") +
			"    deploy: {replicas: 2, placement: {constraints: [\"" + constraint + "\"]}}\n"
	}
	b.cluster("node", "label", "n1", "zone=a")
	b.run(pinned("node.labels.zone == a"))
	moved := func(to string, change func()) {
		b.t.Helper()
		done, failed := make(chan struct{}), make(chan error, 1)
		go func() {
			defer close(failed)
			for {
				select {
				case <-done:
					return
				default:
				}
				if _, err := b.ask("pinned", "/"); err != nil {
					failed <- err
					return
				}
			}
		}()
		change()
		b.eventually(time.Minute, "both tasks of pinned are on "+to, func() error {
			if now := b.ps("pinned"); len(now) != 2 || len(on(now, to)) != 2 || !now[0].Ready || !now[1].Ready {
				return fmt.Errorf("%+v", now)
			}
			return nil
		})
		close(done)
		if err := <-failed; err != nil {
			b.t.Errorf("while the tasks moved to %s: %v", to, err)
		}
	}
	b.eventually(20*time.Second, "pinned is served", func() error {
		_, err := b.ask("pinned", "/")
		return err
	})
	moved("n1", func() {})
	moved("n2", func() {
		b.cluster("node", "label", "n2", "zone=a")
		b.cluster("node", "label", "n1", "zone-")
	})
	b.cluster("node", "label", "n3", "zone=b")
	moved("n3", func() { b.run(pinned("node.labels.zone == b")) })
	b.cluster("rm", "pinned", "-y")
	for _, n := range []string{"n2", "n3"} {
		b.cluster("node", "label", n, "zone-")
	}
}

// agentKilled kills n2's agent for a moment, which finds its containers as they were, and
// returns them and the others'. On a slow machine it is away for as long as makes a node lost,
// whose tasks move, rightly: then all of it is done again.
func agentKilled(b *bed) []taskRow {
	b.t.Helper()
	const soon = 7 * time.Second // no node is lost before what is left of its lease (5 s), and 4 s, are over
	for round := 1; ; round++ {
		b.cluster("scale", "demo/web=6")
		before := b.readySoon("demo", 6)
		there := on(before, "n2")
		if len(there) == 0 {
			b.t.Fatalf("n2 has no task: %+v", before)
		}
		ids := b.containers("n2", "demo", false)
		from := time.Now()
		b.do("kill", "n2/fairlead")
		if got := b.containers("n2", "demo", false); !slices.Equal(got, ids) {
			b.t.Errorf("without its agent n2 runs %v, before %v", got, ids)
		}
		b.do("start", "n2/fairlead")
		b.takeCommands(there)
		away, after := time.Since(from), b.readySoon("demo", 6)
		if away > soon && round < 3 && len(gone(before, after)) > 0 {
			b.t.Logf("n2's agent was away for %s, and its tasks have moved", away)
			b.cluster("scale", "demo/web=3") // so that n2 gets some of six again
			left := on(b.readySoon("demo", 3), "n2")
			b.eventually(30*time.Second, "n2 has nothing double", func() error {
				if got := b.containers("n2", "demo", true); len(got) != len(left) {
					return fmt.Errorf("%v", got)
				}
				return nil
			})
			continue
		}
		b.same("n2's agent was killed", before, after)
		if got := b.containers("n2", "demo", true); !slices.Equal(got, ids) {
			b.t.Errorf("after its agent was killed n2 has %v, before %v", got, ids)
		}
		return before
	}
}

// An agent that is killed finds its containers as they were; what an engine that is
// killed stops runs again at once, and counts as no failure of the task.
func killed(b *bed) {
	before := agentKilled(b)
	from := time.Now()
	b.do("kill", "n2/docker")
	b.do("start", "n2/docker")
	b.eventually(time.Minute, "what n2's engine stopped runs again", func() error {
		now := b.ps("demo")
		for _, was := range before {
			i := slices.IndexFunc(now, func(t taskRow) bool { return t.ID == was.ID })
			if i < 0 {
				b.t.Fatalf("%s on %s was replaced: %+v", was.ID, was.Node, now)
			}
			anew := now[i].Started.After(from)
			if !now[i].Ready || now[i].Restarts != was.Restarts || anew != (was.Node == "n2") {
				return fmt.Errorf("%+v, before %+v", now[i], was)
			}
		}
		return nil
	})
	b.t.Logf("n2's engine was killed: all runs again after %s", time.Since(from).Round(time.Millisecond))
	b.do("status", "--wait", "1m")
	b.cluster("scale", "demo/web=3")
	b.readySoon("demo", 3)
}

// takeCommands waits until commands reach each of the tasks: their agent is there.
func (b *bed) takeCommands(tasks []taskRow) {
	b.t.Helper()
	for _, t := range tasks {
		b.eventually(time.Minute, t.Address+" takes commands", func() error {
			out, err := output(b.fairlead(b.t.Context(), "exec", t.Address, "--", "/app", "once"))
			if err == nil && !strings.Contains(out, "done") {
				err = errors.New("it says nothing")
			}
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
	}
}

// heartbeats are those of the nodes, and since which revision of the store each has
// not ended.
func (b *bed) heartbeats() map[string]int64 {
	b.t.Helper()
	c := b.rootStore()
	defer c.Close()
	got, err := c.Get(b.t.Context(), store.AliveKey(""), clientv3.WithPrefix())
	if err != nil {
		b.t.Fatal(err)
	}
	out := map[string]int64{}
	for _, kv := range got.Kvs {
		out[string(kv.Key)] = kv.CreateRevision
	}
	if len(out) != 3 {
		b.t.Fatalf("heartbeats %v", out)
	}
	return out
}

// rootStore is a client of n1's store that may do everything.
func (b *bed) rootStore() *clientv3.Client {
	b.t.Helper()
	at := b.disk("n1", "fairlead", "pki")
	conf, err := pki.ClientTLS(filepath.Join(at, "ca.crt"), filepath.Join(at, "root.pem"), filepath.Join(at, "root.pem"))
	if err != nil {
		b.t.Fatal(err)
	}
	return b.store("n1", "n1", conf)
}

// store is a client of one server's store, from one node's network.
func (b *bed) store(from, server string, conf *tls.Config) *clientv3.Client {
	b.t.Helper()
	c, err := clientv3.New(clientv3.Config{
		Endpoints: []string{"https://" + b.address(server) + ":7421"}, TLS: conf, DialTimeout: 5 * time.Second, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(_ context.Context, addr string) (net.Conn, error) { return b.dial(from, addr) })},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

// dial connects from a node's network.
func (b *bed) dial(from, addr string) (c net.Conn, err error) {
	err = b.inNetOf(from, func() error {
		c, err = net.DialTimeout("tcp", addr, 5*time.Second)
		return err
	})
	return c, err
}

// address is a node's, in the lab.
func (b *bed) address(node string) string {
	b.t.Helper()
	for _, n := range b.status().Nodes {
		if n.Name == node {
			return n.Address.String()
		}
	}
	b.t.Fatalf("no node %s", node)
	return ""
}

// disk is what a node keeps while its power is off.
func (b *bed) disk(node string, elem ...string) string {
	return filepath.Join(append([]string{b.root, b.name, "nodes", node}, elem...)...)
}

// busyFor is longer than several leases (5 s) and what is waited for after them.
const busyFor = 30 * time.Second

// All cores of the machine are busy with something else, twice: no node is taken for
// lost, and nothing is started anew.
func busy(b *bed) {
	before := b.readySoon("demo", 3)
	since := b.heartbeats()
	var burners []*exec.Cmd
	for range 2 * runtime.NumCPU() {
		c := exec.CommandContext(b.t.Context(), "timeout", fmt.Sprint(busyFor.Seconds()), "sh", "-c", "while :; do :; done")
		if err := c.Start(); err != nil {
			b.t.Fatal(err)
		}
		burners = append(burners, c)
	}
	for end := time.Now().Add(busyFor); time.Now().Before(end); {
		if got := b.alive(); got != "n1 n2 n3" {
			b.t.Errorf("with a busy machine alive are %s", got)
			break
		}
		for _, t := range b.ps("demo") {
			if !t.Ready {
				b.t.Errorf("with a busy machine: %+v", t)
			}
		}
		time.Sleep(500 * time.Millisecond)
	}
	for _, c := range burners {
		_ = c.Wait() // timeout ends it
	}
	b.same("the machine was busy", before, b.readySoon("demo", 3))
	if now := b.heartbeats(); !maps.Equal(now, since) {
		b.t.Errorf("heartbeats were %v and are %v: a lease has ended", since, now)
	}
}
