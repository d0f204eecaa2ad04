package names

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	mdns "github.com/miekg/dns"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/dns"
	"github.com/fairlead/fairlead/integration/need"
	"github.com/fairlead/fairlead/proc"
)

// This test program is the process too: it has this package's init.

var (
	front  = dns.Network{Name: "front", Subnet: netip.MustParsePrefix("127.3.1.0/24"), Gateway: netip.MustParseAddr("127.3.1.1")}
	back   = dns.Network{Name: "back", Subnet: netip.MustParsePrefix("127.3.2.0/24"), Gateway: netip.MustParseAddr("127.3.2.1")}
	webFor = func(vip string) []cluster.Endpoints {
		return []cluster.Endpoints{{
			ServiceID: cluster.ServiceID{App: "shop", Name: "web"}, Address: vip, Networks: []cluster.NetworkName{"front", "back"},
		}}
	}
)

type harness struct {
	t    *testing.T
	cfg  Config
	stop func()

	mu     sync.Mutex
	rev    cluster.StoreRev
	reason error
}

func newHarness(t *testing.T) *harness {
	t.Helper()
	dir, err := os.MkdirTemp("", "fln-") //nolint:usetesting // a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	h := &harness{t: t}
	h.cfg = Config{
		Dir: filepath.Join(dir, "names"), Services: netip.MustParsePrefix("10.212.0.0/16"), Now: time.Now, Port: freePort(t), ResolvConf: "/nonexistent",
		Log: hclog.New(&hclog.LoggerOptions{Output: testWriter{t}, Level: hclog.Debug}),
		Serving: func(rev cluster.StoreRev, err error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.rev, h.reason = max(rev, h.rev), err
		},
	}
	t.Cleanup(func() {
		if t.Failed() {
			b, _ := os.ReadFile(logFile(h.cfg.Dir))
			t.Logf("the process said:\n%s", b)
		}
		if err := Shutdown(context.WithoutCancel(t.Context()), h.cfg.Dir, h.cfg.Log); err != nil {
			t.Error(err)
		}
		if left := strays(h.cfg.Dir); len(left) != 0 {
			t.Errorf("left running: %v", left)
		}
		_ = os.RemoveAll(dir)
	})
	return h
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// freePort is a port that nothing listens on.
func freePort(t *testing.T) uint16 {
	t.Helper()
	return uint16(need.Port(t))
}

// server is a server of the moment: it starts, and stop ends it as a crash would.
func (h *harness) server() *Names {
	h.t.Helper()
	n := New(h.cfg)
	ctx, cancel := context.WithCancel(h.t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			h.t.Errorf("Run returned %v", err)
		}
	})
	h.t.Cleanup(h.stop)
	return n
}

func (h *harness) eventually(what string, f func() error) {
	h.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (h *harness) served(rev cluster.StoreRev) {
	h.t.Helper()
	h.eventually(fmt.Sprintf("revision %d is served", rev), func() error {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.rev < rev || h.reason != nil {
			return fmt.Errorf("it is %d, %w", h.rev, h.reason)
		}
		return nil
	})
}

// ask asks once, as a container of a network, and waits no longer than limit.
func (h *harness) ask(network, from, to, name string, limit time.Duration) (string, error) {
	var local net.Addr = &net.UDPAddr{IP: net.ParseIP(from)}
	if network == "tcp" {
		local = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	c := mdns.Client{Net: network, Timeout: limit, Dialer: &net.Dialer{LocalAddr: local, Timeout: limit}}
	r, _, err := c.ExchangeContext(context.WithoutCancel(h.t.Context()), new(mdns.Msg).SetQuestion(mdns.Fqdn(name), mdns.TypeA), net.JoinHostPort(to, fmt.Sprint(h.cfg.Port)))
	if err != nil {
		return "", err
	}
	if len(r.Answer) == 0 {
		return mdns.RcodeToString[r.Rcode], nil
	}
	return r.Answer[0].(*mdns.A).A.String(), nil
}

func (h *harness) wants(from, to, name, want string) {
	h.t.Helper()
	if got, err := h.ask("udp", from, to, name, 10*time.Second); err != nil || got != want {
		h.t.Errorf("%s asks %s for %s: %s, %v; want %s", from, to, name, got, err, want)
	}
}

func TestFedAsItIsSet(t *testing.T) {
	h := newHarness(t)
	n := h.server()
	n.SetEndpoints(webFor("10.212.0.1"), 7)
	if err := n.SetNetworks(t.Context(), []dns.Network{front}); err != nil {
		t.Fatal(err)
	}
	h.wants("127.3.1.9", "127.3.1.1", "web", "10.212.0.1")
	h.served(7)
	n.SetEndpoints(webFor("10.212.0.2"), 8)
	h.served(8)
	h.wants("127.3.1.9", "127.3.1.1", "web", "10.212.0.2")
	if err := n.SetNetworks(t.Context(), []dns.Network{front, back}); err != nil {
		t.Fatal(err)
	}
	h.wants("127.3.2.9", "127.3.2.1", "web", "10.212.0.2")
	n.Started([]dns.Container{{Addr: netip.MustParseAddr("127.3.1.9"), Task: "t", App: "shop", Networks: []cluster.NetworkName{"front"}, OwnServers: true}})
	h.wants("127.3.1.9", "127.3.1.1", "example.com", "SERVFAIL")
	// A port that is taken is named, and does not stop the others.
	third := dns.Network{Name: "third", Subnet: netip.MustParsePrefix("127.3.3.0/24"), Gateway: netip.MustParseAddr("127.3.3.1")}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", fmt.Sprintf("127.3.3.1:%d", h.cfg.Port))
	if err != nil {
		t.Fatal(err)
	}
	if err := n.SetNetworks(t.Context(), []dns.Network{front, third}); err == nil || !strings.Contains(err.Error(), "127.3.3.1") {
		t.Errorf("a taken port: %v", err)
	}
	h.wants("127.3.1.9", "127.3.1.1", "web", "10.212.0.2")
	_ = l.Close()
	h.eventually("it tries again", func() error {
		got, err := h.ask("udp", "127.3.3.9", "127.3.3.1", "web", 5*time.Second) // it waits for its container
		if err == nil && got != "NXDOMAIN" {
			err = errors.New(got)
		}
		return err
	})
	if len(n.want) == 0 {
		t.Error("nothing is wanted")
	}
}

// load asks all the time, each question once, and counts what is not answered
// with one of the addresses.
type load struct {
	asked, failed atomic.Int64
	end           func()
}

func (h *harness) load(limit time.Duration) *load {
	l := &load{}
	ctx, cancel := context.WithCancel(h.t.Context())
	var all sync.WaitGroup
	for _, network := range []string{"udp", "udp", "tcp"} {
		all.Go(func() {
			for ctx.Err() == nil {
				l.asked.Add(1)
				if got, err := h.ask(network, "127.3.1.9", "127.3.1.1", "web", limit); err != nil || !strings.HasPrefix(got, "10.212.") {
					if l.failed.Add(1) <= 5 {
						h.t.Logf("asked over %s: %s %v", network, got, err)
					}
				}
			}
		})
	}
	l.end = sync.OnceFunc(func() { cancel(); all.Wait() })
	h.t.Cleanup(l.end)
	return l
}

func (l *load) more(h *harness) {
	h.t.Helper()
	from := l.asked.Load()
	h.eventually("questions go on", func() error {
		if l.asked.Load() < from+20 {
			return errors.New("they do not")
		}
		return nil
	})
}

func (l *load) wantNone(t *testing.T, what string) {
	t.Helper()
	l.end()
	t.Logf("%s: %d lookups, %d failed", what, l.asked.Load(), l.failed.Load())
	if l.failed.Load() != 0 {
		t.Errorf("%s: %d of %d lookups failed", what, l.failed.Load(), l.asked.Load())
	}
}

// Names outlive the server, and the next one goes on with the same process.
func TestServersComeAndGo(t *testing.T) {
	h := newHarness(t)
	n := h.server()
	n.SetEndpoints(webFor("10.212.0.1"), 7)
	n.Started([]dns.Container{{Addr: netip.MustParseAddr("127.3.1.20"), Task: "t", App: "shop", Networks: []cluster.NetworkName{"front"}, OwnServers: true}})
	if err := n.SetNetworks(t.Context(), []dns.Network{front}); err != nil {
		t.Fatal(err)
	}
	pid := Running(h.cfg.Dir)
	l := h.load(10 * time.Second)
	for i := range 5 {
		h.stop()
		l.more(h)
		n = h.server()
		if i == 3 { // it knows again
			n.SetEndpoints(webFor("10.212.0.2"), 8)
			h.served(8)
		}
		l.more(h)
		h.wants("127.3.1.20", "127.3.1.1", "example.com", "SERVFAIL") // its container is still known
	}
	n.Ended("t")
	l.wantNone(t, "servers that come and go")
	if now := Running(h.cfg.Dir); now != pid || pid == 0 {
		t.Errorf("the process was %d and is %d", pid, now)
	}
	h.wants("127.3.1.9", "127.3.1.1", "web", "10.212.0.2")
}

// The process itself killed: what is asked meanwhile waits in the sockets that the
// server holds. Only what it had read and not answered is lost, and that is asked
// again by any program.
func TestProcessKilled(t *testing.T) {
	h := newHarness(t)
	n := h.server()
	n.SetEndpoints(webFor("10.212.0.1"), 7)
	if err := n.SetNetworks(t.Context(), []dns.Network{front}); err != nil {
		t.Fatal(err)
	}
	h.served(7)
	l := h.load(15 * time.Second)
	const kills = 5
	for range kills {
		l.more(h)
		pid := Running(h.cfg.Dir)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		h.eventually("another process", func() error {
			if now := Running(h.cfg.Dir); now == pid || now == 0 {
				return fmt.Errorf("it is %d", now)
			}
			return nil
		})
		l.more(h)
	}
	l.end()
	t.Logf("killed %d times: %d lookups, %d failed", kills, l.asked.Load(), l.failed.Load())
	if l.failed.Load() > 3*kills { // one in flight for each worker
		t.Errorf("%d lookups failed", l.failed.Load())
	}
}

// Both killed: the next server's process begins with what was kept, before the
// server knows anything.
func TestBothKilled(t *testing.T) {
	h := newHarness(t)
	n := h.server()
	n.SetEndpoints(webFor("10.212.0.1"), 7)
	if err := n.SetNetworks(t.Context(), []dns.Network{front}); err != nil {
		t.Fatal(err)
	}
	h.served(7)
	h.stop()
	pid := Running(h.cfg.Dir)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.eventually("it is gone", func() error {
		if Running(h.cfg.Dir) != 0 {
			return errors.New("it runs")
		}
		return nil
	})
	h.server()
	h.eventually("it answers", func() error {
		got, err := h.ask("udp", "127.3.1.9", "127.3.1.1", "web", time.Second)
		if err == nil && got != "10.212.0.1" {
			t.Errorf("it answers %s", got)
		}
		return err
	})
}

// An upgrade: the process of another program is replaced, and loses no question.
func TestProcessOfAnotherProgramIsReplaced(t *testing.T) {
	h := newHarness(t)
	n := h.server()
	n.SetEndpoints(webFor("10.212.0.1"), 7)
	if err := n.SetNetworks(t.Context(), []dns.Network{front, back}); err != nil {
		t.Fatal(err)
	}
	l := h.load(10 * time.Second)
	for range 5 {
		h.stop()
		r, ok := readRecord(h.cfg.Dir)
		if !ok {
			t.Fatal("no record")
		}
		before := r.PID
		r.Program = "another"
		if err := r.write(h.cfg.Dir); err != nil {
			t.Fatal(err)
		}
		h.server()
		h.eventually("it is replaced", func() error {
			if now := Running(h.cfg.Dir); now == before || now == 0 || r.Alive() {
				return fmt.Errorf("%d was %d", now, before)
			}
			return nil
		})
		l.more(h)
	}
	l.wantNone(t, "five upgrades")
}

// What answers there and is not the one that is recorded would answer with what
// was true once.
func TestStraysAreEnded(t *testing.T) {
	h := newHarness(t)
	n := h.server()
	n.SetEndpoints(webFor("10.212.0.1"), 7)
	if err := n.SetNetworks(t.Context(), []dns.Network{front}); err != nil {
		t.Fatal(err)
	}
	h.stop()
	r, _ := readRecord(h.cfg.Dir)
	if err := os.Remove(recordFile(h.cfg.Dir)); err != nil {
		t.Fatal(err)
	}
	h.server()
	h.eventually("another serves alone", func() error {
		if Running(h.cfg.Dir) == 0 || r.Alive() {
			return errors.New("not yet")
		}
		return nil
	})
	h.eventually("it answers", func() error {
		_, err := h.ask("udp", "127.3.1.9", "127.3.1.1", "web", time.Second)
		return err
	})
}

// A process that hangs is ended, one that cannot be started is told.
func TestProcessThatDoesNotWork(t *testing.T) {
	h := newHarness(t)
	h.cfg.Program = "/nonexistent/fairlead"
	n := h.server()
	n.SetEndpoints(nil, 7)
	h.eventually("it is told", func() error {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.reason == nil || !strings.Contains(h.reason.Error(), "/nonexistent/fairlead") {
			return fmt.Errorf("the reason is %w", h.reason)
		}
		return nil
	})
	h.stop()
	h.cfg.Program = ""
	n = h.server()
	n.SetEndpoints(webFor("10.212.0.1"), 8)
	h.served(8)
	pid := Running(h.cfg.Dir)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// A server that comes now gets no answer.
	id := proc.ID{PID: pid}
	for _, s := range strays(h.cfg.Dir) {
		id = s.ID
	}
	h.stop()
	h.cfg.Now = func() time.Time { return time.Now().Add(300*time.Millisecond - answerWithin) }
	n = h.server()
	n.SetEndpoints(webFor("10.212.0.1"), 9)
	h.eventually("the hanging one is ended", func() error {
		if id.Alive() {
			return errors.New("it is there")
		}
		return nil
	})
}
