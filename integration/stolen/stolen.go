// Package stolen tries what the certificate of a node opens beyond the node's own.
package stolen

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// Walked is what a stolen certificate was tried on, and what it opened that is not
// the node's own.
type Walked struct {
	Keys, Calls int
	Reached     []string
	// Own is how much of what it was tried on is the node's own, and opened.
	Own int

	thief cluster.NodeID // runs containers and is no gateway
	as    *clientv3.Client
}

// Walk tries every key that there is, and what is done to etcd itself, as a node that
// runs containers and is no gateway. root may read everything.
func Walk(ctx context.Context, root, as *clientv3.Client, thief cluster.NodeID) (Walked, error) {
	w := Walked{thief: thief, as: as}
	all, err := root.Get(ctx, "\x00", clientv3.WithFromKey())
	if err != nil {
		return w, err
	}
	lead := clientv3.NoLease
	for _, kv := range all.Kvs {
		if string(kv.Key) == store.LockKey("leader") {
			lead = clientv3.LeaseID(kv.Lease)
		}
	}
	if lead == clientv3.NoLease {
		return w, errors.New("nobody leads: there is no lease to steal")
	}
	if err := errors.Join(w.keys(ctx, all.Kvs), w.calls(ctx, lead)); err != nil {
		return w, err
	}
	if w.Own == 0 {
		return w, errors.New("the certificate opens nothing, not even what is its own: this shows nothing")
	}
	return w, nil
}

// own is what a node may reach: read what is meant for it and where others are,
// write what it says of itself.
func (w *Walked) own(key string, write bool) bool {
	says := []string{store.NodeInfoKey(w.thief), store.AliveKey(w.thief), store.AgentAckKey(w.thief)}
	if slices.Contains(says, key) || strings.HasPrefix(key, store.StatusPrefix(w.thief)) {
		return true
	}
	reads := []string{store.PlacementPrefix(w.thief), store.SealedPrefix(w.thief), store.PrefixEndpoints, store.PrefixNodeNets, store.PrefixServers}
	return !write && slices.ContainsFunc(reads, func(p string) bool { return strings.HasPrefix(key, p) })
}

func (w *Walked) try(what string, allowed bool, call func() error) error {
	err := call()
	switch {
	case err == nil && allowed:
		w.Own++
	case err == nil:
		w.Reached = append(w.Reached, what)
	case !errors.Is(err, rpctypes.ErrPermissionDenied) && !strings.Contains(err.Error(), "permission denied"):
		return fmt.Errorf("%s: %w", what, err) // neither reached nor refused
	}
	return nil
}

func (w *Walked) keys(ctx context.Context, all []*mvccpb.KeyValue) error {
	for _, kv := range all {
		w.Keys++
		key := string(kv.Key)
		never := clientv3.Compare(clientv3.ModRevision(key), "=", kv.ModRevision+1_000_000_000) // what may be written stays as it is
		change := func(op clientv3.Op) func() error {
			return func() error { _, err := w.as.Txn(ctx).If(never).Then(op).Commit(); return err }
		}
		inner := clientv3.OpTxn([]clientv3.Cmp{never}, []clientv3.Op{clientv3.OpPut(key, "stolen")}, []clientv3.Op{clientv3.OpGet(key)})
		err := errors.Join(
			w.try("read "+key, w.own(key, false), func() error { _, err := w.as.Get(ctx, key); return err }),
			w.try("write "+key, w.own(key, true), change(clientv3.OpPut(key, "stolen"))),
			w.try("delete "+key, w.own(key, true), change(clientv3.OpDelete(key))),
			w.try("read and write in a transaction's transaction "+key, w.own(key, true), func() error {
				_, err := w.as.Txn(ctx).Then(inner).Commit()
				return err
			}),
			w.try("watch "+key, w.own(key, false), func() error { return w.watch(ctx, key) }),
		)
		if err != nil {
			return err
		}
	}
	return nil
}

// watch makes a watch and ends it.
func (w *Walked) watch(ctx context.Context, key string, opts ...clientv3.OpOption) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := <-w.as.Watch(ctx, key, append(opts, clientv3.WithCreatedNotify())...)
	return r.Err()
}

func (w *Walked) calls(ctx context.Context, lead clientv3.LeaseID) error {
	as := w.as
	for what, call := range map[string]func() error{
		"read everything":         func() error { _, err := as.Get(ctx, "\x00", clientv3.WithFromKey()); return err },
		"watch everything":        func() error { return w.watch(ctx, "\x00", clientv3.WithFromKey()) },
		"end the leader's lease":  func() error { _, err := as.Revoke(ctx, lead); return err },
		"keep the leader's lease": func() error { _, err := as.KeepAliveOnce(ctx, lead); return err },
		"list users":              func() error { _, err := as.UserList(ctx); return err },
		"list roles":              func() error { _, err := as.RoleList(ctx); return err },
		"add a user":              func() error { _, err := as.UserAdd(ctx, "thief", "x"); return err },
		"grant a role":            func() error { _, err := as.UserGrantRole(ctx, "thief", "root"); return err },
		"open the store":          func() error { _, err := as.AuthDisable(ctx); return err },
		"add a member":            func() error { _, err := as.MemberAdd(ctx, []string{"https://10.99.0.9:7422"}); return err },
		"defragment":              func() error { _, err := as.Defragment(ctx, as.Endpoints()[0]); return err },
		"take a snapshot": func() error {
			r, err := as.Snapshot(ctx)
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, r)
			return errors.Join(err, r.Close())
		},
	} {
		w.Calls++
		if err := w.try(what, false, call); err != nil {
			return err
		}
	}
	return nil
}
