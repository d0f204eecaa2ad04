package server

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/pki"
	"github.com/fairlead/fairlead/tunnel"
)

// member makes the directory of a node n2 that joined the cluster of an authority.
func member(t *testing.T, a *pki.PKI, issued time.Time, servers ...string) Config {
	t.Helper()
	cfg := Config{DataDir: t.TempDir(), NoGateway: true, Log: hclog.NewNullLogger()}
	dir := filepath.Join(cfg.DataDir, "pki")
	csr, err := pki.PrepareMember(dir)
	if err != nil {
		t.Fatal(err)
	}
	r, err := pki.ParseRequest(csr)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := a.IssueNode("n2", r, issued)
	if err != nil {
		t.Fatal(err)
	}
	j := &joined{local: local{Config: cfg}}
	if err := j.keep(dir, v1.Membership{
		Cluster: "aaaaaaaaaa", Node: "n2", CA: string(a.PEM()), Certificate: string(chain), Servers: servers,
		Pool: "10.213.0.0/16", ServiceRange: "10.212.0.0/16",
	}); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func authority(t *testing.T) *pki.PKI {
	t.Helper()
	a, err := pki.Open(t.TempDir(), pki.Host{Node: "n1", Hosts: []string{"127.0.0.1"}}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// openNode opens a node's directory, as its agent does when waits, else as a person.
func openNode(t *testing.T, cfg Config, waits bool, token string) (*joined, error) {
	t.Helper()
	j := &joined{local: local{Config: cfg, now: time.Now, worker: true}, waits: waits}
	err := j.open(t.Context(), filepath.Join(cfg.DataDir, "pki"), func() (string, error) {
		if token == "" {
			return "", errors.New("no token is given")
		}
		return token, nil
	})
	return j, err
}

// A node whose command still names the server that it joined by starts, whatever has
// become of that server.
func TestANodeStartsWithoutTheServerThatItJoinedBy(t *testing.T) {
	cfg := member(t, authority(t), time.Now(), "10.0.0.2:7420", "10.0.0.3:7420")
	for _, join := range []string{"", "10.0.0.3:7420", "10.0.0.9:7420,10.0.0.2:7420", "127.0.0.1:1"} {
		cfg.Join = join
		j, err := openNode(t, cfg, true, "")
		if err != nil || j.Node != "n2" || j.member == nil {
			t.Errorf("--join %q: %+v, %v", join, j.membership, err)
		}
	}
	cfg.Join = "127.0.0.1:1"
	if _, err := openNode(t, cfg, false, ""); cluster.KindOf(err) != cluster.KindTransient || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("a person is told: %v (kind %v)", err, cluster.KindOf(err))
	}
}

// doorOf is where a server of an authority answers one request of nodes.
func doorOf(t *testing.T, a *pki.PKI, pattern string, answer http.HandlerFunc) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", a.ServerTLS())
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc(pattern, answer)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	t.Cleanup(func() { _ = srv.Close() })
	go func() { _ = srv.Serve(l) }()
	return l.Addr().String()
}

// renewing answers as a server that is at another address now does.
func renewing(t *testing.T, a *pki.PKI, servers, etcd string) http.HandlerFunc {
	t.Helper()
	return func(w http.ResponseWriter, r *http.Request) {
		var in v1.Renew
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || json.NewDecoder(r.Body).Decode(&in) != nil {
			http.Error(w, "who asks?", http.StatusUnauthorized)
			return
		}
		csr, err := pki.ParseRequest([]byte(in.Request))
		if err != nil {
			t.Error(err)
		}
		chain, err := a.IssueNode("n2", csr, time.Now())
		if err != nil {
			t.Error(err)
		}
		_ = json.NewEncoder(w).Encode(v1.Membership{
			Cluster: "aaaaaaaaaa", Node: "n2", CA: string(a.PEM()), Certificate: string(chain),
			Servers: []string{servers}, Etcd: []string{etcd}, Pool: "10.213.0.0/16", ServiceRange: "10.212.0.0/16",
		})
	}
}

// When all servers have moved, a server of the same cluster that --join names says where
// they are, and the node keeps it; one of another cluster is not believed.
func TestJoinFindsServersThatMoved(t *testing.T) {
	a := authority(t)
	moved := doorOf(t, a, "POST /v1/node/renew", renewing(t, a, "10.0.0.51:7420", "https://10.0.0.51:7421"))
	other := authority(t)
	foreign := doorOf(t, other, "POST /v1/node/renew", renewing(t, other, "10.0.0.66:7420", "https://10.0.0.66:7421"))
	const old = "10.0.0.1:7420"
	never := func() bool { return false }

	cfg := member(t, a, time.Now(), old)
	cfg.Join = moved
	if j, err := openNode(t, cfg, false, ""); err != nil || !slices.Equal(j.servers(), []string{"10.0.0.51:7420"}) {
		t.Errorf("a person: %v, %v", j.servers(), err)
	}
	if m, err := readMembership(cfg.DataDir); err != nil || !slices.Equal(m.Servers, []string{"10.0.0.51:7420"}) {
		t.Errorf("kept %v, %v", m.Servers, err)
	}

	cfg = member(t, a, time.Now(), old)
	cfg.Join = foreign + "," + moved
	j, err := openNode(t, cfg, true, "")
	if err != nil {
		t.Fatal(err)
	}
	var servers, etcd []string
	if err := j.findServers(t.Context(), time.Millisecond, never, func(s, e []string) { servers, etcd = s, e }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(servers, []string{"10.0.0.51:7420"}) || !slices.Equal(etcd, []string{"https://10.0.0.51:7421"}) || !slices.Equal(j.servers(), servers) {
		t.Errorf("the agent uses %v, %v; knows %v", servers, etcd, j.servers())
	}
	if m, err := readMembership(cfg.DataDir); err != nil || !slices.Equal(m.Servers, servers) {
		t.Errorf("kept %v, %v", m.Servers, err)
	}

	cfg = member(t, a, time.Now(), old)
	cfg.Join = foreign
	_, err = openNode(t, cfg, false, "")
	if cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), old) || strings.Contains(err.Error(), "--purge") {
		t.Errorf("another cluster's: %v (kind %v)", err, cluster.KindOf(err))
	}
	if m, err := readMembership(cfg.DataDir); err != nil || !slices.Equal(m.Servers, []string{old}) {
		t.Errorf("another cluster's: kept %v, %v", m.Servers, err)
	}

	// Nobody is asked while the servers that it knows answer.
	cfg.Join = moved
	if j, err = openNode(t, cfg, true, ""); err != nil {
		t.Fatal(err)
	}
	if err := j.findServers(t.Context(), time.Millisecond, func() bool { return true }, nil); err != nil || !slices.Equal(j.servers(), []string{old}) {
		t.Errorf("connected: %v, %v", j.servers(), err)
	}
}

// admitting answers as a server to which a machine comes with a token, and counts the keys
// that it sees; err, if any, is what it refuses with.
func admitting(t *testing.T, a *pki.PKI, keys map[string]int, status int) http.HandlerFunc {
	t.Helper()
	return func(w http.ResponseWriter, r *http.Request) {
		var in v1.Join
		err := json.NewDecoder(r.Body).Decode(&in)
		csr, perr := pki.ParseRequest([]byte(in.Request))
		if err != nil || perr != nil || in.Node != "n2" {
			t.Errorf("asked by %q: %v, %v", in.Node, err, perr)
		}
		keys[csr.Key]++
		if status != http.StatusOK {
			http.Error(w, "no", status)
			return
		}
		chain, err := a.IssueNode("n2", csr, time.Now())
		if err != nil {
			t.Error(err)
		}
		_ = json.NewEncoder(w).Encode(v1.Membership{
			Cluster: "aaaaaaaaaa", Node: "n2", CA: string(a.PEM()), Certificate: string(chain),
			Servers: []string{r.Host}, Pool: "10.213.0.0/16", ServiceRange: "10.212.0.0/16",
		})
	}
}

func tokenOf(t *testing.T, a *pki.PKI) string {
	t.Helper()
	tok, err := pki.NewJoinToken(a.Fingerprint())
	if err != nil {
		t.Fatal(err)
	}
	return tok.Text()
}

// keyOf names the key that a node's next request has.
func keyOf(t *testing.T, cfg Config) string {
	t.Helper()
	csr, err := pki.PrepareMember(filepath.Join(cfg.DataDir, "pki"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := pki.ParseRequest(csr)
	if err != nil {
		t.Fatal(err)
	}
	return r.Key
}

// A node whose certificate has ended gets another by a token, with the key that it has.
// Without a token its agent starts what it can and says what to do.
func TestANodeWhoseCertificateEndedJoinsAgain(t *testing.T) {
	a := authority(t)
	long := time.Now().Add(-pki.LeafLife - 48*time.Hour)
	for name, c := range map[string]struct {
		waits, join bool
		token       string // "ours", "other"
		status      int
		err, said   string // what it ends with, or its log has
		joined      bool
	}{
		"an agent with a token":                    {waits: true, join: true, token: "ours", status: 200, joined: true},
		"a person with a token":                    {join: true, token: "ours", status: 200, joined: true},
		"an agent without":                         {waits: true, said: "fairlead node invite"},
		"an agent with --join and without a token": {waits: true, join: true, said: "fairlead node invite"},
		"a person without":                         {join: true, err: "fairlead node invite"},
		"an upgrade":                               {said: "fairlead node invite"},
		"an agent whose token is used up":          {waits: true, join: true, token: "ours", status: 403, said: "no server gives it another"},
		"an agent, and the server is busy":         {waits: true, join: true, token: "ours", status: 503, said: "no server gives it another"},
		"a person whose token is used up":          {join: true, token: "ours", status: 403, err: "403"},
		"a person with another cluster's token":    {join: true, token: "other", err: "another cluster's"},
	} {
		t.Run(name, func(t *testing.T) {
			keys := map[string]int{}
			server := doorOf(t, a, "POST /v1/join", admitting(t, a, keys, c.status))
			cfg := member(t, a, long, server)
			key := keyOf(t, cfg)
			var logged bytes.Buffer
			cfg.Log = hclog.New(&hclog.LoggerOptions{Output: &logged})
			if c.join {
				cfg.Join = server
			}
			token := map[string]string{"ours": tokenOf(t, a), "other": tokenOf(t, authority(t)), "": ""}[c.token]
			j, err := openNode(t, cfg, c.waits, token)
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Fatalf("%v, want %q", err, c.err)
			}
			if !strings.Contains(logged.String(), c.said) || strings.Contains(logged.String(), "--purge") {
				t.Errorf("the log has not %q:\n%s", c.said, logged.String())
			}
			if _, ended := j.member.Ended(); ended == c.joined {
				t.Errorf("its certificate has ended: %v", ended)
			}
			if keyOf(t, cfg) != key || len(keys) > 1 || c.joined && keys[key] != 1 {
				t.Errorf("asked with the keys %v, its own is %s", keys, key)
			}
		})
	}
}

// A certificate that a server signed whose clock was ahead, before that no longer mattered,
// is replaced by a token too.
func TestANodeWhoseCertificateBeginsLaterJoinsAgain(t *testing.T) {
	a := authority(t)
	for token, joined := range map[string]bool{tokenOf(t, a): true, "": false} {
		keys := map[string]int{}
		server := doorOf(t, a, "POST /v1/join", admitting(t, a, keys, 200))
		cfg := member(t, a, time.Now(), server)
		cfg.Join = server
		dir := filepath.Join(cfg.DataDir, "pki")
		csr, err := pki.PrepareMember(dir)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(csr)
		r, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		chain, err := a.Issue(pki.Request{Use: pki.UseClient, Name: pki.MemberName("n2", keyOf(t, cfg)), Key: r.PublicKey, Now: time.Now().Add(48 * time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		if err := pki.SaveMember(dir, "aaaaaaaaaa", a.PEM(), chain); err != nil {
			t.Fatal(err)
		}
		var logged bytes.Buffer
		cfg.Log = hclog.New(&hclog.LoggerOptions{Output: &logged})
		j, err := openNode(t, cfg, true, token)
		if err != nil {
			t.Fatal(err)
		}
		if _, early := j.member.Begins(); early == joined || len(keys) == 1 != joined {
			t.Errorf("its certificate begins later: %v, asked with %v", early, keys)
		}
		if text := logged.String(); strings.Contains(text, "begins on") == joined {
			t.Errorf("the log says\n%s", text)
		}
	}
}

// An agent whose certificate ended keeps asking with the token that it was given.
func TestAnEndedCertificateIsAskedForAgain(t *testing.T) {
	a, keys, status := authority(t), map[string]int{}, atomic.Int64{}
	status.Store(503)
	server := doorOf(t, a, "POST /v1/join", func(w http.ResponseWriter, r *http.Request) {
		admitting(t, a, keys, int(status.Load()))(w, r)
	})
	cfg := member(t, a, time.Now().Add(-pki.LeafLife-48*time.Hour), server)
	cfg.Join = server
	j, err := openNode(t, cfg, true, tokenOf(t, a))
	if err != nil {
		t.Fatal(err)
	}
	if err := j.renewNow(t.Context()); cluster.KindOf(err) != cluster.KindTransient {
		t.Errorf("while the server is busy: %v", err)
	}
	status.Store(200)
	if err := j.renewNow(t.Context()); err != nil {
		t.Error(err)
	}
	if _, ended := j.member.Ended(); ended || len(keys) != 1 {
		t.Errorf("ended: %v, keys %v", ended, keys)
	}
}

// A node that was removed joins again by a person's token, with another key: whoever has
// the former one stays refused. What it had is kept when it is not let in.
func TestARemovedNodeJoinsAgainWithAnotherKey(t *testing.T) {
	a := authority(t)
	for status, ok := range map[int]bool{200: true, 403: false} {
		keys := map[string]int{}
		join := admitting(t, a, keys, status)
		server := doorOf(t, a, "POST /v1/", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v1/join" {
				http.Error(w, "not of the cluster", http.StatusForbidden)
				return
			}
			join(w, r)
		})
		cfg := member(t, a, time.Now(), server)
		cfg.Join = server
		key := keyOf(t, cfg)
		if _, err := openNode(t, cfg, false, tokenOf(t, a)); (err == nil) != ok {
			t.Errorf("status %d: %v", status, err)
		}
		if len(keys) != 1 || keys[key] != 0 || (keyOf(t, cfg) == key) == ok {
			t.Errorf("status %d: asked with %v, had %s", status, keys, key)
		}
		if left, _ := filepath.Glob(filepath.Join(cfg.DataDir, "pki", "*.old")); len(left) > 0 {
			t.Errorf("status %d: %v is left", status, left)
		}
		// An agent does not join again by itself: it was removed for a reason.
		if _, err := openNode(t, cfg, true, tokenOf(t, a)); err != nil || len(keys) != 1 {
			t.Errorf("status %d: an agent: %v, %v", status, err, keys)
		}
	}
}

// An agent on a copy of a machine starts nothing while the original is connected.
func TestACopyOfANodeDoesNotStart(t *testing.T) {
	a := authority(t)
	var instance atomic.Value
	status := func(code int) string {
		return doorOf(t, a, "POST "+tunnel.Path, func(w http.ResponseWriter, r *http.Request) {
			instance.Store(r.Header.Get(v1.HeaderInstance))
			w.WriteHeader(code)
			_ = json.NewEncoder(w).Encode(v1.Problem{Detail: "two machines are node n2", Status: code})
		})
	}
	free, taken := status(http.StatusUpgradeRequired), status(http.StatusConflict)
	for _, c := range []struct {
		servers []string
		refused bool
	}{
		{[]string{free}, false},
		{[]string{taken}, true},
		{[]string{free, "127.0.0.1:1", taken}, true},
		{[]string{"127.0.0.1:1"}, false}, // after a loss of power containers start without a server
	} {
		j, err := openNode(t, member(t, a, time.Now(), c.servers...), true, "")
		if err != nil {
			t.Fatal(err)
		}
		j.instance = "mine"
		err = j.onlyOne(t.Context())
		if (err != nil) != c.refused || c.refused && (cluster.KindOf(err) != cluster.KindConflict || !strings.Contains(err.Error(), "two machines")) {
			t.Errorf("%v: %v", c.servers, err)
		}
		if c.servers[0] != "127.0.0.1:1" && instance.Load() != "mine" {
			t.Errorf("%v: said to be %v", c.servers, instance.Load())
		}
	}
}
