package dns

import (
	"net/netip"
	"slices"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// Container is a container of this node, by one of its addresses.
type Container struct {
	Addr     netip.Addr            `json:"addr"`
	Task     cluster.TaskID        `json:"task"`
	App      cluster.AppName       `json:"app"`
	Networks []cluster.NetworkName `json:"networks"` // all that it is on
	// OwnServers says that the service names servers of its own (dns:): they are
	// asked for what is not the cluster's.
	OwnServers bool `json:"own_servers,omitempty"`
}

type containers struct {
	byAddr map[netip.Addr]Container
	next   chan struct{} // closed when others have taken its place
}

func (c *containers) of(a netip.Addr) (Container, bool) {
	if c == nil {
		return Container{}, false
	}
	x, ok := c.byAddr[a]
	return x, ok
}

const (
	// newcomerWait is how long a question waits until it is known whose it is. A
	// container's first questions come before the engine has told its address.
	newcomerWait = 2 * time.Second
	maxWaiting   = 128
)

// SetContainers says what runs on this node. Before the first call, and for an
// address that is not among them, the server goes by the ready tasks' addresses,
// then by the network that the question came through.
func (s *Server) SetContainers(list []Container) {
	c := &containers{byAddr: make(map[netip.Addr]Container, len(list)), next: make(chan struct{})}
	for _, x := range list {
		c.byAddr[x.Addr] = x
	}
	if old := s.containers.Swap(c); old != nil {
		close(old.next)
	}
}

// await waits until the client's container is known, and reports whether it has
// become so now. It matters to what is not simply answered: a name on another of
// its networks, and which servers to ask.
func (s *Server) await(c *Client) bool {
	if c.Known || s.containers.Load() == nil {
		return false
	}
	select {
	case s.waiting <- struct{}{}:
		defer func() { <-s.waiting }()
	default:
		return false
	}
	t := time.NewTimer(newcomerWait)
	defer t.Stop()
	for {
		now := s.containers.Load()
		if x, ok := now.of(c.Addr); ok {
			c.is(x)
			return true
		}
		select {
		case <-now.next:
		case <-t.C:
			return false
		}
	}
}

// is makes the client that container.
func (c *Client) is(x Container) {
	c.Known, c.OwnServers = true, x.OwnServers
	if x.App != "" {
		c.App = x.App
	}
	c.on(x.Networks)
}

// on makes these the client's networks, with the one it asked through.
func (c *Client) on(nets []cluster.NetworkName) {
	c.Networks = slices.Clone(nets)
	if !slices.Contains(c.Networks, c.Via) {
		c.Networks = append(c.Networks, c.Via)
	}
}
