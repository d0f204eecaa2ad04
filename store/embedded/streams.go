package embedded

import (
	"context"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/auth"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// streams is an interceptor that ends the watches and leases of users that were
// removed. etcd asks once, when a watch begins, whether its user may have it: one that
// was open would go on to tell a node that was removed what the cluster does.
func (s *Server) streams(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, cancel := context.WithCancel(ss.Context())
	defer cancel()
	return handler(srv, &stream{ServerStream: ss, ctx: ctx, end: cancel, user: userOf(ctx), auth: s.auth.Load})
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
	ctx  context.Context //nolint:containedctx // what Context returns, as gRPC wants it
	end  context.CancelFunc
	user string
	auth func() *auth.AuthStore

	rev atomic.Uint64 // of the users, when this one was seen last
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

// check is cheap as long as no user changes.
func (s *stream) check() error {
	p := s.auth()
	if p == nil { // etcd has just begun to serve
		return nil
	}
	users := *p
	rev := users.Revision()
	if rev == s.rev.Load() || !users.IsAuthEnabled() {
		return nil
	}
	if _, err := users.UserGet(&pb.AuthUserGetRequest{Name: s.user}); err != nil {
		s.end()
		return rpctypes.ErrGRPCPermissionDenied
	}
	s.rev.Store(rev)
	return nil
}
