// Package follow has what a delivery of a test follows, and tells: a Git server, a
// registry with versions of the test application, and an inbox.
package follow

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/fairlead/fairlead/integration/gitd"
	"github.com/fairlead/fairlead/integration/need"
	"github.com/fairlead/fairlead/integration/registryd"
)

// Forge is a Git server over https, with a password.
type Forge struct {
	*gitd.Server
	t   testing.TB
	dir string
}

// NewForge starts one, with an empty repository pub.git below dir, that ends with the test.
func NewForge(tb testing.TB, dir string) *Forge {
	tb.Helper()
	if _, err := os.Stat(gitd.Backend); err != nil {
		need.Skip(tb, "needs git: %v", err)
	}
	s, err := gitd.New(tb.Context(), dir, "pub", "geheim")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Close)
	return &Forge{s, tb, dir}
}

// Publish commits a Compose file, with what else is in the work tree, pushes it and
// returns the commit.
func (f *Forge) Publish(content, message string) string {
	f.t.Helper()
	err := f.Write("compose.yaml", content)
	var commit string
	if err == nil {
		commit, err = f.Commit(f.t.Context(), message)
	}
	if err == nil {
		err = f.Push(f.t.Context())
	}
	if err != nil {
		f.t.Fatal(err)
	}
	return commit
}

// InTree runs git in the work tree.
func (f *Forge) InTree(args ...string) {
	f.t.Helper()
	if _, err := f.Git(f.t.Context(), args...); err != nil {
		f.t.Fatal(err)
	}
}

// Has is what git says of the repository that the server has.
func (f *Forge) Has(args ...string) string {
	f.t.Helper()
	out, err := f.Git(f.t.Context(), append([]string{"-C", filepath.Join(f.dir, "git", "pub.git")}, args...)...)
	if err != nil {
		f.t.Fatal(err)
	}
	return out
}

// Inbox takes notifications.
type Inbox struct {
	URL string

	mu   sync.Mutex
	news []map[string]any
}

// NewInbox starts one that ends with the test.
func NewInbox(tb testing.TB) *Inbox {
	tb.Helper()
	b := &Inbox{}
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var m map[string]any
		_ = json.NewDecoder(r.Body).Decode(&m)
		b.mu.Lock()
		defer b.mu.Unlock()
		b.news = append(b.news, m)
	}))
	tb.Cleanup(srv.Close)
	b.URL = srv.URL
	return b
}

// Has says whether something was told in which each of the words is.
func (b *Inbox) Has(words ...string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.news {
		text, _ := json.Marshal(m)
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(string(text), w) }) {
			return nil
		}
	}
	return fmt.Errorf("no news of %v in %v", words, b.news)
}

// Shelf is a registry that wants a password, with versions of the test application.
type Shelf struct {
	*registryd.Registry
	t       testing.TB
	program string
}

// NewShelf starts one, which is empty and ends with the test.
func NewShelf(tb testing.TB) *Shelf {
	tb.Helper()
	s := &Shelf{registryd.Start(tb, "ci", "a-registry's-password"), tb, filepath.Join(tb.TempDir(), "program")}
	if err := need.Program(s.program, "github.com/fairlead/fairlead/integration/e2e/app"); err != nil {
		tb.Fatal(err)
	}
	return s
}

// Repository is where the versions are.
func (s *Shelf) Repository() string { return s.Host + "/shop/web" }

// Put puts a version into the registry, under its own name if no tag is given, and
// returns its digest. A bad one is never healthy.
func (s *Shelf) Put(version string, bad bool, tags ...string) string {
	s.t.Helper()
	env := []string{"VERSION=" + version}
	if bad {
		env = append(env, "BROKEN=health")
	}
	if len(tags) == 0 {
		tags = []string{version}
	}
	return s.Push("shop/web", s.program, env, tags...)
}
