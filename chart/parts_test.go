package chart_test

import (
	"strings"
	"testing"

	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/compose"
)

// parts is a chart with the chart sub within it, which a value switches on.
func parts(more ...chart.File) chart.Request {
	r := request(map[string]string{"x.yaml": "services: {web: {image: \"a/b:1\"}}\n"}, more...)
	r.Files[0].Data = append([]byte(chartYAML), "dependencies:\n- {name: sub, version: 1.0.0, condition: sub.enabled}\n"...)
	r.Files = append(r.Files,
		chart.File{Name: "values.yaml", Data: []byte("sub: {enabled: false}\n")},
		chart.File{Name: "charts/sub/Chart.yaml", Data: []byte("apiVersion: v2\nname: sub\nversion: 1.0.0\n")},
		chart.File{Name: "charts/sub/templates/y.yaml", Data: []byte("services: {sub: {image: \"a/c:1\"}}\n")})
	return r
}

// TestSchemasOfPartsThatAreOff: what is switched off is not checked, nor is where its schema
// leads looked at, as in Helm.
func TestSchemasOfPartsThatAreOff(t *testing.T) {
	for _, schema := range []string{`{"$ref": "https://example.com/schema.json"}`, `{"required": ["password"]}`, `no JSON`} {
		r := parts(chart.File{Name: "charts/sub/values.schema.json", Data: []byte(schema)})
		if _, err := renderer(t).Render(t.Context(), r); err != nil {
			t.Errorf("%s, switched off: %v", schema, err)
		}
		r.Values.Set = []string{"sub.enabled=true"}
		if _, err := renderer(t).Render(t.Context(), r); cluster.KindOf(err) != cluster.KindInvalid {
			t.Errorf("%s, switched on: %v", schema, err)
		}
	}
}

// TestCustomResourcesAreRefused, of the parts that are used, unless they are passed over.
func TestCustomResourcesAreRefused(t *testing.T) {
	crd := []byte("apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n")
	for _, tc := range []struct {
		what, file string
		set        []string
		skip       bool
		says       string
	}{
		{"its own", "crds/a.yaml", nil, false, "shop/crds/a.yaml: crds/ has what Kubernetes is taught"},
		{"passed over", "crds/a.yaml", nil, true, ""},
		{"of a part", "charts/sub/crds/b.yaml", []string{"sub.enabled=true"}, false, "shop/charts/sub/crds/b.yaml: crds/"},
		{"of a part that is off", "charts/sub/crds/b.yaml", nil, false, ""},
		{"no manifest", "crds/README.md", nil, false, ""},
	} {
		r := parts(chart.File{Name: tc.file, Data: crd})
		r.Values.Set, r.SkipCRDs = tc.set, tc.skip
		got, err := renderer(t).Render(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		_, err = got.Compose(t.Context(), "demo", compose.Options{})
		if (err == nil) != (tc.says == "") || err != nil && (!strings.Contains(err.Error(), tc.says) || !strings.Contains(err.Error(), "--skip-crds")) {
			t.Errorf("%s: %v", tc.what, err)
		}
		if tc.skip || tc.set != nil {
			continue
		}
		found := ""
		for _, f := range chart.Lint(t.Context(), renderer(t), r, false) {
			found += f.Severity + " " + f.Where + ": " + f.Message + "\n"
		}
		if strings.Contains(found, "error") != (tc.says != "") || !strings.Contains(found, tc.says) {
			t.Errorf("%s: lint finds\n%s", tc.what, found)
		}
	}
}
