package integration

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
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/control"
	"github.com/fairlead/fairlead/gateway"
	"github.com/fairlead/fairlead/store"

	"github.com/fairlead/fairlead/integration/need"
)

// gatewayTraefik is the Traefik under test: the one named, else the gateway's own choice.
func gatewayTraefik() string { return os.Getenv("FAIRLEAD_TRAEFIK") }

// gatewayLab is one gateway with a real Traefik, fed by the real proxyconf loop
// from a store in memory. Servers are on the loopback, one address each.
type gatewayLab struct {
	t     *testing.T
	store *store.Memory
	cfg   gateway.Config
	gw    *gateway.Gateway
	web   string // address of the entry point
	stop  func() // ends the gateway as an orderly stop does; Traefik runs on
	log   *gatewayLog
}

// gatewayLog collects what is logged and shows it when the test fails.
type gatewayLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *gatewayLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *gatewayLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

var gatewayCount atomic.Int64

func newGatewayConfig(t *testing.T) gateway.Config {
	t.Helper()
	if os.Geteuid() != 0 {
		need.Skip(t, "the gateway needs root")
	}
	run, err := os.MkdirTemp("/dev/shm", "fairlead-gw-") //nolint:usetesting // it must be on a tmpfs
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(run) })
	cfg := gateway.Config{
		Cluster: fmt.Sprintf("gwtest-%d-%d", os.Getpid(), gatewayCount.Add(1)), Node: "n1",
		DataDir: t.TempDir(), RunDir: run, Traefik: gatewayTraefik(),
		Web: freeTCPPort(t), WebSecure: freeTCPPort(t), Internal: freeTCPPort(t),
		PrivateFrom: 22000, PrivateTo: 22999,
		KeepAliveMaxTime: 3 * time.Second, Grace: 3 * time.Second,
		Now: time.Now,
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
		defer cancel()
		if err := gateway.Shutdown(ctx, cfg, hclog.NewNullLogger()); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
	return cfg
}

func freeTCPPort(t *testing.T) int {
	t.Helper()
	// Below the range of outgoing connections, so that the port stays free.
	for range 200 {
		port := 23000 + int(gatewayCount.Add(1))*7%900
		if l, err := net.Listen("tcp", ":"+strconv.Itoa(port)); err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

func newGatewayLab(t *testing.T) *gatewayLab {
	t.Helper()
	l := &gatewayLab{t: t, store: store.NewMemory(), cfg: newGatewayConfig(t), log: &gatewayLog{}}
	l.web = "127.0.0.1:" + strconv.Itoa(l.cfg.Web)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log:\n%s", l.log)
			logs, _ := filepath.Glob(filepath.Join(l.cfg.DataDir, "gateway", "*.log"))
			for _, f := range logs {
				b, _ := os.ReadFile(f)
				t.Logf("%s:\n%s", f, b)
			}
		}
	})
	log := hclog.New(&hclog.LoggerOptions{Output: l.log, Level: hclog.Debug})
	m := store.NewMirror(l.store, store.Root, log)
	tree := store.NewMirror(l.store, store.TraefikRoot, log)
	pc := control.Proxyconf(l.store, m, tree, control.ProxyconfOptions{Reserved: l.cfg.Reserved(), Now: time.Now}, log)
	l.background(m.Run, tree.Run, pc.Run)
	l.run()
	return l
}

// background runs functions until the returned stop, or the test's end.
func (l *gatewayLab) background(fs ...func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(l.t.Context()))
	var eg errgroup.Group
	for _, f := range fs {
		eg.Go(func() error {
			if err := f(ctx); err != nil && !errors.Is(err, context.Canceled) {
				l.t.Errorf("ended: %v", err)
			}
			return nil
		})
	}
	stop = sync.OnceFunc(func() { cancel(); _ = eg.Wait() })
	l.t.Cleanup(stop)
	return stop
}

// run starts the gateway.
func (l *gatewayLab) run() {
	l.t.Helper()
	log := hclog.New(&hclog.LoggerOptions{Output: l.log, Level: hclog.Debug})
	gw, err := gateway.New(l.cfg, control.GatewayStore{Store: l.store}, log)
	if err != nil {
		l.t.Fatal(err)
	}
	l.gw = gw
	l.stop = l.background(gw.Run)
}

func (l *gatewayLab) put(key string, v any) cluster.StoreRev {
	l.t.Helper()
	op, err := store.PutJSON(key, v)
	if err != nil {
		l.t.Fatal(err)
	}
	rev, err := l.store.Commit(l.t.Context(), store.Txn{Then: []store.Op{op}})
	if err != nil {
		l.t.Fatal(err)
	}
	return cluster.StoreRev(rev)
}

func gatewayService(name string, routes []cluster.Route, ports ...cluster.PublishedPort) cluster.Service {
	return cluster.Service{
		ServiceID: cluster.ServiceID{App: "shop", Name: cluster.ServiceName(name)},
		Spec:      cluster.ServiceSpec{Routes: routes, Ports: ports},
	}
}

func (l *gatewayLab) service(s cluster.Service) { l.put(store.ServiceKey(s.ServiceID), s) }

// serve writes the endpoints of a service: one task on each address.
func (l *gatewayLab) serve(name string, ips ...string) cluster.StoreRev {
	id := cluster.ServiceID{App: "shop", Name: cluster.ServiceName(name)}
	e := cluster.Endpoints{ServiceID: id, Networks: []cluster.NetworkName{"shop_default"}}
	for i, ip := range ips {
		e.Tasks = append(e.Tasks, cluster.Endpoint{
			Task: cluster.TaskID("shop_" + name + "." + ip), Slot: i + 1, Node: "n1",
			Addresses: map[cluster.NetworkName]string{"shop_default": ip},
		})
	}
	return l.put(store.EndpointsKey(id), e)
}

func (l *gatewayLab) ack() cluster.GatewayAck {
	var a cluster.GatewayAck
	e, err := l.store.Get(l.t.Context(), store.GatewayAckKey("n1"))
	if err == nil {
		err = json.Unmarshal(e.Value, &a)
	}
	if err != nil && cluster.KindOf(err) != cluster.KindNotFound {
		l.t.Fatal(err)
	}
	return a
}

// acked waits until the gateway acknowledges rev.
func (l *gatewayLab) acked(rev cluster.StoreRev) {
	l.t.Helper()
	l.until(fmt.Sprintf("revision %d acknowledged", rev), func() bool { return l.ack().Route >= rev })
}

func (l *gatewayLab) until(what string, ok func() bool) {
	l.t.Helper()
	deadline := time.Now().Add(need.Patience * 40 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			l.t.Fatalf("waited in vain until: %s; last acknowledgement %+v", what, l.ack())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// get asks once and returns the status and the body; 0 when it did not come so far.
func (l *gatewayLab) get(host, path string) (int, string) {
	return gatewayGet(l.t.Context(), l.web, host, path)
}

var gatewayOnce = &http.Client{
	Timeout: 15 * time.Second, Transport: &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func gatewayGet(ctx context.Context, addr, host, path string) (int, string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		return 0, err.Error()
	}
	req.Host = host
	resp, err := gatewayOnce.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}

// gatewayBackend is a server on an address of its own, which says its address and
// how many bytes it was sent.
type gatewayBackend struct {
	*http.Server
	conns atomic.Int64
}

func (l *gatewayLab) backend(ip string, port int) *gatewayBackend {
	l.t.Helper()
	return l.backendOf(ip, port, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("X-Got", strconv.FormatInt(n, 10))
		fmt.Fprint(w, ip)
	}))
}

// backendOf is a server on an address of its own that answers by h.
func (l *gatewayLab) backendOf(ip string, port int, h http.Handler) *gatewayBackend {
	l.t.Helper()
	ln, err := net.Listen("tcp", net.JoinHostPort(ip, strconv.Itoa(port)))
	if err != nil {
		l.t.Fatal(err)
	}
	b := &gatewayBackend{}
	b.Server = &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		ConnState: func(_ net.Conn, s http.ConnState) {
			switch s {
			case http.StateNew:
				b.conns.Add(1)
			case http.StateClosed, http.StateHijacked:
				b.conns.Add(-1)
			case http.StateActive, http.StateIdle:
			}
		},
		Handler: h,
	}
	go func() { _ = b.Serve(ln) }()
	l.t.Cleanup(func() { _ = b.Close() })
	return b
}

// gatewayLoad is constant traffic: GET and POST, with kept connections and without.
type gatewayLoad struct {
	sent, failed atomic.Int64
	mu           sync.Mutex
	errors       map[string]int
	stop         func()
}

func (l *gatewayLab) load(addr, host string) *gatewayLoad {
	ctx, cancel := context.WithCancel(l.t.Context())
	g := &gatewayLoad{errors: map[string]int{}}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			c := &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{DisableKeepAlives: i%2 == 0}}
			defer c.CloseIdleConnections()
			for n := 0; ctx.Err() == nil; n++ {
				g.one(context.WithoutCancel(ctx), c, addr, host, i < 4)
				// A bounded rate: this is about losing none, not about how many.
				select {
				case <-ctx.Done():
				case <-time.After(4 * time.Millisecond):
				}
			}
		})
	}
	g.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	l.t.Cleanup(g.stop)
	return g
}

func (g *gatewayLoad) one(ctx context.Context, c *http.Client, addr, host string, post bool) {
	method, body := http.MethodGet, io.Reader(nil)
	if post {
		// A body that cannot be read twice: no client library repeats it for us.
		method, body = http.MethodPost, io.NopCloser(strings.NewReader(strings.Repeat("x", 2000)))
	}
	err := func() error {
		req, err := http.NewRequestWithContext(ctx, method, "http://"+addr+"/", body)
		if err != nil {
			return err
		}
		req.Host = host
		resp, err := c.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d", resp.StatusCode)
		}
		if post && resp.Header.Get("X-Got") != "2000" {
			return fmt.Errorf("the server got %s bytes of 2000", resp.Header.Get("X-Got"))
		}
		return nil
	}()
	g.sent.Add(1)
	if err != nil {
		g.failed.Add(1)
		g.mu.Lock()
		g.errors[method+" "+err.Error()]++
		g.mu.Unlock()
	}
}

func (g *gatewayLoad) none(t *testing.T) {
	t.Helper()
	// What is over in a moment leaves time for few: it goes on until there are enough.
	for end := time.Now().Add(10 * time.Second); g.sent.Load() < 100 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	g.stop()
	if g.failed.Load() != 0 || g.sent.Load() < 100 {
		t.Errorf("%d of %d requests failed: %v", g.failed.Load(), g.sent.Load(), g.errors)
	}
	t.Logf("%d requests, %d failed", g.sent.Load(), g.failed.Load())
}

// gatewayPID returns the PID of the current Traefik, from the state file.
func (l *gatewayLab) pid() int {
	l.t.Helper()
	return gatewayPID(l.t, l.cfg)
}

func gatewayPID(t *testing.T, cfg gateway.Config) int {
	t.Helper()
	var s struct {
		Current struct {
			PID int `json:"pid"`
		} `json:"current"`
	}
	b, err := os.ReadFile(filepath.Join(cfg.DataDir, "gateway", "state.json"))
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		t.Fatalf("the state file: %v %s", err, b)
	}
	return s.Current.PID // 0 while none is published
}
