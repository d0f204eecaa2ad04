package work

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/cluster"
)

// Media types that say what is in a registry.
const (
	helmConfig     = "application/vnd.cncf.helm.config.v1+json"
	helmContent    = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
	fluxContent    = "application/vnd.cncf.flux.content.v1.tar+gzip"
	composeProject = "application/vnd.docker.compose.project"
	composeConfig  = "application/vnd.docker.compose.config.empty.v1+json" // of a registry that knows no artifact types
	composeFile    = "application/vnd.docker.compose.file+yaml"
	composeEnv     = "application/vnd.docker.compose.envfile"
)

// manifest is what of one is looked at.
type manifest struct {
	ArtifactType string            `json:"artifactType"`
	Config       layer             `json:"config"`
	Layers       []layer           `json:"layers"`
	Annotations  map[string]string `json:"annotations"`
}

type layer struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Annotations map[string]string `json:"annotations"`
}

// artifact is what a registry has under one name.
type artifact struct {
	Task
	host string
	repo name.Repository
	how  []remote.Option
}

// fetchOCI brings an artifact or a package here. Which of them it is, its manifest says; t
// says so from then on.
func fetchOCI(ctx context.Context, t *Task, tree string) (Result, error) {
	src := t.Delivery.Source
	a, err := t.artifact(ctx)
	if err != nil {
		return Result{}, err
	}
	ref, err := a.choose(ctx)
	if err != nil {
		return Result{}, a.wrong(ctx, "", err)
	}
	if t.Known != "" && a.has(ref, t.Known) {
		return Result{Origin: cluster.Origin{Delivery: t.Delivery.Name, URL: src.URL, Revision: t.Known}}, nil
	}
	got, err := remote.Get(ref, a.how...)
	if err != nil {
		return Result{}, a.wrong(ctx, ref.Identifier(), err)
	}
	r := Result{Origin: cluster.Origin{Delivery: t.Delivery.Name, URL: src.URL, Revision: got.Digest.String()}}
	if tag, is := ref.(name.Tag); is {
		r.Origin.Ref = tag.TagStr()
	}
	if r.Origin.Revision == t.Known {
		return r, nil
	}
	var m manifest
	if err := json.Unmarshal(got.Manifest, &m); err != nil || !got.MediaType.IsImage() {
		return r, cluster.Invalidf("%s at %s is no artifact, and no package: its media type is %.100q", src.URL, ref.Identifier(), got.MediaType)
	}
	r.Origin.Subject, r.Origin.Author = cut(m.Annotations["org.opencontainers.image.revision"]), cut(m.Annotations["org.opencontainers.image.authors"])
	if at, err := time.Parse(time.RFC3339, m.Annotations["org.opencontainers.image.created"]); err == nil {
		r.Origin.At = at.UTC()
	}
	packaged := m.Config.MediaType == helmConfig
	if err := t.Delivery.Fits(packaged); err != nil {
		return r, err
	}
	switch {
	case packaged:
		t.Delivery.Source.Kind = cluster.SourceChart
		r.Origin.Ref, err = a.chart(ctx, m, tree)
	case m.ArtifactType == composeProject || m.Config.MediaType == composeConfig:
		t.Delivery.Compose, err = a.composeFiles(ctx, m, tree)
	default:
		err = a.archive(ctx, m, tree)
	}
	return r, err
}

// has asks for a digest alone, which registries do not count as a pull. One that does not say
// is asked for all of the manifest.
func (a *artifact) has(ref name.Reference, digest string) bool {
	is, err := remote.Head(ref, a.how...)
	return err == nil && is.Digest.String() == digest
}

func (t Task) artifact(ctx context.Context) (*artifact, error) {
	src := t.Delivery.Source
	repository, _, _ := src.Reference()
	o := []name.Option{}
	if src.PlainHTTP {
		o = append(o, name.Insecure)
	}
	repo, err := name.NewRepository(cluster.ImageRepository(repository), o...)
	if err != nil {
		return nil, cluster.Invalidf("%s: %w", src.URL, err)
	}
	a := &artifact{Task: t, host: cluster.RegistryOf(repository), repo: repo}
	to := reach{ca: src.CA, clear: src.PlainHTTP, most: maxFile}
	switch own, _, _ := strings.Cut(a.host, ":"); {
	case len(t.Password) > 0:
		a.Logins = map[string]Login{a.host: {User: src.User, Password: []byte(strings.TrimSpace(string(t.Password)))}}
	case src.PlainHTTP && !loopback(own):
		a.Logins = nil // the cluster's login was not given for that
	default:
		to.shut = true // nor for where this machine's own registry sends for tokens
	}
	a.how = a.options(ctx, a.host, to)
	return a, nil
}

// wrong says what is wrong with a registry; identifier is what was asked for, if it was
// something in particular.
func (a *artifact) wrong(ctx context.Context, identifier string, err error) error {
	if k := cluster.KindOf(err); k != cluster.KindOther {
		return err
	}
	repository, _, _ := a.Delivery.Source.Reference()
	return a.registryError(ctx, repository, identifier, err)
}

// choose says what is followed. Without a word on it, it is the tag latest or, where there
// is none, the highest version.
func (a *artifact) choose(ctx context.Context) (name.Reference, error) {
	const latest = "latest"
	src := a.Delivery.Source
	_, tag, digest := src.Reference()
	switch {
	case digest != "":
		return a.repo.Digest(digest), nil
	case tag != "":
		return a.repo.Tag(tag), nil
	}
	tags, err := list(ctx, a.repo, a.how)
	if err != nil {
		return nil, err
	}
	if src.Semver == "" && slices.Contains(tags, latest) {
		return a.repo.Tag(latest), nil
	}
	for i := range tags { // no tag has a +
		tags[i] = strings.ReplaceAll(tags[i], "_", "+")
	}
	best, err := highest(orElse(src.Semver, "*"), tags)
	if err != nil {
		return nil, err
	}
	return a.repo.Tag(strings.ReplaceAll(best, "+", "_")), nil
}

// read gives a layer to use. All of it is read, so that its digest is checked.
func (a *artifact) read(ctx context.Context, l layer, use func(io.Reader) error) error {
	digest, err := name.NewDigest(a.repo.Name() + "@" + l.Digest)
	if err != nil {
		return cluster.Invalidf("%s: %.100q is no digest", a.Delivery.Source.URL, l.Digest)
	}
	blob, err := remote.Layer(a.repo.Digest(digest.DigestStr()), a.how...)
	if err != nil {
		return a.wrong(ctx, l.Digest, err)
	}
	body, err := blob.Compressed()
	if err != nil {
		return a.wrong(ctx, l.Digest, err)
	}
	defer func() { _ = body.Close() }() // read only
	in := &noted{r: body}
	err = use(in)
	if err == nil {
		_, err = io.Copy(io.Discard, in)
	}
	if in.err != nil {
		return a.wrong(ctx, l.Digest, in.err)
	}
	return err
}

// noted tells an error of the network from one of what is read.
type noted struct {
	r   io.Reader
	err error
}

func (n *noted) Read(p []byte) (int, error) {
	got, err := n.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		n.err = err
	}
	return got, err
}

// chart says which version it brought.
func (a *artifact) chart(ctx context.Context, m manifest, tree string) (string, error) {
	i := slices.IndexFunc(m.Layers, func(l layer) bool { return l.MediaType == helmContent })
	if i < 0 {
		return "", cluster.Invalidf("%s is a package without an archive", a.Delivery.Source.URL)
	}
	var files []chart.File
	err := a.read(ctx, m.Layers[i], func(r io.Reader) (err error) {
		files, err = chart.ReadArchive(a.Delivery.Source.URL, r)
		return err
	})
	if err != nil {
		return "", err
	}
	info, err := unpackChart(files, tree)
	return info.Name + " " + info.Version, err
}

// composeFiles brings what `docker compose publish` made, and says which files to merge.
func (a *artifact) composeFiles(ctx context.Context, m manifest, tree string) ([]string, error) {
	out, err := newSink(tree)
	if err != nil {
		return nil, err
	}
	defer out.close()
	merged := a.Delivery.Compose
	for i, l := range m.Layers {
		file := path.Base(orElse(l.Annotations["com.docker.compose.file"], orElse(l.Annotations["com.docker.compose.envfile"], fmt.Sprintf("compose-%d.yaml", i))))
		switch l.MediaType {
		case composeFile:
			if out.has(file) { // in several directories before
				file = fmt.Sprintf("%d-%s", i, file)
			}
			if l.Annotations["com.docker.compose.extends"] == "" && len(a.Delivery.Compose) == 0 {
				merged = append(merged, file)
			}
		case composeEnv:
		default:
			continue
		}
		err := a.read(ctx, l, func(r io.Reader) error { return out.file(file, -1, r) })
		if err != nil {
			return nil, err
		}
	}
	return merged, nil
}

func (a *artifact) archive(ctx context.Context, m manifest, tree string) error {
	l, err := content(m.Layers)
	if err != nil {
		return cluster.Invalidf("%s: %w", a.Delivery.Source.URL, err)
	}
	return a.read(ctx, l, func(r io.Reader) error { return unpack(r, tree) })
}

// pushOne is how files come into one layer: `oras push` makes one of each file that it is given.
const pushOne = "push a directory as one archive: `flux push artifact REF --path DIRECTORY …`, or `oras push REF DIRECTORY`"

// content is the one layer with the files.
func content(layers []layer) (layer, error) {
	for _, fits := range []func(string) bool{
		func(m string) bool { return m == fluxContent },
		func(m string) bool {
			return strings.HasSuffix(m, "tar+gzip") || strings.HasSuffix(m, "tar.gzip") || m == "application/gzip" || m == "application/x-gzip"
		},
	} {
		found := slices.DeleteFunc(slices.Clone(layers), func(l layer) bool { return !fits(l.MediaType) })
		switch len(found) {
		case 0:
		case 1:
			return found[0], nil
		default:
			return layer{}, fmt.Errorf("it has %d layers with files, and one is expected: is it an image? %s", len(found), pushOne)
		}
	}
	return layer{}, fmt.Errorf("it has no layer of the type %s or of another tar+gzip; %s", fluxContent, pushOne)
}

// unpack writes the files of an archive below dir.
func unpack(r io.Reader, dir string) error {
	z, err := gzip.NewReader(r)
	if err != nil {
		return cluster.Invalidf("the artifact's archive is not gzip: %w", err)
	}
	out, err := newSink(dir)
	if err != nil {
		return err
	}
	defer out.close()
	in := &io.LimitedReader{R: z, N: 2 * MaxTree} // of names and empty blocks there may be as much
	for tr := tar.NewReader(in); ; {
		h, err := tr.Next()
		switch {
		case in.N <= 0:
			return tooLarge()
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return cluster.Invalidf("the artifact's archive cannot be read: %w", err)
		}
		if err := out.entry(h, tr); err != nil {
			return err
		}
	}
}

// maxDepth is of directories within each other: each is opened again for each within it.
const maxDepth = 100

func tooLarge() error { return cluster.Invalidf("the source is larger than %d MiB", MaxTree>>20) }

// sink is a directory that so much is written to, and nothing outside of it.
type sink struct {
	root  *os.Root
	left  int64
	files int
	dirs  map[string]bool
}

func newSink(dir string) (*sink, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("fetch: %w", err)
	}
	return &sink{root: root, left: MaxTree, dirs: map[string]bool{}}, nil
}

func (s *sink) close() { _ = s.root.Close() } // nothing is buffered

func (s *sink) has(file string) bool {
	_, err := s.root.Lstat(file)
	return err == nil
}

func (s *sink) entry(h *tar.Header, r io.Reader) error {
	file := strings.TrimSuffix(strings.TrimPrefix(h.Name, "./"), "/")
	if h.Typeflag == tar.TypeXGlobalHeader || h.Typeflag == tar.TypeDir && (file == "" || file == ".") {
		return s.count()
	}
	if bad(file) {
		return cluster.Invalidf("the source has a file %.100q, which leads out of it", h.Name)
	}
	if strings.Count(file, "/") > maxDepth {
		return cluster.Invalidf("the source has directories within each other, more than %d deep", maxDepth)
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return s.dir(file + "/")
	case tar.TypeReg:
		return s.file(file, h.Size, r)
	case tar.TypeSymlink:
		if err := errors.Join(s.count(), s.dir(file)); err != nil {
			return err
		}
		return link(s.root, file, strings.NewReader(h.Linkname))
	}
	return cluster.Invalidf("the source has %.100q, which is a hard link or a device", h.Name)
}

func (s *sink) count() error {
	if s.files++; s.files > maxFiles {
		return cluster.Invalidf("the source has more than %d files", maxFiles)
	}
	return nil
}

// dir makes the directories that a name goes through. Each counts: one name can be of
// thousands.
func (s *sink) dir(file string) error {
	for i, c := range file {
		if c != '/' || s.dirs[file[:i]] {
			continue
		}
		if err := s.count(); err != nil {
			return err
		}
		s.dirs[file[:i]] = true
		if err := s.root.Mkdir(file[:i], 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return cluster.Invalidf("write %.100q: %w", file, err)
		}
	}
	return nil
}

// file writes a file of a size; -1: nobody knows it.
func (s *sink) file(file string, size int64, r io.Reader) error {
	if size > s.left {
		return tooLarge()
	}
	if err := errors.Join(s.count(), s.dir(file)); err != nil {
		return err
	}
	out, err := s.root.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return cluster.Invalidf("write %.100q: %w", file, err)
	}
	n, err := io.Copy(out, io.LimitReader(r, s.left+1))
	err = errors.Join(err, out.Close())
	if s.left -= n; s.left < 0 {
		return tooLarge()
	}
	return unwritten(filepath.Base(file), err)
}
