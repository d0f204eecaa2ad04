package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"

	"github.com/fairlead/fairlead/cluster"
)

// unpackFailed begins what an engine with containerd's image store says after it has
// taken an image that it cannot use, as if that were no error.
const unpackFailed = "Error unpacking image"

// loadedID begins what an engine says of an image that it took without a name.
const loadedID = "Loaded image ID: "

// Load adds the image of a tar that Save made, and gives it the name that is wanted. The
// archive's own names are not taken: who sent it may be no friend, and a name that it brings
// would be another image's from then on. An image that is not the one wanted gets none and is
// removed; that is of KindInvalid. Want is zero of older servers alone, and what they send
// keeps its names.
func (e *Engine) Load(ctx context.Context, archive io.Reader, want cluster.ImageWant) error {
	if want == (cluster.ImageWant{}) {
		_, err := e.load(ctx, archive)
		return err
	}
	before, err := e.cli.ImageList(ctx, image.ListOptions{})
	if err != nil {
		return kind(err)
	}
	plain := nameless(archive)
	ids, err := e.load(ctx, plain)
	_ = plain.Close()
	if bad := plain.refused(); bad != nil {
		err = bad // to the engine its client seems to have gone
	}
	if err != nil {
		return err
	}
	mine := slices.DeleteFunc(slices.Clone(ids), func(id string) bool {
		return slices.ContainsFunc(before, func(i image.Summary) bool { return i.ID == id })
	})
	if len(ids) != 1 {
		return errors.Join(cluster.Invalidf("an archive of %d images was sent for %s", len(ids), want), e.forget(ctx, mine))
	}
	i, err := e.Image(ctx, ids[0])
	if err != nil {
		return err
	}
	if !want.Met(cluster.ImageIdentity{ID: i.ID, Content: i.Content}) {
		return errors.Join(cluster.Invalidf("another image (%s) was sent for %s", i.ID, want), e.forget(ctx, mine))
	}
	if want.Ref == "" {
		return nil
	}
	return e.Tag(ctx, i.ID, want.Ref)
}

// forget removes images that have no name.
func (e *Engine) forget(ctx context.Context, ids []string) error {
	var errs []error
	for _, id := range ids {
		if i, err := e.Image(ctx, id); err != nil || len(i.Tags) > 0 {
			continue // it is gone, or somebody gave it a name
		}
		if _, err := e.cli.ImageRemove(ctx, id, image.RemoveOptions{}); err != nil && cluster.KindOf(kind(err)) != cluster.KindNotFound {
			errs = append(errs, fmt.Errorf("remove %s: %w", id, kind(err)))
		}
	}
	return errors.Join(errs...)
}

// load returns the IDs of the images that came without a name.
func (e *Engine) load(ctx context.Context, archive io.Reader) (ids []string, err error) {
	r, err := e.cli.ImageLoad(ctx, archive, client.ImageLoadWithQuiet(true))
	if err != nil {
		return nil, kind(err)
	}
	defer func() { _ = r.Body.Close() }()
	for dec := json.NewDecoder(r.Body); ; {
		var m struct {
			Stream string `json:"stream"`
			Error  string `json:"error"`
		}
		if err := dec.Decode(&m); errors.Is(err, io.EOF) {
			return ids, nil
		} else if err != nil {
			return ids, kind(err)
		}
		if strings.HasPrefix(m.Stream, unpackFailed) {
			m.Error = strings.TrimSpace(m.Stream)
		}
		if m.Error != "" {
			return ids, cluster.Transientf("load the image: %s", m.Error)
		}
		for line := range strings.Lines(m.Stream) {
			if id, ok := strings.CutPrefix(strings.TrimSpace(line), loadedID); ok && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
}

// nameless is an image's archive without the names in it. What does not look like an engine's
// own is refused: an engine unpacks it, and a file may come to stand where another one was.
func nameless(archive io.Reader) *namelessArchive {
	r, w := io.Pipe()
	out := &namelessArchive{PipeReader: r, ended: make(chan error, 1)}
	go func() {
		err := copyNameless(w, archive)
		out.ended <- err
		w.CloseWithError(err)
	}()
	return out
}

type namelessArchive struct {
	*io.PipeReader
	ended chan error
}

// refused is why the archive is none; nil while that is not known. It may be asked once.
func (n *namelessArchive) refused() error {
	select {
	case err := <-n.ended:
		if cluster.KindOf(err) == cluster.KindInvalid {
			return err
		}
	default:
	}
	return nil
}

func copyNameless(w io.Writer, archive io.Reader) error {
	tw := tar.NewWriter(w)
	err := eachFile(archive, func(h *tar.Header, r io.Reader) error {
		name, err := archiveName(h)
		if err != nil || name == "repositories" {
			return err
		}
		out := &tar.Header{Name: name, Typeflag: h.Typeflag, Linkname: h.Linkname, Size: h.Size, Mode: h.Mode, ModTime: h.ModTime}
		if h.Typeflag == tar.TypeDir {
			out.Name += "/"
		}
		strip, document := documents[name]
		if !document {
			if err := tw.WriteHeader(out); err != nil {
				return err
			}
			_, err := io.Copy(tw, r)
			return err
		}
		b, err := io.ReadAll(io.LimitReader(r, maxDocument+1))
		if err != nil {
			return err
		}
		if len(b) > maxDocument {
			return cluster.Invalidf("%s of an image's archive is too long", name)
		}
		if b, err = strip(b); err != nil {
			return cluster.Invalidf("%s of an image's archive: %w", name, err)
		}
		out.Size = int64(len(b))
		if err := tw.WriteHeader(out); err != nil {
			return err
		}
		_, err = tw.Write(b)
		return err
	})
	if errors.Is(err, tar.ErrHeader) {
		return cluster.Invalidf("what was sent is no image's archive: %w", err)
	}
	if err != nil {
		return err
	}
	if err := tw.Close(); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, archive) // a tar's padding: who sends it is to be read to the end
	return err
}

// layerFile is what a layer is called in older archives, in a directory of its own. It may be
// a link to another one's.
const layerFile = "layer.tar"

// documents are the files of an archive that name images, and what takes the names out.
var documents = map[string]func([]byte) ([]byte, error){"manifest.json": stripManifest, "index.json": stripIndex}

// archiveName is the name of an entry of an image's archive, in its simplest form.
func archiveName(h *tar.Header) (string, error) {
	name := path.Clean(h.Name)
	dir, base := path.Split(name)
	_, document := documents[base]
	named := document || base == "repositories"
	outside := path.IsAbs(name) || name == ".." || strings.HasPrefix(name, "../")
	if outside || slices.Contains(strings.Split(dir, "/"), layerFile) || dir != "" && named {
		return "", cluster.Invalidf("an image's archive has %q in it", h.Name)
	}
	link := h.Typeflag == tar.TypeSymlink || h.Typeflag == tar.TypeLink
	switch {
	case h.Typeflag == tar.TypeReg, h.Typeflag == tar.TypeDir && !named:
	case link && base == layerFile && path.Base(h.Linkname) == layerFile:
	default:
		return "", cluster.Invalidf("an image's archive has %q of type %q in it", h.Name, h.Typeflag)
	}
	return name, nil
}

// stripManifest takes the names out of manifest.json: {"Config", "RepoTags", "Layers"} of each image.
func stripManifest(b []byte) ([]byte, error) {
	var images []archived
	if err := json.Unmarshal(b, &images); err != nil {
		return nil, err
	}
	return json.Marshal(images)
}

// stripIndex takes the annotations out of an OCI image index: names are among them.
func stripIndex(b []byte) ([]byte, error) {
	var index struct {
		SchemaVersion int    `json:"schemaVersion"`
		MediaType     string `json:"mediaType,omitempty"`
		Manifests     []struct {
			MediaType string          `json:"mediaType,omitempty"`
			Digest    string          `json:"digest"`
			Size      int64           `json:"size"`
			Platform  json.RawMessage `json:"platform,omitempty"`
		} `json:"manifests"`
	}
	if err := json.Unmarshal(b, &index); err != nil {
		return nil, err
	}
	return json.Marshal(index)
}

// contentOf says what of an image runs: its layers, and what of its configuration a container
// gets. IDs do not: an image has another one in each kind of image store.
func contentOf(r image.InspectResponse) string {
	if r.Config == nil {
		return ""
	}
	c := struct {
		OS, Arch    string
		Layers      []string
		User        string                  `json:",omitempty"`
		Ports       map[string]struct{}     `json:",omitempty"`
		Env         []string                `json:",omitempty"`
		Entrypoint  []string                `json:",omitempty"`
		Cmd         []string                `json:",omitempty"`
		Volumes     map[string]struct{}     `json:",omitempty"`
		WorkingDir  string                  `json:",omitempty"`
		Labels      map[string]string       `json:",omitempty"`
		StopSignal  string                  `json:",omitempty"`
		Shell       []string                `json:",omitempty"`
		HealthCheck *container.HealthConfig `json:",omitempty"`
	}{
		OS: r.Os, Arch: cluster.NormalArch(r.Architecture), Layers: r.RootFS.Layers, User: r.Config.User, Ports: r.Config.ExposedPorts,
		Env: r.Config.Env, Entrypoint: r.Config.Entrypoint, Cmd: r.Config.Cmd, Volumes: r.Config.Volumes, WorkingDir: r.Config.WorkingDir,
		Labels: r.Config.Labels, StopSignal: r.Config.StopSignal, Shell: r.Config.Shell, HealthCheck: r.Config.Healthcheck,
	}
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(c); err != nil {
		return "" // none of these can fail to encode
	}
	sum := sha256.Sum256(b.Bytes())
	return hex.EncodeToString(sum[:])
}
