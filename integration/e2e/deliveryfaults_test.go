package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/integration/follow"
	"github.com/fairlead/fairlead/integration/load"
	"github.com/fairlead/fairlead/integration/need"
)

// state is where a delivery stands.
func (n *node) state(delivery string) cluster.DeliveryState {
	n.t.Helper()
	return get[struct{ State cluster.DeliveryState }](n, "delivery", "get", delivery).State
}

// delivered says whether an app is as a commit says, and answers with a version.
func (n *node) delivered(app, phase, commit, version string) func() error {
	return func() error {
		st := n.state(app)
		if st.Phase != phase || st.Applied == nil || st.Applied.Origin.Revision != commit {
			return fmt.Errorf("it is %s at %+v, want %s at %s: %s", st.Phase, st.Applied, phase, commit, st.Message)
		}
		body, err := n.answer("http://" + app + ".example.com/")
		if err == nil && !strings.HasPrefix(body, version+" ") {
			err = fmt.Errorf("it answers %q", body)
		}
		return err
	}
}

// TestGitServerAway takes the Git server away under an app that follows it: that is said,
// the app serves on, what is changed by hand is undone, it is tried for ever, and what was
// pushed meanwhile comes by itself.
// Then the branch's history is replaced, and the old one thrown away.
func TestGitServerAway(t *testing.T) {
	n := start(t)
	image := n.image()
	f, news := follow.NewForge(t, n.dir), follow.NewInbox(t)
	n.secret("pub/git", f.Password)
	first := f.Publish(web(image, "pub", "1", 2, ""), "the first version")
	n.do("delivery", "create", "pub", f.URL, "--secret", "git", "--ca", f.CA, "--branch", "main", "--interval", "5s", "--notify", news.URL)
	n.eventually(time.Minute, "the first commit", n.delivered("pub", "ready", first, "1"))
	l := n.startLoad(load.EveryKind("http://pub.example.com/"))

	f.Close()
	n.do("deploy", "-d", "-f", n.write("compose.yaml", web(image, "pub", "by hand", 2, "")))
	n.eventually(2*time.Minute, "the change by hand is undone", func() error { return news.Has(`"event":"drift"`, "corrected: ") })
	serves := func(failures int) func() error { // the first version
		return func() error {
			st := n.state("pub") // failed once that lasts
			if is := map[bool]string{false: "ready", true: "failed"}[st.Failures >= 3]; st.Phase != is || st.Failures < failures || st.Applied.Origin.Revision != first {
				return fmt.Errorf("it is %s at %+v, after %d failures: %s", st.Phase, st.Applied, st.Failures, st.Message)
			}
			body, err := n.answer("http://pub.example.com/")
			if err == nil && !strings.HasPrefix(body, "1 ") {
				err = fmt.Errorf("it answers %q", body)
			}
			return err
		}
	}
	n.eventually(2*time.Minute, "what undoes it is complete", func() error {
		if st := n.state("pub"); st.Watch != nil || st.Accepted != st.Applied.Release {
			return fmt.Errorf("it waits for %+v, and was left at %d", st.Watch, st.Accepted)
		}
		return nil
	})
	for _, want := range []int{1, 2, 3} {
		n.eventually(2*time.Minute, fmt.Sprintf("it failed %d times", want), serves(want))
		for _, args := range [][]string{{"delivery", "get", "pub"}, {"delivery", "get"}, {"delivery", "describe", "pub"}} {
			if out := n.do(args...); !strings.Contains(out, f.URL) || !strings.Contains(out, "connection refused") {
				t.Errorf("%v does not say why:\n%s", args, out)
			}
		}
		if err := serves(want)(); err != nil {
			t.Error(err)
		}
	}
	n.eventually(time.Minute, "it was told", func() error { return news.Has(`"event":"failed"`, "connection refused") })
	second := f.Publish(web(image, "pub", "2", 2, ""), "pushed while it was away")
	if err := f.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.eventually(3*time.Minute, "what was pushed meanwhile", n.delivered("pub", "ready", second, "2"))
	if st := n.state("pub"); st.Failures != 0 || st.Message != "" {
		t.Errorf("once it is back it says %d failures, %q", st.Failures, st.Message)
	}

	f.InTree("checkout", "-q", "--orphan", "anew")
	if err := f.Write("compose.yaml", web(image, "pub", "3", 2, "")); err != nil {
		t.Fatal(err)
	}
	third, err := f.Commit(t.Context(), "another history")
	if err != nil {
		t.Fatal(err)
	}
	f.InTree("push", "-q", "--force", "origin", "HEAD:main")
	f.Has("gc", "-q", "--prune=now")
	if out := f.Has("rev-list", "--all", "--objects", "--no-object-names"); strings.Contains(out, second) {
		t.Fatal("the old history is still there")
	}
	n.eventually(2*time.Minute, "the replaced history", n.delivered("pub", "ready", third, "3"))
	l.WantNone(t, "while the Git server was away")
	if out := n.do("delivery", "history", "pub"); !strings.Contains(out, "forced") || !strings.Contains(out, second[:8]) {
		t.Errorf("its history does not say that another was replaced:\n%s", out)
	}
}

// TestGitServerThatHangs has more deliveries than are worked on at once follow a Git server
// that takes connections and says nothing: another one gets its commits as ever.
func TestGitServerThatHangs(t *testing.T) {
	n := start(t)
	image := n.image()
	f, hung := follow.NewForge(t, n.dir), follow.NewForge(t, t.TempDir())
	last := hung.Publish(web(image, "hung", "1", 1, ""), "the first version")
	quit := make(chan struct{})
	answers := sync.OnceFunc(func() {
		hung.Behind(nil)
		close(quit)
	})
	t.Cleanup(answers) // before it is closed, which waits for who hangs
	hung.Behind(func(http.ResponseWriter, *http.Request, http.Handler) {
		<-quit
		panic(http.ErrAbortHandler)
	})
	n.secret("pub/git", f.Password)
	first := f.Publish(web(image, "pub", "1", 1, ""), "the first version")
	create := func(name string, f *follow.Forge, more ...string) {
		t.Helper()
		n.secret(name+"/git", f.Password)
		n.do(append([]string{"delivery", "create", name, f.URL, "--secret", "git", "--ca", f.CA, "--branch", "main", "--interval", "5s", "--detach"}, more...)...)
	}
	others := []string{"a", "b", "c", "d", "e"}
	create("hung", hung)
	for _, o := range others {
		create(o, hung)
	}
	create("pub", f)
	n.eventually(2*time.Minute, "the first commit", n.delivered("pub", "ready", first, "1"))
	for _, version := range []string{"2", "3", "4"} {
		commit := f.Publish(web(image, "pub", version, 1, ""), "version "+version)
		n.eventually(time.Minute, "version "+version, n.delivered("pub", "ready", commit, version))
	}
	for _, o := range append(others, "hung") {
		n.eventually(3*time.Minute, o+" is given up, for now", func() error {
			if st := n.state(o); st.Phase != "failed" || !strings.Contains(st.Message, hung.URL+": it did not answer within 30s") {
				return fmt.Errorf("it is %s: %s", st.Phase, st.Message)
			}
			return nil
		})
	}
	for _, o := range others {
		n.do("delivery", "rm", o)
	}
	answers()
	n.eventually(4*time.Minute, "it is back by itself", n.delivered("hung", "ready", last, "1"))
}

// keep is for a Git server that gives half of its answer to what a path and a method end
// in, and no more until release is called.
func keep(method, suffix string) (behind func(http.ResponseWriter, *http.Request, http.Handler), kept <-chan struct{}, release func()) {
	has, end := make(chan struct{}), make(chan struct{})
	behind = func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		_, _, known := r.BasicAuth()
		if r.Method != method || !strings.HasSuffix(r.URL.Path, suffix) || !known {
			next.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		next.ServeHTTP(rec, r)
		maps.Copy(w.Header(), rec.Header())
		w.Header().Set("Content-Length", strconv.Itoa(rec.Body.Len()))
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes()[:rec.Body.Len()/2])
		_ = http.NewResponseController(w).Flush()
		close(has)
		<-end
		panic(http.ErrAbortHandler)
	}
	return behind, has, func() { close(end) }
}

// TestServerKilledInAnImageUpdate kills the server when half of a fetch is there, and when
// its commit was pushed and it does not know yet: the next one goes on, commits nothing
// twice, and leaves nothing of the fetch.
func TestServerKilledInAnImageUpdate(t *testing.T) {
	n, s := startWithShelf(t)
	f := follow.NewForge(t, n.dir)
	n.secret("pub/git", f.Password)
	s.Put("1.0.0", false)
	f.Publish(strings.Replace(web(s.Repository()+":1.0.0 # {\"fairlead\": \"web\"}", "pub", "none", 1, ""), "    environment: {VERSION: \"none\"}\n", "", 1), "the first version")
	n.do("delivery", "create", "pub", f.URL, "--secret", "git", "--ca", f.CA, "--branch", "main", "--interval", "5s", "--image", "web="+s.Repository()+" semver 1.x", "--image-write", "commit")
	head := func() string { return f.Has("rev-parse", "main") }
	n.eventually(time.Minute, "the first image", n.delivered("pub", "ready", head(), "1.0.0"))
	fetched := func() (left []string) {
		left, err := filepath.Glob(filepath.Join(n.data, "deliveries", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return left
	}
	for i, at := range []struct {
		what, method, suffix string
		pushed               bool
	}{
		{"half of the fetch is there", http.MethodPost, "/git-upload-pack", false},
		{"the commit is pushed", http.MethodPost, "/git-receive-pack", true},
	} {
		version, commits := fmt.Sprintf("1.%d.0", i+1), f.Has("rev-list", "--count", "main")
		behind, kept, release := keep(at.method, at.suffix)
		fetches := at.suffix == "/git-upload-pack"
		if fetches { // or a look in between has the image without the commit
			n.do("delivery", "suspend", "pub")
		}
		f.Behind(behind)
		s.Put(version, false)
		if fetches { // what is known is not fetched again
			f.Publish(f.Has("show", "main:compose.yaml")+"\n", "a commit to fetch")
			commits = f.Has("rev-list", "--count", "main")
			n.do("delivery", "resume", "pub")
		}
		select {
		case <-kept:
		case <-time.After(need.Patience * 2 * time.Minute):
			t.Fatalf("%s: it is not asked for", at.what)
		}
		n.stop(syscall.SIGKILL)
		release()
		f.Behind(nil)
		if left := fetched(); len(left) == 0 {
			t.Errorf("%s: nothing is half fetched", at.what)
		}
		if now := f.Has("rev-list", "--count", "main"); (now != commits) != at.pushed {
			t.Errorf("%s: there are %s commits after %s", at.what, now, commits)
		}
		n.eventually(time.Minute, "what fetched ends with the server", func() error {
			list, err := filepath.Glob("/proc/[0-9]*/exe")
			for _, exe := range list {
				if is, _ := os.Readlink(exe); is != n.program {
					continue
				}
				if args, _ := os.ReadFile(filepath.Join(filepath.Dir(exe), "cmdline")); strings.Contains(string(args), "\x00deliver\x00") {
					return fmt.Errorf("%s runs", filepath.Dir(exe))
				}
			}
			return err
		})
		n.up()
		n.eventually(2*time.Minute, "the next server goes on when "+at.what, func() error { return n.delivered("pub", "ready", head(), version)() })
		had, _ := strconv.Atoi(commits)
		if now := f.Has("rev-list", "--count", "main"); now != strconv.Itoa(had+1) {
			t.Errorf("%s: of %d commits there came\n%s", at.what, had, f.Has("log", "--oneline", "main"))
		}
		n.do("delivery", "suspend", "pub")
		n.eventually(time.Minute, "nothing of it is left", func() error {
			if left := fetched(); len(left) > 0 {
				return fmt.Errorf("left are %v", left)
			}
			return nil
		})
		n.do("delivery", "resume", "pub")
	}
	f.Has("fsck", "--strict")
}
