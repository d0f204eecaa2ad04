package embedded

import (
	"context"
	"sync"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// guard refuses users that were removed where etcd does not. etcd asks once, when a
// watch begins, whether its user may have it: one that was open would go on to tell a
// node that was removed what the cluster does. And of who makes a lease, or asks for
// the members, it asks no more than that there is a certificate, which a node that was
// removed still has.
type guard struct {
	etcd atomic.Pointer[etcdserver.EtcdServer] // once it has started
	seen atomic.Pointer[seen]
}

// seen are users that were there at one revision of the users.
type seen struct {
	rev   uint64
	names sync.Map // of user names
}

func (g *guard) start(e *etcdserver.EtcdServer) { g.etcd.Store(e) }

// unary is an interceptor for single calls.
func (g *guard) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if err := g.check(ctx, userOf(ctx)); err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

// streams is an interceptor that ends the watches and leases of users that were
// removed.
func (g *guard) streams(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, cancel := context.WithCancel(ss.Context())
	defer cancel()
	return handler(srv, &stream{ServerStream: ss, ctx: ctx, end: cancel, user: userOf(ctx), guard: g})
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
