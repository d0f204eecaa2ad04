package server

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/pki"
)

// A first server is the node that it began as, when the host was given another name since:
// as another node it would leave its containers to nobody.
func TestAFirstServerKeepsItsName(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	// starts is a start in a data directory, with --node or without.
	starts := func(dir, flag string) (string, error) {
		t.Helper()
		c := Config{DataDir: dir, Node: flag, Log: hclog.NewNullLogger()}
		for range 2 { // system install fills in the defaults, and so does what it starts
			if err := c.SetDefaults(); err != nil {
				t.Fatal(err)
			}
		}
		err := c.keepName()
		return c.Node, err
	}
	older := func(name cluster.NodeID) string {
		dir := t.TempDir()
		if _, err := pki.Open(filepath.Join(dir, "pki"), pki.Host{Node: name, Hosts: []string{"10.0.0.1"}}, time.Now); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for name, c := range map[string]struct {
		dir   string
		flags []string
		want  string
	}{
		"the host name":                        {t.TempDir(), []string{"", ""}, normalNode(host)},
		"a name that was given once":           {t.TempDir(), []string{"edge-1", "edge-1", ""}, "edge-1"},
		"from before the name was kept":        {older("edge-2"), []string{"", "", "edge-2"}, "edge-2"},
		"from before, with a name given":       {older("edge-2"), []string{"edge-3", ""}, "edge-3"},
		"from before, and never came to serve": {filepath.Dir(filepath.Join(t.TempDir(), "pki")), []string{""}, normalNode(host)},
	} {
		for _, flag := range c.flags {
			if got, err := starts(c.dir, flag); err != nil || got != c.want {
				t.Errorf("%s: with --node %q it is %q, %v; want %q", name, flag, got, err, c.want)
			}
		}
		_, err := starts(c.dir, "other")
		if cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), "is node "+c.want) || !strings.Contains(err.Error(), "Leave out --node") {
			t.Errorf("%s: another name is taken: %v", name, err)
		}
	}
}

// A file that holds no name is not guessed at.
func TestADamagedNameIsRefused(t *testing.T) {
	c := Config{DataDir: t.TempDir(), Log: hclog.NewNullLogger()}
	if err := c.SetDefaults(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.nameFile(), []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.keepName(); cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), c.nameFile()) {
		t.Errorf("%v", err)
	}
}

// What joined is what it joined as: what it is told otherwise is refused and not ignored.
func TestWhatJoinedIsNotToldOtherwise(t *testing.T) {
	for name, c := range map[string]struct {
		given Config
		want  string
	}{
		"nothing":           {Config{}, ""},
		"its own":           {Config{Node: "n2", Pool: "10.9.0.0/16", ServiceRange: "10.8.0.0/16"}, ""},
		"the defaults":      {Config{Node: "n2", Pool: defaultPool, ServiceRange: defaultServiceRange}, ""},
		"another name":      {Config{Node: "n3"}, "--node n3: this machine joined as node n2"},
		"another pool":      {Config{Pool: "10.7.0.0/16"}, "--pool 10.7.0.0/16: the cluster that this server joined had 10.9.0.0/16; leave out --pool"},
		"another for names": {Config{ServiceRange: "10.9.0.0/16"}, "--service-range 10.9.0.0/16: the cluster that this server joined had 10.8.0.0/16"},
	} {
		if err := c.given.SetDefaults(); err != nil {
			t.Fatal(err)
		}
		err := c.given.asJoined("n2", "10.9.0.0/16", "10.8.0.0/16", false)
		if c.want != "" {
			if cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q", name, err, c.want)
			}
			err = c.given.asJoined("n2", "10.9.0.0/16", "10.8.0.0/16", true) // from before it was refused
		}
		if g := c.given; err != nil || g.Node != "n2" || g.Pool != "10.9.0.0/16" || g.ServiceRange != "10.8.0.0/16" {
			t.Errorf("%s: %v: %s %s %s", name, err, g.Node, g.Pool, g.ServiceRange)
		}
	}
}
