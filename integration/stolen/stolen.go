// Package stolen tries what the certificate of a node opens beyond the node's own.
package stolen

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/pki"
	"github.com/fairlead/fairlead/store"
)

// Thief is whose certificate was stolen, and how far that node is a part of the cluster.
type Thief struct {
	Node    cluster.NodeID // it runs containers
	Gateway bool           // it is one too
	Removed bool           // it was one: nothing is its own any more
}

// Way is how a store is reached.
type Way struct {
	URL string
	TLS *tls.Config
	// Dial connects; nil: from here.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
}

// Client is a client of the store.
func (w Way) Client() (*clientv3.Client, error) {
	conf := clientv3.Config{Endpoints: []string{w.URL}, TLS: w.TLS, DialTimeout: dialTimeout, Logger: zap.NewNop()}
	if w.Dial != nil {
		conf.DialOptions = []grpc.DialOption{grpc.WithContextDialer(w.Dial)}
	}
	return clientv3.New(conf)
}

const dialTimeout = 5 * time.Second

// Walked is what a stolen certificate was tried on, and what it opened that is not
// the node's own.
type Walked struct {
	Keys, Calls int
	Reached     []string
	// Own is how much of what it was tried on is the node's own, and opened; Refused is
	// what should have been.
	Own     int
	Refused []string
	// Kinds are the kinds of the keys that there were: what follows the root of all.
	Kinds []string

	thief Thief
	way   Way
	as    *clientv3.Client
}

// WalkDisks walks the store of a lab with the certificates on its disks; n1 is a server.
func WalkDisks(ctx context.Context, disks string, way Way, thief Thief) (w Walked, err error) {
	at := filepath.Join(disks, "n1", "fairlead", "pki")
	conf, err := pki.ClientTLS(filepath.Join(at, "ca.crt"), filepath.Join(at, "root.pem"), filepath.Join(at, "root.pem"))
	if err != nil {
		return w, err
	}
	member, err := pki.OpenMember(filepath.Join(disks, string(thief.Node), "fairlead", "pki"), time.Now)
	if err != nil {
		return w, err
	}
	root, err := Way{URL: way.URL, TLS: conf, Dial: way.Dial}.Client()
	if err != nil {
		return w, err
	}
	defer root.Close()
	way.TLS = member.TLS()
	return Walk(ctx, root, way, thief)
}

// Walk tries every key that there is, and all that is done to etcd itself, as a node.
// root may read everything; way is the node's.
func Walk(ctx context.Context, root *clientv3.Client, way Way, thief Thief) (w Walked, err error) {
	w = Walked{thief: thief, way: way}
	if w.as, err = way.Client(); err != nil {
		return w, err
	}
	defer w.as.Close()
	all, err := root.Get(ctx, "\x00", clientv3.WithFromKey())
	if err != nil {
		return w, err
	}
	leases := map[clientv3.LeaseID]string{} // of others: a key under it
	lead := clientv3.NoLease
	for _, kv := range all.Kvs {
		key, id := string(kv.Key), clientv3.LeaseID(kv.Lease)
		kind, _, _ := strings.Cut(strings.TrimPrefix(key, store.Root), "/")
		w.Kinds = append(w.Kinds, kind)
		if id != clientv3.NoLease && !w.own(key, true) {
			leases[id] = key
		}
		if key == store.LockKey("leader") {
			lead = id
		}
	}
	slices.Sort(w.Kinds)
	w.Kinds = slices.Compact(w.Kinds)
	if lead == clientv3.NoLease {
		return w, errors.New("nobody leads: there is no lease to steal")
	}
	err = errors.Join(w.keys(ctx, all.Kvs), w.ranges(ctx), w.leases(ctx, leases), w.calls(ctx), w.methods(ctx), w.pages(ctx))
	if err != nil {
		return w, err
	}
	if w.Own == 0 && !thief.Removed {
		return w, errors.New("the certificate opens nothing, not even what is its own: this shows nothing")
	}
	return w, nil
}

// reads are the prefixes of what a node may read and not write: what is meant for it,
// and where others are; as a gateway all routes too.
func (w *Walked) reads() []string {
	n := w.thief.Node
	out := []string{store.PlacementPrefix(n), store.SealedPrefix(n), store.PrefixEndpoints, store.PrefixNodeNets, store.PrefixServers}
	if w.thief.Gateway {
		out = append(out, store.TraefikRoot, store.GatewayFilesPrefix(n))
	}
	return out
}

// says are the keys that a node writes: what it says of itself.
func (w *Walked) says() []string {
	n := w.thief.Node
	out := []string{store.NodeInfoKey(n), store.AliveKey(n), store.AgentAckKey(n)}
	if w.thief.Gateway {
		out = append(out, store.GatewayAckKey(n))
	}
	return out
}

// own is what a node may reach.
func (w *Walked) own(key string, write bool) bool {
	below := func(p string) bool { return strings.HasPrefix(key, p) }
	switch {
	case w.thief.Removed:
		return false
	case slices.Contains(w.says(), key) || below(store.StatusPrefix(w.thief.Node)):
		return true
	case write:
		return false
	}
	return slices.ContainsFunc(w.reads(), below)
}

func (w *Walked) try(what string, allowed bool, call func() error) error {
	err := call()
	switch {
	case err == nil && allowed:
		w.Own++
	case err == nil:
		w.Reached = append(w.Reached, what)
	case !refused(err):
		return fmt.Errorf("%s: %w", what, err) // neither reached nor refused
	case allowed:
		w.Refused = append(w.Refused, what)
	}
	return nil
}

func refused(err error) bool {
	return errors.Is(err, rpctypes.ErrPermissionDenied) || strings.Contains(err.Error(), "permission denied") ||
		errors.Is(err, rpctypes.ErrAuthFailed) // to a new connection of a user that was removed
}

// never is a condition that does not hold: what may be written stays as it is.
func (w *Walked) never() clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(store.NodeInfoKey(w.thief.Node)), "=", neverRev)
}

const neverRev = 1 << 60

// change tries an operation without doing it.
func (w *Walked) change(ctx context.Context, ops ...clientv3.Op) func() error {
	return func() error { _, err := w.as.Txn(ctx).If(w.never()).Then(ops...).Commit(); return err }
}

// compares tries to learn of keys by a comparison.
func (w *Walked) compares(ctx context.Context, c clientv3.Cmp) func() error {
	return func() error { _, err := w.as.Txn(ctx).If(c).Commit(); return err }
}

func (w *Walked) keys(ctx context.Context, all []*mvccpb.KeyValue) error {
	for _, kv := range all {
		w.Keys++
		key := string(kv.Key)
		read, write := w.own(key, false), w.own(key, true)
		inner := clientv3.OpTxn([]clientv3.Cmp{w.never()}, []clientv3.Op{clientv3.OpPut(key, "stolen")}, []clientv3.Op{clientv3.OpGet(key)})
		err := errors.Join(
			w.try("read "+key, read, func() error { _, err := w.as.Get(ctx, key); return err }),
			w.try("read, as it is there, "+key, read, func() error { _, err := w.as.Get(ctx, key, clientv3.WithSerializable()); return err }),
			w.try("read what was "+key, read, func() error {
				_, err := w.as.Get(ctx, key, clientv3.WithRev(kv.ModRevision))
				return ignoreCompacted(err)
			}),
			w.try("compare "+key, read, w.compares(ctx, clientv3.Compare(clientv3.Value(key), ">", "m"))),
			w.try("write "+key, write, w.change(ctx, clientv3.OpPut(key, "stolen"))),
			w.try("delete "+key, write, w.change(ctx, clientv3.OpDelete(key))),
			w.try("read and write in a transaction's transaction "+key, write, func() error {
				_, err := w.as.Txn(ctx).Then(inner).Commit()
				return err
			}),
			w.try("watch "+key, read, func() error { return w.watch(ctx, key) }),
		)
		if err != nil {
			return err
		}
	}
	return nil
}

// ignoreCompacted is nil when only history is gone: who may read was asked first.
func ignoreCompacted(err error) error {
	if errors.Is(err, rpctypes.ErrCompacted) {
		return nil
	}
	return err
}

// ranges tries to go on from what is the node's own to what is beyond it, and to begin
// before it.
func (w *Walked) ranges(ctx context.Context) error {
	mine := append(w.reads(), store.StatusPrefix(w.thief.Node))
	for _, p := range append(slices.Clone(mine), w.says()...) {
		end := clientv3.GetPrefixRangeEnd(p)
		whole := slices.Contains(mine, p) // and else one key
		if err := w.stretch(ctx, p, end, whole && w.own(p, false), whole && w.own(p, true)); err != nil {
			return err
		}
		for _, to := range []string{end + "\x00", "\x00", clientv3.GetPrefixRangeEnd(store.Root), "zz"} {
			if to != "\x00" && to <= p {
				continue // nothing is in it
			}
			if err := w.stretch(ctx, p, to, false, false); err != nil {
				return err
			}
		}
		if err := w.stretch(ctx, p[:len(p)-1], end, false, false); err != nil {
			return err
		}
	}
	return errors.Join(w.stretch(ctx, "\x00", "\x00", false, false), w.stretch(ctx, store.Root, clientv3.GetPrefixRangeEnd(store.Root), false, false))
}

// stretch tries the keys from one to before another.
func (w *Walked) stretch(ctx context.Context, from, end string, read, write bool) error {
	to := clientv3.WithRange(end)
	name := fmt.Sprintf("%q to %q", from, end)
	get := func(opts ...clientv3.OpOption) func() error {
		return func() error { _, err := w.as.Get(ctx, from, append(opts, to)...); return err }
	}
	inner := clientv3.OpTxn(nil, nil, []clientv3.Op{clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpGet(from, to)}, nil)})
	w.Keys++
	return errors.Join(
		w.try("read "+name, read, get()),
		w.try("count "+name, read, get(clientv3.WithCountOnly())),
		w.try("read the first of "+name, read, get(clientv3.WithLimit(1), clientv3.WithKeysOnly())),
		w.try("read, as it is there, "+name, read, get(clientv3.WithSerializable())),
		w.try("read, two deep, "+name, read, w.change(ctx, inner)),
		w.try("compare "+name, read, w.compares(ctx, clientv3.Compare(clientv3.Version(from), "=", 1).WithRange(end))),
		w.try("delete "+name, write, w.change(ctx, clientv3.OpDelete(from, to))),
		w.try("watch "+name, read, func() error { return w.watch(ctx, from, to) }),
	)
}

// watch makes a watch and ends it.
func (w *Walked) watch(ctx context.Context, key string, opts ...clientv3.OpOption) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := <-w.as.Watch(ctx, key, append(opts, clientv3.WithCreatedNotify())...)
	return r.Err()
}
