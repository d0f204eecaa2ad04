package store

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/fairlead/fairlead/cluster"
)

const (
	// hedgeAfter is how long a write may be without an answer before it is proposed
	// again: what a leader was told that has died since is never answered, and the
	// next one leads within two seconds.
	hedgeAfter = 1500 * time.Millisecond
	// refusedAgain is the pause after an answer that there is no leader.
	refusedAgain = 200 * time.Millisecond
)

// once reports whether t can be made once at most, however often it is proposed:
// each key that it writes must be as it was before.
func (t Txn) once() bool {
	known := make(map[string]Cond, len(t.If))
	for _, c := range t.If {
		known[c.Key] = c
	}
	for _, o := range t.Then {
		if c, is := known[o.Key]; !is || o.Delete && c.Rev == 0 {
			return false
		}
	}
	return true
}

// insist proposes a write that can be made once at most, again whenever there is
// no answer for a while, until ctx ends. Earlier proposals are still listened to:
// on a slow disk it is the first that is made, and the others are refused for it.
func insist(ctx context.Context, what string, propose func(context.Context) (int64, error)) (int64, error) {
	type answer struct {
		rev int64
		err error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers, open := make(chan answer), 0
	again := time.NewTimer(0)
	defer again.Stop()
	var conflict, unknown error
	for {
		select {
		case <-again.C:
			open++
			go func() {
				rev, err := propose(ctx)
				select {
				case answers <- answer{rev, err}:
				case <-ctx.Done():
				}
			}()
			again.Reset(hedgeAfter)
			continue
		case <-ctx.Done():
			if unknown == nil {
				unknown = &cluster.Error{Kind: cluster.KindTransient, Msg: what, Err: context.Cause(ctx)}
			}
			return 0, unknown
		case a := <-answers:
			open--
			switch cluster.KindOf(a.err) {
			case cluster.KindConflict:
				conflict = a.err
				again.Stop()
			case cluster.KindTransient:
				if errors.Is(a.err, rpctypes.ErrNoSpace) {
					return 0, a.err // asking again makes no space
				}
				unknown = a.err
				if conflict == nil {
					again.Reset(refusedAgain)
				}
			default: // made, or refused for what it is
				return a.rev, a.err
			}
		}
		if conflict != nil && open == 0 {
			if unknown != nil {
				return 0, unknown // it may be its own earlier proposal that it is in conflict with
			}
			return 0, conflict
		}
	}
}
