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

// TestKeptNumbersAreOfTheirKind: a number of a file is a float to a template, and stays one;
// people see it as they wrote it.
func TestKeptNumbersAreOfTheirKind(t *testing.T) {
	r := request(map[string]string{"x.yaml": `{{ range $k, $v := .Values }}{{ $k }}={{ $v }}:{{ kindOf $v }} {{ end }}{{ kindOf .Values.m.deep }} {{ kindOf (index .Values.l 1) }} {{ kindOf (index .Values.o 0).x }}`})
	r.Values.Files = []chart.File{{Name: "v.yaml", Data: []byte("a: 12345678\nb: 2\nc: -5000000\nd: 1e20\ne: 0\n\"n\": 3\nl: [1, 20000000]\nm: {deep: 4, text: '7.0'}\no: [{x: 1}]\nü: 5\n")}}
	r.Values.JSON = []string{"j=3000000", "f=0.5"}
	r.Values.Set = []string{"s=12345678", "t=2"}
	first, err := chart.Render(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"a=1.2345678e+07:float64 ", "b=2:float64 ", "c=-5e+06:float64 ", "j=3e+06:float64 ", "s=12345678:int64 ", "t=2:int64 "} {
		if !strings.Contains(first.Files["shop/templates/x.yaml"], want) {
			t.Errorf("%q is not in %s", want, first.Files["shop/templates/x.yaml"])
		}
	}
	kept := first.Values
	for range 2 {
		r.Values = (&chart.Values{}).Beside(chart.File{Name: "the values of release 1", Data: []byte(kept)})
		again, err := chart.Render(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(first.Files, again.Files); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff(kept, again.Values); d != "" {
			t.Error("kept anew they are others", d)
		}
	}
	plain, err := chart.PlainValues(kept)
	want := "a: 12345678\nb: 2\nc: -5000000\nd: 1e+20\ne: 0\nf: 0.5\nj: 3000000\nl:\n- 1\n- 20000000\nm:\n  deep: 4\n  text: \"7.0\"\n\"n\": 3\no:\n- x: 1\ns: 12345678\nt: 2\nü: 5\n"
	if d := cmp.Diff(want, plain); d != "" || err != nil {
		t.Error(d, err)
	}
	// Those of a release that was made before are whole numbers, as they were then.
	r.Values = (&chart.Values{}).Beside(chart.File{Name: "the values of release 1", Data: []byte(plain)}, chart.File{Name: "none", Data: nil})
	if again, err := chart.Render(t.Context(), r); err != nil || !strings.Contains(again.Files["shop/templates/x.yaml"], "a=12345678:int64") {
		t.Errorf("%v, %v", again, err)
	}
}

// TestWholeAnswerIsNoFileOfValues: what get all prints has the values as a text in it.
func TestWholeAnswerIsNoFileOfValues(t *testing.T) {
	var v chart.Values
	err := v.ReadValues([]string{"-"}, strings.NewReader("app: shop\nrelease: 3\nvalues: |\n  replicas: 2\nmanifest: \"services: {}\"\n"))
	if cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), "values -: ") || !strings.Contains(err.Error(), "`fairlead get values NAME -o yaml`") {
		t.Errorf("%v", err)
	}
	if err := v.ReadValues([]string{"-"}, strings.NewReader("app: {name: shop}\nrelease: stable\n")); err != nil {
		t.Errorf("a package's own app and release: %v", err)
	}
}

func TestValuesAreFilesHere(t *testing.T) {
	var v chart.Values
	err := v.ReadValues([]string{"https://example.com/values.yaml"}, nil)
	if cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), "curl -fsSL https://example.com/values.yaml") {
		t.Errorf("it says %v", err)
	}
}
