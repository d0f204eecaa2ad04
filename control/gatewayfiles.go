package control

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/loop"
	"github.com/fairlead/fairlead/secrets"
	"github.com/fairlead/fairlead/store"
)

// GatewaySource opens what the API keeps for gateways under the servers' own key:
// the value of the store's key e.
type GatewaySource func(id secrets.SourceID, value []byte) (cluster.GatewaySecret, error)

// GatewayFiles returns the loop that encrypts certificates and user lists to the
// gateways on nodes that are no servers, which have not the servers' key.
func GatewayFiles(st store.Store, m *store.Mirror, open GatewaySource, log hclog.Logger) *loop.Loop[secrets.GatewaySnapshot, secrets.GatewayAction] {
	g := &gatewayFiles{store: st, mirror: m, open: open, log: log, held: map[secrets.SourceID]cluster.StoreRev{}}
	return &loop.Loop[secrets.GatewaySnapshot, secrets.GatewayAction]{
		Name: "gateway files", Snapshot: g.snapshot, Plan: secrets.PlanGateways, Apply: g.apply,
		Changed: m.Changed, Resync: time.Minute, Log: log,
	}
}

type gatewayFiles struct {
	store     store.Store
	mirror    *store.Mirror
	open      GatewaySource
	log       hclog.Logger
	held      map[secrets.SourceID]cluster.StoreRev
	committed int64
}

func (g *gatewayFiles) snapshot(ctx context.Context) (s secrets.GatewaySnapshot, err error) {
	s.Held = g.held
	if err := caughtUp(ctx, g.mirror, g.committed); err != nil {
		return s, err
	}
	g.mirror.Read(func(v store.View) {
		for _, n := range store.Nodes(v) {
			if n.Gateway && n.Key != "" {
				s.Gateways = append(s.Gateways, secrets.Recipient{Node: n.ID, Key: n.Info.PublicKey})
			}
		}
		if len(s.Gateways) > 0 {
			s.Sources = gatewaySources(v)
		}
		for _, f := range store.GatewayFiles(v) {
			s.Files = append(s.Files, secrets.GatewayEntry{
				SourceID: secrets.SourceID{Kind: f.V.Kind, App: f.V.App, Name: f.V.Name}, Node: f.V.Node,
				Key: f.V.Key, Of: f.V.Of, Rev: cluster.StoreRev(f.Rev),
			})
		}
	})
	return s, nil
}

// gatewaySources are the certificates and user lists of the store.
func gatewaySources(v store.View) (out []secrets.GatewaySource) {
	for _, key := range v.Keys(store.CertKey("")) {
		if e, ok := v.Entry(key); ok {
			id := secrets.SourceID{Kind: cluster.GatewayCert, Name: key[len(store.CertKey("")):]}
			out = append(out, secrets.GatewaySource{SourceID: id, Rev: cluster.StoreRev(e.Rev)})
		}
	}
	for _, u := range store.All[cluster.UserList](v, store.PrefixApps, inApp("users")) {
		id := secrets.SourceID{Kind: cluster.GatewayUsers, App: u.V.App, Name: u.V.ID}
		if sourceKey(id) == u.Key {
			out = append(out, secrets.GatewaySource{SourceID: id, Rev: cluster.StoreRev(u.Rev)})
		}
	}
	return out
}

func sourceKey(id secrets.SourceID) string {
	if id.Kind == cluster.GatewayCert {
		return store.CertKey(id.Name)
	}
	return store.UserListKey(id.App, id.Name)
}

// apply writes what was planned. A source that does not open is logged once and
// does not stop the others.
func (g *gatewayFiles) apply(ctx context.Context, _ secrets.GatewaySnapshot, acts []secrets.GatewayAction) error {
	w := &batch{store: g.store}
	defer func() { g.committed = max(g.committed, w.rev) }()
	for _, a := range acts {
		var conds []store.Cond
		var op store.Op
		var err error
		switch a := a.(type) {
		case secrets.SealFile:
			if conds, op, err = g.seal(a); err != nil {
				g.held[a.Source.SourceID] = a.Source.Rev
				g.log.Error("cannot give gateways a certificate or a user list", "kind", a.Source.Kind, "app", a.Source.App, "name", a.Source.Name, "error", err)
				continue
			}
		case secrets.DropFile:
			e := a.Entry
			key := store.GatewayFileKey(e.Node, e.Kind, e.App, e.Name)
			conds, op = one(key, e.Rev), store.Op{Key: key, Delete: true}
		}
		if err := w.add(ctx, conds, op); err != nil {
			return err
		}
	}
	return w.flush(ctx)
}

func (g *gatewayFiles) seal(a secrets.SealFile) ([]store.Cond, store.Op, error) {
	id := a.Source.SourceID
	var value []byte
	g.mirror.Read(func(v store.View) {
		if e, ok := v.Entry(sourceKey(id)); ok && e.Rev == int64(a.Source.Rev) {
			value = e.Value
		}
	})
	key := store.GatewayFileKey(a.To.Node, id.Kind, id.App, id.Name)
	conds := []store.Cond{{Key: key, Rev: int64(a.Rev)}, {Key: sourceKey(id), Rev: int64(a.Source.Rev)}}
	file := cluster.GatewayFile{Node: a.To.Node, Kind: id.Kind, App: id.App, Name: id.Name, Key: a.To.Key, Of: a.Source.Rev}
	if value == nil { // it has changed since: the comparison fails, and is looked at again
		return conds, store.Op{Key: key, Delete: true}, nil
	}
	secret, err := g.open(id, value)
	if err != nil {
		return nil, store.Op{}, err
	}
	plain, err := json.Marshal(secret)
	if err != nil {
		return nil, store.Op{}, err
	}
	if file.Data, err = secrets.SealTo(plain, a.To.Key); err != nil {
		return nil, store.Op{}, fmt.Errorf("node %s: %w", a.To.Node, err)
	}
	op, err := store.PutJSON(key, file)
	if err == nil && len(op.Value) > maxSealedBytes {
		err = cluster.Invalidf("it has %d bytes once encrypted, the most is %d", len(op.Value), maxSealedBytes)
	}
	return conds, op, err
}
