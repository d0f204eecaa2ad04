package work

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/compose"
)

// Command is the hidden command that calls Serve.
const Command = "deliver"

// treeName is where the source is, in the directory of the process.
const treeName = "source-tree-of-a-delivery"

// Bundle is what of a Compose project travels to the server.
func Bundle(r *compose.Result) v1.Bundle {
	b := v1.Bundle{
		Services: r.Services, Rendered: string(r.Rendered),
		Hooks: r.Hooks, Configs: map[string][]byte{}, Secrets: map[string]v1.SecretDecl{},
	}
	for _, c := range r.Configs {
		b.Configs[c.Name] = c.Content
	}
	for _, s := range r.Secrets {
		d := v1.SecretDecl{External: s.External, Generate: s.Generate, Vault: s.Vault, Source: s.Source}
		if s.HasValue {
			d.Value = s.Value.Reveal()
		}
		b.Secrets[s.Name] = d
	}
	return b
}

// load reads the source, which the process is confined to.
func load(ctx context.Context, t Task, r *Result) error {
	d := t.Delivery
	o := compose.Options{App: d.App, Domain: t.Domain, SingleNode: t.SingleNode, HTTPPort: t.HTTPPort, HTTPSPort: t.HTTPSPort, NoBuild: true, Tree: root()}
	var project *compose.Result
	var pkg *v1.Package
	files, err := open(root(), t)
	if err == nil {
		files.leftOut(r.astray)
		err = files.unlocked(append(named(d), t.variables(r.astray)...)...)
	}
	switch {
	case err != nil:
	case t.packaged():
		project, pkg, err = files.loadPackage(func() (*compose.Result, *v1.Package, error) { return packaged(ctx, t, r, o) })
	default:
		project, err = files.load(func() (*compose.Result, error) { return composed(ctx, d, o) })
	}
	if err != nil {
		return shown(err)
	}
	if err := outside(project); err != nil {
		return err
	}
	for _, w := range project.Warnings {
		r.Warnings = append(r.Warnings, cleaned(w.String()))
	}
	b := Bundle(project)
	b.Package, b.Rendered = pkg, cleaned(b.Rendered)
	if err := files.ciphertext(b); err != nil {
		return shown(err)
	}
	r.Bundle = &b
	return nil
}

// named are the files that the delivery itself names.
func named(d cluster.Delivery) []string {
	list := slices.Concat(d.Compose, d.EnvFiles, d.Values)
	if len(d.Compose) == 0 && !packagedBy(d) {
		list = append(list, compose.FileNames()...)
	}
	for i, f := range list {
		list[i] = root(d.Path, f)
	}
	return list
}

// variables are the files of variables among links that nobody names, and that would be
// passed over.
func (t Task) variables(links []astray) (names []string) {
	file := path.Join(t.Delivery.Path, ".env")
	if !t.packaged() && len(t.Delivery.EnvFiles) == 0 && slices.ContainsFunc(links, func(l astray) bool { return l.name == file }) {
		names = append(names, root(file))
	}
	return names
}

func root(names ...string) string {
	return path.Join(append([]string{"/", treeName}, names...)...)
}

func composed(ctx context.Context, d cluster.Delivery, o compose.Options) (*compose.Result, error) {
	o.Dir = root(d.Path)
	o.Env, o.Profiles = d.Env, d.Profiles
	if o.Env == nil {
		o.Env = map[string]string{}
	}
	// Directories above are not looked into: another app's file may be there.
	if len(d.Compose) == 0 && !slices.ContainsFunc(compose.FileNames(), func(n string) bool { _, err := os.Stat(path.Join(o.Dir, n)); return err == nil }) {
		return nil, cluster.Invalidf("the source has no %s in %s; name its directory, and its Compose files", compose.FileNames()[0], orElse(d.Path, "its top directory"))
	}
	for _, f := range d.Compose {
		o.Files = append(o.Files, root(d.Path, f))
	}
	for _, f := range d.EnvFiles {
		o.EnvFiles = append(o.EnvFiles, root(d.Path, f))
	}
	return compose.Load(ctx, o)
}

// Render ends this process where templates take too long.
func (t Task) Render(ctx context.Context, req chart.Request) (*chart.Rendered, error) {
	late := time.AfterFunc(t.RenderTime, func() { t.end(chart.NotDone(t.RenderTime)) })
	defer late.Stop()
	r, err := chart.Render(ctx, req)
	if err == nil {
		return r, nil
	}
	if text := chart.Unrepeated(err.Error()); text != err.Error() {
		return nil, errors.New(text)
	}
	return nil, err
}

func packaged(ctx context.Context, t Task, r *Result, o compose.Options) (*compose.Result, *v1.Package, error) {
	d := t.Delivery
	files, err := t.readPackage(r.astray)
	if err != nil {
		return nil, nil, err
	}
	var values chart.Values
	names := make([]string, len(d.Values))
	for i, f := range d.Values {
		names[i] = root(d.Path, f)
	}
	if err := values.ReadValues(names, nil); err != nil {
		return nil, nil, err
	}
	switch set := (chart.File{Name: "the delivery's values", Data: []byte(d.Set)}); {
	case d.Set == "":
	case d.SetTyped:
		values.Above = append(values.Above, set)
	default: // of versions before, and of who writes a file
		values.Files = append(values.Files, set)
	}
	if r.Origin.Revision == t.AppliedRevision {
		t.Release, t.Upgrade = t.AppliedRelease, t.AppliedUpgrade
	}
	release := chart.Release{Name: string(d.App), Revision: max(t.Release, 1), Upgrade: t.Upgrade}
	req := chart.Request{Files: files, Values: values, Release: release, SkipCRDs: d.SkipCRDs, SkipSchema: d.SkipSchema}
	got, err := t.Render(ctx, req)
	if err != nil {
		return nil, nil, err
	}
	if !t.decrypts() { // there it is refused
		r.Varies = len(chart.Varying(ctx, t, req, got)) > 0
	} else {
		o.SecretFiles = map[string][]byte{}
		for _, f := range files {
			o.SecretFiles[f.Name] = f.Data
		}
	}
	project, err := got.Compose(ctx, d.App, o)
	if err != nil {
		return nil, nil, err
	}
	from := d.Source.URL
	if d.Source.Chart != "" {
		from = strings.TrimSuffix(from, "/") + "/" + d.Source.Chart
	}

	text := strings.TrimSpace(got.Values)
	if text == "{}" {
		text = ""
	}
	return project, &v1.Package{
		Chart: got.Chart.Name, Version: got.Chart.Version, AppVersion: got.Chart.AppVersion, From: from, Values: text, Notes: got.Notes(),
		Input: input(t, files, values),
	}, nil
}

func orElse(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// outside refuses what would be taken from a machine that the source is not on.
func outside(r *compose.Result) error {
	for _, b := range r.Builds {
		return cluster.Invalidf("%s:%d: services.%s.build: a delivery builds nothing; name an image that is built elsewhere with image:", cleaned(b.Source.File), b.Source.Line, b.Service)
	}
	specs := maps.Clone(r.Services)
	for _, h := range r.Hooks {
		specs[h.Service] = h.Spec
	}
	for name, s := range specs {
		for _, m := range s.Task.Mounts {
			for _, p := range append([]string{m.Source}, slices.Collect(maps.Values(m.DriverOpts))...) {
				if strings.Contains(p, root()) {
					return cluster.Invalidf("services.%s.volumes: %s is a directory of the source, which no node has; use a named volume, or configs: for files", name, cleaned(p))
				}
			}
		}
	}
	return nil
}

// cleaned names files as the source does.
func cleaned(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, root()+"/", ""), root(), ".")
}

func shown(err error) error {
	kind := cluster.KindOf(err)
	if kind == cluster.KindOther {
		kind = cluster.KindInvalid // nothing but the source is read here
	}
	return &cluster.Error{Kind: kind, Msg: cleaned(fmt.Sprint(err))}
}
