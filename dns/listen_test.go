package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/miekg/dns"
)

// run serves until stop is called; stop returns once everything is answered.
func (s *testServer) runUntil(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func newServer(t *testing.T, port uint16) *testServer {
	t.Helper()
	s := &testServer{port: port}
	s.Server = New(Config{Services: services, ResolvConf: "/nonexistent", Port: port, Log: hclog.NewNullLogger()})
	s.SetEndpoints(nil)
	return s
}

// Sockets go from server to server, and every question on the way is answered.
func TestSocketsAreHandedOver(t *testing.T) {
	port := freePort(t)
	s := newServer(t, port)
	if err := s.SetNetworks(t.Context(), loNets); err != nil {
		t.Fatal(err)
	}
	stop := s.runUntil(t)

	ctx, cancel := context.WithCancel(t.Context())
	var asked, failed atomic.Int64
	var load sync.WaitGroup
	for i := range 4 {
		network := []string{"udp", "tcp"}[i%2]
		load.Go(func() {
			for ctx.Err() == nil {
				asked.Add(1)
				// Whatever is asked ends with an answer: nothing is asked again.
				if _, err := s.ask(context.WithoutCancel(ctx), "127.1.1.9", "127.1.1.1", network, "web"); err != nil {
					failed.Add(1)
					t.Errorf("question %d over %s: %v", asked.Load(), network, err)
				}
			}
		})
	}
	none := func(netip.Addr) bool { return false }
	for range 10 {
		socks, err := s.Sockets(none, 100)
		if err != nil || len(socks) != 2 {
			t.Fatalf("%v %v", socks, err)
		}
		next := newServer(t, port)
		next.Use(socks)
		if err := next.SetNetworks(t.Context(), loNets); err != nil {
			t.Fatal(err)
		}
		nextStop := next.runUntil(t)
		before := asked.Load()
		for asked.Load() < before+20 && failed.Load() == 0 { // both serve
		}
		stop()
		stop, s.Server = nextStop, next.Server
		before = asked.Load()
		for asked.Load() < before+20 && failed.Load() == 0 {
		}
	}
	cancel()
	load.Wait()
	t.Logf("%d questions, %d failed", asked.Load(), failed.Load())
}

// What is asked while nobody reads waits in the socket.
func TestQuestionsWaitInAHeldSocket(t *testing.T) {
	port := freePort(t)
	s := newServer(t, port)
	if err := s.SetNetworks(t.Context(), loNets[:1]); err != nil {
		t.Fatal(err)
	}
	stop := s.runUntil(t)
	socks, err := s.Sockets(func(netip.Addr) bool { return false }, 100)
	if err != nil {
		t.Fatal(err)
	}
	stop()
	conns := make([]*dns.Conn, 0, 10)
	for i := range 10 {
		network := []string{"udp", "tcp"}[i%2]
		var local net.Addr = &net.UDPAddr{IP: net.ParseIP("127.1.1.9")}
		if network == "tcp" {
			local = &net.TCPAddr{IP: net.ParseIP("127.1.1.9")}
		}
		c, err := (&net.Dialer{LocalAddr: local}).DialContext(t.Context(), network, fmt.Sprintf("127.1.1.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		dc := &dns.Conn{Conn: c}
		if err := dc.WriteMsg(new(dns.Msg).SetQuestion("web.", dns.TypeA)); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, dc)
	}
	next := newServer(t, port)
	next.Use(socks)
	if err := next.SetNetworks(t.Context(), loNets[:1]); err != nil {
		t.Fatal(err)
	}
	next.runUntil(t)
	for i, c := range conns {
		if r, err := c.ReadMsg(); err != nil || r.Rcode != dns.RcodeNameError {
			t.Errorf("question %d: %v %v", i, r, err)
		}
	}
}

func TestSocketsOfNetworksThatAreGoneAreClosed(t *testing.T) {
	port := freePort(t)
	s := newServer(t, port)
	if err := s.SetNetworks(t.Context(), loNets); err != nil {
		t.Fatal(err)
	}
	stop := s.runUntil(t)
	gone := loNets[1].Gateway
	socks, err := s.Sockets(func(a netip.Addr) bool { return a != gone }, 100)
	if err != nil || len(socks) != 1 {
		t.Fatalf("%v %v", socks, err)
	}
	if some, err := s.Sockets(func(netip.Addr) bool { return false }, 1); err != nil || len(some) != 1 {
		t.Errorf("at most one: %v %v", some, err)
	} else {
		some[0].Close()
	}
	stop()
	next := newServer(t, port)
	next.Use(socks)
	if err := next.SetNetworks(t.Context(), loNets[:1]); err != nil {
		t.Fatal(err)
	}
	next.runUntil(t)
	pc, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp4", fmt.Sprintf("%s:%d", gone, port))
	if err != nil {
		t.Errorf("the socket of a network that is gone is held: %v", err)
	} else {
		_ = pc.Close()
	}
}
