package work_test

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery/work"
)

// sent counts the bytes of answers.
func sent(n *atomic.Int64) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(counted{w, n}, r) })
	}
}

type counted struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// Whether history was replaced is told of a branch of any length, and nothing is told of one
// that has moved on, however far.
func TestReplacedHistoryOfAnyLength(t *testing.T) {
	f := newForge(t)
	f.write("compose.yaml", compose("web:1"))
	f.push("the first")
	old := f.history(1100, strings.Repeat("words that many commits have in common ", 10))
	url, ca := f.https("")
	s := small(t)
	sources := map[string]work.Task{"file": {Delivery: f.local()}, "https": {Delivery: f.local()}, "ssh": {Delivery: f.local(), Password: s.Login}}
	https := sources["https"]
	https.Delivery.Source.URL, https.Delivery.Source.CA = url, ca
	sources["https"] = https
	ssh := sources["ssh"]
	ssh.Delivery.Source = f.ssh(s, ssh.Delivery.Source)
	sources["ssh"] = ssh
	look := func(what string, forced bool) {
		t.Helper()
		now := f.git(f.tree, "rev-parse", "HEAD")
		for over, task := range sources {
			task.Seen = seen(task.Delivery, old)
			if r := f.must(task); r.Forced != forced || r.Origin.Revision != now {
				t.Errorf("%s over %s: forced %v at %s, not %v at %s", what, over, r.Forced, r.Origin.Revision, forced, now)
			}
		}
	}
	amend := func() {
		t.Helper()
		f.git(f.tree, "reset", "-q", "--hard", old)
		f.git(f.tree, "commit", "-q", "--amend", "--allow-empty", "-m", "amended")
		f.git(f.tree, "push", "-q", "--force", "origin", "HEAD")
	}
	f.history(120, "new")
	look("120 commits more", false)
	f.history(1000, "newer")
	look("1120 commits more", false)
	amend()
	look("the last one amended", true)
	f.history(150, "after it")
	look("150 commits after that", true)

	delete(sources, "ssh") // is answered as https is: by the same program
	f.git(f.tree, "reset", "-q", "--hard", old+"~3")
	f.push("beside", "--force")
	look("a step back and one beside", true)
	f.git(f.tree, "merge", "-q", "--no-ff", "-m", "merged", old)
	f.push("after the merge")
	look("merged", false)
	f.git(f.tree, "reset", "-q", "--hard", old+"~50")
	f.git(f.tree, "push", "-q", "--force", "origin", "HEAD")
	look("back", true)
	f.git(f.tree, "checkout", "-q", "--orphan", "other")
	f.git(f.tree, "commit", "-q", "--allow-empty", "-m", "begun anew")
	f.git(f.tree, "push", "-q", "--force", "origin", "HEAD:main")
	look("begun anew", true)
	f.git(f.tree, "checkout", "-q", "main")

	// Hosts that leave files out, and such that have forgotten what was seen.
	f.git(f.dir, "config", "uploadpack.allowFilter", "true")
	amend()
	look("amended, without files", true)
	f.git(f.dir, "gc", "-q", "--prune=now")
	look("amended, and forgotten", true)
	f.git(f.tree, "reset", "-q", "--hard", old)
	f.history(120, "new")
	look("120 commits more, without files", false)
}

// A large file that changes with each commit is fetched as it is now: what it was before is
// no reason for a look to fail.
func TestLargeFilesOfOldCommits(t *testing.T) {
	f := newForge(t)
	f.write("compose.yaml", compose("web:1"))
	old := f.push("the first")
	large := make([]byte, 1<<20)
	for i := range 40 {
		_, _ = rand.Read(large)
		f.write("large", string(large))
		f.git(f.tree, "add", "-A")
		f.git(f.tree, "commit", "-q", "-m", fmt.Sprint(i))
	}
	last := f.push("the last")
	var n atomic.Int64
	d := f.local()
	d.Source.URL, d.Source.CA = f.https("", sent(&n))
	r := f.must(work.Task{Delivery: d, Seen: seen(d, old)})
	if r.Origin.Revision != last || r.Forced || r.Bundle == nil {
		t.Errorf("it is at %s, forced %v", r.Origin.Revision, r.Forced)
	}
	if n.Load() > 24<<20 {
		t.Errorf("%d MiB came", n.Load()>>20)
	}

	// One commit more, and hosts that leave files out: nothing but that commit comes.
	n.Store(0)
	f.must(work.Task{Delivery: d, Seen: seen(d, f.git(f.tree, "rev-parse", "HEAD^"))})
	f.git(f.dir, "config", "uploadpack.allowFilter", "true")
	if r := f.must(work.Task{Delivery: d, Seen: seen(d, old)}); r.Forced {
		t.Error("forced")
	}
	f.git(f.tree, "commit", "-q", "--amend", "--allow-empty", "-m", "amended")
	f.git(f.tree, "push", "-q", "--force", "origin", "HEAD")
	if r := f.must(work.Task{Delivery: d, Seen: seen(d, last)}); !r.Forced {
		t.Error("it was replaced")
	}
	if n.Load() > 5<<20 {
		t.Errorf("%d MiB came of three looks", n.Load()>>20)
	}
}

// A host that does not say whether history was replaced delays a look, and does not fail it.
func TestHistoryIsNotWaitedFor(t *testing.T) {
	f := newForge(t)
	f.write("compose.yaml", compose("web:1"))
	old := f.push("the first")
	last := f.history(3, "more")
	end := make(chan struct{})
	var code atomic.Int64
	url, ca := f.https("", asks(func(body string) int {
		if !strings.Contains(body, "have "+old) {
			return 0
		}
		if code.Load() == 0 {
			<-end
		}
		return int(code.Load())
	}))
	t.Cleanup(func() { close(end) })
	d := f.local()
	d.Source.URL, d.Source.CA, d.Timeout = url, ca, cluster.Duration(12*time.Second)
	for _, c := range []int64{0, http.StatusBadRequest} { // no answer, and none that helps
		code.Store(c)
		r := f.must(work.Task{Delivery: d, Seen: seen(d, old)})
		if r.Origin.Revision != last || r.Forced || r.Bundle == nil {
			t.Errorf("%d: it is at %s, forced %v", c, r.Origin.Revision, r.Forced)
		}
	}
}
