package scheduler

import (
	"cmp"
	"fmt"
	"strings"
)

const (
	// maxWhy bounds what a placement says of its choice, in bytes.
	maxWhy = 180
	// whyNodes is the largest cluster in which each task's choice is put in words:
	// for that all nodes are looked at once more.
	whyNodes = 64
)

// why says what decided for n, in whose counts the task is not yet. It is empty
// when there was no choice, or the cluster is too large to ask.
func (g *group) why(q *query, n *node) string {
	all := len(g.p.nodes)
	if all < 2 || all > whyNodes || q.Node != "" {
		return ""
	}
	checks := append(active(static(), q), g.checks...)
	refused := make([][]*node, len(checks))
	could := 0
	var second *node
	for _, x := range g.p.nodes {
		if i := refusing(checks, x); i >= 0 {
			refused[i] = append(refused[i], x)
			continue
		}
		could++
		if x != n && (second == nil || g.compare(x, second) < 0) {
			second = x
		}
	}
	out := fmt.Sprintf("the only one of %d nodes that could take it", all)
	if second != nil {
		out = fmt.Sprintf("the best of the %d nodes that could take it (%s)", could, g.decided(n, second))
	}
	for i, f := range checks {
		if len(refused[i]) == 0 {
			continue
		}
		phrase, details := f.explain(refused[i])
		if len(details) == len(refused[i]) {
			phrase = strings.Join(details, "; ")
		}
		out += "; " + phrase
	}
	if len(out) > maxWhy {
		out = strings.ToValidUTF8(out[:maxWhy-len("…")], "") + "…"
	}
	return out
}

// compare orders nodes for the task that is being placed, the best first.
func (g *group) compare(a, b *node) int {
	if len(g.place.spread) > 0 {
		if c := compareAll(g.path(a), g.path(b)); c != 0 {
			return c
		}
	}
	return cmp.Or(g.score(a).compare(g.score(b)), cmp.Compare(a.index, b.index))
}

// decided says by what n was better than the next best node.
func (g *group) decided(n, next *node) string {
	type term struct {
		what string
		a, b int64
		unit string
	}
	const percent = loadStep * 100 / whole // of a step
	x, y := g.score(n), g.score(next)
	terms := make([]term, 0, len(g.place.spread)+4)
	if len(g.place.spread) > 0 {
		a, b := g.path(n), g.path(next)
		for i, key := range g.place.spread {
			terms = append(terms, term{"fewest tasks of the service by " + key, a[i+1], b[i+1], ""})
		}
	}
	terms = append(terms, term{"fewest tasks of the service", x.same, y.same, ""})
	if r := g.spec.Resources; r.ReserveCPU > 0 || r.ReserveMemory > 0 {
		terms = append(terms,
			term{"most room: reserved with it", x.first * percent, y.first * percent, " %"},
			term{"most even: between its CPU and memory reserved", x.next / 10, y.next / 10, " %"})
	} else {
		terms = append(terms, term{"fewest tasks", x.first, y.first, ""}, term{"most room: reserved", x.next / 10, y.next / 10, " %"})
	}
	terms = append(terms, term{"fewest tasks", x.tasks, y.tasks, ""})
	for _, t := range terms {
		if t.a < t.b {
			return fmt.Sprintf("%s %d%s, on %s %d%s", t.what, t.a, t.unit, next.ID, t.b, t.unit)
		}
	}
	return fmt.Sprintf("%s is as good, the first name decides", next.ID)
}
