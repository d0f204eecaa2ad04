package server

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/fairlead/fairlead/agent"
	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/api"
	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
	"github.com/fairlead/fairlead/tunnel"
)

var _ api.Hosts = (*nodeParts)(nil)

// Tasks implements api.Hosts: this node itself, others through their tunnel.
func (n *nodeParts) Tasks(node cluster.NodeID) (api.TaskHost, error) {
	if n.agent != nil && node == cluster.NodeID(n.Node) {
		return taskHost{n.agent}, nil
	}
	return n.hub.Node(node)
}

// Images implements api.Hosts, as Tasks.
func (n *nodeParts) Images(node cluster.NodeID) (api.ImageHost, error) {
	if n.agent != nil && (node == "" || node == cluster.NodeID(n.Node)) {
		return imageHost{n.engine, n.agent, n.cluster}, nil
	}
	return n.hub.Node(node)
}

// image finds an image on this node or a connected one, for another that asks: its
// tar is without the layers that are there, unless the whole is asked for.
func (n *nodeParts) image(ctx context.Context, asks cluster.NodeID, ask cluster.ImageAsk) (cluster.ImageSent, error) {
	nodes, content := n.sources(asks, ask)
	found, err := findImage(ctx, nodes, n.Images, ask.Ref, cluster.ImageWant{Ref: ask.Want(), Content: content})
	if err != nil {
		return cluster.ImageSent{}, err
	}
	node, h, want := found.node, found.host, ask.Want()
	// By its name where that still means it: an older node gives it no other.
	if name := cluster.TaggedImage(ask.Ref); want != name {
		has, err := h.Identity(ctx, want)
		named, nerr := h.Identity(ctx, name)
		if err == nil && nerr == nil && named.ID == has.ID {
			want = name
		}
	}
	var have cluster.ImageHave
	if to, err := n.Images(asks); err == nil && !ask.Whole {
		have = api.HaveOf(ctx, h, to, want)
	}
	n.Log.Info("sends an image from node to node", "image", ask.Ref, "from", node, "to", asks, "layers_there", have.Layers, "blobs_there", len(have.Blobs))
	tar, err := h.Save(ctx, want, have)
	return cluster.ImageSent{ReadCloser: tar, From: node, Content: content, Pulled: found.inRegistry(ask, content)}, err
}

// sources are the nodes that could have what a node asks for, and what it must be of where
// the cluster knows that.
func (n *nodeParts) sources(asks cluster.NodeID, ask cluster.ImageAsk) (nodes []cluster.NodeID, content string) {
	n.mirror.Read(func(v store.View) { nodes, content = imageSources(v, asks, ask) })
	self := cluster.NodeID(n.Node)
	i := slices.Index(nodes, self)
	switch {
	case i >= 0 && n.agent == nil:
		nodes = slices.Delete(nodes, i, i+1)
	case i >= 0:
		nodes[0], nodes[i] = self, nodes[0] // it is nearest
	}
	return nodes, content
}

// imageSources are the nodes that are alive and run containers, connected or not, but those
// that may not be believed: a node that somebody took over says of any image that it has it.
// What is asked for by its ID, or was pushed, is known by that whoever sends it. Of the
// others, a server's own node is believed, and one that runs the same image for the same app:
// it has all of that app's already.
func imageSources(v store.View, asks cluster.NodeID, ask cluster.ImageAsk) (nodes []cluster.NodeID, content string) {
	if ask.ID == "" {
		if r, ok, err := store.One[cluster.ImageRecord](v, store.ImageKey(ask.Ref)); ok && err == nil {
			content = r.V.Content
		}
	}
	apps := map[cluster.NodeID]map[cluster.AppName]bool{} // that have this image, by node
	for _, p := range store.Placements(v) {
		if cluster.TaggedImage(p.Spec.Image) != cluster.TaggedImage(ask.Ref) {
			continue
		}
		if apps[p.Node] == nil {
			apps[p.Node] = map[cluster.AppName]bool{}
		}
		apps[p.Node][p.App] = true
	}
	believed := func(x cluster.Node) bool {
		if ask.ID != "" || content != "" || x.Key == "" && store.IsServer(v, x.ID) {
			return true
		}
		return slices.ContainsFunc(ask.Apps, func(a cluster.AppName) bool { return apps[x.ID][a] })
	}
	for _, x := range store.Nodes(v) {
		if x.Alive && x.ID != asks && !slices.Contains(ask.Not, x.ID) && slices.Contains(x.Info.Roles, "agent") && believed(x) {
			nodes = append(nodes, x.ID)
		}
	}
	return nodes, content
}

// foundImage is an image, on a node that has it.
type foundImage struct {
	node  cluster.NodeID
	host  api.ImageHost
	image cluster.ImageIdentity
}

// inRegistry reports whether what was found can be had from its registry again. What was pushed
// or built here, of which the content is known, may be in none, whatever a node says.
func (f foundImage) inRegistry(ask cluster.ImageAsk, content string) bool {
	return f.image.Pulled && content == "" && ask.ID == ""
}

// findImage is the first of nodes that has an image. That none has it is KindNotFound only
// where all could be asked: else it is worth asking again.
func findImage(ctx context.Context, nodes []cluster.NodeID, host func(cluster.NodeID) (api.ImageHost, error), ref string, want cluster.ImageWant) (foundImage, error) {
	var silent []string
	for _, node := range nodes {
		h, err := host(node)
		var i cluster.ImageIdentity
		if err == nil {
			i, err = h.Identity(ctx, want.Ref)
		}
		switch {
		case err == nil && (i.Content == "" || want.Met(i)): // older nodes do not say it
			return foundImage{node, h, i}, nil
		case ctx.Err() != nil:
			return foundImage{}, context.Cause(ctx)
		case err != nil && cluster.KindOf(err) != cluster.KindNotFound:
			silent = append(silent, fmt.Sprintf("%s: %v", node, err))
		}
	}
	if len(silent) > 0 {
		return foundImage{}, cluster.Transientf("no other node that answers has the image %s, and not all do: %s", ref, strings.Join(silent, "; "))
	}
	return foundImage{}, cluster.NotFoundf("no other node has the image %s", ref)
}

// handler answers what servers ask this node through its tunnel.
func (n *nodeParts) handler() http.Handler {
	return tunnel.Node{
		Tasks: taskHost{n.agent}, Images: imageHost{n.engine, n.agent, n.cluster}, Samples: n.ownSamples,
		SampleEvery: max(n.AutoscalePeriod.D()/samplesPerLook, time.Second),
	}.Handler()
}

type taskHost struct{ *agent.Agent }

// Exec implements api.TaskHost.
func (t taskHost) Exec(ctx context.Context, task cluster.TaskID, o cluster.ExecOptions, s api.Streams) (int, error) {
	return t.Agent.Exec(ctx, task, o, agent.ExecStreams{In: s.Stdin, Out: s.Stdout, Err: s.Stderr, Resize: s.Resize})
}

var _ interface {
	Dial(ctx context.Context, task cluster.TaskID, port int) (net.Conn, error)
} = taskHost{}

// imageHost is the engine. What gives an image a name is told to the agent, which removes unused ones.
type imageHost struct {
	*docker.Engine
	agent   *agent.Agent
	cluster string
}

// Load implements api.ImageHost.
func (h imageHost) Load(ctx context.Context, tar io.Reader, want cluster.ImageWant) error {
	return h.agent.Brings(ctx, []string{want.Ref}, func() error { return h.Engine.Load(ctx, tar, want) })
}

// Tag implements api.ImageHost.
func (h imageHost) Tag(ctx context.Context, id, ref string) error {
	return h.agent.Brings(ctx, []string{ref}, func() error { return h.Engine.Tag(ctx, id, ref) })
}

// Identity implements api.ImageHost.
func (h imageHost) Identity(ctx context.Context, ref string) (cluster.ImageIdentity, error) {
	i, err := h.Engine.Identity(ctx, ref)
	i.Pulled = err == nil && h.agent.Pulled(ref, i.ID)
	return i, err
}

// Build implements api.ImageHost.
func (h imageHost) Build(ctx context.Context, tar io.Reader, o v1.BuildOptions, progress io.Writer) (string, error) {
	args := map[string]string{}
	for k, v := range o.Args {
		if v != nil {
			args[k] = *v
		}
	}
	labels := map[string]string{cluster.LabelCluster: h.cluster}
	maps.Copy(labels, o.Labels)
	tags := append([]string{fmt.Sprintf("fairlead/%s-%s:latest", o.App, o.Service)}, o.Tags...)
	var id string
	err := h.agent.Brings(ctx, tags, func() (err error) {
		id, err = h.Engine.Build(ctx, docker.Build{
			Context: tar, Tags: tags, Dockerfile: o.Dockerfile, Target: o.Target, Args: args,
			Labels: labels, Platform: o.Platform, NoCache: o.NoCache, Pull: o.Pull, Progress: progress,
			Network: o.Network, ExtraHosts: o.ExtraHosts, ShmSize: o.ShmSize, CacheFrom: o.CacheFrom,
		})
		return err
	})
	return id, err
}
