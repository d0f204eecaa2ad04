package chart_test

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/compose"
)

// errorsOf are the errors that lint finds in a chart with a schema and values.
func errorsOf(t *testing.T, schema, values string, strict bool) string {
	t.Helper()
	r := request(map[string]string{"x.yaml": "services: {web: {image: \"a/b:1\"}}\n", "NOTES.txt": "hello"},
		chart.File{Name: "values.schema.json", Data: []byte(schema)}, chart.File{Name: "values.yaml", Data: []byte(values)})
	var out []string
	for _, f := range chart.Lint(t.Context(), inProcess{}, r, strict) {
		if f.Severity == "error" {
			out = append(out, f.Message)
		}
	}
	return strings.Join(out, "\n")
}

// TestLintChecksBySchema: the chart's own values are checked; those that are missing may come
// with the installation, unless all are said to be there.
func TestLintChecksBySchema(t *testing.T) {
	const one = `{"required": ["host"], "properties": {"num": {"type": "integer"}}}`
	for name, c := range map[string]struct {
		schema, values string
		says, not      string // without --strict; "": nothing is found
		strict         string
	}{
		"fits":              {one, "{host: a, num: 1}", "", "", ""},
		"missing":           {one, "{num: 1}", "", "", "missing property 'host'"},
		"two missing":       {`{"required": ["a", "b"]}`, "{}", "", "", "missing properties"},
		"wrong and missing": {one, "{num: text}", "at '/num': got string, want integer", "missing", "missing property 'host'"},
		"missing below":     {`{"properties": {"db": {"required": ["password"], "properties": {"port": {"type": "integer"}}}}}`, "{db: {port: 1}}", "", "", "at '/db'"},
		"both below":        {`{"properties": {"db": {"required": ["password"], "properties": {"port": {"type": "integer"}}}}}`, "{db: {port: x}}", "at '/db/port'", "password", "password"},
		"by reference":      {`{"$defs": {"db": {"required": ["password"]}}, "properties": {"db": {"$ref": "#/$defs/db"}}}`, "{db: {}}", "", "", "password"},
		"one may be made":   {`{"anyOf": [{"required": ["a"]}, {"properties": {"num": {"type": "integer"}}}]}`, "{num: text}", "", "", "'anyOf' failed"},
		"none can be":       {`{"anyOf": [{"properties": {"num": {"type": "boolean"}}, "required": ["a"]}, {"properties": {"num": {"type": "integer"}}}]}`, "{num: text}", "'anyOf' failed", "missing", "'anyOf' failed"},
		"one of":            {`{"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}`, "{}", "", "", "'oneOf' failed"},
		"both of one":       {`{"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}`, "{a: 1, b: 2}", "'oneOf' failed", "", "'oneOf' failed"},
		"all of":            {`{"allOf": [{"required": ["a"]}, {"properties": {"num": {"type": "integer"}}}]}`, "{num: text}", "want integer", "missing", "want integer"},
		"depends":           {`{"dependentRequired": {"a": ["b"]}}`, "{a: 1}", "", "", "required"},
		"unknown":           {`{"additionalProperties": false, "required": ["a"]}`, "{z: 1}", "additional properties 'z' not allowed", "missing", "missing"},
		"no JSON":           {"{", "{}", "values don't meet", "", "values don't meet"},
		"no schema":         {`{"type": "nothing"}`, "{}", "values don't meet", "", "values don't meet"},
		"leads out":         {`{"$ref": "https://example.com/s.json"}`, "{}", "refers to", "", "refers to"},
	} {
		t.Run(name, func(t *testing.T) {
			got := errorsOf(t, c.schema, c.values, false)
			if (got == "") != (c.says == "") || !strings.Contains(got, c.says) || c.not != "" && strings.Contains(got, c.not) {
				t.Errorf("it says %q", got)
			}
			if got := errorsOf(t, c.schema, c.values, true); (got == "") != (c.strict == "") || !strings.Contains(got, c.strict) {
				t.Errorf("strict it says %q", got)
			}
		})
	}
}

// TestLintChecksParts: by their own schemas, with the name of each.
func TestLintChecksParts(t *testing.T) {
	r := parts(chart.File{Name: "charts/sub/values.schema.json", Data: []byte(`{"required": ["password"], "properties": {"num": {"type": "integer"}}}`)})
	r.Values.Set = []string{"sub.enabled=true"}
	if list := chart.Lint(t.Context(), inProcess{}, r, false); chart.Failed(list) {
		t.Errorf("%+v", list)
	}
	r.Values.Set = append(r.Values.Set, "sub.num=text")
	list := chart.Lint(t.Context(), inProcess{}, r, false)
	if !chart.Failed(list) || !strings.Contains(list[len(list)-1].Message, "sub:\n- at '/num': got string, want integer") || strings.Contains(list[len(list)-1].Message, "password") {
		t.Errorf("%+v", list)
	}
}

// TestLintReadsChartYAMLAsHelmDoes: what it has that nothing reads is a mistake.
func TestLintReadsChartYAMLAsHelmDoes(t *testing.T) {
	for yaml, says := range map[string]string{
		"apiVersion: v2\nname: shop\nversion: 0.1.0\n":               "",
		"apiVersion: v1\nname: shop\nversion: 0.1.0\n":               "",
		"apiVersion: v3\nname: shop\nversion: 0.1.0\n":               `apiVersion: "v3" is neither v1 nor v2`,
		"apiVersion: v2\nname: shop\nversion: 0.1.0\nicons: a.png\n": `unknown field "icons"`,
	} {
		r := request(map[string]string{"x.yaml": "services: {web: {image: \"a/b:1\"}}\n"})
		for i := range r.Files {
			if r.Files[i].Name == "Chart.yaml" {
				r.Files[i].Data = []byte(yaml)
			}
		}
		got := ""
		for _, f := range chart.Lint(t.Context(), inProcess{}, r, false) {
			if f.Severity == "error" {
				got += f.Where + ": " + f.Message
			}
		}
		if (got == "") != (says == "") || !strings.Contains(got, says) {
			t.Errorf("%q: %q", yaml, got)
		}
	}
}

// TestCreatedCharts: what is set arrives as it was written, and two are parts of one.
func TestCreatedCharts(t *testing.T) {
	base := t.TempDir()
	dir, err := chart.Create(base, "front")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"one", "two"} {
		if _, err := chart.Create(filepath.Join(dir, "charts"), part); err != nil {
			t.Fatal(err)
		}
	}
	files, err := chart.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	r := chart.Request{Files: files, Release: chart.Release{Name: "shop", Revision: 1}}
	r.Values.JSON = []string{`environment={"A": 1000000, "B": null, "C": true, "D": "a: b $x", "E": 1.5, "F": "010", "G": "x\ny"}`}
	r.Values.Set = []string{"config=x", "one.config=y"}
	if list := chart.Lint(t.Context(), inProcess{}, r, true); chart.Failed(list) {
		t.Fatalf("%+v", list)
	}
	got, err := chart.Render(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	res, err := got.Compose(t.Context(), "shop", compose.Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"A": "1000000", "C": "true", "D": "a: b $x", "E": "1.5", "F": "010", "G": "x\ny"}
	if env := res.Services["web"].Task.Env; !maps.Equal(env, want) || len(res.Services) != 3 || len(res.Services["one"].Task.Configs) != 1 {
		t.Errorf("%q, services %v", env, slices.Collect(maps.Keys(res.Services)))
	}
}
