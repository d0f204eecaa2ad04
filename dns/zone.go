package dns

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/fairlead/fairlead/cluster"
)

// Network is a container network of this node.
type Network struct {
	Name     cluster.NetworkName
	Subnet   netip.Prefix
	Gateway  netip.Addr // where the server listens
	Internal bool       // no way out: nothing is forwarded
}

// Zone is what names mean now. Make one with NewZone; it does not change.
type Zone struct {
	services netip.Prefix // the range of service addresses
	networks []Network
	names    map[string][]entry       // by lower-case name, as callers write it
	reverse  map[netip.Addr][]pointer // by address
	siblings map[netip.Addr]owner
	apps     map[string]bool // in lower case
}

// owner is the task behind an address.
type owner struct {
	app      cluster.AppName
	networks []cluster.NetworkName
}

// entry is one meaning of a name.
type entry struct {
	app      cluster.AppName
	service  cluster.ServiceName
	networks []cluster.NetworkName
	vip      netip.Addr // when valid, the answer
	tasks    []task     // else these
	short    bool       // the name does not say the app
}

type task struct {
	slot int
	on   map[cluster.NetworkName]netip.Addr
}

type pointer struct {
	name     string
	networks []cluster.NetworkName
}

// NewZone makes the zone of these endpoints. services is the range of service addresses.
func NewZone(services netip.Prefix, eps []cluster.Endpoints, nets []Network) *Zone {
	z := &Zone{
		services: services, networks: slices.Clone(nets),
		names: map[string][]entry{}, reverse: map[netip.Addr][]pointer{}, siblings: map[netip.Addr]owner{},
		apps: map[string]bool{},
	}
	eps = slices.Clone(eps)
	slices.SortFunc(eps, func(a, b cluster.Endpoints) int { return a.Compare(b.ServiceID) })
	for _, e := range eps {
		z.add(e)
	}
	return z
}

func (z *Zone) add(e cluster.Endpoints) {
	app := lower(e.App)
	z.apps[app] = true
	whole := entry{app: e.App, service: e.Name, networks: e.Networks}
	for _, t := range e.Tasks {
		x := task{slot: t.Slot, on: map[cluster.NetworkName]netip.Addr{}}
		for n, s := range t.Addresses {
			if a, err := netip.ParseAddr(s); err == nil {
				x.on[n] = a.Unmap()
			}
		}
		whole.tasks = append(whole.tasks, x)
		z.addTask(e, x)
	}
	slices.SortStableFunc(whole.tasks, func(a, b task) int { return cmp.Compare(a.slot, b.slot) })
	service := whole
	if vip, err := netip.ParseAddr(e.Address); err == nil && e.Mode != "dnsrr" {
		service.vip = vip
		z.reverse[vip] = append(z.reverse[vip], pointer{lower(e.Name) + "." + app, e.Networks})
	}
	names := names(e)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		whole := whole.only(names[name])
		z.name(service.only(names[name]), name, app)
		z.name(whole, "tasks."+name, app)
		for _, t := range whole.tasks {
			one := whole
			one.tasks = []task{t}
			z.name(one, name+"."+strconv.Itoa(t.slot), app)
		}
	}
	z.put(service, app+"_"+lower(e.Name))
	z.put(whole, "tasks."+app+"_"+lower(e.Name))
}

// addTask makes a ready task known by its addresses.
func (z *Zone) addTask(e cluster.Endpoints, t task) {
	o := owner{app: e.App}
	for n := range t.on {
		o.networks = append(o.networks, n)
	}
	slices.Sort(o.networks)
	for n, a := range t.on {
		z.siblings[a] = o
		p := pointer{lower(e.Name) + "." + strconv.Itoa(t.slot) + "." + lower(e.App), []cluster.NetworkName{n}}
		z.reverse[a] = append(z.reverse[a], p)
	}
}

// names returns the service's names inside its app, and the networks that each is
// answered on.
func names(e cluster.Endpoints) map[string][]cluster.NetworkName {
	out := map[string][]cluster.NetworkName{}
	for _, a := range e.Aliases {
		on, narrow := e.AliasNetworks[a]
		if !narrow {
			on = e.Networks
		}
		out[lower(a)] = append(out[lower(a)], on...)
	}
	out[lower(e.Name)] = e.Networks
	return out
}

// only returns what the entry means on some of its networks.
func (e entry) only(nets []cluster.NetworkName) entry {
	if !slices.ContainsFunc(e.networks, func(n cluster.NetworkName) bool { return !slices.Contains(nets, n) }) {
		return e
	}
	e.networks = nets
	tasks := e.tasks
	e.tasks = nil
	for _, t := range tasks {
		t.on = maps.Clone(t.on)
		maps.DeleteFunc(t.on, func(n cluster.NetworkName, _ netip.Addr) bool { return !slices.Contains(nets, n) })
		e.tasks = append(e.tasks, t)
	}
	return e
}

// name enters e under a name, plain and with the app.
func (z *Zone) name(e entry, name, app string) {
	z.put(e, name+"."+app)
	e.short = true
	z.put(e, name)
}

func (z *Zone) put(e entry, name string) { z.names[name] = append(z.names[name], e) }

func lower[T ~string](s T) string { return strings.ToLower(string(s)) }

// network returns the network that an address belongs to.
func (z *Zone) network(a netip.Addr) (Network, bool) {
	for _, n := range z.networks {
		if n.Subnet.Contains(a) {
			return n, true
		}
	}
	return Network{}, false
}
