package work_test

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/fairlead/fairlead/delivery/work"
)

// Of a long history only the newest commit is fetched at first, and what is new after it
// then: a large file that is there no more costs nothing.
func TestHistoryIsNotFetched(t *testing.T) {
	f := newForge(t)
	large := make([]byte, 4<<20)
	_, _ = rand.Read(large)
	f.write("large", string(large))
	f.push("a large file")
	f.git(f.tree, "rm", "-q", "large")
	f.write("compose.yaml", compose("web:1"))
	first := f.push("without it")
	inner, innerCA := f.https("")

	var got atomic.Int64
	target, err := url.Parse(inner)
	if err != nil {
		t.Fatal(err)
	}
	path := target.Path
	target.Path = ""
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(innerCA)) {
		t.Fatal("no certificate")
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	proxy.ModifyResponse = func(resp *http.Response) error {
		resp.Body = counted{resp.Body, &got}
		return nil
	}
	srv := httptest.NewTLSServer(proxy)
	defer srv.Close()
	var ca bytes.Buffer
	_ = pem.Encode(&ca, &pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})

	d := f.local()
	d.Source.URL, d.Source.CA = srv.URL+path, ca.String()
	if r := f.must(work.Task{Delivery: d}); r.Origin.Revision != first {
		t.Errorf("it is at %s", r.Origin.Revision)
	}
	if n := got.Load(); n == 0 || n > 1<<20 {
		t.Errorf("%d bytes came of a commit without the file", n)
	}

	// Whether history was replaced is looked for in what came lately.
	var commits strings.Builder
	for range 120 {
		commits.WriteString("commit refs/heads/main\ncommitter Ann <ann@example.com> 1700000000 +0000\ndata 3\nold\n")
		if commits.Len() < 100 { // the first
			commits.WriteString("from refs/heads/main^0\n")
		}
	}
	load := exec.CommandContext(t.Context(), "git", "fast-import", "--quiet")
	load.Dir, load.Stdin = f.tree, strings.NewReader(commits.String())
	if out, err := load.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	f.write("compose.yaml", compose("web:2"))
	last := f.push("something new")
	got.Store(0)
	if r := f.must(work.Task{Delivery: d, Seen: seen(d, f.git(f.tree, "rev-parse", "HEAD~10"))}); r.Origin.Revision != last || r.Forced {
		t.Errorf("it is at %s, replaced: %t", r.Origin.Revision, r.Forced)
	}
	if n := got.Load(); n == 0 || n > 1<<20 {
		t.Errorf("%d bytes came of the newer commits", n)
	}
}

type counted struct {
	io.ReadCloser
	n *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}
