package proxy_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/pki"
	"github.com/fairlead/fairlead/store"
	"github.com/fairlead/fairlead/store/embedded/etcdtest"
)

// A node writes no more to a key than the loops can make something of, by the embedded
// etcd and by the proxy, whatever kind of write it is.
func TestWhatANodeWritesIsBounded(t *testing.T) {
	t.Parallel()
	o := start(t, store.NodeGrants)
	conf, key := etcdtest.Identity(t, o.PKI, "n2")
	if err := o.root.Secure(t.Context()); err != nil {
		t.Fatal(err)
	}
	spec := cluster.NodeSpec{ID: "n2", Key: key}
	if err := o.root.AddUser(t.Context(), pki.MemberName("n2", key), store.NodeGrants(spec)); err != nil {
		t.Fatal(err)
	}
	o.admit(spec)
	at := store.StatusKey("n2", "t")
	most := strings.Repeat("x", store.MaxNodeBytes-len(at))
	for door, c := range map[string]*clientv3.Client{"embedded": o.raw(o.Config.Endpoint(), conf), "proxy": o.raw(o.url, conf)} {
		txn := func(then, orElse []clientv3.Op) func(ctx context.Context) error {
			return func(ctx context.Context) error {
				_, err := c.Txn(ctx).Then(then...).Else(orElse...).Commit()
				return err
			}
		}
		for kind, write := range map[string]func(string) func(context.Context) error{
			"put": func(v string) func(context.Context) error {
				return func(ctx context.Context) error { _, err := c.Put(ctx, at, v); return err }
			},
			"then": func(v string) func(context.Context) error { return txn([]clientv3.Op{clientv3.OpPut(at, v)}, nil) },
			"else": func(v string) func(context.Context) error { return txn(nil, []clientv3.Op{clientv3.OpPut(at, v)}) },
			"deep": func(v string) func(context.Context) error {
				return txn([]clientv3.Op{clientv3.OpTxn(nil, nil, []clientv3.Op{clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpPut(at, v)}, nil)})}, nil)
			},
		} {
			if err := write(most)(t.Context()); err != nil {
				t.Errorf("%s, %s: %v", door, kind, err)
			}
			if err := write(most + "x")(t.Context()); err == nil || err.Error() != rpctypes.ErrRequestTooLarge.Error() {
				t.Errorf("%s, %s, a byte too much: %v", door, kind, err)
			}
		}
	}
}

// A node has no more statuses than a machine has tasks, by either door and however many
// requests it makes at once; those that it has it may change and take back.
func TestANodesStatusesAreCounted(t *testing.T) {
	t.Parallel()
	o := start(t, store.NodeGrants)
	if err := o.root.Secure(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, door := range []string{"embedded", "proxy"} {
		node := cluster.NodeID("n-" + door)
		conf, key := etcdtest.Identity(t, o.PKI, node)
		spec := cluster.NodeSpec{ID: node, Key: key}
		if err := o.root.AddUser(t.Context(), pki.MemberName(node, key), store.NodeGrants(spec)); err != nil {
			t.Fatal(err)
		}
		o.admit(spec)
		c := o.raw(map[string]string{"embedded": o.Config.Endpoint(), "proxy": o.url}[door], conf)
		at := func(n int) string { return store.StatusPrefix(node) + fmt.Sprint(n) }
		const room = 6
		for n := 0; n < store.MaxNodeStatuses-room; n += 100 {
			var txn store.Txn
			for i := n; i < min(n+100, store.MaxNodeStatuses-room); i++ {
				txn.Then = append(txn.Then, store.Op{Key: at(i), Value: []byte("x")})
			}
			if _, err := o.root.Commit(t.Context(), txn); err != nil {
				t.Fatal(err)
			}
		}
		var wg sync.WaitGroup
		var taken atomic.Int64
		for n := range 40 {
			wg.Go(func() {
				put := clientv3.OpPut(store.StatusPrefix(node)+fmt.Sprint("more", n), "x")
				_, err := c.Txn(t.Context()).Then(put, clientv3.OpTxn(nil, nil, nil)).Commit()
				switch {
				case err == nil:
					taken.Add(1)
				case !strings.Contains(err.Error(), "statuses"):
					t.Errorf("%s: %v", door, err)
				}
			})
		}
		wg.Wait()
		if taken.Load() != room {
			t.Errorf("%s: %d of %d new statuses were taken", door, taken.Load(), room)
		}
		if _, err := c.Put(t.Context(), at(0), "y"); err != nil {
			t.Errorf("%s, a change: %v", door, err)
		}
		if _, err := c.Delete(t.Context(), at(0)); err != nil {
			t.Errorf("%s: %v", door, err)
		}
		if _, err := c.Put(t.Context(), at(-1), "y"); err != nil {
			t.Errorf("%s, after one was taken back: %v", door, err)
		}
		if _, err := c.Put(t.Context(), store.AgentAckKey(node), "{}"); err != nil {
			t.Errorf("%s, another key: %v", door, err)
		}
	}
}

// A node that writes and writes is refused, by either door, before there is so much that
// the database is full; other nodes are not.
func TestANodeThatWritesWithoutEnd(t *testing.T) {
	t.Parallel()
	o := start(t, store.NodeGrants)
	if err := o.root.Secure(t.Context()); err != nil {
		t.Fatal(err)
	}
	value := strings.Repeat("x", 120<<10)
	for door, url := range map[string]string{"embedded": o.Config.Endpoint(), "proxy": o.url} {
		as := func(node cluster.NodeID) *clientv3.Client {
			conf, key := etcdtest.Identity(t, o.PKI, node)
			spec := cluster.NodeSpec{ID: node, Key: key}
			if err := o.root.AddUser(t.Context(), pki.MemberName(node, key), store.NodeGrants(spec)); err != nil {
				t.Fatal(err)
			}
			o.admit(spec)
			return o.raw(url, conf)
		}
		node, other := cluster.NodeID("loud-"+door), cluster.NodeID("calm-"+door)
		loud, calm := as(node), as(other)
		var wg sync.WaitGroup
		var taken, refused atomic.Int64
		for range 300 {
			wg.Go(func() {
				switch _, err := loud.Put(t.Context(), store.AgentAckKey(node), value); {
				case err == nil:
					taken.Add(1)
				case strings.Contains(err.Error(), "256 KiB"):
					refused.Add(1)
				default:
					t.Errorf("%s: %v", door, err)
				}
			})
		}
		wg.Wait()
		if taken.Load() < 130 || refused.Load() < 50 {
			t.Errorf("%s: %d writes were taken, %d refused", door, taken.Load(), refused.Load())
		}
		if _, err := calm.Put(t.Context(), store.AgentAckKey(other), value); err != nil {
			t.Errorf("%s, another node: %v", door, err)
		}
	}
}
