package api

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"golang.org/x/sync/errgroup"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

func (s *Server) registerPush(api huma.API) {
	handle(api, op(http.MethodPost, "/images/push/plan", "plan-push", "images", "Which layers of an image the nodes lack"), s.planPush)
	push := op(http.MethodPost, "/images/push", "push-image", "images", "Give an image, sent as the engine's tar, to nodes; answers with lines of JSON")
	push.Responses = map[string]*huma.Response{"200": {
		Description: "A line for each node that is done",
		Content:     map[string]*huma.MediaType{"application/x-ndjson": {Schema: schemaOf[v1.PushEvent](api.OpenAPI().Components.Schemas)}},
	}}
	handleTar(api, push, s.push)
}

// HaveOf says which layers of an image one host need not send to another: none are
// spared where that cannot be told.
func HaveOf(ctx context.Context, from, to ImageHost, ref string) cluster.ImageHave {
	layers, err := from.ImageLayers(ctx, ref)
	if err != nil {
		return cluster.ImageHave{}
	}
	have, err := to.Have(ctx, layers)
	if err != nil {
		return cluster.ImageHave{}
	}
	return have
}

// pushTargets are the nodes that get an image, and those that do not; an error when a
// node that was named cannot.
func pushTargets(nodes []cluster.Node, p v1.ImagePush) (to []cluster.NodeID, skipped []v1.PushSkipped, err error) {
	for _, want := range p.Nodes {
		if !slices.ContainsFunc(nodes, func(n cluster.Node) bool { return n.ID == want }) {
			return nil, nil, noNode(string(want))
		}
	}
	for _, n := range nodes {
		named := slices.Contains(p.Nodes, n.ID)
		if len(p.Nodes) > 0 && !named {
			continue
		}
		reason := ""
		switch {
		case !n.Alive:
			reason = "it does not answer"
		case n.Info.OS != p.OS || cluster.NormalArch(n.Info.Arch) != cluster.NormalArch(p.Arch):
			reason = fmt.Sprintf("it is %s/%s, and the image %s/%s", n.Info.OS, n.Info.Arch, p.OS, p.Arch)
		case !named && !n.Schedulable():
			reason = "it takes no new tasks"
		default:
			to = append(to, n.ID)
			continue
		}
		if named {
			return nil, nil, cluster.Invalidf("node %s cannot have %s: %s", n.ID, p.Ref, reason)
		}
		skipped = append(skipped, v1.PushSkipped{Node: n.ID, Reason: reason})
	}
	return to, skipped, nil
}

// candidate is a node that could take a push from the client.
type candidate struct {
	node    cluster.NodeID
	present bool
	have    cluster.ImageHave
}

// lacksLess orders candidates: first the one that the client has least to send to.
func lacksLess(a, b candidate) int {
	return cmp.Or(boolRank(b.present)-boolRank(a.present), b.have.Layers-a.have.Layers,
		len(b.have.Blobs)-len(a.have.Blobs), cmp.Compare(a.node, b.node))
}

type planPushInput struct{ Body v1.ImagePush }

func (s *Server) planPush(ctx context.Context, in *planPushInput) (v1.PushPlan, error) {
	p := in.Body
	to, skipped, err := pushTargets(s.read("").sortedNodes(), p)
	if err != nil {
		return v1.PushPlan{}, err
	}
	var mu sync.Mutex
	var found []candidate
	var g errgroup.Group
	g.SetLimit(pushAtOnce)
	for _, node := range to {
		g.Go(func() error {
			c, err := s.lookForPush(ctx, node, p)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				found = append(found, c)
			case len(p.Nodes) > 0:
				return fmt.Errorf("node %s: %w", node, err)
			default:
				skipped = append(skipped, v1.PushSkipped{Node: node, Reason: err.Error()})
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return v1.PushPlan{}, err
	}
	slices.SortFunc(skipped, func(a, b v1.PushSkipped) int { return cmp.Compare(a.Node, b.Node) })
	if len(found) == 0 {
		err := cluster.Transientf("no node can have %s", p.Ref)
		for _, k := range skipped {
			err = fmt.Errorf("%w; %s: %s", err, k.Node, k.Reason)
		}
		return v1.PushPlan{}, err
	}
	slices.SortFunc(found, lacksLess)
	plan := v1.PushPlan{Node: found[0].node, Present: found[0].present, Have: found[0].have, Skipped: skipped, Verifies: true}
	for _, c := range found {
		plan.Nodes = append(plan.Nodes, c.node)
	}
	slices.Sort(plan.Nodes[1:])
	return plan, nil
}

// pushAtOnce bounds how many nodes are asked, or given an image, at a time.
const pushAtOnce = 8

func (s *Server) lookForPush(ctx context.Context, node cluster.NodeID, p v1.ImagePush) (candidate, error) {
	h, err := s.Hosts.Images(node)
	if err != nil {
		return candidate{}, err
	}
	if i, err := h.Identity(ctx, p.Ref); err == nil && i.ID == p.ID {
		return candidate{node: node, present: true}, nil
	}
	have, err := h.Have(ctx, p.Layers)
	return candidate{node: node, have: have}, err
}

type pushInput struct {
	tarBody
	Start string `header:"Image-Push" required:"true" maxLength:"262144" doc:"PushStart as JSON, in base64"`
}

func (in *pushInput) start() (v1.PushStart, error) {
	p, err := fromHeader[v1.PushStart]("Image-Push", in.Start)
	if err != nil {
		return p, err
	}
	if p.Ref == "" || len(p.Nodes) == 0 {
		return p, cluster.Invalidf("Image-Push names no image, or no node")
	}
	return p, nil
}

func (s *Server) push(ctx context.Context, in *pushInput) (*huma.StreamResponse, error) {
	p, err := in.start()
	if err != nil {
		return nil, err
	}
	m := s.read("")
	for _, n := range p.Nodes {
		if _, ok := m.nodes[n]; !ok {
			return nil, noNode(string(n))
		}
	}
	first, err := s.Hosts.Images(p.Nodes[0])
	if err != nil {
		return nil, err
	}
	s.Log.Info("takes an image", "image", p.Ref, "nodes", p.Nodes, "by", who(ctx))
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		_, w := humago.Unwrap(hc)
		_ = http.NewResponseController(w).EnableFullDuplex() // as a build
		tar := in.open(v1.MaxImage)
		defer in.finish()
		w.Header().Set("Content-Type", "application/x-ndjson")
		w.Header().Set("X-Accel-Buffering", "no")
		lines := &pushLines{w: w}
		taken := v1.PushedNode{Node: p.Nodes[0]}
		if p.Present {
			if err := keepImage(ctx, first, p.Ref); err != nil {
				pr := problemOf(err).Problem
				lines.event(v1.PushEvent{Error: &pr})
				return
			}
		} else {
			counted := &counter{r: tar}
			// No ID or content is asked for: the client's engine may be of another kind.
			if err := first.Load(ctx, counted, cluster.ImageWant{Ref: p.Ref}); err != nil {
				pr := problemOf(tarError(err, v1.MaxImage)).Problem
				lines.event(v1.PushEvent{Error: &pr})
				return
			}
			taken.Bytes = counted.n.Load()
		}
		if err := s.recordImage(ctx, p); err != nil {
			pr := problemOf(err).Problem
			lines.event(v1.PushEvent{Error: &pr})
			return
		}
		lines.event(v1.PushEvent{Node: &taken})
		var g errgroup.Group
		g.SetLimit(pushAtOnce)
		for _, node := range p.Nodes[1:] {
			g.Go(func() error {
				done := s.passOn(ctx, first, p, node)
				lines.event(v1.PushEvent{Node: &done})
				return nil
			})
		}
		_ = g.Wait()
		lines.event(v1.PushEvent{Done: true})
	}}, nil
}

// passOn gives a node an image that the first one has.
func (s *Server) passOn(ctx context.Context, first ImageHost, p v1.PushStart, node cluster.NodeID) v1.PushedNode {
	out := v1.PushedNode{Node: node, From: p.Nodes[0]}
	to, err := s.Hosts.Images(node)
	if err == nil {
		out.Bytes, err = copyImage(ctx, first, to, cluster.ImageWant{Ref: p.Ref, Content: p.Content})
	}
	if cluster.KindOf(err) == cluster.KindInvalid {
		err = fmt.Errorf("%w; it came from node %s: push to %s by itself (--node %s), and look at what %s is", err, p.Nodes[0], node, node, p.Nodes[0])
	}
	if err != nil {
		out.Error = err.Error()
	}
	return out
}

// maxImageRecords bounds how many pushed and built images, of those that no task needs, are
// known by their content.
const maxImageRecords = 1000

// recordImage notes what a name stands for, so that a node which needs it later can tell
// whether another one sends that.
func (s *Server) recordImage(ctx context.Context, p v1.PushStart) error {
	key := store.ImageKey(p.Ref)
	op := store.Op{Key: key, Delete: true} // an older client says no content
	if p.Content != "" {
		var err error
		if op, err = store.PutJSON(key, cluster.ImageRecord{Ref: p.Ref, ID: p.ID, Content: p.Content, By: who(ctx), At: s.Now().UTC()}); err != nil {
			return err
		}
	}
	ops := []store.Op{op}
	s.Mirror.Read(func(v store.View) { ops = append(ops, surplusRecords(v, key)...) })
	_, err := s.Store.Commit(ctx, store.Txn{Then: ops})
	return err
}

// surplusRecords removes the oldest records, some at a time, so that one more has room.
func surplusRecords(v store.View, added string) (ops []store.Op) {
	keep := map[string]bool{added: true}
	for _, x := range store.Placements(v) {
		keep[store.ImageKey(x.Spec.Image)] = true
	}
	old := slices.DeleteFunc(store.All[cluster.ImageRecord](v, store.PrefixImages, nil), func(r store.Value[cluster.ImageRecord]) bool {
		return keep[r.Key]
	})
	over := len(old) - maxImageRecords + 1
	if over <= 0 {
		return nil
	}
	slices.SortFunc(old, func(a, b store.Value[cluster.ImageRecord]) int { return a.V.At.Compare(b.V.At) })
	for _, r := range old[:min(over, 10)] {
		ops = append(ops, store.Op{Key: r.Key, Delete: true})
	}
	return ops
}

// copyTries bounds how many nodes are tried before a built image stays on its builder alone.
const copyTries = 3

// copyBuilt gives one more node an image that was just built, and says how that went. One
// survives the loss of the builder; the others get it when a task needs it.
func (s *Server) copyBuilt(ctx context.Context, builder cluster.NodeID, from ImageHost, ref, platform string, progress io.Writer) *v1.BuildCopy {
	to, away := spares(s.read("").sortedNodes(), builder, platform)
	var content string
	i, err := from.Identity(ctx, ref)
	if err == nil { // else the copy says why it cannot be made
		content = i.Content
		err = s.recordImage(ctx, v1.PushStart{Ref: ref, ID: i.ID, Content: content})
	}
	if err != nil {
		s.Log.Warn("could not note what was built: only nodes that run it can pass it on", "image", ref, "node", builder, "error", err)
	}
	for _, node := range to[:min(copyTries, len(to))] {
		_, _ = fmt.Fprintf(progress, "copies the image to %s\n", node) // who gave up is seen by ctx
		done := s.passOn(ctx, from, v1.PushStart{Ref: ref, Content: content, Nodes: []cluster.NodeID{builder}}, node)
		if done.Error == "" {
			return &v1.BuildCopy{Node: node, Bytes: done.Bytes}
		}
		if ctx.Err() != nil {
			return nil
		}
		away = append(away, v1.PushSkipped{Node: node, Reason: done.Error})
	}
	if len(away) == 0 {
		return nil
	}
	why := make([]string, 0, len(away))
	for _, a := range away {
		why = append(why, string(a.Node)+": "+a.Reason)
	}
	s.Log.Warn("a built image is on its builder alone", "image", ref, "node", builder, "reason", strings.Join(why, "; "))
	return &v1.BuildCopy{Error: strings.Join(why, "; ")}
}

// spares are the nodes that could run what builder built, the next by name first, and
// those that could if they were there.
func spares(nodes []cluster.Node, builder cluster.NodeID, platform string) (to []cluster.NodeID, away []v1.PushSkipped) {
	var p v1.ImagePush
	for _, n := range nodes {
		if n.ID == builder {
			p.OS, p.Arch = n.Info.OS, cluster.NormalArch(n.Info.Arch)
		}
	}
	if platform != "" {
		os, rest, _ := strings.Cut(platform, "/")
		arch, _, _ := strings.Cut(rest, "/")
		p.OS, p.Arch = os, cluster.NormalArch(arch)
	}
	others := slices.DeleteFunc(slices.Clone(nodes), func(n cluster.Node) bool {
		return n.ID == builder || n.Info.OS != p.OS || cluster.NormalArch(n.Info.Arch) != p.Arch
	})
	to, skipped, _ := pushTargets(others, p) // no node is named, none can be refused
	for _, s := range skipped {
		if slices.ContainsFunc(others, func(n cluster.Node) bool { return n.ID == s.Node && !n.Alive }) {
			away = append(away, s)
		}
	}
	slices.SortFunc(to, func(a, b cluster.NodeID) int {
		return cmp.Or(boolRank(a < builder)-boolRank(b < builder), cmp.Compare(a, b))
	})
	return to, away
}

// keepImage gives an image the name that it has already: a node that pulled it itself hears that
// it was pushed, and does not remove it when its disk is full.
func keepImage(ctx context.Context, h ImageHost, ref string) error {
	i, err := h.Identity(ctx, ref)
	if err != nil {
		return err
	}
	return h.Tag(ctx, i.ID, ref)
}

// copyImage sends an image that the other host does not have yet, and returns how many bytes
// that took.
func copyImage(ctx context.Context, from, to ImageHost, want cluster.ImageWant) (int64, error) {
	want.Ref = cluster.TaggedImage(want.Ref) // an older node's archive of a name alone has all of its tags
	i, err := from.Identity(ctx, want.Ref)
	if err != nil {
		return 0, err
	}
	if has, err := to.Identity(ctx, want.Ref); err == nil && has.ID == i.ID && want.Met(has) {
		// As keepImage; it may just have been removed.
		if err := to.Tag(ctx, has.ID, want.Ref); cluster.KindOf(err) != cluster.KindNotFound {
			return 0, err
		}
	}
	var counted counter
	send := func(have cluster.ImageHave) error {
		tar, err := from.Save(ctx, want.Ref, have)
		if err != nil {
			return err
		}
		defer func() { _ = tar.Close() }()
		counted.r = tar
		return to.Load(ctx, &counted, want)
	}
	have := HaveOf(ctx, from, to, want.Ref)
	err = send(have)
	if err != nil && cluster.KindOf(err) != cluster.KindInvalid && !have.None() && ctx.Err() == nil {
		err = send(cluster.ImageHave{}) // a layer may have been removed there meanwhile
	}
	return counted.n.Load(), err
}

// counter counts what is read. A transport may still read when the count is asked for.
type counter struct {
	r io.Reader
	n atomic.Int64
}

// Read implements io.Reader.
func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// pushLines makes what comes of a push into lines of JSON.
type pushLines struct {
	mu sync.Mutex
	w  http.ResponseWriter
}

// event sends a line; a client that is gone needs none.
func (l *pushLines) event(e v1.PushEvent) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if json.NewEncoder(l.w).Encode(e) == nil {
		_ = http.NewResponseController(l.w).Flush()
	}
}
