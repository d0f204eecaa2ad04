package agent

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/cluster"
)

// Network is one of the node's networks, as the parts that serve it need to know it.
type Network struct {
	Name     cluster.NetworkName
	Bridge   string // interface on the node
	Subnet   netip.Prefix
	Gateway  netip.Addr // the bridge's own address: names are served there
	Internal bool       // no way out
	External bool       // made by someone else: only ever used, never changed
}

// unusedFor is how long a network stays after its last task: the next version's
// task may be about to come.
const unusedFor = 30 * time.Second

// netset knows and makes the node's networks.
type netset struct {
	cfg       *Config
	addresses *addresses
	// external returns the networks of others that placements use.
	external func() map[cluster.NetworkName]bool
	address  func() string // where other nodes reach this one

	mu     sync.Mutex // held while networks are made and removed
	known  map[cluster.NetworkName]docker.Network
	others []netip.Prefix // subnets that are not free
	unused map[cluster.NetworkName]time.Time

	nameMu sync.Mutex
	names  map[string]cluster.NetworkName // by Docker's ID
	stale  bool                           // what is known may not be true any more
}

func newNetset(cfg *Config, external func() map[cluster.NetworkName]bool) *netset {
	return &netset{
		cfg: cfg, external: external, addresses: newAddresses(), known: map[cluster.NetworkName]docker.Network{},
		unused: map[cluster.NetworkName]time.Time{}, names: map[string]cluster.NetworkName{},
		address: func() string { return cfg.Address },
	}
}

// load reads what is there and tells who serves the networks.
func (n *netset) load(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.loadLocked(ctx)
}

func (n *netset) loadLocked(ctx context.Context) error {
	n.doubted() // before the look: a doubt that comes meanwhile is about what it saw
	list, err := n.cfg.Engine.Networks(ctx)
	if err != nil {
		n.doubt()
		return err
	}
	// External ones are used by name, and must still be there.
	for name, k := range n.known {
		if !slices.ContainsFunc(list, func(x docker.Network) bool { return x.ID == k.ID }) {
			delete(n.known, name)
		}
	}
	// Those of others are known again too, or an agent that starts would have what
	// runs on them neither be named nor name others until a container is made there.
	external := n.external()
	n.others = nil
	for _, x := range list {
		n.others = append(n.others, x.Subnets...)
		switch {
		case n.ours(x):
			n.known[cluster.NetworkName(x.Labels[docker.LabelNetwork])] = x
		case external[cluster.NetworkName(x.Name)] && x.Labels[cluster.LabelCluster] == "":
			n.known[cluster.NetworkName(x.Name)] = x
		}
	}
	n.announce()
	return nil
}

// doubt has the networks read again before the next container is made.
func (n *netset) doubt() {
	n.nameMu.Lock()
	defer n.nameMu.Unlock()
	n.stale = true
}

// doubted reports whether there is a doubt, and takes it up.
func (n *netset) doubted() bool {
	n.nameMu.Lock()
	defer n.nameMu.Unlock()
	s := n.stale
	n.stale = false
	return s
}

func (n *netset) ours(x docker.Network) bool {
	return x.Labels[cluster.LabelCluster] == n.cfg.ClusterID && x.Labels[cluster.LabelNode] == string(n.cfg.Node) &&
		x.Labels[docker.LabelNetwork] != ""
}

// announce passes the networks on, and keeps their names for named.
func (n *netset) announce() {
	names := make(map[string]cluster.NetworkName, len(n.known))
	var out []Network
	for name, x := range n.known {
		names[x.ID] = name
		if len(x.Subnets) == 0 || x.Bridge == "" {
			continue
		}
		out = append(out, Network{
			Name: name, Bridge: x.Bridge, Subnet: x.Subnets[0], Gateway: x.Gateway, Internal: x.Internal, External: !n.ours(x),
		})
	}
	slices.SortFunc(out, func(a, b Network) int { return strings.Compare(string(a.Name), string(b.Name)) })
	n.nameMu.Lock()
	n.names = names
	n.nameMu.Unlock()
	n.cfg.OnNetworks(out)
}

// named turns addresses by Docker's network IDs into addresses by name.
func (n *netset) named(byID map[string]string) map[cluster.NetworkName]string {
	n.nameMu.Lock()
	defer n.nameMu.Unlock()
	var out map[cluster.NetworkName]string
	for id, ip := range byID {
		if name, ok := n.names[id]; ok {
			if out == nil {
				out = map[cluster.NetworkName]string{}
			}
			out[name] = ip
		}
	}
	return out
}

// ensure returns the networks of a placement, in its order, and makes those missing.
func (n *netset) ensure(ctx context.Context, p *cluster.NodePlacement) ([]docker.Network, error) {
	if p.Spec.NetworkMode != "" || len(p.Spec.Networks) == 0 {
		return nil, nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.doubted() {
		if err := n.loadLocked(ctx); err != nil {
			return nil, err
		}
	}
	out := make([]docker.Network, 0, len(p.Spec.Networks))
	for _, ref := range p.Spec.Networks {
		delete(n.unused, ref.Name)
		x, ok := n.known[ref.Name]
		if ok {
			strays, err := n.strays(x)
			if err != nil {
				return nil, err
			}
			if strays {
				if err := n.remove(ctx, ref.Name, x); err != nil {
					return nil, cluster.Transientf("network %s has %s on this node, which is not the node's own any more; it is made anew when no container uses it (fairlead node drain %s ends them): %s", ref.Name, join(x.Subnets), n.cfg.Node, docker.Message(err))
				}
				ok = false
			}
		}
		if !ok {
			var err error
			if x, err = n.find(ctx, ref, p); err != nil {
				return nil, err
			}
			n.known[ref.Name] = x
			n.announce()
		}
		out = append(out, x)
	}
	return out, nil
}

// strays reports whether a network has addresses that the node was given once and has not now.
// An engine may give it others of its own, IPv6 ones, which nobody else knows.
func (n *netset) strays(x docker.Network) (bool, error) {
	if n.cfg.Holds == nil || !n.ours(x) || len(x.Subnets) == 0 {
		return false, nil
	}
	held, err := n.cfg.Holds(x.Subnets[0])
	return !held, err
}

// find looks for a network that others made and the app may use, else makes one if
// an app has declared it.
func (n *netset) find(ctx context.Context, ref cluster.NetworkRef, p *cluster.NodePlacement) (docker.Network, error) {
	list, err := n.cfg.Engine.Networks(ctx)
	if err != nil {
		return docker.Network{}, err
	}
	taken := false
	n.others = nil
	for _, x := range list {
		n.others = append(n.others, x.Subnets...)
		switch {
		case n.ours(x) && x.Labels[docker.LabelNetwork] == string(ref.Name):
			return x, nil
		case x.Name != string(ref.Name):
		case ref.External && x.Labels[cluster.LabelCluster] == "":
			return x, nil
		default:
			taken = true
		}
	}
	name := string(ref.Name)
	if slices.Contains(p.Foreign, ref.Name) {
		return docker.Network{}, cluster.NotFoundf("network %s does not exist and is external: no app declares it without external:. Deploy one that does, or make it on the node with docker network create %s", name, name)
	}
	if taken { // by docker compose, or by another cluster on this engine: not ours to use
		name += "." + n.suffix()
	}
	return n.make(ctx, name, ref, p.App)
}

func (n *netset) make(ctx context.Context, name string, ref cluster.NetworkRef, app cluster.AppName) (docker.Network, error) {
	labels := map[string]string{
		cluster.LabelCluster: n.cfg.ClusterID, cluster.LabelNode: string(n.cfg.Node), docker.LabelNetwork: string(ref.Name),
	}
	if !ref.External {
		labels[cluster.LabelApp] = string(app)
	}
	used := slices.Concat(n.others, hostSubnets())
	pools := n.cfg.Pools()
	if len(pools) == 0 {
		return docker.Network{}, cluster.Transientf("network %s: this node has not been given addresses yet", ref.Name)
	}
	for range 16 {
		subnet, ok := freeSubnet(pools, used)
		if !ok {
			if n.giveBack(ctx) {
				used = slices.Concat(n.others, hostSubnets())
				continue
			}
			return docker.Network{}, cluster.Transientf("no free /24 is left in %s for network %s: either the server's --pool is used up, or this machine's own networks overlap it; give the server another --pool", join(pools), ref.Name)
		}
		x := docker.Network{
			Name: name, Driver: "bridge", Bridge: n.bridge(ref.Name), Subnets: []netip.Prefix{subnet},
			Gateway: subnet.Addr().Next(), Dynamic: dynamicOf(subnet), Internal: ref.Internal, Labels: labels,
		}
		id, err := n.cfg.Engine.CreateNetwork(ctx, x, n.trusted())
		if err == nil {
			x.ID = id
			n.others = append(n.others, subnet)
			return x, nil
		}
		// Another agent on this engine may have taken the subnet since the list was read.
		if m := docker.Message(err); !strings.Contains(m, "overlap") {
			return docker.Network{}, err
		}
		used = append(used, subnet)
	}
	return docker.Network{}, errors.New("every free subnet overlaps with one that the engine uses")
}

// trusted are the interfaces that may bring packets from other nodes now.
func (n *netset) trusted() []string {
	if n.cfg.Trusted == nil {
		return nil
	}
	return n.cfg.Trusted(n.address())
}

// bridge is the name of a network's interface: the same each time it is made, so
// that rules that name it stay true. Interfaces have at most 15 characters.
func (n *netset) bridge(name cluster.NetworkName) string { return "fl" + n.hash(string(name)) }

var bridgeRE = regexp.MustCompile(`^fl[a-z2-7]{10}$`)

// IsBridge reports whether an interface's name is that of a network which an agent made,
// of this cluster or of another on the machine.
func IsBridge(name string) bool { return bridgeRE.MatchString(name) }

func (n *netset) suffix() string { return n.hash("")[:6] }

func (n *netset) hash(s string) string {
	sum := sha256.Sum256([]byte(n.cfg.ClusterID + "/" + string(n.cfg.Node) + "/" + s))
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:]))[:10]
}

func join(pools []netip.Prefix) string {
	text := make([]string, 0, len(pools))
	for _, p := range pools {
		text = append(text, p.String())
	}
	return strings.Join(text, ", ")
}

// freeSubnet returns the lowest /24 of the pools that overlaps none of used.
func freeSubnet(pools, used []netip.Prefix) (netip.Prefix, bool) {
	for _, p := range pools {
		if s, ok := freeIn(p, used); ok {
			return s, true
		}
	}
	return netip.Prefix{}, false
}

func freeIn(pool netip.Prefix, used []netip.Prefix) (netip.Prefix, bool) {
	pool = pool.Masked()
	for a := pool.Addr(); a.IsValid() && pool.Contains(a); {
		p := netip.PrefixFrom(a, 24)
		if !slices.ContainsFunc(used, p.Overlaps) {
			return p, true
		}
		b := a.As4()
		b[2]++
		if b[2] == 0 {
			b[1]++
		}
		next := netip.AddrFrom4(b)
		if next.Less(a) {
			break
		}
		a = next
	}
	return netip.Prefix{}, false
}

// hostSubnets are the ranges of the node's own interfaces.
func hostSubnets() []netip.Prefix {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []netip.Prefix
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
			out = append(out, p.Masked())
		}
	}
	return out
}

// tidy removes the networks of ours that have had no task for a while.
func (n *netset) tidy(ctx context.Context, inUse func() map[cluster.NetworkName]bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	used, now := inUse(), n.cfg.Now()
	var errs []error
	for name, x := range n.known {
		since, seen := n.unused[name]
		switch {
		case used[name]:
			delete(n.unused, name)
		case !seen:
			n.unused[name] = now
		case now.Sub(since) >= unusedFor:
			if err := n.remove(ctx, name, x); err != nil {
				n.unused[name] = now // containers that are being stopped still use it
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

func (n *netset) remove(ctx context.Context, name cluster.NetworkName, x docker.Network) error {
	if n.ours(x) {
		if err := n.cfg.Engine.RemoveNetwork(ctx, x.ID); err != nil {
			return err
		}
	}
	delete(n.known, name)
	delete(n.unused, name)
	n.addresses.gone(name)
	n.announce()
	return nil
}

// giveBack removes networks without a task before their time: another needs an
// address range. It reports whether there is one more.
func (n *netset) giveBack(ctx context.Context) bool {
	for name := range n.unused {
		x, known := n.known[name]
		if !known || !n.ours(x) || n.remove(ctx, name, x) != nil {
			continue
		}
		n.others = slices.DeleteFunc(n.others, func(p netip.Prefix) bool { return slices.Contains(x.Subnets, p) })
		return true
	}
	return false
}
