package store_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// While the store is away its leader stops leading within the lease, and leads
// again when the store is back; never do two lead at once.
func TestLeadWhileTheStoreIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const ttl = 10
		st := store.NewMemory()
		ctx, cancel := context.WithCancel(t.Context())
		var leading, most atomic.Int32
		began := make(chan string, 10)
		done := make(chan error, 2)
		lead := func(id string) {
			c := store.Candidate{Store: st, Name: "x", ID: id, TTL: ttl, Now: time.Now, Log: hclog.NewNullLogger()}
			done <- c.Lead(ctx, func(ctx context.Context, _ store.Store, _ time.Time) error {
				most.Store(max(most.Load(), leading.Add(1)))
				began <- id
				<-ctx.Done()
				leading.Add(-1)
				return nil
			})
		}
		go lead("a")
		synctest.Wait()
		go lead("b")
		synctest.Wait()
		if got := <-began; got != "a" || leading.Load() != 1 {
			t.Fatalf("%s leads, %d lead", got, leading.Load())
		}
		st.Down(true)
		time.Sleep((ttl - 1) * time.Second)
		if leading.Load() != 1 {
			t.Fatal("the leader gave up before its lease was over")
		}
		time.Sleep(2 * time.Second)
		if leading.Load() != 0 {
			t.Fatal("the leader leads on without a lease")
		}
		time.Sleep(time.Hour)
		st.Down(false)
		time.Sleep(time.Second)
		if leading.Load() != 1 {
			t.Fatalf("%d lead after the store came back", leading.Load())
		}
		cancel()
		for range 2 {
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("Lead returned %v", err)
			}
		}
		if most.Load() != 1 {
			t.Errorf("%d led at once", most.Load())
		}
		synctest.Wait()
		if _, err := store.Leader(t.Context(), st, "x"); cluster.KindOf(err) != cluster.KindNotFound {
			t.Errorf("the lock stays: %v", err)
		}
	})
}

// How long a candidate waited says since when it has seen others lead: it is told
// nothing of the time in which nobody did, or the store was away.
func TestHowLongTheLeadWasWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := store.NewMemory()
		terms := make(chan time.Duration, 10) // who leads when another stops is not always asked
		lead := func(id string) (stop func()) {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				c := store.Candidate{Store: st, Name: "x", ID: id, Now: time.Now, Log: hclog.NewNullLogger()}
				_ = c.Lead(ctx, func(ctx context.Context, _ store.Store, since time.Time) error {
					terms <- time.Since(since)
					<-ctx.Done()
					return nil
				})
			}()
			return func() { cancel(); <-done }
		}
		waited := func(what string, least, most time.Duration) {
			t.Helper()
			if got := <-terms; got < least || got > most {
				t.Errorf("%s: waited for %v, should be %v to %v", what, got, least, most)
			}
		}
		time.Sleep(time.Hour)
		stopA := lead("a")
		waited("nobody led", 0, 0)
		stopB := lead("b")
		time.Sleep(time.Hour)
		stopA()
		waited("another led", time.Hour, time.Hour+time.Second)
		stopC := lead("c")
		time.Sleep(time.Minute)
		st.Down(true) // nobody leads after the lock's lease
		time.Sleep(time.Hour)
		st.Down(false)
		waited("the store was away", 0, time.Second)
		stopB()
		stopC()
	})
}

// A lock older than what the store still remembers can be waited for all the same.
func TestLeadWaitsForACompactedLock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := store.NewMemory()
		put(t, st, store.LockKey("x"), "old")
		put(t, st, "other", "1")
		now := put(t, st, "other", "2")
		if err := st.Compact(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		led := make(chan struct{})
		go func() {
			c := store.Candidate{Store: st, Name: "x", ID: "new", Now: time.Now, Log: hclog.NewNullLogger()}
			_ = c.Lead(t.Context(), func(context.Context, store.Store, time.Time) error { close(led); return nil })
		}()
		time.Sleep(time.Minute + 50*time.Millisecond) // not when a retry would come anyway
		select {
		case <-led:
			t.Fatal("took a lock that another holds")
		default:
		}
		if _, err := st.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: store.LockKey("x"), Delete: true}}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // at once, without time passing
		select {
		case <-led:
		default:
			t.Fatal("did not notice that the lock is free")
		}
	})
}
