package server

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/pflag"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

func TestMembershipIsRead(t *testing.T) {
	dir := t.TempDir()
	if isJoined(dir) {
		t.Error("an empty directory has joined")
	}
	path := filepath.Join(dir, membershipFile)
	if err := os.WriteFile(path, []byte(`{"node":"n2","servers":["10.0.0.1:7420","10.0.0.3:7420"]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if m, err := readMembership(dir); err != nil || m.Node != "n2" || len(m.Servers) != 2 || !isJoined(dir) {
		t.Errorf("%+v, %v", m, err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readMembership(dir); cluster.KindOf(err) != cluster.KindInvalid {
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

// An agent that is started while no server answers waits for one; what a server
// refuses, and a server of another cluster, end it at once.
func TestAnAgentWaitsForAServer(t *testing.T) {
	away, refused := cluster.Transientf("connection refused"), cluster.Invalidf("the token has been used")
	for name, c := range map[string]struct {
		waits   bool
		answers []error
		asked   int
		end     error
	}{
		"it answers":                {true, []error{nil}, 1, nil},
		"it comes back":             {true, []error{away, away, nil}, 3, nil},
		"it refuses":                {true, []error{away, refused}, 2, refused},
		"a person waits for a word": {false, []error{away}, 1, away},
	} {
		synctest.Test(t, func(t *testing.T) {
			j := &joined{local: local{Config: Config{Log: hclog.NewNullLogger()}}, waits: c.waits}
			asked := 0
			_, err := j.admitted(t.Context(), func() (v1.Membership, error) {
				asked++
				return v1.Membership{}, c.answers[asked-1]
			})
			if asked != c.asked || !errors.Is(err, c.end) {
				t.Errorf("%s: asked %d times, %v", name, asked, err)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	j := &joined{local: local{Config: Config{Log: hclog.NewNullLogger()}}, waits: true}
	if _, err := j.admitted(ctx, func() (v1.Membership, error) { cancel(); return v1.Membership{}, away }); err == nil {
		t.Error("it waits after its end")
	}
}

func TestAServerOfAnotherClusterIsNotWaitedFor(t *testing.T) {
	srv := httptest.NewTLSServer(http.NotFoundHandler())
	defer srv.Close()
	_, err := askPinned[v1.Membership](t.Context(), srv.Listener.Addr().String(), "sha256:"+strings.Repeat("0", 64), "/v1/join", v1.Join{})
	if cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), "not of the authority") {
		t.Errorf("%v (kind %v)", err, cluster.KindOf(err))
	}
	srv.Close()
	_, err = askPinned[v1.Membership](t.Context(), srv.Listener.Addr().String(), "sha256:"+strings.Repeat("0", 64), "/v1/join", v1.Join{})
	if cluster.KindOf(err) != cluster.KindTransient {
		t.Errorf("a server that is away: %v (kind %v)", err, cluster.KindOf(err))
	}
}
