package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

func (s *Server) registerPackages(api huma.API) {
	handle(api, op(http.MethodGet, "/apps/{app}/package", "get-package", "apps", "What an app was installed from"), s.getPackage)
}

// packageOf is what a release says of the package in a bundle, and the steps that
// store its text, which none of the store's bounds limit. The bundle keeps no
// document of its own then.
func (s *Server) packageOf(c current, b *v1.Bundle) (*cluster.Package, []step, error) {
	if b.Package == nil {
		return nil, nil, nil
	}
	in := b.Package
	hash, parts, err := cluster.PackageText{Values: in.Values, Notes: in.Notes, Manifest: b.Rendered}.Split()
	if err != nil {
		return nil, nil, err
	}
	b.Rendered = ""
	p := &cluster.Package{Chart: in.Chart, Version: in.Version, AppVersion: in.AppVersion, From: in.From, Text: hash, Parts: len(parts), Input: in.Input}
	var steps []step
	for i, data := range parts {
		key, stored := store.PackageKey(c.app, hash, i), false
		s.Mirror.Read(func(v store.View) { _, stored = v.Entry(key) })
		if stored { // the app's record, which every change compares, keeps it from being pruned meanwhile
			continue
		}
		st, err := put(key, cluster.PackagePart{App: c.app, Text: hash, Number: i, Data: data}, 0)
		if err != nil {
			return nil, nil, err
		}
		steps = append(steps, st)
	}
	return p, steps, nil
}

// packageText reads the text of a package.
func packageText(v store.View, app cluster.AppName, p cluster.Package) (cluster.PackageText, error) {
	parts := make([][]byte, p.Parts)
	for i := range parts {
		part, ok, err := store.One[cluster.PackagePart](v, store.PackageKey(app, p.Text, i))
		if err != nil {
			return cluster.PackageText{}, err
		}
		if !ok {
			return cluster.PackageText{}, fmt.Errorf("part %d of the text of %s is gone", i, p)
		}
		parts[i] = part.V.Data
	}
	return cluster.JoinPackage(parts)
}

type packageInput struct {
	AppPath
	Release int `query:"release" minimum:"0" doc:"of this release; 0: of the current one"`
}

func (s *Server) getPackage(_ context.Context, in *packageInput) (v1.PackageDetail, error) {
	var out v1.PackageDetail
	var err error
	s.Mirror.Read(func(v store.View) {
		n := in.Release
		if n == 0 {
			app, ok, aerr := store.One[cluster.App](v, store.AppKey(in.app()))
			if aerr != nil || !ok {
				err = noApp(in.app())
				return
			}
			n = app.V.Release
		}
		r, ok, rerr := store.One[cluster.Release](v, store.ReleaseKey(in.app(), n))
		switch {
		case rerr != nil || !ok:
			err = cluster.NotFoundf("app %s has no release %d; `fairlead history %s` lists those it has", in.App, n, in.App)
		case r.V.Package == nil:
			err = cluster.NotFoundf("release %d of %s comes from a Compose file, not from a package; `fairlead history %s --release %d` shows it", n, in.App, in.App, n)
		default:
			var t cluster.PackageText
			t, err = packageText(v, in.app(), *r.V.Package)
			p := r.V.Package
			out = v1.PackageDetail{
				App: in.app(), Release: n, Chart: p.Chart, Version: p.Version, AppVersion: p.AppVersion, From: p.From,
				Values: t.Values, Notes: t.Notes, Manifest: t.Manifest, Edits: append(slices.Clone(r.V.Edits), scaledTo(v, r.V)...),
			}
		}
	})
	return out, err
}

// scaledTo are the counts that a person set, where they are others than a release says and
// that is the app's.
func scaledTo(v store.View, r cluster.Release) (out []string) {
	if a, ok, err := store.One[cluster.App](v, store.AppKey(r.App)); !ok || err != nil || a.V.Release != r.Number {
		return nil
	}
	for _, e := range store.All[cluster.Scale](v, store.AppPrefix(r.App)+"scale/", nil) {
		if spec, ok := r.Services[e.V.Name]; ok && e.V.Owner == cluster.OwnerPerson && e.V.Replicas != spec.Replicas {
			out = append(out, fmt.Sprintf("scale %s=%d", e.V.Name, e.V.Replicas))
		}
	}
	return out
}

// documentOf is the document that a release was made of.
func documentOf(v store.View, r cluster.Release) string {
	if r.Package == nil {
		return r.Source
	}
	t, err := packageText(v, r.App, *r.Package)
	if err != nil {
		return ""
	}
	return t.Manifest
}

// sameSource reports whether two releases were made of the same.
func sameSource(a, b cluster.Release) bool {
	if a.Package == nil || b.Package == nil {
		return a.Package == b.Package && a.Source == b.Source
	}
	return a.Package.Text == b.Package.Text
}
