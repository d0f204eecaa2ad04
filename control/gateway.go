package control

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// GatewayStore is the store as a gateway sees it: Traefik's tree, and its own
// acknowledgement (gateway.Cluster).
type GatewayStore struct{ Store store.Store }

// Follow implements gateway.Cluster.
func (g GatewayStore) Follow(ctx context.Context, apply func(whole bool, put map[string][]byte, deleted []string)) error {
	entries, rev, err := g.Store.List(ctx, store.TraefikRoot)
	if err != nil {
		return err
	}
	put := make(map[string][]byte, len(entries))
	for _, e := range entries {
		if inTraefikTree(e.Key) {
			put[e.Key] = e.Value
		}
	}
	apply(true, put, nil)
	wctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for b := range g.Store.Watch(wctx, store.TraefikRoot, rev) {
		if b.Err != nil {
			return b.Err
		}
		// A batch may hold several changes of one key: the last one counts.
		put, gone := map[string][]byte{}, map[string]bool{}
		for _, ev := range b.Events {
			if !inTraefikTree(ev.Key) {
				continue
			}
			if delete(put, ev.Key); ev.Deleted {
				gone[ev.Key] = true
				continue
			}
			put[ev.Key], gone[ev.Key] = ev.Value, false
		}
		var deleted []string
		for k, is := range gone {
			if is {
				deleted = append(deleted, k)
			}
		}
		apply(false, put, deleted)
	}
	return context.Cause(ctx)
}

// inTraefikTree tells the tree's keys from those that merely start with the same letters.
func inTraefikTree(key string) bool {
	return key == store.TraefikRoot || strings.HasPrefix(key, store.TraefikRoot+"/")
}

// Ack implements gateway.Cluster.
func (g GatewayStore) Ack(ctx context.Context, a cluster.GatewayAck) error {
	key := store.GatewayAckKey(a.Node)
	op, err := store.PutJSON(key, a)
	if err != nil {
		return err
	}
	e, err := g.Store.Get(ctx, key)
	if err != nil && cluster.KindOf(err) != cluster.KindNotFound {
		return err
	}
	_, err = g.Store.Commit(ctx, store.Txn{If: []store.Cond{{Key: key, Rev: e.Rev}}, Then: []store.Op{op}})
	return err
}

// Fail records why a node's gateway does not work. What it served last stays:
// its Traefik may run on.
func (g GatewayStore) Fail(ctx context.Context, node cluster.NodeID, reason string) error {
	a := cluster.GatewayAck{Node: node}
	e, err := g.Store.Get(ctx, store.GatewayAckKey(node))
	switch {
	case err == nil:
		if err := json.Unmarshal(e.Value, &a); err != nil {
			a = cluster.GatewayAck{Node: node}
		}
	case cluster.KindOf(err) != cluster.KindNotFound:
		return err
	}
	if a.Error == reason {
		return nil
	}
	a.Error = reason
	return g.Ack(ctx, a)
}

// Retire forgets what a node's gateway served: there is none any more, and nobody
// needs to wait for it.
func (g GatewayStore) Retire(ctx context.Context, node cluster.NodeID) error {
	key := store.GatewayAckKey(node)
	e, err := g.Store.Get(ctx, key)
	if cluster.KindOf(err) == cluster.KindNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = g.Store.Commit(ctx, store.Txn{If: []store.Cond{{Key: key, Rev: e.Rev}}, Then: []store.Op{{Key: key, Delete: true}}})
	return err
}
