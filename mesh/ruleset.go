package mesh

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/cluster"
)

// Network is a container network of this node: one Linux bridge.
type Network struct {
	Name    cluster.NetworkName
	Bridge  string // the interface
	Subnet  netip.Prefix
	Gateway netip.Addr // the bridge's own address
	// Internal networks have no way in or out. The engine gives their containers no
	// default route: they need Attach to reach service addresses.
	Internal bool
	// External networks are somebody else's: what comes to them is not refused here.
	External bool
}

// Peer is another node of the cluster, and where its containers are.
type Peer struct {
	Node     cluster.NodeID
	Address  netip.Addr     // not valid: what it says is none
	Blocks   []netip.Prefix // its part of the cluster's range
	Networks map[cluster.NetworkName]netip.Prefix
	Away     bool // nothing is heard of it
}

// backend is one task behind a service address.
type backend struct {
	service netip.Addr
	task    netip.Addr
}

// element is one entry of a set or map of the table.
type element struct {
	set string
	key string // parts joined by " . "
}

// Ruleset is all that depends on endpoints and networks. Two equal rulesets
// need no change in the kernel.
type Ruleset struct {
	// chains maps the chain of one service on one bridge to its only rule.
	chains map[string]string
	// elements maps entries of sets (value "") and maps to their values.
	elements map[element]string
	// backends and subnets say which UDP flows may stay.
	backends map[backend]bool
	subnets  []netip.Prefix
}

// Names of the table's sets and maps.
const (
	mapServices = "services" // bridge . service address : chain
	setHairpin  = "hairpin"  // task . task: a task that calls itself through its service
	setBridges  = "bridges"  // this cluster's bridges
	setSealed   = "sealed"   // bridges of internal networks
	setInside   = "inside"   // bridge . bridge: traffic that stays on one bridge
	setGuarded  = "guarded"  // bridges that nothing may come to from outside of the node
	setPeers    = "peers"    // bridge . subnet of the same network on another node
	setNodes    = "nodes"    // other nodes' own addresses
	setBlocks   = "blocks"   // all other nodes' containers
	setHome     = "home"     // bridge . subnet: what an internal network may reach
	setOwn      = "own"      // bridge . its subnet: the source addresses that it may send from
)

// Rules returns the ruleset that serves the endpoints on these networks. A
// service is reachable from the networks it is on, at its tasks' addresses on
// that same network; a service without a ready task has no rule there, and so
// is refused. Endpoints and networks that make no sense are left out.
//
// The same network on another node is one with it: its tasks serve and may call.
func Rules(eps []cluster.Endpoints, nets []Network, peers []Peer) Ruleset {
	rs := Ruleset{chains: map[string]string{}, elements: map[element]string{}, backends: map[backend]bool{}}
	byName := map[cluster.NetworkName]Network{}
	for _, n := range nets {
		if !validBridge(n.Bridge) || !n.Subnet.IsValid() {
			continue
		}
		byName[n.Name] = n
		rs.subnets = append(rs.subnets, n.Subnet)
		rs.elements[element{setBridges, n.Bridge}] = ""
		rs.elements[element{setInside, n.Bridge + " . " + n.Bridge}] = ""
		if !n.External {
			rs.elements[element{setGuarded, n.Bridge}] = ""
			rs.elements[element{setOwn, n.Bridge + " . " + n.Subnet.Masked().String()}] = ""
		}
		for _, p := range peers {
			if s, ok := p.Networks[n.Name]; ok && s.IsValid() {
				rs.elements[element{setPeers, n.Bridge + " . " + s.Masked().String()}] = ""
				if n.Internal {
					rs.elements[element{setHome, n.Bridge + " . " + s.Masked().String()}] = ""
				}
			}
		}
		if n.Internal {
			rs.elements[element{setSealed, n.Bridge}] = ""
			rs.elements[element{setHome, n.Bridge + " . " + n.Subnet.Masked().String()}] = ""
		}
	}
	slices.SortFunc(rs.subnets, netip.Prefix.Compare)
	for _, p := range peers {
		rs.elements[element{setNodes, p.Address.String()}] = ""
		for _, b := range p.Blocks {
			rs.elements[element{setBlocks, b.Masked().String()}] = ""
		}
	}
	for _, e := range eps {
		vip, err := netip.ParseAddr(e.Address)
		if err != nil || !vip.Is4() {
			continue
		}
		for _, name := range e.Networks {
			if n, ok := byName[name]; ok {
				rs.addService(vip, n, tasksOn(e, n, peers))
			}
		}
	}
	return rs
}

// only returns the ruleset with the elements of some sets alone.
func (rs Ruleset) only(in func(set string) bool) Ruleset {
	rs.elements = maps.Clone(rs.elements)
	maps.DeleteFunc(rs.elements, func(e element, _ string) bool { return !in(e.set) })
	return rs
}

func (rs *Ruleset) addService(vip netip.Addr, n Network, tasks []netip.Addr) {
	if len(tasks) == 0 {
		return
	}
	chain := "to-" + vip.String() + "-" + n.Bridge
	rs.chains[chain] = dnat(tasks)
	rs.elements[element{mapServices, n.Bridge + " . " + vip.String()}] = "goto " + chain
	for _, t := range tasks {
		rs.elements[element{setHairpin, t.String() + " . " + t.String()}] = ""
		rs.backends[backend{vip, t}] = true
	}
}

// dnat picks a task for each new connection; numgen is cheap and even.
func dnat(tasks []netip.Addr) string {
	if len(tasks) == 1 {
		return "dnat to " + tasks[0].String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "dnat to numgen random mod %d map {", len(tasks))
	for i, t := range tasks {
		if i > 0 {
			b.WriteString(",")
		}
		fmt.Fprintf(&b, " %d : %s", i, t)
	}
	b.WriteString(" }")
	return b.String()
}

// tasksOn returns the addresses of the service's tasks on one network, here and on
// other nodes, in order.
func tasksOn(e cluster.Endpoints, n Network, peers []Peer) []netip.Addr {
	var out []netip.Addr
	for _, t := range e.Tasks {
		a, err := netip.ParseAddr(t.Addresses[n.Name])
		there := func(p Peer) bool { return p.Networks[n.Name].Contains(a) }
		if err == nil && (n.Subnet.Contains(a) || slices.ContainsFunc(peers, there)) {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// validBridge refuses names that nft would read as something else.
func validBridge(name string) bool {
	if name == "" || len(name) > 15 {
		return false
	}
	for i, c := range name {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("-_.", c)) {
			return false
		}
	}
	return true
}

// change is the difference between two rulesets, in the order to write it.
type change struct {
	writeChains []string // new, or with another rule
	addElements []element
	delElements []element
	delChains   []string
}

func (c change) empty() bool {
	return len(c.writeChains)+len(c.addElements)+len(c.delElements)+len(c.delChains) == 0
}

// diff returns what turns the kernel from have to want.
func diff(have, want Ruleset) change {
	var c change
	for _, name := range slices.Sorted(maps.Keys(want.chains)) {
		if rule, ok := have.chains[name]; !ok || rule != want.chains[name] {
			c.writeChains = append(c.writeChains, name)
		}
	}
	for e, v := range want.elements {
		if old, ok := have.elements[e]; !ok || old != v {
			c.addElements = append(c.addElements, e)
		}
	}
	for e, old := range have.elements {
		if v, ok := want.elements[e]; !ok || v != old {
			c.delElements = append(c.delElements, e)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(have.chains)) {
		if _, ok := want.chains[name]; !ok {
			c.delChains = append(c.delChains, name)
		}
	}
	slices.SortFunc(c.addElements, element.compare)
	slices.SortFunc(c.delElements, element.compare)
	return c
}

func (e element) compare(o element) int {
	if c := strings.Compare(e.set, o.set); c != 0 {
		return c
	}
	return strings.Compare(e.key, o.key)
}

// grew reports whether want has more tasks behind services of have, and is the same
// in all else.
func grew(have, want Ruleset) bool {
	c := diff(have, want)
	known := func(chain string) bool { return have.chains[chain] != "" }
	return len(c.writeChains) > 0 && len(c.delElements) == 0 && len(c.delChains) == 0 && len(lost(have, want)) == 0 &&
		!slices.ContainsFunc(c.addElements, func(e element) bool { return e.set != setHairpin }) &&
		!slices.ContainsFunc(c.writeChains, func(chain string) bool { return !known(chain) })
}

// lost returns the service addresses that had a task which want does not have.
func lost(have, want Ruleset) []netip.Addr {
	var out []netip.Addr
	for b := range have.backends {
		if !want.backends[b] {
			out = append(out, b.service)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}
