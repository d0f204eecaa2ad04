package mesh

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/cluster"
)

// RouteProtocol marks our routes among those of a container and of a node.
const RouteProtocol = 0xf1

// calledNets are the subnets that other nodes call: those of networks that agents made
// and that have a way in.
func calledNets(nets []Network) (out []netip.Prefix) {
	for _, n := range nets {
		if !n.External && !n.Internal && n.Subnet.IsValid() {
			out = append(out, n.Subnet.Masked())
		}
	}
	return out
}

// passMark begins the comment of our rules in the engine's filter.
const passMark = "fairlead-"

// passes says which networks' rules are missing in the chain of an engine's filter, as
// iptables lists it, and at which place they belong: before the engine drops what goes to
// any of them, and behind all else that is there. Those of this cluster's that are too
// many, or behind that, are to be removed first: then it is to be asked again.
func passes(have []string, cluster string, own []netip.Prefix) (add []netip.Prefix, at int, remove []netip.Prefix) {
	there := map[netip.Prefix]bool{}
	place := 0 // of the rule in the chain
	for _, line := range have {
		words := strings.Fields(line)
		after := func(option string) string {
			if i := slices.Index(words, option); i >= 0 && i+1 < len(words) {
				return strings.Trim(words[i+1], `"`)
			}
			return ""
		}
		if after("-A") == "" {
			continue // the chain's policy
		}
		place++
		to, err := netip.ParsePrefix(after("-d"))
		if err != nil {
			continue
		}
		ours := after("--comment") == passMark+cluster
		switch {
		case ours && (at > 0 || there[to] || !slices.Contains(own, to)):
			remove = append(remove, to)
		case ours:
			there[to] = true
		case at == 0 && after("-j") == "DROP" && slices.ContainsFunc(own, to.Overlaps):
			at = place
		}
	}
	for _, p := range own {
		if !there[p] {
			add = append(add, p)
		}
	}
	if at == 0 {
		at = place + 1
	}
	return add, at, remove
}

// Container is a running container on this node's networks.
type Container struct {
	Task cluster.TaskID
	// Netns is the path of its network namespace ("/proc/<pid>/ns/net").
	Netns    string
	Networks []cluster.NetworkName
}

// route sends what goes to a service address through one gateway.
type route struct {
	to, via netip.Addr
}

// routes returns the routes that a container needs besides its default route:
// service addresses are in no network, so the kernel would send them through the
// default gateway alone, where the service may not be. They are there whether
// or not the service has a ready task, so that they seldom change; only a service that
// leaves a network for another is reached on the one where it answers.
func routes(eps []cluster.Endpoints, nets []Network, c Container, gateway netip.Addr) []route {
	var own []Network // the default one first: what it reaches needs no route
	for _, n := range nets {
		switch {
		case !slices.Contains(c.Networks, n.Name):
		case n.Gateway == gateway:
			own = slices.Insert(own, 0, n)
		default:
			own = append(own, n)
		}
	}
	var out []route
	for _, e := range eps {
		vip, err := netip.ParseAddr(e.Address)
		if err != nil {
			continue
		}
		on := answers(e)
		i := slices.IndexFunc(own, func(n Network) bool { return slices.Contains(on, n.Name) })
		if i >= 0 && own[i].Gateway != gateway {
			out = append(out, route{vip, own[i].Gateway})
		}
	}
	slices.SortFunc(out, func(a, b route) int { return a.to.Compare(b.to) })
	return slices.Compact(out)
}

// answers are the networks to reach a service on: those of several where a task of it
// is, if there are any.
func answers(e cluster.Endpoints) []cluster.NetworkName {
	if len(e.Networks) < 2 {
		return e.Networks
	}
	on := slices.DeleteFunc(slices.Clone(e.Networks), func(n cluster.NetworkName) bool {
		return !slices.ContainsFunc(e.Tasks, func(t cluster.Endpoint) bool { return t.Addresses[n] != "" })
	})
	if len(on) == 0 {
		return e.Networks
	}
	return on
}
