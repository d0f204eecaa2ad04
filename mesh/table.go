//go:build linux

package mesh

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/knftables"
)

// TableName is the name of the cluster's nft table (family ip).
func TableName(clusterID string) string { return "fairlead-mesh-" + clusterID }

// layout is what stays the same while a process runs.
type layout struct {
	services netip.Prefix // the range of service addresses
	// private are ports of the node itself that containers may not reach.
	private []uint16
	// masquerade hides the caller's address: needed where bridged packets do not
	// pass the kernel's address translation on their way back.
	masquerade bool
}

// markText marks what the engine's own rules shall let in.
const markText = "0xf1000"

// Base chains.
const (
	chainEarly       = "early"
	chainSources     = "sources"
	chainPrerouting  = "prerouting"
	chainPostrouting = "postrouting"
	chainForward     = "forward"
	chainOutput      = "output"
	chainInput       = "input"
)

var baseChains = []string{chainEarly, chainSources, chainPrerouting, chainPostrouting, chainForward, chainOutput, chainInput}

var interval = []knftables.SetFlag{knftables.IntervalFlag}

// sets are the table's. A set, map or base chain that becomes another needs another
// name: the table is written over the one that an earlier version left.
var sets = []knftables.Set{
	{Name: setHairpin, Type: "ipv4_addr . ipv4_addr"},
	{Name: setBridges, Type: "ifname"},
	{Name: setSealed, Type: "ifname"},
	{Name: setInside, Type: "ifname . ifname"},
	{Name: setGuarded, Type: "ifname"},
	{Name: setPeers, Type: "ifname . ipv4_addr", Flags: interval},
	{Name: setNodes, Type: "ipv4_addr"},
	{Name: setBlocks, Type: "ipv4_addr", Flags: interval},
	{Name: setHome, Type: "ifname . ipv4_addr", Flags: interval},
	{Name: setOwn, Type: "ifname . ipv4_addr", Flags: interval},
}

func isSet(name string) bool {
	return slices.ContainsFunc(sets, func(s knftables.Set) bool { return s.Name == name })
}

func isInterval(name string) bool {
	return slices.ContainsFunc(sets, func(s knftables.Set) bool { return s.Name == name && s.Flags != nil })
}

// writeBase adds the table and all in it that does not depend on endpoints.
func (l layout) writeBase(tx *knftables.Transaction) {
	tx.Add(&knftables.Table{})
	tx.Add(&knftables.Map{Name: mapServices, Type: "ifname . ipv4_addr : verdict"})
	for _, set := range sets {
		tx.Add(&set)
	}
	base := func(name string, typ knftables.BaseChainType, hook knftables.BaseChainHook, prio knftables.BaseChainPriority, rules ...string) {
		tx.Add(&knftables.Chain{
			Name: name, Type: new(typ), Hook: new(hook), Priority: new(prio),
		})
		for _, r := range rules {
			tx.Add(&knftables.Rule{Chain: name, Rule: r})
		}
	}
	to := "ip daddr " + l.services.String()
	// Before Docker's: since version 28 it drops here, without a word, what goes to
	// a container from elsewhere than its own bridge. The forward chain says no to
	// the same callers, but would not see these packets.
	base(chainEarly, knftables.FilterType, knftables.PreroutingHook, knftables.RawPriority+"-5",
		"ip daddr @"+setNodes+" accept", // the forward chain lets answers through
		"iifname @"+setSealed+" fib daddr type unicast ip daddr != "+l.services.String()+" iifname . ip daddr != @"+setHome+
			" reject with icmp admin-prohibited")
	// Nodes let each other's callers in by their address: none leaves here that is
	// not the sender's. A task on two networks answers a node by its default route,
	// whichever network it was called on; hence after connection tracking. 0.0.0.0 is
	// the source of who asks for an address, and the kernel forwards it nowhere.
	base(chainSources, knftables.FilterType, knftables.PreroutingHook, knftables.ManglePriority,
		"ct state established ct direction reply ip saddr != @"+setBlocks+" ip saddr != @"+setNodes+" accept",
		"iifname @"+setGuarded+" iifname . ip saddr != @"+setOwn+" ip saddr != 0.0.0.0 drop")
	base(chainPrerouting, knftables.NATType, knftables.PreroutingHook, knftables.DNATPriority+"-5",
		to+" iifname . ip daddr vmap @"+mapServices)

	snat := "ip saddr . ip daddr @" + setHairpin + " masquerade"
	if l.masquerade {
		snat = "iifname @" + setBridges + " ct original ip daddr " + l.services.String() + " masquerade"
	}
	// Between nodes callers keep their address: translated to itself, the engine's
	// masquerading does not come to it.
	base(chainPostrouting, knftables.NATType, knftables.PostroutingHook, knftables.SNATPriority+"-5", snat,
		"iifname @"+setBridges+" ip daddr @"+setBlocks+" snat to ip saddr",
		"ip daddr @"+setBlocks+" fib saddr type local snat to ip saddr") // what is tried from a bridge's address

	base(chainForward, knftables.FilterType, knftables.ForwardHook, knftables.FilterPriority+"-5",
		to+" meta l4proto tcp reject with tcp reset",
		to+" reject with icmp port-unreachable",
		// Out to the same network elsewhere, and back to a node that called.
		"iifname . ip daddr @"+setPeers+" accept",
		"iifname @"+setBridges+" ip daddr @"+setNodes+" ct state established,related accept",
		// In from it, and from nodes, whose gateways call every network.
		"oifname . ip saddr @"+setPeers+" meta mark set meta mark or "+markText+" accept",
		"oifname @"+setBridges+" ip saddr @"+setNodes+" meta mark set meta mark or "+markText+" accept",
		"iifname @"+setSealed+" iifname . oifname != @"+setInside+" reject with icmp admin-prohibited",
		"oifname @"+setSealed+" iifname . oifname != @"+setInside+" drop",
		// Nothing else comes in but by a port that the engine publishes.
		"oifname @"+setGuarded+" iifname != @"+setBridges+" ct status dnat accept",
		"oifname @"+setGuarded+" iifname != @"+setBridges+" ct state new drop")
	base(chainOutput, knftables.FilterType, knftables.OutputHook, knftables.FilterPriority+"-5",
		to+" meta l4proto tcp reject with tcp reset",
		to+" reject with icmp port-unreachable")
	base(chainInput, knftables.FilterType, knftables.InputHook, knftables.FilterPriority+"-5", l.inputRules()...)
}

func (l layout) inputRules() []string {
	if len(l.private) == 0 {
		return nil
	}
	ports := slices.Clone(l.private)
	slices.Sort(ports)
	texts := make([]string, 0, len(ports))
	for _, p := range slices.Compact(ports) {
		texts = append(texts, strconv.Itoa(int(p)))
	}
	return []string{fmt.Sprintf("iifname @%s tcp dport { %s } reject with tcp reset", setBridges, strings.Join(texts, ", "))}
}

// clearAll takes all out of the table that have lists, but the sets of intervals, and
// the chains that stay.
func clearAll(tx *knftables.Transaction, have map[string][]string, want Ruleset) {
	for _, name := range have["chain"] {
		tx.Flush(&knftables.Chain{Name: name})
	}
	for _, name := range have["map"] {
		if tx.Flush(&knftables.Map{Name: name}); name != mapServices {
			tx.Delete(&knftables.Map{Name: name})
		}
	}
	for _, name := range have["set"] {
		switch {
		case isInterval(name):
		case isSet(name):
			tx.Flush(&knftables.Set{Name: name})
		default:
			tx.Delete(&knftables.Set{Name: name})
		}
	}
	for _, name := range have["chain"] {
		if want.chains[name] == "" && !slices.Contains(baseChains, name) {
			tx.Delete(&knftables.Chain{Name: name})
		}
	}
}

// write adds a change to tx. from is what the kernel has, want what it shall have.
func (c change) write(tx *knftables.Transaction, from, want Ruleset) {
	for _, name := range c.writeChains {
		tx.Add(&knftables.Chain{Name: name})
		if _, known := from.chains[name]; known {
			tx.Flush(&knftables.Chain{Name: name})
		}
		tx.Add(&knftables.Rule{Chain: name, Rule: want.chains[name]})
	}
	for _, e := range c.delElements {
		tx.Delete(e.object(from.elements[e]))
	}
	for _, e := range c.addElements {
		tx.Add(e.object(want.elements[e]))
	}
	for _, name := range c.delChains {
		tx.Flush(&knftables.Chain{Name: name})
		tx.Delete(&knftables.Chain{Name: name})
	}
}

func (e element) object(value string) *knftables.Element {
	el := &knftables.Element{Key: strings.Split(e.key, " . ")}
	if e.set == mapServices {
		el.Map, el.Value = e.set, []string{value}
	} else {
		el.Set = e.set
	}
	return el
}
