package server

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/fairlead/fairlead/agent"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// uplink is an address of this machine and the interface that it is of, or that
// packets with it leave by.
type uplink struct {
	address netip.Addr
	link    string
	bridge  bool
}

// waysOut is how this machine reaches others, as the kernel has it.
type waysOut struct {
	servers []uplink // towards each other server, as far as there is a way
	route   uplink   // of the default route
	all     []uplink // the addresses of all interfaces that are up
}

// engineBridge are the names that Docker gives its bridges.
var engineBridge = regexp.MustCompile(`^(docker\d+|docker_gwbridge|br-[0-9a-f]{12})$`)

// reachable reports whether other machines may reach this one by u: a bridge of
// containers leads to none, and other nodes' containers are reached by IPv4 alone.
func (u uplink) reachable() bool {
	return u.address.Is4() && !u.address.IsLoopback() && u.address.IsGlobalUnicast() &&
		!engineBridge.MatchString(u.link) && !agent.IsBridge(u.link)
}

// nodeAddress is the address of a node: the one that it reaches a server by; where all of
// them are on this machine, as of a server. Not valid: there is none yet.
func (w waysOut) nodeAddress(now netip.Addr) netip.Addr {
	away := func(u uplink) bool { return !u.address.IsLoopback() }
	if len(w.servers) > 0 && !slices.ContainsFunc(w.servers, away) {
		return w.serverAddress(now)
	}
	return w.towards()
}

// towards is the address that packets to the other servers leave with.
func (w waysOut) towards() netip.Addr {
	for _, u := range w.servers {
		if u.reachable() {
			return u.address
		}
	}
	return netip.Addr{}
}

// serverAddress is the address of a server: the one that it has, while the machine has
// it, else the one towards the servers that it joined, else that of the default route,
// else any, a bridge's last. Not valid: there is none.
func (w waysOut) serverAddress(now netip.Addr) netip.Addr {
	has := func(u uplink) bool { return u.address == now && u.reachable() }
	if slices.ContainsFunc(w.all, has) {
		return now
	}
	if a := w.towards(); a.IsValid() {
		return a
	}
	if w.route.reachable() {
		return w.route.address
	}
	for _, bridge := range []bool{false, true} {
		for _, u := range w.all {
			if u.bridge == bridge && u.reachable() {
				return u.address
			}
		}
	}
	return netip.Addr{}
}

// lookOut asks the kernel for the ways out, to servers (host:port) among others.
func lookOut(servers []string) (w waysOut, err error) {
	links, err := netlink.LinkList()
	if err != nil {
		return w, cluster.Transientf("find this machine's address: %w", err)
	}
	byIndex := make(map[int]netlink.Link, len(links))
	for _, l := range links {
		byIndex[l.Attrs().Index] = l
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return w, cluster.Transientf("find this machine's address: %w", err)
	}
	first := map[int]net.IP{} // by interface
	for _, a := range addrs {
		l := byIndex[a.LinkIndex]
		if l == nil || l.Attrs().Flags&net.FlagUp == 0 || l.Attrs().Flags&net.FlagLoopback != 0 || !a.IP.IsGlobalUnicast() {
			continue
		}
		if first[a.LinkIndex] == nil {
			first[a.LinkIndex] = a.IP
		}
		w.all = append(w.all, uplinkOf(l, a.IP))
	}
	for _, s := range servers {
		host, _, _ := net.SplitHostPort(s)
		to, err := netip.ParseAddr(host)
		if err != nil {
			continue
		}
		if routes, err := netlink.RouteGet(to.AsSlice()); err == nil && len(routes) > 0 { // else there is no way
			r := routes[0]
			w.servers = append(w.servers, uplinkOf(byIndex[r.LinkIndex], orFirst(r.Src, first[r.LinkIndex])))
		}
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return w, cluster.Transientf("find this machine's address: %w", err)
	}
	for _, r := range routes {
		if l := byIndex[r.LinkIndex]; l != nil && (r.Dst == nil || r.Dst.IP.IsUnspecified()) {
			if w.route = uplinkOf(l, orFirst(r.Src, first[r.LinkIndex])); w.route.reachable() {
				break
			}
		}
	}
	return w, nil
}

func orFirst(a, b net.IP) net.IP {
	if a == nil {
		return b
	}
	return a
}

func uplinkOf(l netlink.Link, address net.IP) uplink {
	if l == nil {
		return uplink{}
	}
	u := uplink{link: l.Attrs().Name}
	_, u.bridge = l.(*netlink.Bridge)
	u.address, _ = netip.AddrFromSlice(address)
	u.address = u.address.Unmap()
	return u
}

// own returns what looks for the address of this machine: of a node that follows its
// servers, or of a server. What it returns is not valid while there is none.
func (c *Config) own(node bool, servers func() []string) func(now netip.Addr) netip.Addr {
	said := ""
	return func(now netip.Addr) netip.Addr {
		w, err := lookOut(servers())
		switch {
		case err != nil:
			if err.Error() != said {
				said = err.Error()
				c.Log.Warn("cannot look at this machine's addresses; will retry", "error", err)
			}
			return now
		case node:
			return w.nodeAddress(now)
		}
		return w.serverAddress(now)
	}
}

// settleAddress chooses the address that other machines reach, where none was given. A
// node may begin without: nobody reaches it then, nor it the servers. A server begins with
// loopback, which it leaves as soon as there is another.
func (c *Config) settleAddress(find func(now netip.Addr) netip.Addr, node bool) {
	if c.Advertise != "" && !c.chosen {
		return
	}
	c.chosen = true
	last, _ := netip.ParseAddr(c.Advertise)
	a := find(last)
	switch {
	case a.IsValid():
		c.Advertise = a.String()
	case node:
		c.Advertise = ""
		c.Log.Warn("this machine has no IPv4 address yet by which it reaches a server (bridges of containers do not count); waiting for one, and starting what ran here last. --advertise names one")
	default:
		c.Advertise = loopbackAddress
		c.Log.Warn("this machine has no IPv4 address yet that others reach (bridges of containers do not count); going on without them until it has. --advertise names one")
	}
}

// unsettled reports whether there is no address yet that others reach this server by.
func (c *Config) unsettled() bool { return c.chosen && c.Advertise == loopbackAddress }

const (
	loopbackAddress = "127.0.0.1"
	// addressEvery is how often a chosen address is looked at.
	addressEvery = 5 * time.Second
)

// errMoved ends a run of a server whose address is another one now: its certificates, its
// etcd and what it says of itself have the former. It begins again with the new one.
var errMoved = errors.New("this server's address has changed")

// putBackPause is between a run whose store was put back and the next one: a list of two etcds
// that know nothing of each other looks like that for ever.
const putBackPause = 2 * time.Second

// whileMoved runs a server or a node, again whenever its address has changed or the store
// was put back, and returns how it ended otherwise.
func whileMoved(ctx context.Context, run func() error) error {
	for {
		err := run()
		if !errors.Is(err, errMoved) && !errors.Is(err, store.ErrPutBack) {
			return err
		}
		if errors.Is(err, store.ErrPutBack) {
			select {
			case <-ctx.Done():
			case <-time.After(putBackPause):
			}
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// watchAddress calls moved when the machine has another address than it was chosen to
// have, until ctx ends or moved fails. One that is lost stays until there is another, and
// one that is found counts once it is found twice: a lease that ends and comes back is none.
func (c *Config) watchAddress(ctx context.Context, find func(now netip.Addr) netip.Addr, moved func(from, to string) error) error {
	if !c.chosen {
		return nil
	}
	now, _ := netip.ParseAddr(c.Advertise)
	seen := netip.Addr{}
	tick := time.NewTicker(addressEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		a := find(now)
		if a.IsValid() && a != now && a == seen || a.IsValid() && !now.IsValid() {
			from := ""
			if now.IsValid() {
				from = now.String()
			}
			if err := moved(from, a.String()); err != nil {
				return err
			}
			now = a
		}
		seen = a
	}
}

// facing names the interface that has an address: other nodes' packets come in by it.
func facing(address string) []string {
	ifaces, err := net.Interfaces()
	if err != nil {
		return nil
	}
	for _, i := range ifaces {
		addrs, err := i.Addrs()
		if err != nil || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.String() == address {
				return []string{i.Name}
			}
		}
	}
	return nil
}
