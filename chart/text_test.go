package chart_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/compose"
)

// TestTextOfOneTemplate is of the file that is named from the chart's own directory on: a part
// has one of that name too.
func TestTextOfOneTemplate(t *testing.T) {
	r := chart.Rendered{Chart: chart.Info{Name: "shop"}, Files: map[string]string{
		"shop/templates/app.yaml": "a: 1", "shop/charts/db/templates/app.yaml": "b: 2", "shop/charts/db/charts/x/templates/app.yaml": "c: 3", "shop/templates/more/app.yaml": "d: 4",
	}}
	for only, want := range map[string]string{
		"templates/app.yaml": "shop/templates/app.yaml\na: 1", "shop/templates/app.yaml": "shop/templates/app.yaml\na: 1",
		"charts/db/templates/app.yaml": "shop/charts/db/templates/app.yaml\nb: 2", "app.yaml": "",
	} {
		if want != "" {
			want = "---\n# Source: " + want + "\n"
		}
		if d := cmp.Diff(want, r.Text(only)); d != "" {
			t.Errorf("%s: %s", only, d)
		}
	}
}

// TestAllNotes are the chart's own, and then those of its parts.
func TestAllNotes(t *testing.T) {
	r := chart.Rendered{Chart: chart.Info{Name: "shop"}, Files: map[string]string{
		"shop/templates/NOTES.txt": "own\n", "shop/charts/b/templates/NOTES.txt": "of b\n", "shop/charts/a/templates/NOTES.txt": "of a\n", "shop/charts/c/templates/NOTES.txt": " \n",
	}}
	if got := r.AllNotes(); got != "own\n\nof a\n\nof b\n" {
		t.Errorf("%q", got)
	}
	if got := r.Notes(); got != "own\n" {
		t.Errorf("%q", got)
	}
}

const hooked = `# the app
services:
  web: {image: "a/b:1", command: "echo $$HOME"} # stays
  migrate:
    image: a/b:1
    x-fairlead: {hook: {on: [pre-upgrade]}}
  check:
    image: a/b:1
    x-fairlead:
      hook: {on: "post-install, test"}
---
services:
  check: {command: [check]}
`

func TestWithoutHooks(t *testing.T) {
	for _, tests := range []bool{false, true} {
		r := chart.Rendered{Chart: chart.Info{Name: "shop"}, Files: map[string]string{
			"shop/templates/a.yaml": hooked, "shop/templates/b.yaml": "services: {check: {labels: {a: b}}}\n", "shop/templates/c.yaml": "services:   {x:   {image:   \"a/c:1\"}}\n",
		}}
		if err := r.WithoutHooks(tests); err != nil {
			t.Fatal(err)
		}
		p, err := r.Compose(t.Context(), "shop", compose.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Services) != 2 || p.Services["web"].Task.Command[1] != "$HOME" || len(p.Hooks) != map[bool]int{true: 1}[tests] {
			t.Errorf("tests alone %v: %+v, %+v", tests, p.Services, p.Hooks)
		}
		if r.Files["shop/templates/c.yaml"] != "services:   {x:   {image:   \"a/c:1\"}}\n" || !strings.Contains(r.Files["shop/templates/a.yaml"], "# stays") {
			t.Errorf("%v", r.Files)
		}
	}
	r := chart.Rendered{Files: map[string]string{"a.yaml": "services:\n  one: &x {image: a, x-fairlead: {hook: {on: test}}}\n  two: *x\n  three: {image: a, environment: {A: b}}\n"}}
	if err := r.WithoutHooks(true); err != nil || strings.Contains(r.Files["a.yaml"], "two") {
		t.Errorf("%v, %v", r.Files, err)
	}
	r = chart.Rendered{Files: map[string]string{"a.yaml": "services:\n  one: {image: a, environment: &e {A: b}, x-fairlead: {hook: {on: test}}}\n  two: {image: a, environment: *e}\n"}}
	if err := r.WithoutHooks(true); err == nil || !strings.Contains(err.Error(), "a.yaml: its hooks cannot be left out") {
		t.Errorf("%v, %v", r.Files, err)
	}
}
