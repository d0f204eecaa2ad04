package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/miekg/dns"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/integration/need"
)

// freePort is a port that nothing listens on.
func freePort(t *testing.T) uint16 {
	t.Helper()
	return uint16(need.Port(t))
}

// upstreamAt answers on one address and counts what it is asked. Long answers
// are cut for UDP, as real servers do.
func upstreamAt(t *testing.T, addr string, rcode int) (asked func() []string) {
	t.Helper()
	var mu sync.Mutex
	var questions []string
	h := dns.HandlerFunc(func(w dns.ResponseWriter, req *dns.Msg) {
		mu.Lock()
		questions = append(questions, w.RemoteAddr().Network()+" "+req.Question[0].Name)
		mu.Unlock()
		resp := new(dns.Msg).SetRcode(req, rcode)
		if rcode == dns.RcodeSuccess {
			n := 1
			if strings.HasPrefix(req.Question[0].Name, "long") {
				n = 100
			}
			for i := range n {
				resp.Answer = append(resp.Answer, &dns.A{
					Hdr: dns.RR_Header{Name: req.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(192, 0, 2, byte(i)),
				})
			}
		}
		if w.RemoteAddr().Network() == "udp" {
			size := dns.MinMsgSize
			if o := req.IsEdns0(); o != nil {
				size = int(o.UDPSize())
			}
			resp.Truncate(size)
		}
		_ = w.WriteMsg(resp)
	})
	pc, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	t.Cleanup(done.Wait) // runs after the others below
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: h}, {Listener: ln, Handler: h}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		done.Go(func() { _ = s.ActivateAndServe() })
		<-started
		t.Cleanup(func() { _ = s.ShutdownContext(context.Background()) })
	}
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(questions)
	}
}

// testServer listens on 127.1.x.1 as the gateways of three networks 127.1.x.0/24.
type testServer struct {
	*Server
	port uint16
	conf string
}

var loNets = []Network{
	{Name: front, Subnet: netip.MustParsePrefix("127.1.1.0/24"), Gateway: ip("127.1.1.1")},
	{Name: back, Subnet: netip.MustParsePrefix("127.1.2.0/24"), Gateway: ip("127.1.2.1"), Internal: true},
}

func startServer(t *testing.T, nameservers ...string) *testServer {
	t.Helper()
	s := &testServer{port: freePort(t), conf: filepath.Join(t.TempDir(), "resolv.conf")}
	s.resolvConf(t, nameservers...)
	s.Server = New(Config{Services: services, ResolvConf: s.conf, Port: s.port, Log: hclog.NewNullLogger()})
	s.up.port = s.port
	s.SetEndpoints([]cluster.Endpoints{
		{ServiceID: cluster.ServiceID{App: "shop", Name: "web"}, Address: "10.212.0.1", Networks: []cluster.NetworkName{front}},
		{ServiceID: cluster.ServiceID{App: "shop", Name: "db"}, Address: "10.212.0.2", Networks: []cluster.NetworkName{back}, Tasks: []cluster.Endpoint{
			{Slot: 1, Addresses: on(back, "127.1.2.7", front, "127.1.1.7")},
		}},
	})
	if err := s.SetNetworks(t.Context(), loNets); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
		if r, err := s.ask(context.Background(), "127.1.1.9", "127.1.1.1", "udp", "web"); err == nil {
			t.Errorf("answers after its end: %v", r)
		}
	})
	return s
}

func (s *testServer) resolvConf(t *testing.T, nameservers ...string) {
	t.Helper()
	var b strings.Builder
	for _, n := range nameservers {
		fmt.Fprintf(&b, "nameserver %s\n", n)
	}
	if err := os.WriteFile(s.conf, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s *testServer) ask(ctx context.Context, from, to, network, name string) (*dns.Msg, error) {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)
	var local net.Addr = &net.UDPAddr{IP: net.ParseIP(from)}
	if network == "tcp" {
		local = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	c := dns.Client{Net: network, Timeout: 2 * time.Second, Dialer: &net.Dialer{LocalAddr: local, Timeout: 2 * time.Second}}
	r, _, err := c.ExchangeContext(ctx, m, net.JoinHostPort(to, fmt.Sprint(s.port)))
	return r, err
}

func TestServerKnowsWhoAsks(t *testing.T) {
	s := startServer(t)
	for _, c := range []struct {
		from, to, name string
		rcode          int
		answer         string
	}{
		{"127.1.1.9", "127.1.1.1", "web", dns.RcodeSuccess, "10.212.0.1"},
		{"127.1.1.9", "127.1.1.1", "db", dns.RcodeNameError, ""},         // not on that network
		{"127.1.1.7", "127.1.1.1", "db", dns.RcodeSuccess, "10.212.0.2"}, // on both: a ready task
		{"127.1.2.9", "127.1.2.1", "db", dns.RcodeSuccess, "10.212.0.2"},
		{"127.1.2.9", "127.1.1.1", "web", dns.RcodeRefused, ""},           // another network's server
		{"127.0.0.1", "127.1.1.1", "web", dns.RcodeRefused, ""},           // no container
		{"127.1.2.9", "127.1.2.1", "example.com", dns.RcodeNameError, ""}, // internal: not forwarded
	} {
		for _, network := range []string{"udp", "tcp"} {
			r, err := s.ask(t.Context(), c.from, c.to, network, c.name)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if len(r.Answer) > 0 {
				got = r.Answer[0].(*dns.A).A.String()
			}
			if r.Rcode != c.rcode || got != c.answer {
				t.Errorf("%s asks %s over %s for %s: %s %q", c.from, c.to, network, c.name, dns.RcodeToString[r.Rcode], got)
			}
		}
	}
}

func TestServerAsksTheAgentFirst(t *testing.T) {
	s := startServer(t)
	s.SetContainers([]Container{
		{Addr: ip("127.1.1.20"), App: "shop", Networks: []cluster.NetworkName{back, front}}, // starting: not an endpoint yet
		{Addr: ip("127.1.1.21"), App: "shop", Networks: []cluster.NetworkName{front}},
	})
	for from, want := range map[string]int{"127.1.1.20": dns.RcodeSuccess, "127.1.1.21": dns.RcodeNameError, "127.1.1.7": dns.RcodeSuccess} {
		if r, err := s.ask(t.Context(), from, "127.1.1.1", "udp", "db"); err != nil || r.Rcode != want {
			t.Errorf("%s: %v %v", from, r, err)
		}
	}
}

// A container asks before the engine has told its address: it is waited for.
func TestServerWaitsForANewcomer(t *testing.T) {
	s := startServer(t, "127.1.9.1")
	node := upstreamAt(t, fmt.Sprintf("127.1.9.1:%d", s.port), dns.RcodeSuccess)
	s.SetContainers(nil)
	got := make(chan int, 2)
	for _, name := range []string{"db", "example.com"} {
		go func() {
			r, err := s.ask(context.WithoutCancel(t.Context()), "127.1.1.30", "127.1.1.1", "udp", name)
			if err != nil {
				t.Error(err)
				got <- -1
				return
			}
			got <- r.Rcode
		}()
	}
	deadline := time.Now().Add(10 * time.Second)
	for len(s.waiting) < 2 {
		if time.Now().After(deadline) {
			t.Fatal("nobody waits")
		}
		runtime.Gosched()
	}
	s.SetContainers([]Container{{Addr: ip("127.1.1.31")}}) // somebody else
	s.SetContainers([]Container{{Addr: ip("127.1.1.30"), App: "shop", Networks: []cluster.NetworkName{back, front}, OwnServers: true}})
	if a, b := <-got, <-got; a+b != dns.RcodeSuccess+dns.RcodeServerFailure {
		t.Errorf("got %s and %s", dns.RcodeToString[a], dns.RcodeToString[b])
	}
	if q := node(); len(q) != 0 {
		t.Errorf("the node's resolver was asked %v for a container with servers of its own", q)
	}
}

// What is not ours goes to the servers of the service, if it names some.
func TestServerLeavesOwnServersToTheContainer(t *testing.T) {
	s := startServer(t, "127.1.9.1")
	node := upstreamAt(t, fmt.Sprintf("127.1.9.1:%d", s.port), dns.RcodeSuccess)
	s.SetContainers([]Container{
		{Addr: ip("127.1.1.20"), App: "shop", Networks: []cluster.NetworkName{front}, OwnServers: true},
		{Addr: ip("127.1.2.20"), App: "shop", Networks: []cluster.NetworkName{back}, OwnServers: true},
		{Addr: ip("127.1.2.21"), App: "shop", Networks: []cluster.NetworkName{back, front}},
		{Addr: ip("127.1.2.22"), App: "shop", Networks: []cluster.NetworkName{back}},
	})
	for _, c := range []struct {
		from, to, name string
		rcode          int
		final          bool // the engine must not ask another server
	}{
		{"127.1.1.20", "127.1.1.1", "web", dns.RcodeSuccess, true},
		{"127.1.1.20", "127.1.1.1", "tasks.nothere", dns.RcodeNameError, true},
		{"127.1.1.20", "127.1.1.1", "nothere", dns.RcodeServerFailure, false},
		{"127.1.1.20", "127.1.1.1", "example.com", dns.RcodeServerFailure, false},
		{"127.1.1.20", "127.1.1.1", "8.8.8.8.in-addr.arpa", dns.RcodeServerFailure, false},
		{"127.1.2.20", "127.1.2.1", "example.com", dns.RcodeServerFailure, false}, // the container reaches them or not
		{"127.1.2.21", "127.1.2.1", "example.com", dns.RcodeSuccess, false},       // its other network has a way out
		{"127.1.2.22", "127.1.2.1", "example.com", dns.RcodeNameError, true},
		{"127.1.2.22", "127.1.2.1", "8.8.8.8.in-addr.arpa", dns.RcodeNameError, true},
	} {
		r, err := s.ask(t.Context(), c.from, c.to, "udp", c.name)
		if err != nil {
			t.Fatal(err)
		}
		if r.Rcode != c.rcode || r.Authoritative != c.final {
			t.Errorf("%s asks for %s: %s, authoritative %v", c.from, c.name, dns.RcodeToString[r.Rcode], r.Authoritative)
		}
	}
	if q := node(); !slices.Equal(q, []string{"udp example.com."}) {
		t.Errorf("the node's resolver was asked %v", q)
	}
}

// TestServerBeforeItKnows: a program that starts while Fairlead does must not be
// told that its database does not exist.
func TestServerBeforeItKnows(t *testing.T) {
	s := &testServer{port: freePort(t)}
	s.Server = New(Config{Services: services, ResolvConf: "/nonexistent", Port: s.port, Log: hclog.NewNullLogger()})
	if err := s.SetNetworks(t.Context(), loNets); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
	for _, want := range []int{dns.RcodeServerFailure, dns.RcodeNameError} {
		if r, err := s.ask(t.Context(), "127.1.1.9", "127.1.1.1", "udp", "db"); err != nil || r.Rcode != want {
			t.Errorf("want %s: %v %v", dns.RcodeToString[want], r, err)
		}
		s.SetEndpoints(nil)
	}
}

func TestServerForwards(t *testing.T) {
	s := startServer(t, "127.1.1.1", "127.1.9.1", "127.1.9.2") // itself, a broken one, a good one
	broken := upstreamAt(t, fmt.Sprintf("127.1.9.1:%d", s.port), dns.RcodeServerFailure)
	good := upstreamAt(t, fmt.Sprintf("127.1.9.2:%d", s.port), dns.RcodeSuccess)
	r, err := s.ask(t.Context(), "127.1.1.9", "127.1.1.1", "udp", "example.com")
	if err != nil || r.Rcode != dns.RcodeSuccess || len(r.Answer) != 1 {
		t.Fatalf("%v %v", r, err)
	}
	if len(broken()) != 1 || len(good()) != 1 {
		t.Errorf("asked %v and %v", broken(), good())
	}
	// An answer too long for UDP comes cut, and whole over TCP.
	r, err = s.ask(t.Context(), "127.1.1.9", "127.1.1.1", "udp", "long.example.com")
	if err != nil || !r.Truncated {
		t.Errorf("long answer over UDP: %v, %d records, %v", r.Truncated, len(r.Answer), err)
	}
	r, err = s.ask(t.Context(), "127.1.1.9", "127.1.1.1", "tcp", "long.example.com")
	if err != nil || r.Truncated || len(r.Answer) != 100 {
		t.Errorf("long answer over TCP: %v, %d records, %v", r.Truncated, len(r.Answer), err)
	}
	if r, err := s.ask(t.Context(), "127.1.1.9", "127.1.1.1", "udp", "single"); err != nil || r.Rcode != dns.RcodeNameError {
		t.Errorf("%v %v", r, err)
	}
	for _, q := range append(good(), broken()...) {
		if strings.Contains(q, "single") {
			t.Error("a single label was asked outside")
		}
	}
}

func TestServerReadsResolversAgain(t *testing.T) {
	s := startServer(t)
	if r, err := s.ask(t.Context(), "127.1.1.9", "127.1.1.1", "udp", "example.com"); err != nil || r.Rcode != dns.RcodeServerFailure {
		t.Fatalf("without a resolver: %v %v", r, err)
	}
	upstreamAt(t, fmt.Sprintf("127.1.9.3:%d", s.port), dns.RcodeSuccess)
	s.resolvConf(t, "127.1.9.3")
	if r, err := s.ask(t.Context(), "127.1.1.9", "127.1.1.1", "udp", "example.com"); err != nil || r.Rcode != dns.RcodeSuccess {
		t.Fatalf("with a new resolver: %v %v", r, err)
	}
}

func TestServerListensWhereNetworksAre(t *testing.T) {
	s := startServer(t)
	if err := s.SetNetworks(t.Context(), loNets[:1]); err != nil {
		t.Fatal(err)
	}
	if r, err := s.ask(t.Context(), "127.1.2.9", "127.1.2.1", "tcp", "db"); err == nil {
		t.Errorf("still answers on a network that is gone: %v", r)
	}
	if err := s.SetNetworks(t.Context(), loNets); err != nil {
		t.Fatal(err)
	}
	if r, err := s.ask(t.Context(), "127.1.2.9", "127.1.2.1", "udp", "db"); err != nil || r.Rcode != dns.RcodeSuccess {
		t.Errorf("%v %v", r, err)
	}
	// A port that someone else holds is named, and does not stop the others.
	taken := Network{Name: "taken", Subnet: netip.MustParsePrefix("127.1.4.0/24"), Gateway: ip("127.1.4.1")}
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", fmt.Sprintf("127.1.4.1:%d", s.port))
	if err != nil {
		t.Fatal(err)
	}
	err = s.SetNetworks(t.Context(), append([]Network{taken}, loNets...))
	if err == nil || !strings.Contains(err.Error(), "127.1.4.1") {
		t.Errorf("got %v", err)
	}
	if r, err := s.ask(t.Context(), "127.1.2.9", "127.1.2.1", "udp", "db"); err != nil || r.Rcode != dns.RcodeSuccess {
		t.Errorf("%v %v", r, err)
	}
	_ = ln.Close()
	deadline := time.Now().Add(10 * time.Second)
	for {
		if r, err := s.ask(t.Context(), "127.1.4.9", "127.1.4.1", "udp", "web"); err == nil && r.Rcode == dns.RcodeNameError {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("Run does not try again")
		}
	}
}
