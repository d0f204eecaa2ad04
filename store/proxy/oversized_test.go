package proxy_test

import (
	"context"
	"strings"
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
