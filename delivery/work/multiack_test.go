package work_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery/work"
)

// history puts so many commits that change nothing on main, and pushes them.
func (f *forge) history(n int, message string) (last string) {
	f.t.Helper()
	var commits strings.Builder
	for i := range n {
		says := fmt.Sprintf("%s %d", message, i)
		fmt.Fprintf(&commits, "commit refs/heads/main\ncommitter Ann <ann@example.com> %d +0000\ndata %d\n%s\n", 1_700_000_000+i, len(says), says)
		if i == 0 {
			commits.WriteString("from refs/heads/main^0\n")
		}
	}
	load := exec.CommandContext(f.t.Context(), "git", "fast-import", "--quiet")
	load.Dir, load.Stdin = f.tree, strings.NewReader(commits.String())
	if out, err := load.CombinedOutput(); err != nil {
		f.t.Fatalf("%v: %s", err, out)
	}
	f.git(f.tree, "push", "-q", "--force", "origin", "HEAD")
	return f.git(f.tree, "rev-parse", "HEAD")
}

// asks is a front that sees what is asked of Git's server, and may refuse it.
func asks(see func(body string) (code int)) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			if strings.HasSuffix(r.URL.Path, "/git-upload-pack") {
				if code := see(string(body)); code != 0 {
					w.WriteHeader(code)
					return
				}
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			next.ServeHTTP(w, r)
		})
	}
}

// Azure DevOps and AWS CodeCommit give nothing to who does not name multi_ack, and what they
// answer who has something already is not understood.
func TestHostsThatWantMultiACK(t *testing.T) {
	f, s := newForge(t), newShelf(t)
	s.push("shop/web", "1.0.0")
	f.git(f.dir, "config", "http.receivepack", "true")
	service := "services:\n  web:\n    image: " + s.host + "/shop/web:0.9 # {\"fairlead\": \"web\"}\n"
	f.write("compose.yaml", service)
	first := f.push("the first")
	f.write("other", "x")
	f.push("the second")
	f.git(f.tree, "checkout", "-q", "-b", "bot")
	f.write("more", "by hand")
	f.push("by hand")
	f.git(f.tree, "checkout", "-q", "main")
	last := f.git(f.tree, "rev-parse", "HEAD")
	var fetches atomic.Int64
	src := cluster.SourceSpec{Kind: cluster.SourceGit, Secret: "git"}
	src.URL, src.CA = f.https("geheim", asks(func(body string) int {
		if !strings.Contains(body, "multi_ack") || strings.Contains(body, "have ") {
			return http.StatusBadRequest
		}
		fetches.Add(1)
		return 0
	}))
	d := f.following(s.policy("web=shop/web semver 1.x"))
	d.Source = src
	task := work.Task{Delivery: d, Password: []byte("geheim")}
	if r := f.must(task); r.Origin.Revision != last {
		t.Errorf("it is at %s", r.Origin.Revision)
	}
	task.Seen = seen(d, f.history(2, "more"))
	last = f.history(2, "more")
	if r := f.must(task); r.Origin.Revision != last || r.Forced {
		t.Errorf("it is at %s, forced %v", r.Origin.Revision, r.Forced)
	}
	task.Seen, task.Delivery.Source.Commit = nil, first // below the branches, which all come then
	if r := f.must(task); r.Origin.Revision != first {
		t.Errorf("it is at %s", r.Origin.Revision)
	}

	// A second fetch, of the branch that is written to.
	task.Delivery.Source.Commit = ""
	task.Scan, task.Commit, task.Delivery.ImageWrite = true, true, cluster.ImageWrite{To: cluster.WriteCommit, Branch: "bot"}
	fetches.Store(0)
	if r := f.must(task); r.Pushed == "" || r.Pushed != f.git(f.dir, "rev-parse", "bot") || r.Images[0].Unwritten != "" {
		t.Errorf("%+v", r)
	}
	if got := f.git(f.dir, "log", "-3", "--format=%s", "bot"); got != "shop: web 1.0.0\nby hand\nthe second" || fetches.Load() != 2 {
		t.Errorf("after %d fetches the branch is\n%s", fetches.Load(), got)
	}
	f.git(f.dir, "fsck", "--strict")

	// And of the same one, as somebody was faster.
	task.Delivery.ImageWrite.Branch = ""
	f.faster("theirs")
	if r := f.must(task); r.Pushed == "" || f.git(f.dir, "log", "-2", "--format=%s", "main") != "shop: web 1.0.0\ntheirs" {
		t.Errorf("%+v: %s", r, f.git(f.dir, "log", "-3", "--format=%h %s", "main"))
	}
	f.git(f.dir, "fsck", "--strict")
}
