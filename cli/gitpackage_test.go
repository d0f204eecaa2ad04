package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead/fairlead/integration/gitd"
)

// git runs git where commands run.
func (h *hub) git(args ...string) string {
	h.t.Helper()
	out, err := gitd.Run(h.t.Context(), h.dir, args...)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// TestPackageInGit takes a package from wherever CHART is one.
func TestPackageInGit(t *testing.T) {
	h := newHub(t)
	h.must("", "chart", "create", "repo/charts/demo")
	h.git("init", "-q", "-b", "main", "repo")
	h.git("-C", "repo", "add", "-A")
	h.git("-C", "repo", "commit", "-q", "-m", "a package")
	h.git("-C", "repo", "tag", "v0.1.0")
	one := h.git("-C", "repo", "rev-parse", "HEAD")
	h.git("-C", "repo", "commit", "-q", "--allow-empty", "-m", "nothing new")
	two := h.git("-C", "repo", "rev-parse", "HEAD")
	at := "git+file://" + filepath.Join(h.dir, "repo") + "//charts/demo"

	if s := h.must("", "chart", "show", "chart", at); !strings.Contains(s.out, "name: demo") {
		t.Errorf("%s", s.all)
	}
	if a, b := h.must("", "chart", "template", "x", at), h.must("", "chart", "template", "x", "repo/charts/demo"); a.out != b.out {
		t.Errorf("Git and the directory differ:\n%s\n%s", a.out, b.out)
	}
	h.must("", "chart", "pull", at, "--version", "^0.1")
	h.must("", "chart", "package", "repo/charts/demo", "-d", "dist")
	if a, b := h.read("demo-0.1.0.tgz"), h.read("dist/demo-0.1.0.tgz"); a != b {
		t.Error("what is pulled from Git is another archive than that of the directory")
	}
	h.must("", "chart", "pull", at, "--untar", "-d", "got")
	if s := h.must("", "chart", "lint", "got/demo"); !strings.Contains(s.out, "is fine") {
		t.Errorf("%s", s.all)
	}
	if s := h.must("", "plan", "shop", at); !strings.Contains(s.out, "package demo-0.1.0") {
		t.Errorf("%s", s.all)
	}
	from := func(commit string) {
		t.Helper()
		if s := h.must("", "trace", "shop/web", "-o", "json"); !strings.Contains(s.out, "//charts/demo?ref="+commit+`"`) {
			t.Errorf("it does not say that it comes from %s:\n%s", commit, s.out)
		}
	}
	h.must("", "install", "shop", at+"?ref=v0.1.0", "--detach")
	from(one)
	h.must("", "upgrade", "shop", at, "--set", "replicas=2", "--detach")
	from(two)
	if s := h.cli("", "upgrade", "shop", at+"?ref=none"); s.code != 4 {
		t.Errorf("%d %s", s.code, s.all)
	}
}

func (h *hub) read(name string) string {
	h.t.Helper()
	b, err := os.ReadFile(filepath.Join(h.dir, name))
	if err != nil {
		h.t.Fatal(err)
	}
	return string(b)
}
