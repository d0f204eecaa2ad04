package integration

import (
	"context"
	"net"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/integration/etcdd"
	"github.com/fairlead/fairlead/store"
	"github.com/fairlead/fairlead/store/embedded/etcdtest"
	"github.com/fairlead/fairlead/store/proxy"
	"github.com/fairlead/fairlead/store/storetest"
)

// The conformance suite of stores, on etcds of an operator's.
func TestOperatorsEtcd(t *testing.T) {
	for _, version := range []string{etcdd.Debian, etcdd.Current} {
		t.Run(version, func(t *testing.T) {
			e := etcdd.Start(t, version)
			storetest.Run(t, func(t *testing.T) storetest.Subject {
				t.Helper()
				st := e.Store()
				t.Cleanup(func() {
					if err := st.Close(); err != nil {
						t.Errorf("close: %v", err)
					}
				})
				return st
			})
		})
	}
}

// proxied is a node's store; history is the operator's to forget.
type proxied struct {
	*store.Etcd
	root *store.Etcd
}

func (p proxied) Compact(ctx context.Context, rev int64) error { return p.root.Compact(ctx, rev) }

// The same, through the proxy that a server has for nodes, for one that may do everything.
func TestOperatorsEtcdProxied(t *testing.T) {
	for _, version := range []string{etcdd.Debian, etcdd.Current} {
		t.Run(version, func(t *testing.T) {
			e := etcdd.Start(t, version)
			root := e.Store()
			ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
			mirror := store.NewMirror(root, store.Root, hclog.NewNullLogger())
			var lc net.ListenConfig
			l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			keys := etcdtest.New(t).PKI // the cluster's authority is not that of the etcd
			p := proxy.New(proxy.Config{
				Etcd: root.Conn(), Records: root, Mirror: mirror, TLS: keys.NodesTLS(), Log: hclog.NewNullLogger(),
				Grants: func(cluster.NodeSpec) []store.Grant { return []store.Grant{{Prefix: true, Write: true}} },
			})
			ended := make(chan struct{}, 2)
			go func() { _ = mirror.Run(ctx); ended <- struct{}{} }()
			go func() { _ = p.Serve(ctx, l); ended <- struct{}{} }()
			t.Cleanup(func() { stop(); <-ended; <-ended; _ = root.Close() })
			conf, key := etcdtest.Identity(t, keys, "n2")
			record, err := store.PutJSON(store.NodeSpecKey("n2"), cluster.NodeSpec{ID: "n2", Key: key})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := root.Commit(ctx, store.Txn{Then: []store.Op{record}}); err != nil {
				t.Fatal(err)
			}
			storetest.Run(t, func(t *testing.T) storetest.Subject {
				t.Helper()
				st, err := store.NewEtcd(store.EtcdConfig{Endpoints: []string{"https://" + l.Addr().String()}, TLS: conf}, hclog.NewNullLogger())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := st.Close(); err != nil {
						t.Errorf("close: %v", err)
					}
				})
				return proxied{st, root}
			})
		})
	}
}
