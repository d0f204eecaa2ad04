package gateway

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// forget deletes the connections that are still mapped to private ports where nobody
// answers any more: packets of a client that tries again would follow them there.
func forget(ports []int) error {
	if len(ports) == 0 {
		return nil
	}
	f := portFilter{}
	for _, port := range ports {
		f[uint16(port)] = true //nolint:gosec // a port
	}
	if err := deleteFlows(f); err != nil {
		return fmt.Errorf("forget connections to private ports: %w", err)
	}
	return nil
}

// unpublished are the private UDP ports of entry points that were mapped and are not
// now, in all processes: a client that goes on sending would be led there for as long
// as it does. TCP connections end by themselves.
func unpublished(before, now map[string]int, all []*process) []int {
	var out []int
	for e := range before {
		if proto, _, ok := published(e); !ok || proto != "udp" || now[e] != 0 {
			continue
		}
		for _, p := range all {
			if port := p.Ports[e]; port != 0 {
				out = append(out, port)
			}
		}
	}
	return out
}

// forgetUnmapped deletes what the kernel noted of packets to the public ports of entries
// that came before the ports were mapped, or while another program had flushed the
// rules. They reached a hold, which drops them, and when they are sent again they
// would go there again for as long as the note lasts, two minutes for TCP.
func forgetUnmapped(cfg Config, entries map[string]int) error {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("list the addresses of this machine: %w", err)
	}
	f := unmapped{ports: map[protoPort]bool{}, local: map[string]bool{}}
	for e := range entries {
		proto, port := cfg.public(e)
		f.ports[protoPort{protoNumber(proto), uint16(port)}] = true //nolint:gosec // a port
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			f.local[n.IP.String()] = true
		}
	}
	if err := deleteFlows(f); err != nil {
		return fmt.Errorf("forget connections from before the public ports were mapped: %w", err)
	}
	return nil
}

func deleteFlows(f netlink.CustomConntrackFilter) error {
	for _, fam := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, fam, f); err != nil {
			return err
		}
	}
	return nil
}

// portFilter matches connections that were mapped to one of its ports.
type portFilter map[uint16]bool

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (f portFilter) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	return f[flow.Reverse.SrcPort] && flow.Forward.DstPort != flow.Reverse.SrcPort
}

// unmapped matches connections to this machine's own ports that were not mapped elsewhere.
type unmapped struct {
	ports map[protoPort]bool
	local map[string]bool
}

type protoPort struct {
	proto uint8
	port  uint16
}

func protoNumber(proto string) uint8 {
	if proto == "udp" {
		return unix.IPPROTO_UDP
	}
	return unix.IPPROTO_TCP
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (f unmapped) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	to := flow.Forward
	return f.ports[protoPort{to.Protocol, to.DstPort}] && (to.DstIP.IsLoopback() || f.local[to.DstIP.String()]) &&
		flow.Reverse.SrcPort == to.DstPort && flow.Reverse.SrcIP.Equal(to.DstIP)
}
