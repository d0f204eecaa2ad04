package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/integration/load"
	"github.com/fairlead/fairlead/integration/need"
	"github.com/fairlead/fairlead/lab"
)

// calling is a service that has a task on every node, each of which calls another
// service all the time and counts.
func calling(name, upstream string) string {
	return fmt.Sprintf(`  %[1]s:
    image: demo-web
    depends_on: {%[2]s: {condition: service_healthy}}
    environment: {VERSION: %[1]s, UPSTREAM: "%[2]s:8080", EVERY: 60ms}
    deploy: {mode: global}
    healthcheck: {test: [CMD, /app, check], interval: 5s, timeout: 10s, retries: 3, start_period: 20s, start_interval: 1s}
    x-fairlead: {routes: [{host: %[1]s.example.com, port: 8080}]}
`, name, upstream)
}

// steady has tasks on n1 alone, which is never lost: a request to it that fails was
// not on what was.
const steady = `  steady:
    image: demo-web
    environment: {VERSION: steady}
    deploy: {replicas: 2, placement: {constraints: [node.hostname == n1]}}
    x-fairlead: {health: {port: 8080, http: /health, interval: 1s, timeout: 10s, start_period: 20s}, routes: [{host: steady.example.com, port: 8080}]}
`

// gate is a gateway of the lab as this machine reaches it.
type gate struct {
	b    *bed
	addr string
}

func (g gate) client(keepAlive bool) *http.Client {
	return &http.Client{
		Timeout: 15 * time.Second,
		Transport: &http.Transport{
			DisableKeepAlives: !keepAlive,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "tcp", g.addr)
			},
		},
	}
}

// start makes half of all kinds of requests, 100 a second: two gateways and three nodes
// are on one machine.
func (g gate) start(half int) *load.Load {
	g.b.t.Helper()
	all := load.EveryKind("http://demo.example.com/")
	return load.Start(g.b.t, g.client, []load.Request{all[half], all[3-half]})
}

func (g gate) serves() {
	g.b.t.Helper()
	g.b.eventually(time.Minute, g.addr+" serves", func() error {
		for range 20 {
			if err := load.Get(g.client(false), "http://demo.example.com/"); err != nil {
				return err
			}
		}
		return nil
	})
}

// gates are the lab's gateways, on the nodes in order.
func (b *bed) gates() (out []gate) {
	b.t.Helper()
	for _, u := range b.status().URLs {
		if x, err := url.Parse(u); err == nil && x.Scheme == "http" {
			out = append(out, gate{b, x.Host})
		}
	}
	return out
}

// caller is what one container said of the calls it made.
type caller struct {
	requests int64
	failures map[time.Time]load.Failure // by when they were made
	told     time.Time                  // when it said so last
}

// callers are the tasks of a calling service, asked again and again through a gateway
// that is never lost: what one said before it was stopped is kept.
type callers struct {
	b       *bed
	service string
	g       gate
	end     func() // nobody asks any more

	mu   sync.Mutex
	by   map[string]*caller // host names are the containers'
	node map[string]string  // where they are, or were
	last string             // what came of the last question, and when
}

func (b *bed) callers(service string, g gate) *callers {
	b.t.Helper()
	c := &callers{b: b, service: service, g: g, by: map[string]*caller{}, node: map[string]string{}}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	c.end = func() { cancel(); done.Wait() }
	b.t.Cleanup(c.end)
	done.Go(func() {
		client := g.client(false)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				c.ask(client)
			case <-ctx.Done():
				return
			}
		}
	})
	return c
}

func (c *callers) ask(client *http.Client) {
	began, what := time.Now(), ""
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.last = fmt.Sprintf("asked at %s: %s after %s", began.Format(time.TimeOnly), what, time.Since(began).Round(time.Millisecond))
	}()
	resp, err := client.Get("http://" + c.service + ".example.com/calls")
	if err != nil {
		what = err.Error()
		return
	}
	defer resp.Body.Close()
	what = resp.Status
	var said struct {
		Host             string
		Requests, Failed int64
		Failures         []load.Failure
	}
	if err := json.NewDecoder(resp.Body).Decode(&said); err != nil || said.Host == "" {
		what += fmt.Sprintf(", no answer of a caller: %v", err)
		return
	}
	what += ", by " + said.Host
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.by[said.Host]
	if x == nil {
		x = &caller{failures: map[time.Time]load.Failure{}}
		c.by[said.Host] = x
	}
	x.requests, x.told = max(x.requests, said.Requests), time.Now()
	for _, f := range said.Failures {
		x.failures[f.From] = f
	}
}

// heard waits until every task of the service has told of its calls since now, and
// there were some.
func (c *callers) heard() {
	c.b.t.Helper()
	since := time.Now()
	c.b.eventually(30*time.Second, "all tasks of "+c.service+" tell of their calls", func() error {
		tasks := c.b.rows(c.service)
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, t := range tasks {
			if len(t.Container) < 12 {
				return fmt.Errorf("%s has no container", t.Address)
			}
			host := t.Container[:12]
			c.node[host] = t.Node
			if x := c.by[host]; x == nil || x.told.Before(since) || x.requests < 20 {
				return fmt.Errorf("%s on %s, %s (ready: %t), has told %s; %s", t.Address, t.Node, t.Container, t.Ready, x, c.last)
			}
		}
		return nil
	})
}

func (c *caller) String() string {
	if c == nil {
		return "nothing"
	}
	return fmt.Sprintf("at %s of %d requests, %d of them failed", c.told.Format(time.TimeOnly), c.requests, len(c.failures))
}

// count is how many calls were made by all that were ever heard, and those that failed
// outside of the spans that may gives for the node of the caller.
func (c *callers) count(may func(node string) []load.Span) (requests int64, failed int, bad []load.Failure) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, host := range slices.Sorted(maps.Keys(c.by)) {
		x, node := c.by[host], c.node[host]
		requests += x.requests
		failed += len(x.failures)
		for _, f := range load.Outside(slices.Collect(maps.Values(x.failures)), may(node)...) {
			f.Text = "from " + node + ": " + f.Text
			bad = append(bad, f)
		}
	}
	return requests, failed, bad
}

// want hears all callers, and fails the test if a call has failed that may not have.
func (c *callers) want(when string, may func(node string) []load.Span) {
	c.b.t.Helper()
	c.heard()
	requests, failed, bad := c.count(may)
	c.b.t.Logf("%s: %d requests of %s from inside until now, %d failed", when, requests, c.service, failed)
	if len(bad) > 0 {
		c.b.t.Errorf("%s: %d of %s's requests failed that were not on what was lost:%s", when, len(bad), c.service, load.Some(bad))
	}
}

func never(string) []load.Span { return nil }

// spread waits until so many tasks of web are ready, none of them on a node.
func (b *bed) spread(want int, not string) {
	b.t.Helper()
	b.eventually(time.Minute, fmt.Sprintf("%d tasks are ready, none on %s", want, not), func() error {
		got, all := b.tasksOf("web"), 0
		for _, n := range got {
			all += n
		}
		if all != want || got[not] > 0 {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
}

// api is a client of the server on a node.
func (b *bed) api(node string) *client.Client {
	b.t.Helper()
	c, err := client.New(client.Options{Socket: lab.DirOf(b.root, b.name).APISocket(node)})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(c.Close)
	return c
}

// withdrawn waits until no endpoint of web is on a node, and the others and their
// gateways serve that: nothing is sent there any more.
func (b *bed) withdrawn(api *client.Client, node string, others ...string) time.Time {
	b.t.Helper()
	ctx := b.t.Context()
	b.eventually(time.Minute, "the endpoints on "+node+" are withdrawn", func() error {
		svc, err := api.Service(ctx, cluster.ServiceID{App: "demo", Name: "web"})
		if err != nil || svc.Endpoint == nil {
			return fmt.Errorf("no endpoints: %w", err)
		}
		for _, e := range svc.Endpoint.Tasks {
			if string(e.Node) == node {
				return fmt.Errorf("%s is one", e.Task)
			}
		}
		for _, id := range others {
			n, err := api.Node(ctx, cluster.NodeID(id))
			if err != nil {
				return err
			}
			if n.Agent == nil || n.Agent.Endpoint < svc.EndpointRev || n.Gateway != nil && n.Gateway.Route < svc.EndpointRev {
				return fmt.Errorf("%s does not serve revision %d: %+v %+v", id, svc.EndpointRev, n.Agent, n.Gateway)
			}
		}
		return nil
	})
	return time.Now()
}

const replicas = 12 // of web

// What an operator and fate do to three nodes with two gateways while requests go on,
// from outside through each gateway and from inside, from a container on each node:
// nothing fails but what was on that which was lost, until that is known.
func TestNodesUnderLoad(t *testing.T) {
	for _, engine := range []string{lab.EngineDistro, lab.EngineCurrent} {
		t.Run(engine, func(t *testing.T) { underLoad(t, engine) })
	}
}

// upOn makes the lab on an engine that may have to be built first.
func (b *bed) upOn(engine string, args ...string) {
	b.t.Helper()
	out, err := b.try(append([]string{"up", "--engine", engine}, args...)...)
	if err != nil && strings.Contains(out, "make engine") {
		need.Skip(b.t, "needs a current engine: make engine")
	}
	if err != nil {
		b.t.Fatalf("up: %v\n%s", err, out)
	}
}

func underLoad(t *testing.T, engine string) {
	t.Helper()
	b := newBed(t)
	b.upOn(engine, "--nodes", "3", "--gateways", "2")
	b.aliveSoon("n1 n2 n3")
	b.deployVersion("1", replicas, calling("caller", "web"))
	gates := b.gates()
	if len(gates) != 2 {
		t.Fatalf("gateways %v", gates)
	}
	for _, g := range gates {
		g.serves()
	}
	inside := b.callers("caller", gates[0])
	inside.want("deployed", never)

	through := []*load.Load{gates[0].start(0), gates[1].start(1)}
	b.deployVersion("2", replicas, calling("caller", "web"))
	inside.want("rolling update", never)
	for _, n := range []string{"n1", "n2", "n3"} {
		b.cluster("node", "drain", n) // until nothing is there
		if left := b.tasksOf("web")[n]; left > 0 {
			t.Errorf("%s is drained, and %d tasks are there", n, left)
		}
		inside.want(n+" drained", never)
		b.spread(replicas, n)
		b.cluster("node", "activate", n) // the next one's tasks go there
	}
	b.cluster("restart", "demo/web") // spreads over all again
	inside.want("restarted", never)
	b.do("kill", "n3/fairlead") // the agent
	time.Sleep(time.Second)
	b.do("start", "n3/fairlead")
	b.aliveSoon("n1 n2 n3")
	inside.want("n3's agent killed", never)
	b.do("kill", "n1/fairlead") // server, agent and gateway; its Traefik goes on
	time.Sleep(2 * time.Second)
	b.do("start", "n1/fairlead")
	b.do("status", "--wait", "1m")
	b.aliveSoon("n1 n2 n3")
	inside.want("the server killed", never)
	for i, l := range through {
		l.WantNone(t, fmt.Sprintf("rolling update, three drains, restart, agent and server killed, through gateway %d", i+1))
	}
	inside.end() // of two who take turns with two tasks, each could hear the same one for ever
	losses(b, gates)
}

// siege is the requests that go on while things are lost, and which of them may fail.
type siege struct {
	*bed
	gates []gate
	api   *client.Client
	web   []*load.Load // by gateway
	calm  []*load.Load // to steady, whose tasks are never lost
	in    *callers     // of web
	quiet *callers     // of steady

	lost    []load.Span            // of tasks of web: until nothing is sent to them
	down    []load.Span            // of the second gateway: until it serves again
	away    map[string][]load.Span // of a node: what it calls itself
	counted [2]int                 // failures through the gateways until now
}

// losses are those that cost requests: of what was lost, until that is known.
func losses(b *bed, gates []gate) {
	b.t.Helper()
	b.deployVersion("3", replicas, calling("caller", "web")+calling("watcher", "steady")+steady)
	s := &siege{bed: b, gates: gates, api: b.api("n1"), away: map[string][]load.Span{}}
	s.in, s.quiet = b.callers("caller", gates[0]), b.callers("watcher", gates[0])
	for i, g := range gates {
		s.web = append(s.web, g.start(i))
		s.calm = append(s.calm, load.Start(b.t, g.client, []load.Request{{Name: "GET steady", Method: http.MethodGet, URL: "http://steady.example.com/"}}))
	}
	s.look("before", 0)
	s.traefikKilled()
	s.engineKilled()
	s.cutOff()
	s.powerLost()
	s.withoutServer()
}

// look fails the test if a request has failed that may not have. Within what may, each
// worker of a gateway has at most one request on each of the tasks that were lost.
func (s *siege) look(when string, lostTasks int) {
	s.t.Helper()
	s.in.want(when, func(node string) []load.Span { return append(slices.Clone(s.lost), s.away[node]...) })
	s.quiet.want(when, func(node string) []load.Span { return s.away[node] })
	for i := range s.gates {
		var down []load.Span
		if i == 1 {
			down = s.down
		}
		failures := s.web[i].Failures()
		onTasks := load.Outside(failures, down...)
		if bad := load.Outside(failures, append(slices.Clone(s.lost), down...)...); len(bad) > 0 {
			s.t.Errorf("%s: %d requests through gateway %d failed that were not on what was lost:%s", when, len(bad), i+1, load.Some(bad))
		}
		if most := 2 * lostTasks; len(onTasks)-s.counted[i] > most {
			s.t.Errorf("%s: %d requests through gateway %d failed with %d tasks lost, at most %d were on them:%s",
				when, len(onTasks)-s.counted[i], i+1, lostTasks, most, load.Some(onTasks[s.counted[i]:]))
		}
		calm := s.calm[i].Failures()
		if bad := load.Outside(calm, down...); len(bad) > 0 {
			s.t.Errorf("%s: %d requests through gateway %d to tasks that were never lost failed:%s", when, len(bad), i+1, load.Some(bad))
		}
		s.t.Logf("%s, through gateway %d until now: %d requests, %d failed on tasks that were lost, %d with the gateway; to steady %d, %d with the gateway",
			when, i+1, s.web[i].Made(), len(onTasks), len(failures)-len(onTasks), s.calm[i].Made(), len(calm))
		s.counted[i] = len(onTasks)
	}
}

// since is the span from then until now.
func since(then time.Time) load.Span { return load.Span{From: then, To: time.Now()} }

// traefikKilled costs what the second gateway held: until another Traefik takes over,
// connections wait.
func (s *siege) traefikKilled() {
	s.t.Helper()
	then := time.Now()
	s.do("exec", "n2", "--", "pkill", "-9", "-f", "^[^ ]*traefik")
	time.Sleep(100 * time.Millisecond)
	s.gates[1].serves()
	s.down = append(s.down, since(then))
	s.t.Logf("Traefik of n2 killed: all served after %s", time.Since(then).Round(time.Millisecond))
	s.look("Traefik of n2 killed", 0)
}

func (s *siege) engineKilled() {
	s.t.Helper()
	on, then := s.tasksOf("web")["n3"], time.Now()
	s.do("kill", "n3/docker")
	s.do("start", "n3/docker")
	s.eventually(time.Minute, "what Docker stopped when it came back runs again", func() error {
		for _, r := range s.rows("") {
			if r.Node == "n3" && r.Started.Before(then) {
				return fmt.Errorf("%s has run since %s", r.Address, r.Started)
			}
		}
		return nil
	})
	s.spread(replicas, "")
	s.do("status", "--wait", "1m")
	s.lost = append(s.lost, since(then))
	s.away["n3"] = append(s.away["n3"], since(then))
	s.look("Docker of n3 killed", on)
}

func (s *siege) cutOff() {
	s.t.Helper()
	on, then := s.tasksOf("web")["n3"], time.Now()
	s.do("cut", "n3")
	s.lost = append(s.lost, load.Span{From: then, To: s.withdrawn(s.api, "n3", "n1", "n2")})
	s.t.Logf("n3 cut off: withdrawn after %s", time.Since(then).Round(time.Millisecond))
	s.spread(replicas, "n3")
	s.t.Logf("n3 cut off: replaced after %s", time.Since(then).Round(time.Millisecond))
	s.away["n3"] = append(s.away["n3"], load.Span{From: then, To: then.Add(time.Hour)}) // until it is back
	s.look("n3 cut off", on)
	s.do("heal", "n3")
	s.aliveSoon("n1 n2 n3")
	s.eventually(30*time.Second, "no duplicates are left on n3", func() error {
		got := strings.Fields(s.do("exec", "n3", "--", "docker", "ps", "--format", "{{.Names}}"))
		if len(got) != 2 || strings.Contains(strings.Join(got, " "), "demo_web") {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
	s.away["n3"][len(s.away["n3"])-1].To = time.Now()
	s.look("n3 healed", 0)
	s.cluster("restart", "demo/web")
	s.look("spread again", 0)
}

func (s *siege) powerLost() {
	s.t.Helper()
	on, then := s.tasksOf("web")["n2"], time.Now()
	s.down = append(s.down, load.Span{From: then, To: then.Add(time.Hour)})
	s.away["n2"] = append(s.away["n2"], load.Span{From: then, To: then.Add(time.Hour)})
	s.do("kill", "n2")
	s.lost = append(s.lost, load.Span{From: then, To: s.withdrawn(s.api, "n2", "n1", "n3")})
	s.t.Logf("n2 without power: withdrawn after %s", time.Since(then).Round(time.Millisecond))
	s.spread(replicas, "n2")
	s.t.Logf("n2 without power: replaced after %s", time.Since(then).Round(time.Millisecond))
	s.look("n2 without power", on)
	s.do("start", "n2")
	s.aliveSoon("n1 n2 n3")
	s.gates[1].serves()
	s.down[len(s.down)-1].To, s.away["n2"][len(s.away["n2"])-1].To = time.Now(), time.Now()
	s.look("n2 is back", 0)
	s.cluster("restart", "demo/web")
	s.look("spread again", 0)
}

// withoutServer starts a node anew while there is no server: it runs what it ran, and
// its gateway serves the routes it knew. Nobody withdraws what is on it meanwhile.
func (s *siege) withoutServer() {
	s.t.Helper()
	s.spread(replicas, "")
	on, all := s.tasksOf("web")["n2"], s.tasks()["n2"]
	if on == 0 {
		s.t.Fatal("n2 has no task")
	}
	s.do("kill", "n1/fairlead")
	then := time.Now()
	s.do("kill", "n2")
	s.do("start", "n2")
	s.eventually(time.Minute, "n2 runs what it ran", func() error {
		out, err := s.try("exec", "n2", "--", "docker", "ps", "-q")
		if got := strings.Fields(out); err == nil && len(got) != all {
			err = fmt.Errorf("%d containers, not %d", len(got), all)
		}
		return err
	})
	s.gates[1].serves()
	s.gates[0].serves()
	span := since(then)
	s.lost, s.down, s.away["n2"] = append(s.lost, span), append(s.down, span), append(s.away["n2"], span)
	s.t.Logf("n2 started without a server: %d tasks and its gateway after %s", all, time.Since(then).Round(time.Millisecond))
	time.Sleep(time.Second)
	s.do("start", "n1/fairlead")
	s.do("status", "--wait", "1m")
	s.aliveSoon("n1 n2 n3")
	s.spread(replicas, "")
	s.look("n2 started anew without a server", on)
}
