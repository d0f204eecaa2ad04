package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

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

// MaxNodeStatuses bounds the keys of a node's statuses, each of a task: every server keeps all
// of them in memory. No machine runs as many containers.
const MaxNodeStatuses = 4096

// ErrTooManyStatuses refuses more, as etcd refuses what it does not take.
var ErrTooManyStatuses = status.Errorf(codes.InvalidArgument, "a node has at most %d statuses", MaxNodeStatuses)

// StatusPuts are the keys of statuses that a node's request to etcd writes.
func StatusPuts(req any) (keys []string) {
	switch r := req.(type) {
	case *pb.PutRequest:
		if key := string(r.GetKey()); strings.HasPrefix(key, PrefixStatus) {
			return []string{key}
		}
	case *pb.TxnRequest:
		for _, op := range slices.Concat(r.GetSuccess(), r.GetFailure()) {
			keys = append(keys, StatusPuts(op.GetRequestPut())...)
			keys = append(keys, StatusPuts(op.GetRequestTxn())...)
		}
	}
	return keys
}

// StatusRange is where a node's statuses are, as etcd has ranges: from key until before end.
func StatusRange(n cluster.NodeID) (key, end []byte) {
	return []byte(StatusPrefix(n)), []byte(clientv3.GetPrefixRangeEnd(StatusPrefix(n)))
}

// Turns lets one request of each name go on at a time.
type Turns struct{ of sync.Map }

// Take waits for the turn of a name, and returns what ends it.
func (t *Turns) Take(ctx context.Context, name string) (done func(), err error) {
	v, _ := t.of.LoadOrStore(name, make(chan struct{}, 1))
	turn, ok := v.(chan struct{})
	if !ok {
		return nil, fmt.Errorf("the turn of %s is a %T", name, v)
	}
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
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
