package e2e

import (
	"context"
	"errors"
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

	"github.com/fairlead/fairlead/integration/follow"
	"github.com/fairlead/fairlead/integration/load"
	"github.com/fairlead/fairlead/integration/need"
)

// lan is a switch that servers and nodes are on, each in a network of its own.
type lan struct {
	t       *testing.T
	ns      string
	between string // 10.252.n
	used    int
}

func newLAN(t *testing.T) *lan {
	t.Helper()
	l := &lan{t: t, ns: fmt.Sprintf("fl-lan-%06x", rand.N(1<<24)), between: fmt.Sprintf("10.252.%d", rand.N(256))}
	l.ip("netns add " + l.ns)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", l.ns).Run() })
	l.ip("-n " + l.ns + " link add br0 type bridge")
	l.ip("-n " + l.ns + " link set br0 up")
	return l
}

func (l *lan) ip(args string) {
	l.t.Helper()
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		l.t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

// host connects the test's own network and returns its address there.
func (l *lan) host() string {
	l.t.Helper()
	link, addr := fmt.Sprintf("fl%06x", rand.N(1<<24)), l.between+".250"
	l.ip("link add " + link + " type veth peer name host netns " + l.ns)
	l.t.Cleanup(func() { _ = exec.Command("ip", "link", "del", link).Run() })
	l.ip("-n " + l.ns + " link set host master br0 up")
	l.ip("addr add " + addr + "/24 dev " + link)
	l.ip("link set " + link + " up")
	return addr
}

// plug connects a namespace and returns its address; port is its end at the switch.
func (l *lan) plug(ns string) (addr, port string) {
	l.t.Helper()
	l.used++
	addr, port = fmt.Sprintf("%s.%d", l.between, l.used), fmt.Sprintf("p%d", l.used)
	l.ip("-n " + l.ns + " link add " + port + " type veth peer name lan netns " + ns)
	l.ip("-n " + l.ns + " link set " + port + " master br0 up")
	l.ip("-n " + ns + " addr add " + addr + "/24 dev lan")
	l.ip("-n " + ns + " link set lan up")
	return addr, port
}

// server is one of several.
type server struct {
	*node
	id, listen, port string
	lan              *lan
}

// whole is a server with containers and a gateway, on an engine of its own, not
// started yet.
func (l *lan) whole(id string) *server {
	l.t.Helper()
	n := newApart(l.t)
	addr, port := l.plug(filepath.Base(n.ns))
	s := &server{node: n, id: id, listen: addr + ":17420", port: port, lan: l}
	n.args = append(n.args, "--node", id, "--listen", s.listen, "--advertise", addr)
	return s
}

// newServer is a server without containers and gateway, not started yet.
func (l *lan) newServer(id, engine string) *server {
	l.t.Helper()
	n := newNode(l.t)
	ns := fmt.Sprintf("fl-srv-%06x", rand.N(1<<24))
	l.ip("netns add " + ns)
	l.t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
	l.ip("-n " + ns + " link set lo up")
	addr, port := l.plug(ns)
	n.ns, n.engine, n.addr = "/run/netns/"+ns, engine, addr
	s := &server{node: n, id: id, listen: addr + ":17420", port: port, lan: l}
	n.args = append(n.args, "--node", id, "--listen", s.listen, "--advertise", addr, "--no-agent", "--no-gateway")
	return s
}

// invited is the token of the line that an invite prints.
func (n *node) invited(args ...string) string {
	n.t.Helper()
	f := strings.Fields(n.do(args...))
	i := slices.Index(f, "echo")
	if i < 0 || i+1 == len(f) {
		n.t.Fatalf("no line in %v", f)
	}
	return f[i+1]
}

// launchServer starts a server that joins.
func (s *server) joins(token, at string) {
	s.t.Helper()
	w := &worker{node: s.node}
	w.args = append(w.args, "--join", at)
	w.stdin = strings.NewReader(token + "\n")
	w.launch()
	w.stdin = nil
}

type serverRow struct {
	Node, Standing, Problem string
	Answers, Leader         bool
}

// voters waits until n servers vote and answer.
func (s *server) voters(n int) []serverRow {
	s.t.Helper()
	var list []serverRow
	s.eventually(90*time.Second, fmt.Sprintf("%d servers vote and answer", n), func() error {
		out, err := s.try("server", "ls")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		list = get[[]serverRow](s.node, "server", "ls")
		good := 0
		for _, x := range list {
			if x.Standing == "voter" && x.Answers {
				good++
			}
		}
		if good != n || len(list) != n {
			return fmt.Errorf("%+v", list)
		}
		return nil
	})
	return list
}

func leaderOf(list []serverRow) string {
	for _, x := range list {
		if x.Leader {
			return x.Node
		}
	}
	return ""
}

// cut takes the server's link down, or up again.
func (s *server) cut(state string) {
	s.t.Helper()
	s.lan.ip("-n " + s.lan.ns + " link set " + s.port + " " + state)
}

// writer writes a label of node n4 through the servers that it may ask, each value
// until one of them has accepted it, and remembers all that was.
type writer struct {
	t       *testing.T
	servers map[string]*server
	n       int
	acked   map[string]string
}

// write writes once, avoiding one server; how long it took.
func (w *writer) write(avoid string) time.Duration {
	w.t.Helper()
	begin := time.Now()
	w.n++
	key, value := fmt.Sprintf("k%d", w.n), fmt.Sprint(w.n)
	for time.Since(begin) < need.Patience*time.Minute {
		for id, s := range w.servers {
			if id == avoid {
				continue
			}
			ctx, cancel := context.WithTimeout(w.t.Context(), 15*time.Second) // a busy machine starts a program slowly
			err := s.command(ctx, "node", "label", "n4", key+"="+value).Run()
			cancel()
			if err == nil {
				w.acked[key] = value
				return time.Since(begin)
			}
		}
	}
	w.t.Fatalf("no write is accepted without %s", avoid)
	return 0
}

// Three servers and a node with containers and a gateway. The one that leads is
// killed again and again, and each is cut off once: every acknowledged write is there,
// writes are accepted again within seconds, and no request fails. Removing servers is
// refused where it would stop the rest.
func TestThreeServers(t *testing.T) {
	l := newLAN(t)
	other := newApart(t)
	one := l.newServer("n1", other.engine)
	t.Cleanup(one.remove)
	one.up()
	servers := map[string]*server{"n1": one}
	token := one.invited("server", "invite", "--uses", "2")
	for _, id := range []string{"n2", "n3"} { // at the same time: they queue
		s := l.newServer(id, other.engine)
		servers[id] = s
		t.Cleanup(s.remove)
		s.joins(token, one.listen)
	}
	one.voters(3)

	w := &worker{node: other, id: "n4"}
	t.Cleanup(w.remove)
	addr, port := l.plug(filepath.Base(other.ns))
	w.link = port
	w.args = []string{
		"agent", "--data-dir", w.data, "--run-dir", w.run, "--node", w.id, "--advertise", addr, "--docker", w.engine, "--log-level", "debug",
		"--gateway", "--http-port", fmt.Sprint(w.http), "--https-port", fmt.Sprint(w.https), "--internal-port", fmt.Sprint(w.internal),
	}
	if got, err := servers["n2"].try("node", "invite"); err != nil || !strings.Contains(got, servers["n3"].listen) {
		t.Errorf("the line of another server: %v: %s", err, got)
	}
	w.join(servers["n2"].invited("node", "invite"), servers["n2"].listen)
	for id, s := range servers {
		s.eventually(30*time.Second, "the node is known to "+id, func() error {
			for _, x := range s.nodes() {
				if x.ID == "n4" && x.Alive {
					return nil
				}
			}
			return fmt.Errorf("%+v", s.nodes())
		})
	}
	image := other.image()
	one.do("deploy", "-f", one.write("compose.yaml", web(image, "three", "1", 3, "")))
	w.serves("http://three.example.com/")
	tunnelled(servers, "three", "n4")

	movesOn(t, servers)

	requests := w.startLoad(load.EveryKind("http://three.example.com/"))
	wr := &writer{t: t, servers: servers, acked: map[string]string{}}
	var killed, cut []time.Duration
	for range 4 {
		leader := leaderOf(one.voters(3))
		servers[leader].stop(syscall.SIGKILL)
		killed = append(killed, wr.write(leader).Round(10*time.Millisecond))
		for range 5 {
			wr.write(leader)
		}
		servers[leader].up()
	}
	one.voters(3)
	for _, id := range []string{"n1", "n2", "n3"} {
		servers[id].cut("down")
		cut = append(cut, wr.write(id).Round(10*time.Millisecond))
		if id == "n1" { // and a change that needs the control loops
			servers["n2"].do("deploy", "-f", one.write("compose.yaml", web(image, "three", "2", 3, "")))
		}
		servers[id].cut("up")
		one.voters(3)
	}
	requests.WantNone(t, "the leader killed four times, each server cut off once, and an update")
	t.Logf("killed to the first accepted write: %v; cut off: %v", killed, cut)
	for id, s := range servers {
		s.eventually(20*time.Second, "all is there through "+id, func() error {
			labels := get[struct{ Labels map[string]string }](s.node, "node", "inspect", "n4").Labels
			for k, v := range wr.acked {
				if labels[k] != v {
					return fmt.Errorf("%s=%s, acknowledged, is %q", k, v, labels[k])
				}
			}
			return nil
		})
	}
	withoutMajority(t, servers, w)
	removals(t, servers)
}

// withoutMajority kills all servers and starts one: it answers, says what is wrong,
// and everything serves on; with a second one changes are accepted again.
func withoutMajority(t *testing.T, servers map[string]*server, w *worker) {
	t.Helper()
	requests := w.startLoad(load.EveryKind("http://three.example.com/"))
	for _, s := range servers {
		s.stop(syscall.SIGKILL)
	}
	three := servers["n3"]
	three.up()
	if out, err := three.try("node", "label", "n4", "alone=1"); err == nil {
		t.Errorf("a write without a majority: %s", out)
	} else {
		t.Logf("without a majority: %s", out)
	}
	servers["n2"].up()
	three.eventually(30*time.Second, "two of three accept a change", func() error {
		out, err := three.try("node", "label", "n4", "two=1")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	servers["n1"].up()
	three.voters(3)
	requests.WantNone(t, "all servers killed")
}

// A server that is killed again and again while it joins has joined in the end, and
// the one that joins beside it too.
func TestServerJoinInterrupted(t *testing.T) {
	l := newLAN(t)
	one := l.newServer("n1", "")
	t.Cleanup(one.remove)
	one.up()
	token := one.invited("server", "invite", "--uses", "2")
	two, three := l.newServer("n2", ""), l.newServer("n3", "")
	t.Cleanup(two.remove)
	t.Cleanup(three.remove)
	three.joins(token, one.listen)
	for i := range 6 {
		two.joins(token, one.listen)
		time.Sleep(time.Duration(i*i) * 40 * time.Millisecond) // at other points each time
		two.stop(syscall.SIGKILL)
	}
	two.joins(token, one.listen)
	one.voters(3)
	// A node's token makes no server, and a server's no node.
	four := l.newServer("n4", "")
	t.Cleanup(four.remove)
	four.joins(one.invited("node", "invite"), one.listen)
	four.says("is for nodes")
}

// A second server that votes is not uninstalled. It is let vote and dies before it knows: the first one is no majority
// without it, and it is none without the first. It starts what it has of the store, and
// changes are accepted again. One that was taken out meanwhile, by others that are away
// when it starts, finds out and joins anew.
func TestServerDiesAsItIsLetVote(t *testing.T) {
	l := newLAN(t)
	one := l.newServer("n1", "")
	t.Cleanup(one.remove)
	one.up()
	token := one.invited("server", "invite", "--uses", "2")
	two, three := l.newServer("n2", ""), l.newServer("n3", "")
	t.Cleanup(two.remove)
	t.Cleanup(three.remove)
	two.joins(token, one.listen)
	two.voters(2)
	if out, err := two.try("system", "uninstall", "--purge", "--yes", "--data-dir", two.data, "--run-dir", two.run); err == nil || !strings.Contains(out, "server rm n2") {
		t.Errorf("one that votes is uninstalled: %v: %s", err, out)
	}
	two.forgetsVote()
	two.up()
	one.voters(2)
	one.invited("node", "invite") // it is stored

	three.joins(token, one.listen)
	two.voters(3)
	two.forgetsVote()
	one.eventually(time.Minute, "n2 is taken out", func() error {
		out, err := one.try("server", "rm", "n2")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	one.stop(syscall.SIGKILL)
	three.stop(syscall.SIGKILL)
	two.joins(token, one.listen)
	two.eventually(time.Minute, "n2 starts what it has", func() error {
		if b, _ := os.ReadFile(filepath.Join(two.dir, "server.log")); strings.Count(string(b), "do not say how this one stands") < 2 {
			return errors.New("it does not say so")
		}
		return nil
	})
	one.up()
	three.up()
	one.voters(3)
	if !two.logged("taken this one out before it voted") {
		t.Error("n2 was not told that it was taken out")
	}
}

// forgetsVote kills a server and makes it one that died before it kept that it votes.
func (s *server) forgetsVote() {
	s.t.Helper()
	s.stop(syscall.SIGKILL)
	path := filepath.Join(s.data, "server.json")
	b, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	without := strings.Replace(string(b), `"member": true`, `"member": false`, 1)
	if without == string(b) {
		s.t.Fatalf("it does not vote: %s", b)
	}
	if err := os.WriteFile(path, []byte(without), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(s.data, "served")); err != nil {
		s.t.Fatal(err)
	}
}

// The server whose etcd leads, or that looks after servers which join, is killed while a
// fourth one joins: when that was given the keys, when it is a member that learns, when
// it votes. It comes to vote all the same, without the one that was killed, which then
// comes back. Only where it was no member yet it may have to wait, as etcd takes none while
// another is away: it says so, and goes on when that one is back, or is removed.
func TestLeaderKilledWhileAServerJoins(t *testing.T) {
	l := newLAN(t)
	servers := map[string]*server{}
	for _, id := range []string{"n1", "n2", "n3"} {
		servers[id] = l.newServer(id, "")
		t.Cleanup(servers[id].remove)
	}
	servers["n1"].up()
	token := servers["n1"].invited("server", "invite", "--uses", "2")
	servers["n2"].joins(token, servers["n1"].listen)
	servers["n3"].joins(token, servers["n1"].listen)
	for i, point := range []string{"has the keys", "learns", "votes", "votes", "learns", "has the keys"} {
		last := i == 5
		leader := leaderOf(servers["n1"].voters(3))
		if i%2 == 1 {
			leader = leading(servers)
		}
		if leader == "" {
			t.Fatal("nobody leads")
		}
		killed, other := servers[leader], servers["n1"]
		if killed == other {
			other = servers["n2"]
		}
		four, before := l.newServer("n4", ""), haveVoted(servers)
		t.Cleanup(four.remove)
		four.joins(other.invited("server", "invite"), killed.listen+","+other.listen)
		four.reaches(point, func() bool { return haveVoted(servers) > before })
		killed.stop(syscall.SIGKILL)
		began := time.Now()
		waits := false
		other.eventually(2*time.Minute, "n4, which "+point+", votes without "+leader, func() error {
			out, err := other.try("server", "ls")
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			list := get[[]serverRow](other.node, "server", "ls")
			i := slices.IndexFunc(list, func(x serverRow) bool { return x.Node == "n4" })
			if i >= 0 && list[i].Standing == "voter" && list[i].Answers && leaderOf(list) != "" {
				return nil
			}
			if waits = point == "has the keys" && four.logged("while one of them is away"); waits {
				return nil
			}
			return fmt.Errorf("%+v", list)
		})
		t.Logf("%s was killed when n4 %s: n4 votes, or says that it waits (%v), after %s", leader, point, waits, time.Since(began).Round(10*time.Millisecond))
		if last {
			other.do("server", "rm", leader)
			other.voters(3)
			return
		}
		killed.up()
		other.voters(4)
		four.stop(syscall.SIGTERM)
		other.do("server", "rm", "n4")
	}
}

// logged reports whether a server's log has a text.
func (s *server) logged(text string) bool {
	b, _ := os.ReadFile(filepath.Join(s.dir, "server.log"))
	return strings.Contains(string(b), text)
}

// leading is the server that runs the control loops, by what they log.
func leading(servers map[string]*server) (id string) {
	since := ""
	for x, s := range servers {
		b, _ := os.ReadFile(filepath.Join(s.dir, "server.log"))
		for line := range strings.Lines(string(b)) {
			if at, _, ok := strings.Cut(line, " [INFO]  fairlead: leading"); ok && at > since {
				id, since = x, at
			}
		}
	}
	return id
}

// haveVoted counts the servers that were let vote, by the logs of those that let them.
func haveVoted(servers map[string]*server) (n int) {
	for _, s := range servers {
		b, _ := os.ReadFile(filepath.Join(s.dir, "server.log"))
		n += strings.Count(string(b), "a server has joined and votes")
	}
	return n
}

// reaches waits until a server that joins is so far, without asking anybody.
func (s *server) reaches(point string, votes func() bool) {
	s.t.Helper()
	there := map[string]func() bool{
		"has the keys": func() bool { return s.logged("was given the cluster's keys") },
		"learns": func() bool {
			_, err := os.Stat(filepath.Join(s.data, "etcd", "member-data", "member", "wal"))
			return err == nil
		},
		"votes": votes,
	}[point]
	for end := time.Now().Add(time.Minute * need.Patience); !there(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("%s does not come so far that it %s", s.id, point)
		}
	}
}

// says waits for a server that does not start to say why.
func (s *server) says(what string) {
	s.t.Helper()
	s.eventually(30*time.Second, "it says "+what, func() error {
		b, err := os.ReadFile(filepath.Join(s.dir, "server.log"))
		if err == nil && !strings.Contains(string(b), what) {
			err = fmt.Errorf("its log says\n%s", b)
		}
		return err
	})
	if _, err := os.Stat(filepath.Join(s.data, "secrets.key")); err == nil {
		s.t.Error("it has the key of the cluster's secrets")
	}
}

// movesOn checks that a client which was told of one server finds the others.
func movesOn(t *testing.T, servers map[string]*server) {
	t.Helper()
	one, two := servers["n1"], servers["n2"]
	made := get[struct{ Value, CA string }](one.node, "token", "create", "ann")
	run := func(in string, args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := two.inside(ctx, fairlead, args...)
		cmd.Env = append(os.Environ(), "HOME="+two.dir, "XDG_CONFIG_HOME="+two.dir)
		cmd.Stdin = strings.NewReader(in)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run(made.Value+"\n", "context", "add", "three", "--server", "https://"+one.listen, "--ca", made.CA, "--token-stdin"); err != nil {
		t.Fatalf("context add: %v: %s", err, out)
	}
	if out, err := run("", "node", "ls"); err != nil {
		t.Fatalf("node ls: %v: %s", err, out)
	}
	if out, err := run("", "context", "ls", "-o", "json"); err != nil || !strings.Contains(out, servers["n3"].listen) {
		t.Errorf("the context knows: %v: %s", err, out)
	}
	one.stop(syscall.SIGKILL)
	if out, err := run("", "node", "ls"); err != nil || !strings.Contains(out, "n4") {
		t.Errorf("without the server that it was told of: %v: %s", err, out)
	}
	one.up()
	one.voters(3)
}

// removals takes servers away.
func removals(t *testing.T, servers map[string]*server) {
	t.Helper()
	one, two, three := servers["n1"], servers["n2"], servers["n3"]
	three.stop(syscall.SIGKILL)
	one.eventually(20*time.Second, "the store notices", func() error {
		if out, err := one.try("server", "rm", "n2"); err == nil || !strings.Contains(out, "no majority") || !strings.Contains(out, "n3") {
			t.Fatalf("removing one of two that answer: %v: %s", err, out)
		}
		return nil
	})
	if out, err := one.try("server", "rm", "n1"); err == nil || !strings.Contains(out, "ask another one") {
		t.Errorf("removing itself: %v: %s", err, out)
	}
	if out, err := one.try("server", "rm", "n9"); err == nil || !strings.Contains(out, "no server") {
		t.Errorf("removing one that is not there: %v: %s", err, out)
	}
	one.do("server", "rm", "n3")
	one.voters(2)
	one.eventually(20*time.Second, "the other one can be removed while both answer", func() error {
		out, err := one.try("server", "rm", "n2")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	one.voters(1)
	one.do("node", "label", "n4", "last=1")
	two.eventually(20*time.Second, "the removed server ends", func() error {
		if out, err := two.try("system", "status", "--run-dir", two.run); err == nil {
			return fmt.Errorf("it answers: %s", out)
		}
		return nil
	})
}

// Two servers with containers and gateways: tasks are spread over both, each gateway
// reaches all, and either server reaches the containers of both.
func TestTwoWholeServers(t *testing.T) {
	l := newLAN(t)
	one, two := l.whole("n1"), l.whole("n2")
	t.Cleanup(one.remove)
	one.up()
	t.Cleanup(two.remove)
	two.joins(one.invited("server", "invite"), one.listen)
	one.voters(2)
	one.eventually(30*time.Second, "both are nodes", func() error {
		if list := one.nodes(); len(list) != 2 || !list[0].Alive || !list[1].Alive {
			return fmt.Errorf("%+v", list)
		}
		return nil
	})
	image := one.image() // on the first one's engine alone
	one.do("deploy", "-f", one.write("compose.yaml", web(image, "two", "1", 4, calling(image))))
	for _, s := range []*server{one, two} {
		s.serves("http://two.example.com/")
		for _, at := range []string{"n1", "n2"} {
			tasks := s.on("two", at)
			if len(tasks) < 2 {
				t.Fatalf("on %s are %v", at, tasks)
			}
			if out := s.do("exec", addressOf(tasks[0].ID), "--", "/app", "once"); !strings.Contains(out, "done") {
				t.Errorf("exec on %s through %s: %s", at, s.id, out)
			}
		}
	}
	if st := get[served](two.node, "status"); len(st.Gateways) != 2 || len(st.Alarms) > 0 {
		t.Errorf("status %+v", st)
	}
	one.serves("http://caller.example.com/")
	if c, err := one.counted(); err != nil || c.Failed > 0 {
		t.Errorf("%v: %s", err, c)
	}
	hookedByEither(one, two, image)
}

// hookedByEither sends webhooks to two servers, of which one leads, over their network and
// as a bare repository's own hook does: each brings the commit that it was sent after.
func hookedByEither(one, two *server, image string) {
	one.t.Helper()
	f := follow.NewForge(one.t, one.dir)
	one.secret("pub/hook", "signed")
	f.Publish(web(image, "pub", "1", 2, ""), "the first version")
	one.do("delivery", "create", "pub", "file://"+filepath.Join(one.dir, "git", "pub.git"), "--branch", "main", "--interval", "1h", "--webhook", "hook")
	header := one.write("webhook.header", "X-Gitlab-Token: signed\n")
	for i, s := range []*server{one, two} {
		version := strconv.Itoa(i + 2)
		commit := f.Publish(web(image, "pub", version, 2, ""), "version "+version)
		out, err := exec.Command("nsenter", "--net="+one.ns, "curl", "-fsS", "-m", "10", "--cacert", filepath.Join(s.data, "pki", "ca.crt"),
			"-H", "@"+header, "-X", "POST", "https://"+s.listen+"/v1/hooks/pub").CombinedOutput()
		if err != nil {
			one.t.Fatalf("a webhook to %s: %v: %s", s.id, err, out)
		}
		one.eventually(time.Minute, "the commit that "+s.id+" was told of", one.delivered("pub", "ready", commit, version))
	}
}

// tunnelled waits until commands reach an app's containers on a node through each server.
func tunnelled(servers map[string]*server, app, node string) {
	for id, s := range servers {
		s.eventually(20*time.Second, "commands reach containers through "+id, func() error {
			out, err := s.try("exec", shortAddress(s.on(app, node)), "--", "/app", "once")
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
	}
}
