package proxy

import (
	"context"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/fairlead/fairlead/store"
)

// attempts is how often a request is decided again because the node's record changed.
const attempts = 4

// do passes an operation on, as long as the node has the record that allows it.
func (p *Proxy) do(ctx context.Context, op *pb.RequestOp) (*pb.ResponseOp, *pb.ResponseHeader, error) {
	b, err := bearerOf(ctx)
	if err != nil {
		return nil, nil, err
	}
	if store.Oversized(op.GetRequestPut()) || store.Oversized(op.GetRequestTxn()) {
		return nil, nil, rpctypes.ErrGRPCRequestTooLarge
	}
	for _, write := range []any{op.GetRequestPut(), op.GetRequestDeleteRange(), op.GetRequestTxn()} {
		if err := p.paces.Take(ctx, b.key, write); err != nil {
			return nil, nil, err
		}
	}
	done, err := p.room(ctx, b, slices.Concat(store.StatusPuts(op.GetRequestPut()), store.StatusPuts(op.GetRequestTxn())))
	if err != nil {
		return nil, nil, err
	}
	defer done()
	for n := range attempts {
		r, err := p.record(ctx, b, n > 0)
		switch {
		case err != nil:
			return nil, nil, err
		case !allowed(r.grants, op) && n == 0:
			continue // it may be allowed more since
		case !allowed(r.grants, op):
			return nil, nil, p.deny(b)
		}
		for _, id := range leases(op) {
			if err := p.ownsLease(ctx, r, id); err != nil {
				return nil, nil, err
			}
		}
		t, err := p.kv.Txn(outgoing(ctx), fenced(r.key, r.rev, op), whole)
		if err != nil {
			return nil, nil, err
		}
		if t.Succeeded && len(t.Responses) == 1 {
			return t.Responses[0], t.Header, nil
		}
	}
	return nil, nil, errChanged
}

// room refuses statuses of tasks that are more than a node can have. Until done is called no
// other request of the node makes new ones: those that are on their way are not counted yet.
// What the mirror has costs no request.
func (p *Proxy) room(ctx context.Context, b bearer, keys []string) (done func(), err error) {
	fresh := 0
	p.Mirror.Read(func(v store.View) {
		for _, key := range keys {
			if _, known := v.Entry(key); !known {
				fresh++
			}
		}
	})
	if fresh == 0 {
		return func() {}, nil
	}
	done, err = p.turns.Take(ctx, b.key)
	if err != nil {
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	from, end := store.StatusRange(b.node)
	r, err := p.kv.Range(outgoing(ctx), &pb.RangeRequest{Key: from, RangeEnd: end, CountOnly: true})
	if err == nil && r.GetCount()+int64(fresh) > store.MaxNodeStatuses {
		err = store.ErrTooManyStatuses
	}
	if err != nil {
		done()
		return nil, err
	}
	return done, nil
}

// Range implements etcd's KV.Range.
func (p *Proxy) Range(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	a, h, err := p.do(ctx, &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}})
	out := a.GetResponseRange()
	if out != nil {
		out.Header = h
	}
	return out, err
}

// Put implements etcd's KV.Put.
func (p *Proxy) Put(ctx context.Context, r *pb.PutRequest) (*pb.PutResponse, error) {
	a, h, err := p.do(ctx, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}})
	out := a.GetResponsePut()
	if out != nil {
		out.Header = h
	}
	return out, err
}

// DeleteRange implements etcd's KV.DeleteRange.
func (p *Proxy) DeleteRange(ctx context.Context, r *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	a, h, err := p.do(ctx, &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}})
	out := a.GetResponseDeleteRange()
	if out != nil {
		out.Header = h
	}
	return out, err
}

// Txn implements etcd's KV.Txn.
func (p *Proxy) Txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	a, h, err := p.do(ctx, &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: r}})
	out := a.GetResponseTxn()
	if out != nil {
		out.Header = h
	}
	return out, err
}

// Compact implements etcd's KV.Compact: history is not a node's to forget.
func (*Proxy) Compact(context.Context, *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	return nil, errDenied
}

// RangeStream implements etcd's KV.RangeStream, which an etcd of 3.4 has not.
func (*Proxy) RangeStream(*pb.RangeRequest, grpc.ServerStreamingServer[pb.RangeStreamResponse]) error {
	return errDenied
}
