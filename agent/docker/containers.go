package docker

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"

	"github.com/fairlead/fairlead/cluster"
)

// States of a container, in Docker's words.
const (
	Created    = "created"
	Running    = "running"
	Paused     = "paused"
	Restarting = "restarting"
	Removing   = "removing"
	Exited     = "exited"
	Dead       = "dead"
)

// Container is what the engine knows of one container.
type Container struct {
	ID, Name string
	Labels   map[string]string
	State    string // Created, Running, …
	Pid      int    // of its first process, in the host's PID namespace
	ExitCode int
	OOM      bool   // ended because its memory ran out
	Error    string // why it did not start
	Health   string // "", "none", "starting", "healthy", "unhealthy"
	// HealthOutput is what the last failed health check printed.
	HealthOutput string
	// HealthTest is the check that the engine runs, as the container was made.
	HealthTest        []string
	Started, Finished time.Time
	Addresses         map[string]string     // IP by Docker network ID
	Fixed             map[string]netip.Addr // the addresses it was made with
	StopSignal        string
	StopTimeout       time.Duration
	TTY               bool
	HostNetwork       bool
	ImageID           string
	// ImageDigest is what ImageInfo.PulledBy says of its image; the engine does not say it
	// of a container, so it is for who looks the image up.
	ImageDigest string
}

// Task returns the task that a container belongs to.
func (c Container) Task() cluster.TaskID { return cluster.TaskID(c.Labels[cluster.LabelTask]) }

// Live reports whether the container has a process.
func (c Container) Live() bool {
	return c.State == Running || c.State == Paused || c.State == Restarting
}

// List returns every container of a cluster's node: ID, name, labels, state and fixed addresses only.
func (e *Engine) List(ctx context.Context, clusterID string, node cluster.NodeID) ([]Container, error) {
	list, err := e.cli.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(
		filters.Arg("label", cluster.LabelCluster+"="+clusterID),
		filters.Arg("label", cluster.LabelNode+"="+string(node)))})
	if err != nil {
		return nil, kind(err)
	}
	out := make([]Container, 0, len(list))
	for _, c := range list {
		x := Container{ID: c.ID, Labels: c.Labels, State: c.State, ImageID: c.ImageID}
		if len(c.Names) > 0 {
			x.Name = c.Names[0][1:]
		}
		if s := c.NetworkSettings; s != nil {
			for _, n := range s.Networks {
				if n == nil || n.IPAMConfig == nil {
					continue
				}
				if ip, err := netip.ParseAddr(n.IPAMConfig.IPv4Address); err == nil && n.NetworkID != "" {
					if x.Fixed == nil {
						x.Fixed = map[string]netip.Addr{}
					}
					x.Fixed[n.NetworkID] = ip
				}
			}
		}
		out = append(out, x)
	}
	return out, nil
}

// Inspect returns a container by ID or name.
func (e *Engine) Inspect(ctx context.Context, id string) (Container, error) {
	r, err := e.cli.ContainerInspect(ctx, id)
	if err != nil {
		return Container{}, kind(err)
	}
	c := Container{ID: r.ID, Name: r.Name, ImageID: r.Image, StopSignal: "SIGTERM", Addresses: map[string]string{}}
	if len(c.Name) > 0 && c.Name[0] == '/' {
		c.Name = c.Name[1:]
	}
	if s := r.State; s != nil {
		c.State, c.Pid, c.ExitCode, c.OOM, c.Error = s.Status, s.Pid, s.ExitCode, s.OOMKilled, s.Error
		c.Started, c.Finished = parseTime(s.StartedAt), parseTime(s.FinishedAt)
		if s.Health != nil {
			c.Health = s.Health.Status
			for _, l := range slices.Backward(s.Health.Log) {
				if l.ExitCode != 0 {
					c.HealthOutput = l.Output
					break
				}
			}
		}
	}
	if r.Config != nil {
		c.Labels, c.TTY = r.Config.Labels, r.Config.Tty
		if h := r.Config.Healthcheck; h != nil {
			c.HealthTest = h.Test
		}
		if r.Config.StopSignal != "" {
			c.StopSignal = r.Config.StopSignal
		}
		if t := r.Config.StopTimeout; t != nil {
			c.StopTimeout = time.Duration(*t) * time.Second
		}
	}
	if r.HostConfig != nil {
		c.HostNetwork = r.HostConfig.NetworkMode.IsHost()
	}
	if r.NetworkSettings != nil {
		for _, n := range r.NetworkSettings.Networks {
			if n.NetworkID != "" && n.IPAddress != "" {
				c.Addresses[n.NetworkID] = n.IPAddress
			}
		}
	}
	return c, nil
}

// Start starts a container. Starting one that runs is no error.
func (e *Engine) Start(ctx context.Context, id string) error {
	return kind(e.cli.ContainerStart(ctx, id, container.StartOptions{}))
}

// Signal sends a signal to a container's first process.
func (e *Engine) Signal(ctx context.Context, id, signal string) error {
	return kind(e.cli.ContainerKill(ctx, id, signal))
}

// Unpause lets a paused container run again, so that it can be stopped.
func (e *Engine) Unpause(ctx context.Context, id string) error {
	return kind(e.cli.ContainerUnpause(ctx, id))
}

// Remove removes a container, running or not, and its anonymous volumes. One
// that is gone already is no error.
func (e *Engine) Remove(ctx context.Context, id string) error {
	err := kind(e.cli.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true}))
	if cluster.KindOf(err) == cluster.KindNotFound {
		return nil
	}
	return err
}

func parseTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.Year() < 1970 {
		return time.Time{}
	}
	return t
}
