package docker

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"

	"github.com/fairlead/fairlead/cluster"
)

func entriesOf(t *testing.T, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		content := h.Uname // the content stands there
		h.Uname, h.Size = "", int64(len(content))
		if err := errors.Join(w.WriteHeader(&h), writeAll(w, content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func writeAll(w io.Writer, s string) error {
	_, err := io.WriteString(w, s)
	return err
}

func entry(name, content string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Uname: content}
}

// The names that an archive brings are taken out, wherever they stand, and all else stays.
func TestAnArchiveLosesItsNames(t *testing.T) {
	in := entriesOf(
		t,
		entry("./repositories", `{"evil/postgres":{"17":"x"}}`),
		tar.Header{Name: "blobs/", Typeflag: tar.TypeDir, Mode: 0o755},
		entry("blobs/sha256/aa", "config"),
		entry("aa/layer.tar", "layer"),
		tar.Header{Name: "bb/layer.tar", Typeflag: tar.TypeSymlink, Linkname: "../aa/layer.tar"},
		entry("./manifest.json", `[{"Config":"blobs/sha256/aa","RepoTags":["evil/postgres:17"],"repotags":["evil/redis:7"],"Layers":["aa/layer.tar"]}]`),
		entry("index.json", `{"schemaVersion":2,"annotations":{"x":"evil"},"manifeſts":[],"manifests":[{"mediaType":"m","digest":"sha256:aa","size":6,
			"annotations":{"io.containerd.image.name":"evil/postgres:17","org.opencontainers.image.ref.name":"17"},"platform":{"os":"linux"}}]}`),
		entry("oci-layout", `{"imageLayoutVersion":"1.0.0"}`),
	)
	r := nameless(bytes.NewReader(in))
	got := map[string]string{}
	err := eachFile(r, func(h *tar.Header, r io.Reader) error {
		b, err := io.ReadAll(r)
		got[h.Name] = string(b)
		if h.Linkname != "" {
			got[h.Name] = "-> " + h.Linkname
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"blobs/": "", "blobs/sha256/aa": "config", "aa/layer.tar": "layer", "bb/layer.tar": "-> ../aa/layer.tar", "oci-layout": `{"imageLayoutVersion":"1.0.0"}`,
		"manifest.json": `[{"Config":"blobs/sha256/aa","Layers":["aa/layer.tar"]}]`,
		"index.json":    `{"schemaVersion":2,"manifests":[{"mediaType":"m","digest":"sha256:aa","size":6,"platform":{"os":"linux"}}]}`,
	}
	for name, w := range want {
		if g, ok := got[name]; !ok || g != w {
			t.Errorf("%s: %q, not %q", name, g, w)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("more: %v", got)
	}
}

// An engine unpacks an archive into a directory: what would come to stand where a document
// does, or lead there, is refused.
func TestAnArchiveOfAnotherMakeIsRefused(t *testing.T) {
	evil := `[{"Config":"x","RepoTags":["evil/postgres:17"],"Layers":[]}]`
	for name, entries := range map[string][]tar.Header{
		"a document that is a link":        {entry("x", evil), {Name: "manifest.json", Typeflag: tar.TypeSymlink, Linkname: "x"}},
		"one that is a hard link":          {entry("x", evil), {Name: "manifest.json", Typeflag: tar.TypeLink, Linkname: "x"}},
		"a directory that is a link":       {{Name: "d", Typeflag: tar.TypeSymlink, Linkname: "."}, entry("d/manifest.json", evil)},
		"below a layer that is a link":     {{Name: "d/layer.tar", Typeflag: tar.TypeSymlink, Linkname: "../e/layer.tar"}, entry("d/layer.tar/x", evil)},
		"a layer that links to a document": {{Name: "d/layer.tar", Typeflag: tar.TypeLink, Linkname: "manifest.json"}},
		"a document in a directory":        {entry("d/index.json", evil)},
		"above it":                         {entry("../manifest.json", evil)},
		"an absolute name":                 {entry("/manifest.json", evil)},
		"a device":                         {{Name: "x", Typeflag: tar.TypeChar}},
		"a document that is none":          {entry("manifest.json", "{")},
	} {
		if _, err := io.Copy(io.Discard, nameless(bytes.NewReader(entriesOf(t, entries...)))); cluster.KindOf(err) != cluster.KindInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := io.Copy(io.Discard, nameless(strings.NewReader(strings.Repeat("\x1f\x8b", 600)))); err == nil {
		t.Error("what is no archive was taken")
	}
}

// Two engines say of the same image that it has the same content, though they leave out what
// is empty differently; whatever of it runs makes another.
func TestTheContentOfAnImage(t *testing.T) {
	base := func() (r image.InspectResponse) {
		if err := json.Unmarshal([]byte(`{"Id":"sha256:1","Os":"linux","Architecture":"amd64","RootFS":{"Layers":["sha256:a","sha256:b"]},
			"Config":{"Cmd":["serve"],"User":"app","Env":["A=1"],"Labels":null,"Volumes":null,"OnBuild":null}}`), &r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	of := func(change func(*image.InspectResponse)) string {
		r := base()
		change(&r)
		return contentOf(r)
	}
	want := contentOf(base())
	if want == "" {
		t.Fatal("no content")
	}
	same := map[string]func(*image.InspectResponse){
		"another ID": func(r *image.InspectResponse) { r.ID, r.RepoTags = "sha256:2", []string{"x:1"} },
		"empty, not absent": func(r *image.InspectResponse) {
			r.Config.Volumes, r.Config.Labels, r.Config.Entrypoint = map[string]struct{}{}, map[string]string{}, []string{}
		},
	}
	for name, change := range same {
		if of(change) != want {
			t.Errorf("%s: another content", name)
		}
	}
	for name, change := range map[string]func(*image.InspectResponse){
		"a layer":   func(r *image.InspectResponse) { r.RootFS.Layers[1] = "sha256:c" },
		"no layer":  func(r *image.InspectResponse) { r.RootFS.Layers = nil },
		"command":   func(r *image.InspectResponse) { r.Config.Cmd = []string{"evil"} },
		"entry":     func(r *image.InspectResponse) { r.Config.Entrypoint = []string{"evil"} },
		"env":       func(r *image.InspectResponse) { r.Config.Env = []string{"LD_PRELOAD=/evil"} },
		"user":      func(r *image.InspectResponse) { r.Config.User = "" },
		"directory": func(r *image.InspectResponse) { r.Config.WorkingDir = "/x" },
		"health": func(r *image.InspectResponse) {
			r.Config.Healthcheck = &container.HealthConfig{Test: []string{"CMD", "evil"}}
		},
		"shell":  func(r *image.InspectResponse) { r.Config.Shell = []string{"evil"} },
		"volume": func(r *image.InspectResponse) { r.Config.Volumes = map[string]struct{}{"/x": {}} },
		"arch":   func(r *image.InspectResponse) { r.Architecture = "arm64" },
	} {
		if of(change) == want {
			t.Errorf("%s: the same content", name)
		}
	}
}
