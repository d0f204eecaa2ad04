//nolint:thelper // these are tests, not helpers: a failure is at the line that says so
package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// Subject is a store with what the suite disturbs it with.
type Subject interface {
	store.Store
	Compact(ctx context.Context, rev int64) error
	Revoke(ctx context.Context, id store.LeaseID) error
	LeaseOf(ctx context.Context, key string) (store.LeaseID, error)
}

// wait bounds what must happen soon.
const wait = 15 * time.Second

// Run runs the suite. open may return the same store, or several clients of it,
// each time: every test has keys of its own. It must need no more than a closed
// context to be cleaned up.
func Run(t *testing.T, open func(t *testing.T) Subject) {
	t.Helper()
	kept := leaseKept(t, env{Subject: open(t), prefix: "test/leaseiskept/"})
	for _, test := range []struct {
		name string
		run  func(*testing.T, env)
	}{
		{"PutAndGet", putAndGet},
		{"CompareAndSwap", compareAndSwap},
		{"FailedComparisonWritesNothing", failedComparison},
		{"OneRevisionPerTransaction", oneRevision},
		{"NoChangeNoRevision", noChange},
		{"ListPrefix", listPrefix},
		{"ListPages", listPages},
		{"Refusals", refusals},
		{"LargestTransaction", largest},
		{"ValuesAreCopies", copies},
		{"EndedContext", endedContext},
		{"ConcurrentCounter", counter},
		{"WatchHistoryThenLive", watchHistory},
		{"WatchEndsWithContext", watchEnds},
		{"WatchFollowsConcurrentWriters", watchFollows},
		{"WatchSlowReader", watchSlow},
		{"WatchLongHistory", watchLong},
		{"WatchCompacted", watchCompacted},
		{"LeaseEndsWithContext", leaseEnds},
		{"LeaseRevoked", leaseRevoked},
		{"LeaseDetached", leaseDetached},
		{"MirrorFollows", mirrorFollows},
		{"LeadIsExclusive", leadExclusive},
		{"LeadHandOver", leadHandOver},
		{"LeadLost", leadLost},
		{"LeadTakenAway", leadTakenAway},
		{"LeadUniqueTakesOver", leadUnique},
		{"LeadReturnsResult", leadResult},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.run(t, env{Subject: open(t), prefix: "test/" + strings.ToLower(test.name) + "/"})
		})
	}
	t.Run("LeaseIsKept", kept)
}

// env is one test's store and its own part of the keys.
type env struct {
	Subject
	prefix string
}

func (e env) key(name string) string { return e.prefix + name }

func (e env) put(t *testing.T, name, value string) int64 {
	t.Helper()
	return e.commit(t, store.Txn{Then: []store.Op{{Key: e.key(name), Value: []byte(value)}}})
}

func (e env) remove(t *testing.T, name string) {
	t.Helper()
	e.commit(t, store.Txn{Then: []store.Op{{Key: e.key(name), Delete: true}}})
}

func (e env) commit(t *testing.T, txn store.Txn) int64 {
	t.Helper()
	rev, err := e.Commit(t.Context(), txn)
	if err != nil {
		t.Fatalf("commit: %v", err)
	}
	return rev
}

func (e env) get(t *testing.T, name string) store.Entry {
	t.Helper()
	entry, err := e.Get(t.Context(), e.key(name))
	if err != nil {
		t.Fatalf("get %s: %v", name, err)
	}
	return entry
}

func (e env) list(t *testing.T) ([]store.Entry, int64) {
	t.Helper()
	entries, rev, err := e.List(t.Context(), e.prefix)
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	return entries, rev
}

func wantKind(t *testing.T, err error, k cluster.Kind) {
	t.Helper()
	if err == nil || cluster.KindOf(err) != k {
		t.Fatalf("error %v of kind %s, want kind %s", err, cluster.KindOf(err), k)
	}
}

func putAndGet(t *testing.T, e env) {
	_, err := e.Get(t.Context(), e.key("a"))
	wantKind(t, err, cluster.KindNotFound)
	r1 := e.put(t, "a", "one")
	want := store.Entry{Key: e.key("a"), Value: []byte("one"), Rev: r1, Created: r1}
	if d := cmp.Diff(want, e.get(t, "a")); d != "" {
		t.Fatal(d)
	}
	r2 := e.put(t, "a", "two")
	want = store.Entry{Key: e.key("a"), Value: []byte("two"), Rev: r2, Created: r1}
	if d := cmp.Diff(want, e.get(t, "a")); d != "" || r2 <= r1 {
		t.Fatalf("revision %d after %d: %s", r2, r1, d)
	}
	e.put(t, "empty", "")
	if v := e.get(t, "empty").Value; len(v) != 0 {
		t.Fatalf("an empty value came back as %q", v)
	}
	e.remove(t, "a")
	_, err = e.Get(t.Context(), e.key("a"))
	wantKind(t, err, cluster.KindNotFound)
	r3 := e.put(t, "a", "again")
	if got := e.get(t, "a"); got.Created != r3 || got.Rev != r3 {
		t.Fatalf("made again at %d, but says %+v", r3, got)
	}
}

func compareAndSwap(t *testing.T, e env) {
	swap := func(rev int64, v string) (int64, error) {
		return e.Commit(t.Context(), store.Txn{
			If:   []store.Cond{{Key: e.key("a"), Rev: rev}},
			Then: []store.Op{{Key: e.key("a"), Value: []byte(v)}},
		})
	}
	r1, err := swap(0, "one")
	if err != nil {
		t.Fatal(err)
	}
	_, err = swap(0, "other")
	wantKind(t, err, cluster.KindConflict)
	r2, err := swap(r1, "two")
	if err != nil {
		t.Fatal(err)
	}
	_, err = swap(r1, "other")
	wantKind(t, err, cluster.KindConflict)
	if got := e.get(t, "a"); string(got.Value) != "two" || got.Rev != r2 {
		t.Fatalf("%+v after a lost race, want two at %d", got, r2)
	}
	del := store.Txn{If: []store.Cond{{Key: e.key("a"), Rev: r2}}, Then: []store.Op{{Key: e.key("a"), Delete: true}}}
	e.commit(t, del)
	_, err = e.Commit(t.Context(), del)
	wantKind(t, err, cluster.KindConflict)
	if _, err = swap(0, "new"); err != nil {
		t.Fatalf("a deleted key is not absent: %v", err)
	}
	// A transaction of comparisons alone checks without writing.
	r3 := e.get(t, "a").Rev
	e.commit(t, store.Txn{If: []store.Cond{{Key: e.key("a"), Rev: r3}}})
	_, err = e.Commit(t.Context(), store.Txn{If: []store.Cond{{Key: e.key("a"), Rev: r2}}})
	wantKind(t, err, cluster.KindConflict)
}

func failedComparison(t *testing.T, e env) {
	r := e.put(t, "a", "one")
	e.put(t, "b", "one")
	before, _ := e.list(t)
	_, err := e.Commit(t.Context(), store.Txn{
		If: []store.Cond{{Key: e.key("a"), Rev: r}, {Key: e.key("b"), Rev: r}, {Key: e.key("c"), Rev: 0}},
		Then: []store.Op{
			{Key: e.key("a"), Value: []byte("two")},
			{Key: e.key("b"), Delete: true},
			{Key: e.key("c"), Value: []byte("two")},
		},
	})
	wantKind(t, err, cluster.KindConflict)
	after, _ := e.list(t)
	if d := cmp.Diff(before, after); d != "" {
		t.Fatalf("a failed transaction changed something: %s", d)
	}
}

func oneRevision(t *testing.T, e env) {
	r0 := e.put(t, "b", "old")
	rev := e.commit(t, store.Txn{Then: []store.Op{
		{Key: e.key("c"), Value: []byte("3")},
		{Key: e.key("b"), Delete: true},
		{Key: e.key("a"), Value: []byte("1")},
	}})
	want := []store.Event{
		{Entry: store.Entry{Key: e.key("c"), Value: []byte("3"), Rev: rev, Created: rev}},
		{Entry: store.Entry{Key: e.key("b"), Rev: rev}, Deleted: true},
		{Entry: store.Entry{Key: e.key("a"), Value: []byte("1"), Rev: rev, Created: rev}},
	}
	// Events of one revision come together, in the order of the operations.
	for b := range e.Watch(t.Context(), e.prefix, r0) {
		if b.Err != nil {
			t.Fatal(b.Err)
		}
		if len(b.Events) == 0 {
			continue
		}
		if d := cmp.Diff(want, b.Events); d != "" || b.Rev != rev {
			t.Fatalf("batch at %d, want %d: %s", b.Rev, rev, d)
		}
		return
	}
	t.Fatal("the watch ended")
}

func noChange(t *testing.T, e env) {
	r := e.put(t, "a", "1")
	got := e.commit(t, store.Txn{Then: []store.Op{{Key: e.key("missing"), Delete: true}}})
	if got != r {
		t.Fatalf("deleting what is not there made revision %d after %d", got, r)
	}
	if next := e.put(t, "a", "1"); next != r+1 {
		t.Fatalf("writing the same value made revision %d after %d, want one more", next, r)
	}
}

func listPrefix(t *testing.T, e env) {
	var last int64
	for _, k := range []string{"b/2", "a", "b/10", "b", "b/1", "c/1", "b0", "B/1"} {
		last = e.put(t, k, k)
	}
	entries, rev, err := e.List(t.Context(), e.key("b/"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, x := range entries {
		got = append(got, strings.TrimPrefix(x.Key, e.prefix))
		if strings.TrimPrefix(x.Key, e.prefix) != string(x.Value) || x.Rev == 0 || x.Created != x.Rev {
			t.Errorf("wrong entry %+v", x)
		}
	}
	if d := cmp.Diff([]string{"b/1", "b/10", "b/2"}, got); d != "" || rev < last {
		t.Fatalf("list at %d, after %d: %s", rev, last, d)
	}
	none, rev, err := e.List(t.Context(), e.key("nothing/"))
	if err != nil || len(none) != 0 || rev < last {
		t.Fatalf("empty list: %v at %d, %v", none, rev, err)
	}
	all, _, err := e.List(t.Context(), "")
	if err != nil || len(all) < 8 {
		t.Fatalf("the list of everything has %d entries, %v", len(all), err)
	}
}

func listPages(t *testing.T, e env) {
	const n = 4100 // more than two pages of Etcd
	want := make([]string, n)
	for i := range n {
		want[i] = e.key(fmt.Sprintf("%05d", i))
	}
	for i := 0; i < n; i += store.MaxOps {
		var ops []store.Op
		for _, k := range want[i:min(i+store.MaxOps, n)] {
			ops = append(ops, store.Op{Key: k, Value: []byte(k)})
		}
		e.commit(t, store.Txn{Then: ops})
	}
	entries, _ := e.list(t)
	got := make([]string, len(entries))
	for i, x := range entries {
		got[i] = x.Key
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatal(d)
	}
	// All pages are of one revision, whatever is written meanwhile.
	e.commit(t, store.Txn{Then: []store.Op{{Key: want[0]}, {Key: want[n-1]}}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		var err error
		for i := 0; err == nil; i++ {
			v := fmt.Append(nil, i)
			_, err = e.Commit(ctx, store.Txn{Then: []store.Op{{Key: want[0], Value: v}, {Key: want[n-1], Value: v}}})
		}
		done <- err
	}()
	for range 6 {
		entries, rev := e.list(t)
		first, last := entries[0], entries[n-1]
		if first.Rev != last.Rev || first.Rev > rev {
			t.Errorf("list at %d has the first key at %d and the last at %d", rev, first.Rev, last.Rev)
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func refusals(t *testing.T, e env) {
	many := make([]store.Op, store.MaxOps+1)
	for i := range many {
		many[i] = store.Op{Key: e.key(fmt.Sprint(i))}
	}
	conds := make([]store.Cond, store.MaxOps+2)
	for i := range conds {
		conds[i] = store.Cond{Key: e.key(fmt.Sprint(i))}
	}
	for name, txn := range map[string]store.Txn{
		"written twice": {Then: []store.Op{{Key: e.key("a")}, {Key: e.key("a"), Delete: true}}},
		"no key":        {Then: []store.Op{{Value: []byte("x")}}},
		"too many":      {Then: many},
		"too many ifs":  {If: conds},
		"negative":      {If: []store.Cond{{Key: e.key("a"), Rev: -1}}},
		"too large":     {Then: []store.Op{{Key: e.key("a"), Value: make([]byte, store.MaxBytes)}}},
	} {
		if _, err := e.Commit(t.Context(), txn); cluster.KindOf(err) != cluster.KindInvalid {
			t.Errorf("%s: error %v, want one of kind invalid", name, err)
		}
	}
	_, err := e.Get(t.Context(), "")
	wantKind(t, err, cluster.KindInvalid)
	_, _, err = e.Lease(t.Context(), 0)
	wantKind(t, err, cluster.KindInvalid)
	_, err = e.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: e.key("a"), Lease: 12345}}})
	wantKind(t, err, cluster.KindNotFound)
	if entries, _ := e.list(t); len(entries) != 0 {
		t.Fatalf("a refused transaction wrote %v", entries)
	}
}

// largest commits a transaction at every bound at once: a real etcd must take it.
func largest(t *testing.T, e env) {
	txn := store.Txn{}
	size := 0
	for i := range store.MaxOps {
		k := e.key(fmt.Sprintf("key-of-some-length-%03d", i))
		txn.If = append(txn.If, store.Cond{Key: k})
		txn.Then = append(txn.Then, store.Op{Key: k})
		size += 2 * len(k)
	}
	fence := store.Cond{Key: e.key("fence"), Rev: e.put(t, "fence", "")}
	size += len(fence.Key)
	for i := range txn.Then {
		txn.Then[i].Value = make([]byte, (store.MaxBytes-size)/store.MaxOps)
	}
	if _, err := store.Fenced(e, fence).Commit(t.Context(), txn); err != nil {
		t.Fatal(err)
	}
	if entries, _ := e.list(t); len(entries) != store.MaxOps+1 {
		t.Fatalf("%d entries", len(entries))
	}
}

func copies(t *testing.T, e env) {
	v := []byte("value")
	rev := e.commit(t, store.Txn{Then: []store.Op{{Key: e.key("a"), Value: v}}})
	copy(v, "XXXXX")
	copy(e.get(t, "a").Value, "YYYYY")
	entries, _ := e.list(t)
	copy(entries[0].Value, "ZZZZZ")
	for b := range e.Watch(t.Context(), e.prefix, rev-1) {
		if len(b.Events) == 0 {
			continue
		}
		if got := string(b.Events[0].Value); got != "value" {
			t.Fatalf("history says %q", got)
		}
		break
	}
	if got := string(e.get(t, "a").Value); got != "value" {
		t.Fatalf("someone else's bytes are in the store: %q", got)
	}
}

func endedContext(t *testing.T, e env) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	check := func(what string, err error) {
		t.Helper()
		if cluster.KindOf(err) != cluster.KindTransient || !errors.Is(err, context.Canceled) {
			t.Errorf("%s: error %v, want a transient one that wraps context.Canceled", what, err)
		}
	}
	_, err := e.Get(ctx, e.key("a"))
	check("get", err)
	_, _, err = e.List(ctx, e.prefix)
	check("list", err)
	_, err = e.Commit(ctx, store.Txn{Then: []store.Op{{Key: e.key("a")}}})
	check("commit", err)
	_, _, err = e.Lease(ctx, 5)
	check("lease", err)
}

func counter(t *testing.T, e env) {
	const workers, each = 8, 15
	errs := make(chan error, workers)
	for range workers {
		go func() { errs <- count(t.Context(), e, e.key("n"), each) }()
	}
	for range workers {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	if got := string(e.get(t, "n").Value); got != fmt.Sprint(workers*each) {
		t.Fatalf("counted to %s, want %d: an update was lost", got, workers*each)
	}
}

// count adds one to a key, n times, deciding again after each lost race.
func count(ctx context.Context, st store.Store, key string, n int) error {
	for n > 0 {
		e, err := st.Get(ctx, key)
		if err != nil && cluster.KindOf(err) != cluster.KindNotFound {
			return err
		}
		v := 0
		if len(e.Value) > 0 {
			if _, err := fmt.Sscan(string(e.Value), &v); err != nil {
				return err
			}
		}
		_, err = st.Commit(ctx, store.Txn{
			If:   []store.Cond{{Key: key, Rev: e.Rev}},
			Then: []store.Op{{Key: key, Value: fmt.Append(nil, v+1)}},
		})
		switch {
		case err == nil:
			n--
		case cluster.KindOf(err) != cluster.KindConflict:
			return err
		}
	}
	return nil
}
