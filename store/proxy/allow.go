package proxy

import (
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/fairlead/fairlead/store"
)

// allowed reports whether grants cover all that an operation reads or writes,
// whichever way its comparisons turn out.
func allowed(grants []store.Grant, op *pb.RequestOp) bool {
	switch r := op.GetRequest().(type) {
	case *pb.RequestOp_RequestRange:
		return store.Allows(grants, string(r.RequestRange.GetKey()), string(r.RequestRange.GetRangeEnd()), false)
	case *pb.RequestOp_RequestPut: // what may be written may be read: the value before it too
		return store.Allows(grants, string(r.RequestPut.GetKey()), "", true)
	case *pb.RequestOp_RequestDeleteRange:
		return store.Allows(grants, string(r.RequestDeleteRange.GetKey()), string(r.RequestDeleteRange.GetRangeEnd()), true)
	case *pb.RequestOp_RequestTxn:
		for _, c := range r.RequestTxn.GetCompare() { // an answer tells what was compared
			if !store.Allows(grants, string(c.GetKey()), string(c.GetRangeEnd()), false) {
				return false
			}
		}
		each := func(op *pb.RequestOp) bool { return !allowed(grants, op) }
		return !slices.ContainsFunc(r.RequestTxn.GetSuccess(), each) && !slices.ContainsFunc(r.RequestTxn.GetFailure(), each)
	}
	return false
}

// leases are those that an operation puts keys under.
func leases(op *pb.RequestOp) (ids []int64) {
	switch r := op.GetRequest().(type) {
	case *pb.RequestOp_RequestPut:
		if id := r.RequestPut.GetLease(); id != 0 {
			return []int64{id}
		}
	case *pb.RequestOp_RequestTxn:
		for _, op := range slices.Concat(r.RequestTxn.GetSuccess(), r.RequestTxn.GetFailure()) {
			ids = append(ids, leases(op)...)
		}
	}
	return ids
}

// fenced is an operation that happens only while a key is at a revision.
func fenced(key string, rev int64, op *pb.RequestOp) *pb.TxnRequest {
	return &pb.TxnRequest{
		Compare: []*pb.Compare{{
			Key: []byte(key), Target: pb.Compare_MOD, Result: pb.Compare_EQUAL,
			TargetUnion: &pb.Compare_ModRevision{ModRevision: rev},
		}},
		Success: []*pb.RequestOp{op},
	}
}
