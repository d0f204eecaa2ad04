package cluster

import (
	"fmt"
	"net/netip"
	"strings"
)

// Range is a range of addresses that a cluster gives out.
type Range struct {
	Flag   string // of `fairlead server`, which chooses it
	Prefix netip.Prefix
}

// HostNet is a range that a machine reaches by itself, by an interface or a route.
type HostNet struct {
	Prefix netip.Prefix `json:"prefix"`
	By     string       `json:"by" maxLength:"100" doc:"the interface or route, for people"`
}

// Overlap says which of a machine's networks have addresses that the cluster gives out:
// of those the machine could reach one or the other. "" where none has.
func Overlap(ranges []Range, host []HostNet) string {
	const most = 3
	var found []string
	for _, r := range ranges {
		for _, h := range host {
			if r.Prefix.Overlaps(h.Prefix) {
				found = append(found, fmt.Sprintf("%s (%s) overlaps with %s, which is %s", r.Prefix, r.Flag, h.Prefix, h.By))
			}
		}
	}
	if len(found) > most {
		found = append(found[:most], fmt.Sprintf("%d more overlap", len(found)-most))
	}
	return strings.Join(found, "; ")
}

// FreeRange is a range for a cluster that none of these has addresses of; not valid
// where none is found. Those that engines take for networks of their own come last.
func FreeRange(host []HostNet, taken ...netip.Prefix) netip.Prefix {
	for _, first := range [][2]byte{{10, 213}, {172, 31}} {
		for b := first[1]; b >= 16; b-- {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{first[0], b}), 16)
			used := false
			for _, h := range host {
				used = used || p.Overlaps(h.Prefix)
			}
			for _, t := range taken {
				used = used || p.Overlaps(t)
			}
			if !used {
				return p
			}
		}
	}
	return netip.Prefix{}
}
