package chart

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode"

	helmchart "helm.sh/helm/v4/pkg/chart/v2"
	"sigs.k8s.io/yaml"

	"github.com/fairlead/fairlead/cluster"
)

// Pack makes a chart's archive, and its usual name. Equal files make an equal archive.
func Pack(files []File) (name string, b []byte, err error) {
	c, err := load(files)
	if err != nil {
		return "", nil, cluster.Invalidf("%w", err)
	}
	if missing := missing(c); missing != nil {
		return "", nil, cluster.Invalidf("Chart.yaml names dependencies that charts/ does not have: %s; `fairlead chart dependency update` fetches them", strings.Join(missing, ", "))
	}
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	for _, f := range slices.SortedFunc(slices.Values(files), first) {
		h := &tar.Header{Name: path.Join(c.Name(), f.Name), Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(f.Data)), Format: tar.FormatUSTAR}
		if len(h.Name) > 100 || strings.ContainsFunc(h.Name, func(r rune) bool { return r > unicode.MaxASCII }) {
			h.Format = tar.FormatPAX
		}
		if err := w.WriteHeader(h); err != nil {
			return "", nil, fmt.Errorf("pack %s: %w", f.Name, err)
		}
		if _, err := w.Write(f.Data); err != nil {
			return "", nil, fmt.Errorf("pack %s: %w", f.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		return "", nil, err
	}
	if err := z.Close(); err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("%s-%s.tgz", c.Name(), c.Metadata.Version), out.Bytes(), nil
}

// first orders files, Chart.yaml before all others.
func first(a, b File) int {
	rank := func(f File) int {
		if f.Name == "Chart.yaml" {
			return 0
		}
		return 1
	}
	return cmp.Or(rank(a)-rank(b), strings.Compare(a.Name, b.Name))
}

// WithVersion returns files whose Chart.yaml says another version of the chart or of
// the program in it, where they are not empty.
func WithVersion(files []File, version, appVersion string) ([]File, error) {
	if version == "" && appVersion == "" {
		return files, nil
	}
	var m helmchart.Metadata
	if err := yaml.Unmarshal(Get(files, "Chart.yaml"), &m); err != nil {
		return nil, cluster.Invalidf("cannot load Chart.yaml: %w", err)
	}
	m.Version, m.AppVersion = cmp.Or(version, m.Version), cmp.Or(appVersion, m.AppVersion)
	if err := m.Validate(); err != nil {
		return nil, cluster.Invalidf("Chart.yaml: %w", err)
	}
	b, err := yaml.Marshal(&m)
	if err != nil {
		return nil, err
	}
	out := slices.Clone(files)
	for i := range out {
		if out[i].Name == "Chart.yaml" {
			out[i].Data = b
		}
	}
	return out, nil
}

func missing(c *helmchart.Chart) (names []string) {
	for _, d := range c.Metadata.Dependencies {
		if !slices.ContainsFunc(c.Dependencies(), func(x *helmchart.Chart) bool { return x.Name() == d.Name }) {
			names = append(names, d.Name)
		}
	}
	return names
}
