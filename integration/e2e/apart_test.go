package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead/fairlead/integration/dockerd"
	"github.com/fairlead/fairlead/integration/load"
)

// startApart starts a cluster of one with a Docker engine and a network of its
// own, so that a test may do to them what nobody may do to the machine's. The
// test itself is outside of that network, and so is an etcd that FAIRLEAD_TEST_ETCD names.
func startApart(t *testing.T, engine ...string) (*node, *dockerd.Engine) {
	t.Helper()
	n, e := newApartEngine(t, engine...)
	n.operated(n.outside)
	t.Cleanup(n.remove)
	n.up()
	return n, e
}

// newApart is a node as startApart makes it, not started yet.
func newApart(t *testing.T) *node {
	t.Helper()
	n, _ := newApartEngine(t)
	return n
}

func newApartEngine(t *testing.T, engine ...string) (*node, *dockerd.Engine) {
	t.Helper()
	n := newNode(t)
	e := dockerd.New(t, engine...)
	n.engine, n.ns = e.Host(), e.Namespace()
	link, net := fmt.Sprintf("fl%06x", rand.N(1<<24)), fmt.Sprintf("10.251.%d", rand.N(256))
	n.addr, n.outside = net+".2", net+".1"
	ns := filepath.Base(n.ns)
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", link).Run() })
	for _, args := range []string{
		"link add " + link + " type veth peer name eth0 netns " + ns,
		"addr add " + net + ".1/30 dev " + link,
		"link set " + link + " up",
		"-n " + ns + " addr add " + n.addr + "/30 dev eth0",
		"-n " + ns + " link set eth0 up",
		"-n " + ns + " route add default via " + net + ".1",
	} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", args, err, out)
		}
	}
	n.args = append(n.args, "--docker", n.engine, "--advertise", n.addr)
	return n, e
}

// calling is a service that calls web of its app all the time, and counts.
func calling(image string) string {
	return fmt.Sprintf(`  caller:
    image: %s
    environment: {VERSION: caller, UPSTREAM: "web:8080"}
    depends_on: {web: {condition: service_healthy}}
    healthcheck: %s
    x-fairlead: {routes: [{host: caller.example.com, port: 8080}]}
`, image, healthcheck)
}

// counted is what the caller has counted.
type counted struct {
	Requests, Failed, Unresolved int64
	Lookups, Late                int64 // of the name alone; late is not within a second
	Examples                     []string
}

func (c counted) String() string {
	return fmt.Sprintf("%d requests from inside, %d failed, %d of them without an address:\n%s", c.Requests, c.Failed, c.Unresolved, strings.Join(c.Examples, "\n"))
}

func (n *node) counted() (out counted, err error) {
	body, err := n.answer("http://caller.example.com/calls")
	if err == nil {
		err = json.Unmarshal([]byte(body), &out)
	}
	return out, err
}

// started are the tasks that are ready, and when each of their containers started.
func (n *node) started(app string) map[string]time.Time {
	n.t.Helper()
	out := map[string]time.Time{}
	for _, t := range get[[]struct {
		ID      string    `json:"id"`
		Ready   bool      `json:"ready"`
		Started time.Time `json:"started"`
	}](n, "ps", app) {
		if t.Ready {
			out[t.ID] = t.Started
		}
	}
	return out
}

// serves waits until requests from outside have been answered for a while.
func (n *node) serves(url string) {
	n.t.Helper()
	n.eventually(60*time.Second, url+" answers", func() error {
		for range 20 {
			if _, err := n.answer(url); err != nil {
				return err
			}
		}
		return nil
	})
}

// Docker is killed and comes back. While it is away nothing fails. An engine with
// live-restore leaves containers alone; another one kills them when it comes back:
// only then, and until they run again, may requests fail.
func TestDockerKilled(t *testing.T) {
	for name, args := range map[string][]string{"live-restore": {"--live-restore"}, "containers killed": nil} {
		t.Run(name, func(t *testing.T) { dockerKilled(t, args) })
	}
}

func dockerKilled(t *testing.T, args []string) {
	t.Helper()
	survive := len(args) > 0
	n, engine := startApart(t, args...)
	image := n.image()
	n.do("deploy", "-f", n.write("compose.yaml", web(image, "kill", "1", 3, calling(image))))
	n.serves("http://caller.example.com/")
	before := n.started("kill")
	l := n.startLoad(load.EveryKind("http://kill.example.com/"))
	var spans []load.Span
	for round := range 2 {
		was, err := n.counted()
		if err != nil {
			t.Fatal(err)
		}
		engine.End(syscall.SIGKILL)
		time.Sleep(2 * time.Second) // requests go on while the engine is away
		// Docker's own resolver is in the engine: what needs it fails, nothing else.
		if c, err := n.counted(); err != nil || c.Failed-was.Failed > c.Unresolved-was.Unresolved {
			t.Errorf("without an engine: %v; %s; before that %s", err, c, was)
		}
		s := load.Span{From: time.Now()}
		engine.Start()
		back := time.Now()
		n.sameTasks("kill", before, s.From, survive)
		ready := time.Now()
		n.serves("http://kill.example.com/")
		n.serves("http://caller.example.com/")
		if s.To = time.Now(); !survive {
			spans = append(spans, s)
		}
		now := n.insideAgain()
		if survive && now.Failed > now.Unresolved {
			t.Errorf("afterwards: %s", now)
		}
		t.Logf("round %d: engine back after %s, tasks ready after %s, all served after %s; %d requests from inside, %d failed, %d of them for want of Docker's resolver",
			round+1, back.Sub(s.From).Round(time.Millisecond), ready.Sub(s.From).Round(time.Millisecond), s.To.Sub(s.From).Round(time.Millisecond), now.Requests, now.Failed, now.Unresolved)
	}
	l.WantNone(t, "Docker killed twice", spans...)
	out, err := n.docker("ps", "-a", "--format", "{{.Names}}").CombinedOutput()
	if have := len(strings.Fields(string(out))); err != nil || have != len(before) {
		t.Errorf("%d containers, want %d: %v\n%s", have, len(before), err, out)
	}
	t.Logf("%s", n.do("ps", "-o", "wide"))
}

// insideAgain waits until requests from inside go on without a failure.
func (n *node) insideAgain() (now counted) {
	n.t.Helper()
	n.eventually(20*time.Second, "requests from inside go on", func() error {
		first, err := n.counted()
		if err != nil {
			return err
		}
		time.Sleep(time.Second)
		if now, err = n.counted(); err == nil && (now.Failed > first.Failed || now.Requests < first.Requests+50) {
			err = fmt.Errorf("%s; a second before %s", now, first)
		}
		return err
	})
	return now
}

// sameTasks waits until the very tasks of before are ready: untouched when they
// survive the engine, else started again after from.
func (n *node) sameTasks(app string, before map[string]time.Time, from time.Time, survive bool) {
	n.t.Helper()
	n.eventually(90*time.Second, "the same tasks are ready", func() error {
		now := n.started(app)
		for id, started := range before {
			at, ready := now[id]
			if right := at.Equal(started) == survive && (survive || at.After(from)); !ready || !right {
				return fmt.Errorf("%s: ready %v, started %s, before %s", id, ready, at, started)
			}
		}
		if len(now) != len(before) {
			return fmt.Errorf("%d tasks, %d before", len(now), len(before))
		}
		return nil
	})
}

// Another program flushes all rules, as a firewall does that is loaded anew: they
// come back by themselves, and with them the requests.
func TestRulesFlushedByAnotherProgram(t *testing.T) {
	n, _ := startApart(t)
	image := n.image()
	n.do("deploy", "-f", n.write("compose.yaml", web(image, "flush", "1", 2, calling(image))))
	n.serves("http://caller.example.com/")
	rules := n.rules()
	l := n.startLoad(load.EveryKind("http://flush.example.com/"))
	time.Sleep(time.Second)
	if c, err := n.counted(); err != nil || c.Failed > 0 {
		t.Errorf("before: %v; %s", err, c)
	}
	var spans []load.Span
	for range 2 {
		s := load.Span{From: time.Now()}
		if out, err := n.inside(t.Context(), "nft", "flush", "ruleset").CombinedOutput(); err != nil {
			t.Fatalf("flush: %v: %s", err, out)
		}
		n.eventually(30*time.Second, "the rules are as before", func() error {
			if now := n.rules(); now != rules {
				return fmt.Errorf("%d bytes of them, not %d", len(now), len(rules))
			}
			return nil
		})
		n.serves("http://flush.example.com/")
		s.To = time.Now()
		spans = append(spans, s)
		t.Logf("all back %s after the flush; %s", s.To.Sub(s.From).Round(time.Millisecond), n.insideAgain())
	}
	l.WantNone(t, "all rules flushed twice", spans...)
}

var handle = regexp.MustCompile(` # handle [0-9]+|counter packets [0-9]+ bytes [0-9]+`)

// rules are the words of Fairlead's rules in the node's network, sorted: the order
// of tables and elements is the kernel's.
func (n *node) rules() string {
	n.t.Helper()
	list, err := n.inside(n.t.Context(), "nft", "list", "tables").Output()
	if err != nil {
		n.t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(list)) {
		f := strings.Fields(line) // table inet fairlead-gw-…
		if len(f) != 3 || !strings.HasPrefix(f[2], "fairlead-") {
			continue
		}
		// A table may be gone by now: then it is not in the result.
		b, _ := n.inside(n.t.Context(), "nft", "-n", "list", "table", f[1], f[2]).Output()
		out = append(out, strings.Fields(handle.ReplaceAllString(string(b), ""))...)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}
