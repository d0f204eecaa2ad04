package store

import (
	"context"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What nodes write is kept as history until it is forgotten (compaction), also what they
// write to one key again and again: without a bound one node could fill the database, which
// then takes nobody's writes. An agent that comes back after a long absence has some
// megabytes to write at once, and little after that.
const (
	nodeBytesPerSecond = 256 << 10
	nodeBytesAtOnce    = 16 << 20
	// nodePatience is how long a request is held back before it is refused.
	nodePatience = 5 * time.Second

	writeCost = 256      // of a key that is written or deleted, besides its bytes
	leaseCost = 64 << 10 // leases are few, and kept in memory
)

// ErrTooMuchWritten refuses what a node writes too fast.
var ErrTooMuchWritten = status.Error(codes.ResourceExhausted, "a node writes 256 KiB a second at most, for long")

// Paces bounds how much nodes write in a time, each by itself.
type Paces struct{ of sync.Map }

// Take waits until the node of that name may make a request, a short while, else refuses it.
func (p *Paces) Take(ctx context.Context, name string, req any) error {
	n := min(written(req), nodeBytesAtOnce)
	if n == 0 {
		return nil
	}
	v, ok := p.of.Load(name)
	if !ok {
		v, _ = p.of.LoadOrStore(name, rate.NewLimiter(nodeBytesPerSecond, nodeBytesAtOnce))
	}
	limit, ok := v.(*rate.Limiter)
	if !ok {
		return ErrTooMuchWritten
	}
	ctx, cancel := context.WithTimeout(ctx, nodePatience)
	defer cancel()
	if err := limit.WaitN(ctx, n); err != nil { // also at once, where the time would not be enough
		return ErrTooMuchWritten
	}
	return nil
}

// written is what a request to etcd costs.
func written(req any) int {
	switch r := req.(type) {
	case *pb.PutRequest:
		if r != nil {
			return writeCost + len(r.GetKey()) + len(r.GetValue())
		}
	case *pb.DeleteRangeRequest:
		if r != nil {
			return writeCost
		}
	case *pb.LeaseGrantRequest:
		return leaseCost
	case *pb.TxnRequest:
		// One of the two is done. Each bound counts, so that neither hides the other.
		n := 0
		for _, ops := range [][]*pb.RequestOp{r.GetSuccess(), r.GetFailure()} {
			for _, op := range ops {
				n += written(op.GetRequestPut()) + written(op.GetRequestDeleteRange()) + written(op.GetRequestTxn())
			}
		}
		return n
	}
	return 0
}
