package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead/fairlead/agent"
	"github.com/fairlead/fairlead/agent/docker"
	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/atomicfile"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/mesh"
	"github.com/fairlead/fairlead/pki"
)

// hostRoute is an address of an interface with its network, or a route.
type hostRoute struct {
	to       netip.Prefix
	link     string     // "" of several or none
	via      netip.Addr // not valid: on the link itself
	address  bool       // it is an interface's address
	protocol int        // who set a route
}

// widest is what a route that is somebody's network has at least: 10.0.0.0/8 is one, and
// a wider route leads to all the rest, as the default route does (VPNs halve that one).
const widest = 8

// hostNets are the networks that the machine reaches by itself, each once, without
// what Fairlead made here: this cluster, or another one, and before a restart.
func hostNets(all []hostRoute) []cluster.HostNet {
	var out []cluster.HostNet
	for _, r := range all {
		if agent.IsBridge(r.link) || !r.address && (r.protocol == mesh.RouteProtocol || r.to.Bits() < widest) {
			continue
		}
		by := "on interface " + r.link
		if r.via.IsValid() {
			by = "routed by " + r.via.String()
			if r.link != "" {
				by += " on " + r.link
			}
		} else if r.link == "" {
			by = "a route"
		}
		out = append(out, cluster.HostNet{Prefix: r.to.Masked(), By: by})
	}
	slices.SortFunc(out, func(a, b cluster.HostNet) int {
		if c := a.Prefix.Compare(b.Prefix); c != 0 {
			return c
		}
		return strings.Compare(a.By, b.By)
	})
	return slices.Compact(out)
}

// hostRoutes are the machine's addresses and routes, of all routing tables: those of
// others come before the main one.
func hostRoutes() ([]hostRoute, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list this machine's interfaces: %w", err)
	}
	names := make(map[int]string, len(links))
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list this machine's addresses: %w", err)
	}
	var out []hostRoute
	for _, a := range addrs {
		if p, ok := prefixOf(a.IPNet); ok {
			out = append(out, hostRoute{to: p, link: names[a.LinkIndex], address: true})
		}
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_UNSPEC, Type: unix.RTN_UNICAST}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list this machine's routes: %w", err)
	}
	for _, r := range routes {
		p, ok := prefixOf(r.Dst)
		if !ok || r.Type != unix.RTN_UNICAST || r.Table == unix.RT_TABLE_LOCAL {
			continue // nothing is reached by it, or an address of the machine
		}
		via, _ := netip.AddrFromSlice(r.Gw)
		out = append(out, hostRoute{to: p, link: names[r.LinkIndex], via: via.Unmap(), protocol: int(r.Protocol)})
	}
	return out, nil
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	bits, size := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits), ok && a.Unmap().Is4() && size == 32
}

// ownNets are the machine's networks; none where they cannot be listed, which is logged.
func (c *Config) ownNets() []cluster.HostNet {
	all, err := hostRoutes()
	if err != nil {
		c.Log.Warn("cannot compare this machine's networks with the cluster's ranges", "error", err)
	}
	return hostNets(all)
}

// joinNets are those that a machine which joins tells of.
func (c *Config) joinNets() []cluster.HostNet {
	nets := c.ownNets()
	return nets[:min(len(nets), v1.MostNetworks)]
}

// volumesTime is how long the engine of a machine that joins has to name its volumes.
const volumesTime = 10 * time.Second

// joinVolumes are the volumes of this machine's engine, which a machine that joins tells of:
// it may be a node that was removed, with what that had. nil where the engine does not say.
func (c *Config) joinVolumes(ctx context.Context) []string {
	names, err := engineVolumes(ctx, c.Docker)
	if err != nil {
		if !c.NoAgent {
			c.Log.Warn("cannot say which volumes this machine has", "error", err)
		}
		return nil
	}
	return names[:min(len(names), v1.MostVolumes)]
}

func engineVolumes(ctx context.Context, address string) ([]string, error) {
	engine, err := docker.New(address)
	if err != nil {
		return nil, err
	}
	defer engine.Close() //nolint:errcheck // only asked
	ctx, cancel := context.WithTimeout(ctx, volumesTime)
	defer cancel()
	return engine.VolumeNames(ctx)
}

// ranges are the cluster's address ranges.
func (c *Config) ranges() []cluster.Range {
	out := []cluster.Range{{Flag: "--pool"}, {Flag: "--service-range"}}
	out[0].Prefix, _ = netip.ParsePrefix(c.Pool) // validated
	out[1].Prefix, _ = netip.ParsePrefix(c.ServiceRange)
	return out
}

func (c *Config) rangesFile() string { return filepath.Join(c.DataDir, "ranges") }

func (c *Config) rangesText() string { return c.Pool + " " + c.ServiceRange + "\n" }

// choosesRanges reports whether a server that starts now chooses the cluster's ranges: it
// is its first start, or its flags are others than before. One that joins is given them.
func (c *Config) choosesRanges() bool {
	if c.Join != "" || isJoined(c.DataDir) {
		return false
	}
	if _, err := readSettings(c.DataDir); cluster.KindOf(err) != cluster.KindNotFound {
		return false
	}
	b, err := os.ReadFile(c.rangesFile())
	if errors.Is(err, os.ErrNotExist) { // it may be from before there was the file
		return !pki.IsAuthority(filepath.Join(c.DataDir, "pki"))
	}
	return err == nil && string(b) != c.rangesText()
}

// chooseRanges refuses ranges, where they are chosen, that the machine has addresses of.
// Later that is an alarm: what runs is not to be taken down for it.
func (c *Config) chooseRanges(host func() []cluster.HostNet) error {
	if !c.choosesRanges() {
		return nil
	}
	ranges := c.ranges()
	if pool, services := ranges[0].Prefix, ranges[1].Prefix; pool.Overlaps(services) {
		return cluster.Invalidf("--pool %s and --service-range %s overlap: give one of them another range", pool, services)
	}
	nets := host()
	text := cluster.Overlap(ranges, nets)
	if text == "" {
		return nil
	}
	var free []string
	for i, r := range ranges {
		other := ranges[1-i].Prefix
		p := cluster.FreeRange(nets, other)
		if cluster.Overlap(ranges[i:i+1], nets) != "" && p.IsValid() {
			ranges[i].Prefix = p
			free = append(free, r.Flag+" "+p.String())
		}
	}
	advice := "choose other ranges by these flags"
	if len(free) > 0 {
		advice += ", such as " + strings.Join(free, ", ")
	}
	return cluster.Invalidf("the cluster's addresses must not be in use on this machine, which would no longer reach what has them now: %s. Nothing was changed: %s", text, advice)
}

// keepRanges notes which ranges were chosen.
func (c *Config) keepRanges() error {
	if b, err := os.ReadFile(c.rangesFile()); err == nil && string(b) == c.rangesText() {
		return nil
	}
	return atomicfile.Write(c.rangesFile(), []byte(c.rangesText()))
}

// overlapEvery is how often the machine's networks are compared with the cluster's.
const overlapEvery = time.Minute

// watchOverlap tells said what of the machine's own networks overlaps with the cluster's
// ranges, now and at every change, until ctx ends.
func (c *Config) watchOverlap(ctx context.Context, host func() []cluster.HostNet, said func(string)) error {
	tick := time.NewTicker(overlapEvery)
	defer tick.Stop()
	for last := ""; ; {
		text := cluster.Overlap(c.ranges(), host())
		if text != last && text != "" {
			c.Log.Error("this machine has networks of its own among the cluster's addresses, and cannot reach all of both", "overlap", text)
		}
		last = text
		said(text)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
