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
	// With another etcd named, nothing is known of it.
	m.EtcdEndpoints = []string{"https://10.0.0.2:2379"}
	if m.served() {
		t.Error("another etcd counts as served from")
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
