package server

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fairlead/fairlead/atomicfile"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
	"github.com/fairlead/fairlead/store/embedded"
)

// gate is a store that is closed until it is known to be this cluster's: an
// agent that took another cluster's placements, or an empty store's, for its own
// would remove its containers.
type gate struct {
	store.Store
	open chan struct{}
}

func newGate(st store.Store) *gate { return &gate{Store: st, open: make(chan struct{})} }

// gateTimeout bounds how long a request waits for the gate, as the store's own does.
const gateTimeout = 5 * time.Second

func (g *gate) wait(ctx context.Context) error {
	t := time.NewTimer(gateTimeout)
	defer t.Stop()
	select {
	case <-g.open:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return cluster.Transientf("the store has not answered since this server started")
	}
}

// Get implements store.Store.
func (g *gate) Get(ctx context.Context, key string) (store.Entry, error) {
	if err := g.wait(ctx); err != nil {
		return store.Entry{}, err
	}
	return g.Store.Get(ctx, key)
}

// List implements store.Store.
func (g *gate) List(ctx context.Context, prefix string) ([]store.Entry, int64, error) {
	if err := g.wait(ctx); err != nil {
		return nil, 0, err
	}
	return g.Store.List(ctx, prefix)
}

// Commit implements store.Store.
func (g *gate) Commit(ctx context.Context, t store.Txn) (int64, error) {
	if err := g.wait(ctx); err != nil {
		return 0, err
	}
	return g.Store.Commit(ctx, t)
}

// Watch implements store.Store. What is watched was listed before.
func (g *gate) Watch(ctx context.Context, prefix string, rev int64) <-chan store.Batch {
	if err := g.wait(ctx); err != nil {
		out := make(chan store.Batch, 1)
		out <- store.Batch{Err: err}
		close(out)
		return out
	}
	return g.Store.Watch(ctx, prefix, rev)
}

// Lease implements store.Store.
func (g *gate) Lease(ctx context.Context, ttlSeconds int64) (store.LeaseID, <-chan struct{}, error) {
	if err := g.wait(ctx); err != nil {
		return 0, nil, err
	}
	return g.Store.Lease(ctx, ttlSeconds)
}

// servedFile names the store that this machine has served before.
func (m *machine) servedFile() string { return filepath.Join(m.DataDir, "served") }

// served reports whether this machine has served from the configured store before: it is
// waited for.
func (m *machine) served() bool {
	b, err := os.ReadFile(m.servedFile())
	return err == nil && string(b) == m.storeName()
}

// servedFrom says where this data directory has served this cluster from, "" where it has
// not: no empty store is its own then, whichever it is. A data directory of before there
// was the file has the embedded etcd's data.
func (m *machine) servedFrom() string {
	b, err := os.ReadFile(m.servedFile())
	id, endpoints, _ := strings.Cut(string(b), " ")
	switch {
	case err == nil && id == m.cluster && endpoints != "":
		return endpoints
	case err == nil && id == m.cluster, m.external() && embedded.HasData(m.etcdDir()):
		return ownEtcd
	}
	return ""
}

// ownEtcd names the embedded etcd for people.
const ownEtcd = "the server's own etcd"

// etcdDir is where the embedded etcd's data is.
func (c *Config) etcdDir() string { return filepath.Join(c.DataDir, "etcd") }

func (m *machine) storeName() string { return m.cluster + " " + strings.Join(m.EtcdEndpoints, ",") }

// openGate claims the store and opens the gate. A store that does not answer is
// waited for meanwhile where this machine has served from it before: its agent
// and gateway then go on from what they have on disk. wait does the waiting.
// ended receives the embedded etcd's end.
func (m *machine) openGate(ctx context.Context, g *gate, ended <-chan error) (wait func(context.Context) error, err error) {
	try := func(ctx context.Context) error {
		if err := m.claimStore(ctx, store.Guarded(g.Store, store.WriterServer)); err != nil {
			return err
		}
		close(g.open)
		if m.served() {
			return nil
		}
		return atomicfile.Write(m.servedFile(), []byte(m.storeName()))
	}
	err = m.insist(ctx, ended, try)
	if cluster.KindOf(err) != cluster.KindTransient || !m.served() {
		return func(context.Context) error { return nil }, err
	}
	m.Log.Error("the store does not answer; starting what ran here last, and waiting for it", "error", err)
	return func(ctx context.Context) error {
		for {
			t := time.NewTimer(firstRetry)
			select {
			case <-ctx.Done():
				t.Stop()
				return context.Cause(ctx)
			case <-t.C:
			}
			err := try(ctx)
			switch {
			case err == nil:
				m.Log.Info("the store answers")
				return nil
			case ctx.Err() != nil || cluster.KindOf(err) == cluster.KindTransient:
			default:
				return errors.Join(cluster.Invalidf("the store that answers now is not the one that this server served from"), err)
			}
		}
	}, nil
}
