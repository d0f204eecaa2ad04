package client_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
)

// TestImportedAlone: the client needs the standard library, cluster and api/v1.
func TestImportedAlone(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for pkg := range strings.FieldsSeq(string(out)) {
		switch strings.TrimPrefix(pkg, "github.com/fairlead/fairlead/") {
		case "client", "cluster", "api/v1":
		default:
			t.Errorf("the client brings in %s", pkg)
		}
	}
}

func TestTLS(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer tok" || r.ProtoMajor != 1 {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		_, _ = io.WriteString(w, `{"version":"x"}`)
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	leaf := srv.Certificate()
	sum := sha256.Sum256(leaf.Raw)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw})
	for name, c := range map[string]struct {
		o  client.Options
		ok bool
	}{
		"system's authorities": {client.Options{}, false},
		"authority":            {client.Options{CACert: ca}, true},
		"fingerprint":          {client.Options{Fingerprint: hex.EncodeToString(sum[:])}, true},
		"another's":            {client.Options{Fingerprint: strings.Repeat("ab", 32)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			c.o.URL, c.o.Token = srv.URL, "tok"
			cl, err := client.New(c.o)
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			info, err := cl.Server(t.Context())
			if (err == nil) != c.ok || (c.ok && info.Version != "x") {
				t.Errorf("%+v %v", info, err)
			}
			if !c.ok && cluster.KindOf(err) != cluster.KindTransient {
				t.Errorf("kind %s", cluster.KindOf(err))
			}
		})
	}
	for _, bad := range []client.Options{{}, {URL: "host:1"}, {URL: "ftp://x"}, {URL: "https://x", Fingerprint: "zz"}, {URL: "https://x", CACert: []byte("no")}} {
		if _, err := client.New(bad); cluster.KindOf(err) != cluster.KindInvalid {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// answering is a client of a server that answers everything with f.
func answering(t *testing.T, f http.HandlerFunc) *client.Client {
	t.Helper()
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	c, err := client.New(client.Options{URL: srv.URL, Timeout: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestAnswersOfOthers(t *testing.T) {
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		kind   cluster.Kind
		text   string
	}{
		"a proxy's page": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			_, _ = io.WriteString(w, "upstream is away")
		}, cluster.KindTransient, "502 Bad Gateway: upstream is away"},
		"a broken problem": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, "{")
		}, cluster.KindNotFound, "404"},
		"no JSON": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }, cluster.KindTransient, "read the answer"},
		"nothing": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, cluster.KindTransient, "did not answer within 200ms"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := answering(t, c.answer).Apps(t.Context())
			if cluster.KindOf(err) != c.kind || !strings.Contains(fmt.Sprint(err), c.text) {
				t.Errorf("%s: %v", cluster.KindOf(err), err)
			}
		})
	}
}

func TestStreams(t *testing.T) {
	watch := func(body string) ([]int, error) {
		c := answering(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
		var got []int
		err := c.Watch(t.Context(), "shop", 0, nil, func(p v1.Progress) error { got = append(got, p.Release); return nil })
		return got, err
	}
	one := "event: progress\ndata: {\"release\":1}\n\n"
	got, err := watch(": hello\n\n" + one + "event: other\ndata: x\n\nevent: progress\r\ndata: {\"release\":\r\ndata: 2}\r\n\r\nevent: end\n\n")
	if err != nil || fmt.Sprint(got) != "[1 2]" {
		t.Errorf("%v %v", got, err)
	}
	if got, err = watch(one); cluster.KindOf(err) != cluster.KindTransient || len(got) != 1 {
		t.Errorf("cut short: %v %v", got, err)
	}
	if _, err = watch(one + "event: error\ndata: {\"kind\":\"conflict\",\"detail\":\"moved\"}\n\n"); cluster.KindOf(err) != cluster.KindConflict || err.Error() != "moved" {
		t.Errorf("an error in the stream: %v", err)
	}
	if _, err = watch("event: progress\ndata: {\n\n"); err == nil {
		t.Error("a broken event is no error")
	}
}

func TestBuildCutShort(t *testing.T) {
	c := answering(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, `{"text":"step 1\n"}`)
	})
	var out bytes.Buffer
	_, err := c.Build(t.Context(), v1.BuildOptions{}, strings.NewReader("tar"), &out)
	if cluster.KindOf(err) != cluster.KindTransient || out.String() != "step 1\n" {
		t.Errorf("%v %q", err, out.String())
	}
}

func TestUpgradesAreCutShort(t *testing.T) {
	hijack := func(t *testing.T, after string) *client.Client {
		t.Helper()
		return answering(t, func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\n\r\n"+after)
			_ = conn.Close()
		})
	}
	at := cluster.Address{App: "a", Service: "b"}
	for name, after := range map[string]string{"nothing": "", "half a frame": "\x04\x00\x00\x00\x09abc", "too large": "\x04\xff\xff\xff\xff"} {
		if _, err := hijack(t, after).Exec(t.Context(), at, cluster.ExecOptions{Command: []string{"x"}}, client.ExecStreams{}); cluster.KindOf(err) != cluster.KindTransient {
			t.Errorf("%s: %v", name, err)
		}
	}
	conn, err := hijack(t, "early").Dial(t.Context(), at, 1)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(conn); err != nil || string(b) != "early" {
		t.Errorf("%q %v", b, err)
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0") // accepts, never answers
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	c, err := client.New(client.Options{URL: "http://" + l.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Dial(ctx, cluster.Address{App: "a", Service: "b"}, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}
