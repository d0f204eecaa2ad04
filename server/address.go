package server

import (
	"net"

	"github.com/vishvananda/netlink"

	"github.com/fairlead/fairlead/cluster"
)

// defaultAddress is the address that this machine uses towards others: the
// source address of its default route, else its first global one, a bridge's last,
// else loopback.
func defaultAddress() (string, error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err == nil {
		for _, r := range routes {
			if (r.Dst != nil && !r.Dst.IP.IsUnspecified()) || r.LinkIndex == 0 {
				continue
			}
			if r.Src != nil {
				return r.Src.String(), nil
			}
			if ip := firstGlobal(r.LinkIndex); ip != "" {
				return ip, nil
			}
		}
	}
	links, err := netlink.LinkList()
	if err != nil {
		return "", cluster.Transientf("find this machine's address: %w", err)
	}
	last := "127.0.0.1"
	for _, l := range links {
		a := l.Attrs()
		if a.Flags&net.FlagUp == 0 || a.Flags&net.FlagLoopback != 0 {
			continue
		}
		ip := firstGlobal(a.Index)
		if _, bridge := l.(*netlink.Bridge); bridge && ip != "" {
			last = ip // Docker's, more likely than not: no other machine reaches it
		} else if ip != "" {
			return ip, nil
		}
	}
	return last, nil
}

func firstGlobal(index int) string {
	i, err := net.InterfaceByIndex(index)
	if err != nil {
		return ""
	}
	addrs, err := i.Addrs()
	if err != nil {
		return ""
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	return ""
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
