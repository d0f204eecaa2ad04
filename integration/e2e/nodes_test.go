package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead/fairlead/integration/load"
	"github.com/fairlead/fairlead/integration/need"
)

// worker is a node that joined, on an engine and in a network of its own, with a
// link to the server's.
type worker struct {
	*node
	id   string
	link string // in the server's namespace
}

// startTwo starts a server and a node that joins it with the line it prints, as a
// gateway too when it is to be one.
func startTwo(t *testing.T, gateway bool) (*node, *worker) {
	t.Helper()
	n, _ := startApart(t)
	n.stop(syscall.SIGTERM)
	between := fmt.Sprintf("10.252.%d", rand.N(256))
	listen := between + ".1:17420"
	// The nodes' own network: the server is known by its address there.
	other := newApart(t)
	link := fmt.Sprintf("fl%06x", rand.N(1<<24))
	mine, theirs := filepath.Base(n.ns), filepath.Base(other.ns)
	for _, args := range []string{
		"-n " + mine + " link add " + link + " type veth peer name eth1 netns " + theirs,
		"-n " + mine + " addr add " + between + ".1/24 dev " + link,
		"-n " + mine + " link set " + link + " up",
		"-n " + theirs + " addr add " + between + ".2/24 dev eth1",
		"-n " + theirs + " link set eth1 up",
	} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", args, err, out)
		}
	}
	n.args = append(n.args, "--listen", listen, "--advertise", between+".1")
	n.up()
	w := &worker{node: other, id: "n2", link: link}
	w.args = []string{
		"agent", "--data-dir", w.data, "--run-dir", w.run, "--node", w.id, "--advertise", between + ".2", "--docker", w.engine,
		"--log-level", "debug",
	}
	if gateway {
		w.args = append(w.args, "--gateway",
			"--http-port", fmt.Sprint(w.http), "--https-port", fmt.Sprint(w.https), "--internal-port", fmt.Sprint(w.internal))
	}
	fields := strings.Fields(n.do("node", "invite"))
	token := ""
	for i, f := range fields {
		if f == "echo" {
			token = fields[i+1]
		}
	}
	if want := "--join " + listen; !strings.Contains(strings.Join(fields, " "), want) || token == "" {
		t.Fatalf("the line %q does not say %q", fields, want)
	}
	t.Cleanup(w.remove)
	w.join(token, listen)
	n.eventually(30*time.Second, "the node has joined", func() error {
		for _, x := range n.nodes() {
			if x.ID == w.id && x.Alive {
				return nil
			}
		}
		return fmt.Errorf("%+v", n.nodes())
	})
	return n, w
}

// join starts the agent with a token, through standard input.
func (w *worker) join(token, server string) {
	w.t.Helper()
	w.args = append(w.args, "--join", server)
	w.stdin = strings.NewReader(token + "\n")
	w.launch()
	w.stdin = nil
}

// launch starts the agent.
func (w *worker) launch() {
	w.t.Helper()
	log, err := os.OpenFile(filepath.Join(w.dir, "server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = log
	w.cmd = w.inside(context.Background(), fairlead, w.args...)
	w.cmd.Stdin, w.cmd.Stdout, w.cmd.Stderr = w.stdin, log, log
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := w.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
}

type nodeRow struct {
	ID    string
	Alive bool
	Tasks int
}

func (n *node) nodes() []nodeRow { return get[[]nodeRow](n, "node", "ls") }

type taskRow struct {
	ID, Node, State string
	Ready           bool
}

// on are an app's ready tasks on a node.
func (n *node) on(app, node string) (out []taskRow) {
	for _, t := range get[[]taskRow](n, "ps", app) {
		if t.Ready && t.Node == node {
			out = append(out, t)
		}
	}
	return out
}

// containers are an engine's running containers of an app.
func (n *node) containers(app string) []string {
	n.t.Helper()
	out, err := n.docker("ps", "-q", "--filter", "label=io.fairlead.app="+app).Output()
	if err != nil {
		n.t.Fatal(err)
	}
	return strings.Fields(string(out))
}

// cut takes the link between the nodes down, or up again.
func (w *worker) cut(server *node, state string) {
	w.t.Helper()
	if out, err := exec.Command("ip", "-n", filepath.Base(server.ns), "link", "set", w.link, state).CombinedOutput(); err != nil {
		w.t.Fatalf("link %s: %v: %s", state, err, out)
	}
}

// Two nodes: an app is spread over both, its image reaches the one that has not
// built it, requests find tasks on either, from outside and inside; commands reach
// containers there; a rolling update and a drain lose nothing; a killed agent
// changes nothing; a node that is cut off is replaced, and tidied when it is back;
// one that is removed is refused.
func TestTwoNodes(t *testing.T) {
	n, w := startTwo(t, false)
	image := n.image() // on the server's engine alone
	file := n.write("compose.yaml", web(image, "two", "1", 4, calling(image)))
	n.do("deploy", "-f", file)
	n.serves("http://caller.example.com/")
	here, there := n.on("two", "n1"), n.on("two", "n2")
	if len(here) < 2 || len(there) < 2 {
		t.Fatalf("not spread: %v and %v", here, there)
	}
	answers := map[string]bool{}
	for range 40 {
		b, err := n.answer("http://two.example.com/")
		if err != nil {
			t.Fatal(err)
		}
		answers[b] = true
	}
	if len(answers) != 4 {
		t.Errorf("of 4 tasks %d answer through the gateway: %v", len(answers), answers)
	}
	commandsReach(t, n, n.on("two", "n2")[0].ID)

	l := n.startLoad(load.EveryKind("http://two.example.com/"))
	n.do("deploy", "-f", n.write("compose.yaml", web(image, "two", "2", 4, calling(image))))
	agentKilled(t, n, w)
	l.WantNone(t, "rolling update, drain, agent killed")
	if c, err := n.counted(); err != nil || c.Failed > 0 {
		t.Errorf("%v: %s", err, c)
	}

	w.cut(n, "down")
	n.eventually(60*time.Second, "what was on the cut node is replaced", func() error {
		if len(n.on("two", "n1")) != 5 {
			return fmt.Errorf("%v", get[[]taskRow](n, "ps", "two"))
		}
		return nil
	})
	n.serves("http://two.example.com/")
	if got := w.containers("two"); len(got) != 5 {
		t.Errorf("a cut node must serve on, and runs %v", got)
	}
	w.cut(n, "up")
	n.eventually(60*time.Second, "the node that is back has no duplicates", func() error {
		if got := w.containers("two"); len(got) > 0 {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
	if len(n.on("two", "n1")) != 5 {
		t.Errorf("after it came back: %v", get[[]taskRow](n, "ps", "two"))
	}

	if out, err := n.try("node", "rm", "n2"); err == nil || !strings.Contains(out, "is alive") {
		t.Errorf("an alive node is removed: %s", out)
	}
	n.do("node", "rm", "n2", "--force")
	if got := n.nodes(); len(got) != 1 {
		t.Errorf("nodes %v", got)
	}
	n.eventually(60*time.Second, "the removed node's agent ends and says why", func() error {
		b, err := os.ReadFile(filepath.Join(w.dir, "server.log"))
		if err == nil && !strings.Contains(string(b), "not of the cluster any more") {
			err = fmt.Errorf("its log says nothing of it")
		}
		return err
	})
	n.serves("http://two.example.com/")
}

// agentKilled moves everything to the node and kills its agent for a moment: its containers
// stay. On a slow machine it is away for as long as makes a node lost, whose tasks move, rightly:
// then all of it is done again.
func agentKilled(t *testing.T, n *node, w *worker) {
	t.Helper()
	const soon = 7 * time.Second // no node is lost before what is left of its lease (5 s), and 4 s, are over
	for range 3 {
		n.do("node", "drain", "n1")
		n.eventually(60*time.Second, "the server's tasks have moved", func() error {
			if left := n.on("two", "n1"); len(left) > 0 || len(n.on("two", "n2")) != 5 || len(w.containers("two")) != 5 {
				return fmt.Errorf("%v", get[[]taskRow](n, "ps", "two"))
			}
			return nil
		})
		n.do("node", "activate", "n1")
		from := time.Now()
		w.stop(syscall.SIGKILL)
		before := w.containers("two")
		time.Sleep(time.Second) // requests go on while it is away
		w.launch()
		n.eventually(30*time.Second, "the agent is back", func() error {
			_, err := n.try("exec", shortAddress(n.on("two", "n2")), "--", "/app", "once")
			return err
		})
		away, after := time.Since(from), w.containers("two")
		if strings.Join(after, " ") == strings.Join(before, " ") {
			return
		}
		t.Logf("a killed agent's containers were %v and are %v, %s later", before, after, away)
		if away <= soon {
			break
		}
	}
	t.Error("a killed agent's containers did not stay")
}

func shortAddress(tasks []taskRow) string {
	if len(tasks) == 0 {
		return "two/web"
	}
	return addressOf(tasks[0].ID)
}

// addressOf is the address of a task by its ID: "two_web.1.abc" is two/web.1.
func addressOf(id string) string {
	parts := strings.Split(id, ".")
	return strings.Replace(parts[0], "_", "/", 1) + "." + parts[1]
}

// commandsReach tries what goes through the node's tunnel.
func commandsReach(t *testing.T, n *node, id string) {
	t.Helper()
	address := addressOf(id)
	if out := n.do("logs", address); !strings.Contains(out, "listening") {
		t.Errorf("logs: %s", out)
	}
	if out := n.do("exec", address, "--", "/app", "once"); !strings.Contains(out, "done") {
		t.Errorf("exec: %s", out)
	}
	if out, err := n.try("exec", address, "--", "/absent"); err == nil {
		t.Errorf("exec of a program that is not there: %s", out)
	}
	n.write("note.txt", "from here")
	n.do("cp", filepath.Join(n.dir, "note.txt"), address+":/note.txt")
	n.do("cp", address+":/note.txt", filepath.Join(n.dir, "back.txt"))
	if b, err := os.ReadFile(filepath.Join(n.dir, "back.txt")); err != nil || string(b) != "from here" {
		t.Errorf("copied there and back: %q, %v", b, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	port := need.Port(t)
	forward := n.command(ctx, "port-forward", address, fmt.Sprintf("%d:8080", port))
	if err := forward.Start(); err != nil {
		t.Fatal(err)
	}
	n.eventually(20*time.Second, "the forwarded port answers", func() error {
		out, err := exec.Command("curl", "-fsS", "--max-time", "2", fmt.Sprintf("http://127.0.0.1:%d/", port)).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	cancel()
	_ = forward.Wait()
}
