//nolint:thelper // these are tests, not helpers: a failure is at the line that says so
package storetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// still is a clock where the time does not matter.
func still() time.Time { return time.Time{} }

// leaseTTL is long enough that nothing here ends because it ran out.
const leaseTTL = 60

func (e env) lease(t *testing.T, ttl int64) (id store.LeaseID, lost <-chan struct{}, end context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	id, lost, err := e.Lease(ctx, ttl)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	return id, lost, cancel
}

func (e env) putLeased(t *testing.T, name string, id store.LeaseID) int64 {
	t.Helper()
	return e.commit(t, store.Txn{Then: []store.Op{{Key: e.key(name), Value: []byte(name), Lease: id}}})
}

// awaitGone waits for the deletion of each key after rev and returns the revisions.
func (e env) awaitGone(t *testing.T, rev int64, names ...string) map[string]int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	gone := map[string]int64{}
	for b := range e.Watch(ctx, e.prefix, rev) {
		if b.Err != nil {
			t.Fatal(b.Err)
		}
		for _, ev := range b.Events {
			if ev.Deleted {
				gone[ev.Key[len(e.prefix):]] = ev.Rev
			}
		}
		missing := 0
		for _, n := range names {
			if gone[n] == 0 {
				missing++
			}
		}
		if missing == 0 {
			return gone
		}
	}
	t.Fatalf("of %v only %v is gone", names, gone)
	return nil
}

func leaseEnds(t *testing.T, e env) {
	id, lost, end := e.lease(t, leaseTTL)
	other, _, endOther := e.lease(t, leaseTTL)
	defer endOther()
	e.putLeased(t, "a", id)
	e.putLeased(t, "b", id)
	e.put(t, "mine", "")
	rev := e.putLeased(t, "other", other)
	end()
	gone := e.awaitGone(t, rev, "a", "b") // far sooner than the lease's time
	if gone["a"] != gone["b"] {
		t.Fatalf("the keys of one lease went at two revisions: %v", gone)
	}
	if entries, _ := e.list(t); len(entries) != 2 {
		t.Fatalf("left are %v, want mine and other", entries)
	}
	select {
	case <-lost:
		t.Fatal("a lease that its holder ended counts as lost")
	default:
	}
	_, err := e.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: e.key("late"), Lease: id}}})
	wantKind(t, err, cluster.KindNotFound)
}

func leaseRevoked(t *testing.T, e env) {
	id, lost, end := e.lease(t, 3) // renewed each second: that is when the loss is seen
	defer end()
	rev := e.putLeased(t, "a", id)
	if err := e.Revoke(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	e.awaitGone(t, rev, "a")
	select {
	case <-lost:
	case <-time.After(wait):
		t.Fatal("lost is not closed")
	}
	wantKind(t, e.Revoke(t.Context(), id), cluster.KindNotFound)
}

// leaseKept takes a lease, and returns the test that it is there twice its time later:
// others need not wait for that. A machine may stand still for seconds between renewals.
func leaseKept(t *testing.T, e env) func(t *testing.T) {
	id, lost, end := e.lease(t, 9)
	t.Cleanup(end)
	e.putLeased(t, "a", id)
	later := time.After(20 * time.Second)
	return func(t *testing.T) {
		<-later
		select {
		case <-lost:
			t.Fatal("the lease is lost though its context lives")
		default:
		}
		e.get(t, "a")
	}
}

func leaseDetached(t *testing.T, e env) {
	id, _, end := e.lease(t, leaseTTL)
	e.putLeased(t, "a", id)
	e.putLeased(t, "b", id)
	rev := e.put(t, "a", "without a lease")
	end()
	e.awaitGone(t, rev, "b")
	if got := e.get(t, "a"); string(got.Value) != "without a lease" {
		t.Fatalf("%+v", got)
	}
}

// term is one time that a candidate leads.
type term struct {
	id  string
	ctx context.Context //nolint:containedctx // handed from run to the test
	st  store.Store
}

// leadTTL is long enough that no lead here ends because a machine stood still.
const leadTTL = 30

// run starts a candidate that reports its terms and leads until its context ends.
func (e env) run(t *testing.T, id string, unique bool, terms chan<- term) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := store.Candidate{Store: e, Name: e.lead(), ID: id, Unique: unique, TTL: leadTTL, Now: still, Log: hclog.NewNullLogger()}
	done := make(chan error, 1)
	go func() {
		done <- c.Lead(ctx, func(ctx context.Context, st store.Store, _ time.Time) error {
			terms <- term{id, ctx, st}
			<-ctx.Done()
			return context.Cause(ctx)
		})
	}()
	return func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Lead returned %v", err)
		}
	}
}

func (e env) lead() string { return e.prefix + "lead" }

func next(t *testing.T, terms <-chan term) term {
	t.Helper()
	select {
	case got := <-terms:
		return got
	case <-time.After(wait):
		t.Fatal("nobody leads")
	}
	return term{}
}

func none(t *testing.T, terms <-chan term) {
	t.Helper()
	select {
	case got := <-terms:
		t.Fatalf("%s leads as well", got.id)
	case <-time.After(300 * time.Millisecond):
	}
}

func (e env) leader(t *testing.T, want string) {
	t.Helper()
	got, err := store.Leader(t.Context(), e, e.lead())
	if err != nil || got != want {
		t.Fatalf("leader is %q, %v, want %q", got, err, want)
	}
}

func leadExclusive(t *testing.T, e env) {
	_, err := store.Leader(t.Context(), e, e.lead())
	wantKind(t, err, cluster.KindNotFound)
	terms := make(chan term, 3)
	stopA := e.run(t, "a", false, terms)
	stopB := e.run(t, "b", false, terms)
	stopC := e.run(t, "c", false, terms)
	got := next(t, terms)
	e.leader(t, got.id)
	none(t, terms)
	if _, err := got.st.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: e.key("x")}}}); err != nil {
		t.Fatalf("the leader cannot write: %v", err)
	}
	stopA()
	stopB()
	stopC()
	_, err = store.Leader(t.Context(), e, e.lead())
	wantKind(t, err, cluster.KindNotFound)
}

func leadHandOver(t *testing.T, e env) {
	terms := make(chan term, 2)
	stopA := e.run(t, "a", false, terms)
	if got := next(t, terms); got.id != "a" {
		t.Fatal(got.id)
	}
	stopB := e.run(t, "b", false, terms)
	none(t, terms)
	stopA()
	start := time.After(wait) // less than the lease's time
	select {
	case got := <-terms:
		if got.id != "b" {
			t.Fatal(got.id)
		}
	case <-start:
		t.Fatal("the lead was not given up in an orderly stop")
	}
	stopB()
}

func leadLost(t *testing.T, e env) {
	terms := make(chan term, 2)
	stopA := e.run(t, "a", false, terms)
	first := next(t, terms)
	stopB := e.run(t, "b", false, terms)
	none(t, terms)
	lease, err := e.LeaseOf(t.Context(), store.LockKey(e.lead()))
	if err != nil || lease == 0 {
		t.Fatalf("the lock has lease %d, %v", lease, err)
	}
	if err := e.Revoke(t.Context(), lease); err != nil {
		t.Fatal(err)
	}
	e.ended(t, first)
	second := next(t, terms)
	// A run that goes on too long writes nothing.
	_, err = first.st.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: e.key("late")}}})
	wantKind(t, err, cluster.KindConflict)
	if _, err := second.st.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: e.key("now")}}}); err != nil {
		t.Fatal(err)
	}
	stopA()
	stopB()
}

func (e env) ended(t *testing.T, got term) {
	t.Helper()
	select {
	case <-got.ctx.Done():
	case <-time.After(wait):
		t.Fatalf("%s still leads", got.id)
	}
	if cause := context.Cause(got.ctx); !errors.Is(cause, store.ErrLostLead) {
		t.Fatalf("the leader's context ended with %v", cause)
	}
}

func leadTakenAway(t *testing.T, e env) {
	terms := make(chan term, 2)
	stop := e.run(t, "a", false, terms)
	first := next(t, terms)
	e.commit(t, store.Txn{Then: []store.Op{{Key: store.LockKey(e.lead()), Delete: true}}})
	e.ended(t, first)
	if again := next(t, terms); again.id != "a" {
		t.Fatal(again.id)
	}
	stop()
}

func leadUnique(t *testing.T, e env) {
	// What a process that was killed leaves behind.
	id, _, end := e.lease(t, leaseTTL)
	defer end()
	e.commit(t, store.Txn{Then: []store.Op{{Key: store.LockKey(e.lead()), Value: []byte("a"), Lease: id}}})
	terms := make(chan term, 2)
	stopB := e.run(t, "b", true, terms)
	none(t, terms)
	stopA := e.run(t, "a", true, terms)
	if got := next(t, terms); got.id != "a" {
		t.Fatal(got.id)
	}
	// The old lease's end takes nothing from the new process.
	if err := e.Revoke(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	none(t, terms)
	e.leader(t, "a")
	stopA()
	next(t, terms)
	stopB()
}

func leadResult(t *testing.T, e env) {
	want := errors.New("the work is done")
	c := store.Candidate{Store: e, Name: e.lead(), ID: "a", Now: still, Log: hclog.NewNullLogger()}
	err := c.Lead(t.Context(), func(context.Context, store.Store, time.Time) error { return want })
	if !errors.Is(err, want) {
		t.Fatalf("Lead returned %v", err)
	}
	_, err = store.Leader(t.Context(), e, e.lead())
	wantKind(t, err, cluster.KindNotFound)
}
