package proxy

import (
	"context"
	"errors"
	"io"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fairlead/fairlead/store"
)

// ownsLease denies a lease under which there is a key that the node may not write, as
// etcd itself does: to end it would delete that key, to renew it keep it.
func (p *Proxy) ownsLease(ctx context.Context, r record, id int64) error {
	l, err := p.lease.LeaseTimeToLive(outgoing(ctx), &pb.LeaseTimeToLiveRequest{ID: id, Keys: true}, whole)
	if status.Code(err) == codes.NotFound {
		return nil // there is none: etcd says so to what is asked
	}
	if err != nil {
		return err
	}
	for _, k := range l.Keys {
		if !store.Allows(r.grants, string(k), "", true) {
			return errDenied
		}
	}
	return nil
}

// mayUse denies the lease, or any when id is 0, to who asks.
func (p *Proxy) mayUse(ctx context.Context, id int64) error {
	b, err := bearerOf(ctx)
	if err != nil {
		return err
	}
	r, err := p.record(ctx, b, false)
	if err != nil || id == 0 {
		return err
	}
	return p.ownsLease(ctx, r, id)
}

// LeaseGrant implements etcd's Lease.LeaseGrant.
func (p *Proxy) LeaseGrant(ctx context.Context, r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	b, err := bearerOf(ctx)
	if err != nil {
		return nil, err
	}
	if err := p.mayUse(ctx, 0); err != nil {
		return nil, err
	}
	if err := p.paces.Take(ctx, b.key, r); err != nil {
		return nil, err
	}
	return p.lease.LeaseGrant(outgoing(ctx), r)
}

// LeaseRevoke implements etcd's Lease.LeaseRevoke.
func (p *Proxy) LeaseRevoke(ctx context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	if err := p.mayUse(ctx, r.GetID()); err != nil {
		return nil, err
	}
	return p.lease.LeaseRevoke(outgoing(ctx), r)
}

// LeaseTimeToLive implements etcd's Lease.LeaseTimeToLive.
func (p *Proxy) LeaseTimeToLive(ctx context.Context, r *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error) {
	if err := p.mayUse(ctx, r.GetID()); err != nil {
		return nil, err
	}
	return p.lease.LeaseTimeToLive(outgoing(ctx), r, whole)
}

// LeaseLeases implements etcd's Lease.LeaseLeases: others' leases are not a node's to know.
func (*Proxy) LeaseLeases(context.Context, *pb.LeaseLeasesRequest) (*pb.LeaseLeasesResponse, error) {
	return nil, errDenied
}

// LeaseKeepAlive implements etcd's Lease.LeaseKeepAlive.
func (p *Proxy) LeaseKeepAlive(down pb.Lease_LeaseKeepAliveServer) error {
	ctx, cancel := context.WithCancel(outgoing(down.Context()))
	defer cancel()
	up, err := p.lease.LeaseKeepAlive(ctx)
	if err != nil {
		return err
	}
	for {
		r, err := down.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := p.mayUse(down.Context(), r.GetID()); err != nil {
			return err
		}
		if err := up.Send(r); err != nil && !errors.Is(err, io.EOF) { // EOF: Recv says why
			return err
		}
		a, err := up.Recv()
		if err != nil {
			return ended(err)
		}
		if err := down.Send(a); err != nil {
			return err
		}
	}
}

// ended is the error of a stream that etcd ended: a node's is not at its end.
func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return status.Error(codes.Unavailable, "etcd ended the stream")
	}
	return err
}
