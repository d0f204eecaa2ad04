package server

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/secrets/sealed"
	"github.com/fairlead/fairlead/store"
	"github.com/fairlead/fairlead/store/embedded"
)

// A server waits for a store that it served from before, lets nothing through
// meanwhile, and does not take another cluster's for its own afterwards.
func TestGateWaitsForItsOwnStore(t *testing.T) {
	key, err := sealed.NewKey(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{DataDir: t.TempDir(), EtcdEndpoints: []string{"https://10.0.0.1:2379"}, Log: hclog.NewNullLogger()}
	m := &machine{local: local{Config: cfg, cluster: "aaaa"}, key: key}
	synctest.Test(t, func(t *testing.T) {
		st := store.NewMemory()
		st.Down(true)
		if _, err := m.openGate(t.Context(), newGate(st), nil); cluster.KindOf(err) != cluster.KindTransient {
			t.Fatalf("a store that never answered: %v", err)
		}
		st.Down(false)
		g := newGate(st)
		if _, err := m.openGate(t.Context(), g, nil); err != nil {
			t.Fatal(err)
		}
		if _, _, err := g.List(t.Context(), store.Root); err != nil {
			t.Fatal(err)
		}

		// The next start finds it away.
		st.Down(true)
		g = newGate(st)
		wait, err := m.openGate(t.Context(), g, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := g.List(t.Context(), store.Root); cluster.KindOf(err) != cluster.KindTransient {
			t.Fatalf("read through a shut gate: %v", err)
		}
		ended := make(chan error, 1)
		go func() { ended <- wait(t.Context()) }()
		<-time.After(time.Minute)
		st.Down(false)
		if _, _, err := g.List(t.Context(), store.Root); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err != nil {
			t.Fatal(err)
		}

		// Another start, and what answers then is somebody else's.
		other := store.NewMemory()
		if err := (&machine{local: local{Config: cfg, cluster: "bbbb"}, key: key}).claimStore(t.Context(), other); err != nil {
			t.Fatal(err)
		}
		other.Down(true)
		g = newGate(other)
		if wait, err = m.openGate(t.Context(), g, nil); err != nil {
			t.Fatal(err)
		}
		other.Down(false)
		if err := wait(t.Context()); cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), "holds cluster bbbb") {
			t.Fatalf("another cluster's store: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := g.Commit(ctx, store.Txn{}); err == nil {
			t.Fatal("written to another cluster's store")
		}
	})
	// With another etcd named it is not waited for: whether it has the cluster is not known.
	m.EtcdEndpoints = []string{"https://10.0.0.2:2379"}
	if m.served() {
		t.Error("another etcd counts as served from")
	}
}

// An empty etcd is no other one's heir either: with a wrong --etcd-endpoints the agent
// would remove all that runs.
func TestAnotherEtcdThatIsEmptyIsRefused(t *testing.T) {
	key, err := sealed.NewKey(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	one, other := []string{"https://10.0.0.1:2379"}, []string{"https://10.0.0.2:2379"}
	for name, c := range map[string]struct {
		from, to []string
		old      bool // from before what was served from was noted
		says     string
	}{
		"another external one":           {from: one, to: other, says: "Give --etcd-endpoints https://10.0.0.1:2379 again"},
		"embedded, then external":        {to: other, says: "Leave out --etcd-endpoints"},
		"embedded before it was noted":   {to: other, old: true, says: "Leave out --etcd-endpoints"},
		"external, then embedded":        {from: one, says: "Give --etcd-endpoints https://10.0.0.1:2379 again"},
		"external, with another in turn": {from: one, to: append(other, one...), says: "Give --etcd-endpoints https://10.0.0.1:2379 again"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{DataDir: t.TempDir(), EtcdEndpoints: c.from, Log: hclog.NewNullLogger()}
			m := &machine{local: local{Config: cfg, cluster: "aaaa"}, key: key}
			store1 := store.NewMemory()
			if _, err := m.openGate(t.Context(), newGate(store1), nil); err != nil {
				t.Fatal(err)
			}
			if c.from == nil {
				if err := os.MkdirAll(filepath.Join(m.etcdDir(), "member-data", "member", "wal"), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if c.old {
				if err := os.Remove(m.servedFile()); err != nil {
					t.Fatal(err)
				}
			}
			m.EtcdEndpoints = c.to
			g := newGate(store.NewMemory())
			_, err := m.openGate(t.Context(), g, nil)
			if c.to == nil { // not even started
				_, _, err = m.openStore(t.Context())
			}
			if cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "remove "+m.servedFile()) {
				t.Fatalf("an empty store is taken: %v", err)
			}
			select {
			case <-g.open:
				t.Fatal("an empty store was read")
			default:
			}

			// Where the cluster's data was brought first, it is the cluster's.
			if _, err := m.openGate(t.Context(), newGate(store1), nil); err != nil || !m.served() {
				t.Fatalf("the same cluster elsewhere: %v", err)
			}
			// And it is begun anew as the error says.
			if err := os.Remove(m.servedFile()); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(m.etcdDir()); err != nil {
				t.Fatal(err)
			}
			if _, err := m.openGate(t.Context(), newGate(store.NewMemory()), nil); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// An etcd that lost its data is not begun anew by who served from it: the agent would
// remove the containers of all that it does not know any more.
func TestAStoreThatIsEmptyNowIsRefused(t *testing.T) {
	key, err := sealed.NewKey(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	for name, endpoints := range map[string][]string{"embedded": nil, "external": {"https://10.0.0.1:2379"}} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{DataDir: t.TempDir(), EtcdEndpoints: endpoints, Log: hclog.NewNullLogger()}
			m := &machine{local: local{Config: cfg, cluster: "aaaa"}, key: key}
			refused := func(err error) {
				t.Helper()
				if cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), "remove "+m.servedFile()) {
					t.Fatalf("an empty store is served from: %v", err)
				}
			}
			synctest.Test(t, func(t *testing.T) {
				if _, err := m.openGate(t.Context(), newGate(store.NewMemory()), nil); err != nil {
					t.Fatal(err)
				}
				empty := store.NewMemory()
				g := newGate(empty)
				_, err := m.openGate(t.Context(), g, nil)
				refused(err)
				if _, _, err := g.List(t.Context(), store.Root); err == nil {
					t.Fatal("an empty store was read")
				}

				// So it is where it answers only later.
				empty.Down(true)
				wait, err := m.openGate(t.Context(), newGate(empty), nil)
				if err != nil {
					t.Fatal(err)
				}
				empty.Down(false)
				refused(wait(t.Context()))
				if endpoints == nil { // not even started
					_, _, err := m.openStore(t.Context())
					refused(err)
					if embedded.HasData(filepath.Join(m.DataDir, "etcd")) {
						t.Fatal("an etcd was begun")
					}
				}

				// As the error says.
				if err := os.Remove(m.servedFile()); err != nil {
					t.Fatal(err)
				}
				if _, err := m.openGate(t.Context(), newGate(empty), nil); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}
