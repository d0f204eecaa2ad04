package embedded_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/pki"
	"github.com/fairlead/fairlead/store"
	"github.com/fairlead/fairlead/store/embedded/etcdtest"
)

// identity is a certificate of node n2, of a key of its own, and its etcd user.
func identity(t *testing.T, srv *etcdtest.Server) (conf *tls.Config, user string) {
	t.Helper()
	conf, key := etcdtest.Identity(t, srv.PKI, "n2")
	return conf, pki.MemberName("n2", key)
}

// joined returns the store as node n2 sees it, with a certificate of its own.
func joined(t *testing.T, srv *etcdtest.Server, root *store.Etcd) (st *store.Etcd, user string) {
	t.Helper()
	conf, user := identity(t, srv)
	if err := root.AddUser(t.Context(), user, store.NodeGrants(cluster.NodeSpec{ID: "n2"})); err != nil {
		t.Fatal(err)
	}
	st, err := store.NewEtcd(store.EtcdConfig{Endpoints: []string{srv.Config.Endpoint()}, TLS: conf}, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return st, user
}

// A node's certificate opens that node's keys and no others: every prefix is tried.
func TestANodeReachesItsOwnKeysOnly(t *testing.T) {
	t.Parallel()
	srv := etcdtest.Start(t)
	root, err := store.NewEtcd(store.EtcdConfig{Endpoints: []string{srv.Config.Endpoint()}, TLS: srv.PKI.RootTLS()}, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	for range 2 { // at each start
		if err := root.Secure(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	n2, user := joined(t, srv, root)
	if err := n2.Healthy(t.Context()); err != nil {
		t.Errorf("health: %v", err)
	}
	ctx := t.Context()
	put := func(st *store.Etcd, key string) error {
		_, err := st.Commit(ctx, store.Txn{Then: []store.Op{{Key: key, Value: []byte(`{}`)}}})
		return err
	}
	type access struct {
		key         string
		read, write bool
	}
	svc := cluster.ServiceID{App: "a", Name: "s"}
	for _, a := range []access{
		{store.NodeInfoKey("n2"), true, true},
		{store.AliveKey("n2"), true, true},
		{store.StatusKey("n2", "t"), true, true},
		{store.AgentAckKey("n2"), true, true},
		{store.PlacementKey("n2", "t"), true, false},
		{store.SealedKey("n2", "t"), true, false},
		{store.EndpointsKey(svc), true, false},
		{store.NodeNetKey("n1"), true, false},
		{store.ServerInfoKey("n1"), true, false},
		{store.ServerInfoKey("n2"), true, false},
		{store.ServerSpecKey("n2"), true, false},

		{store.NodeSpecKey("n2"), false, false},
		{store.NodeRemovedKey("n2"), false, false},
		{store.GatewayAckKey("n2"), false, false},
		{store.NodeInfoKey("n1"), false, false},
		{store.AliveKey("n1"), false, false},
		{store.AliveKey("n20"), false, false},
		{store.StatusKey("n1", "t"), false, false},
		{store.StatusKey("n20", "t"), false, false},
		{store.AgentAckKey("n1"), false, false},
		{store.PlacementKey("n1", "t"), false, false},
		{store.SealedKey("n1", "t"), false, false},
		{store.AppKey("a"), false, false},
		{store.ServiceKey(svc), false, false},
		{store.ScaleKey(svc), false, false},
		{store.ReleaseKey("a", 1), false, false},
		{store.ConfigKey("a", "c", "h"), false, false},
		{store.SecretKey(cluster.SecretRef{App: "a", Name: "s"}), false, false},
		{store.RolloutKey(svc), false, false},
		{store.TaskKey("a", "t"), false, false},
		{store.OutcomeKey("a", 1), false, false},
		{store.DemandKey(svc), false, false},
		{store.AddressKey(svc), false, false},
		{store.DecisionKey("rollout", "a"), false, false},
		{store.TurnKey("scheduler"), false, false},
		{store.LockKey("leader"), false, false},
		{store.ClaimsKey, false, false},
		{store.FollowsKey, false, false},
		{store.CertKey("c"), false, false},
		{store.RegistryCredentialKey("h"), false, false},
		{store.TokenKey("h"), false, false},
		{store.PrefixCluster + "claim", false, false},
		{store.TraefikRoot, false, false},
		{store.TraefikRoot + "/x", false, false},
		{store.GatewayFileKey("n2", cluster.GatewayCert, "", "c"), false, false},
	} {
		if err := put(root, a.key); err != nil {
			t.Fatalf("%s by the control plane: %v", a.key, err)
		}
		_, err := n2.Get(ctx, a.key)
		if forbidden := cluster.KindOf(err) == cluster.KindForbidden; forbidden == a.read || err != nil && !forbidden {
			t.Errorf("read %s: %v", a.key, err)
		}
		err = put(n2, a.key)
		if forbidden := cluster.KindOf(err) == cluster.KindForbidden; forbidden == a.write || err != nil && !forbidden {
			t.Errorf("write %s: %v", a.key, err)
		}
	}
	for _, prefix := range []string{"", store.Root, store.PrefixNodes, store.PrefixSealed, store.PrefixApps, store.PrefixAccess, store.TraefikRoot} {
		if _, _, err := n2.List(ctx, prefix); cluster.KindOf(err) != cluster.KindForbidden {
			t.Errorf("list %q: %v", prefix, err)
		}
		wctx, cancel := context.WithCancel(ctx)
		b, open := <-n2.Watch(wctx, prefix, 0)
		cancel()
		if open && b.Err == nil {
			t.Errorf("watch %q delivers %d events", prefix, len(b.Events))
		}
	}
	// A lease works.
	lctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lease, _, err := n2.Lease(lctx, 5)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n2.Commit(ctx, store.Txn{Then: []store.Op{{Key: store.AliveKey("n2"), Value: []byte("{}"), Lease: lease}}}); err != nil {
		t.Error(err)
	}
	// A removed node is refused at once, on the connection that stands.
	if err := root.RemoveUser(ctx, user); err != nil {
		t.Fatal(err)
	}
	if _, err := n2.Get(ctx, store.NodeInfoKey("n2")); err == nil {
		t.Error("a removed node still reads")
	}
	if err := put(n2, store.StatusKey("n2", "t")); err == nil {
		t.Error("a removed node still writes")
	}
	// One that joins again under the name is another user.
	again, user2 := joined(t, srv, root)
	if user2 == user || !strings.HasPrefix(user2, "node:n2:") {
		t.Errorf("users %s and %s", user, user2)
	}
	if _, err := again.Get(ctx, store.NodeInfoKey("n2")); err != nil {
		t.Errorf("the node that joined again: %v", err)
	}
	if _, err := n2.Get(ctx, store.NodeInfoKey("n2")); err == nil {
		t.Error("the old certificate works again")
	}
}

// What a node that is removed had open ends: it is told nothing more, and its lease is
// not kept alive. etcd itself asks only when a watch begins.
func TestARemovedNodesStreamsEnd(t *testing.T) {
	t.Parallel()
	srv := etcdtest.Start(t)
	root := srv.Client(t)
	if err := root.Secure(t.Context()); err != nil {
		t.Fatal(err)
	}
	n2, user := joined(t, srv, root)
	svc := cluster.ServiceID{App: "shop", Name: "web"}
	put := func() {
		t.Helper()
		if _, err := root.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: store.EndpointsKey(svc), Value: []byte("{}")}}}); err != nil {
			t.Fatal(err)
		}
	}
	mine, others := n2.Watch(t.Context(), store.PrefixEndpoints, 0), root.Watch(t.Context(), store.PrefixEndpoints, 0)
	for told := false; !told; put() { // until the watch has begun
		select {
		case b, open := <-mine:
			if told = true; !open || b.Err != nil || len(b.Events) == 0 {
				t.Fatalf("before it is removed: %+v, %v", b, open)
			}
		case <-time.After(50 * time.Millisecond):
		}
	}
	_, lost, err := n2.Lease(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := root.RemoveUser(t.Context(), user); err != nil {
		t.Fatal(err)
	}
	rev, err := root.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: store.EndpointsKey(svc), Value: []byte("{}")}}})
	if err != nil {
		t.Fatal(err)
	}
	for b := range mine {
		for _, e := range b.Events {
			if e.Rev >= rev {
				t.Fatalf("a removed node is told of %s", e.Key)
			}
		}
		if b.Err != nil {
			break
		}
	}
	select {
	case <-lost:
	case <-time.After(20 * time.Second):
		t.Error("the lease of a removed node is kept alive")
	}
	if b := <-others; b.Err != nil || len(b.Events) == 0 {
		t.Errorf("another user's watch: %+v", b)
	}
}

// nodesCalls are those that a node makes, and of which etcd asks no more than that the
// caller has a certificate.
func nodesCalls(st *store.Etcd) map[string]func(context.Context) error {
	kv, leases := pb.NewKVClient(st.Conn()), pb.NewLeaseClient(st.Conn())
	return map[string]func(context.Context) error{
		"make a lease": func(ctx context.Context) error {
			_, err := leases.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 60})
			return err
		},
		"an empty transaction": func(ctx context.Context) error {
			_, err := kv.Txn(ctx, &pb.TxnRequest{})
			return err
		},
	}
}

// serversCalls are others of that kind, which are no node's to make.
func serversCalls(st *store.Etcd) map[string]func(context.Context) error {
	c := st.Conn()
	leases, members, care := pb.NewLeaseClient(c), pb.NewClusterClient(c), pb.NewMaintenanceClient(c)
	return map[string]func(context.Context) error{
		"list the leases": func(ctx context.Context) error {
			_, err := leases.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
			return err
		},
		"list the members": func(ctx context.Context) error {
			_, err := members.MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
			return err
		},
		"ask how it is": func(ctx context.Context) error {
			_, err := care.Status(ctx, &pb.StatusRequest{})
			return err
		},
		"ask for alarms": func(ctx context.Context) error {
			_, err := care.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_GET})
			return err
		},
		"stream keys": func(ctx context.Context) error {
			s, err := pb.NewKVClient(c).RangeStream(ctx, &pb.RangeRequest{Key: []byte(store.AliveKey("n2"))})
			if err == nil {
				_, err = s.Recv()
			}
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return err
		},
		"be elected": func(ctx context.Context) error {
			_, err := v3electionpb.NewElectionClient(c).Campaign(ctx, &v3electionpb.CampaignRequest{Name: []byte(store.StatusPrefix("n2") + "elected")})
			return err
		},
	}
}

// A certificate of a user that was removed, or never was one, opens nothing, also of
// what etcd lets anyone do who shows one.
func TestARemovedNodesCallsAreRefused(t *testing.T) {
	t.Parallel()
	srv := etcdtest.Start(t)
	root := srv.Client(t)
	if err := root.Secure(t.Context()); err != nil {
		t.Fatal(err)
	}
	n2, user := joined(t, srv, root)
	each := func(calls map[string]func(context.Context) error, whose string, allowed bool) {
		t.Helper()
		for what, f := range calls {
			if err := f(t.Context()); allowed && err != nil || !allowed && status.Code(err) != codes.PermissionDenied {
				t.Errorf("%s, %s: %v", what, whose, err)
			}
		}
	}
	each(nodesCalls(n2), "a node", true)
	each(serversCalls(n2), "a node", false)
	if err := root.RemoveUser(t.Context(), user); err != nil {
		t.Fatal(err)
	}
	for whose, st := range map[string]*store.Etcd{"a removed node": n2, "a server": root} {
		each(nodesCalls(st), whose, st == root)
		each(serversCalls(st), whose, st == root)
	}
}

// What etcd would show on pages of its own it shows to nobody: it does not ask who a
// client is.
func TestNoPages(t *testing.T) {
	t.Parallel()
	srv := etcdtest.Start(t)
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: srv.PKI.RootTLS()}}
	defer c.CloseIdleConnections()
	for _, path := range []string{"/metrics", "/debug/vars", "/debug/pprof/", "/health", "/livez", "/livez/serializable_read", "/readyz", "/readyz/data_corruption", "/version", "/other"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.Config.Endpoint()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
}

// A user that another server made is one at once: this server may not have heard of it.
func TestANewUserIsOneEverywhere(t *testing.T) {
	t.Parallel()
	one, two, root := closedPair(t)
	conf, user := identity(t, one)
	n2, err := store.NewEtcd(store.EtcdConfig{Endpoints: []string{two.Config.Endpoint()}, TLS: conf}, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n2.Close() })
	admin, asks := pb.NewAuthClient(root.Conn()), pb.NewKVClient(n2.Conn())
	if _, err := asks.Txn(t.Context(), &pb.TxnRequest{}); status.Code(err) != codes.PermissionDenied {
		t.Fatalf("before it is one: %v", err)
	}
	for i := range 200 {
		if _, err := admin.UserAdd(t.Context(), &pb.AuthUserAddRequest{Name: user, Options: &authpb.UserAddOptions{NoPassword: true}}); err != nil {
			t.Fatal(err)
		}
		if _, err := asks.Txn(t.Context(), &pb.TxnRequest{}); err != nil {
			t.Fatalf("after it was made, time %d: %v", i, err)
		}
		if _, err := admin.UserDelete(t.Context(), &pb.AuthUserDeleteRequest{Name: user}); err != nil {
			t.Fatal(err)
		}
	}
}

// A node's certificate makes no server: it may not look at etcd's members nor change
// them, nor who may do what, nor speak to them as one of them.
func TestANodeBecomesNoServer(t *testing.T) {
	t.Parallel()
	srv := etcdtest.Start(t)
	root := srv.Client(t)
	if err := root.Secure(t.Context()); err != nil {
		t.Fatal(err)
	}
	n2, user := joined(t, srv, root)
	list, err := root.Members(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	for what, f := range map[string]func() error{
		"add a member":      func() error { _, err := n2.AddLearner(t.Context(), "https://127.0.0.1:1"); return err },
		"remove a member":   func() error { return n2.RemoveMember(t.Context(), list[0].ID) },
		"let a member vote": func() error { return n2.Promote(t.Context(), list[0].ID) },
		"add a user":        func() error { return n2.AddUser(t.Context(), "other", nil) },
		"grant itself more": func() error {
			return n2.AddUser(t.Context(), user, []store.Grant{{Key: store.Root, Prefix: true, Write: true}})
		},
		"remove a user": func() error { return n2.RemoveUser(t.Context(), user) },
	} {
		if err := f(); cluster.KindOf(err) != cluster.KindForbidden {
			t.Errorf("%s: %v", what, err)
		}
	}
	// The members' own port.
	conf, _ := identity(t, srv)
	conn, err := (&tls.Dialer{Config: conf}).DialContext(t.Context(), "tcp", strings.TrimPrefix(srv.Config.Peer(), "https://"))
	if err == nil { // TLS 1.3: a refused certificate shows with the first read
		_, _ = conn.Write([]byte("GET /members HTTP/1.1\r\nHost: x\r\n\r\n"))
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, rerr := conn.Read(make([]byte, 1))
		_ = conn.Close()
		if err = rerr; n > 0 {
			t.Error("a member talks to a node's certificate")
		}
	}
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("as a member: %v", err)
	}
}

// A gateway's certificate opens, beside a node's keys, all routes and what is sealed
// to it, and its acknowledgement: nothing of another gateway, and no route to write.
func TestAGatewayReachesItsOwnKeysOnly(t *testing.T) {
	t.Parallel()
	srv := etcdtest.Start(t)
	root, err := store.NewEtcd(store.EtcdConfig{Endpoints: []string{srv.Config.Endpoint()}, TLS: srv.PKI.RootTLS()}, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	if err := root.Secure(t.Context()); err != nil {
		t.Fatal(err)
	}
	n2, user := joined(t, srv, root)
	if err := root.AddUser(t.Context(), user, store.NodeGrants(cluster.NodeSpec{ID: "n2", Gateway: true})); err != nil {
		t.Fatal(err)
	}
	for _, a := range []struct {
		key         string
		read, write bool
	}{
		{store.TraefikRoot, true, false},
		{store.TraefikRoot + "/http/x", true, false},
		{store.GatewayFileKey("n2", cluster.GatewayCert, "", "c"), true, false},
		{store.GatewayFileKey("n2", cluster.GatewayUsers, "a", "u"), true, false},
		{store.GatewayAckKey("n2"), true, true},
		{store.GatewayFileKey("n1", cluster.GatewayCert, "", "c"), false, false},
		{store.GatewayFileKey("n20", cluster.GatewayCert, "", "c"), false, false},
		{store.GatewayAckKey("n1"), false, false},
		{store.CertKey("c"), false, false},
		{store.UserListKey("a", "u"), false, false},
		{store.NodeSpecKey("n2"), false, false},
	} {
		put := func(st *store.Etcd) error {
			_, err := st.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: a.key, Value: []byte(`{}`)}}})
			return err
		}
		if err := put(root); err != nil {
			t.Fatalf("%s by the control plane: %v", a.key, err)
		}
		_, err := n2.Get(t.Context(), a.key)
		if forbidden := cluster.KindOf(err) == cluster.KindForbidden; forbidden == a.read || err != nil && !forbidden {
			t.Errorf("read %s: %v", a.key, err)
		}
		err = put(n2)
		if forbidden := cluster.KindOf(err) == cluster.KindForbidden; forbidden == a.write || err != nil && !forbidden {
			t.Errorf("write %s: %v", a.key, err)
		}
	}
	for _, prefix := range []string{store.TraefikRoot, store.GatewayFilesPrefix("n2")} {
		if _, _, err := n2.List(t.Context(), prefix); err != nil {
			t.Errorf("list %s: %v", prefix, err)
		}
	}
}

// A later version's nodes may need more, or less.
func TestGrantsChange(t *testing.T) {
	t.Parallel()
	srv := etcdtest.Start(t)
	root, err := store.NewEtcd(store.EtcdConfig{Endpoints: []string{srv.Config.Endpoint()}, TLS: srv.PKI.RootTLS()}, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	if err := root.Secure(t.Context()); err != nil {
		t.Fatal(err)
	}
	n2, user := joined(t, srv, root)
	grants := append(store.NodeGrants(cluster.NodeSpec{ID: "n2"})[1:], store.Grant{Key: store.LockKey("leader")})
	if err := root.AddUser(t.Context(), user, grants); err != nil {
		t.Fatal(err)
	}
	if _, err := n2.Get(t.Context(), store.PlacementKey("n2", "t")); cluster.KindOf(err) != cluster.KindForbidden {
		t.Errorf("what was taken back: %v", err)
	}
	for _, k := range []string{store.LockKey("leader"), store.EndpointsKey(cluster.ServiceID{App: "a", Name: "s"})} {
		if _, err := n2.Get(t.Context(), k); cluster.KindOf(err) != cluster.KindNotFound {
			t.Errorf("%s: %v", k, err)
		}
	}
}
