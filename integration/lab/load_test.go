package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/integration/load"
	"github.com/fairlead/fairlead/integration/need"
	"github.com/fairlead/fairlead/lab"
)

const caller = `  caller:
    image: demo-web
    depends_on: {web: {condition: service_healthy}}
    environment: {VERSION: caller, UPSTREAM: "web:8080"}
    healthcheck: {test: [CMD, /app, check], interval: 1s, timeout: 10s, retries: 3, start_period: 20s}
    x-fairlead: {routes: [{host: caller.example.com, port: 8080}]}
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

// start makes half of all kinds of requests: two gateways and three nodes are on one
// machine, and what it can do is not what is tested.
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

// inside are requests of a container to the service, since the container started.
type inside struct {
	Requests, Failed int64
	Examples         []string
}

func (b *bed) inside(through gate) (out inside, err error) {
	resp, err := through.client(false).Get("http://caller.example.com/calls")
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return out, errors.New(resp.Status)
	}
	return out, json.NewDecoder(resp.Body).Decode(&out)
}

// insideFails fails the test if a request from inside has failed.
func (b *bed) insideFails(through gate, when string) {
	b.t.Helper()
	c, err := b.inside(through)
	if err != nil || c.Failed > 0 || c.Requests == 0 {
		b.t.Errorf("%s: from inside %+v, %v", when, c, err)
	}
	b.t.Logf("%s: %d requests from inside, %d failed", when, c.Requests, c.Failed)
}

func (b *bed) spread(want int, not string) {
	b.t.Helper()
	b.eventually(time.Minute, fmt.Sprintf("%d tasks are ready, none on %s", want, not), func() error {
		got, all := b.tasks(), 0
		for _, n := range got {
			all += n
		}
		if all != want || got[not] > 0 {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
}

// What an operator and fate do to three nodes with two gateways while requests go on,
// from outside through each gateway and from inside: nothing fails but what was on
// that which was killed.
func TestNodesUnderLoad(t *testing.T) {
	for _, engine := range []string{lab.EngineDistro, lab.EngineCurrent} {
		t.Run(engine, func(t *testing.T) { underLoad(t, engine) })
	}
}

func underLoad(t *testing.T, engine string) {
	t.Helper()
	b := newBed(t)
	out, err := b.try("up", "--nodes", "3", "--gateways", "2", "--engine", engine)
	if err != nil && strings.Contains(out, "make engine") {
		need.Skip(t, "needs a current engine: make engine")
	}
	if err != nil {
		t.Fatalf("up: %v\n%s", err, out)
	}
	b.aliveSoon("n1 n2 n3")
	const replicas = 12
	const all = replicas + 1
	b.deployVersion("1", replicas, caller)
	gates := b.gates()
	if len(gates) != 2 {
		t.Fatalf("gateways %v", gates)
	}
	for _, g := range gates {
		g.serves()
	}
	b.eventually(time.Minute, "requests from inside", func() error {
		c, err := b.inside(gates[0])
		if err == nil && c.Requests < 50 {
			err = fmt.Errorf("%+v", c)
		}
		return err
	})

	through := []*load.Load{gates[0].start(0), gates[1].start(1)}
	b.deployVersion("2", replicas, caller)
	b.insideFails(gates[0], "rolling update")
	for _, n := range []string{"n1", "n2", "n3"} {
		b.cluster("node", "drain", n)
		b.insideFails(gates[0], n+" drains")
		b.spread(all, n)
		b.insideFails(gates[0], n+" drained")
		b.cluster("node", "activate", n)
		b.cluster("restart", "demo/web") // spreads over all again
	}
	b.do("kill", "n3/fairlead") // the agent
	time.Sleep(time.Second)
	b.do("start", "n3/fairlead")
	b.aliveSoon("n1 n2 n3")
	b.do("kill", "n1/fairlead") // server, agent and gateway; its Traefik goes on
	time.Sleep(2 * time.Second)
	b.do("start", "n1/fairlead")
	b.do("status", "--wait", "1m")
	b.aliveSoon("n1 n2 n3")
	b.insideFails(gates[0], "agent and server killed")
	for i, l := range through {
		l.WantNone(t, fmt.Sprintf("rolling update, three drains, three restarts, agent and server killed, through gateway %d", i+1))
	}
	losses(t, b, gates)
}

// losses are those that cost requests: of what was lost, until that is known.
func losses(t *testing.T, b *bed, gates []gate) {
	t.Helper()
	through := []*load.Load{gates[0].start(0), gates[1].start(1)}
	var second, both []load.Span
	during := func(f func()) load.Span {
		s := load.Span{From: time.Now()}
		f()
		s.To = time.Now()
		return s
	}
	second = append(second, during(func() {
		b.do("exec", "n2", "--", "pkill", "-9", "-f", "^[^ ]*traefik")
		time.Sleep(100 * time.Millisecond)
		gates[1].serves()
	}))
	t.Logf("Traefik of n2 killed: all served after %s", second[0].To.Sub(second[0].From).Round(time.Millisecond))
	b.insideFails(gates[0], "Traefik of n2 killed")

	both = append(both, during(func() {
		b.do("kill", "n3/docker")
		b.do("start", "n3/docker")
		b.spread(13, "")
		gates[0].serves()
	}), during(func() {
		b.do("cut", "n3")
		b.spread(13, "n3")
		gates[0].serves()
	}))
	t.Logf("n3 cut off: replaced after %s", both[1].To.Sub(both[1].From).Round(time.Millisecond))
	b.do("heal", "n3")
	b.aliveSoon("n1 n2 n3")
	b.eventually(30*time.Second, "no duplicates are left on n3", func() error {
		if got := strings.Fields(b.do("exec", "n3", "--", "docker", "ps", "-q")); len(got) > 0 {
			return fmt.Errorf("%d containers", len(got))
		}
		return nil
	})
	b.cluster("restart", "demo/web")
	second = append(second, during(func() {
		both = append(both, during(func() {
			b.do("kill", "n2")
			b.spread(13, "n2")
			gates[0].serves()
		}))
		b.do("start", "n2")
		b.aliveSoon("n1 n2 n3")
		gates[1].serves()
	}))
	b.cluster("restart", "demo/web")
	for i, l := range through {
		l.WantNone(t, fmt.Sprintf("n2's Traefik and n3's Docker killed, n3 cut off, n2 without power, through gateway %d", i+1), append(both, [][]load.Span{nil, second}[i]...)...)
	}
	withoutServer(t, b, gates)
}

// withoutServer starts a node anew while there is no server: it runs what it ran, and
// its gateway serves the routes it knew.
func withoutServer(t *testing.T, b *bed, gates []gate) {
	t.Helper()
	b.spread(13, "")
	on := b.tasks()["n2"]
	if on == 0 {
		t.Fatal("n2 has no task")
	}
	b.do("kill", "n1/fairlead")
	l := gates[0].start(0)
	s := load.Span{From: time.Now()}
	b.do("kill", "n2")
	b.do("start", "n2")
	b.eventually(time.Minute, "n2 runs what it ran", func() error {
		out, err := b.try("exec", "n2", "--", "docker", "ps", "-q")
		if got := strings.Fields(out); err == nil && len(got) != on {
			err = fmt.Errorf("%d containers, not %d", len(got), on)
		}
		return err
	})
	gates[1].serves()
	gates[0].serves()
	s.To = time.Now()
	t.Logf("n2 started without a server: %d tasks and its gateway after %s", on, s.To.Sub(s.From).Round(time.Millisecond))
	time.Sleep(time.Second)
	b.do("start", "n1/fairlead")
	b.do("status", "--wait", "1m")
	b.aliveSoon("n1 n2 n3")
	b.spread(13, "")
	l.WantNone(t, "n2 started anew without a server, through n1's gateway", s)
}
