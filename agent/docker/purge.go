package docker

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"

	"github.com/fairlead/fairlead/cluster"
)

// Purge removes every container, network, volume and image that carries the
// cluster's label, and returns what it removed.
func (e *Engine) Purge(ctx context.Context, clusterID string) (removed []string, err error) {
	own := filters.NewArgs(filters.Arg("label", cluster.LabelCluster+"="+clusterID))
	did := func(what string, rerr error) {
		if rerr == nil {
			removed = append(removed, what)
		}
		err = errors.Join(err, kind(rerr))
	}
	containers, lerr := e.cli.ContainerList(ctx, container.ListOptions{All: true, Filters: own})
	err = errors.Join(err, kind(lerr))
	for _, c := range containers {
		did("container "+c.Names[0][1:], e.cli.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true, RemoveVolumes: true}))
	}
	networks, lerr := e.cli.NetworkList(ctx, network.ListOptions{Filters: own})
	err = errors.Join(err, kind(lerr))
	for _, n := range networks {
		did("network "+n.Name, e.miscounted(ctx, n.ID, e.cli.NetworkRemove(ctx, n.ID)))
	}
	volumes, lerr := e.cli.VolumeList(ctx, volume.ListOptions{Filters: own})
	err = errors.Join(err, kind(lerr))
	for _, v := range volumes.Volumes {
		did("volume "+v.Name, e.cli.VolumeRemove(ctx, v.Name, true))
	}
	images, lerr := e.cli.ImageList(ctx, image.ListOptions{All: true, Filters: own})
	err = errors.Join(err, kind(lerr))
	for _, i := range images {
		if own, others := builtTags(i.RepoTags); len(others) > 0 { // somebody named it too: it stays theirs
			for _, tag := range own {
				_, rerr := e.cli.ImageRemove(ctx, tag, image.RemoveOptions{})
				did("image "+tag, rerr)
			}
			continue
		}
		_, rerr := e.cli.ImageRemove(ctx, i.ID, image.RemoveOptions{Force: true, PruneChildren: true})
		if rerr != nil && cluster.KindOf(kind(rerr)) == cluster.KindNotFound {
			continue // went with another
		}
		did("image "+i.ID, rerr)
	}
	return removed, err
}

// builtTags divides an image's names into those that builds give and others.
func builtTags(tags []string) (own, others []string) {
	for _, t := range tags {
		if strings.HasPrefix(t, "fairlead/") {
			own = append(own, t)
		} else {
			others = append(others, t)
		}
	}
	return own, others
}

// ErrMiscounted is why a network stays that nobody uses.
var ErrMiscounted = errors.New("Docker counts a container on it, and none is there") //nolint:staticcheck // Docker is a name, and keeps its capital

// miscounted explains a refusal to remove a network that nobody uses. Engines
// (20.10 at least) sometimes count a container too many on a network when many
// start at once, and count anew only when they start.
func (e *Engine) miscounted(ctx context.Context, id string, err error) error {
	if err == nil || !strings.Contains(err.Error(), "has active endpoints") {
		return err
	}
	now, ierr := e.cli.NetworkInspect(ctx, id, network.InspectOptions{})
	if ierr != nil || len(now.Containers) > 0 {
		return err
	}
	return fmt.Errorf("network %s: %w: restart Docker, then do this again", now.Name, ErrMiscounted)
}

// Tag gives an image a further name.
func (e *Engine) Tag(ctx context.Context, id, ref string) error {
	return kind(e.cli.ImageTag(ctx, id, ref))
}
