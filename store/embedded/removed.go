package embedded

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// guard refuses users where etcd does not. To nodes it leaves what they use, keys and
// leases: etcd itself tells whoever has a certificate who its members are, how long
// others' leases have to go, and more. And it refuses those that were removed: etcd asks
// once, when a watch begins, whether its user may have it: one that was open would go on
// to tell a node that was removed what the cluster does. Of who makes a lease it asks no
// more than that there is a certificate, which a node that was removed still has. Nor does
// it bound what a node writes, or how fast, but by what it takes at all.
type guard struct {
	etcd atomic.Pointer[etcdserver.EtcdServer] // once it has started
	seen atomic.Pointer[seen]

	turns store.Turns // of users that write statuses
	paces store.Paces // of users that write
}

// seen are users that were there at one revision of the users.
type seen struct {
	rev   uint64
	names sync.Map // of user names
}

// rootUser is etcd's own name for who may do everything.
const rootUser = "root"

func (g *guard) start(e *etcdserver.EtcdServer) { g.etcd.Store(e) }

// unary is an interceptor for single calls.
func (g *guard) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	user := userOf(ctx)
	if err := g.admit(ctx, user, info.FullMethod); err != nil {
		return nil, err
	}
	if user != rootUser && store.Oversized(req) {
		return nil, rpctypes.ErrGRPCRequestTooLarge
	}
	if user != rootUser {
		if err := g.paces.Take(ctx, user, req); err != nil {
			return nil, err
		}
	}
	if keys := store.StatusPuts(req); user != rootUser && len(keys) > 0 {
		done, err := g.turns.Take(ctx, user) // those that are on their way are not counted yet
		if err != nil {
			return nil, status.FromContextError(ctx.Err()).Err()
		}
		defer done()
		if err := g.room(ctx, keys); err != nil {
			return nil, err
		}
	}
	return handler(ctx, req)
}

// room refuses statuses of tasks that are more than a node can have.
func (g *guard) room(ctx context.Context, keys []string) error {
	e := g.etcd.Load()
	if e == nil {
		return nil
	}
	count := func(key, end []byte) (int, error) {
		r, err := e.KV().Range(ctx, key, end, mvcc.RangeOptions{CountOnly: true})
		if err != nil {
			return 0, err
		}
		return r.Count, nil
	}
	fresh := 0
	for _, key := range keys {
		n, err := count([]byte(key), nil)
		if err != nil {
			return err
		}
		fresh += 1 - n
	}
	if fresh == 0 {
		return nil
	}
	node, _, _ := strings.Cut(strings.TrimPrefix(keys[0], store.PrefixStatus), "/")
	n, err := count(store.StatusRange(cluster.NodeID(node))) // etcd refuses keys of several nodes
	if err != nil {
		return err
	}
	if n+fresh > store.MaxNodeStatuses {
		return store.ErrTooManyStatuses
	}
	return nil
}

// streams is an interceptor that ends the watches and leases of users that were
// removed.
func (g *guard) streams(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, cancel := context.WithCancel(ss.Context())
	defer cancel()
	user := userOf(ctx)
	if err := g.admit(ctx, user, info.FullMethod); err != nil {
		return err
	}
	return handler(srv, &stream{ServerStream: ss, ctx: ctx, end: cancel, user: user, guard: g})
}

// admit refuses a user that is not there, and a node what is not for nodes.
func (g *guard) admit(ctx context.Context, user, method string) error {
	if user != rootUser && !nodesCall(method) {
		return rpctypes.ErrGRPCPermissionDenied
	}
	return g.check(ctx, user)
}

// nodesCall reports whether nodes use a method; etcd asks for which keys.
func nodesCall(method string) bool {
	switch method {
	case pb.KV_Range_FullMethodName, pb.KV_Put_FullMethodName, pb.KV_DeleteRange_FullMethodName, pb.KV_Txn_FullMethodName,
		pb.Watch_Watch_FullMethodName,
		pb.Lease_LeaseGrant_FullMethodName, pb.Lease_LeaseRevoke_FullMethodName, pb.Lease_LeaseKeepAlive_FullMethodName:
		return true
	}
	return false
}

// noPages are the pages that etcd would show whoever has a certificate, also one that
// was removed: of its memory, and how often it was asked for what.
func noPages() map[string]http.Handler {
	out := map[string]http.Handler{}
	for _, path := range []string{"/metrics", "/debug/", "/health", "/livez", "/livez/", "/readyz", "/readyz/", "/version", "/version/"} {
		out[path] = http.NotFoundHandler()
	}
	return out
}

// check is cheap as long as no user changes. That a user is there is kept: one that
// goes changes the revision, and its role, which goes after it, does again, when etcd
// has surely forgotten the user.
func (g *guard) check(ctx context.Context, user string) error {
	e := g.etcd.Load()
	if e == nil { // etcd has just begun to serve
		return nil
	}
	users := e.AuthStore()
	rev := users.Revision()
	known := g.seen.Load()
	if known == nil || known.rev != rev {
		known = &seen{rev: rev}
		g.seen.Store(known)
	}
	if _, ok := known.names.Load(user); ok || !users.IsAuthEnabled() {
		return nil
	}
	there := func() bool {
		_, err := users.UserGet(&pb.AuthUserGetRequest{Name: user})
		return err == nil
	}
	if there() {
		known.names.Store(user, nil)
		return nil
	}
	// Another server may have made the user, and this one not heard of it yet.
	if err := e.LinearizableReadNotify(ctx); err != nil || !there() {
		return rpctypes.ErrGRPCPermissionDenied
	}
	return nil
}

// userOf is the user that a client's certificate names; "" without one.
func userOf(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 {
		return ""
	}
	return info.State.VerifiedChains[0][0].Subject.CommonName
}

// stream looks with each message whether its user is still there.
type stream struct {
	grpc.ServerStream
	ctx   context.Context //nolint:containedctx // what Context returns, as gRPC wants it
	end   context.CancelFunc
	user  string
	guard *guard
}

func (s *stream) Context() context.Context { return s.ctx }

func (s *stream) SendMsg(m any) error {
	if err := s.check(); err != nil {
		return err
	}
	return s.ServerStream.SendMsg(m)
}

func (s *stream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return s.check()
}

func (s *stream) check() error {
	err := s.guard.check(s.ctx, s.user)
	if err != nil {
		s.end()
	}
	return err
}
