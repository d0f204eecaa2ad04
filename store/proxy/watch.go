package proxy

import (
	"context"
	"errors"
	"io"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/fairlead/fairlead/store"
)

// noWatch is the ID, etcd's own, of a watch that was not made.
const noWatch = -1

// Watch implements etcd's Watch.Watch.
func (p *Proxy) Watch(down pb.Watch_WatchServer) error {
	b, err := bearerOf(down.Context())
	if err != nil {
		return err
	}
	r, err := p.record(down.Context(), b, true)
	if err != nil {
		return err
	}
	ctx, end := context.WithCancelCause(outgoing(down.Context()))
	defer end(nil)
	up, err := p.watch.Watch(ctx, whole)
	if err != nil {
		return err
	}
	go func() { end(p.awaitChange(ctx, b, r)) }()
	w := &watches{Proxy: p, bearer: b, down: down, up: up, made: make(chan struct{}, 1)}
	go func() {
		if err := w.requests(ctx); err != nil {
			end(err)
		}
	}()
	return why(ctx, w.answers())
}

// watches are those of one stream.
type watches struct {
	*Proxy
	bearer bearer
	up     pb.Watch_WatchClient
	made   chan struct{} // etcd has answered the request for a watch

	mu   sync.Mutex
	down pb.Watch_WatchServer
}

func (w *watches) send(r *pb.WatchResponse) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.down.Send(r)
}

// answers passes on what etcd sends, until one of the two ends.
func (w *watches) answers() error {
	for {
		r, err := w.up.Recv()
		if err != nil {
			return ended(err)
		}
		if err := w.send(r); err != nil {
			return err
		}
		if r.Created {
			select {
			case w.made <- struct{}{}:
			default:
			}
		}
	}
}

// requests passes on what the node sends. Requests for watches go one at a time: a
// client knows the answers by their order alone, and some are given here.
func (w *watches) requests(ctx context.Context) error {
	for {
		r, err := w.down.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return w.up.CloseSend()
		case err != nil:
			return err
		}
		c := r.GetCreateRequest()
		if c != nil {
			rec, err := w.record(ctx, w.bearer, true)
			if err != nil {
				return err
			}
			if !store.Allows(rec.grants, string(c.Key), string(c.RangeEnd), false) {
				reason := w.deny(w.bearer)
				if err := w.send(denied(rec.rev, reason)); err != nil {
					return err
				}
				continue
			}
		}
		if err := w.up.Send(r); err != nil {
			if errors.Is(err, io.EOF) {
				return nil // answers says why
			}
			return err
		}
		if c == nil {
			continue
		}
		select {
		case <-w.made:
		case <-ctx.Done():
			return nil
		}
	}
}

// denied answers a request for a watch as etcd does.
func denied(rev int64, reason error) *pb.WatchResponse {
	return &pb.WatchResponse{
		Header: &pb.ResponseHeader{Revision: rev}, WatchId: noWatch, Created: true, Canceled: true, CancelReason: reason.Error(),
	}
}
