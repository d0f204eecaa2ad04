package server

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// The servers of a cluster have one store: the keys are not given to one that would
// have another, and a server keeps to what it joined.
func TestServersHaveOneStore(t *testing.T) {
	for _, external := range []bool{false, true} {
		first := &machine{local: local{Config: Config{DataDir: t.TempDir(), Node: "n1", Advertise: "10.0.0.1", ServiceRange: "10.212.0.0/16"}, now: time.Now}}
		if external {
			first.EtcdEndpoints = []string{"https://10.0.0.5:2379"}
		}
		if err := first.readKeys(); err != nil {
			t.Fatal(err)
		}
		r := &roster{admission: &admission{machine: first, mirror: store.NewMirror(store.NewMemory(), store.Root, hclog.NewNullLogger())}}
		cfg := Config{DataDir: t.TempDir(), Node: "n2", Advertise: "10.0.0.2", ServiceRange: "10.212.0.0/16"}
		identity, err := nodeIdentity(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if m, err := r.Keys(v1.ServerJoin{Node: "n2", Recipient: identity, External: !external}); cluster.KindOf(err) != cluster.KindInvalid || len(m.Sealed) > 0 {
			t.Errorf("external %v: keys for another store: %v", external, err)
		}
		m, err := r.Keys(v1.ServerJoin{Node: "n2", Recipient: identity, External: external})
		if err != nil {
			t.Fatal(err)
		}
		if err := (settings{ServerMembership: m}).write(cfg.DataDir); err != nil {
			t.Fatal(err)
		}
		for _, again := range []bool{external, !external} {
			cfg.EtcdEndpoints = nil
			if again {
				cfg.EtcdEndpoints = []string{"https://10.0.0.5:2379"}
			}
			if err := (&machine{local: local{Config: cfg, now: time.Now}}).joinServers(t.Context(), nil); (err == nil) != (again == external) {
				t.Errorf("joined with external %v, started with %v: %v", external, again, err)
			}
		}
	}
}

// On an external etcd a server that runs is not forgotten, as it would only be known again.
func TestForgettingAServer(t *testing.T) {
	list := []v1.ServerSummary{{Node: "n1", Answers: true}, {Node: "n2"}}
	for id, says := range map[cluster.NodeID]string{"n1": "stop it first", "n2": "", "n3": "no server"} {
		if err := mayForget(list, id); (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", id, err)
		}
	}
}

// One that has stopped is forgotten; it is no member of that etcd, which is not asked.
func TestAServerOnAnExternalEtcdIsForgotten(t *testing.T) {
	mirror := holds(t, map[string]any{
		store.ServerSpecKey("n1"): cluster.ServerSpec{Node: "n1"}, store.ServerSpecKey("n2"): cluster.ServerSpec{Node: "n2"},
	})
	m := &machine{local: local{Config: Config{Node: "n1", EtcdEndpoints: []string{"https://10.0.0.5:2379"}}}}
	r := &roster{admission: &admission{machine: m, mirror: mirror, self: cluster.ServerInfo{Node: "n1"}}}
	if err := r.Remove(t.Context(), "n2"); err != nil {
		t.Error(err)
	}
	if err := r.Remove(t.Context(), "n1"); cluster.KindOf(err) != cluster.KindInvalid {
		t.Errorf("one that runs: %v", err)
	}
}
