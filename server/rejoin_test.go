package server

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/pki"
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
