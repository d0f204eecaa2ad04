package client_test

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/pki"
)

// A client that pins the authority goes on with another server when one is away,
// and not to one of another authority.
func TestMovesToAnotherServer(t *testing.T) {
	start := func(name string) (*httptest.Server, *pki.PKI) {
		t.Helper()
		p, err := pki.Open(filepath.Join(t.TempDir(), "pki"), pki.Host{Node: cluster.NodeID(name)}, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		return serving(t, p, name), p
	}
	one, p := start("n1")
	two := serving(t, p, "n2")
	stranger, _ := start("stranger")
	host := func(s *httptest.Server) string { return strings.TrimPrefix(s.URL, "https://") }
	c, err := client.New(client.Options{URL: one.URL, Fingerprint: p.Fingerprint(), Others: []string{host(stranger), host(two), host(one)}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	asked := func(want string) {
		t.Helper()
		if v, err := c.Server(t.Context()); err != nil || v.Version != want {
			t.Errorf("asked %q, %v; want %s", v.Version, err, want)
		}
	}
	asked("n1")
	one.Close()
	asked("n2")
	asked("n2")
	two.Close()
	if _, err := c.Server(t.Context()); cluster.KindOf(err) != cluster.KindTransient || !strings.Contains(err.Error(), host(two)) {
		t.Errorf("with none left: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Server(ctx); err == nil {
		t.Error("cancelled, and answered")
	}
}

// serving is a server that answers with its name as its version.
func serving(t *testing.T, p *pki.PKI, name string) *httptest.Server {
	t.Helper()
	return servingBy(t, p, named(name))
}

func servingBy(t *testing.T, p *pki.PKI, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Listener = tls.NewListener(s.Listener, p.ServerTLS()) // StartTLS would show a certificate of its own
	s.Start()
	s.URL = strings.Replace(s.URL, "http:", "https:", 1)
	t.Cleanup(s.Close)
	return s
}
