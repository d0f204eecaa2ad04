package control

import (
	"encoding/json"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"filippo.io/age"
	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/secrets"
	"github.com/fairlead/fairlead/store"
)

// A gateway on a node that joined has every certificate and user list, encrypted to
// it, and follows changes; one that does not open keeps no other from it.
func TestGatewayFilesLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := store.NewMemory()
		put := func(key string, v any) {
			t.Helper()
			op, err := store.PutJSON(key, v)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := st.Commit(t.Context(), store.Txn{Then: []store.Op{op}}); err != nil {
				t.Fatal(err)
			}
		}
		ids := map[cluster.NodeID]*age.X25519Identity{}
		for _, n := range []cluster.NodeID{"n1", "n2", "n3"} {
			id, err := age.GenerateX25519Identity()
			if err != nil {
				t.Fatal(err)
			}
			ids[n] = id
			put(store.NodeInfoKey(n), cluster.NodeInfo{ID: n, PublicKey: id.Recipient().String()})
		}
		put(store.NodeSpecKey("n2"), cluster.NodeSpec{ID: "n2", Key: "k", Gateway: true})
		put(store.NodeSpecKey("n3"), cluster.NodeSpec{ID: "n3", Key: "k"})
		put(store.CertKey("good"), "one")
		put(store.CertKey("bad"), "bad")
		put(store.UserListKey("a", "basicauth-0011223344556677"), cluster.UserList{App: "a", ID: "basicauth-0011223344556677"})
		m := store.NewMirror(st, store.Root, hclog.NewNullLogger())
		open := func(id secrets.SourceID, value []byte) (cluster.GatewaySecret, error) {
			if string(value) == `"bad"` {
				return cluster.GatewaySecret{}, fmt.Errorf("it is bad")
			}
			return cluster.GatewaySecret{Kind: id.Kind, App: id.App, Name: id.Name, Key: value}, nil
		}
		go func() { _ = m.Run(t.Context()) }()
		l := GatewayFiles(store.Guarded(st, store.WriterBroker), m, open, hclog.NewNullLogger())
		go func() { _ = l.Run(t.Context()) }()
		files := func() map[string]string {
			t.Helper()
			time.Sleep(time.Second)
			synctest.Wait()
			out := map[string]string{}
			m.Read(func(v store.View) {
				for _, f := range store.GatewayFiles(v) {
					if f.V.Node != "n2" {
						t.Errorf("node %s has %s", f.V.Node, f.Key)
					}
					plain, err := secrets.OpenSealed(ids["n2"], f.V.Data)
					if err != nil {
						t.Fatal(err)
					}
					var s cluster.GatewaySecret
					if err := json.Unmarshal(plain, &s); err != nil {
						t.Fatal(err)
					}
					out[s.Kind+" "+s.Name] = string(s.Key)
				}
			})
			return out
		}
		if got := files(); len(got) != 2 || got["certs good"] != `"one"` || got["users basicauth-0011223344556677"] == "" {
			t.Errorf("at first %v", got)
		}
		put(store.CertKey("good"), "two")
		put(store.CertKey("bad"), "mended")
		if got := files(); len(got) != 3 || got["certs good"] != `"two"` || got["certs bad"] != `"mended"` {
			t.Errorf("after a change %v", got)
		}
		if _, err := st.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: store.NodeSpecKey("n2"), Delete: true}}}); err != nil {
			t.Fatal(err)
		}
		if got := files(); len(got) != 0 {
			t.Errorf("of a node that is gone %v", got)
		}
	})
}
