package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead/fairlead/integration/load"
)

// tlsClient speaks to the gateway's public TLS port, whatever host a URL names.
func (n *node) tlsClient(pool *x509.CertPool) *http.Client {
	return &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", fmt.Sprintf("%s:%d", n.addr, n.https))
		},
	}}
}

// served is what a gateway says that it serves.
type served struct {
	Gateways []struct {
		Node, Traefik, Error string
		Route                int64
	}
	Alarms []string
}

// Two gateways, one on a node that is no server: both serve every route, with its
// certificate and its users; a change waits for both, so that a rolling update loses
// nothing through either; the node's agent, then its Traefik are killed.
func TestTwoGateways(t *testing.T) {
	n, w := startTwo(t, true)
	image := n.image()
	chain, key, pool := n.certificate("two.example.com")
	secret := passwordHash(t, "open")
	n.do("cert", "add", "two", "--cert", chain, "--key", key)
	file := func(version string) string {
		text := web(image, "two", version, 4, "")
		return n.write("compose.yaml", strings.Replace(text, "port: 8080}", "port: 8080, tls: true}, {host: plain.example.com, port: 8080}", 1)+
			"  guarded:"+guarded(image, "users.example.com", "ann", secret))
	}
	n.do("deploy", "-f", file("1"))
	for _, g := range []*node{n, w.node} {
		g.serves("http://plain.example.com/")
		g.eventually(15*time.Second, "the certificate is served", func() error {
			return load.Get(g.tlsClient(pool), "https://two.example.com/")
		})
		g.eventually(15*time.Second, "it asks for a user", func() error { return g.guards("users.example.com", "ann", "open") })
		answers := map[string]bool{}
		for range 40 {
			b, err := g.answer("http://plain.example.com/")
			if err != nil {
				t.Fatal(err)
			}
			answers[b] = true
		}
		if len(answers) != 4 {
			t.Errorf("of 4 tasks %d answer through %s: %v", len(answers), g.addr, answers)
		}
	}
	if st := get[served](n, "status"); len(st.Gateways) != 2 || st.Gateways[0].Traefik == "" || st.Gateways[1].Traefik == "" || len(st.Alarms) > 0 {
		t.Errorf("status %+v", st)
	}
	if out := n.do("exposure", "-o", "wide"); strings.Count(out, "n1 (") == 0 || strings.Count(out, "n2 (") != strings.Count(out, "n1 (") {
		t.Errorf("exposure names the gateways:\n%s", out)
	}
	nothingInClear(t, w, secret)

	through := map[string]*load.Load{"the server's": n.startLoad(load.EveryKind("http://plain.example.com/")), "the node's": w.startLoad(load.EveryKind("http://plain.example.com/"))}
	n.do("deploy", "-f", file("2"))
	w.stop(syscall.SIGKILL)
	time.Sleep(time.Second) // requests go on while the agent is away
	w.launch()
	n.eventually(30*time.Second, "the agent is back", func() error {
		_, err := n.try("exec", shortAddress(n.on("two", "n2")), "--", "/app", "once")
		return err
	})
	n.do("deploy", "-f", file("3"))
	for what, l := range through {
		l.WantNone(t, "two rolling updates and the node's agent killed, through "+what+" gateway")
	}

	l := n.startLoad(load.EveryKind("http://plain.example.com/"))
	was, err := w.traefik()
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(was.Current.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.replaced(was.Current.PID)
	w.serves("http://plain.example.com/")
	w.eventually(15*time.Second, "it asks for a user again", func() error { return w.guards("users.example.com", "ann", "open") })
	l.WantNone(t, "the node's Traefik killed, through the server's gateway")

	// Without the server it serves on; started anew too.
	n.stop(syscall.SIGKILL)
	w.serves("http://plain.example.com/")
	w.stop(syscall.SIGTERM)
	w.launch()
	w.serves("http://plain.example.com/")
	if err := load.Get(w.tlsClient(pool), "https://two.example.com/"); err != nil {
		t.Errorf("without the server: %v", err)
	}
	n.up()

	// Started without a gateway it has none: nothing is left that serves old routes, or
	// that an update would wait for.
	was, err = w.traefik()
	if err != nil {
		t.Fatal(err)
	}
	w.stop(syscall.SIGTERM)
	w.args = slices.DeleteFunc(w.args, func(a string) bool { return a == "--gateway" })
	w.launch()
	n.eventually(20*time.Second, "its gateway is gone", func() error {
		if err := syscall.Kill(was.Current.PID, 0); !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("Traefik %d is there", was.Current.PID)
		}
		if st := get[served](n, "status"); len(st.Gateways) != 1 {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	n.do("deploy", "-f", file("4"))
}

// nothingInClear looks for users' hashes and private keys on a gateway's disk, and
// for the servers' own keys.
func nothingInClear(t *testing.T, w *worker, hash string) {
	t.Helper()
	own := map[string]bool{"member.key": true, "node.pem": true} // the node's own
	err := filepath.WalkDir(w.data, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		if e.Name() == "secrets.key" || e.Name() == "ca.key" {
			t.Errorf("%s is on a node", path)
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(hash[len(hash)-20:])) || !own[e.Name()] && bytes.Contains(b, []byte("PRIVATE KEY")) {
			t.Errorf("%s holds a hash or a key in clear", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
