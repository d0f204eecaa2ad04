//nolint:thelper // these are tests, not helpers: a failure is at the line that says so
package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/store"
)

// replica follows a watch and keeps what it says is in the store.
type replica struct {
	keys map[string]store.Entry
	rev  int64
}

// follow applies batches until the replica has seen revision until.
func (r *replica) follow(t *testing.T, ch <-chan store.Batch, until int64) {
	t.Helper()
	deadline := time.NewTimer(wait)
	defer deadline.Stop()
	for r.rev < until {
		select {
		case <-deadline.C:
			t.Fatalf("the watch stands at %d, want %d", r.rev, until)
		case b, ok := <-ch:
			if !ok || b.Err != nil {
				t.Fatalf("the watch ended at %d: %v", r.rev, b.Err)
			}
			r.apply(t, b)
		}
	}
}

func (r *replica) apply(t *testing.T, b store.Batch) {
	t.Helper()
	if b.Rev < r.rev || len(b.Events) > 0 && b.Rev == r.rev {
		t.Fatalf("batch at %d after %d", b.Rev, r.rev)
	}
	last := r.rev
	for _, ev := range b.Events {
		if ev.Rev <= r.rev || ev.Rev < last || ev.Rev > b.Rev {
			t.Fatalf("event at %d in the batch at %d, after %d", ev.Rev, b.Rev, last)
		}
		last = ev.Rev
		if ev.Deleted {
			if len(ev.Value) > 0 || ev.Created != 0 {
				t.Fatalf("a deletion carries more than key and revision: %+v", ev)
			}
			delete(r.keys, ev.Key)
			continue
		}
		r.keys[ev.Key] = ev.Entry
	}
	r.rev = b.Rev
}

func (r *replica) compare(t *testing.T, entries []store.Entry) {
	t.Helper()
	want := map[string]store.Entry{}
	for _, e := range entries {
		want[e.Key] = e
	}
	if d := cmp.Diff(want, r.keys, cmpopts.EquateEmpty()); d != "" {
		t.Fatalf("the watch and the list differ (-list +watch): %s", d)
	}
}

func watchHistory(t *testing.T, e env) {
	start := e.put(t, "a", "before")
	e.put(t, "b", "1")
	e.put(t, "a", "2")
	e.remove(t, "b")
	e.put(t, "c", "3")
	r := replica{keys: map[string]store.Entry{}, rev: start - 1}
	ch := e.Watch(t.Context(), e.prefix, start-1)
	_, at := e.list(t)
	r.follow(t, ch, at)
	live := e.put(t, "live", "4")
	r.follow(t, ch, live)
	entries, _ := e.list(t)
	r.compare(t, entries)

	// From the present: nothing old. Others' keys: nothing.
	ch = e.Watch(t.Context(), e.key("x/"), live)
	e.put(t, "y", "not watched")
	next := e.put(t, "x/1", "watched")
	r = replica{keys: map[string]store.Entry{}, rev: live}
	r.follow(t, ch, next)
	if len(r.keys) != 1 || r.keys[e.key("x/1")].Rev != next {
		t.Fatalf("watch of x/ from %d saw %v", live, r.keys)
	}
}

func watchEnds(t *testing.T, e env) {
	ctx, cancel := context.WithCancel(t.Context())
	idle := e.Watch(ctx, e.prefix, e.put(t, "a", "1"))
	unread := e.Watch(ctx, e.prefix, 0)
	cancel()
	deadline := time.NewTimer(wait)
	defer deadline.Stop()
	for _, ch := range []<-chan store.Batch{idle, unread} {
		for open := true; open; {
			select {
			case _, open = <-ch:
			case <-deadline.C:
				t.Fatal("the watch's channel is not closed")
			}
		}
	}
}

func watchFollows(t *testing.T, e env) {
	entries, start := e.list(t)
	ch := e.Watch(t.Context(), e.prefix, start)
	const writers, each = 4, 40
	errs := make(chan error, writers)
	for w := range writers {
		go func() {
			var err error
			for i := range each {
				k := e.key(fmt.Sprint((w + i*7) % 13))
				ops := []store.Op{{Key: k, Value: fmt.Appendf(nil, "%d/%d", w, i), Delete: i%3 == 2}}
				if i%5 == 0 {
					ops = append(ops, store.Op{Key: e.key("all"), Value: fmt.Append(nil, i)})
				}
				_, cerr := e.Commit(t.Context(), store.Txn{Then: ops})
				err = errors.Join(err, cerr)
			}
			errs <- err
		}()
	}
	for range writers {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	last := e.put(t, "last", "")
	r := replica{keys: map[string]store.Entry{}, rev: start}
	for _, x := range entries {
		r.keys[x.Key] = x
	}
	r.follow(t, ch, last)
	entries, _ = e.list(t)
	r.compare(t, entries)
}

// watchSlow reads nothing until much has been written: all of it must still come.
func watchSlow(t *testing.T, e env) {
	start := e.put(t, "k", "start")
	ch := e.Watch(t.Context(), e.prefix, start)
	var last int64
	for i := range 300 {
		last = e.put(t, "k", fmt.Sprint(i))
	}
	next := 0
	r := replica{keys: map[string]store.Entry{}, rev: start}
	for r.rev < last {
		b := <-ch
		for _, ev := range b.Events {
			if got := string(ev.Value); got != fmt.Sprint(next) {
				t.Fatalf("event %s, want %d", got, next)
			}
			next++
		}
		r.apply(t, b)
	}
}

// watchLong starts so far back that etcd sends history in several answers, while
// more is written: each batch must say how far it goes, not how far the store is.
func watchLong(t *testing.T, e env) {
	start := e.put(t, "k", "start")
	var wg sync.WaitGroup
	for w := range 50 {
		wg.Go(func() {
			for i := range 50 {
				if _, err := e.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: e.key(fmt.Sprint("k", w)), Value: []byte(fmt.Sprint(i))}}}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	ch := e.Watch(t.Context(), e.prefix, start-1)
	var last int64
	for i := range 50 {
		last = e.put(t, "live", fmt.Sprint(i))
	}
	r := replica{keys: map[string]store.Entry{}, rev: start - 1}
	r.follow(t, ch, last)
	entries, _ := e.list(t)
	r.compare(t, entries)
}

func watchCompacted(t *testing.T, e env) {
	first := e.put(t, "a", "1")
	e.put(t, "a", "2")
	at := e.put(t, "a", "3")
	last := e.put(t, "a", "4")
	if err := e.Compact(t.Context(), at); err != nil {
		t.Fatal(err)
	}
	var got error
	for b := range e.Watch(t.Context(), e.prefix, first) {
		if b.Err == nil {
			t.Fatalf("batch at %d from a compacted revision", b.Rev)
		}
		if got != nil {
			t.Fatal("a batch after the one with an error")
		}
		got = b.Err
	}
	if !errors.Is(got, store.ErrCompacted) {
		t.Fatalf("error %v, want ErrCompacted", got)
	}
	// The compacted revision itself is still there.
	r := replica{keys: map[string]store.Entry{}, rev: at - 1}
	r.follow(t, e.Watch(t.Context(), e.prefix, at-1), last)
	entries, _ := e.list(t)
	r.compare(t, entries)
	if err := e.Compact(t.Context(), at); err == nil {
		t.Fatal("compacted twice at one revision")
	}
	if err := e.Compact(t.Context(), last+1000); err == nil {
		t.Fatal("compacted the future")
	}
}

func mirrorFollows(t *testing.T, e env) {
	e.put(t, "a", `"one"`)
	m := store.NewMirror(e, e.prefix, hclog.NewNullLogger())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	<-m.Ready()
	e.put(t, "b", `"two"`)
	e.remove(t, "a")
	last := e.put(t, "c", `"three"`)
	for {
		changed := m.Changed()
		if m.Rev() >= last {
			break
		}
		select {
		case <-changed:
		case <-time.After(wait):
			t.Fatalf("mirror stands at %d, want %d", m.Rev(), last)
		}
	}
	m.Read(func(v store.View) {
		if d := cmp.Diff([]string{e.key("b"), e.key("c")}, v.Keys(e.prefix)); d != "" {
			t.Error(d)
		}
		c, ok, err := store.One[string](v, e.key("c"))
		if !ok || err != nil || c.V != "three" || c.Rev != last {
			t.Errorf("c is %+v, %v, %v", c, ok, err)
		}
	})
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatalf("Run returned %v", err)
	}
}
