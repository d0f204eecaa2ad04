package server

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/fairlead/fairlead/agent"
	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/control"
	"github.com/fairlead/fairlead/dns"
	"github.com/fairlead/fairlead/mesh"
	"github.com/fairlead/fairlead/metrics"
	"github.com/fairlead/fairlead/names"
	"github.com/fairlead/fairlead/secrets/sealed"
	"github.com/fairlead/fairlead/store"
	"github.com/fairlead/fairlead/tunnel"
)

// parts starts everything that works on the store, and returns once it has.
// etcd is what st is kept in.
func (m *machine) parts(ctx context.Context, g *errgroup.Group, st store.Store, etcd grpc.ClientConnInterface) error {
	mirror := store.NewMirror(st, store.Root, m.Log.Named("mirror"))
	g.Go(func() error { return mirror.Run(ctx) })
	l, err := m.listenAPI(ctx)
	if err != nil {
		return err
	}
	nodes, err := m.listenNodes(ctx, l)
	if err != nil {
		return err
	}
	m.serveNodes(ctx, g, nodes, etcd, st, mirror)
	n := &nodeParts{
		local: &m.local, ctx: ctx, g: g, store: st, mirror: mirror, api: l, keys: m.key, hub: tunnel.NewHub(m.Log.Named("tunnel")),
		credentials: func(ctx context.Context, registry string) (user, password string, err error) {
			return m.login(ctx, st, registry)
		},
	}
	n.fetch = func(ctx context.Context, ask cluster.ImageAsk) (cluster.ImageSent, error) {
		self := cluster.NodeID(n.Node)
		var err error
		if ask.Apps, err = api.AppsWith(ctx, st, self, ask.Ref, ask.ID); err != nil {
			return cluster.ImageSent{}, err
		}
		return n.image(ctx, self, ask)
	}
	if !m.NoAgent {
		if err := n.startAgent(); err != nil {
			return err
		}
	}
	if m.NoGateway {
		n.retireGateway()
	} else if err := n.startGateway(mirror); err != nil {
		return err
	}
	src, err := m.sources(st, mirror)
	if err != nil {
		return err
	}
	handler, err := m.serveAPI(ctx, g, st, mirror, n, src)
	if err != nil {
		return err
	}
	g.Go(func() error { return m.lead(ctx, st, mirror, n.samples, &deliverer{src, handler}) })
	return nil
}

// nodeParts are the agent, the service addresses and names, and the gateway of this node.
type nodeParts struct {
	*local
	// credentials opens the login of an image registry.
	credentials func(ctx context.Context, registry string) (user, password string, err error)
	// fetch gets an image from another node.
	fetch  func(context.Context, cluster.ImageAsk) (cluster.ImageSent, error)
	keys   *sealed.Key     // of the gateway's certificates and users
	hub    *tunnel.Hub     // nil: this node is no server
	ctx    context.Context //nolint:containedctx // the parts live as long as it does
	g      *errgroup.Group
	store  store.Store
	mirror *store.Mirror // nil: this node is no server
	engine *docker.Engine
	agent  *agent.Agent
	api    net.Listener // nil: the local socket alone
	usage  *metrics.Collector
}

func (m *local) roles() []string {
	var roles []string
	if !m.worker {
		roles = append(roles, "server")
	}
	if !m.NoAgent {
		roles = append(roles, "agent")
	}
	if !m.NoGateway {
		roles = append(roles, "gateway")
	}
	return roles
}

func (n *nodeParts) startAgent() error {
	engine, err := docker.New(n.Docker)
	if err != nil {
		return err
	}
	n.engine = engine
	own := store.Guarded(n.store, store.WriterAgent)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	here := newContainers(n.Log.Named("mesh"))
	if here.mesh, here.names, err = n.startMesh(own, here); err != nil {
		return err
	}
	where := &nets{mirror: store.NewMirror(own, store.PrefixNodeNets, n.Log.Named("mesh")), path: filepath.Join(n.DataDir, "nets.json"), log: n.Log.Named("mesh")}
	n.g.Go(func() error { return where.mirror.Run(n.ctx) })
	n.g.Go(func() error {
		return where.follow(n.ctx, cluster.NodeID(n.Node), func(ctx context.Context, own netip.Addr, peers []mesh.Peer) {
			if err := here.mesh.SetPeers(ctx, own, peers); err != nil && ctx.Err() == nil {
				n.Log.Error("could not serve containers of other nodes; will retry", "error", err)
			}
		})
	})
	n.agent, err = agent.New(agent.Config{
		Node: cluster.NodeID(n.Node), ClusterID: n.cluster, Address: n.Advertise,
		Store: control.NewAgentStore(own, n.Log.Named("agent")), Engine: engine,
		StateDir: n.agentDir(), RunDir: filepath.Join(n.RunDir, "agent"),
		Pools: where.blocks, Holds: where.holds, Alone: where.alone, Trusted: facing, Identity: n.identity, Version: n.Version, Roles: n.roles(), Log: n.Log.Named("agent"), Now: n.now,
		Init:        self,
		ImageGC:     agent.ImageGC{High: n.ImageGCHigh, Low: n.ImageGCLow},
		OnStart:     here.started,
		OnEnd:       here.ended,
		OnNetworks:  func(nets []agent.Network) { n.networks(here, nets) },
		Credentials: n.credentials, Fetch: n.fetch,
	})
	if err != nil {
		return err
	}
	n.g.Go(func() error { return n.agent.Run(n.ctx) })
	n.g.Go(func() error { return n.watchOverlap(n.ctx, n.ownNets, n.agent.SetOverlap) })
	n.startUsage()
	return nil
}

// storePatience is how long the store has to answer, before the last endpoints
// known are served instead.
const storePatience = time.Second

// startMesh starts service addresses and names from the cluster's endpoints.
func (n *nodeParts) startMesh(own store.Store, here *containers) (*mesh.Mesh, *names.Names, error) {
	endpoints := store.NewMirror(own, store.PrefixEndpoints, n.Log.Named("mesh"))
	last := mesh.OpenLast(filepath.Join(n.DataDir, "endpoints.json"), n.Log.Named("mesh"))
	acks := newAcks(own, cluster.NodeID(n.Node), n.Log.Named("mesh"))
	resolver := names.New(names.Config{
		Dir: n.namesDir(), Services: n.services, Serving: acks.named, Log: n.Log.Named("names"), Now: n.now,
	})
	addresses, err := mesh.New(mesh.Config{
		Cluster: n.cluster, Services: n.services, PrivatePorts: n.private, Peers: true, Log: n.Log.Named("mesh"),
		Changed: endpoints.Changed,
		Endpoints: func() (eps []cluster.Endpoints, rev cluster.StoreRev) {
			select {
			case <-endpoints.Ready():
				endpoints.Read(func(v store.View) { eps, rev = store.EndpointSets(v), cluster.StoreRev(v.Rev()) })
				last.Keep(eps, rev)
			default:
				var known bool
				if eps, known = last.Endpoints(); !known {
					return nil, 0
				}
				eps, rev = here.correct(eps), -1
			}
			resolver.SetEndpoints(eps, rev)
			return eps, rev
		},
		Applied: acks.applied, Unreached: acks.unreached,
	})
	if err != nil {
		return nil, nil, err
	}
	n.g.Go(func() error { return endpoints.Run(n.ctx) })
	n.g.Go(func() error { return last.Run(n.ctx) })
	n.g.Go(func() error { return acks.run(n.ctx) })
	n.g.Go(func() error { return resolver.Run(n.ctx) })
	n.g.Go(func() error {
		// After a mere restart the kernel serves newer endpoints than the disk holds.
		patience := time.NewTimer(storePatience)
		defer patience.Stop()
		select {
		case <-endpoints.Ready():
		case <-patience.C:
			if eps, known := last.Endpoints(); known {
				n.Log.Warn("the store does not answer; serving the last endpoints known", "services", len(eps))
			}
		case <-n.ctx.Done():
			return context.Cause(n.ctx)
		}
		return addresses.Run(n.ctx)
	})
	return addresses, resolver, nil
}

// agentDir is where the agent keeps its assignment. It is there from its first start.
func (m *local) agentDir() string { return filepath.Join(m.DataDir, "agent") }

// namesDir is the directory of the process that answers names.
func (m *local) namesDir() string { return filepath.Join(m.RunDir, "names") }

// networks tells rules and names about the networks of this node, before a
// container starts on them.
func (n *nodeParts) networks(here *containers, nets []agent.Network) {
	var m []mesh.Network
	var d []dns.Network
	for _, x := range nets {
		m = append(m, mesh.Network{Name: x.Name, Bridge: x.Bridge, Subnet: x.Subnet, Gateway: x.Gateway, Internal: x.Internal, External: x.External})
		d = append(d, dns.Network{Name: x.Name, Subnet: x.Subnet, Gateway: x.Gateway, Internal: x.Internal})
	}
	if err := here.mesh.SetNetworks(n.ctx, m); err != nil && n.ctx.Err() == nil {
		n.Log.Error("could not set up service addresses for a network; will retry", "error", err)
	}
	if err := here.names.SetNetworks(n.ctx, d); err != nil && n.ctx.Err() == nil {
		n.Log.Error("could not answer names on a network; will retry", "error", err)
	}
}
