package proxy

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/pki"
	"github.com/fairlead/fairlead/store"
)

// Config is what a Proxy needs.
type Config struct {
	// Etcd is where requests go.
	Etcd grpc.ClientConnInterface
	// Records reads nodes' records, linearizably, from that etcd.
	Records interface {
		Get(ctx context.Context, key string) (store.Entry, error)
	}
	// Mirror has the records too, a little late.
	Mirror *store.Mirror
	// Grants is what a node may do: store.NodeGrants.
	Grants func(cluster.NodeSpec) []store.Grant
	// TLS shows the server's certificate and demands one of the cluster's authority.
	TLS *tls.Config
	Log hclog.Logger
}

// Proxy serves nodes.
type Proxy struct {
	pb.UnimplementedKVServer
	pb.UnimplementedWatchServer
	pb.UnimplementedLeaseServer
	Config

	kv    pb.KVClient
	watch pb.WatchClient
	lease pb.LeaseClient
	told  sync.Map // bearers that were denied something, and logged
	turns store.Turns
	paces store.Paces
}

// New makes a proxy; Serve runs it.
func New(cfg Config) *Proxy {
	return &Proxy{Config: cfg, kv: pb.NewKVClient(cfg.Etcd), watch: pb.NewWatchClient(cfg.Etcd), lease: pb.NewLeaseClient(cfg.Etcd)}
}

const (
	// leastPing is how often a client may ask whether the connection stands; nodes do
	// each 10 s.
	leastPing = 5 * time.Second
	// A node that is gone is noticed after both of these.
	pingAfter   = 30 * time.Second
	pingTimeout = 10 * time.Second
	greeting    = 10 * time.Second // how long a connection may take to become one
)

// whole lets answers have the size that etcd gives them.
var whole = grpc.MaxCallRecvMsgSize(math.MaxInt32) //nolint:gochecknoglobals // a constant of a type that has none

var (
	errDenied  = rpctypes.ErrGRPCPermissionDenied
	errChanged = status.Error(codes.Unavailable, "what this node may do has changed")
)

// Serve answers on l until ctx ends.
func (p *Proxy) Serve(ctx context.Context, l net.Listener) error {
	s := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(p.TLS)), grpc.ConnectionTimeout(greeting),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: leastPing}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingAfter, Timeout: pingTimeout}),
		grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error { return errDenied }),
	)
	pb.RegisterKVServer(s, p)
	pb.RegisterWatchServer(s, p)
	pb.RegisterLeaseServer(s, p)
	stop := context.AfterFunc(ctx, s.Stop)
	defer stop()
	if err := s.Serve(l); err != nil {
		return fmt.Errorf("serve the store to nodes on %s: %w", l.Addr(), err)
	}
	return context.Cause(ctx)
}

// bearer is the node that asks, by its certificate.
type bearer struct {
	node cluster.NodeID
	key  string
}

func bearerOf(ctx context.Context) (bearer, error) {
	from, ok := peer.FromContext(ctx)
	if !ok {
		return bearer{}, errDenied
	}
	t, ok := from.AuthInfo.(credentials.TLSInfo)
	if !ok || len(t.State.VerifiedChains) == 0 {
		return bearer{}, errDenied
	}
	cert := t.State.VerifiedChains[0][0]
	node, ok := pki.MemberNode(cert.Subject.CommonName)
	key, err := pki.KeyID(cert.PublicKey)
	if !ok || err != nil || cluster.ValidName("node", string(node)) != nil {
		return bearer{}, errDenied
	}
	return bearer{node: node, key: key}, nil
}

// deny notes, once, that a node asked for what is not its own.
func (p *Proxy) deny(b bearer) error {
	if _, told := p.told.LoadOrStore(b, true); !told {
		p.Log.Warn("a node asked the store for what is not its own; further times are not logged", "node", b.node)
	}
	return errDenied
}

// record is what the cluster knows of the node that asks.
type record struct {
	key    string // in the store
	rev    int64
	grants []store.Grant
}

// record is the record of the node that asks: as the mirror has it, or as the store
// does. A node that has none is denied.
func (p *Proxy) record(ctx context.Context, b bearer, fresh bool) (record, error) {
	key := store.NodeSpecKey(b.node)
	if !fresh {
		var spec store.Value[cluster.NodeSpec]
		known := false
		p.Mirror.Read(func(v store.View) {
			var err error
			spec, known, err = store.One[cluster.NodeSpec](v, key)
			known = known && err == nil
		})
		if known && spec.V.Key == b.key {
			return record{key: key, rev: spec.Rev, grants: p.Grants(spec.V)}, nil
		}
	}
	e, err := p.Records.Get(ctx, key)
	switch cluster.KindOf(err) {
	case cluster.KindNotFound:
		return record{}, errDenied
	case cluster.KindTransient:
		return record{}, status.Error(codes.Unavailable, err.Error())
	}
	if err != nil {
		return record{}, status.Error(codes.Internal, err.Error())
	}
	var spec cluster.NodeSpec
	if err := json.Unmarshal(e.Value, &spec); err != nil {
		return record{}, status.Error(codes.Internal, key+" does not decode")
	}
	if spec.ID != b.node || spec.Key != b.key {
		return record{}, errDenied
	}
	return record{key: key, rev: e.Rev, grants: p.Grants(spec)}, nil
}

// awaitChange returns once the node is removed, or may do other things than r says, or
// ctx ends; and which of them.
func (p *Proxy) awaitChange(ctx context.Context, b bearer, r record) error {
	for {
		changed := p.Mirror.Changed()
		var err error
		p.Mirror.Read(func(v store.View) {
			if v.Rev() < r.rev {
				return // it may not have heard of the node yet
			}
			spec, known, bad := store.One[cluster.NodeSpec](v, r.key)
			switch {
			case !known || bad != nil || spec.V.Key != b.key:
				err = errDenied
			case !slices.Equal(p.Grants(spec.V), r.grants):
				err = errChanged
			}
		})
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		}
	}
}

// outgoing is the context of a request that is passed on. Of what came with it only
// the wish for an etcd that has a leader goes along.
func outgoing(ctx context.Context) context.Context {
	if v := metadata.ValueFromIncomingContext(ctx, rpctypes.MetadataRequireLeaderKey); len(v) > 0 {
		return metadata.AppendToOutgoingContext(ctx, rpctypes.MetadataRequireLeaderKey, v[0])
	}
	return ctx
}

// why prefers the reason for which ctx was ended to what that made fail.
func why(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}
