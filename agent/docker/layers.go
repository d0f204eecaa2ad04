package docker

import (
	"archive/tar"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/image"

	"github.com/fairlead/fairlead/cluster"
)

// ImageLayers returns the diff IDs of an image's layers, the lowest first.
func (e *Engine) ImageLayers(ctx context.Context, ref string) ([]string, error) {
	i, err := e.Image(ctx, ref)
	return i.Layers, err
}

// Have says which layers of an image, the diff IDs from the lowest up, need not be
// sent to this engine. Where it cannot tell, all must.
func (e *Engine) Have(ctx context.Context, layers []string) (cluster.ImageHave, error) {
	list, err := e.cli.ImageList(ctx, image.ListOptions{})
	if err != nil {
		return cluster.ImageHave{}, kind(err)
	}
	best, common, packed := "", 0, false
	for _, i := range list {
		r, err := e.cli.ImageInspect(ctx, i.ID)
		if err != nil {
			continue // it was removed meanwhile
		}
		if n := sharedLayers(layers, r.RootFS.Layers); n > common {
			best, common, packed = i.ID, n, r.Descriptor != nil
		}
	}
	if !packed {
		return cluster.ImageHave{Layers: common}, nil
	}
	// containerd's image store: an archive without a layer is taken when that very
	// blob is there, and only the image's own archive says which are.
	archive, err := e.Save(ctx, best, cluster.ImageHave{})
	if err != nil {
		return cluster.ImageHave{}, err
	}
	defer func() { _ = archive.Close() }()
	blobs, err := blobsOf(archive)
	return cluster.ImageHave{Blobs: blobs}, err
}

// sharedLayers is how many layers two images have in common from the lowest up: a
// layer is the same only above the same ones.
func sharedLayers(a, b []string) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// Save returns an image, named or by its ID, as the engine's tar, without the layers
// that its receiver has; the caller closes it.
func (e *Engine) Save(ctx context.Context, ref string, have cluster.ImageHave) (io.ReadCloser, error) {
	if i, err := e.Image(ctx, ref); err == nil && i.Named(ref) { // not an ID
		ref = cluster.TaggedImage(ref) // of a name alone it would have all tags
	}
	whole, err := e.cli.ImageSave(ctx, []string{ref})
	if err != nil || have.None() {
		return whole, kind(err)
	}
	return withoutLayers(whole, have), nil
}

// archived is what an archive's manifest.json says of an image.
type archived struct {
	Config string   `json:"Config"`
	Layers []string `json:"Layers"` // files, the lowest first
}

// blobDir is where newer archives have layers, named by their digest.
const blobDir = "blobs/sha256/"

// spare are the files of an archive that its receiver does without: layers that it
// has. layers are their diff IDs. A file that any missing layer has stays: two layers
// can have the same content.
func spare(files, layers []string, have cluster.ImageHave) map[string]bool {
	out := map[string]bool{}
	if len(files) != len(layers) {
		return out // not understood
	}
	from := min(max(have.Layers, 0), len(layers))
	for i, f := range files {
		digest, blob := strings.CutPrefix(f, blobDir)
		if blob && slices.Contains(have.Blobs, "sha256:"+digest) || i < from && !slices.Contains(layers[from:], layers[i]) {
			out[f] = true
		}
	}
	return out
}

// withoutLayers is an archive without the layers that its receiver has. It is spooled
// as soon as it is read, since its table of contents may come last.
func withoutLayers(whole io.ReadCloser, have cluster.ImageHave) io.ReadCloser {
	r, w := io.Pipe()
	go func() { w.CloseWithError(kind(spool(w, whole, have))) }()
	return &lighter{PipeReader: r, whole: whole}
}

// lighter reads what is left of an archive.
type lighter struct {
	*io.PipeReader
	whole io.Closer
}

// Close implements io.Closer: it ends the spooling too.
func (l *lighter) Close() error { return errors.Join(l.whole.Close(), l.PipeReader.Close()) }

func spool(w io.Writer, whole io.Reader, have cluster.ImageHave) error {
	// An image does not belong in memory, where /tmp may be.
	f, err := os.CreateTemp(cmp.Or(os.Getenv("TMPDIR"), "/var/tmp"), "fairlead-image-")
	if err != nil {
		return err
	}
	defer f.Close()         //nolint:errcheck // read alone
	_ = os.Remove(f.Name()) //nolint:gosec // just made; nothing is left of it whatever happens
	if _, err := io.Copy(f, whole); err != nil {
		return fmt.Errorf("spool an image: %w", err)
	}
	omit, err := spareOf(f, have)
	if err != nil {
		return err
	}
	return copyWithout(w, f, omit)
}

// spareOf are the files of a spooled archive that its receiver does without; none in
// an archive of another make.
func spareOf(f io.ReadSeeker, have cluster.ImageHave) (map[string]bool, error) {
	var images []archived
	var config struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if found, err := decodeFile(f, "manifest.json", &images); !found || len(images) != 1 {
		return nil, err
	}
	if found, err := decodeFile(f, images[0].Config, &config); !found {
		return nil, err
	}
	return spare(images[0].Layers, config.RootFS.DiffIDs, have), nil
}

// maxDocument bounds a manifest or configuration of an image.
const maxDocument = 8 << 20

func decodeFile(f io.ReadSeeker, name string, into any) (found bool, err error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return false, err
	}
	err = eachFile(f, func(h *tar.Header, r io.Reader) error {
		if h.Name != name || found {
			return nil
		}
		found = true
		return json.NewDecoder(io.LimitReader(r, maxDocument)).Decode(into)
	})
	if err != nil {
		return false, fmt.Errorf("read %s of an image's archive: %w", name, err)
	}
	return found, nil
}

// eachFile calls do with each entry of a tar.
func eachFile(r io.Reader, do func(h *tar.Header, r io.Reader) error) error {
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := do(h, tr); err != nil {
			return err
		}
	}
}

func copyWithout(w io.Writer, f io.ReadSeeker, omit map[string]bool) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	err := eachFile(f, func(h *tar.Header, r io.Reader) error {
		if omit[h.Name] {
			return nil
		}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		_, err := io.Copy(tw, r)
		return err
	})
	if err != nil {
		return err
	}
	return tw.Close()
}

// blobsOf are the digests of the blobs in an archive; none in one of the older make.
func blobsOf(r io.Reader) ([]string, error) {
	var out []string
	err := eachFile(r, func(h *tar.Header, _ io.Reader) error {
		if digest, ok := strings.CutPrefix(h.Name, blobDir); ok && digest != "" {
			out = append(out, "sha256:"+digest)
		}
		return nil
	})
	return out, err
}
