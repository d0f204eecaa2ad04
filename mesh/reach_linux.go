package mesh

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/coreos/go-iptables/iptables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead/fairlead/cluster"
)

// dockerUser is the engine's chain for rules of others: it comes before its own.
const dockerUser = "DOCKER-USER"

// letIn is the rule that lets in what the mesh marked, one a cluster.
func (k *kernel) letIn() []string {
	return []string{"-m", "mark", "--mark", markText + "/" + markText, "-m", "comment", "--comment", "fairlead " + k.cluster, "-j", "ACCEPT"}
}

// metric tells this cluster's routes from those of another one on the machine.
func (k *kernel) metric() int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(k.cluster))
	return 1<<20 + int(h.Sum32()%(1<<20))
}

// hop is a route to a part of another node's containers.
type hop struct {
	to   netip.Prefix
	via  netip.Addr
	from netip.Addr // the source of what this node itself sends; not valid: the kernel's choice
}

// hops are the routes to peers from an address of this node, and whose each is.
func hops(peers []Peer, from netip.Addr) map[hop]cluster.NodeID {
	out := map[hop]cluster.NodeID{}
	for _, p := range peers {
		for _, b := range p.Blocks {
			out[hop{b.Masked(), p.Address, from}] = p.Node
		}
		for _, s := range p.Networks { // also one from before there were blocks
			if !within(s, p.Blocks) {
				out[hop{s.Masked(), p.Address, from}] = p.Node
			}
		}
	}
	return out
}

func within(p netip.Prefix, blocks []netip.Prefix) bool {
	for _, b := range blocks {
		if b.Bits() <= p.Bits() && b.Contains(p.Addr()) {
			return true
		}
	}
	return false
}

func (h hop) compare(o hop) int {
	return cmp.Or(h.to.Compare(o.to), h.via.Compare(o.via), h.from.Compare(o.from))
}

// route is what the kernel is told. With several addresses on the interface it would choose
// the first one, which the other node does not know this one by and lets nothing in from.
func (k *kernel) route(h hop) *netlink.Route {
	r := &netlink.Route{
		Dst: &net.IPNet{IP: h.to.Addr().AsSlice(), Mask: net.CIDRMask(h.to.Bits(), 32)}, Gw: h.via.AsSlice(), Protocol: RouteProtocol, Priority: k.metric(),
	}
	if h.from.IsValid() {
		r.Src = h.from.AsSlice()
	}
	return r
}

// isLocal reports whether this machine has an address now.
func isLocal(a netip.Addr) (bool, error) {
	all, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return false, fmt.Errorf("list addresses: %w", err)
	}
	return slices.ContainsFunc(all, func(x netlink.Addr) bool { return addr(x.IP) == a }), nil
}

func (k *kernel) reach(self netip.Addr, peers []Peer, own []netip.Prefix) error {
	all, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: RouteProtocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	local, err := isLocal(self)
	if err != nil {
		return err
	}
	if !local || self.IsLoopback() {
		self = netip.Addr{}
	}
	want := hops(peers, self)
	wanted := map[netip.Prefix]bool{}
	for h := range want {
		wanted[h.to] = true
	}
	have, old := map[hop]bool{}, map[netip.Prefix]netlink.Route{}
	var errs []error
	drop := func(r netlink.Route) {
		if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("delete the route to %s: %w", r.Dst, err))
		}
	}
	for _, r := range all {
		if r.Dst == nil || r.Priority != k.metric() {
			continue
		}
		bits, _ := r.Dst.Mask.Size()
		h := hop{netip.PrefixFrom(addr(r.Dst.IP), bits), addr(r.Gw), addr(r.Src)}
		_, ok := want[h]
		switch {
		case ok:
			have[h] = true
		case wanted[h.to]:
			old[h.to] = r // replaced below, without a moment between
		default:
			drop(r)
		}
	}
	told := map[cluster.NodeID]bool{}
	for _, h := range slices.SortedFunc(maps.Keys(want), hop.compare) {
		if have[h] {
			continue
		}
		err := netlink.RouteReplace(k.route(h))
		if err == nil {
			continue
		}
		if r, ok := old[h.to]; ok {
			drop(r)
		}
		if !told[want[h]] {
			told[want[h]] = true
			errs = append(errs, unreachedf(want[h], "route %s by %s: %w (is that node on this machine's own network?)", h.to, h.via, err))
		}
	}
	if len(want) == 0 {
		own = nil
	}
	return errors.Join(append(errs, k.openDocker(len(want) > 0), k.letPast(own))...)
}

// engineRaw is where an engine drops, since version 28, what comes to a container from
// elsewhere than its bridge and the interface that was named when the network was made:
// the way to other nodes may be by another one now, and a network is never changed.
const engineRaw = "PREROUTING"

// pass is the rule that takes a network of ours out of that filter. Nothing is let in by
// it: the forward chain, and the engine's own, decide on what other nodes send. What our
// own bridges send to each other is left to the filter.
func (k *kernel) pass(to netip.Prefix) []string {
	return []string{"-d", to.String(), "!", "-i", "fl+", "-m", "comment", "--comment", passMark + k.cluster, "-j", "ACCEPT"}
}

// letPast takes these networks, and no others, out of the engine's filter.
func (k *kernel) letPast(own []netip.Prefix) error {
	ipt, err := iptables.New()
	if err != nil {
		return nil //nolint:nilerr // openDocker says so where it matters
	}
	for {
		have, err := ipt.List("raw", engineRaw)
		if err != nil {
			return nil //nolint:nilerr // a kernel without that table: nothing is filtered there
		}
		add, at, remove := passes(have, k.cluster, own)
		var errs []error
		for _, p := range remove {
			errs = append(errs, ipt.Delete("raw", engineRaw, k.pass(p)...))
		}
		if len(remove) == 0 {
			for _, p := range add {
				errs = append(errs, ipt.Insert("raw", engineRaw, at, k.pass(p)...))
			}
		}
		if err := errors.Join(errs...); err != nil {
			return fmt.Errorf("let other nodes' packets past the engine's filter: %w", err)
		}
		if len(remove) == 0 {
			return nil
		}
	}
}

// openDocker has the engine let in what the mesh marked, or takes that back. An
// engine without its chain filters nothing.
func (k *kernel) openDocker(open bool) error {
	ipt, err := iptables.New()
	if err != nil {
		if !open {
			return nil // what was never there lets nothing in
		}
		return fmt.Errorf("look for iptables: %w", err)
	}
	there, err := ipt.ChainExists("filter", dockerUser)
	if err != nil || !there {
		return err
	}
	if open {
		return ipt.InsertUnique("filter", dockerUser, 1, k.letIn()...)
	}
	return ipt.DeleteIfExists("filter", dockerUser, k.letIn()...)
}
