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
		return imageHost{n.engine, n.cluster}, nil
	}
	return n.hub.Node(node)
}

// image finds an image on this node or a connected one, for another that asks: its
// tar is without the layers that are there, unless whole is set.
func (n *nodeParts) image(ctx context.Context, asks cluster.NodeID, ref, id string, whole bool) (io.ReadCloser, error) {
	want := ref
	if id != "" {
		want = id
	}
	node, h, err := findImage(ctx, n.mayHave(asks), n.Images, ref, want)
	if err != nil {
		return nil, err
	}
	// By its name, so that it has the name there too, when that still means it.
	if has, err := h.ImageID(ctx, want); err == nil {
		if named, err := h.ImageID(ctx, ref); err == nil && named == has {
			want = ref
		}
	}
	var have cluster.ImageHave
	if to, err := n.Images(asks); err == nil && !whole {
		have = api.HaveOf(ctx, h, to, want)
	}
	n.Log.Info("sends an image from node to node", "image", ref, "from", node, "to", asks, "layers_there", have.Layers, "blobs_there", len(have.Blobs))
	return h.Save(ctx, want, have)
}

// mayHave are the nodes that could have what a node asks for: this one first, and of the
// others those that are alive and run containers, connected or not.
func (n *nodeParts) mayHave(asks cluster.NodeID) []cluster.NodeID {
	self := cluster.NodeID(n.Node)
	var others []cluster.NodeID
	n.mirror.Read(func(v store.View) {
		for _, x := range store.Nodes(v) {
			if x.Alive && x.ID != self && x.ID != asks && slices.Contains(x.Info.Roles, "agent") {
				others = append(others, x.ID)
			}
		}
	})
	if n.agent == nil || asks == self {
		return others
	}
	return append([]cluster.NodeID{self}, others...)
}

// findImage is the first of nodes that has an image. That none has it is KindNotFound only
// where all could be asked: else it is worth asking again.
func findImage(ctx context.Context, nodes []cluster.NodeID, host func(cluster.NodeID) (api.ImageHost, error), ref, want string) (cluster.NodeID, api.ImageHost, error) {
	var silent []string
	for _, node := range nodes {
		h, err := host(node)
		if err == nil {
			_, err = h.ImageID(ctx, want)
		}
		switch {
		case err == nil:
			return node, h, nil
		case ctx.Err() != nil:
			return "", nil, context.Cause(ctx)
		case cluster.KindOf(err) != cluster.KindNotFound:
			silent = append(silent, fmt.Sprintf("%s: %v", node, err))
		}
	}
	if len(silent) > 0 {
		return "", nil, cluster.Transientf("no other node that answers has the image %s, and not all do: %s", ref, strings.Join(silent, "; "))
	}
	return "", nil, cluster.NotFoundf("no other node has the image %s", ref)
}

// handler answers what servers ask this node through its tunnel.
func (n *nodeParts) handler() http.Handler {
	return tunnel.Node{
		Tasks: taskHost{n.agent}, Images: imageHost{n.engine, n.cluster}, Samples: n.ownSamples,
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

type imageHost struct {
	*docker.Engine
	cluster string
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
	return h.Engine.Build(ctx, docker.Build{
		Context: tar, Tags: append([]string{fmt.Sprintf("fairlead/%s-%s:latest", o.App, o.Service)}, o.Tags...), Dockerfile: o.Dockerfile, Target: o.Target, Args: args,
		Labels: labels, Platform: o.Platform, NoCache: o.NoCache, Pull: o.Pull, Progress: progress,
		Network: o.Network, ExtraHosts: o.ExtraHosts, ShmSize: o.ShmSize, CacheFrom: o.CacheFrom,
	})
}
