package control

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/loop"
	"github.com/fairlead/fairlead/registry"
	"github.com/fairlead/fairlead/store"
)

// RegistryOptions are the parts of Registry that come from configuration, and from how
// this server came to lead.
type RegistryOptions struct {
	Addresses netip.Prefix // services'
	Pool      netip.Prefix // containers', of which each node is given its part
	// Since is from when on this server saw another one lead, until it did itself: nodes
	// could be heard of all that time.
	Since time.Time
	Now   func() time.Time
}

// Registry returns the loop that writes endpoints and service addresses, and where
// each node's containers are.
func Registry(st store.Store, m *store.Mirror, o RegistryOptions, log hclog.Logger) *loop.Loop[registry.Snapshot, registry.Action] {
	r := &registryStore{store: st, mirror: m, options: o, heard: map[cluster.NodeID]bool{}, log: log, untaken: untaken{log: log, now: o.Now}}
	return &loop.Loop[registry.Snapshot, registry.Action]{
		Name: "registry", Snapshot: r.snapshot, Plan: registry.Plan, Apply: r.apply, Wake: registry.Wake,
		Changed: m.Changed, Resync: 30 * time.Second, Log: log,
	}
}

type registryStore struct {
	store     store.Store
	mirror    *store.Mirror
	options   RegistryOptions
	heard     map[cluster.NodeID]bool // nodes that were alive at some time since this loop began
	log       hclog.Logger
	untaken   untaken // by key; it is tried in every plan, as each writes it anew
	committed int64   // revision of the last write
}

func (r *registryStore) snapshot(ctx context.Context) (registry.Snapshot, error) {
	var s registry.Snapshot
	if err := caughtUp(ctx, r.mirror, r.committed); err != nil {
		return s, err
	}
	r.mirror.Read(func(v store.View) {
		s = registry.Snapshot{
			Services: store.Services(v), Tasks: store.Tasks(v), Placements: store.Placements(v),
			Statuses: store.Statuses(v), Nodes: store.Nodes(v), Endpoints: store.EndpointSets(v),
			Claims: r.claims(v), Refused: refused(v), Range: r.options.Addresses, Nets: store.NodeNets(v), Pool: r.options.Pool,
			Now: r.options.Now(), Since: r.options.Since,
		}
	})
	for _, n := range s.Nodes {
		if n.Alive {
			r.heard[n.ID] = true
		}
	}
	s.Heard = maps.Clone(r.heard)
	return s, nil
}

func (r *registryStore) claims(v store.View) []registry.Claim {
	prefix := store.PrefixPools + "addresses/"
	vals := store.All[string](v, prefix, nil)
	out := make([]registry.Claim, 0, len(vals))
	for _, c := range vals {
		app, name, _ := strings.Cut(strings.TrimPrefix(c.Key, prefix), "/")
		addr, err := netip.ParseAddr(c.V)
		if err != nil {
			r.log.Error("left out a service address that is none", "key", c.Key, "error", err)
			continue
		}
		out = append(out, registry.Claim{
			Service: cluster.ServiceID{App: cluster.AppName(app), Name: cluster.ServiceName(name)},
			Address: addr, Rev: cluster.StoreRev(c.Rev),
		})
	}
	return out
}

// refused are the services that have a decision of this loop's.
func refused(v store.View) map[cluster.ServiceID]registry.Refusal {
	prefix := store.DecisionKey("registry", "")
	out := map[cluster.ServiceID]registry.Refusal{}
	for _, d := range store.All[cluster.Decision](v, prefix, nil) {
		app, name, _ := strings.Cut(strings.TrimPrefix(d.Key, prefix), "/")
		out[cluster.ServiceID{App: cluster.AppName(app), Name: cluster.ServiceName(name)}] = registry.Refusal{
			Reason: d.V.Reason, Rev: cluster.StoreRev(d.Rev),
		}
	}
	return out
}

// registryWrite is what is written together: an address and the endpoints that carry it
// never come apart.
type registryWrite struct {
	conds []store.Cond
	ops   []store.Op
	size  int
}

// apply writes the actions in as few transactions as they fit in. One service that the
// store does not take does not keep the others waiting.
func (r *registryStore) apply(ctx context.Context, _ registry.Snapshot, acts []registry.Action) error {
	writes, err := r.writes(acts)
	if err != nil {
		return err
	}
	for len(writes) > 0 {
		n, ops, size := 0, 0, 0
		for _, w := range writes {
			ops, size = ops+len(w.ops), size+w.size
			if n > 0 && (ops > store.MaxOps || size > batchBytes) {
				break
			}
			n++
		}
		if err := r.commit(ctx, writes[:n]); err != nil {
			return err
		}
		writes = writes[n:]
	}
	return nil
}

func (r *registryStore) writes(acts []registry.Action) ([]registryWrite, error) {
	var out []registryWrite
	together := false
	for _, a := range acts {
		cond, op, err := r.write(a)
		if err != nil {
			return nil, err
		}
		if op.Key == "" {
			continue
		}
		if !together {
			out = append(out, registryWrite{})
		}
		w := &out[len(out)-1]
		if cond.Key != "" {
			w.conds = append(w.conds, cond)
		}
		w.ops = append(w.ops, op)
		w.size += len(op.Key) + len(op.Value)
		_, together = a.(registry.PutAddress)
	}
	return out, nil
}

// commit writes all of them at once, or, where the store does not take that, one by one.
func (r *registryStore) commit(ctx context.Context, writes []registryWrite) error {
	var t store.Txn
	for _, w := range writes {
		t.If, t.Then = append(t.If, w.conds...), append(t.Then, w.ops...)
	}
	rev, err := r.store.Commit(ctx, t)
	switch {
	case err == nil:
		r.committed = rev
		for _, w := range writes {
			r.untaken.taken(w.ops[0].Key)
		}
		return nil
	case cluster.KindOf(err) != cluster.KindInvalid:
		return fmt.Errorf("write endpoints: %w", err)
	case len(writes) == 1:
		r.untaken.refused(t.Then[0].Key, err)
		return nil
	}
	for i := range writes {
		if err := r.commit(ctx, writes[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

func (r *registryStore) write(a registry.Action) (store.Cond, store.Op, error) {
	switch a := a.(type) {
	case registry.PutAddress:
		key := store.AddressKey(a.Service)
		b, err := json.Marshal(a.Address.String())
		return store.Cond{Key: key}, store.Op{Key: key, Value: b}, err
	case registry.DeleteAddress:
		key := store.AddressKey(a.Service)
		return store.Cond{Key: key, Rev: int64(a.Rev)}, store.Op{Key: key, Delete: true}, nil
	case registry.PutEndpoints:
		key := store.EndpointsKey(a.Endpoints.ServiceID)
		op, err := store.PutJSON(key, a.Endpoints)
		return store.Cond{Key: key, Rev: int64(a.Endpoints.Rev)}, op, err
	case registry.DeleteEndpoints:
		key := store.EndpointsKey(a.Service)
		return store.Cond{Key: key, Rev: int64(a.Rev)}, store.Op{Key: key, Delete: true}, nil
	case registry.NoAddress:
		r.log.Warn("no service address", "service", a.Service.String(), "reason", a.Reason)
		key := store.DecisionKey("registry", a.Service.String())
		op, err := store.PutJSON(key, cluster.Decision{
			Loop: "registry", Object: a.Service.String(), Verdict: "no service address", Reason: a.Reason, At: r.options.Now(),
		})
		return store.Cond{Key: key, Rev: int64(a.Rev)}, op, err
	case registry.PutNodeNet:
		key := store.NodeNetKey(a.Net.Node)
		op, err := store.PutJSON(key, a.Net)
		return store.Cond{Key: key, Rev: int64(a.Net.Rev)}, op, err
	case registry.DeleteNodeNet:
		key := store.NodeNetKey(a.Node)
		return store.Cond{Key: key, Rev: int64(a.Rev)}, store.Op{Key: key, Delete: true}, nil
	case registry.ClearNoAddress:
		key := store.DecisionKey("registry", a.Service.String())
		return store.Cond{Key: key, Rev: int64(a.Rev)}, store.Op{Key: key, Delete: true}, nil
	}
	return store.Cond{}, store.Op{}, fmt.Errorf("registry action %T is not known", a)
}
