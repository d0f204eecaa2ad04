// Package etcdtest gives tests a real etcd, in their own process, with
// certificates, on loopback; it needs no root. It ends with the test.
package etcdtest

import (
	"context"
	"crypto/tls"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/integration/need"
	"github.com/fairlead/fairlead/pki"
	"github.com/fairlead/fairlead/store"
	"github.com/fairlead/fairlead/store/embedded"
)

// Server is an embedded etcd for a test.
type Server struct {
	Config embedded.Config
	PKI    *pki.PKI
	Log    hclog.Logger
}

// New makes the certificates, ports and directory of an etcd; it does not start it.
func New(tb testing.TB) *Server {
	tb.Helper()
	dir := tb.TempDir()
	p, err := pki.Open(filepath.Join(dir, "pki"), pki.Host{Node: "n1"}, time.Now) //nolint:forbidigo // certificates are of the real time
	if err != nil {
		tb.Fatal(err)
	}
	return &Server{
		PKI: p, Log: hclog.NewNullLogger(),
		Config: embedded.Config{
			Dir: filepath.Join(dir, "etcd"), Name: "n1", Address: "127.0.0.1", Token: "test",
			ClientPort: need.Port(tb), PeerPort: need.Port(tb),
			CAFile: p.CAFile(), ServerFile: p.ServerFile(), PeerFile: p.PeerFile(), PeerName: pki.NamePeer,
			Now: time.Now, //nolint:forbidigo // as above
		},
	}
}

// Beside makes a server with the same certificates, to join the cluster of s.
func (s *Server) Beside(tb testing.TB, name string) *Server {
	tb.Helper()
	o := &Server{PKI: s.PKI, Log: s.Log, Config: s.Config}
	o.Config.Dir, o.Config.Name = filepath.Join(tb.TempDir(), "etcd"), name
	o.Config.ClientPort, o.Config.PeerPort = need.Port(tb), need.Port(tb)
	return o
}

// Launch runs the server, which may wait for others, until the returned function
// is called, which returns what Run did, as ended does.
func (s *Server) Launch(tb testing.TB) (srv *embedded.Server, ended <-chan error, stop func() error) {
	tb.Helper()
	srv, err := embedded.New(s.Config, s.Log)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	out, done := make(chan error, 1), make(chan struct{})
	var how error
	go func() {
		defer close(done)
		how = srv.Run(ctx)
		out <- how
	}()
	stop = func() error {
		cancel()
		<-done
		return how
	}
	tb.Cleanup(func() { _ = stop() })
	return srv, out, stop
}

// Start starts an etcd that ends with the test and returns it, ready.
func Start(tb testing.TB) *Server {
	tb.Helper()
	s := New(tb)
	stop := s.Start(tb)
	tb.Cleanup(func() {
		if err := stop(); !errors.Is(err, context.Canceled) {
			tb.Errorf("etcd ended with %v", err)
		}
	})
	return s
}

// Start runs the server until the returned function is called, which returns
// what Run did.
func (s *Server) Start(tb testing.TB) (stop func() error) {
	tb.Helper()
	srv, err := embedded.New(s.Config, s.Log)
	if err != nil {
		tb.Fatal(err)
	}
	// The test's own context ends before its clean-up, and clients end leases there.
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	select {
	case <-srv.Ready():
	case err := <-done:
		cancel()
		tb.Fatalf("etcd did not start: %v", err)
	case <-time.After(30 * time.Second):
		cancel()
		tb.Fatalf("etcd is not ready: %v", <-done)
	}
	return func() error {
		cancel()
		err := <-done
		done <- err // may be called again
		return err
	}
}

// Client is a new client of the server, with the control plane's certificate. It
// is closed at the test's end.
func (s *Server) Client(tb testing.TB) *store.Etcd {
	tb.Helper()
	c, err := store.NewEtcd(store.EtcdConfig{Endpoints: []string{s.Config.Endpoint()}, TLS: s.PKI.RootTLS()}, s.Log)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := c.Close(); err != nil {
			tb.Errorf("close: %v", err)
		}
	})
	return c
}

// Identity makes the certificate of a node that joined the cluster of p, of a key of
// its own, and names the key.
func Identity(tb testing.TB, p *pki.PKI, id cluster.NodeID) (conf *tls.Config, key string) {
	tb.Helper()
	dir := filepath.Join(tb.TempDir(), "pki")
	csr, err := pki.PrepareMember(dir)
	if err != nil {
		tb.Fatal(err)
	}
	r, err := pki.ParseRequest(csr)
	if err != nil {
		tb.Fatal(err)
	}
	chain, err := p.IssueNode(id, r, time.Now()) //nolint:forbidigo // certificates are of the real time
	if err != nil {
		tb.Fatal(err)
	}
	if err := pki.SaveMember(dir, "abcdefghij", p.PEM(), chain); err != nil {
		tb.Fatal(err)
	}
	m, err := pki.OpenMember(dir, time.Now) //nolint:forbidigo // likewise
	if err != nil {
		tb.Fatal(err)
	}
	return m.TLS(), r.Key
}
