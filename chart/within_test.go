package chart_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/cluster"
)

// written makes a tree of files.
func written(t *testing.T, files map[string]string) *os.Root {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	for name, content := range files {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
			t.Fatal(err)
		}
		target, link := strings.CutPrefix(content, "-> ")
		err := os.WriteFile(at, []byte(content), 0o600)
		if link {
			_ = os.Remove(at)
			err = os.Symlink(target, at)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return root
}

const headYAML = "apiVersion: v2\nversion: 1.0.0\nname: "

func depends(name string, on ...string) string {
	return headYAML + name + "\ndependencies:\n- " + strings.Join(on, "\n- ") + "\n"
}

// What a package depends on is in the tree, at any depth, or remote in the version of the lock.
func TestWithin(t *testing.T) {
	root := written(t, map[string]string{
		"apps/shop/Chart.yaml":             depends("shop", "{name: common, version: 1.x.x, repository: 'file://../../lib/common'}", "{name: redis, version: ^18, repository: 'https://charts.example.com', alias: cache}", "{name: held, version: 1.0.0, repository: 'https://gone.example.com'}"),
		"apps/shop/Chart.lock":             "dependencies:\n- {name: common, version: 1.0.0, repository: 'file://../../lib/common'}\n- {name: redis, version: 18.4.2, repository: 'https://charts.example.com'}\n",
		"apps/shop/charts/held/Chart.yaml": headYAML + "held\n",
		"apps/shop/templates/x.yaml":       "services: {web: {image: a}}\n",
		"lib/common/Chart.yaml":            depends("common", "{name: base, version: v2.0.1, repository: 'oci://registry.example.com/charts'}"),
		"lib/common/templates/_x.tpl":      "{{- define \"x\" -}}x{{- end -}}\n",
	})
	w := chart.Within{Root: root, Dir: "apps/shop"}
	list, err := w.Remotes()
	base := chart.Remote{Repository: "oci://registry.example.com/charts", Name: "base", Version: "v2.0.1"}
	redis := chart.Remote{Repository: "https://charts.example.com", Name: "redis", Version: "18.4.2"}
	if err != nil || !slices.Equal(list, []chart.Remote{base, redis}) {
		t.Fatalf("%v, %v", list, err)
	}
	of := func(name, version string) []chart.File {
		return []chart.File{{Name: "Chart.yaml", Data: []byte("apiVersion: v2\nname: " + name + "\nversion: " + version + "\n")}, {Name: "templates/" + name + ".yaml", Data: []byte("services: {" + name + ": {image: b}}\n")}}
	}
	files, err := w.Files(map[chart.Remote][]chart.File{base: of("base", "2.0.1"), redis: of("redis", "18.4.2")})
	if err != nil {
		t.Fatal(err)
	}
	got, err := chart.Render(t.Context(), chart.Request{Files: files, Release: chart.Release{Name: "shop", Revision: 1}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"shop/templates/x.yaml", "shop/charts/cache/templates/redis.yaml", "shop/charts/common/charts/base/templates/base.yaml"} {
		if _, is := got.Files[want]; !is {
			t.Errorf("%s is not there: %v", want, slices.Sorted(maps.Keys(got.Files)))
		}
	}
	if _, err := w.Files(map[chart.Remote][]chart.File{base: of("base", "2.0.1")}); err == nil || !strings.Contains(err.Error(), "redis 18.4.2 of https://charts.example.com was not fetched") {
		t.Error(err)
	}
	if _, err := w.Files(map[chart.Remote][]chart.File{base: of("base", "2.0.1"), redis: of("valkey", "1.0.0")}); err == nil || !strings.Contains(err.Error(), "is called valkey") {
		t.Error(err)
	}
	big := append(of("redis", "18.4.2"), chart.File{Name: "x", Data: make([]byte, chart.MaxSize)})
	if _, err := w.Files(map[chart.Remote][]chart.File{base: of("base", "2.0.1"), redis: big}); err == nil || !strings.Contains(err.Error(), "larger than 64 MiB") {
		t.Error(err)
	}
	w.Refuse = func(dir string) error {
		if dir == "lib/common" {
			return cluster.Invalidf("refused")
		}
		return nil
	}
	if _, err := w.Remotes(); err == nil || err.Error() != "dependency common of apps/shop: refused" {
		t.Error(err)
	}
}

func TestWithinRefuses(t *testing.T) {
	const remote = "repository: 'https://charts.example.com'}"
	for what, c := range map[string]struct {
		files map[string]string
		says  string
		loose bool // it works there
	}{
		"a range without a lock":         {map[string]string{"c/Chart.yaml": depends("c", "{name: db, version: ^1, "+remote)}, "Chart.lock or all of charts/", true},
		"no version":                     {map[string]string{"c/Chart.yaml": depends("c", "{name: db, "+remote)}, "is a range", true},
		"a lock of before":               {map[string]string{"c/Chart.yaml": depends("c", "{name: db, version: ^2, "+remote), "c/Chart.lock": "dependencies: [{name: db, version: 1.0.0, " + remote + "]\n"}, "Chart.lock has none that fits", false},
		"a lock of another repository":   {map[string]string{"c/Chart.yaml": depends("c", "{name: db, version: ^2, "+remote), "c/Chart.lock": "dependencies: [{name: db, version: 2.0.0, repository: 'https://other.example.com'}]\n"}, "Chart.lock has none that fits", false},
		"a repository of somebody's own": {map[string]string{"c/Chart.yaml": depends("c", "{name: db, version: 1.0.0, repository: '@stable'}")}, "name it by its URL", true},
		"another scheme":                 {map[string]string{"c/Chart.yaml": depends("c", "{name: db, version: 1.0.0, repository: 's3://bucket'}")}, "name it by its URL", false},
		"a word in place of a URL":       {map[string]string{"c/Chart.yaml": depends("c", "{name: db, version: 1.0.0, repository: https}")}, "name it by its URL", false},
		"no URL of a registry":           {map[string]string{"c/Chart.yaml": depends("c", "{name: db, version: 1.0.0, repository: oci}")}, "name it by its URL", false},
		"no URL of a directory":          {map[string]string{"c/Chart.yaml": depends("c", "{name: db, version: 1.0.0, repository: file}")}, "name it by its URL", false},
		"a path that leads out":          {map[string]string{"c/Chart.yaml": depends("c", "{name: db, version: 1.0.0, repository: 'file://../../db'}")}, "leads out of the source", false},
		"an absolute path":               {map[string]string{"c/Chart.yaml": depends("c", "{name: db, version: 1.0.0, repository: 'file:///etc'}")}, "leads out of the source", false},
		"a link that leads out":          {map[string]string{"c/Chart.yaml": depends("c", "{name: db, version: 1.0.0, repository: 'file://../db'}"), "db": "-> ../../.."}, "escapes", false},
		"a link out by way of another":   {map[string]string{"c/Chart.yaml": depends("c", "{name: db, version: 1.0.0, repository: 'file://../up/../../etc'}"), "up": "-> c/d", "c/d/x": ""}, "leads out of the source", false},
		"nothing there":                  {map[string]string{"c/Chart.yaml": depends("c", "{name: db, version: 1.0.0, repository: 'file://../db'}")}, "there is no chart db", false},
		"no chart there":                 {map[string]string{"c/Chart.yaml": depends("c", "{name: db, version: 1.0.0, repository: 'file://../db'}"), "db/x": ""}, "no Chart.yaml", false},
		"another name":                   {map[string]string{"c/Chart.yaml": depends("c", "{name: db, version: 1.0.0, repository: 'file://../db'}"), "db/Chart.yaml": headYAML + "sql\n"}, "db has sql 1.0.0, which is not db 1.0.0", false},
		"another version":                {map[string]string{"c/Chart.yaml": depends("c", "{name: db, version: ^2, repository: 'file://../db'}"), "db/Chart.yaml": headYAML + "db\n"}, "which is not db ^2", false},
		"itself":                         {map[string]string{"c/Chart.yaml": depends("c", "{name: c, version: 1.0.0, repository: 'file://.'}")}, "more than 8 deep", false},
		"a name that is a path":          {map[string]string{"c/Chart.yaml": depends("c", "{name: ../../db, version: 1.0.0, "+remote)}, "", false},
	} {
		w := chart.Within{Root: written(t, c.files), Dir: "c"}
		list, err := w.Remotes()
		if c.says == "" { // Helm's loader refuses it, which is said where it is rendered
			if len(list) > 0 {
				t.Errorf("%s: %v", what, list)
			}
			continue
		}
		if cluster.KindOf(err) != cluster.KindInvalid && cluster.KindOf(err) != cluster.KindNotFound || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v (%v)", what, err, list)
		}
		w.Loose = true
		if _, err := w.Remotes(); (err == nil) != c.loose {
			t.Errorf("%s: on a person's own machine: %v", what, err)
		}
	}
}

// Charts that name each other many times come to an end.
func TestWithinIsBounded(t *testing.T) {
	on := make([]string, 60)
	files := map[string]string{}
	for depth := range 8 {
		for i := range on {
			on[i] = "{name: c, version: 1.0.0, repository: 'file://../" + string(rune('a'+depth+1)) + "', alias: a" + strings.Repeat("x", i) + "}"
		}
		files[string(rune('a'+depth))+"/Chart.yaml"] = depends("c", on...)
	}
	files["i/Chart.yaml"] = headYAML + "c\n"
	if _, err := (chart.Within{Root: written(t, files), Dir: "a"}).Remotes(); err == nil || !strings.Contains(err.Error(), "more than 256 directories") {
		t.Errorf("%v", err)
	}
	on = on[:0]
	for i := range 70 {
		on = append(on, "{name: n"+strings.Repeat("x", i)+", version: 1.0.0, repository: 'https://charts.example.com'}")
	}
	if _, err := (chart.Within{Root: written(t, map[string]string{"Chart.yaml": depends("c", on...)})}).Remotes(); err == nil || !strings.Contains(err.Error(), "more than 64 packages") {
		t.Error(err)
	}
}
