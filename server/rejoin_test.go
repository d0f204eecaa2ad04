package server

import (
	"errors"
	"path/filepath"
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
	if _, err := openNode(t, cfg, false, ""); err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") || strings.Contains(err.Error(), "--purge") {
		t.Errorf("a person is told: %v (kind %v)", err, cluster.KindOf(err))
	}
}
