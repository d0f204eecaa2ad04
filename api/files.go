package api

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/distribution/reference"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

func (s *Server) registerFiles(api huma.API) {
	p := "/apps/{app}/services/{service}/files"
	handleTar(api, op(http.MethodPut, p, "copy-to", "inside", "Unpack a tar below a directory of a container"), s.copyTo)
	down := op(http.MethodGet, p, "copy-from", "inside", "A tar of a file or directory of a container")
	addProblem(api, &down)
	down.Responses["200"] = &huma.Response{Description: "A tar", Content: map[string]*huma.MediaType{tarType: {}}}
	huma.Register(api, down, s.copyFrom)
	handle(api, op(http.MethodGet, "/images", "list-images", "images", "List images on nodes"), s.images)
	handle(api, op(http.MethodGet, "/images/resolve", "resolve-image", "images", "The ID of an image that a node has"), s.resolveImage)
	build := op(http.MethodPost, "/images/build", "build", "images", "Build an image from a context sent as tar; answers with lines of JSON")
	build.Responses = map[string]*huma.Response{"200": {
		Description: "Lines of text, then a result or an error",
		Content:     map[string]*huma.MediaType{"application/x-ndjson": {Schema: schemaOf[v1.BuildEvent](api.OpenAPI().Components.Schemas)}},
	}}
	handleTar(api, build, s.build)
}

const tarType = "application/x-tar"

// tarBody is the request's body, not read into memory.
type tarBody struct {
	r     *http.Request
	w     http.ResponseWriter
	in    io.Reader // once opened
	begun bool      // something was asked of it
}

// Resolve implements huma.Resolver: it only keeps hold of the request.
func (t *tarBody) Resolve(ctx huma.Context) []error {
	t.r, t.w = humago.Unwrap(ctx)
	return nil
}

// open returns the body, bounded, without a deadline on the whole. Call finish
// in the end.
func (t *tarBody) open(limit int64) io.Reader {
	rc := http.NewResponseController(t.w)
	_ = rc.SetReadDeadline(time.Time{})
	_ = rc.SetWriteDeadline(time.Time{})
	t.in = http.MaxBytesReader(t.w, t.r.Body, limit)
	return t
}

// Read implements io.Reader.
func (t *tarBody) Read(p []byte) (int, error) {
	t.begun = true
	return t.in.Read(p)
}

// finish reads what nobody wanted: a client that still sends would not hear the
// answer, but see its connection break. One that waits to be asked (Expect:
// 100-continue) sends nothing when it never was.
func (t *tarBody) finish() {
	if t.begun || t.r.Header.Get("Expect") == "" {
		_, _ = io.Copy(io.Discard, t.in)
	}
}

// tarError says what a body that is too large is.
func tarError(err error, limit int64) error {
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return cluster.Invalidf("the tar is larger than %d bytes", limit)
	}
	return err
}

// handleTar registers an operation whose body is a tar stream.
func handleTar[I any](api huma.API, o huma.Operation, f func(ctx context.Context, in *I) (*huma.StreamResponse, error)) {
	addProblem(api, &o)
	o.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{tarType: {}}}
	huma.Register(api, o, func(ctx context.Context, in *I) (*huma.StreamResponse, error) {
		out, err := f(ctx, in)
		if err != nil {
			return nil, problemOf(err)
		}
		return out, nil
	})
}

// FilePath names a file or directory of a task's container.
type FilePath struct {
	SlotPath
	Path string `query:"path" required:"true" maxLength:"4096" doc:"absolute path in the container"`
}

func (in *FilePath) check() error {
	if !path.IsAbs(in.Path) || strings.ContainsRune(in.Path, 0) {
		return cluster.Invalidf("path %q: an absolute path in the container is needed", in.Path)
	}
	return nil
}

type copyToInput struct {
	FilePath
	tarBody
}

func (s *Server) copyTo(ctx context.Context, in *copyToInput) (*huma.StreamResponse, error) {
	if err := in.check(); err != nil {
		return nil, err
	}
	task, h, err := s.host(in.SlotPath)
	if err != nil {
		return nil, err
	}
	s.Log.Info("copies into a container", "task", task, "by", who(ctx))
	err = h.CopyTo(ctx, task, in.Path, in.open(v1.MaxCopy))
	in.finish()
	if err != nil {
		return nil, tarError(err, v1.MaxCopy)
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) { hc.SetStatus(http.StatusNoContent) }}, nil
}

func (s *Server) copyFrom(ctx context.Context, in *FilePath) (*huma.StreamResponse, error) {
	if err := in.check(); err != nil {
		return nil, problemOf(err)
	}
	task, h, err := s.host(in.SlotPath)
	if err != nil {
		return nil, problemOf(err)
	}
	tar, err := h.CopyFrom(ctx, task, in.Path)
	if err != nil {
		return nil, problemOf(err)
	}
	s.Log.Info("copies out of a container", "task", task, "by", who(ctx))
	return s.sendTar(ctx, tar, "task", string(task)), nil
}

// sendTar answers with a tar, and closes it.
func (s *Server) sendTar(ctx context.Context, tar io.ReadCloser, what, name string) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		defer func() { _ = tar.Close() }()
		_, w := humago.Unwrap(hc)
		_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
		w.Header().Set("Content-Type", tarType)
		// The first byte may be long in coming; the one that asks is not to give up.
		_ = http.NewResponseController(w).Flush()
		if _, err := io.Copy(w, tar); err != nil && ctx.Err() == nil {
			s.Log.Warn("a tar was cut short", "of", what, "name", name, "error", err)
			// The header is out: breaking the connection is the only way to say
			// that what the client has is not all.
			if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
				_ = conn.Close()
			}
		}
	}}
}

type imagesInput struct {
	Node string `query:"node" maxLength:"100" doc:"only this node"`
}

func (s *Server) images(ctx context.Context, in *imagesInput) ([]v1.NodeImage, error) {
	m := s.read("")
	used := map[string][]string{}
	for _, svc := range m.services {
		t := svc.Spec.Task
		for _, name := range []string{tagged(t.Image), t.ImageID} {
			used[name] = append(used[name], svc.String())
		}
	}
	out := []v1.NodeImage{}
	found := false
	for _, n := range m.sortedNodes() {
		if !n.Alive || (in.Node != "" && string(n.ID) != in.Node) {
			continue
		}
		found = true
		h, err := s.Hosts.Images(n.ID)
		if err != nil {
			return nil, err
		}
		list, err := h.Images(ctx)
		if err != nil {
			return nil, err
		}
		for _, img := range list {
			ni := v1.NodeImage{Image: img, Node: n.ID}
			for _, name := range append([]string{img.ID}, img.Tags...) {
				ni.Used = append(ni.Used, used[name]...)
			}
			slices.Sort(ni.Used)
			ni.Used = slices.Compact(ni.Used)
			out = append(out, ni)
		}
	}
	if in.Node != "" && !found {
		return nil, noNode(in.Node)
	}
	return out, nil
}

// tagged is a reference as engines list it: "docker.io/library/web" is "web:latest".
func tagged(ref string) string {
	n, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ref
	}
	return reference.FamiliarString(reference.TagNameOnly(n))
}

type resolveInput struct {
	Ref string `query:"ref" required:"true" minLength:"1" maxLength:"512"`
}

func (s *Server) resolveImage(ctx context.Context, in *resolveInput) (v1.BuildResult, error) {
	nodes := s.read("").sortedNodes()
	slices.SortStableFunc(nodes, func(a, b cluster.Node) int { return boolRank(a.Key != "") - boolRank(b.Key != "") }) // servers' own first
	for _, n := range nodes {
		if !n.Alive {
			continue
		}
		h, err := s.Hosts.Images(n.ID)
		if err != nil {
			continue // a node that cannot be asked may simply not be the one
		}
		i, err := h.Identity(ctx, in.Ref)
		switch {
		case err == nil:
			return v1.BuildResult{ID: i.ID, Ref: in.Ref, Node: n.ID}, nil
		case cluster.KindOf(err) != cluster.KindNotFound:
			return v1.BuildResult{}, err
		}
	}
	return v1.BuildResult{}, cluster.NotFoundf("no node has the image %s", in.Ref)
}

type buildInput struct {
	tarBody
	Options string `header:"Build-Options" required:"true" maxLength:"262144" doc:"BuildOptions as JSON, in base64"`
}

// fromHeader reads what a header holds as JSON in base64, beside a body that is a tar.
func fromHeader[T any](name, value string) (T, error) {
	var v T
	b, err := base64.StdEncoding.DecodeString(value)
	if err != nil {
		return v, cluster.Invalidf("%s is not base64: %w", name, err)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		return v, cluster.Invalidf("%s: %w", name, err)
	}
	return v, nil
}

func (in *buildInput) options() (v1.BuildOptions, error) {
	o, err := fromHeader[v1.BuildOptions]("Build-Options", in.Options)
	if err != nil {
		return o, err
	}
	if err := cluster.ValidAppName(o.App); err != nil {
		return o, err
	}
	return o, cluster.ValidServiceName(o.Service)
}

// builder chooses the node that builds: the one asked for, else the first that takes tasks.
func (s *Server) builder(want cluster.NodeID) (cluster.NodeID, ImageHost, error) {
	m := s.read("")
	if want != "" {
		if _, ok := m.nodes[want]; !ok {
			return "", nil, noNode(string(want))
		}
		h, err := s.Hosts.Images(want)
		return want, h, err
	}
	nodes := m.sortedNodes()
	slices.SortStableFunc(nodes, func(a, b cluster.Node) int { return boolRank(b.Schedulable()) - boolRank(a.Schedulable()) })
	err := cluster.Transientf("no node can build now: none answers; `fairlead node ls` shows them")
	for _, n := range nodes {
		if !n.Alive {
			continue
		}
		var h ImageHost
		if h, err = s.Hosts.Images(n.ID); err == nil {
			return n.ID, h, nil
		}
	}
	return "", nil, err
}

// builderWithin is how long a build waits for a node: a server that has just been
// started answers a moment before its own node does.
const builderWithin = 10 * time.Second

// awaitBuilder is builder, for a while.
func (s *Server) awaitBuilder(ctx context.Context, want cluster.NodeID) (cluster.NodeID, ImageHost, error) {
	ctx, cancel := context.WithTimeout(ctx, builderWithin)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		node, h, err := s.builder(want)
		if err == nil || cluster.KindOf(err) != cluster.KindTransient {
			return node, h, err
		}
		select {
		case <-ctx.Done():
			return node, h, err
		case <-tick.C:
		}
	}
}

func boolRank(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (s *Server) build(ctx context.Context, in *buildInput) (*huma.StreamResponse, error) {
	o, err := in.options()
	if err != nil {
		return nil, err
	}
	node, h, err := s.awaitBuilder(ctx, o.Node)
	if err != nil {
		in.open(v1.MaxBuild)
		in.finish() // the client has begun to send long ago
		return nil, err
	}
	s.Log.Info("builds an image", "app", o.App, "service", o.Service, "node", node, "by", who(ctx))
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		_, w := humago.Unwrap(hc)
		// A build talks while it still reads. Nothing else may: a handler that answers
		// before it has read all makes the server trip over its own reading.
		_ = http.NewResponseController(w).EnableFullDuplex()
		tar := in.open(v1.MaxBuild)
		defer in.finish()
		w.Header().Set("Content-Type", "application/x-ndjson")
		w.Header().Set("X-Accel-Buffering", "no")
		lines := &buildLines{w: w, rc: http.NewResponseController(w)}
		id, err := h.Build(ctx, tar, o, lines)
		ref := v1.BuildTag(o.App, o.Service, id)
		if err == nil {
			err = h.Tag(ctx, id, ref)
		}
		if err != nil {
			p := problemOf(tarError(err, v1.MaxBuild)).Problem
			_ = lines.event(v1.BuildEvent{Error: &p})
			return
		}
		spare := s.copyBuilt(ctx, node, h, ref, o.Platform, lines)
		_ = lines.event(v1.BuildEvent{Result: &v1.BuildResult{ID: id, Ref: ref, Node: node, Copy: spare}})
	}}, nil
}

// buildLines makes a build's output into lines of JSON.
type buildLines struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

func (b *buildLines) event(e v1.BuildEvent) error {
	if err := json.NewEncoder(b.w).Encode(e); err != nil {
		return err
	}
	return b.rc.Flush()
}

// Write implements io.Writer.
func (b *buildLines) Write(p []byte) (int, error) {
	if err := b.event(v1.BuildEvent{Text: string(p)}); err != nil {
		return 0, err
	}
	return len(p), nil
}
