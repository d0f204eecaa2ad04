package agent

import (
	"context"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"
	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/cluster"
)

// Config is how an agent runs.
type Config struct {
	Node      cluster.NodeID
	ClusterID string // on every container, network and volume it makes
	Address   string // IP that other nodes reach; "": SetAddress tells it, and nothing is said of the node before
	Store     Store
	Engine    Engine
	StateDir  string // where the assignment is kept; made when missing
	RunDir    string // files of secrets; must be, or is made, a tmpfs
	// Pools returns what containers' networks are carved from, IPv4 ranges; none
	// while the node has not been given any.
	Pools func() []netip.Prefix
	// Holds reports whether a network's addresses are still this node's: one that was removed
	// and joined again may have networks in what another node has now. An error says that this
	// is not known yet. Nil: they are.
	Holds    func(netip.Prefix) (bool, error)
	Identity *age.X25519Identity // opens what is sealed to this node
	Version  string
	Roles    []string
	Log      hclog.Logger
	Now      func() time.Time
	// Init is the program that starts containers whose environment holds
	// secrets: a static fairlead binary; "" takes the running one.
	Init string
	// OnNetworks is called with all of this node's networks when they change, and
	// returns before a container starts on a new one.
	OnNetworks func([]Network)
	// OnStart is called with each container that is seen to run: after a start, and
	// at adoption. OnEnd is called when it has ended, and must not block.
	OnStart func(context.Context, Started)
	OnEnd   func(cluster.TaskID)
	// Credentials returns the login for a registry; empty means none.
	Credentials func(ctx context.Context, host string) (user, password string, err error)
	// Fetch returns an image that another node of the cluster has, as the engine's tar.
	// KindNotFound says that none has it, or none that is to be believed. The tar may lack
	// layers that this node has, unless all is asked for. Nil: there are no others.
	Fetch func(context.Context, cluster.ImageAsk) (cluster.ImageSent, error)
	// Alone reports whether the cluster has no other node; an error says that this is not
	// known yet. Nil: it has none.
	Alone func() (bool, error)
	// Trusted returns the host interfaces that may bring packets to containers from other
	// nodes, which reach this one at an address; nil: none may.
	Trusted func(address string) []string
	// TTL of the heartbeat; 0 means 5s.
	TTL time.Duration
	// ImageGC says when images that nothing uses are removed; zero: never.
	ImageGC ImageGC
	// DiskUse tells of the file system that holds a directory; nil asks the kernel.
	DiskUse func(dir string) (DiskUse, error)
	// Concurrency is how many containers are made, started or removed at a time; 0 means 8.
	Concurrency int
}

// Started is a container that runs.
type Started struct {
	Task      cluster.TaskID
	App       cluster.AppName
	Pid       int                            // of its first process, on the node
	Addresses map[cluster.NetworkName]string // IP by network
	// OwnServers says that its service names DNS servers of its own.
	OwnServers bool
}

func (c *Config) setDefaults() error {
	if c.TTL <= 0 {
		c.TTL = 5 * time.Second
	}
	if c.Concurrency <= 0 {
		c.Concurrency = 8
	}
	if c.OnNetworks == nil {
		c.OnNetworks = func([]Network) {}
	}
	if c.OnStart == nil {
		c.OnStart = func(context.Context, Started) {}
	}
	if c.OnEnd == nil {
		c.OnEnd = func(cluster.TaskID) {}
	}
	if c.Credentials == nil {
		c.Credentials = func(context.Context, string) (string, string, error) { return "", "", nil }
	}
	if c.Alone == nil {
		c.Alone = func() (bool, error) { return true, nil }
	}
	if c.DiskUse == nil {
		c.DiskUse = diskUse
	}
	if c.Log == nil {
		c.Log = hclog.NewNullLogger()
	}
	if c.Init == "" {
		exe, err := os.Executable()
		if err != nil {
			return err
		}
		c.Init = exe
	}
	if !filepath.IsAbs(c.StateDir) || !filepath.IsAbs(c.RunDir) {
		return cluster.Invalidf("the agent's directories must be absolute paths, not %q and %q", c.StateDir, c.RunDir)
	}
	switch {
	case c.Node == "" || c.ClusterID == "":
		return cluster.Invalidf("an agent needs a node name and a cluster ID")
	case c.Store == nil || c.Engine == nil || c.Now == nil || c.Identity == nil || c.Pools == nil:
		return cluster.Invalidf("an agent needs a store, an engine, a clock, an identity and address ranges")
	}
	return os.MkdirAll(c.StateDir, 0o700)
}

// Engine is what an agent needs of a container engine. *docker.Engine is one.
type Engine interface {
	Containers
	Networks
	Images
	Unused
	Session
	Streams
}

// Containers makes, watches and removes containers.
type Containers interface {
	List(ctx context.Context, clusterID string, node cluster.NodeID) ([]docker.Container, error)
	Inspect(ctx context.Context, id string) (docker.Container, error)
	Create(ctx context.Context, c docker.Create) (string, error)
	Start(ctx context.Context, id string) error
	Signal(ctx context.Context, id, signal string) error
	Remove(ctx context.Context, id string) error
}

// Networks makes networks and volumes.
type Networks interface {
	Networks(ctx context.Context) ([]docker.Network, error)
	CreateNetwork(ctx context.Context, n docker.Network, trusted []string) (string, error)
	RemoveNetwork(ctx context.Context, id string) error
	EnsureVolume(ctx context.Context, m cluster.Mount, labels map[string]string) error
}

// Images finds, fetches and builds images.
type Images interface {
	Image(ctx context.Context, ref string) (docker.ImageInfo, error)
	Images(ctx context.Context) ([]cluster.Image, error)
	Pull(ctx context.Context, ref, platform string, login docker.Login, progress func(string)) error
	Build(ctx context.Context, b docker.Build) (string, error)
	Load(ctx context.Context, tar io.Reader, want cluster.ImageWant) error
}

// Unused finds out which images nothing uses, and removes them by a name.
type Unused interface {
	ImageUses(ctx context.Context) (map[string]bool, error)
	RemoveImage(ctx context.Context, ref string) error
}

// Session tells whether the engine is there, and what happens on it.
type Session interface {
	Info(ctx context.Context) (docker.Info, error)
	Events(ctx context.Context, clusterID string, node cluster.NodeID, begun func(), on func(docker.Event)) error
	Accepts(ctx context.Context) bool
	Started(ctx context.Context) time.Time
	Unpause(ctx context.Context, id string) error
}

// Streams reads from and writes to containers.
type Streams interface {
	Logs(ctx context.Context, id string, tty bool, o cluster.LogOptions, emit func(cluster.LogLine) error) error
	Exec(ctx context.Context, id string, e docker.Exec) (int, error)
	CopyTo(ctx context.Context, id, dir string, tar io.Reader) error
	CopyFrom(ctx context.Context, id, path string) (io.ReadCloser, error)
}

var _ Engine = (*docker.Engine)(nil)
