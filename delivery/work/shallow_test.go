package work_test

import (
	"crypto/rand"
	"sync/atomic"
	"testing"

	"github.com/fairlead/fairlead/delivery/work"
)

// Of a long history only the newest commit is fetched, and nothing of what was seen already
// then: a large file that is there no more costs nothing.
func TestHistoryIsNotFetched(t *testing.T) {
	f := newForge(t)
	large := make([]byte, 4<<20)
	_, _ = rand.Read(large)
	f.write("large", string(large))
	f.push("a large file")
	f.git(f.tree, "rm", "-q", "large")
	f.write("compose.yaml", compose("web:1"))
	first := f.push("without it")
	var got atomic.Int64
	d := f.local()
	d.Source.URL, d.Source.CA = f.https("", sent(&got))
	if r := f.must(work.Task{Delivery: d}); r.Origin.Revision != first {
		t.Errorf("it is at %s", r.Origin.Revision)
	}
	if n := got.Load(); n == 0 || n > 1<<20 {
		t.Errorf("%d bytes came of a commit without the file", n)
	}

	// Whether history was replaced is looked for in what came since.
	f.history(120, "old")
	f.write("compose.yaml", compose("web:2"))
	last := f.push("something new")
	for _, old := range []string{f.git(f.tree, "rev-parse", "HEAD~10"), first} {
		got.Store(0)
		if r := f.must(work.Task{Delivery: d, Seen: seen(d, old)}); r.Origin.Revision != last || r.Forced {
			t.Errorf("it is at %s, replaced: %t", r.Origin.Revision, r.Forced)
		}
		if n := got.Load(); n == 0 || n > 1<<20 {
			t.Errorf("%d bytes came of the newer commits", n)
		}
	}
}
