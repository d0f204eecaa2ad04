package docker

import (
	"context"
	"strings"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"

	"github.com/fairlead/fairlead/cluster"
)

// Event is something that happened to a container or an image.
type Event struct {
	Image     bool   // an image was added, tagged, untagged or removed; only Removed is set
	Removed   string // the ID of the image that went
	Container string // ID
	Task      cluster.TaskID
	Action    string // "start", "die", "destroy", "health_status", "pause", "unpause", "oom"
	Health    string // with "health_status"
}

// Events calls on for each event of the cluster's containers on this node, and
// of images, until ctx ends or the connection breaks; it then returns why.
// begun is called once events can no longer be missed.
func (e *Engine) Events(ctx context.Context, clusterID string, node cluster.NodeID, begun func(), on func(Event)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	args := filters.NewArgs(filters.Arg("type", "container"), filters.Arg("type", "image"))
	// Without health checks' exec_* events, the most frequent ones by far.
	for _, a := range []string{
		"start", "die", "destroy", "health_status", "pause", "unpause",
		"pull", "tag", "untag", "delete", "load", "import",
	} {
		args.Add("event", a)
	}
	// Events filters by label would leave images out: labels are compared here.
	msgs, errs := e.cli.Events(ctx, events.ListOptions{Filters: args})
	begun()
	for {
		select {
		case err := <-errs:
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return kind(err)
		case m := <-msgs:
			if m.Type == events.ImageEventType {
				e := Event{Image: true}
				if m.Action == events.ActionDelete {
					e.Removed = m.Actor.ID
				}
				on(e)
				continue
			}
			a := m.Actor.Attributes
			if a[cluster.LabelCluster] != clusterID || a[cluster.LabelNode] != string(node) {
				continue
			}
			action, detail, _ := strings.Cut(string(m.Action), ":")
			on(Event{
				Container: m.Actor.ID, Task: cluster.TaskID(a[cluster.LabelTask]),
				Action: action, Health: strings.TrimSpace(detail),
			})
		}
	}
}
