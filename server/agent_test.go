package server

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/fairlead/fairlead/cluster"
)

// A node that has joined is not taken for another cluster's, whatever is typed.
func TestMembershipIsOfOneCluster(t *testing.T) {
	cfg := Config{DataDir: t.TempDir()}
	if isJoined(cfg.DataDir) {
		t.Error("an empty directory has joined")
	}
	path := filepath.Join(cfg.DataDir, membershipFile)
	if err := os.WriteFile(path, []byte(`{"node":"n2","servers":["10.0.0.1:7420","10.0.0.3:7420"]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for join, ok := range map[string]bool{"": true, "10.0.0.1:7420": true, "10.0.0.3:7420": true, "10.0.0.9:7420": false} {
		cfg.Join = join
		m, err := readMembership(cfg)
		if (err == nil) != ok || m.Node != "n2" || !isJoined(cfg.DataDir) {
			t.Errorf("--join %q: %+v, %v", join, m, err)
		}
		if !ok && (cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), "10.0.0.1:7420") || !strings.Contains(err.Error(), "uninstall --purge")) {
			t.Errorf("--join %q: %v", join, err)
		}
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readMembership(cfg); cluster.KindOf(err) != cluster.KindInvalid {
		t.Errorf("a damaged file: %v", err)
	}
}

func TestServersFlagsAreRefusedOnANode(t *testing.T) {
	known := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	new(Config).registerNode(known)
	for args, ok := range map[string]bool{
		"--node=n2 --docker=unix:///x": true, "--domain=x": false, "--http-port=8080 --node=n2": false, "--no-gateway": false,
	} {
		given := pflag.NewFlagSet("install", pflag.ContinueOnError)
		new(Config).register(given)
		if err := given.Parse(strings.Fields(args)); err != nil {
			t.Fatal(err)
		}
		if err := onlyNodeFlags(given, known); (err == nil) != ok {
			t.Errorf("%s: %v", args, err)
		}
	}
}
