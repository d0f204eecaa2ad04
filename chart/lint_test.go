package chart_test

import (
	"strings"
	"testing"

	"github.com/fairlead/fairlead/chart"
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
