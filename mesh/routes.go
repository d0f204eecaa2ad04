package mesh

import (
	"net/netip"
	"slices"

	"github.com/fairlead/fairlead/cluster"
)

// RouteProtocol marks our routes among those of a container and of a node.
const RouteProtocol = 0xf1

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
