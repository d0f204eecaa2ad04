package stolen_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/integration/stolen"
	"github.com/fairlead/fairlead/pki"
	"github.com/fairlead/fairlead/store"
	"github.com/fairlead/fairlead/store/embedded/etcdtest"
)

// The walk finds what a certificate opens beyond the node's own, by whichever way, and
// what of its own is closed to it.
func TestWalk(t *testing.T) {
	t.Parallel()
	srv := etcdtest.Start(t)
	st := srv.Client(t)
	if err := st.Secure(t.Context()); err != nil {
		t.Fatal(err)
	}
	lease, _, err := st.Lease(t.Context(), 60)
	if err != nil {
		t.Fatal(err)
	}
	ops := []store.Op{{Key: store.LockKey("leader"), Value: []byte("n1"), Lease: lease}}
	for _, key := range []string{
		store.NodeInfoKey("n2"), store.PlacementKey("n2", "t"), store.EndpointsKey(cluster.ServiceID{App: "a", Name: "s"}), store.NodeNetKey("n1"),
		store.TokenKey("h"), store.TraefikRoot + "/http", store.GatewayFileKey("n2", cluster.GatewayCert, "", "c"), store.StatusKey("n20", "t"),
	} {
		ops = append(ops, store.Op{Key: key, Value: []byte("{}")})
	}
	if _, err := st.Commit(t.Context(), store.Txn{Then: ops}); err != nil {
		t.Fatal(err)
	}
	conf, key := etcdtest.Identity(t, srv.PKI, "n2")
	root, err := stolen.Way{URL: srv.Config.Endpoint(), TLS: srv.PKI.RootTLS()}.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	user := pki.MemberName("n2", key)
	node, gateway := stolen.Thief{Node: "n2"}, stolen.Thief{Node: "n2", Gateway: true}
	own := func(gateway bool) []store.Grant {
		return store.NodeGrants(cluster.NodeSpec{ID: "n2", Gateway: gateway})
	}
	for name, c := range map[string]struct {
		thief            stolen.Thief
		grants           []store.Grant
		reached, refused string // a part of one of them; "": there are none
	}{
		"a node":             {node, own(false), "", ""},
		"a gateway":          {gateway, own(true), "", ""},
		"a gateway's grants": {node, own(true), "read " + store.TraefikRoot + "/http", ""},
		"a node's grants":    {gateway, own(false), "", "read " + store.TraefikRoot + "/http"},
		"one key":            {node, append(own(false), store.Grant{Key: store.TokenKey("h")}), "compare " + store.TokenKey("h"), ""},
		"a prefix too short": {node, append(own(false), store.Grant{Key: store.PrefixStatus + "n2", Prefix: true}), "watch " + store.StatusKey("n20", "t"), ""},
		"the leader's lock":  {node, append(own(false), store.Grant{Key: store.LockKey("leader"), Write: true}), "end the lease", ""},
		"what follows":       {node, append(own(false), store.Grant{Key: "fairlead/v1/endpoints0", Prefix: true}), `read "fairlead/v1/endpoints/" to "fairlead/v1/endpoints0\x00"`, ""},
		"less":               {node, own(false)[1:], "", "read " + store.PlacementKey("n2", "t")},
	} {
		// One user, whose grants change: the next part has them.
		if err := st.AddUser(t.Context(), user, c.grants); err != nil {
			t.Fatal(err)
		}
		got, err := stolen.Walk(t.Context(), root, stolen.Way{URL: srv.Config.Endpoint(), TLS: conf}, c.thief)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for what, x := range map[string]struct {
			got  []string
			want string
		}{"opens": {got.Reached, c.reached}, "does not open": {got.Refused, c.refused}} {
			found := slices.ContainsFunc(x.got, func(s string) bool { return strings.Contains(s, x.want) })
			if x.want == "" && len(x.got) > 0 || x.want != "" && !found {
				t.Errorf("%s %s %q, want %q", name, what, x.got, x.want)
			}
		}
		if c.reached == "end the lease" { // and it did: nobody leads any more
			if lease, _, err = st.Lease(t.Context(), 60); err != nil {
				t.Fatal(err)
			}
			if _, err := st.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: store.LockKey("leader"), Value: []byte("n1"), Lease: lease}}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	// A user that was removed: nothing, also of what was its own.
	if err := st.AddUser(t.Context(), user, own(true)); err != nil {
		t.Fatal(err)
	}
	got, err := stolen.Walk(t.Context(), root, stolen.Way{URL: srv.Config.Endpoint(), TLS: conf}, stolen.Thief{Node: "n2", Removed: true})
	if err == nil || !slices.Contains(got.Reached, "read "+store.PlacementKey("n2", "t")) { // an empty request is not refused, but wrong
		t.Errorf("one that should have been removed opens %q, %v", got.Reached, err)
	}
	if err := st.RemoveUser(t.Context(), user); err != nil {
		t.Fatal(err)
	}
	got, err = stolen.Walk(t.Context(), root, stolen.Way{URL: srv.Config.Endpoint(), TLS: conf}, stolen.Thief{Node: "n2", Removed: true})
	if err != nil || len(got.Reached) > 0 {
		t.Errorf("one that was removed opens %q, %v", got.Reached, err)
	}
}
