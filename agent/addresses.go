package agent

import (
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/cluster"
)

// addresses gives every container an address for its life. Left to the engine, a
// container gets another one at each start: after a reboot the last routes of a
// gateway that has no control plane would then lead to other services' tasks.
type addresses struct {
	mu    sync.Mutex
	given map[cluster.TaskID]map[cluster.NetworkName]netip.Addr
	// freed says, by network, in which turn an address was given back: the one
	// that was free for longest is given first, since others may still think of it
	// as its last task's.
	freed map[cluster.NetworkName]map[netip.Addr]int
	turn  int
	// others are addresses that something else on the network has.
	others map[cluster.NetworkName]map[netip.Addr]bool
}

func newAddresses() *addresses {
	return &addresses{
		given: map[cluster.TaskID]map[cluster.NetworkName]netip.Addr{},
		freed: map[cluster.NetworkName]map[netip.Addr]int{}, others: map[cluster.NetworkName]map[netip.Addr]bool{},
	}
}

// recall reserves what a task had when the agent last ran.
func (a *addresses) recall(t cluster.TaskID, had map[cluster.NetworkName]string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for n, s := range had {
		if ip, err := netip.ParseAddr(s); err == nil && !a.taken(n, ip) {
			a.put(t, n, ip)
		}
	}
}

// listed takes in the addresses of the containers that there are, and forgets
// those of tasks that have none and of which keep says that they get none.
func (a *addresses) listed(fixed map[cluster.TaskID]map[cluster.NetworkName]netip.Addr, keep func(cluster.TaskID) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.turn++
	maps.DeleteFunc(a.given, func(t cluster.TaskID, nets map[cluster.NetworkName]netip.Addr) bool {
		if fixed[t] != nil || keep(t) {
			return false
		}
		for n, ip := range nets {
			if a.freed[n] == nil {
				a.freed[n] = map[netip.Addr]int{}
			}
			a.freed[n][ip] = a.turn
		}
		return true
	})
	for t, nets := range fixed {
		for n, ip := range nets {
			a.put(t, n, ip)
		}
	}
}

func (a *addresses) put(t cluster.TaskID, n cluster.NetworkName, ip netip.Addr) {
	if a.given[t] == nil {
		a.given[t] = map[cluster.NetworkName]netip.Addr{}
	}
	a.given[t][n] = ip
}

func (a *addresses) taken(n cluster.NetworkName, ip netip.Addr) bool {
	if a.others[n][ip] {
		return true
	}
	for _, nets := range a.given {
		if nets[n] == ip {
			return true
		}
	}
	return false
}

// give returns the task's address in one of our networks: the one that it has
// already, or a free one. None is given where the engine's own addresses are not
// kept apart from ours, or none is left: the engine then chooses at each start.
func (a *addresses) give(t cluster.TaskID, name cluster.NetworkName, x docker.Network) netip.Addr {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !x.Dynamic.IsValid() || len(x.Subnets) == 0 {
		return netip.Addr{}
	}
	if ip, ok := a.given[t][name]; ok && fixable(x, ip) {
		return ip
	}
	delete(a.given[t], name)
	ip, ok := freeAddress(x, func(ip netip.Addr) bool { return a.taken(name, ip) }, a.freed[name])
	if ok {
		a.put(t, name, ip)
	}
	return ip
}

// lost notes that something else has an address of the task.
func (a *addresses) lost(t cluster.TaskID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for n, ip := range a.given[t] {
		if a.others[n] == nil {
			a.others[n] = map[netip.Addr]bool{}
		}
		a.others[n][ip] = true
	}
	delete(a.given, t)
}

// gone drops what is known of a network that was removed.
func (a *addresses) gone(n cluster.NetworkName) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.freed, n)
	delete(a.others, n)
}

// forget drops what was noted of others: the engine has begun anew.
func (a *addresses) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.others)
}

// dynamicOf is the part of a subnet that the engine gives to containers which
// ask for no address, such as one that a person starts there: the last quarter.
func dynamicOf(subnet netip.Prefix) netip.Prefix {
	b := subnet.Masked().Addr().As4()
	b[3] |= 0xc0
	return netip.PrefixFrom(netip.AddrFrom4(b), 26)
}

// fixable reports whether a container can have the address in a network.
func fixable(x docker.Network, ip netip.Addr) bool {
	s := x.Subnets[0].Masked()
	return s.Contains(ip) && !x.Dynamic.Contains(ip) && ip != s.Addr() && ip != x.Gateway
}

// freeAddress returns the first address that was never had, else the one that is
// free for longest.
func freeAddress(x docker.Network, taken func(netip.Addr) bool, freed map[netip.Addr]int) (best netip.Addr, ok bool) {
	s := x.Subnets[0].Masked()
	for ip := s.Addr(); s.Contains(ip); ip = ip.Next() {
		if !fixable(x, ip) || taken(ip) {
			continue
		}
		if freed[ip] == 0 {
			return ip, true
		}
		if !ok || freed[ip] < freed[best] {
			best, ok = ip, true
		}
	}
	return best, ok
}

// fixedOf returns the fixed addresses of containers, by network.
func (n *netset) fixedOf(list []docker.Container) map[cluster.TaskID]map[cluster.NetworkName]netip.Addr {
	n.nameMu.Lock()
	defer n.nameMu.Unlock()
	out := make(map[cluster.TaskID]map[cluster.NetworkName]netip.Addr, len(list))
	for _, c := range list {
		if c.Task() == "" || c.Name != string(c.Task()) {
			continue
		}
		nets := map[cluster.NetworkName]netip.Addr{}
		for _, id := range slices.Sorted(maps.Keys(c.Fixed)) {
			if name, ok := n.names[id]; ok {
				nets[name] = c.Fixed[id]
			}
		}
		out[c.Task()] = nets
	}
	return out
}
