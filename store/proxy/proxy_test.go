package proxy_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/pki"
	"github.com/fairlead/fairlead/store"
	"github.com/fairlead/fairlead/store/embedded/etcdtest"
	"github.com/fairlead/fairlead/store/proxy"
	"github.com/fairlead/fairlead/store/storetest"
)

// operated is an etcd of somebody's, and a proxy to it.
type operated struct {
	*etcdtest.Server
	t    *testing.T
	root *store.Etcd
	url  string
	// stopMirror leaves the proxy with the records that it has heard of.
	stopMirror func()
}

func start(t *testing.T, grants func(cluster.NodeSpec) []store.Grant) *operated {
	t.Helper()
	o := &operated{Server: etcdtest.Start(t), t: t}
	o.root = o.Client(t)
	mirror := store.NewMirror(o.root, store.Root, o.Log)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	mirrored, served := make(chan struct{}), make(chan struct{})
	mctx, stopMirror := context.WithCancel(ctx)
	go func() { defer close(mirrored); _ = mirror.Run(mctx) }()
	o.stopMirror = func() { stopMirror(); <-mirrored }
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o.url = "https://" + l.Addr().String()
	p := proxy.New(proxy.Config{
		Etcd: o.root.Conn(), Records: o.root, Mirror: mirror, Grants: grants, TLS: o.PKI.NodesTLS(), Log: hclog.NewNullLogger(),
	})
	go func() { defer close(served); _ = p.Serve(ctx, l) }()
	t.Cleanup(func() { stop(); <-served; <-mirrored })
	return o
}

// admit writes a node's record.
func (o *operated) admit(spec cluster.NodeSpec) {
	o.t.Helper()
	op, err := store.PutJSON(store.NodeSpecKey(spec.ID), spec)
	if err != nil {
		o.t.Fatal(err)
	}
	o.put(op.Key, string(op.Value))
}

func (o *operated) put(key, value string) {
	o.t.Helper()
	if _, err := o.root.Commit(o.t.Context(), store.Txn{Then: []store.Op{{Key: key, Value: []byte(value)}}}); err != nil {
		o.t.Fatal(err)
	}
}

func (o *operated) remove(id cluster.NodeID) {
	o.t.Helper()
	if _, err := o.root.Commit(o.t.Context(), store.Txn{Then: []store.Op{{Key: store.NodeSpecKey(id), Delete: true}}}); err != nil {
		o.t.Fatal(err)
	}
}

// dial is a client of the store at url.
func (o *operated) dial(url string, conf *tls.Config) *store.Etcd {
	o.t.Helper()
	st, err := store.NewEtcd(store.EtcdConfig{Endpoints: []string{url}, TLS: conf}, hclog.NewNullLogger())
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() { _ = st.Close() })
	return st
}

// raw is etcd's own client, which asks for more than ours.
func (o *operated) raw(url string, conf *tls.Config) *clientv3.Client {
	o.t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{url}, TLS: conf, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() { _ = c.Close() })
	return c
}

// joined is node n2 through the proxy.
func (o *operated) joined() *store.Etcd {
	o.t.Helper()
	conf, key := etcdtest.Identity(o.t, o.PKI, "n2")
	o.admit(cluster.NodeSpec{ID: "n2", Key: key})
	return o.dial(o.url, conf)
}

func forbidden(err error) bool { return cluster.KindOf(err) == cluster.KindForbidden }

// through is the store of a test of stores, by the proxy; what no node may do is done
// beside it.
type through struct {
	*store.Etcd
	root *store.Etcd
}

func (s through) Compact(ctx context.Context, rev int64) error { return s.root.Compact(ctx, rev) }

// The proxy is the store that it leads to, for what a node may do.
func TestConformance(t *testing.T) {
	t.Parallel()
	o := start(t, func(cluster.NodeSpec) []store.Grant {
		return []store.Grant{{Prefix: true, Write: true}}
	})
	conf, key := etcdtest.Identity(t, o.PKI, "n2")
	o.admit(cluster.NodeSpec{ID: "n2", Key: key})
	storetest.Run(t, func(t *testing.T) storetest.Subject {
		t.Helper()
		return through{o.dial(o.url, conf), o.root}
	})
}

// What the embedded etcd's roles let a node do the proxy lets it do, and nothing else:
// every kind of key, alone and in ranges, by every kind of request.
func TestAsEtcdsOwnRoles(t *testing.T) {
	t.Parallel()
	for _, gateway := range []bool{false, true} {
		t.Run(fmt.Sprintf("gateway %v", gateway), func(t *testing.T) {
			t.Parallel()
			asEtcdsOwnRoles(t, gateway)
		})
	}
}

func asEtcdsOwnRoles(t *testing.T, gateway bool) {
	t.Helper()
	o := start(t, store.NodeGrants)
	conf, key := etcdtest.Identity(t, o.PKI, "n2")
	spec := cluster.NodeSpec{ID: "n2", Key: key, Gateway: gateway}
	if err := o.root.Secure(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := o.root.AddUser(t.Context(), pki.MemberName("n2", key), store.NodeGrants(spec)); err != nil {
		t.Fatal(err)
	}
	o.admit(spec)
	direct, proxied := o.raw(o.Config.Endpoint(), conf), o.raw(o.url, conf)
	svc := cluster.ServiceID{App: "a", Name: "s"}
	keys := []string{
		store.NodeSpecKey("n2"), store.NodeInfoKey("n2"), store.NodeInfoKey("n1"), store.AliveKey("n2"), store.AliveKey("n20"),
		store.StatusKey("n2", "t"), store.StatusKey("n1", "t"), store.AgentAckKey("n2"), store.GatewayAckKey("n2"), store.GatewayAckKey("n1"),
		store.PlacementKey("n2", "t"), store.PlacementKey("n20", "t"), store.SealedKey("n2", "t"), store.SealedKey("n1", "t"),
		store.EndpointsKey(svc), store.NodeNetKey("n1"), store.ServerInfoKey("n1"), store.ServerSpecKey("n1"), store.AddressKey(svc),
		store.AppKey("a"), store.SecretKey(cluster.SecretRef{App: "a", Name: "s"}), store.TaskKey("a", "t"), store.LockKey("leader"),
		store.TokenKey("h"), store.CertKey("c"), store.PrefixCluster + "claim", store.ClaimsKey, store.TraefikRoot, store.TraefikRoot + "/http", store.TraefikRoot + "x",
		store.GatewayFileKey("n2", cluster.GatewayCert, "", "c"), store.GatewayFileKey("n1", cluster.GatewayCert, "", "c"),
		store.PlacementPrefix("n2"), store.PrefixEndpoints, store.PrefixNodes, store.Root, "a", "z", "\x00",
	}
	ends := func(k string) []string {
		return []string{"", k + "\x00", clientv3.GetPrefixRangeEnd(k), clientv3.GetPrefixRangeEnd(k[:len(k)-1]), "\x00", store.Root, "zz"}
	}
	tried, opened := 0, 0
	for _, k := range keys {
		for _, end := range ends(k) {
			if end != "" && end != "\x00" && end <= k {
				continue // nothing is in it: who may read that makes no difference
			}
			for what, call := range calls(k, end) {
				want, got := verdict(t, direct, call), verdict(t, proxied, call)
				if tried++; want {
					opened++
				}
				if got != want {
					t.Errorf("%s %q to %q: etcd's roles allow it: %v, the proxy: %v", what, k, end, want, got)
				}
			}
		}
	}
	if opened < 50 || tried-opened < 500 {
		t.Errorf("of %d requests %d were allowed: this shows nothing", tried, opened)
	}
}

type call func(ctx context.Context, c *clientv3.Client) error

// calls are requests of each kind for the keys from k to end. None changes anything.
func calls(k, end string) map[string]call {
	never := clientv3.Compare(clientv3.Version(store.AliveKey("n2")), "=", 1_000_000)
	txn := func(ops ...clientv3.Op) call {
		return func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.Txn(ctx).If(never).Then(ops...).Commit()
			return err
		}
	}
	to := clientv3.WithRange(end)
	out := map[string]call{
		"read": func(ctx context.Context, c *clientv3.Client) error { _, err := c.Get(ctx, k, to); return err },
		"count": func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.Get(ctx, k, to, clientv3.WithCountOnly())
			return err
		},
		"read as it is here": func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.Get(ctx, k, to, clientv3.WithSerializable())
			return err
		},
		"read in a txn": txn(clientv3.OpGet(k, to)),
		"delete":        txn(clientv3.OpDelete(k, to)),
		"compare": func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.Txn(ctx).If(clientv3.Compare(clientv3.Version(k), "=", 1_000_000).WithRange(end)).Commit()
			return err
		},
		"read, two deep": txn(clientv3.OpTxn(nil, nil, []clientv3.Op{clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpGet(k, to)}, nil)})),
		"watch": func(ctx context.Context, c *clientv3.Client) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			r := <-c.Watch(ctx, k, to, clientv3.WithCreatedNotify())
			return r.Err()
		},
	}
	if end == "" {
		out["write"] = txn(clientv3.OpPut(k, "x"))
		out["write, two deep"] = txn(clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpPut(k, "x")}, nil))
		out["write else"] = func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.Txn(ctx).If(clientv3.Compare(clientv3.Version(store.AliveKey("n2")), "<", 1_000_000)).Else(clientv3.OpPut(k, "x")).Commit()
			return err
		}
	}
	return out
}

// verdict reports whether a call is allowed.
func verdict(t *testing.T, c *clientv3.Client, f call) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := f(ctx, c)
	switch {
	case err == nil:
		return true
	case errors.Is(err, rpctypes.ErrPermissionDenied), strings.Contains(err.Error(), "permission denied"):
		return false
	case errors.Is(err, rpctypes.ErrEmptyKey), strings.Contains(err.Error(), "duplicate"):
		return true
	}
	t.Fatalf("neither allowed nor denied: %v", err)
	return false
}

// What is done to etcd itself is denied, whatever it is.
func TestNothingElse(t *testing.T) {
	t.Parallel()
	o := start(t, store.NodeGrants)
	conf, key := etcdtest.Identity(t, o.PKI, "n2")
	o.admit(cluster.NodeSpec{ID: "n2", Key: key})
	c := o.raw(o.url, conf)
	for what, call := range map[string]call{
		"members": func(ctx context.Context, c *clientv3.Client) error { _, err := c.MemberList(ctx); return err },
		"add a member": func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.MemberAdd(ctx, []string{"http://x:1"})
			return err
		},
		"users":           func(ctx context.Context, c *clientv3.Client) error { _, err := c.UserList(ctx); return err },
		"make a user":     func(ctx context.Context, c *clientv3.Client) error { _, err := c.UserAdd(ctx, "x", "y"); return err },
		"open the store":  func(ctx context.Context, c *clientv3.Client) error { _, err := c.AuthDisable(ctx); return err },
		"alarms":          func(ctx context.Context, c *clientv3.Client) error { _, err := c.AlarmList(ctx); return err },
		"status":          func(ctx context.Context, c *clientv3.Client) error { _, err := c.Status(ctx, o.url); return err },
		"defragment":      func(ctx context.Context, c *clientv3.Client) error { _, err := c.Defragment(ctx, o.url); return err },
		"compact":         func(ctx context.Context, c *clientv3.Client) error { _, err := c.Compact(ctx, 1); return err },
		"list leases":     func(ctx context.Context, c *clientv3.Client) error { _, err := c.Leases(ctx); return err },
		"move the leader": func(ctx context.Context, c *clientv3.Client) error { _, err := c.MoveLeader(ctx, 1); return err },
		"snapshot": func(ctx context.Context, c *clientv3.Client) error {
			r, err := c.Snapshot(ctx)
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, r)
			return errors.Join(err, r.Close())
		},
	} {
		if verdict(t, c, call) {
			t.Errorf("a node may: %s", what)
		}
	}
}

// Without a node's certificate there is nothing, whoever else the bearer is.
func TestNodesAlone(t *testing.T) {
	t.Parallel()
	o := start(t, store.NodeGrants)
	node, _ := etcdtest.Identity(t, o.PKI, "n9") // that no record names
	stranger := etcdtest.New(t)
	for who, conf := range map[string]*tls.Config{
		"a node without a record": node, "the control plane": o.PKI.RootTLS(), "a server's own node": o.PKI.NodeTLS(),
	} {
		if _, err := o.dial(o.url, conf).Get(t.Context(), store.AliveKey("n9")); !forbidden(err) {
			t.Errorf("%s: %v", who, err)
		}
	}
	bare := o.PKI.RootTLS()
	bare.GetClientCertificate = nil
	foreign := o.PKI.RootTLS()
	foreign.GetClientCertificate = stranger.PKI.RootTLS().GetClientCertificate
	for who, conf := range map[string]*tls.Config{"nobody": bare, "another cluster": foreign} {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		if _, err := o.dial(o.url, conf).Get(ctx, store.AliveKey("n9")); err == nil || cluster.KindOf(err) == cluster.KindNotFound {
			t.Errorf("%s: %v", who, err)
		}
		cancel()
	}
}

// A node whose record is gone is refused with its next request, by a proxy that has not
// heard of it too, and comes back as another one.
func TestARemovedNodeIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	o := start(t, store.NodeGrants)
	n2 := o.joined()
	lctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	lease, _, err := n2.Lease(lctx, 5)
	if err != nil {
		t.Fatal(err)
	}
	write := func(st *store.Etcd, lease store.LeaseID) error {
		_, err := st.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: store.AliveKey("n2"), Value: []byte("{}"), Lease: lease}}})
		return err
	}
	if err := write(n2, lease); err != nil {
		t.Fatal(err)
	}
	o.stopMirror()
	o.remove("n2")
	if _, err := n2.Get(t.Context(), store.AliveKey("n2")); !forbidden(err) {
		t.Errorf("a removed node reads: %v", err)
	}
	if _, _, err := n2.List(t.Context(), store.PlacementPrefix("n2")); !forbidden(err) {
		t.Errorf("a removed node lists: %v", err)
	}
	if err := write(n2, 0); !forbidden(err) {
		t.Errorf("a removed node writes: %v", err)
	}
	if b := <-n2.Watch(t.Context(), store.PlacementPrefix("n2"), 0); !forbidden(b.Err) {
		t.Errorf("a removed node watches: %+v", b)
	}
	again := o.joined()
	if err := write(again, 0); err != nil {
		t.Errorf("a node that joined again under the name: %v", err)
	}
	if err := write(n2, 0); !forbidden(err) {
		t.Errorf("the certificate from before: %v", err)
	}
}

// A watch that stands ends when the node is removed, and delivers nothing after that.
func TestWatchesOfARemovedNodeEnd(t *testing.T) {
	t.Parallel()
	o := start(t, store.NodeGrants)
	n2 := o.joined()
	o.put(store.PlacementKey("n2", "a"), "1")
	_, rev, err := n2.List(t.Context(), store.PlacementPrefix("n2"))
	if err != nil {
		t.Fatal(err)
	}
	w := n2.Watch(t.Context(), store.PlacementPrefix("n2"), rev)
	o.put(store.PlacementKey("n2", "b"), "2")
	if b := <-w; b.Err != nil || len(b.Events) != 1 {
		t.Fatalf("before: %+v", b)
	}
	o.remove("n2")
	select {
	case b := <-w:
		if !forbidden(b.Err) {
			t.Errorf("it goes on: %+v", b)
		}
	case <-time.After(20 * time.Second):
		t.Error("it stands")
	}
}

// A change of the node's record that changes nothing of what it may do is not noticed;
// one that makes it a gateway opens the routes to it, on the connection that stands.
func TestRecordsChange(t *testing.T) {
	t.Parallel()
	o := start(t, store.NodeGrants)
	conf, key := etcdtest.Identity(t, o.PKI, "n2")
	spec := cluster.NodeSpec{ID: "n2", Key: key}
	o.admit(spec)
	n2 := o.dial(o.url, conf)
	_, rev, err := n2.List(t.Context(), store.PlacementPrefix("n2"))
	if err != nil {
		t.Fatal(err)
	}
	w := n2.Watch(t.Context(), store.PlacementPrefix("n2"), rev)
	o.stopMirror() // what it has is old from here on
	for i := range 5 {
		spec.Labels = map[string]string{"n": fmt.Sprint(i)}
		o.admit(spec)
		if _, err := n2.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: store.StatusKey("n2", "t"), Value: []byte("{}")}}}); err != nil {
			t.Errorf("label %d: %v", i, err)
		}
	}
	if _, _, err := n2.List(t.Context(), store.TraefikRoot); !forbidden(err) {
		t.Errorf("routes, before it is a gateway: %v", err)
	}
	spec.Gateway = true
	o.admit(spec)
	if _, _, err := n2.List(t.Context(), store.TraefikRoot); err != nil {
		t.Errorf("routes of a gateway: %v", err)
	}
	o.put(store.PlacementKey("n2", "a"), "1")
	if b := <-w; b.Err != nil || len(b.Events) != 1 {
		t.Errorf("what it watched before: %+v", b)
	}
}

// A lease with keys that a node may not write is not the node's to end, to keep, to
// look at or to put its own keys under.
func TestLeasesOfOthers(t *testing.T) {
	t.Parallel()
	o := start(t, store.NodeGrants)
	conf, key := etcdtest.Identity(t, o.PKI, "n2")
	o.admit(cluster.NodeSpec{ID: "n2", Key: key})
	c := o.raw(o.url, conf)
	theirs := func() store.LeaseID {
		lctx, cancel := context.WithCancel(t.Context())
		t.Cleanup(cancel)
		id, _, err := o.root.Lease(lctx, 60)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	lead, mine := theirs(), theirs()
	for k, id := range map[string]store.LeaseID{store.LockKey("leader"): lead, store.AliveKey("n2"): mine} {
		if _, err := o.root.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: k, Value: []byte("x"), Lease: id}}}); err != nil {
			t.Fatal(err)
		}
	}
	uses := []struct {
		what string
		call func(id clientv3.LeaseID) call
	}{
		{"look at", func(id clientv3.LeaseID) call {
			return func(ctx context.Context, c *clientv3.Client) error { _, err := c.TimeToLive(ctx, id); return err }
		}},
		{"keep", func(id clientv3.LeaseID) call {
			return func(ctx context.Context, c *clientv3.Client) error { _, err := c.KeepAliveOnce(ctx, id); return err }
		}},
		{"put a key under", func(id clientv3.LeaseID) call {
			return func(ctx context.Context, c *clientv3.Client) error {
				_, err := c.Put(ctx, store.AgentAckKey("n2"), "x", clientv3.WithLease(id))
				return err
			}
		}},
		{"put a key, two deep, under", func(id clientv3.LeaseID) call {
			return func(ctx context.Context, c *clientv3.Client) error {
				_, err := c.Txn(ctx).Then(clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpPut(store.AgentAckKey("n2"), "x", clientv3.WithLease(id))}, nil)).Commit()
				return err
			}
		}},
		{"end", func(id clientv3.LeaseID) call {
			return func(ctx context.Context, c *clientv3.Client) error { _, err := c.Revoke(ctx, id); return err }
		}},
	}
	for _, u := range uses {
		if verdict(t, c, u.call(clientv3.LeaseID(lead))) {
			t.Errorf("a node may %s the leader's lease", u.what)
		}
		if !verdict(t, c, u.call(clientv3.LeaseID(mine))) {
			t.Errorf("a node may not %s its own lease", u.what)
		}
	}
	if _, err := o.root.Get(t.Context(), store.LockKey("leader")); err != nil {
		t.Errorf("the leader's lock: %v", err)
	}
	if _, err := o.root.Get(t.Context(), store.AliveKey("n2")); cluster.KindOf(err) != cluster.KindNotFound {
		t.Errorf("the key of the lease that was ended: %v", err)
	}
}

// A watch that is denied ends alone: others of the same stream go on.
func TestADeniedWatchEndsAlone(t *testing.T) {
	t.Parallel()
	o := start(t, store.NodeGrants)
	conf, key := etcdtest.Identity(t, o.PKI, "n2")
	o.admit(cluster.NodeSpec{ID: "n2", Key: key})
	c := o.raw(o.url, conf)
	good := map[string]clientv3.WatchChan{}
	for i := range 20 { // all at once, in one stream
		k := store.PlacementKey("n2", cluster.TaskID(fmt.Sprint(i)))
		good[k] = c.Watch(t.Context(), k)
		if r := <-c.Watch(t.Context(), store.PlacementKey("n1", cluster.TaskID(fmt.Sprint(i)))); r.Err() == nil {
			t.Errorf("another node's placements are watched: %+v", r)
		}
	}
	for k := range good {
		o.put(k, k)
	}
	for k, w := range good {
		r := <-w
		if r.Err() != nil || len(r.Events) != 1 || string(r.Events[0].Kv.Value) != k {
			t.Errorf("watch of %s: %+v", k, r)
		}
	}
	inOrder(t, c)
}

// inOrder asks for many watches without waiting for an answer: it is by their order
// alone that a client knows which is denied.
func inOrder(t *testing.T, c *clientv3.Client) {
	t.Helper()
	stream, err := pb.NewWatchClient(c.ActiveConnection()).Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const n = 40
	for i := range n {
		node := []cluster.NodeID{"n2", "n1"}[i%2]
		create := &pb.WatchCreateRequest{Key: []byte(store.PlacementKey(node, "t"))}
		if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		r, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if !r.Created || r.Canceled != (i%2 == 1) {
			t.Errorf("answer %d: %v", i, r)
		}
	}
}
