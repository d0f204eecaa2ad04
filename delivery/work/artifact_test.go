package work_test

import (
	"archive/tar"
	"compress/gzip"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/chart/charttest"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery/work"
)

const (
	fluxConfig  = "application/vnd.cncf.flux.config.v1+json"
	fluxContent = "application/vnd.cncf.flux.content.v1.tar+gzip"
	plainLayer  = "application/vnd.oci.image.layer.v1.tar+gzip"
	composeYAML = "application/vnd.docker.compose.file+yaml"
)

// part is a layer of an artifact.
type part struct {
	kind, content string
	notes         map[string]string
}

// artifact pushes one, and returns its digest.
func (s *shelf) artifact(repo, config string, notes map[string]string, tags []string, parts ...part) string {
	s.t.Helper()
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.MediaType(config))
	var err error
	for _, p := range parts {
		img, err = mutate.Append(img, mutate.Addendum{Layer: static.NewLayer([]byte(p.content), types.MediaType(p.kind)), MediaType: types.MediaType(p.kind), Annotations: p.notes})
		if err != nil {
			s.t.Fatal(err)
		}
	}
	img, _ = mutate.Annotations(img, notes).(v1.Image)
	r, err := name.NewRepository(s.host + "/" + repo)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, tag := range tags {
		if err := remote.Write(r.Tag(tag), img, remote.WithAuth(authn.FromConfig(authn.AuthConfig{Username: "ci", Password: s.password}))); err != nil {
			s.t.Fatal(err)
		}
	}
	d, err := img.Digest()
	if err != nil {
		s.t.Fatal(err)
	}
	return d.String()
}

// archive is a tar+gzip of these files, with headers before them.
func archive(t *testing.T, files map[string]string, more ...*tar.Header) string {
	t.Helper()
	var b charttest.Members
	z, err := gzip.NewWriterLevel(&b.Buffer, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	var out io.Writer = z
	if slices.ContainsFunc(more, func(h *tar.Header) bool { return h.Size > 0 }) {
		out = &b // a bomb, of few writes
	}
	w := tar.NewWriter(out)
	for _, h := range more {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		for range h.Size / int64(len(charttest.Zeros)) {
			_, _ = w.Write(charttest.Zeros)
		}
	}
	for n, c := range files {
		if err := w.WriteHeader(&tar.Header{Name: n, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(c))}); err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write([]byte(c))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if out == z {
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func (s *shelf) delivery(repo string) cluster.Delivery {
	return cluster.Delivery{Name: "shop", App: "shop", Source: cluster.SourceSpec{Kind: cluster.SourceOCI, URL: "oci://" + s.host + "/" + repo}}
}

// TestArtifacts reads what registries have: which tag is followed, as which kind of source,
// and with which login.
func TestArtifacts(t *testing.T) {
	f, s := newForge(t), newShelf(t)
	flux := func(image string, tags ...string) string {
		return s.artifact("config", fluxConfig, map[string]string{"org.opencontainers.image.revision": "main@sha1:abc", "org.opencontainers.image.created": "2026-01-02T03:04:05Z"},
			tags, part{fluxContent, archive(t, map[string]string{"./deploy/compose.yaml": compose(image)}), nil})
	}
	one, two := flux("r.io/web:1", "1.0.0", "stable", "20240101", "v9"), flux("r.io/web:2", "2.0.0")
	at := func(change func(*cluster.SourceSpec)) work.Task {
		d := s.delivery("config")
		d.Path = "deploy"
		change(&d.Source)
		return work.Task{Delivery: d}
	}
	for what, c := range map[string]struct {
		change      func(*cluster.SourceSpec)
		digest, ref string
		image       string
	}{
		"the highest version, by itself": {func(*cluster.SourceSpec) {}, two, "2.0.0", "r.io/web:2"},
		"a tag":                          {func(s *cluster.SourceSpec) { s.Tag = "stable" }, one, "stable", "r.io/web:1"},
		"a tag in the URL":               {func(s *cluster.SourceSpec) { s.URL += ":stable" }, one, "stable", "r.io/web:1"},
		"a range":                        {func(s *cluster.SourceSpec) { s.Semver = "1.x" }, one, "1.0.0", "r.io/web:1"},
		"an open range":                  {func(s *cluster.SourceSpec) { s.Semver = ">=1" }, two, "2.0.0", "r.io/web:2"},
		"a digest":                       {func(s *cluster.SourceSpec) { s.Digest = one }, one, "", "r.io/web:1"},
	} {
		r := f.must(at(c.change))
		if r.Origin.Revision != c.digest || r.Origin.Ref != c.ref || r.Bundle.Services["web"].Task.Image != c.image {
			t.Errorf("%s: %+v, %+v", what, r.Origin, r.Bundle.Services)
		}
		if r.Origin.Subject != "main@sha1:abc" || r.Origin.At.Year() != 2026 {
			t.Errorf("%s: of where it came from it says %+v", what, r.Origin)
		}
	}
	// A tag that is moved is a new revision, and latest is followed where it is.
	three := flux("r.io/web:3", "stable", "latest")
	for _, change := range []func(*cluster.SourceSpec){func(s *cluster.SourceSpec) { s.Tag = "stable" }, func(*cluster.SourceSpec) {}} {
		task := at(change)
		if r := f.must(task); r.Origin.Revision != three || r.Bundle.Services["web"].Task.Image != "r.io/web:3" {
			t.Errorf("moved: %+v", r.Origin)
		}
		task.Known = three
		before := s.reads()
		if r := f.must(task); r.Bundle != nil || r.Origin.Revision != three || s.reads() != before {
			t.Errorf("what is known is read again, %d times: %+v", s.reads()-before, r)
		}
	}
	f.refused(at(func(s *cluster.SourceSpec) { s.Tag = "none" }), cluster.KindNotFound, "config:none")
	f.refused(at(func(s *cluster.SourceSpec) { s.Semver = "9.x" }), cluster.KindNotFound, "9.x")

	// A package, by the same flag.
	_, packed, err := chart.Pack([]chart.File{
		{Name: "Chart.yaml", Data: []byte("apiVersion: v2\nname: demo\nversion: 1.2.0+b\n")},
		{Name: "templates/app.yaml", Data: []byte(compose("r.io/{{ .Values.name }}"))},
	})
	if err != nil {
		t.Fatal(err)
	}
	digest := s.artifact("demo", "application/vnd.cncf.helm.config.v1+json", nil, []string{"1.2.0_b", "1.1.0"}, part{"application/vnd.cncf.helm.chart.content.v1.tar+gzip", string(packed), nil})
	d := s.delivery("demo")
	d.Set = "name: cart"
	if r := f.must(work.Task{Delivery: d}); r.Origin.Ref != "demo 1.2.0+b" || r.Origin.Revision != digest || r.Bundle.Package == nil || r.Bundle.Services["web"].Task.Image != "r.io/cart" {
		t.Errorf("a package is %+v %+v", r.Origin, r.Bundle)
	}
	d.Set, d.Path = "", "deploy"
	f.refused(work.Task{Delivery: d}, cluster.KindInvalid, "no other files beside it")
	d = s.delivery("config")
	d.Set = "name: cart"
	f.refused(work.Task{Delivery: d}, cluster.KindInvalid, "values are given to a package")
	d.Set, d.SkipCRDs = "", true
	f.refused(work.Task{Delivery: d}, cluster.KindInvalid, "crds/ and a schema of values are of a package")

	// What Docker Compose publishes.
	s.artifact("published", "application/vnd.docker.compose.config.empty.v1+json", nil, []string{"latest"},
		part{composeYAML, compose("r.io/web:1") + "    extends: {file: base.yaml, service: base}\n", map[string]string{"com.docker.compose.file": "compose.yaml"}},
		part{composeYAML, "services: {web: {image: r.io/web:4}}\n", map[string]string{"com.docker.compose.file": "compose.yaml"}},
		part{composeYAML, "services: {base: {image: x, command: [serve]}}\n", map[string]string{"com.docker.compose.file": "../base.yaml", "com.docker.compose.extends": "true"}},
		part{"application/vnd.oci.empty.v1+json", "{}", nil})
	if r := f.must(work.Task{Delivery: s.delivery("published")}); r.Bundle.Services["web"].Task.Image != "r.io/web:4" || fmt.Sprint(r.Bundle.Services["web"].Task.Command) != "[serve]" {
		t.Errorf("published: %+v", r.Bundle.Services)
	}

	// A login: the source's own, or the cluster's.
	s.mu.Lock()
	s.password = "pass"
	s.mu.Unlock()
	task := at(func(*cluster.SourceSpec) {})
	f.refused(task, cluster.KindForbidden, "image login")
	task.Logins = map[string]work.Login{s.host: {User: "ci", Password: []byte("pass")}}
	f.must(task)
	task.Logins, task.Password, task.Delivery.Source.User = nil, []byte("pass\n"), "ci"
	f.must(task)
	task.Password = []byte("wrong")
	f.refused(task, cluster.KindForbidden, "may not")
	task.Delivery.Source.URL = "oci://127.0.0.1:1/config"
	f.refused(task, cluster.KindTransient, "127.0.0.1:1")
}

// TestHostileArtifacts: what leads out of the source, or is too much, is refused, whatever
// says so.
func TestHostileArtifacts(t *testing.T) {
	f, s := newForge(t), newShelf(t)
	file := map[string]string{"compose.yaml": compose("r.io/web:1")}
	many := make([]*tar.Header, 20_001)
	for i := range many {
		many[i] = &tar.Header{Name: fmt.Sprintf("f%d", i), Typeflag: tar.TypeReg}
	}
	deep := []*tar.Header{}
	for i := range 340 {
		deep = append(deep, &tar.Header{Name: fmt.Sprintf("d%d/", i) + strings.Repeat("a/", 60) + "f", Typeflag: tar.TypeReg})
	}
	link := func(name, to string) *tar.Header {
		return &tar.Header{Name: name, Linkname: to, Typeflag: tar.TypeSymlink}
	}
	for what, c := range map[string]struct {
		content string
		says    string
	}{
		"a path above":         {archive(t, file, &tar.Header{Name: "../x", Typeflag: tar.TypeReg}), "leads out"},
		"a path from the root": {archive(t, file, &tar.Header{Name: "/etc/x", Typeflag: tar.TypeReg}), "leads out"},
		"a link out":           {archive(t, file, link("a/b", "../../x")), "leads out"},
		"a link to the root":   {archive(t, file, link("etc", "/etc")), "leads out"},
		"a hard link":          {archive(t, file, &tar.Header{Name: "x", Linkname: "compose.yaml", Typeflag: tar.TypeLink}), "hard link"},
		"a device":             {archive(t, file, &tar.Header{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}), "device"},
		"a bomb":               {archive(t, file, &tar.Header{Name: "zeros", Typeflag: tar.TypeReg, Size: 129 << 20}), "larger than 128 MiB"},
		"a bomb in parts":      {archive(t, file, &tar.Header{Name: "a", Typeflag: tar.TypeReg, Size: 65 << 20}, &tar.Header{Name: "b", Typeflag: tar.TypeReg, Size: 65 << 20}), "larger than 128 MiB"},
		"many files":           {archive(t, file, many...), "more than 20000 files"},
		"deep directories":     {archive(t, file, deep...), "more than 20000 files"},
		"deeper directories":   {archive(t, file, &tar.Header{Name: strings.Repeat("a/", 101) + "f", Typeflag: tar.TypeReg}), "more than 100 deep"},
		"a file twice":         {archive(t, file, &tar.Header{Name: "compose.yaml", Typeflag: tar.TypeReg}), "exists"},
		"no gzip":              {"services: {}", "not gzip"},
		"half an archive":      {archive(t, file)[:60], "cannot be read"},
		"no Compose file":      {archive(t, map[string]string{"x": ""}), "has no compose.yaml"},
	} {
		s.artifact("bad", fluxConfig, nil, []string{"latest"}, part{plainLayer, c.content, nil})
		t.Log(what)
		f.refused(work.Task{Delivery: s.delivery("bad")}, cluster.KindInvalid, c.says)
	}
	good := part{plainLayer, archive(t, file, link("x/other.yaml", "../compose.yaml")), nil}
	s.artifact("bad", fluxConfig, nil, []string{"latest"}, good)
	f.must(work.Task{Delivery: s.delivery("bad")})
	s.artifact("bad", fluxConfig, nil, []string{"latest"}, good, part{plainLayer, archive(t, nil), nil})
	f.refused(work.Task{Delivery: s.delivery("bad")}, cluster.KindInvalid, "2 layers")
	s.artifact("bad", fluxConfig, nil, []string{"latest"}, part{"text/plain", "x", nil})
	f.refused(work.Task{Delivery: s.delivery("bad")}, cluster.KindInvalid, "no layer of the type")
}
