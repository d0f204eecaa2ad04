package chart_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/cluster"
)

// TestKeptValuesAreTheSame: taken again, the values of a release render what they did,
// large numbers too.
func TestKeptValuesAreTheSame(t *testing.T) {
	r := request(map[string]string{"x.yaml": `{{ .Values.n }} {{ .Values.n | kindOf }} {{ index .Values.l 0 }} {{ .Values.m.deep }} {{ .Values.f }} {{ .Values.s | kindOf }} {{ .Values.b }} {{ .Values.huge }}`})
	r.Values.Set = []string{"n=12345678", "l={7654321}", "m.deep=2000000", "b=true"}
	r.Values.JSON = []string{"f=1.5", "huge=1e300"}
	r.Values.String = []string{"s=7"}
	first, err := chart.Render(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	r.Values = (&chart.Values{Set: []string{"more=1"}}).Beside(chart.File{Name: "the values of release 1", Data: []byte(first.Values)})
	again, err := chart.Render(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if want := "12345678 int64 7654321 2000000 1.5 string true 1e+300"; first.Files["shop/templates/x.yaml"] != want {
		t.Errorf("at first it is %s", first.Files["shop/templates/x.yaml"])
	}
	if d := cmp.Diff(first.Files, again.Files); d != "" {
		t.Error(d)
	}
	if !strings.Contains(again.Values, "more: 1\n") || !strings.Contains(again.Values, "\"n\": 12345678\n") {
		t.Errorf("kept is\n%s", again.Values)
	}
	r.Values = (&chart.Values{}).Beside(chart.File{Name: "the values of release 1", Data: []byte("a: [")})
	if _, err := chart.Render(t.Context(), r); err == nil || !strings.Contains(err.Error(), "the values of release 1") {
		t.Errorf("what is no YAML: %v", err)
	}
}

func TestValuesAreFilesHere(t *testing.T) {
	var v chart.Values
	err := v.ReadValues([]string{"https://example.com/values.yaml"}, nil)
	if cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), "curl -fsSL https://example.com/values.yaml") {
		t.Errorf("it says %v", err)
	}
}
