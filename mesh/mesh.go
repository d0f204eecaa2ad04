//go:build linux

package mesh

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"sigs.k8s.io/knftables"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/outage"
)

// Config of a Mesh.
type Config struct {
	// Cluster is the cluster's ID; it names the table.
	Cluster string
	// Services is the range of service addresses, 10.212.0.0/16 by default.
	Services netip.Prefix
	// PrivatePorts are TCP ports of this node that containers may not reach (the
	// store's, for example).
	PrivatePorts []uint16
	// Endpoints returns the endpoints of the cluster and the store revision they
	// stand at; revision 0 says that they are not known yet, a negative one that
	// they are from before the store was read: they are served, and not reported.
	Endpoints func() ([]cluster.Endpoints, cluster.StoreRev)
	// Changed returns a channel that closes at the next change of Endpoints.
	Changed func() <-chan struct{}
	// Applied, when set, is called with the revision that the kernel now serves: at
	// the start, and after each change of the endpoints. It must not block, nor call
	// the Mesh.
	Applied func(cluster.StoreRev)
	// Unreached, when set, is called with which other nodes are not reached and why, and
	// with "" once all are, at each change of that. It must not block, nor call the Mesh.
	Unreached func(string)
	// Peers says that SetPeers will be called: nothing is written before.
	Peers bool
	// Resync is how often the whole table is written again; 0 means 5 minutes.
	Resync time.Duration
	Log    hclog.Logger
}

const (
	defaultResync = 5 * time.Minute
	lookEvery     = 10 * time.Second // whether the table is still there
	firstBackoff  = 50 * time.Millisecond
	maxBackoff    = 5 * time.Second
	manyLost      = 4 // services that lost a task: from here on one look at all flows is cheaper
)

// DefaultServices is the range of service addresses.
var DefaultServices = netip.MustParsePrefix("10.212.0.0/16")

var clusterRE = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_-]{0,63}$`)

// Mesh keeps one node's service addresses current.
type Mesh struct {
	cfg  Config
	host host
	lay  layout
	open func() (knftables.Interface, error) // finds nft

	unfiltered outage.Outage

	mu      sync.Mutex
	nft     knftables.Interface // nil: not found yet
	running bool                // Run has begun: the endpoints may be asked for
	// What has not been told yet is not written: an earlier process's rules, which
	// know of it, serve on.
	networksKnown, peersKnown bool
	networks                  []Network
	peers                     []Peer
	self                      netip.Addr // by which the others know this node
	odd                       error      // nodes that are none of peers, as nobody could reach them
	unreached                 string     // which are not, as it was told
	reached                   bool       // the routes to them are as they should be
	unrouted                  error      // why not
	blocked                   error      // to which of them packets get lost
	lost                      map[cluster.NodeID]int
	attached                  map[cluster.TaskID]Container
	routed                    map[cluster.TaskID]bool // whose routes are known to be right
	applied                   *Ruleset                // nil: not known
	// addresses are the services' addresses and networks, to see when they change.
	addresses []string
	served    []served // endpoint revisions last reported
	reported  bool
}

type served struct {
	id  cluster.ServiceID
	rev cluster.StoreRev
}

// New checks the configuration. It changes nothing but the kernel's switch that
// lets bridged packets pass address translation. Where nft does not work, Run
// says so and looks for it again.
func New(cfg Config) (*Mesh, error) {
	if !cfg.Services.IsValid() {
		cfg.Services = DefaultServices
	}
	if !clusterRE.MatchString(cfg.Cluster) {
		return nil, cluster.Invalidf("cluster ID %q cannot name an nft table: use letters, digits, - and _", cfg.Cluster)
	}
	m := newMesh(cfg, nil, &kernel{cluster: cfg.Cluster})
	m.open = func() (knftables.Interface, error) { return open(cfg.Cluster) }
	return m, nil
}

func newMesh(cfg Config, nft knftables.Interface, h host) *Mesh {
	if cfg.Resync <= 0 {
		cfg.Resync = defaultResync
	}
	m := &Mesh{cfg: cfg, nft: nft, host: h, attached: map[cluster.TaskID]Container{}, routed: map[cluster.TaskID]bool{}}
	m.lay = layout{services: cfg.Services.Masked(), private: cfg.PrivatePorts}
	if err := h.filterBridges(); err != nil {
		m.lay.masquerade = true
		cfg.Log.Warn("bridged packets do not pass address translation here; services will see the node's address instead of their caller's",
			"error", err, "hint", "load the kernel module br_netfilter and set net.bridge.bridge-nf-call-iptables=1")
	}
	return m
}

func open(clusterID string) (knftables.Interface, error) {
	nft, err := knftables.New(knftables.IPv4Family, TableName(clusterID))
	if err != nil {
		return nil, cluster.Invalidf("service addresses need nftables (nft 1.0.1 or newer, as root): install the package nftables: %w", err)
	}
	return nft, nil
}

// Cleanup removes all that the mesh of a cluster put into the kernel.
func Cleanup(ctx context.Context, clusterID string) error {
	nft, err := open(clusterID)
	if err != nil {
		return err
	}
	tx := nft.NewTransaction()
	tx.Add(&knftables.Table{})
	tx.Delete(&knftables.Table{})
	if err := nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("remove nft table %s: %w", TableName(clusterID), err)
	}
	return (&kernel{cluster: clusterID}).reach(netip.Addr{}, nil, nil)
}

// SetNetworks says which container networks this node has. It returns once the
// kernel serves them, so that a container started afterwards reaches its services;
// before Run has begun, or while no endpoints are known, it only takes note.
func (m *Mesh) SetNetworks(ctx context.Context, nets []Network) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.networks, m.networksKnown = slices.Clone(nets), true
	clear(m.routed)
	return m.sync(ctx, false)
}

// Run keeps the kernel at the newest endpoints until ctx ends, and returns the
// context's cause. The rules stay when it ends.
func (m *Mesh) Run(ctx context.Context) error {
	full, backoff, reason := true, time.Duration(0), ""
	resync := time.NewTicker(m.cfg.Resync)
	defer resync.Stop()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	disturbed, done := m.disturbed(ctx)
	defer func() { <-done }()
	var tries sync.WaitGroup
	tries.Go(func() { m.tryPaths(ctx) })
	defer tries.Wait()
	for {
		changed := m.cfg.Changed()
		err := m.syncLocked(ctx, full)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		full = false
		if err != nil {
			backoff = min(max(2*backoff, firstBackoff), maxBackoff)
			if text := err.Error(); text != reason {
				reason = text
				m.cfg.Log.Error("could not write service addresses to the kernel; will retry", "error", err)
			}
			retry := time.NewTimer(backoff)
			select {
			case <-ctx.Done():
			case <-retry.C:
			}
			retry.Stop()
			continue
		}
		backoff, reason = 0, ""
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
			m.gather(ctx)
		case <-resync.C:
			full = true
		case <-disturbed:
			full = m.tableGone(ctx)
		case <-look.C:
			full = m.tableGone(ctx)
			m.doubtRoutes()
			m.keepFiltering()
		}
	}
}

// disturbed returns a channel that says when to look at the table, and one that
// is closed once nobody sends on it any more, after the end of ctx.
func (m *Mesh) disturbed(ctx context.Context) (disturbed, done chan struct{}) {
	disturbed, done = make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(done)
		var away outage.Outage
		for {
			err := m.host.deletions(ctx, func() {
				select {
				case disturbed <- struct{}{}:
				default:
				}
			})
			if ctx.Err() == nil {
				away.Failed(m.cfg.Log, "cannot be told of rules that others delete; looking at them now and then", "every", lookEvery, "error", err)
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(lookEvery):
			}
		}
	}()
	return disturbed, done
}

// keepFiltering has bridged packets pass address translation again where another program,
// or a reload of the kernel's settings, has switched that off.
func (m *Mesh) keepFiltering() {
	if m.lay.masquerade {
		return
	}
	if err := m.host.filterBridges(); err != nil {
		m.unfiltered.Failed(m.cfg.Log, "bridged packets do not pass address translation any more; service addresses work on other nodes' tasks alone", "error", err)
		return
	}
	m.unfiltered.Over(m.cfg.Log, "bridged packets pass address translation again")
}

// tableGone reports whether another program has removed or emptied the table: a
// firewall that is loaded anew flushes all there is.
func (m *Mesh) tableGone(ctx context.Context) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.applied == nil {
		return false
	}
	rules, err := m.nft.ListRules(ctx, chainPrerouting)
	if err == nil && len(rules) > 0 || ctx.Err() != nil {
		return false
	}
	m.cfg.Log.Warn("the nft table is gone; writing it again", "table", TableName(m.cfg.Cluster), "error", err)
	return true
}

// Attach tells the mesh of a container that was started. Call it for each one on
// several networks, or on a network that the engine knows as internal: it gets
// the routes to the service addresses that its default gateway does not serve.
// A container that was started again is attached again. Before Run has begun, or
// while no endpoints are known, it only takes note.
func (m *Mesh) Attach(ctx context.Context, c Container) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.attached[c.Task] = c
	delete(m.routed, c.Task)
	if m.applied == nil {
		return m.sync(ctx, false)
	}
	eps, _ := m.cfg.Endpoints()
	m.route(eps)
	if !m.routed[c.Task] {
		return cluster.Transientf("task %s: its routes to service addresses could not be set", c.Task)
	}
	return nil
}

// Detach forgets a container.
func (m *Mesh) Detach(t cluster.TaskID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.attached, t)
	delete(m.routed, t)
}

// Resync writes the whole table again, whatever is there.
func (m *Mesh) Resync(ctx context.Context) error { return m.syncLocked(ctx, true) }

func (m *Mesh) syncLocked(ctx context.Context, full bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running = true
	return m.sync(ctx, full)
}

// sync brings the kernel to the present endpoints and networks, and reports the
// revision when the endpoints changed.
func (m *Mesh) sync(ctx context.Context, full bool) error {
	if !m.running {
		return nil
	}
	if !m.networksKnown || m.cfg.Peers && !m.peersKnown {
		return nil
	}
	eps, rev := m.cfg.Endpoints()
	if rev == 0 {
		// A restart: what an earlier process wrote serves on until the store has
		// been read. To write now would cut everyone off.
		return nil
	}
	if m.nft == nil {
		nft, err := m.open()
		if err != nil {
			return err
		}
		m.nft = nft
	}
	m.reach()
	want := Rules(eps, m.networks, m.peers)
	if full || m.applied == nil {
		if err := m.writeAll(ctx, want); err != nil {
			m.applied = nil
			return err
		}
	} else if err := m.writeChange(ctx, *m.applied, want); err != nil {
		if ctx.Err() != nil {
			return err
		}
		m.cfg.Log.Warn("could not write a change of the service addresses; writing all of them", "error", err)
		if err := m.writeAll(ctx, want); err != nil {
			m.applied = nil
			return err
		}
	}
	m.applied = &want
	if full || m.addressesChanged(eps) {
		clear(m.routed)
	}
	m.route(eps)
	m.report(eps, rev)
	return nil
}

// route sets the routes of the containers whose routes may be wrong. A container
// that fails is tried again at the next change; it holds up nobody else.
func (m *Mesh) route(eps []cluster.Endpoints) {
	for t, c := range m.attached {
		if m.routed[t] {
			continue
		}
		err := m.host.setRoutes(c.Netns, func(gw netip.Addr) []route { return routes(eps, m.networks, c, gw) })
		if err != nil {
			m.cfg.Log.Warn("could not set a container's routes to service addresses; will retry", "task", string(t), "error", err)
			continue
		}
		m.routed[t] = true
	}
}

// addressesChanged reports whether a service came, went, or changed its address
// or the networks it answers on since it was last asked.
func (m *Mesh) addressesChanged(eps []cluster.Endpoints) bool {
	now := make([]string, 0, len(eps))
	for _, e := range eps {
		now = append(now, fmt.Sprint(e.ServiceID, e.Address, answers(e)))
	}
	slices.Sort(now)
	changed := !slices.Equal(now, m.addresses)
	m.addresses = now
	return changed
}

func (m *Mesh) report(eps []cluster.Endpoints, rev cluster.StoreRev) {
	if rev < 0 {
		return
	}
	now := make([]served, 0, len(eps))
	for _, e := range eps {
		now = append(now, served{e.ServiceID, e.Rev})
	}
	slices.SortFunc(now, func(a, b served) int { return a.id.Compare(b.id) })
	if m.reported && slices.Equal(now, m.served) {
		return
	}
	m.served, m.reported = now, true
	if m.cfg.Applied != nil {
		m.cfg.Applied(rev)
	}
}
