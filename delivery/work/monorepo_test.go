package work_test

import (
	"strings"
	"testing"

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
