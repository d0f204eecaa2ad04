package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/fairlead/fairlead/cluster"
)

// Lease implements Store. A server may give a longer lease than asked for (an
// etcd's least is 2s). lost is closed before the server ends the lease: the time
// is counted from before each renewal was sent, and a tenth of it is kept back.
//
// The client library's own renewal counts from the answer, and one renewal of
// it turns without pause while no server answers; hence the one here.
func (e *Etcd) Lease(ctx context.Context, ttlSeconds int64) (LeaseID, <-chan struct{}, error) {
	if ttlSeconds <= 0 {
		return 0, nil, cluster.Invalidf("lease of %d seconds", ttlSeconds)
	}
	hold := time.Duration(ttlSeconds) * time.Second * 9 / 10
	ctx, end := context.WithCancel(ctx)
	expiry, stop := context.WithTimeout(ctx, hold)
	gctx, cancel := context.WithTimeout(expiry, e.timeout)
	defer cancel()
	r, err := e.client.Grant(gctx, ttlSeconds)
	if err != nil {
		stop()
		end()
		return 0, nil, wrap(err, "make a lease")
	}
	k := &keeper{etcd: e, id: r.ID, hold: hold, expiry: expiry, stop: stop, lost: make(chan struct{})}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		end()
	}
	e.cancels[r.ID] = end
	e.leases.Go(func() { k.run(ctx) })
	return LeaseID(r.ID), k.lost, nil
}

// Revoke ends a lease, whoever holds it; its holder sees it as lost.
func (e *Etcd) Revoke(ctx context.Context, id LeaseID) error {
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	_, err := e.client.Revoke(ctx, clientv3.LeaseID(id))
	return wrap(err, fmt.Sprintf("end lease %d", id))
}

// LeaseOf answers which lease a key is under, 0 for none.
func (e *Etcd) LeaseOf(ctx context.Context, key string) (LeaseID, error) {
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	r, err := e.client.Get(ctx, key) // keys alone come without their lease
	if err != nil {
		return 0, wrap(err, "get "+key)
	}
	if len(r.Kvs) == 0 {
		return 0, cluster.NotFoundf("%s is not in the store", key)
	}
	return LeaseID(r.Kvs[0].Lease), nil
}

// keeper keeps one lease alive.
type keeper struct {
	etcd *Etcd
	id   clientv3.LeaseID
	hold time.Duration
	// expiry ends when the lease must be taken for lost.
	expiry context.Context //nolint:containedctx // a deadline that moves with each renewal
	stop   context.CancelFunc
	lost   chan struct{}
}

// run renews the lease until ctx ends or the lease is lost.
func (k *keeper) run(ctx context.Context) {
	defer k.forget()
	for wait := k.hold / 3; ; {
		tick := time.NewTimer(wait)
		select {
		case <-tick.C:
		case <-k.expiry.Done(): // also when ctx ends
		}
		tick.Stop()
		if k.expiry.Err() != nil {
			if ctx.Err() == nil {
				close(k.lost)
				// No server could be asked for a while, and a new leader of etcd begins
				// every lease anew: ending this one now would take away what a next
				// lease is about to keep.
				return
			}
			k.revoke(ctx)
			return
		}
		next, stop := context.WithTimeout(ctx, k.hold)
		err := k.renew(ctx)
		switch {
		case err == nil:
			k.stop()
			k.expiry, k.stop, wait = next, stop, k.hold/3
		case errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseNotFound):
			stop()
			if ctx.Err() == nil {
				close(k.lost)
			}
			return
		default:
			stop()
			wait = k.hold / 10
			k.etcd.log.Debug("could not renew a lease; will try again", "error", err)
		}
	}
}

func (k *keeper) forget() {
	k.stop()
	k.etcd.mu.Lock()
	defer k.etcd.mu.Unlock()
	if end := k.etcd.cancels[k.id]; end != nil {
		end()
		delete(k.etcd.cancels, k.id)
	}
}

// revoke ends the lease at once where it can and may; else it runs out.
func (k *keeper) revoke(ctx context.Context) {
	if errors.Is(context.Cause(ctx), ErrLeft) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), revokeTimeout)
	defer cancel()
	if _, err := k.etcd.client.Revoke(ctx, k.id); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		k.etcd.log.Debug("could not end a lease; it runs out", "error", err)
	}
}

// renew renews the lease. Where there are several servers it asks that many times at
// once, which go to different ones: one that is cut off takes no time from the others.
func (k *keeper) renew(ctx context.Context) error {
	n := len(k.etcd.client.Endpoints())
	if n <= 1 {
		return k.ask(ctx, k.expiry, k.hold/3)
	}
	answers, expiry := make(chan error, n), k.expiry
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for range n {
		go func() { answers <- k.ask(ctx, expiry, k.hold/6) }()
	}
	var err error
	for range n {
		if err = <-answers; err == nil || errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseNotFound) {
			return err
		}
	}
	return err
}

// ask asks one server to renew the lease, until expiry ends or for as long as limit.
func (k *keeper) ask(ctx, expiry context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	defer context.AfterFunc(expiry, cancel)()
	// Waits for a connection where there is none.
	stream, err := etcdserverpb.NewLeaseClient(k.etcd.client.ActiveConnection()).LeaseKeepAlive(ctx, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	if err := stream.Send(&etcdserverpb.LeaseKeepAliveRequest{ID: int64(k.id)}); err != nil {
		return err
	}
	r, err := stream.Recv()
	if err != nil {
		return err
	}
	if r.TTL <= 0 {
		return rpctypes.ErrLeaseNotFound
	}
	return nil
}
