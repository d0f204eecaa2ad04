package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/outage"
)

// ErrLostLead is the cause with which a leader's context ends when it leads no more.
var ErrLostLead = errors.New("the lead is lost")

// DefaultLeadTTL is how long, in seconds, a leader that dies keeps the lead.
const DefaultLeadTTL = 5

// Candidate competes for a lead: the lock LockKey(Name), held under a lease.
type Candidate struct {
	Store Store // may write locks: Guarded(st, WriterServer) or wider
	Name  string
	ID    string // of this candidate; what Leader answers
	// Unique says that no two processes ever run with this ID at once (a lock on
	// the data directory sees to that). A lock that an earlier process left, killed
	// before it could give it up, is then taken over at once.
	Unique bool
	TTL    int64 // seconds; 0 means DefaultLeadTTL
	Now    func() time.Time
	Log    hclog.Logger
}

const retryPause = 200 * time.Millisecond

// Lead runs run whenever this candidate leads, until ctx ends, and returns the
// context's cause; or until run itself returns while it leads, and returns what
// run did.
//
// run's context ends, with ErrLostLead, before another can lead. st is
// Candidate.Store with every transaction fenced by the lock, so that a run that
// goes on too long writes nothing. When run has returned the lock is given up at once.
// since is from when on this candidate saw another one lead, until it did itself: about
// now where nobody led, and where the store was away.
func (c Candidate) Lead(ctx context.Context, run func(ctx context.Context, st Store, since time.Time) error) error {
	var away outage.Outage
	for ctx.Err() == nil {
		done, err := c.term(ctx, run, func() { away.Over(c.Log, "somebody leads again", "lead", c.Name) })
		switch {
		case done && ctx.Err() == nil:
			return err
		case err != nil && ctx.Err() == nil:
			away.Failed(c.Log, "could not take or keep the lead; will try again", "lead", c.Name, "error", err)
			pause(ctx)
		}
	}
	return context.Cause(ctx)
}

// Leader answers the ID of who leads, KindNotFound when nobody does.
func Leader(ctx context.Context, st Store, name string) (string, error) {
	e, err := st.Get(ctx, LockKey(name))
	return string(e.Value), err
}

// term waits for the lead, takes it and runs run once. done means that run
// returned by itself; without an error and not done, the lead went to another.
// led is called once somebody leads.
func (c Candidate) term(ctx context.Context, run func(ctx context.Context, st Store, since time.Time) error, led func()) (done bool, err error) {
	held, since, err := c.free(ctx, led)
	if err != nil {
		return false, err
	}
	lctx, endLease := context.WithCancel(ctx)
	defer endLease()
	ttl := c.TTL
	if ttl == 0 {
		ttl = DefaultLeadTTL
	}
	lease, lost, err := c.Store.Lease(lctx, ttl)
	if err != nil {
		return false, fmt.Errorf("lease for the lead %s: %w", c.Name, err)
	}
	key := LockKey(c.Name)
	rev, err := c.Store.Commit(ctx, Txn{
		If:   []Cond{{Key: key, Rev: held}},
		Then: []Op{{Key: key, Value: []byte(c.ID), Lease: lease}},
	})
	if cluster.KindOf(err) == cluster.KindConflict {
		led()
		return false, nil // another was faster
	}
	if err != nil {
		return false, fmt.Errorf("take the lead %s: %w", c.Name, err)
	}
	led()
	defer c.release(ctx, rev)
	c.Log.Info("leading", "lead", c.Name, "id", c.ID, "revision", rev)
	return c.serve(ctx, rev, lost, func(ctx context.Context, st Store) error { return run(ctx, st, since) })
}

// serve runs run until it returns, ctx ends, or the lead is lost.
func (c Candidate) serve(ctx context.Context, rev int64, lost <-chan struct{}, run func(ctx context.Context, st Store) error) (done bool, err error) {
	rctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		// Someone may take the lock away while the lease lives.
		if c.changed(rctx, rev, func() {}) == nil {
			cancel(ErrLostLead)
		}
	}()
	go func() {
		select {
		case <-lost:
			cancel(ErrLostLead)
		case <-rctx.Done():
		}
	}()
	err = run(rctx, Fenced(c.Store, Cond{Key: LockKey(c.Name), Rev: rev}))
	lostLead := errors.Is(context.Cause(rctx), ErrLostLead)
	cancel(nil)
	<-watched
	if lostLead {
		c.Log.Warn("lost the lead", "lead", c.Name, "id", c.ID)
		return false, nil
	}
	return true, err
}

// release gives the lock up, even though ctx may have ended.
func (c Candidate) release(ctx context.Context, rev int64) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), revokeTimeout)
	defer cancel()
	key := LockKey(c.Name)
	_, err := c.Store.Commit(ctx, Txn{If: []Cond{{Key: key, Rev: rev}}, Then: []Op{{Key: key, Delete: true}}})
	if err != nil && cluster.KindOf(err) != cluster.KindConflict {
		c.Log.Warn("could not give up the lead; it runs out", "lead", c.Name, "error", err)
	}
}

// free waits until the lock may be taken and returns the revision it then has, 0
// when it is free, and since when the store has answered.
func (c Candidate) free(ctx context.Context, led func()) (rev int64, since time.Time, err error) {
	since = c.Now()
	for {
		e, err := c.Store.Get(ctx, LockKey(c.Name))
		switch {
		case cluster.KindOf(err) == cluster.KindNotFound:
			return 0, since, nil
		case err != nil:
			return 0, since, fmt.Errorf("ask who leads %s: %w", c.Name, err)
		case c.Unique && string(e.Value) == c.ID:
			return e.Rev, since, nil
		}
		led()
		c.Log.Debug("waiting for the lead", "lead", c.Name, "leader", string(e.Value))
		if err := c.changed(ctx, e.Rev, func() { since = c.Now() }); err != nil {
			return 0, since, err
		}
	}
}

// changed returns nil once the lock is not at revision rev, or an error when ctx ends.
// away is called whenever the store does not answer.
func (c Candidate) changed(ctx context.Context, rev int64, away func()) error {
	key := LockKey(c.Name)
	for ctx.Err() == nil {
		// A list, for the store's revision: the lock's own may be compacted.
		entries, at, err := c.Store.List(ctx, key)
		if err != nil {
			away()
			pause(ctx)
			continue
		}
		if lockRev(entries, key) != rev {
			return nil
		}
		if c.watch(ctx, key, at) {
			return nil
		}
		pause(ctx)
	}
	return context.Cause(ctx)
}

// watch reports whether the lock changed; false means that the watch ended.
func (c Candidate) watch(ctx context.Context, key string, at int64) bool {
	wctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for b := range c.Store.Watch(wctx, key, at) {
		if b.Err != nil {
			return false
		}
		for _, ev := range b.Events {
			if ev.Key == key {
				return true
			}
		}
	}
	return false
}

func lockRev(entries []Entry, key string) int64 {
	for _, e := range entries {
		if e.Key == key {
			return e.Rev
		}
	}
	return 0
}

// pause waits a moment, before the store is asked again.
func pause(ctx context.Context) {
	t := time.NewTimer(retryPause)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
