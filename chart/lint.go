package chart

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	helmchart "helm.sh/helm/v4/pkg/chart/v2"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	"sigs.k8s.io/yaml"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/compose"
)

// Finding is something that a check of a chart found.
type Finding struct {
	Severity string `json:"severity"` // error, warning, info
	Where    string `json:"where"`    // file, and line where that is known
	Message  string `json:"message"`
}

// Severities of findings.
const (
	findError   = "error"
	findWarning = "warning"
	// FindInfo is what an installation would not mind.
	FindInfo = "info"
)

// Lint examines a chart: what installing it would refuse is an error. In strict mode
// missing values are errors too; else they may come with the installation. The values are
// checked by the schemas in either.
func Lint(ctx context.Context, r Engine, req Request, strict bool) []Finding {
	out := []Finding{}
	add := func(severity, where, format string, args ...any) {
		out = append(out, Finding{severity, where, fmt.Sprintf(format, args...)})
	}
	meta, err := Describe(req.Files)
	if err != nil {
		add(findError, "Chart.yaml", "%s", strings.TrimPrefix(err.Error(), "Chart.yaml: "))
		return out
	}
	for _, wrong := range metadata(Get(req.Files, chartutil.ChartfileName)) {
		add(findError, "Chart.yaml", "%s", wrong)
	}
	for _, want := range []struct{ where, have, say string }{
		{"Chart.yaml", meta.Description, "there is no description:, which lists of packages show"},
		{"Chart.yaml", meta.AppVersion, "there is no appVersion:, the version of the program in it"},
		{"values.yaml", string(Get(req.Files, "values.yaml")), "there are no values: nothing can be set"},
	} {
		if strings.TrimSpace(want.have) == "" {
			add(FindInfo, want.where, "%s", want.say)
		}
	}
	if meta.Deprecated {
		add(findWarning, "Chart.yaml", "the chart is deprecated")
	}
	if meta.Type == "library" {
		return out // its templates make nothing by themselves
	}
	req.Lint = !strict
	got, err := r.Render(ctx, req)
	if err != nil {
		add(findError, "templates", "%s", err)
		return out
	}
	for _, w := range got.Warnings {
		add(findWarning, "templates", "%s", w)
	}
	for _, name := range Varying(ctx, r, req, got) {
		add(findWarning, name, "%s", Varies)
	}
	if got.Notes() == "" {
		add(FindInfo, path.Join(meta.Name, "templates", notesFile), "there are no notes for whoever installs it")
	}
	res, err := got.Compose(ctx, cluster.AppName(req.Release.Name), compose.Options{})
	if p, ok := errors.AsType[*compose.Problems](err); ok {
		for _, x := range p.List {
			out = append(out, finding(findError, x))
		}
		return out
	}
	if err != nil {
		add(findError, "templates", "%s", err)
		return out
	}
	for _, w := range res.Warnings {
		out = append(out, finding(findWarning, w))
	}
	return out
}

// metadata says what of a Chart.yaml nothing reads, as Helm's lint does.
func metadata(text []byte) (wrong []string) {
	var m helmchart.Metadata
	if err := yaml.UnmarshalStrict(text, &m); err != nil {
		_, why, _ := strings.Cut(err.Error(), "decoding JSON: json: ")
		wrong = append(wrong, cmp.Or(why, err.Error()))
	}
	if m.APIVersion != helmchart.APIVersionV1 && m.APIVersion != helmchart.APIVersionV2 {
		wrong = append(wrong, fmt.Sprintf("apiVersion: %q is neither v1 nor v2", m.APIVersion))
	}
	return wrong
}

func finding(severity string, p compose.Problem) Finding {
	where, rest, _ := strings.Cut(p.String(), ": ")
	return Finding{severity, where, rest}
}

// Failed reports whether one of the findings is an error.
func Failed(list []Finding) bool {
	for _, f := range list {
		if f.Severity == findError {
			return true
		}
	}
	return false
}
