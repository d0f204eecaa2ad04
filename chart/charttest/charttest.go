package charttest

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	"helm.sh/helm/v4/pkg/cli/values"
	"helm.sh/helm/v4/pkg/engine"
	"helm.sh/helm/v4/pkg/getter"

	"github.com/fairlead/fairlead/chart"
)

//go:embed testdata/*.txt
var testdata embed.FS

// Case is a chart, what it is rendered with, and what the answer must hold.
type Case struct {
	Name  string
	Files map[string]string // by name in the chart
	Given map[string]string // files that -f and --set-file name
	Flags map[string][]string
	// Has must stand in the rendered files, Fails in the error; one of them is set.
	Has   []string
	Fails string

	release chart.Release
	apis    []string
}

// Cases are all cases, by name.
func Cases() ([]Case, error) {
	names, err := fs.Glob(testdata, "testdata/*.txt")
	if err != nil {
		return nil, err
	}
	var out []Case
	for _, n := range names {
		b, err := testdata.ReadFile(n)
		if err != nil {
			return nil, err
		}
		c, err := parse(strings.TrimSuffix(filepath.Base(n), ".txt"), string(b))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", n, err)
		}
		out = append(out, c)
	}
	return out, nil
}

// parse reads a case: lines "key: value", then files, each after "-- name --".
func parse(name, text string) (Case, error) {
	c := Case{
		Name: name, Files: map[string]string{"Chart.yaml": "apiVersion: v2\nname: shop\nversion: 1.2.3\nappVersion: \"4.5\"\n"},
		Given: map[string]string{}, Flags: map[string][]string{}, release: chart.Release{Name: "demo", Revision: 1},
	}
	file := ""
	for line := range strings.Lines(text) {
		if n, ok := strings.CutPrefix(line, "-- "); ok {
			file = strings.TrimSuffix(strings.TrimSpace(n), " --")
			into(&c, file, "", true)
			continue
		}
		if file != "" {
			into(&c, file, line, false)
			continue
		}
		k, v, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch k {
		case "":
		case "f", "set", "set-string", "set-json", "set-file", "set-literal":
			c.Flags[k] = append(c.Flags[k], v)
		case "has":
			c.Has = append(c.Has, v)
		case "fails":
			c.Fails = v
		case "api":
			c.apis = append(c.apis, v)
		case "upgrade":
			n, err := strconv.Atoi(v)
			if err != nil {
				return c, err
			}
			c.release.Revision, c.release.Upgrade = n, true
		default:
			return c, fmt.Errorf("unknown line %q", line)
		}
	}
	if (c.Has == nil) == (c.Fails == "") {
		return c, fmt.Errorf("one of has: and fails: is needed")
	}
	return c, nil
}

func into(c *Case, file, line string, fresh bool) {
	m := c.Files
	if strings.HasPrefix(file, "given/") {
		m = c.Given
	}
	if fresh {
		m[file] = ""
	}
	m[file] += line
}

// Write puts the chart into dir/chart and the given files into dir/given.
func (c Case) Write(dir string) error {
	for prefix, m := range map[string]map[string]string{"chart": c.Files, "": c.Given} {
		for name, text := range m {
			f := filepath.Join(dir, prefix, name)
			if err := os.MkdirAll(filepath.Dir(f), 0o750); err != nil {
				return err
			}
			if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

// Request is what package chart is asked about a case that was written to dir.
func (c Case) Request(dir string) (chart.Request, error) {
	files, err := chart.Read(filepath.Join(dir, "chart"))
	if err != nil {
		return chart.Request{}, err
	}
	v := chart.Values{
		JSON: c.Flags["set-json"], Set: c.Flags["set"], String: c.Flags["set-string"],
		File: c.paths(dir, "set-file"), Literal: c.Flags["set-literal"],
	}
	err = v.ReadValues(c.paths(dir, "f"), strings.NewReader(""))
	return chart.Request{Files: files, Values: v, Release: c.release, APIVersions: c.apis}, err
}

// paths are the values of a flag, with the given files where they were written.
func (c Case) paths(dir, flag string) []string {
	var out []string
	for _, v := range c.Flags[flag] {
		out = append(out, strings.ReplaceAll(v, "given/", dir+"/given/"))
	}
	return out
}

// Oracle is what Helm's library makes of a case that was written to dir.
func (c Case) Oracle(ctx context.Context, dir string) (map[string]string, error) {
	ch, err := loader.Load(filepath.Join(dir, "chart"))
	if err != nil {
		return nil, err
	}
	o := values.Options{
		ValueFiles: c.paths(dir, "f"), JSONValues: c.Flags["set-json"], Values: c.Flags["set"], StringValues: c.Flags["set-string"],
		FileValues: c.paths(dir, "set-file"), LiteralValues: c.Flags["set-literal"],
	}
	given, err := o.MergeValues(getter.Providers{})
	if err != nil {
		return nil, err
	}
	if err := chartutil.ProcessDependencies(ch, given); err != nil {
		return nil, fmt.Errorf("chart dependencies processing failed: %w", err)
	}
	caps := common.DefaultCapabilities.Copy()
	caps.APIVersions = slices.Concat(common.VersionSet(c.apis), caps.APIVersions, common.VersionSet{chart.APIVersion})
	vals, err := util.ToRenderValues(ch, given, common.ReleaseOptions{
		Name: c.release.Name, Namespace: c.release.Name, Revision: c.release.Revision,
		IsUpgrade: c.release.Upgrade, IsInstall: !c.release.Upgrade,
	}, caps)
	if err != nil {
		return nil, err
	}
	return engine.Engine{}.RenderWithContext(ctx, ch, vals)
}

// Check says what a case's answer lacks, or "".
func (c Case) Check(files map[string]string, err error) string {
	if c.Fails != "" {
		if err == nil || !strings.Contains(err.Error(), c.Fails) {
			return fmt.Sprintf("the error is %v; it must hold %q", err, c.Fails)
		}
		return ""
	}
	if err != nil {
		return err.Error()
	}
	all := strings.Join(slices.Sorted(maps.Values(files)), "\n")
	for _, h := range c.Has {
		if !strings.Contains(all, h) {
			return fmt.Sprintf("%q is not in\n%s", h, all)
		}
	}
	return ""
}

// Equal runs the cases of these names, or all of them, both ways in directories below
// dir, with answer for package chart's way, and says which differ.
func Equal(ctx context.Context, dir string, answer func(context.Context, chart.Request) (*chart.Rendered, error), names ...string) (cases int, differ map[string]string, err error) {
	list, err := Cases()
	if err != nil {
		return 0, nil, err
	}
	if len(names) > 0 {
		list = slices.DeleteFunc(list, func(c Case) bool { return !slices.Contains(names, c.Name) })
	}
	differ = map[string]string{}
	for _, c := range list {
		d := filepath.Join(dir, c.Name)
		if err := c.Write(d); err != nil {
			return 0, nil, err
		}
		want, wantErr := c.Oracle(ctx, d)
		if why := c.Check(want, wantErr); why != "" {
			differ[c.Name] = "the case itself: " + why
			continue
		}
		req, gotErr := c.Request(d)
		var got *chart.Rendered
		if gotErr == nil {
			got, gotErr = answer(ctx, req)
		}
		differ[c.Name] = difference(want, wantErr, got, gotErr)
	}
	maps.DeleteFunc(differ, func(_, why string) bool { return why == "" })
	return len(list), differ, nil
}

func difference(want map[string]string, wantErr error, got *chart.Rendered, gotErr error) string {
	switch {
	case wantErr != nil && gotErr != nil:
		if sortedLines(wantErr) != sortedLines(gotErr) {
			return fmt.Sprintf("Helm says %q, this %q", wantErr, gotErr)
		}
		return ""
	case wantErr != nil || gotErr != nil:
		return fmt.Sprintf("Helm's error is %v, this one's %v", wantErr, gotErr)
	case !maps.Equal(want, got.Files):
		for _, n := range slices.Sorted(maps.Keys(want)) {
			if want[n] != got.Files[n] {
				return fmt.Sprintf("%s is %q to Helm, %q here", n, want[n], got.Files[n])
			}
		}
		return fmt.Sprintf("Helm makes %d files, this %d", len(want), len(got.Files))
	}
	return ""
}

// sortedLines is an error's text in one order: the schema library lists what is wrong
// in the order of a map.
func sortedLines(err error) string {
	lines := strings.Split(err.Error(), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
