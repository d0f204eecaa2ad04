package chart_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/compose"
)

// request is a chart of templates, by name.
func request(templates map[string]string, more ...chart.File) chart.Request {
	r := chart.Request{
		Files:   append([]chart.File{{Name: "Chart.yaml", Data: []byte(chartYAML)}}, more...),
		Release: chart.Release{Name: "demo", Revision: 1},
	}
	for name, text := range templates {
		r.Files = append(r.Files, chart.File{Name: "templates/" + name, Data: []byte(text)})
	}
	return r
}

// TestHostileTemplatesEnd: whatever a template does, rendering it ends, soon, with an error.
func TestHostileTemplatesEnd(t *testing.T) {
	r := renderer(t)
	r.Memory, r.Output = 256<<20, 4<<20
	for name, c := range map[string]struct{ template, says string }{
		"loop":           {"{{ range 1000000000000 }}{{ end }}", "not done after 2s"},
		"loops in loops": {"{{ range 1000000 }}{{ range 1000000 }}{{ end }}{{ end }}", "not done after 2s"},
		"recursion":      {`{{ define "a" }}{{ template "a" . }}{{ end }}{{ template "a" . }}`, "exceeded maximum template depth"},
		"include":        {`{{ define "a" }}{{ include "a" . }}{{ end }}{{ include "a" . }}`, "nested reference"},
		"tpl":            {`{{ define "a" }}{{ tpl "{{ include \"a\" . }}" . }}{{ end }}{{ include "a" . }}`, ""},
		"memory":         {`{{ repeat 2000000000 "x" | len }}`, "more than 256 MiB of memory"},
		"list":           {`{{ len (until 500000000) }}`, ""},
		"growing":        {`{{ $x := "x" }}{{ range 100 }}{{ $x = print $x $x }}{{ end }}`, "more than 256 MiB of memory"},
		"output":         {`{{ repeat 6000000 "x" }}`, "more than 4 MiB"},
		"endless output": {`{{ range 1000000000000 }}x{{ end }}`, ""},
		"panic":          {`{{ index (list 1) 5 }}`, "out of range"},
	} {
		t.Run(name, func(t *testing.T) {
			r.Timeout = time.Minute // others end sooner by themselves
			if strings.Contains(c.says, "not done") || c.says == "" {
				r.Timeout = 2 * time.Second
			}
			_, err := r.Render(t.Context(), request(map[string]string{"x.yaml": c.template}))
			if err == nil || !strings.Contains(err.Error(), c.says) || cluster.KindOf(err) != cluster.KindInvalid {
				t.Errorf("it says %.300v", err)
			}
			if err != nil && len(err.Error()) > 1000 {
				t.Errorf("nobody reads %d bytes: %.300v", len(err.Error()), err)
			}
		})
	}
}

// TestOutputIsBounded: also that of a process that is not what it should be.
func TestOutputIsBounded(t *testing.T) {
	r := chart.Renderer{Command: []string{"yes"}, Output: 1 << 20}
	if _, err := r.Render(t.Context(), request(nil)); err == nil || !strings.Contains(err.Error(), "more than 1 MiB") {
		t.Errorf("it says %v", err)
	}
	whole := renderer(t)
	whole.Output = 4 << 20
	got, err := whole.Render(t.Context(), request(map[string]string{"x.yaml": `{{ repeat 4000000 "\x01" }}`}))
	if err != nil || len(got.Files["shop/templates/x.yaml"]) != 4000000 {
		t.Errorf("what is allowed is cut: %v", err)
	}
}

func TestRenderingCallsNobody(t *testing.T) {
	for _, ref := range []string{`{"$ref": "file:///etc/passwd"}`, `{"properties": {"a": {"$ref": "http://203.0.113.1/x.json"}}}`, `{"allOf": [{"$dynamicRef": "other.json"}]}`, `{"$schema": "https://example.com/x"}`} {
		_, err := chart.Render(t.Context(), request(nil, chart.File{Name: "values.schema.json", Data: []byte(ref)}))
		if err == nil || !strings.Contains(err.Error(), "a schema refers to its own parts alone") {
			t.Errorf("%s: %v", ref, err)
		}
		passed := request(nil, chart.File{Name: "values.schema.json", Data: []byte(ref)})
		passed.SkipSchema = true
		if _, err := chart.Render(t.Context(), passed); err != nil {
			t.Errorf("%s, passed over: %v", ref, err)
		}
	}
}

func TestRefusedCharts(t *testing.T) {
	for yaml, says := range map[string]string{
		chartYAML + "type: library\n":                                 "library charts are not installable",
		chartYAML + "kubeVersion: \">=9.0.0\"\n":                      "incompatible with Kubernetes",
		chartYAML + "dependencies: [{name: db, version: 1.0.0}]\n":    "missing in charts/ directory: db; `fairlead chart dependency update`",
		strings.Replace(chartYAML, "name: shop", "name: ../up", 1):    "",
		strings.Replace(chartYAML, "version: 1.2.3", "version: x", 1): "",
	} {
		r := chart.Request{Files: []chart.File{{Name: "Chart.yaml", Data: []byte(yaml)}}, Release: chart.Release{Name: "demo"}}
		if _, err := chart.Render(t.Context(), r); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", yaml, err)
		}
	}
}

func TestWarningsArrive(t *testing.T) {
	files := []chart.File{
		{Name: "Chart.yaml", Data: []byte(chartYAML + "dependencies: [{name: db, version: 1.0.0, condition: db.enabled}]\n")},
		{Name: "values.yaml", Data: []byte("db: {enabled: maybe}\n")},
		{Name: "charts/db/Chart.yaml", Data: []byte("apiVersion: v2\nname: db\nversion: 1.0.0\n")},
	}
	got, err := renderer(t).Render(t.Context(), chart.Request{Files: files, Release: chart.Release{Name: "demo"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], "non-bool value") {
		t.Errorf("warnings %q", got.Warnings)
	}
}

func compile(t *testing.T, templates map[string]string) (*compose.Result, error) {
	t.Helper()
	r, err := chart.Render(t.Context(), request(templates))
	if err != nil {
		t.Fatal(err)
	}
	return r.Compose(t.Context(), "demo", compose.Options{Domain: "example.test"})
}

func TestTemplatesBecomeOneProject(t *testing.T) {
	r, err := compile(t, map[string]string{
		"NOTES.txt":    "Visit {{ .Release.Name }}.\n",
		"_helpers.tpl": `{{ define "image" }}a/b:1{{ end }}`,
		"a.yaml":       "services:\n  web:\n    image: {{ include \"image\" . }}\n    environment: {A: a, B: a}\n---\n---\nservices: {db: {image: db:1}}\n",
		"b.yaml":       "services:\n  web:\n    environment: {B: b}\n",
		"none.yaml":    "{{ if false }}x: y{{ end }}\n\n",
		"config.yaml":  "configs: {c: {content: {{ .Files.Get \"Chart.yaml\" | toJson }}}}\n",
		"hook.yaml":    "services:\n  seed: {image: a/b:1, x-fairlead: {hook: {on: [post-install]}}}\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Services) != 2 || r.Services["web"].Task.Env["A"] != "a" || r.Services["web"].Task.Env["B"] != "b" {
		t.Errorf("services are %v", r.Services)
	}
	if len(r.Hooks) != 1 || r.Hooks[0].Service != "seed" {
		t.Errorf("hooks are %v", r.Hooks)
	}
	if r.App != "demo" {
		t.Errorf("the app is %s", r.App)
	}
}

func TestProblemsNameTheTemplate(t *testing.T) {
	for name, c := range map[string]struct {
		templates map[string]string
		says      []string
	}{
		"unknown key": {map[string]string{"web.yaml": "{{/* a comment */}}\nservices:\n  web:\n    image: a/b:1\n    imagee: x\n"}, []string{"shop/templates/web.yaml:5: services.web.imagee: unknown key; did you mean image?"}},
		"yaml":        {map[string]string{"web.yaml": "services:\n  web: [\n"}, []string{"shop/templates/web.yaml:"}},
		"kubernetes": {map[string]string{
			"web.yaml":    "services: {web: {image: a/b:1}}\n",
			"deploy.yaml": "# web\napiVersion: apps/v1\nkind: Deployment\n---\napiVersion: v1\nkind: Service\n",
			"crd.yaml":    "apiVersion: x/v1\nkind: Widget\n",
		}, []string{
			`shop/templates/deploy.yaml:2: kind: a "Deployment" of Kubernetes' (apps/v1)`, "write it as a service",
			`shop/templates/deploy.yaml:5: kind: a "Service"`, `shop/templates/crd.yaml:1: kind: a "Widget"`, "fairlead.dev/v1",
		}},
		"nothing": {map[string]string{"web.yaml": "{{ if false }}x{{ end }}"}, []string{"make no Compose document with these values"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := compile(t, c.templates)
			if err == nil || cluster.KindOf(err) != cluster.KindInvalid {
				t.Fatalf("not refused: %v", err)
			}
			for _, s := range c.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("it says %v, not %s", err, s)
				}
			}
		})
	}
	if _, err := compile(t, map[string]string{"web.yaml": "services: {web: {}}\n"}); !isProblems(err) {
		t.Errorf("no list of problems: %v", err)
	}
}

func isProblems(err error) bool {
	_, ok := errors.AsType[*compose.Problems](err)
	return ok
}
