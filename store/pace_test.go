package store

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func putOf(size int) *pb.PutRequest {
	return &pb.PutRequest{Key: []byte("k"), Value: make([]byte, size-writeCost-1)}
}

func TestANodeWritesAtItsPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p Paces
		take := func(node string, size int) (time.Duration, error) {
			start := time.Now()
			err := p.Take(t.Context(), node, putOf(size))
			return time.Since(start), err
		}
		const piece = 128 << 10
		for range nodeBytesAtOnce / piece {
			if waited, err := take("a", piece); err != nil || waited != 0 {
				t.Fatalf("what comes at once: %s, %v", waited, err)
			}
		}
		if waited, err := take("a", piece); err != nil || waited != time.Second/2 {
			t.Errorf("after it: %s, %v", waited, err)
		}
		if waited, err := take("b", piece); err != nil || waited != 0 {
			t.Errorf("another node: %s, %v", waited, err)
		}
		if waited, err := take("a", 2<<20); err == nil || waited != 0 {
			t.Errorf("what would take longer than patience lasts: %s, %v", waited, err)
		}
		if waited, err := take("a", piece); err != nil || waited != time.Second/2 {
			t.Errorf("after what was refused, which costs nothing: %s, %v", waited, err)
		}
		time.Sleep(nodeBytesAtOnce / nodeBytesPerSecond * time.Second)
		if waited, err := take("a", 4*nodeBytesAtOnce); err != nil || waited != 0 {
			t.Errorf("more than ever comes at once, after a rest: %s, %v", waited, err)
		}
	})
}

func TestWhatIsWritten(t *testing.T) {
	value := bytes.Repeat([]byte("v"), 100)
	put := &pb.PutRequest{Key: []byte("key"), Value: value}
	op := func(o any) *pb.RequestOp {
		switch o := o.(type) {
		case *pb.PutRequest:
			return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: o}}
		case *pb.DeleteRangeRequest:
			return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: o}}
		case *pb.TxnRequest:
			return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: o}}
		}
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{}}}
	}
	const one = writeCost + 103
	for name, c := range map[string]struct {
		req  any
		want int
	}{
		"put":         {put, one},
		"no put":      {(*pb.PutRequest)(nil), 0},
		"delete":      {&pb.DeleteRangeRequest{Key: []byte("k")}, writeCost},
		"read":        {&pb.RangeRequest{}, 0},
		"lease":       {&pb.LeaseGrantRequest{}, leaseCost},
		"no lease":    {&pb.LeaseRevokeRequest{}, 0},
		"transaction": {&pb.TxnRequest{Success: []*pb.RequestOp{op(put), op(nil)}, Failure: []*pb.RequestOp{op(&pb.DeleteRangeRequest{})}}, one + writeCost},
		"deep":        {&pb.TxnRequest{Failure: []*pb.RequestOp{op(&pb.TxnRequest{Success: []*pb.RequestOp{op(put), op(put)}})}}, 2 * one},
		"other":       {clientv3.OpPut("k", "v"), 0},
	} {
		if got := written(c.req); got != c.want {
			t.Errorf("%s costs %d, not %d", name, got, c.want)
		}
	}
}
