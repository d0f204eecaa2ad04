package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/proxyconf"
	"github.com/fairlead/fairlead/store"
)

func TestGatewayRouteGoesLive(t *testing.T) {
	l := newGatewayLab(t)
	l.backend("127.77.1.1", 9000)
	var took []time.Duration
	for i := range 20 {
		host := fmt.Sprintf("r%d.example.com", i)
		l.service(gatewayService(fmt.Sprintf("r%d", i), []cluster.Route{{Host: host, Port: 9000}}))
		l.until("the route answers 503 without an endpoint", func() bool { s, _ := l.get(host, "/"); return s == http.StatusServiceUnavailable })
		start := time.Now()
		l.serve(fmt.Sprintf("r%d", i), "127.77.1.1")
		l.until("the route answers", func() bool { s, _ := l.get(host, "/"); return s == http.StatusOK })
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	t.Logf("endpoint written to first answer: median %s, slowest %s", took[len(took)/2], took[len(took)-1])
	if took[len(took)/2] > 2*time.Second {
		t.Errorf("a route takes %s to go live", took[len(took)/2])
	}
	if s, _ := l.get("unknown.example.com", "/"); s != http.StatusNotFound {
		t.Errorf("an unknown host answers %d", s)
	}
}

// A rolling update as rollout and agents do it: a task is added, another is
// withdrawn, and killed without mercy once the gateway has acknowledged that and
// no connection to it is left.
func TestGatewayUpdatesUnderLoad(t *testing.T) {
	l := newGatewayLab(t)
	ip := func(i int) string { return fmt.Sprintf("127.77.2.%d", i) }
	l.service(gatewayService("web", []cluster.Route{{Host: "web.example.com", Port: 9000}}))
	running := []*gatewayBackend{l.backend(ip(1), 9000), l.backend(ip(2), 9000)}
	l.acked(l.serve("web", ip(1), ip(2)))
	l.until("it answers", func() bool { s, _ := l.get("web.example.com", "/"); return s == http.StatusOK })
	load := l.load(l.web, "web.example.com")
	for i := 1; i <= 8; i++ {
		running = append(running, l.backend(ip(i+2), 9000))
		l.serve("web", ip(i), ip(i+1), ip(i+2))
		l.acked(l.serve("web", ip(i+1), ip(i+2)))
		l.until("no connection to the withdrawn task", func() bool { return running[i-1].conns.Load() == 0 })
		_ = running[i-1].Close()
	}
	load.none(t)
}

func TestGatewayMalformedRuleStopsNobodyElse(t *testing.T) {
	l := newGatewayLab(t)
	l.backend("127.77.3.1", 9000)
	l.service(gatewayService("good", []cluster.Route{{Host: "good.example.com", Port: 9000}}))
	bad := []cluster.Route{
		{Rule: "Host(`a.example.com`", Port: 9000},
		{Rule: "Host(`a.example.com`) && Nonsense(`x`)", Port: 9000},
		{Host: "b.example.com", Port: 9000, Middlewares: []cluster.Middleware{{Name: "m", Options: map[string]string{"ratelimit/average": "many"}}}},
		{Host: "c.example.com", Port: 9000, Middlewares: []cluster.Middleware{{Name: "m", Options: map[string]string{"no/such": "thing"}}}},
		{Host: "d.example.com", Port: 9000, Middlewares: []cluster.Middleware{{Name: "m", Options: map[string]string{"headers": "true"}}}},
		{Host: "e`) || Host(`good.example.com", Port: 9000},
		{Host: "f.example.com", Port: 9000, EntryPoints: []string{"traefik"}},
	}
	l.service(gatewayService("bad", bad))
	l.service(gatewayService("late", []cluster.Route{{Host: "late.example.com", Port: 9000}}))
	l.serve("bad", "127.77.3.1")
	l.serve("good", "127.77.3.1")
	l.acked(l.serve("late", "127.77.3.1"))
	for _, host := range []string{"good.example.com", "late.example.com"} {
		if s, body := l.get(host, "/"); s != http.StatusOK {
			t.Errorf("%s answers %d %s", host, s, body)
		}
	}
	if s, _ := l.get("a.example.com", "/"); s != http.StatusNotFound {
		t.Errorf("a refused route answers %d", s)
	}
	e, err := l.store.Get(t.Context(), store.DecisionKey("proxyconf", "shop/bad"))
	if err != nil {
		t.Fatal(err)
	}
	var d cluster.Decision
	if err := json.Unmarshal(e.Value, &d); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(d.Reason, "\n") + 1; n != len(bad) {
		t.Errorf("%d refusals recorded, not %d: %s", n, len(bad), d.Reason)
	}
	l.service(gatewayService("bad", nil))
	l.until("the refusals are taken back", func() bool {
		_, err := l.store.Get(t.Context(), store.DecisionKey("proxyconf", "shop/bad"))
		return cluster.KindOf(err) == cluster.KindNotFound
	})
}

// Routes of one app that overlap: Traefik goes by their priorities, over all that
// one may be, and by the lengths of their rules.
func TestGatewayPrioritiesOfOneApp(t *testing.T) {
	l := newGatewayLab(t)
	l.backend("127.77.5.1", 9000)
	marked := func(r cluster.Route) cluster.Route { // answers 403, the others 200
		r.Port, r.Middlewares = 9000, []cluster.Middleware{{Name: "m", Options: map[string]string{"ipallowlist/sourcerange": "192.0.2.1"}}}
		return r
	}
	l.service(gatewayService("web", []cluster.Route{
		{Rule: "Host(`e.example.com`) || Host(`www.e.example.com`)", Port: 9000},
		marked(cluster.Route{Host: "www.e.example.com", Priority: 100}),
		marked(cluster.Route{Host: "far.example.com", Priority: 100_000}),
		{Rule: "Host(`far.example.com`) && Path(`/x`)", Priority: 50_000, Port: 9000},
		{Host: "low.example.com", Port: 9000},
		marked(cluster.Route{Host: "low.example.com", Priority: -1}),
		{Host: "length.example.com", Port: 9000},
		marked(cluster.Route{Rule: "Host(`length.example.com`) && PathPrefix(`/`)"}),
	}))
	l.acked(l.serve("web", "127.77.5.1"))
	for _, c := range []struct {
		host, path string
		want       int
	}{
		{"e.example.com", "/", http.StatusOK},
		{"www.e.example.com", "/", http.StatusForbidden},
		{"far.example.com", "/", http.StatusForbidden},
		{"far.example.com", "/x", http.StatusForbidden},
		{"low.example.com", "/", http.StatusOK},
		{"length.example.com", "/", http.StatusForbidden},
	} {
		if s, body := l.get(c.host, c.path); s != c.want {
			t.Errorf("%s%s answers %d %s, not %d", c.host, c.path, s, body, c.want)
		}
	}
}

// Every option that proxyconf lets through is written at once: Traefik takes the
// tree, and none of the middlewares is in error but those that need a server.
func TestGatewayTraefikKnowsTheWholeVocabulary(t *testing.T) {
	l := newGatewayLab(t)
	l.backend("127.77.4.1", 9000)
	samples := proxyconf.Samples()
	if len(samples) < 18 {
		t.Fatalf("only %d kinds of middleware", len(samples))
	}
	var routes []cluster.Route
	for i, m := range samples {
		routes = append(routes, cluster.Route{Host: fmt.Sprintf("m%d.example.com", i), Port: 9000, Middlewares: []cluster.Middleware{m}})
	}
	l.service(gatewayService("all", routes))
	l.acked(l.serve("all", "127.77.4.1"))
	if _, err := l.store.Get(t.Context(), store.DecisionKey("proxyconf", "shop/all")); cluster.KindOf(err) != cluster.KindNotFound {
		e, _ := l.store.Get(t.Context(), store.DecisionKey("proxyconf", "shop/all"))
		t.Errorf("a sample was refused: %s", e.Value)
	}
	for i, m := range samples {
		if s, body := l.get(fmt.Sprintf("m%d.example.com", i), "/fairlead"); s == http.StatusNotFound || s == 0 {
			t.Errorf("%s: the router is not there: %d %s", m.Name, s, body)
		}
	}
}

// TestGatewayServesPastFailures: that a page fails is the app's affair, and no reason to
// answer for its other pages.
func TestGatewayServesPastFailures(t *testing.T) {
	l := newGatewayLab(t)
	ips := []string{"127.77.16.1", "127.77.16.2"}
	for _, ip := range ips {
		good := l.backend(ip, 9000).Handler
		fail := http.NewServeMux()
		fail.Handle("/", good)
		fail.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, ip, http.StatusInternalServerError) })
		l.backendOf(ip, 9001, fail)
	}
	l.service(gatewayService("web", []cluster.Route{{Host: "web.example.com", Port: 9001}}))
	l.acked(l.serve("web", ips...))
	l.until("it answers", func() bool { s, _ := l.get("web.example.com", "/"); return s == http.StatusOK })
	for i := range 60 {
		if s, body := l.get("web.example.com", "/broken"); s != http.StatusInternalServerError || !slices.Contains(ips, strings.TrimSpace(body)) {
			t.Fatalf("failure %d is not the app's own: %d %s", i, s, body)
		}
		if s, body := l.get("web.example.com", "/"); s != http.StatusOK {
			t.Fatalf("after %d failures of another page: %d %s", i+1, s, body)
		}
	}
	for range 60 {
		l.get("web.example.com", "/broken")
	}
	for range 10 {
		if s, body := l.get("web.example.com", "/"); s != http.StatusOK {
			t.Fatalf("after many failures of another page: %d %s", s, body)
		}
	}
}

// TestGatewayPassesByDeadServers: until the endpoint of a task that is gone is
// withdrawn, requests that meet it go to the one that lives, and do not wait for it
// again and again. A task that has none beside it is waited for.
func TestGatewayPassesByDeadServers(t *testing.T) {
	l := newGatewayLab(t)
	l.oneRoute("127.77.17.1")
	deaf(t, "127.77.17.2", 9000)
	const absent = "127.77.17.3" // refuses
	deaf(t, "127.77.17.4", 9000)
	dials := countDials(t, "127.77.17.2:9000", "127.77.17.4:9000")
	l.service(gatewayService("lone", []cluster.Route{{Host: "lone.example.com", Port: 9000}}))
	l.serve("lone", "127.77.17.4")
	l.acked(l.serve("web", "127.77.17.1", "127.77.17.2", absent))
	lone, stop := context.WithCancel(t.Context())
	defer stop()
	go gatewayGet(lone, l.web, "lone.example.com", "/")
	load := l.load(l.web, "web.example.com")
	time.Sleep(8 * time.Second)
	l.until("100 dials to a server that does not answer are refused", func() bool {
		tried, sent := dials.of(0)
		return tried-sent >= 100
	})
	tried, sent := dials.of(0)
	t.Logf("%d dials to the server that does not answer, %d of them sent", tried, sent)
	l.until("the only server of a service is dialled four times", func() bool {
		tried, _ := dials.of(1)
		return tried >= 4
	})
	load.none(t)
	stop()
	l.until("each dial to the only server of a service was sent", func() bool { // one may be on its way
		tried, sent := dials.of(1)
		return tried <= sent
	})
}

// deaf has a port whose packets are dropped, as those of a node that is gone are.
func deaf(t *testing.T, ip string, port int) {
	t.Helper()
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		drop := &unix.SockFprog{Len: 1, Filter: &unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}}
		return errors.Join(c.Control(func(fd uintptr) {
			err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, drop)
		}), err)
	}}
	ln, err := lc.Listen(t.Context(), "tcp", net.JoinHostPort(ip, strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
}
