package dns

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"github.com/fairlead/fairlead/cluster"
)

// Client is who asks.
type Client struct {
	// Addr is the container's address, Via the network it asked through.
	Addr netip.Addr
	Via  cluster.NetworkName
	// App and Networks are the container's, where known; Via is always among them.
	App      cluster.AppName
	Networks []cluster.NetworkName
	// Known says that the container is known, not merely a task or the network.
	Known bool
	// OwnServers says that its service names servers of its own.
	OwnServers bool
}

// Question is what it asks: a name without the last dot, and a DNS type.
type Question struct {
	Name string
	Type uint16
}

// Verdict says what to do with a question.
type Verdict uint8

// Verdicts.
const (
	Answered  Verdict = iota // the name is ours; no records is a valid answer
	Unknown                  // there is no such name
	Forward                  // ask the node's resolvers
	Elsewhere                // the container asks servers of its own
)

// Result is the answer to a question.
type Result struct {
	Verdict Verdict
	Addrs   []netip.Addr // for A, in order of service and slot
	Names   []string     // for PTR, without the last dot
}

// Answer says what a name means to a client.
func Answer(z *Zone, c Client, q Question) Result {
	name := strings.TrimSuffix(strings.ToLower(q.Name), ".")
	if a, ok := reverseName(name); ok {
		return z.pointers(c, a, q.Type)
	}
	seen := z.visible(c, name)
	if len(seen) == 0 {
		return Result{Verdict: z.outside(c, name)}
	}
	if q.Type != dns.TypeA && q.Type != dns.TypeANY {
		return Result{Verdict: Answered}
	}
	var out []netip.Addr
	for _, e := range seen {
		out = append(out, e.addrs(c)...)
	}
	return Result{Verdict: Answered, Addrs: unique(out)}
}

// outside says who knows a name that means nothing here.
func (z *Zone) outside(c Client, name string) Verdict {
	switch {
	case name != "" && c.OwnServers && !strings.Contains(name, "."):
		// As with Docker alone: such servers may know "printer". Nobody else is asked.
		return Elsewhere
	case z.ours(name):
		return Unknown
	default:
		return z.forward(c)
	}
}

// forward says who is asked for what is not ours. The servers of a service are
// asked by its container itself: from where it stands, so that they are reached
// if and only if the container reaches them. The node would reach more.
func (z *Zone) forward(c Client) Verdict {
	switch {
	case c.OwnServers:
		return Elsewhere
	case z.wayOut(c):
		return Forward
	default:
		return Unknown // there is no way out, not by names either
	}
}

// wayOut reports whether any network of the client is not internal.
func (z *Zone) wayOut(c Client) bool {
	return slices.ContainsFunc(z.networks, func(n Network) bool { return !n.Internal && slices.Contains(c.Networks, n.Name) })
}

// ours reports whether a name can only be one of ours: there is nothing like it
// outside, and nobody outside should see it.
func (z *Zone) ours(name string) bool {
	if name == "" {
		return false
	}
	last := name[strings.LastIndex(name, ".")+1:]
	_, err := strconv.Atoi(last) // "web.2"
	if last == name || err == nil {
		return true
	}
	// "tasks.web", but not "tasks.example.com" or "tasks.shop.example.com".
	service, ok := strings.CutPrefix(name, "tasks.")
	return ok && z.asTasks(service)
}

// asTasks reports whether "tasks.<name>" can only be ours: name is a service's
// alone, or with an app that there is.
func (z *Zone) asTasks(name string) bool {
	service, app, dotted := strings.Cut(name, ".")
	return service != "" && (!dotted || z.apps[app])
}

// visible returns what a name means to the client: its own app's service first,
// and only that, since a name of one's own app must not change its meaning
// because another app joined a shared network.
func (z *Zone) visible(c Client, name string) []entry {
	var own, other []entry
	for _, e := range z.names[name] {
		if !slices.ContainsFunc(e.networks, func(n cluster.NetworkName) bool { return slices.Contains(c.Networks, n) }) {
			continue
		}
		if e.app == c.App || !e.short {
			own = append(own, e)
		} else {
			other = append(other, e)
		}
	}
	if len(own) > 0 {
		return own
	}
	return other
}

// addrs returns the addresses of an entry for a client: the service's, else its
// tasks' on a network that the client is on, the one it asked through first.
func (e entry) addrs(c Client) []netip.Addr {
	if e.vip.IsValid() {
		return []netip.Addr{e.vip}
	}
	var out []netip.Addr
	for _, t := range e.tasks {
		if a, ok := t.on[c.Via]; ok {
			out = append(out, a)
			continue
		}
		for _, n := range c.Networks {
			if a, ok := t.on[n]; ok {
				out = append(out, a)
				break
			}
		}
	}
	return out
}

func (z *Zone) pointers(c Client, a netip.Addr, typ uint16) Result {
	ours := z.services.Contains(a)
	if !ours {
		_, ours = z.network(a)
	}
	if !ours {
		return Result{Verdict: z.forward(c)}
	}
	var out []string
	for _, p := range z.reverse[a] {
		if slices.ContainsFunc(p.networks, func(n cluster.NetworkName) bool { return slices.Contains(c.Networks, n) }) {
			out = append(out, p.name)
		}
	}
	switch {
	case len(out) == 0:
		return Result{Verdict: Unknown}
	case typ != dns.TypePTR && typ != dns.TypeANY:
		return Result{Verdict: Answered}
	}
	slices.Sort(out)
	return Result{Verdict: Answered, Names: slices.Compact(out)}
}

// reverseName reads "4.3.2.1.in-addr.arpa".
func reverseName(name string) (netip.Addr, bool) {
	rest, ok := strings.CutSuffix(name, ".in-addr.arpa")
	if !ok {
		return netip.Addr{}, false
	}
	parts := strings.Split(rest, ".")
	if len(parts) != 4 {
		return netip.Addr{}, false
	}
	var b [4]byte
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 8)
		if err != nil {
			return netip.Addr{}, false
		}
		b[3-i] = byte(n)
	}
	return netip.AddrFrom4(b), true
}

func unique(in []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range in {
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}
