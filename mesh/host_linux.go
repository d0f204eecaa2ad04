package mesh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/fairlead/fairlead/nftwatch"
)

// kernel is the real host. Only the mesh's own lock protects it.
type kernel struct {
	cluster string       // ID
	ports   map[int]bool // interfaces that were set; the kernel does not use an index again soon
}

var _ host = (*kernel)(nil)

func (k *kernel) deletions(ctx context.Context, told func()) error {
	// Chains of services come and go: that the first one stands is enough.
	return nftwatch.Deletions(ctx, nftwatch.Watched{Table: TableName(k.cluster), Chains: []string{chainPrerouting}}, told)
}

const bridgeSwitch = "/proc/sys/net/bridge/bridge-nf-call-iptables"

func (*kernel) filterBridges() error {
	b, err := os.ReadFile(bridgeSwitch)
	if errors.Is(err, fs.ErrNotExist) {
		// modprobe is the one way to load a module by name.
		if out, merr := exec.Command("modprobe", "br_netfilter").CombinedOutput(); merr != nil { //nolint:noctx // one call at the start, a second at most
			return fmt.Errorf("load kernel module br_netfilter: %w: %s", merr, bytes.TrimSpace(out))
		}
		b, err = os.ReadFile(bridgeSwitch)
	}
	if err != nil {
		return err
	}
	if string(bytes.TrimSpace(b)) == "1" {
		return nil
	}
	return os.WriteFile(bridgeSwitch, []byte("1\n"), 0o644) //nolint:gosec // a switch of the kernel, not a file
}

func (k *kernel) hairpin(bridges []string) error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	ours := map[int]bool{}
	for _, l := range links {
		if slices.Contains(bridges, l.Attrs().Name) {
			ours[l.Attrs().Index] = true
		}
	}
	ports := map[int]bool{}
	for _, l := range links {
		a := l.Attrs()
		if !ours[a.MasterIndex] {
			continue
		}
		if !k.ports[a.Index] {
			err := netlink.LinkSetHairpin(l, true)
			switch {
			case errors.Is(err, unix.ENODEV), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL):
				continue // it has left the bridge since
			case err != nil:
				return fmt.Errorf("set hairpin mode of %s: %w", a.Name, err)
			}
		}
		ports[a.Index] = true
	}
	k.ports = ports
	return nil
}

func (*kernel) setRoutes(path string, plan func(netip.Addr) []route) error {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", path, err)
	}
	defer func() { _ = ns.Close() }()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	defer h.Close()
	all, err := h.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	var gateway netip.Addr
	have := map[route]netlink.Route{}
	for _, r := range all {
		switch {
		case r.Protocol == RouteProtocol && r.Dst != nil:
			have[route{addr(r.Dst.IP), addr(r.Gw)}] = r
		case r.Gw != nil && (r.Dst == nil || r.Dst.IP.IsUnspecified()):
			gateway = addr(r.Gw)
		}
	}
	want := plan(gateway)
	for k, r := range have {
		if !slices.Contains(want, k) {
			if err := h.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("delete the route to %s: %w", k.to, err)
			}
		}
	}
	for _, k := range want {
		if _, ok := have[k]; ok {
			continue
		}
		r := netlink.Route{
			Dst: &net.IPNet{IP: k.to.AsSlice(), Mask: net.CIDRMask(32, 32)}, Gw: k.via.AsSlice(), Protocol: RouteProtocol,
		}
		if err := h.RouteReplace(&r); err != nil {
			return fmt.Errorf("add the route to %s by %s: %w", k.to, k.via, err)
		}
	}
	return nil
}

func addr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
