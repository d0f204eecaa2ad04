package chart

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/loader/archive"
	helmchart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	"helm.sh/helm/v4/pkg/engine"
	"sigs.k8s.io/yaml"

	"github.com/fairlead/fairlead/cluster"
)

// APIVersion is what .Capabilities.APIVersions has beyond Helm's own: a chart for
// both worlds asks for it.
const APIVersion = "fairlead.dev/v1"

const notesFile = "NOTES.txt"

// Request is a chart and what it is rendered with.
type Request struct {
	Files   []File  `json:"files"`
	Values  Values  `json:"values"`
	Release Release `json:"release"`
	// APIVersions and KubeVersion are .Capabilities, beside and instead of the usual ones.
	APIVersions []string `json:"api_versions,omitempty"`
	KubeVersion string   `json:"kube_version,omitempty"`
	// Lint: values that templates or a schema require may be missing, and fail does not.
	Lint bool `json:"lint,omitempty"`
	// SkipSchema leaves the values unchecked.
	SkipSchema bool `json:"skip_schema,omitempty"`
	// SkipCRDs passes over what crds/ has.
	SkipCRDs bool `json:"skip_crds,omitempty"`
}

// Release is .Release. Its namespace is its name: an app's name is its address.
type Release struct {
	Name     string `json:"name"`
	Revision int    `json:"revision"` // from 1
	Upgrade  bool   `json:"upgrade,omitempty"`
}

// Info is what Chart.yaml says.
type Info struct {
	Name        string   `json:"name"`
	Version     string   `json:"version"`
	AppVersion  string   `json:"app_version,omitempty"`
	Description string   `json:"description,omitempty"`
	Home        string   `json:"home,omitempty"`
	Keywords    []string `json:"keywords,omitempty"`
	Type        string   `json:"type,omitempty"`
	Deprecated  bool     `json:"deprecated,omitempty"`
}

// Rendered is what the templates made.
type Rendered struct {
	Chart Info `json:"chart"`
	// Files are what each template made, by "chart/templates/name", those of
	// subcharts and NOTES.txt among them.
	Files map[string]string `json:"files"`
	// Values are what the user gave, merged, as YAML; a float that is whole is written 2.0.
	Values   string   `json:"values"`
	Warnings []string `json:"warnings,omitempty"`
	// CRDs are the files of crds/, of the charts that are used, by "chart/crds/name".
	CRDs []string `json:"crds,omitempty"`
}

// Notes is what the chart tells the user.
func (r *Rendered) Notes() string { return r.Files[r.notesName()] }

func (r *Rendered) notesName() string { return path.Join(r.Chart.Name, "templates", notesFile) }

// AllNotes are the notes of the chart, and then those of its parts.
func (r *Rendered) AllNotes() string {
	all := []string{r.Notes()}
	for _, name := range slices.Sorted(maps.Keys(r.Files)) {
		if strings.HasSuffix(name, notesFile) && name != r.notesName() {
			all = append(all, r.Files[name])
		}
	}
	all = slices.DeleteFunc(all, func(s string) bool { return strings.TrimSpace(s) == "" })
	return strings.Join(all, "\n")
}

// Documents are the names of the files that are Compose documents, in order. Files
// of blanks are none.
func (r *Rendered) Documents() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(r.Files)), func(name string) bool {
		return strings.HasSuffix(name, notesFile) || strings.TrimSpace(r.Files[name]) == ""
	})
}

// load makes Helm's chart of files.
func load(files []File) (*helmchart.Chart, error) {
	list := make([]*archive.BufferedFile, len(files))
	for i, f := range files {
		list[i] = &archive.BufferedFile{Name: f.Name, Data: f.Data}
	}
	return loader.LoadFiles(list)
}

// Describe reads Chart.yaml.
func Describe(files []File) (Info, error) {
	var m helmchart.Metadata
	if err := yaml.Unmarshal(Get(files, chartutil.ChartfileName), &m); err != nil {
		return Info{}, cluster.Invalidf("cannot load Chart.yaml: %w", err)
	}
	if err := m.Validate(); err != nil {
		return Info{}, cluster.Invalidf("Chart.yaml: %w", err)
	}
	return info(&m), nil
}

func info(m *helmchart.Metadata) Info {
	return Info{
		Name: m.Name, Version: m.Version, AppVersion: m.AppVersion, Description: m.Description, Home: m.Home,
		Keywords: m.Keywords, Type: m.Type, Deprecated: m.Deprecated,
	}
}

// Render renders a chart in this process, where nothing ends a template that loops:
// see Renderer. Its errors are Helm's, of KindInvalid.
func Render(ctx context.Context, r Request) (*Rendered, error) {
	out, err := render(ctx, r)
	if err != nil {
		return nil, cluster.Invalidf("%w", err)
	}
	return out, nil
}

func render(ctx context.Context, r Request) (*Rendered, error) {
	c, err := load(r.Files)
	if err != nil {
		return nil, err
	}
	caps, err := capabilities(r)
	if err != nil {
		return nil, err
	}
	if err := fit(c, caps); err != nil {
		return nil, err
	}
	given, err := r.Values.Merge()
	if err != nil {
		return nil, err
	}
	kept, err := keep(given)
	if err != nil {
		return nil, err
	}
	if err := chartutil.ProcessDependencies(c, given); err != nil {
		return nil, fmt.Errorf("chart dependencies processing failed: %w", err)
	}
	if !r.SkipSchema || r.Lint {
		if err := closedSchemas(c); err != nil { // of the charts that are left: the others' are not looked at
			return nil, err
		}
	}
	vals, err := util.ToRenderValuesWithSchemaValidation(c, given, common.ReleaseOptions{
		Name: r.Release.Name, Namespace: r.Release.Name, Revision: r.Release.Revision,
		IsUpgrade: r.Release.Upgrade, IsInstall: !r.Release.Upgrade,
	}, caps, r.SkipSchema || r.Lint)
	if err != nil {
		return nil, err
	}
	if r.Lint && !r.SkipSchema {
		if err := unfit(c, vals); err != nil {
			return nil, err
		}
	}
	files, err := engine.Engine{LintMode: r.Lint}.RenderWithContext(ctx, c, vals)
	if err != nil {
		return nil, err
	}
	out := &Rendered{Chart: info(c.Metadata), Files: files, Values: kept}
	for _, d := range c.CRDObjects() {
		if !r.SkipCRDs {
			out.CRDs = append(out.CRDs, d.Filename)
		}
	}
	return out, nil
}

// capabilities are Helm's, as helm template has them without a cluster.
func capabilities(r Request) (*common.Capabilities, error) {
	caps := common.DefaultCapabilities.Copy()
	if r.KubeVersion != "" {
		k, err := common.ParseKubeVersion(r.KubeVersion)
		if err != nil {
			return nil, fmt.Errorf("invalid kube version %q: %w", r.KubeVersion, err)
		}
		caps.KubeVersion = *k
	}
	caps.APIVersions = slices.Concat(common.VersionSet(r.APIVersions), caps.APIVersions, common.VersionSet{APIVersion})
	return caps, nil
}

// fit refuses charts that cannot be rendered as they are.
func fit(c *helmchart.Chart, caps *common.Capabilities) error {
	if c.Metadata.Type == "library" {
		return errors.New("library charts are not installable: name it among the dependencies of another chart")
	}
	if want := c.Metadata.KubeVersion; want != "" && !chartutil.IsCompatibleRange(want, caps.KubeVersion.String()) {
		return fmt.Errorf("chart requires kubeVersion: %s which is incompatible with Kubernetes %s", want, caps.KubeVersion.Version)
	}
	if names := missing(c); names != nil {
		return fmt.Errorf("found in Chart.yaml, but missing in charts/ directory: %s; `fairlead chart dependency update` fetches them, and so does --dependency-update", strings.Join(names, ", "))
	}
	return nil
}

// closedSchemas refuses schemas that refer to others: the library would fetch them
// from the network, or read them from this machine.
func closedSchemas(c *helmchart.Chart) error {
	if c.Schema != nil {
		var v any
		_ = json.Unmarshal(c.Schema, &v) // what is no JSON refers to nothing, and is refused later
		if ref := openRef(v); ref != "" {
			return fmt.Errorf("chart %s: values.schema.json refers to %q: a schema refers to its own parts alone, #/$defs/…", c.Name(), ref)
		}
	}
	for _, d := range c.Dependencies() {
		if err := closedSchemas(d); err != nil {
			return err
		}
	}
	return nil
}

// openRef finds a reference that leads out of a schema.
func openRef(v any) string {
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			s, text := v[k].(string)
			switch {
			case text && (k == "$ref" || k == "$dynamicRef" || k == "$recursiveRef") && !strings.HasPrefix(s, "#"):
				return s
			case text && k == "$schema" && !strings.HasPrefix(strings.TrimPrefix(strings.TrimPrefix(s, "http://"), "https://"), "json-schema.org/"):
				return s
			}
			if found := openRef(v[k]); found != "" {
				return found
			}
		}
	case []any:
		for _, x := range v {
			if found := openRef(x); found != "" {
				return found
			}
		}
	}
	return ""
}
