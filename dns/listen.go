package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// Socket is where the questions to one address come in. It can be handed from
// process to process: what was asked and not read yet waits in it. These are
// descriptors and no files, since the runtime would watch a file: whoever merely
// holds a socket would wake up at each question.
type Socket struct {
	Addr     netip.Addr
	UDP, TCP int
}

// Close closes the descriptors; others of the same socket stay open.
func (s Socket) Close() {
	_ = unix.Close(s.UDP)
	_ = unix.Close(s.TCP)
}

type listener struct {
	udp, tcp *dns.Server
	done     sync.WaitGroup
	drained  chan struct{} // closed once the TCP server has ended
}

// Use gives the server sockets to listen on, which it owns from then on, in place
// of opening some when a network with that address comes.
func (s *Server) Use(socks []Socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range socks {
		if old, ok := s.given[x.Addr]; ok {
			old.Close()
		}
		s.given[x.Addr] = x
	}
}

// Sockets returns at most limit of the sockets that the server listens on, but
// those that skip names. They are the caller's to close.
func (s *Server) Sockets(skip func(netip.Addr) bool, limit int) ([]Socket, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Socket
	for a, l := range s.listeners {
		if skip(a) || len(out) == limit {
			continue
		}
		x, err := l.socket(a)
		if err != nil {
			for _, o := range out {
				o.Close()
			}
			return nil, err
		}
		out = append(out, x)
	}
	return out, nil
}

// Run keeps the listeners up until ctx ends, closes them, and returns the context's
// cause. What was asked before is answered first.
func (s *Server) Run(ctx context.Context) error {
	failed := ""
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			continue
		case <-s.failing:
		}
		t := time.NewTimer(time.Second)
		select {
		case <-ctx.Done():
		case <-t.C:
			s.mu.Lock()
			err := s.listen(ctx)
			s.mu.Unlock()
			if err == nil {
				failed = ""
			} else if err.Error() != failed && ctx.Err() == nil {
				failed = err.Error()
				s.cfg.Log.Error("cannot answer names on every network; will retry", "error", err)
			}
		}
		t.Stop()
	}
	s.close()
	return context.Cause(ctx)
}

// close ends all listeners at once, none before it has answered.
func (s *Server) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var all sync.WaitGroup
	for a, l := range s.listeners {
		all.Go(func() { l.close(drainTCP) })
		delete(s.listeners, a)
	}
	for a, x := range s.given {
		x.Close()
		delete(s.given, a)
	}
	all.Wait()
}

// listen opens what is missing and closes what is not wanted any more.
func (s *Server) listen(ctx context.Context) error {
	if s.closed {
		return nil
	}
	want := map[netip.Addr]bool{}
	var errs []error
	for _, n := range s.networks {
		want[n.Gateway] = true
		if s.listeners[n.Gateway] != nil {
			continue
		}
		l, err := s.open(ctx, n.Gateway)
		if err != nil {
			errs = append(errs, fmt.Errorf("network %s: %w", n.Name, err))
			continue
		}
		s.listeners[n.Gateway] = l
	}
	for a, l := range s.listeners {
		if !want[a] {
			l.close(0)
			delete(s.listeners, a)
		}
	}
	for a, x := range s.given { // of networks that are gone
		x.Close()
		delete(s.given, a)
	}
	if len(errs) > 0 {
		select {
		case s.failing <- struct{}{}:
		default:
		}
	}
	return errors.Join(errs...)
}

func (s *Server) open(ctx context.Context, a netip.Addr) (*listener, error) {
	pc, ln, err := s.bind(ctx, a)
	if err != nil {
		return nil, err
	}
	handle := dns.HandlerFunc(s.serve)
	l := &listener{
		// UDP's time limit is only how often an idle server wakes up.
		udp:     &dns.Server{PacketConn: pc, Handler: handle, UDPSize: dns.DefaultMsgSize, ReadTimeout: time.Hour},
		tcp:     &dns.Server{Listener: ln, Handler: handle, ReadTimeout: 5 * time.Second, MaxTCPQueries: -1},
		drained: make(chan struct{}),
	}
	for _, srv := range []*dns.Server{l.udp, l.tcp} {
		started := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(started) }
		ended := make(chan struct{})
		l.done.Go(func() {
			defer close(ended)
			err := srv.ActivateAndServe()
			if srv == l.tcp {
				defer close(l.drained)
			}
			if err != nil && !errors.Is(err, net.ErrClosed) {
				s.cfg.Log.Warn("a name server's socket ended", "address", a, "error", err)
			}
		})
		select {
		case <-started:
		case <-ended:
		}
	}
	return l, nil
}

// bind opens the sockets of an address, or takes those that were given.
func (s *Server) bind(ctx context.Context, a netip.Addr) (net.PacketConn, net.Listener, error) {
	if x, ok := s.given[a]; ok {
		delete(s.given, a)
		if pc, ln, err := x.listen(); err == nil {
			return pc, ln, nil
		}
	}
	addr := net.JoinHostPort(a.String(), strconv.Itoa(int(s.cfg.Port)))
	lc := net.ListenConfig{Control: freeBind}
	pc, err := lc.ListenPacket(ctx, "udp4", addr)
	if err != nil {
		return nil, nil, fmt.Errorf("listen on udp %s (does another name server hold the port?): %w", addr, err)
	}
	ln, err := lc.Listen(ctx, "tcp4", addr)
	if err != nil {
		_ = pc.Close()
		return nil, nil, fmt.Errorf("listen on tcp %s (does another name server hold the port?): %w", addr, err)
	}
	return pc, ln, nil
}

// listen makes connections of the descriptors, and closes them.
func (s Socket) listen() (net.PacketConn, net.Listener, error) {
	udp, tcp := os.NewFile(uintptr(s.UDP), "udp"), os.NewFile(uintptr(s.TCP), "tcp")
	defer udp.Close() //nolint:errcheck // its copy is used
	defer tcp.Close() //nolint:errcheck // its copy is used
	pc, err := net.FilePacketConn(udp)
	if err != nil {
		return nil, nil, err
	}
	ln, err := net.FileListener(tcp)
	if err != nil {
		_ = pc.Close()
		return nil, nil, err
	}
	return pc, ln, nil
}

// socket returns copies of a listener's descriptors.
func (l *listener) socket(a netip.Addr) (Socket, error) {
	x := Socket{Addr: a, UDP: -1, TCP: -1}
	var err error
	if x.UDP, err = duplicate(l.udp.PacketConn); err != nil {
		return x, err
	}
	if x.TCP, err = duplicate(l.tcp.Listener); err != nil {
		_ = unix.Close(x.UDP)
	}
	return x, err
}

// drainTCP is how long a connection that was accepted may still ask.
const drainTCP = 5 * time.Second

// close reads no more, answers what was read, and returns; who is connected may ask
// until drain has passed. What comes from now on is read by who holds a copy of
// the sockets.
func (l *listener) close(drain time.Duration) {
	_ = l.tcp.Listener.Close()
	_ = l.udp.Shutdown()
	t := time.NewTimer(drain)
	defer t.Stop()
	select {
	case <-l.drained:
	case <-t.C:
		_ = l.tcp.Shutdown()
	}
	l.done.Wait()
}
