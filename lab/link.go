package lab

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/cluster"
)

// Cut is one direction of a link that passes nothing. An empty end is all others,
// and this machine.
type Cut struct {
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
}

func compareCuts(a, b Cut) int { return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To)) }

// ParseLink reads NODE (its link to all others) or NODE:NODE (between the two), and
// returns the directions meant. One-way is what the first sends; :NODE is then what
// a node receives from all others.
func (s Spec) ParseLink(link string, oneWay bool) ([]Cut, error) {
	from, to, _ := strings.Cut(link, ":")
	if from == to {
		return nil, cluster.Invalidf("link %q: give NODE, or two nodes as NODE:NODE", link)
	}
	for _, n := range []string{from, to} {
		if n == "" {
			continue
		}
		if _, err := s.Machine(n); err != nil {
			return nil, err
		}
	}
	if oneWay {
		return []Cut{{from, to}}, nil
	}
	return []Cut{{from, to}, {to, from}}, nil
}

// cut adds directions to those that are cut, sorted and each once.
func cut(have, more []Cut) []Cut {
	out := slices.Concat(have, more)
	slices.SortFunc(out, compareCuts)
	return slices.Compact(out)
}

// heal takes directions out of those that are cut. To heal all that a node sends, or
// receives, heals what was cut of it towards single others too.
func heal(have, links []Cut) []Cut {
	return slices.DeleteFunc(slices.Clone(have), func(c Cut) bool {
		return slices.ContainsFunc(links, func(l Cut) bool {
			return (l.From == "" || l.From == c.From) && (l.To == "" || l.To == c.To)
		})
	})
}

// SwitchRules is the switch's nftables ruleset: what is cut passes no port of the
// bridge. Packets are dropped without a word, as on a cable that is out: a machine
// that is told of it would not wait for its timeouts.
func SwitchRules(cuts []Cut) string {
	var pre, forward, post strings.Builder
	for _, c := range cuts {
		switch {
		case c.To == "":
			fmt.Fprintf(&pre, "\t\tiifname %s drop\n", ports(c.From))
		case c.From == "":
			fmt.Fprintf(&post, "\t\toifname %s drop\n", ports(c.To))
		default:
			fmt.Fprintf(&forward, "\t\tiifname %s oifname %s drop\n", ports(c.From), ports(c.To))
		}
	}
	var out strings.Builder
	out.WriteString("table bridge lab\ndelete table bridge lab\ntable bridge lab {\n")
	for _, chain := range []struct{ name, rules string }{
		{"prerouting", pre.String()}, {"forward", forward.String()}, {"postrouting", post.String()},
	} {
		fmt.Fprintf(&out, "\tchain %s {\n\t\ttype filter hook %s priority 0\n%s\t}\n", chain.name, chain.name, chain.rules)
	}
	out.WriteString("}\n")
	return out.String()
}

// longWay is the name of the switch's port for a machine whose frames take a longer
// way, through a line of this program.
func longWay(node string) string { return node + ".line" }

// ports are the switch's ports that may be a machine's.
func ports(node string) string { return fmt.Sprintf("{ %q, %q }", node, longWay(node)) }

// Link says in words how a node's link is.
func (s Status) Link(node string) string {
	var out []string
	both := func(a, b string) bool {
		return slices.Contains(s.Cuts, Cut{a, b}) && slices.Contains(s.Cuts, Cut{b, a})
	}
	for _, c := range s.Cuts {
		other := c.To
		if c.To == node {
			other = c.From
		}
		if other == "" {
			other = "all"
		}
		switch {
		case c.From != node && c.To != node:
		case both(c.From, c.To) && c.From == node:
			out = append(out, "cut from "+other)
		case both(c.From, c.To):
		case c.From == node:
			out = append(out, "sends nothing to "+other)
		default:
			out = append(out, "hears nothing of "+other)
		}
	}
	if len(out) == 0 {
		return "ok"
	}
	return strings.Join(out, ", ")
}
