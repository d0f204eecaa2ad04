package work_test

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery/work"
	"github.com/fairlead/fairlead/integration/gitd"
	"github.com/fairlead/fairlead/integration/need"
)

// program is Fairlead's own, built once: the race detector's memory would not fit into
// the limits of a worker.
var program = sync.OnceValues(func() (string, error) {
	path := filepath.Join(programDir, "fairlead")
	return path, need.Program(path, "../../cmd/fairlead")
})

var programDir string

func TestMain(m *testing.M) {
	if os.Getenv(asServer) != "" {
		if err := serveErrand(os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	var err error
	if programDir, err = os.MkdirTemp("", "fairlead-work-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	rc := m.Run()
	_ = os.RemoveAll(programDir)
	os.Exit(rc)
}

// forge is a Git repository with a work tree, and a worker.
type forge struct {
	t    *testing.T
	dir  string // bare
	tree string
	w    work.Worker
}

func newForge(t *testing.T) *forge {
	t.Helper()
	if os.Geteuid() != 0 {
		need.Skip(t, "confining a process takes root")
	}
	self, err := program()
	if err != nil {
		t.Fatal(err)
	}
	base := t.TempDir()
	f := &forge{t: t, dir: filepath.Join(base, "shop.git"), tree: filepath.Join(base, "tree")}
	f.w = work.Worker{Command: []string{self, work.Command}, Dir: filepath.Join(base, "work")}
	f.git(base, "init", "-q", "--bare", "-b", "main", f.dir)
	f.git(base, "clone", "-q", f.dir, f.tree)
	f.git(f.tree, "checkout", "-q", "-B", "main")
	return f
}

func (f *forge) git(dir string, args ...string) string {
	f.t.Helper()
	out, err := gitd.Run(f.t.Context(), dir, args...)
	if err != nil {
		f.t.Fatal(err)
	}
	return out
}

func (f *forge) write(name, content string) {
	f.t.Helper()
	p := filepath.Join(f.tree, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

// push commits what is there, and returns the commit.
func (f *forge) push(message string, more ...string) string {
	f.t.Helper()
	f.git(f.tree, "add", "-A")
	f.git(f.tree, "commit", "-q", "--allow-empty", "-m", message)
	f.git(f.tree, append([]string{"push", "-q", "origin", "HEAD"}, more...)...)
	return f.git(f.tree, "rev-parse", "HEAD")
}

func compose(image string) string {
	return "services:\n  web:\n    image: " + image + "\n"
}

// local is a delivery from the forge's own directory.
func (f *forge) local() cluster.Delivery {
	return cluster.Delivery{Name: "shop", App: "shop", Source: cluster.SourceSpec{Kind: cluster.SourceGit, URL: "file://" + f.dir}}
}

func (f *forge) run(task work.Task) (work.Result, error) {
	task.Domain, task.Now = "example.test", time.Now()
	return f.w.Run(f.t.Context(), task)
}

// must runs a task that works, and leaves nothing behind.
func (f *forge) must(task work.Task) work.Result {
	f.t.Helper()
	r, err := f.run(task)
	if err != nil {
		f.t.Fatal(err)
	}
	if left, _ := os.ReadDir(f.w.Dir); len(left) > 0 {
		f.t.Errorf("left behind: %v", left)
	}
	return r
}

func (f *forge) refused(task work.Task, kind cluster.Kind, words ...string) {
	f.t.Helper()
	_ = f.refusal(task, kind, words...)
}

// refusal runs a task that does not work, and returns its error.
func (f *forge) refusal(task work.Task, kind cluster.Kind, words ...string) error {
	f.t.Helper()
	_, err := f.run(task)
	if err == nil || cluster.KindOf(err) != kind {
		f.t.Fatalf("%v (%v), want %v", err, cluster.KindOf(err), kind)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			f.t.Errorf("%q does not say %q", err, w)
		}
	}
	return err
}

// https serves the forge by Git's own http-backend, to those with a password if one is given,
// behind what else is given.
func (f *forge) https(password string, behind ...func(http.Handler) http.Handler) (url, ca string) {
	f.t.Helper()
	if _, err := os.Stat(gitd.Backend); err != nil {
		need.Skip(f.t, "git's http-backend is needed: %v", err)
	}
	h := &cgi.Handler{Path: gitd.Backend, Env: []string{"GIT_PROJECT_ROOT=" + filepath.Dir(f.dir), "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}, Stderr: os.Stderr}
	all := guarded(h, password)
	for _, b := range behind {
		all = b(all)
	}
	srv := httptest.NewTLSServer(all)
	f.t.Cleanup(srv.Close)
	var b bytes.Buffer
	_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	return srv.URL + "/shop.git", b.String()
}
