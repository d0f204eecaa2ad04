package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/registry"

	"github.com/fairlead/fairlead/cluster"
)

// ImageInfo is an image on the engine.
type ImageInfo struct {
	ID         string
	Tags       []string
	Entrypoint []string
	Command    []string
	HealthTest []string // the image's own health check
	Digests    []string // "name@sha256:…"
	Layers     []string // diff IDs, the lowest first
	OS, Arch   string
	Content    string // names what of it runs, equally on engines of any kind; "" where none can be told
}

// Image returns the image that ref names. It never asks a registry.
func (e *Engine) Image(ctx context.Context, ref string) (ImageInfo, error) {
	r, err := e.cli.ImageInspect(ctx, ref)
	if err != nil {
		return ImageInfo{}, kind(err)
	}
	out := ImageInfo{ID: r.ID, Tags: r.RepoTags, Digests: r.RepoDigests, Layers: r.RootFS.Layers, OS: r.Os, Arch: r.Architecture, Content: contentOf(r)}
	if r.Config != nil {
		out.Entrypoint, out.Command = r.Config.Entrypoint, r.Config.Cmd
		if h := r.Config.Healthcheck; h != nil {
			out.HealthTest = h.Test
		}
	}
	return out, nil
}

// Named reports that ref is one of the image's names, not its ID.
func (i ImageInfo) Named(ref string) bool {
	n, err := reference.ParseNormalizedNamed(ref)
	return err == nil && slices.Contains(i.Tags, reference.FamiliarString(reference.TagNameOnly(n)))
}

// HasName reports whether the image has any name, a tag or a digest in a repository.
func (i ImageInfo) HasName() bool {
	return len(i.Tags) > 0 || slices.ContainsFunc(i.Digests, func(d string) bool {
		return !strings.HasPrefix(d, "<none>@") && !strings.HasPrefix(d, "moby-dangling@")
	})
}

// PulledBy returns the digest in a registry, "name@sha256:…", by which an image was pulled
// that ref asked for; "" where no registry has said one, as of an image that was built or
// loaded. An image may have been pulled by several names: it is one of ref's repository,
// ref's own digest where it names one, and else the first.
func (i ImageInfo) PulledBy(ref string) string {
	asked, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ""
	}
	own, pinned := asked.(reference.Digested)
	first := ""
	for _, d := range i.Digests {
		n, err := reference.ParseNormalizedNamed(d)
		if err != nil || n.Name() != asked.Name() {
			continue
		}
		has, ok := n.(reference.Digested)
		if ok && pinned && has.Digest() == own.Digest() {
			return d
		}
		if ok && (first == "" || d < first) {
			first = d
		}
	}
	return first
}

// ImageID returns the ID of the image that ref names.
func (e *Engine) ImageID(ctx context.Context, ref string) (string, error) {
	i, err := e.Image(ctx, ref)
	return i.ID, err
}

// Identity says which image ref names.
func (e *Engine) Identity(ctx context.Context, ref string) (cluster.ImageIdentity, error) {
	i, err := e.Image(ctx, ref)
	return cluster.ImageIdentity{ID: i.ID, Content: i.Content}, err
}

// Images lists the engine's images; those that lost their name have no tags.
func (e *Engine) Images(ctx context.Context) ([]cluster.Image, error) {
	list, err := e.cli.ImageList(ctx, image.ListOptions{})
	if err != nil {
		return nil, kind(err)
	}
	out := make([]cluster.Image, 0, len(list))
	for _, i := range list {
		i.RepoTags = slices.DeleteFunc(i.RepoTags, func(t string) bool { return t == "<none>:<none>" })
		out = append(out, cluster.Image{ID: i.ID, Tags: i.RepoTags, Size: i.Size, Created: time.Unix(i.Created, 0)})
	}
	return out, nil
}

// RegistryHost returns the registry that a reference's image comes from.
func RegistryHost(ref string) (string, error) {
	n, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", cluster.Invalidf("image %q: %w", ref, err)
	}
	return reference.Domain(n), nil
}

// Login are credentials of a registry; empty means none.
type Login struct{ User, Password string }

// Format implements fmt.Formatter: a password is never printed.
func (l Login) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[login of "+l.User+"]") }

// Pull asks the reference's registry for the image and its layers. progress is
// called with a short text, such as "3 of 5 layers", when it changes.
func (e *Engine) Pull(ctx context.Context, ref, platform string, login Login, progress func(string)) error {
	opts := image.PullOptions{Platform: platform}
	if login.User != "" {
		auth, err := registry.EncodeAuthConfig(registry.AuthConfig{Username: login.User, Password: login.Password})
		if err != nil {
			return err
		}
		opts.RegistryAuth = auth
	}
	n, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return cluster.Invalidf("image %q: %w", ref, err)
	}
	body, err := e.cli.ImagePull(ctx, reference.TagNameOnly(n).String(), opts)
	if err != nil {
		return pullRefused(kind(err), ref)
	}
	defer func() { _ = body.Close() }()
	return pullProgress(body, progress)
}

func pullProgress(body io.Reader, progress func(string)) error {
	layers := map[string]bool{}
	last := ""
	dec := json.NewDecoder(body)
	for {
		var m struct {
			ID     string `json:"id"`
			Status string `json:"status"`
			Error  string `json:"error"`
		}
		if err := dec.Decode(&m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return kind(err)
		}
		if m.Error != "" {
			return pullError(m.Error)
		}
		switch m.Status {
		case "Pulling fs layer", "Waiting", "Downloading", "Verifying Checksum", "Download complete", "Extracting":
			layers[m.ID] = false
		case "Pull complete", "Already exists":
			layers[m.ID] = true
		default:
			continue
		}
		done := 0
		for _, d := range layers {
			if d {
				done++
			}
		}
		if s := fmt.Sprintf("%d of %d layers", done, len(layers)); s != last {
			last = s
			progress(s)
		}
	}
}

// pullRefused finds among the errors to which the engine gives no kind those that pass.
func pullRefused(err error, ref string) error {
	if cluster.KindOf(err) != cluster.KindOther || errors.Is(err, context.Canceled) || !passes(err.Error(), ref) {
		return err
	}
	return &cluster.Error{Kind: cluster.KindTransient, Err: err}
}

// passes reports whether an engine's message is about a registry that cannot be reached now, or
// has too much to do. A name that does not exist is not one of them, nor what this node lacks.
func passes(msg, ref string) bool {
	if n, err := reference.ParseNormalizedNamed(ref); err == nil { // what it is called says nothing
		msg = strings.NewReplacer(ref, "", "/"+reference.Path(n)+"/", "//").Replace(msg)
	}
	msg = strings.ToLower(msg)
	return slices.ContainsFunc([]string{
		"connection refused", "connection reset", "broken pipe", "no route to host", "network is unreachable",
		"timeout", "deadline exceeded", ": eof", "unexpected eof", "server misbehaving", "temporary failure in name resolution",
		"toomanyrequests", "too many requests", "internal server error", "bad gateway", "service unavailable",
	}, func(s string) bool { return strings.Contains(msg, s) })
}

// pullError gives an error from the middle of a pull the kind that the engine's
// status code no longer can.
func pullError(msg string) error {
	for _, s := range []string{"not found", "manifest unknown", "no matching manifest", "denied", "unauthorized"} {
		if strings.Contains(msg, s) {
			return cluster.NotFoundf("%s", msg)
		}
	}
	if passes(msg, "") {
		return cluster.Transientf("%s", msg)
	}
	return errors.New(msg)
}
