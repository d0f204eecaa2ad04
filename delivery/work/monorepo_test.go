package work_test

import (
	"strings"
	"testing"

	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery/work"
)

// TestTagsOfOneAppAmongOthers: a repository of several apps tags each with a prefix of its own.
func TestTagsOfOneAppAmongOthers(t *testing.T) {
	f := newForge(t)
	f.write("compose.yaml", compose("web:1"))
	one := f.push("the first")
	f.git(f.tree, "tag", "-a", "-m", "release", "app-a/v1.2.0")
	f.git(f.tree, "tag", "app-a-1.1.0")
	f.write("compose.yaml", compose("web:2"))
	two := f.push("the second")
	for _, tag := range []string{"app-b/v1.9.0", "app-a/v1.3.0-rc.1", "app-a/b/v1.8.0", "v1.7.0"} {
		f.git(f.tree, "tag", tag)
	}
	f.git(f.tree, "push", "-q", "--tags", "origin")
	url, ca := f.https("")
	for prefix, want := range map[string]struct{ commit, ref string }{
		"app-a/": {one, "app-a/v1.2.0"}, "app-a-": {one, "app-a-1.1.0"}, "app-b/": {two, "app-b/v1.9.0"}, "app-a/b/v": {two, "app-a/b/v1.8.0"}, "": {two, "v1.7.0"},
	} {
		for _, src := range []cluster.SourceSpec{{URL: f.local().Source.URL}, {URL: url, CA: ca}} {
			d := f.local()
			src.Kind, src.Semver, src.TagPrefix = cluster.SourceGit, "1.x", prefix
			d.Source = src
			if err := d.Validate(); err != nil {
				t.Error(err)
			}
			if r := f.must(work.Task{Delivery: d}); r.Origin.Revision != want.commit || r.Origin.Ref != want.ref {
				t.Errorf("%q of %s: %+v", prefix, src.URL, r.Origin)
			}
		}
	}
	d := f.local()
	d.Source.Semver, d.Source.TagPrefix = "^2", "app-a/"
	f.refused(work.Task{Delivery: d}, cluster.KindNotFound, `that begin with "app-a/"`, `"^2"`)
	d.Source.Semver = ""
	if err := d.Validate(); err == nil || !strings.Contains(err.Error(), "--semver") {
		t.Errorf("a prefix of no versions: %v", err)
	}
}

// TestFilesBesideThePath: what several apps of a repository share is beside their directories.
func TestFilesBesideThePath(t *testing.T) {
	f := newForge(t)
	f.write("app/compose.yaml", "services:\n  web:\n    image: ${REGISTRY}/web:${TAG}\n")
	f.write("app/prod.env", "TAG=2\n")
	f.write("common.env", "REGISTRY=r.io\nTAG=1\n")
	f.write("base/compose.yaml", "services:\n  web:\n    user: \"7\"\n")
	f.write("app/chart/Chart.yaml", "apiVersion: v2\nname: pkg\nversion: 1.0.0\n")
	f.write("app/chart/templates/app.yaml", compose("r.io/web:{{ .Values.tag }}"))
	f.write("shared/values.yaml", "tag: 3\n")
	f.push("a repository of several apps")
	d := f.local()
	d.Path, d.EnvFiles, d.Compose = "app", []string{"../common.env", "prod.env"}, []string{"../base/compose.yaml", "compose.yaml"}
	pkg := f.local()
	pkg.Path, pkg.Package, pkg.Values = "app", "chart", []string{"../shared/values.yaml"}
	for want, d := range map[string]cluster.Delivery{"r.io/web:2": d, "r.io/web:3": pkg} {
		if err := d.Validate(); err != nil {
			t.Error(err)
		}
		r := f.must(work.Task{Delivery: d, Release: 1})
		if web := r.Bundle.Services["web"].Task; web.Image != want || d.Package == "" && web.User != "7" {
			t.Errorf("%+v", web)
		}
	}
	d.EnvFiles = []string{"../none.env"}
	f.refused(work.Task{Delivery: d}, cluster.KindInvalid, "none.env")
}

// TestSubmodulesAreNotFetched: what uses one is refused by its name, and nothing else is.
func TestSubmodulesAreNotFetched(t *testing.T) {
	f := newForge(t)
	f.write("compose.yaml", compose("web:1"))
	f.write("chart/Chart.yaml", "apiVersion: v2\nname: pkg\nversion: 1.0.0\n")
	f.write("chart/templates/app.yaml", compose("web:1"))
	commit := f.push("the first")
	for _, dir := range []string{"lib", "chart/sub"} {
		f.git(f.tree, "update-index", "--add", "--cacheinfo", "160000,"+commit+","+dir)
	}
	push := func(message string) {
		f.git(f.tree, "add", "compose.yaml")
		f.git(f.tree, "commit", "-q", "-m", message)
		f.git(f.tree, "push", "-q", "origin", "HEAD")
	}
	push("submodules")
	d := f.local()
	f.must(work.Task{Delivery: d})
	within := d
	within.Path = "lib/app"
	f.refused(work.Task{Delivery: within}, cluster.KindInvalid, "lib: it is a submodule of Git")
	within = d
	within.EnvFiles = []string{"lib/prod.env"}
	f.refused(work.Task{Delivery: within}, cluster.KindInvalid, "lib: it is a submodule of Git")
	f.write("compose.yaml", "services:\n  web:\n    image: a\n    configs: [c]\nconfigs:\n  c: {file: lib/web.conf}\n")
	push("one is used")
	f.refused(work.Task{Delivery: d}, cluster.KindInvalid, "lib: it is a submodule of Git")

	pkg := f.local()
	pkg.Package = "chart"
	f.refused(work.Task{Delivery: pkg, Release: 1}, cluster.KindInvalid, "chart/sub: it is a submodule of Git")
	g := work.GitPackage{URL: pkg.Source.URL, Dir: "chart"}
	if _, _, err := g.Fetch(t.Context(), "", chart.Transfer{}, nil); err == nil || !strings.Contains(err.Error(), "sub: it is a submodule of Git") {
		t.Errorf("of an installation: %v", err)
	}
	f.write("chart/.helmignore", "sub\n")
	f.git(f.tree, "add", "chart/.helmignore")
	push("it is none of the package's")
	f.must(work.Task{Delivery: pkg, Release: 1})
	if _, _, err := g.Fetch(t.Context(), "", chart.Transfer{}, nil); err != nil {
		t.Error(err)
	}
}
