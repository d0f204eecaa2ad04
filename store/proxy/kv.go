package proxy

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"

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
