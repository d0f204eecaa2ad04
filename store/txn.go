package store

import (
	"context"
	"fmt"

	"github.com/fairlead/fairlead/cluster"
)

// MaxBytes bounds the keys and values of a transaction. etcd takes 1.5 MiB with
// all its framing, and an external one cannot be changed.
const MaxBytes = 1400 << 10

// ErrCompacted is the cause in a Batch, or of a List, whose revision the store
// no longer has: list again. It is of KindConflict.
var ErrCompacted error = &cluster.Error{Kind: cluster.KindConflict, Msg: "the store has compacted this revision"}

// Check refuses, as KindInvalid, a transaction that no store takes.
func (t Txn) Check() error {
	if len(t.If) > MaxOps+1 || len(t.Then) > MaxOps { // one comparison more: Fenced adds it
		return cluster.Invalidf("transaction of %d comparisons and %d writes: at most %d of each", len(t.If), len(t.Then), MaxOps)
	}
	size := 0
	for _, c := range t.If {
		if c.Key == "" || c.Rev < 0 {
			return cluster.Invalidf("comparison of key %q with revision %d", c.Key, c.Rev)
		}
		size += len(c.Key)
	}
	seen := make(map[string]bool, len(t.Then))
	for _, o := range t.Then {
		if o.Key == "" {
			return cluster.Invalidf("write without a key")
		}
		if seen[o.Key] {
			return cluster.Invalidf("%s is written twice in one transaction", o.Key)
		}
		seen[o.Key] = true
		size += len(o.Key) + len(o.Value)
	}
	if size > MaxBytes {
		return cluster.Invalidf("transaction of %d bytes: at most %d (first key %s)", size, MaxBytes, t.firstKey())
	}
	return nil
}

func (t Txn) firstKey() string {
	if len(t.Then) > 0 {
		return t.Then[0].Key
	}
	if len(t.If) > 0 {
		return t.If[0].Key
	}
	return ""
}

// conflict is the error of a failed comparison.
func (t Txn) conflict() error {
	const show = 3
	keys := make([]string, 0, show)
	for _, c := range t.If[:min(len(t.If), show)] {
		keys = append(keys, fmt.Sprintf("%s@%d", c.Key, c.Rev))
	}
	return cluster.Conflictf("the store moved on: one of %d comparisons failed, among them %v", len(t.If), keys)
}

// Guarded returns st for the use of w: it refuses, as KindForbidden, every write
// of a key whose writer is another part.
func Guarded(st Store, w Writer) Store { return guarded{Store: st, writer: w} }

type guarded struct {
	Store
	writer Writer
}

func (g guarded) Commit(ctx context.Context, t Txn) (int64, error) {
	for _, o := range t.Then {
		if !MayWrite(g.writer, o.Key) {
			return 0, &cluster.Error{
				Kind: cluster.KindForbidden,
				Msg:  fmt.Sprintf("%s is not a key that the %s may write", o.Key, g.writer),
			}
		}
	}
	return g.Store.Commit(ctx, t)
}

// Fenced returns st with a comparison added to every transaction, so that
// nothing is written once c does not hold: a former leader changes nothing,
// however late it learns that it is one.
func Fenced(st Store, c Cond) Store { return fenced{Store: st, cond: c} }

type fenced struct {
	Store
	cond Cond
}

func (f fenced) Commit(ctx context.Context, t Txn) (int64, error) {
	conds := make([]Cond, 0, len(t.If)+1)
	t.If = append(append(conds, f.cond), t.If...)
	return f.Store.Commit(ctx, t)
}
