package chart_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/compose"
)

// umbrella is a chart of charts, each with templates of its own, by path: "users/app.yaml",
// "users/charts/db/app.yaml"; those of "" are the umbrella's.
func umbrella(templates map[string]string) *chart.Rendered {
	r := &chart.Rendered{Chart: chart.Info{Name: "umb"}, Files: map[string]string{}}
	for at, text := range templates {
		dir, file := "umb/", at
		if i := strings.LastIndex(at, "/"); i >= 0 {
			dir, file = "umb/charts/"+at[:i+1], at[i+1:]
		}
		r.Files[dir+"templates/"+file] = text
	}
	return r
}

func TestChartsThatMakeOneThing(t *testing.T) {
	for name, c := range map[string]struct {
		templates map[string]string
		says      []string // one for each problem, in order
	}{
		"two services": {
			map[string]string{"a.yaml": "services: {web: {image: a}}", "orders/a.yaml": "services:\n  db: {image: a}", "users/b.yaml": "volumes: {x: {}}\n---\nservices: {db: {image: b}}"},
			[]string{"umb/charts/users/templates/b.yaml:3: services.db: umb/charts/orders makes one too, at umb/charts/orders/templates/a.yaml:2"},
		},
		"a parent changes its child": {map[string]string{"a.yaml": "services: {db: {image: a}}\nvolumes: {data: {}}", "users/a.yaml": "services: {db: {image: b}}\nvolumes: {data: {}}"}, nil},
		"so does one between":        {map[string]string{"a/a.yaml": "services: {db: {image: a}}", "a/charts/db/a.yaml": "services: {db: {image: b}}", "a.yaml": "services: {db: {image: c}}"}, nil},
		"a parent does not unite its children": {
			map[string]string{"a.yaml": "services: {db: {image: a}}", "a/a.yaml": "services: {db: {image: a}}", "b/a.yaml": "services: {db: {image: b}}"},
			[]string{"umb/charts/b/templates/a.yaml:1: services.db: umb/charts/a makes one too"},
		},
		"a name that begins alike": {
			map[string]string{"db/a.yaml": "services: {db: {image: a}}", "db-two/a.yaml": "services: {db: {image: b}}"},
			[]string{"services.db: umb/charts/db-two makes one too"},
		},
		"charts of different parents": {
			map[string]string{"a/charts/db/a.yaml": "volumes: {data: {}}", "b/charts/db/a.yaml": "volumes: {data: {}}", "c/x.yaml": "volumes: {data: }"},
			[]string{"umb/charts/b/charts/db/templates/a.yaml:1: volumes.data: umb/charts/a/charts/db", "umb/charts/c/templates/x.yaml:1: volumes.data: umb/charts/a/charts/db"},
		},
		"each kind": {
			map[string]string{
				"a/a.yaml": "volumes: {v: {}}\nsecrets: {s: {external: true, x-fairlead: {generate: 32}}}\nconfigs: {c: {content: a}}\nnetworks: {n: {name: x}}\nx-mine: {n: 1}",
				"b/a.yaml": "networks: {n: {name: x}}\nconfigs: {c: {content: a}}\nsecrets: {s: {external: true, x-fairlead: {generate: 32}}}\nvolumes: {v: {}}\nx-mine: {n: 1}",
			},
			[]string{"networks.n", "configs.c", "secrets.s", "volumes.v"},
		},
		"files of one chart":      {map[string]string{"a/a.yaml": "services: {db: {image: a}}", "a/b.yaml": "services: {db: {user: b}}"}, nil},
		"one of the two's hooks":  {map[string]string{"a/a.yaml": "services: {test: {x-fairlead: {hook: {on: [test]}}}}", "b/a.yaml": "services: {test: {x-fairlead: {hook: {on: [test]}}}}"}, []string{"services.test"}},
		"what is there for both":  {map[string]string{"a/a.yaml": "networks: {n: {external: true}}\nvolumes: {v: {external: {name: w}}}\nsecrets: {s: {external: true}}", "b/a.yaml": "networks: {n: {external: true, name: n}}\nvolumes: {v: {external: true, name: w}}\nsecrets: {s: {external: true}}"}, nil},
		"there, and not the same": {map[string]string{"a/a.yaml": "networks: {n: {external: true, name: x}}", "b/a.yaml": "networks: {n: {external: true}}"}, []string{"networks.n"}},
		"there, and made":         {map[string]string{"a/a.yaml": "volumes: {n: {external: true}}", "b/a.yaml": "volumes: {n: {external: false}}"}, []string{"volumes.n"}},
		"anchors and merges": {
			map[string]string{"a/a.yaml": "x-a: &a {db: {image: a}}\nx-b: &b {<<: [*a, *a]}\nservices: {<<: *b}", "b/a.yaml": "x-a: &a {db: {image: a}}\nservices: *a"},
			[]string{"umb/charts/b/templates/a.yaml:1: services.db: umb/charts/a makes one too, at umb/charts/a/templates/a.yaml:1"},
		},
		"what is no YAML, or no mapping": {map[string]string{"a/a.yaml": "services: [", "b/a.yaml": "services: [db]\nvolumes: x", "c/a.yaml": "- services", "d/a.yaml": "services: {\"a\\e\\u202e\": {}}", "e/a.yaml": "services: {\"a\\e\\u202e\": {}}"}, []string{`services.a\x1b\u202e`}},
		"an anchor within itself":        {map[string]string{"a/a.yaml": "services: &a {db: {}, <<: *a}", "b/a.yaml": "services: {db: &a {<<: *a}}"}, []string{"services.db"}},
	} {
		t.Run(name, func(t *testing.T) {
			err := umbrella(c.templates).Clashes()
			if c.says == nil {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			if !isProblems(err) {
				t.Fatalf("not refused: %v", err)
			}
			lines := strings.Split(err.Error(), "\n")
			for i, want := range c.says {
				if i >= len(lines) || !strings.Contains(lines[i], want) {
					t.Errorf("it says %q, not %q", lines, want)
				}
			}
			if len(lines) != len(c.says) {
				t.Errorf("it says %d things: %q", len(lines), lines)
			}
		})
	}
}

// TestClashesAreRefused: what would be one thing is not made, nor fine to lint.
func TestClashesAreRefused(t *testing.T) {
	files := []chart.File{{Name: "Chart.yaml", Data: []byte("apiVersion: v2\nname: umb\nversion: 1.0.0\ndependencies: [{name: db, version: 1.0.0, alias: users}, {name: db, version: 1.0.0, alias: orders}]\n")}}
	for name, text := range map[string]string{"Chart.yaml": "apiVersion: v2\nname: db\nversion: 1.0.0\n", "templates/app.yaml": "services: {db: {image: \"db:1\"}}\n"} {
		files = append(files, chart.File{Name: "charts/db/" + name, Data: []byte(text)})
	}
	req := chart.Request{Files: files, Release: chart.Release{Name: "demo", Revision: 1}}
	got, err := chart.Render(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	const says = "umb/charts/orders makes one too, at umb/charts/orders/templates/app.yaml:1"
	if _, err := got.Compose(t.Context(), "demo", compose.Options{}); !isProblems(err) || !strings.Contains(err.Error(), "umb/charts/users/templates/app.yaml:1: services.db: "+says) {
		t.Errorf("it says %v of %v", err, slices.Sorted(maps.Keys(got.Files)))
	}
	list := chart.Lint(t.Context(), renderer(t), req, false)
	if !slices.ContainsFunc(list, func(f chart.Finding) bool {
		return f.Severity == "error" && f.Where == "umb/charts/users/templates/app.yaml:1" && strings.Contains(f.Message, says)
	}) {
		t.Errorf("lint says %v", list)
	}
}
