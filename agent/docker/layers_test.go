package docker

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/cluster"
)

// Whatever a receiver has of whatever image: what it has and what it is sent make the
// image, and what it is sent is no layer that it has.
func TestWhatIsSentAndWhatIsThereMakeTheImage(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 0))
		image, other := randomLayers(r), randomLayers(r)
		blobs := r.IntN(2) == 0
		var files []string
		for i, l := range image {
			if blobs {
				files = append(files, blobDir+l)
			} else {
				files = append(files, fmt.Sprint(i, "/layer.tar"))
			}
		}
		have := cluster.ImageHave{Layers: sharedLayers(image, other)}
		if blobs && r.IntN(2) == 0 { // a receiver that keeps blobs, of any layers
			have = cluster.ImageHave{}
			for _, l := range other {
				have.Blobs = append(have.Blobs, "sha256:"+l)
			}
		}
		omitted := spare(files, image, have)
		for i, f := range files {
			there := i < have.Layers || slices.Contains(have.Blobs, "sha256:"+image[i])
			if !there && omitted[f] {
				t.Errorf("seed %d: layer %d of %v is neither there (%+v) nor sent", seed, i, image, have)
			}
			again := slices.Contains(image[min(have.Layers, len(image)):], image[i]) // with the same content, above others
			if there && !omitted[f] && !again {
				t.Errorf("seed %d: layer %d of %v is there (%+v) and sent", seed, i, image, have)
			}
		}
	}
}

func randomLayers(r *rand.Rand) []string {
	out := make([]string, r.IntN(6))
	for i := range out {
		out[i] = string(rune('a' + r.IntN(3)))
	}
	return out
}

func TestAnArchiveThatIsNotUnderstoodStaysWhole(t *testing.T) {
	if got := spare([]string{"a", "b"}, []string{"1"}, cluster.ImageHave{Layers: 1}); len(got) > 0 {
		t.Error(got)
	}
	if got := spare([]string{"a"}, []string{"1"}, cluster.ImageHave{Layers: 7}); !got["a"] {
		t.Error("a receiver with more layers than the image has needs none")
	}
}

const config = `{"rootfs":{"diff_ids":["sha256:1","sha256:2","sha256:3"]}}`

// The archives of engine 20.10, of newer ones, and of those with containerd's store.
func TestArchivesWithoutLayers(t *testing.T) {
	old := []file{
		{"a/", ""},
		{"a/layer.tar", "one"},
		{"b/layer.tar", "two"},
		{"c/json", "{}"},
		{"c/layer.tar", "three"},
		{"f.json", config},
		{"manifest.json", `[{"Config":"f.json","RepoTags":["x:1"],"Layers":["a/layer.tar","b/layer.tar","c/layer.tar"]}]`},
	}
	packed := []file{
		{"blobs/sha256/11", "one"},
		{"blobs/sha256/22", "two"},
		{"blobs/sha256/33", "three"},
		{"blobs/sha256/cc", config},
		{"index.json", "{}"},
		{"manifest.json", `[{"Config":"blobs/sha256/cc","Layers":["blobs/sha256/11","blobs/sha256/22","blobs/sha256/33"]}]`},
	}
	two := append(slices.Clone(old[:6]), file{"manifest.json", `[{"Config":"f.json"},{"Config":"f.json"}]`})
	for name, c := range map[string]struct {
		files   []file
		have    cluster.ImageHave
		without []string
	}{
		"old":                        {old, cluster.ImageHave{Layers: 2}, []string{"a/layer.tar", "b/layer.tar"}},
		"old, all there":             {old, cluster.ImageHave{Layers: 3}, []string{"a/layer.tar", "b/layer.tar", "c/layer.tar"}},
		"old, to a containerd store": {old, cluster.ImageHave{Blobs: []string{"sha256:11"}}, nil},
		"packed":                     {packed, cluster.ImageHave{Layers: 1}, []string{"blobs/sha256/11"}},
		"packed, by blob":            {packed, cluster.ImageHave{Blobs: []string{"sha256:22", "sha256:cc"}}, []string{"blobs/sha256/22"}},
		"two images":                 {two, cluster.ImageHave{Layers: 2}, nil},
		"no manifest":                {old[:6], cluster.ImageHave{Layers: 2}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			in := archiveOf(t, c.files)
			out := withoutLayers(io.NopCloser(bytes.NewReader(in)), c.have)
			want := slices.DeleteFunc(slices.Clone(c.files), func(f file) bool { return slices.Contains(c.without, f.Name) })
			if diff := cmp.Diff(want, filesOf(t, out)); diff != "" {
				t.Error(diff)
			}
			if err := out.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A stream that breaks off must not look like a smaller image.
func TestABrokenArchiveIsNoArchive(t *testing.T) {
	in := archiveOf(t, []file{{"a/layer.tar", string(bytes.Repeat([]byte("x"), 5000))}, {"manifest.json", "[]"}})
	broken := errors.New("the engine went away")
	read := func(r io.Reader) error {
		_, err := io.ReadAll(withoutLayers(io.NopCloser(r), cluster.ImageHave{Layers: 1}))
		return err
	}
	if err := read(io.MultiReader(bytes.NewReader(in[:3000]), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Error(err)
	}
	if err := read(bytes.NewReader(in[:3000])); err == nil {
		t.Error("half an archive was taken for a whole one")
	}
	// Whoever gives up ends the spooling of an engine that says nothing.
	never, engine := io.Pipe()
	if err := withoutLayers(never, cluster.ImageHave{Layers: 1}).Close(); err != nil {
		t.Error(err)
	}
	if _, err := engine.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("still read: %v", err)
	}
}

func TestBlobsOfAnArchive(t *testing.T) {
	in := archiveOf(t, []file{{"blobs/", ""}, {"blobs/sha256/", ""}, {"blobs/sha256/11", "x"}, {"index.json", "{}"}})
	got, err := blobsOf(bytes.NewReader(in))
	if want := []string{"sha256:11"}; err != nil || !slices.Equal(got, want) {
		t.Error(got, err)
	}
}

type file struct{ Name, Content string }

func archiveOf(t *testing.T, files []file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		err := w.WriteHeader(&tar.Header{Name: f.Name, Size: int64(len(f.Content)), Mode: 0o600})
		if _, werr := io.WriteString(w, f.Content); err != nil || werr != nil {
			t.Fatal(err, werr)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func filesOf(t *testing.T, r io.Reader) []file {
	t.Helper()
	var out []file
	err := eachFile(r, func(h *tar.Header, r io.Reader) error {
		b, err := io.ReadAll(r)
		out = append(out, file{h.Name, string(b)})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
