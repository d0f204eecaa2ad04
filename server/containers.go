package server

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/agent"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/dns"
	"github.com/fairlead/fairlead/mesh"
	"github.com/fairlead/fairlead/names"
)

// containers tells names and service addresses what runs on this node: names are
// answered, and service addresses routed, by the networks that the asking
// container is on.
type containers struct {
	mesh  *mesh.Mesh
	names *names.Names
	log   hclog.Logger

	mu     sync.Mutex
	byTask map[cluster.TaskID]agent.Started
}

func newContainers(log hclog.Logger) *containers {
	return &containers{log: log, byTask: map[cluster.TaskID]agent.Started{}}
}

// started takes note of a container and gives it its routes.
func (c *containers) started(ctx context.Context, s agent.Started) {
	c.mu.Lock()
	c.byTask[s.Task] = s
	c.mu.Unlock()
	if len(s.Addresses) == 0 {
		return
	}
	nets := slices.Sorted(maps.Keys(s.Addresses))
	var known []dns.Container
	for _, n := range nets {
		if a, err := netip.ParseAddr(s.Addresses[n]); err == nil {
			known = append(known, dns.Container{Addr: a.Unmap(), Task: s.Task, App: s.App, Networks: nets, OwnServers: s.OwnServers})
		}
	}
	c.names.Started(known)
	err := c.mesh.Attach(ctx, mesh.Container{Task: s.Task, Netns: fmt.Sprintf("/proc/%d/ns/net", s.Pid), Networks: nets})
	if err != nil && ctx.Err() == nil {
		c.log.Warn("could not route a container to service addresses; will retry", "task", s.Task, "error", err)
	}
}

func (c *containers) ended(t cluster.TaskID) {
	c.mu.Lock()
	delete(c.byTask, t)
	c.mu.Unlock()
	c.names.Ended(t)
	c.mesh.Detach(t)
}

// correct returns endpoints with the addresses that this node's own containers
// have now: those kept on disk may be of an earlier run.
func (c *containers) correct(eps []cluster.Endpoints) []cluster.Endpoints {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := slices.Clone(eps)
	for i, e := range out {
		tasks := slices.Clone(e.Tasks)
		for j, t := range tasks {
			if s, runs := c.byTask[t.Task]; runs && len(s.Addresses) > 0 {
				tasks[j].Addresses = s.Addresses
			}
		}
		out[i].Tasks = tasks
	}
	return out
}
