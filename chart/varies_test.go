package chart_test

import (
	"context"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/chart"
)

// inProcess renders here.
type inProcess struct{}

func (inProcess) Render(ctx context.Context, r chart.Request) (*chart.Rendered, error) {
	return chart.Render(ctx, r)
}

// counted renders, and counts.
type counted struct{ n int }

func (c *counted) Render(ctx context.Context, r chart.Request) (*chart.Rendered, error) {
	c.n++
	return chart.Render(ctx, r)
}

// TestVarying: which files are others each time; what cannot be is rendered once.
func TestVarying(t *testing.T) {
	packed := func() chart.File {
		_, b, err := chart.Pack([]chart.File{{Name: "Chart.yaml", Data: []byte("apiVersion: v2\nname: sub\nversion: 1.0.0\n")}, {Name: "templates/y.yaml", Data: []byte(`a: {{ randNumeric 9 }}`)}})
		if err != nil {
			t.Fatal(err)
		}
		return chart.File{Name: "charts/sub-1.0.0.tgz", Data: b}
	}
	for name, c := range map[string]struct {
		template string
		more     []chart.File
		given    []string
		again    int
		want     []string
	}{
		"password":            {"a: {{ randAlphaNum 20 }}", nil, nil, 1, []string{"shop/templates/x.yaml"}},
		"htpasswd":            {`a: {{ htpasswd "ann" "pw" }}`, nil, nil, 1, []string{"shop/templates/x.yaml"}},
		"key":                 {"a: {{ genPrivateKey \"ed25519\" | b64enc }}", nil, nil, 1, []string{"shop/templates/x.yaml"}},
		"time":                {"a: {{ now }}", nil, nil, 1, []string{"shop/templates/x.yaml"}},
		"order of a mapping":  {`a: {{ keys .Values.many }}`, []chart.File{{Name: "values.yaml", Data: []byte("many: {a: 1, b: 1, c: 1, d: 1, e: 1, f: 1, g: 1, h: 1, i: 1, j: 1, k: 1, l: 1, m: 1, n: 1, o: 1, p: 1}")}}, nil, 1, []string{"shop/templates/x.yaml"}},
		"over two lines":      {"a: {{ cat\n  (uuidv4) }}", nil, nil, 1, []string{"shop/templates/x.yaml"}},
		"may, does not":       {`a: {{ now | date "2006" }}`, nil, nil, 1, nil},
		"words of people":     {"# do it now, on this date\na: {{ .Values.date }}{{ .Values.update_config }}{{ .Values.randomize }}", nil, nil, 0, nil},
		"none":                {"a: b", nil, nil, 0, nil},
		"of a helper":         {`a: {{ include "pw" . }}`, []chart.File{{Name: "templates/_h.tpl", Data: []byte(`{{ define "pw" }}{{ randAlpha 20 }}{{ end }}`)}}, nil, 1, []string{"shop/templates/x.yaml"}},
		"of a value":          {`a: {{ tpl .Values.pw . }}`, []chart.File{{Name: "values.yaml", Data: []byte(`pw: "{{ randAscii 20 | b64enc }}"`)}}, nil, 1, []string{"shop/templates/x.yaml"}},
		"of a value given":    {`a: {{ tpl .Values.pw . }}`, nil, []string{"pw={{ randAlpha 20 }}"}, 1, []string{"shop/templates/x.yaml"}},
		"of a part's archive": {"a: b", []chart.File{packed()}, nil, 1, []string{"shop/charts/sub/templates/y.yaml"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := request(map[string]string{"x.yaml": c.template}, c.more...)
			r.Values.Literal = c.given
			if name == "words of people" {
				r.Files = append(r.Files, chart.File{Name: "values.yaml", Data: []byte("date: x\nupdate_config: x\nrandomize: x\n")})
			}
			var engine counted
			got, err := engine.Render(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			names := chart.Varying(t.Context(), &engine, r, got)
			if d := cmp.Diff(c.want, names); d != "" || engine.n != 1+c.again {
				t.Errorf("rendered %d times: %s", engine.n, d)
			}
			list := chart.Lint(t.Context(), inProcess{}, r, false)
			if found := slices.ContainsFunc(list, func(f chart.Finding) bool { return f.Message == chart.Varies && f.Severity == "warning" }); found != (c.want != nil) {
				t.Errorf("lint finds %+v", list)
			}
		})
	}
}
