package store

import (
	"context"
	"errors"
)

// Entry is one key with its value and the revision of its last change.
type Entry struct {
	Key     string
	Value   []byte
	Rev     int64 // etcd's ModRevision
	Created int64 // etcd's CreateRevision
}

// Cond is one comparison of a transaction.
type Cond struct {
	Key string
	// Rev is the revision the key must still have; 0 means it must not exist.
	Rev int64
}

// Op is one write of a transaction: a put, or a delete.
type Op struct {
	Key    string
	Value  []byte
	Delete bool
	// Lease, when not zero, ends the key with the lease.
	Lease LeaseID
}

// Txn writes all of Then if all of If hold, else nothing. At most MaxOps operations.
type Txn struct {
	If   []Cond
	Then []Op
}

// MaxOps is the most operations (comparisons and writes are counted apart) in a
// transaction; etcd takes 128.
const MaxOps = 100

// ErrLeft is the cause of a context's end that leaves a lease to run out: its
// holder may be back before.
var ErrLeft = errors.New("its holder may be back")

// LeaseID names a lease.
type LeaseID int64

// Event is one change of a key. Deleted entries carry their key and revision only.
type Event struct {
	Entry
	Deleted bool
}

// Batch is what a watch delivers: all events of one or more revisions, in order.
// After a Batch with Err set the watch is over: list again and watch from there.
type Batch struct {
	Rev    int64
	Events []Event
	Err    error
}

// Store is the cluster's state. Errors carry a cluster.Kind: NotFound,
// Conflict, Transient (no quorum, no connection), Invalid (too large).
type Store interface {
	Get(ctx context.Context, key string) (Entry, error)
	// List returns the entries below prefix in key order, and the revision they were read at.
	List(ctx context.Context, prefix string) ([]Entry, int64, error)
	// Commit runs t and returns the revision it made. A failed comparison is a KindConflict error.
	Commit(ctx context.Context, t Txn) (int64, error)
	// Watch delivers changes below prefix newer than rev until ctx ends; the channel is then closed.
	Watch(ctx context.Context, prefix string, rev int64) <-chan Batch
	// Lease makes a lease of ttl seconds and keeps it alive until ctx ends, then revokes it,
	// or lets it run out when ErrLeft ended ctx.
	// lost is closed when the lease is gone before that.
	Lease(ctx context.Context, ttlSeconds int64) (id LeaseID, lost <-chan struct{}, err error)
}
