package store

import (
	"slices"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/fairlead/fairlead/cluster"
)

// MaxNodeBytes bounds a key that a node writes, with its value. The loops copy from it into
// what they write themselves, and one value that fills a transaction would stop them. An
// agent keeps a status to half of it, and all else that it writes is smaller by far.
const MaxNodeBytes = 128 << 10

// Oversized reports whether a node's request to etcd writes more to a key than it may.
func Oversized(req any) bool {
	switch r := req.(type) {
	case *pb.PutRequest:
		return bounded(string(r.GetKey()), r.GetValue()) != nil
	case *pb.TxnRequest:
		each := func(op *pb.RequestOp) bool {
			return Oversized(op.GetRequestPut()) || Oversized(op.GetRequestTxn())
		}
		return slices.ContainsFunc(r.GetSuccess(), each) || slices.ContainsFunc(r.GetFailure(), each)
	}
	return false
}

// nodesSay reports whether a key is one that nodes write.
func nodesSay(key string) bool {
	for _, p := range []string{PrefixStatus, PrefixAcks, PrefixAlive} {
		if strings.HasPrefix(key, p) {
			return true
		}
	}
	return strings.HasPrefix(key, PrefixNodes) && strings.HasSuffix(key, "/info")
}

// bounded refuses too large a value of a key that nodes write: also when it is read, as it may
// have come through a server of before this bound.
func bounded(key string, value []byte) error {
	if size := len(key) + len(value); size > MaxNodeBytes && nodesSay(key) {
		return cluster.Invalidf("%d bytes of a node, at most %d are taken", size, MaxNodeBytes)
	}
	return nil
}
