package api

import (
	"context"
	"errors"
	"time"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

const (
	attempts   = 8
	catchUp    = 3 * time.Second
	chunkBytes = store.MaxBytes * 9 / 10
)

// decide calls f, which reads the mirror, decides and commits, until it does not
// lose a race; a bounded number of times. Each time is a fresh decision.
func (s *Server) decide(ctx context.Context, f func(ctx context.Context) error) error {
	for n := 1; ; n++ {
		changed := s.Mirror.Changed()
		err := f(ctx)
		if err == nil || !errors.As(err, new(*lostError)) || n == attempts {
			return err
		}
		// The mirror is behind whoever won: wait for its next change, not for long.
		t := time.NewTimer(time.Duration(n) * 50 * time.Millisecond)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-t.C:
		}
		t.Stop()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// lostError marks a comparison that failed in the store, as opposed to a
// conflict that the caller must hear about.
type lostError struct{ err error }

func (e *lostError) Error() string {
	return "others kept changing the same thing; try again: " + e.err.Error()
}
func (e *lostError) Unwrap() error { return e.err }

// step is one object's writes with what they were decided on. Its parts are
// never torn apart.
type step struct {
	conds []store.Cond
	ops   []store.Op
}

// put is a step that writes one value; rev is the revision it was decided on (0: it must not exist).
func put(key string, v any, rev int64) (step, error) {
	o, err := store.PutJSON(key, v)
	if err != nil {
		return step{}, err
	}
	return step{conds: []store.Cond{{Key: key, Rev: rev}}, ops: []store.Op{o}}, nil
}

func remove(key string, rev int64) step {
	return step{conds: []store.Cond{{Key: key, Rev: rev}}, ops: []store.Op{{Key: key, Delete: true}}}
}

// commit writes steps in their order: in one transaction when they fit, else in
// several. Every one of them compares guard too, whose keys may themselves be
// written by a step.
func (s *Server) commit(ctx context.Context, guard []store.Cond, steps []step) error {
	var rev int64
	wrote := map[string]int64{}
	for _, t := range chunks(guard, steps) {
		for i, c := range t.If {
			if r, ours := wrote[c.Key]; ours {
				t.If[i].Rev = r // what an earlier chunk wrote has that chunk's revision now
			}
		}
		var err error
		if rev, err = s.Store.Commit(ctx, t); err != nil {
			if cluster.KindOf(err) == cluster.KindConflict {
				return &lostError{err}
			}
			return err
		}
		for _, o := range t.Then {
			wrote[o.Key] = rev
			if o.Delete {
				wrote[o.Key] = 0
			}
		}
	}
	return s.settle(ctx, rev)
}

// chunks splits steps into transactions that the store takes.
func chunks(guard []store.Cond, steps []step) []store.Txn {
	var out []store.Txn
	var cur store.Txn
	size := 0
	flush := func() {
		if len(cur.Then) == 0 {
			return
		}
		own := map[string]bool{}
		for _, c := range cur.If {
			own[c.Key] = true
		}
		for _, g := range guard {
			if !own[g.Key] {
				cur.If = append(cur.If, g)
			}
		}
		out = append(out, cur)
		cur, size = store.Txn{}, 0
	}
	for _, st := range steps {
		n := 0
		for _, o := range st.ops {
			n += len(o.Key) + len(o.Value)
		}
		if len(cur.Then)+len(st.ops) > store.MaxOps || len(cur.If)+len(st.conds)+len(guard) > store.MaxOps || (size > 0 && size+n > chunkBytes) {
			flush()
		}
		cur.If = append(cur.If, st.conds...)
		cur.Then = append(cur.Then, st.ops...)
		size += n
	}
	flush()
	return out
}

// settle waits until the mirror shows what was written, so that a client reads
// what it wrote. A mirror that lags is not waited for long: the write is done.
func (s *Server) settle(ctx context.Context, rev int64) error {
	t := time.NewTimer(catchUp)
	defer t.Stop()
	for {
		changed := s.Mirror.Changed()
		if s.Mirror.Rev() >= rev {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		case <-t.C:
			s.Log.Warn("the mirror lags behind a write", "rev", rev, "mirror", s.Mirror.Rev())
			return nil
		}
	}
}
