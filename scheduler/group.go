package scheduler

import (
	"cmp"
	"container/heap"
	"strings"

	"github.com/fairlead/fairlead/cluster"
)

// class is the nodes that the static filters let through; tasks with the same
// constraints share it.
type class struct{ nodes []*node }

// group is the tasks to place of one service in one version: what they need is
// the same, so the nodes are looked through once for all of them.
type group struct {
	p     *planner
	svc   *service
	spec  *cluster.TaskSpec
	place placement
	// run and all count, by node, the service's tasks there, without those in the
	// slot that is being placed: run those that stay, all those not ended.
	run, all []int32
	checks   []named // the dynamic filters that have a say
	volumes  []string
	leaves   []*branch // by node; nil: not in the class
	root     *branch
	class    *class
	flat     bool // there is one task and no spread: no heap is made
	refused  []*pending
}

// score ranks nodes for a task: the least is the best.
type score struct {
	same  int64 // tasks of the service
	first int64 // for tasks that reserve something: share reserved with it; else tasks
	next  int64 // how unevenly its CPU and memory would be filled; else share
	tasks int64
}

func (a score) compare(b score) int {
	return cmp.Or(
		cmp.Compare(a.same, b.same), cmp.Compare(a.first, b.first),
		cmp.Compare(a.next, b.next), cmp.Compare(a.tasks, b.tasks),
	)
}

const (
	whole    = 1000 // shares are in thousandths
	loadStep = 50   // loads that differ by less are equal, so that the fit decides
)

func share(used, of int64) int64 {
	if used <= 0 {
		return 0
	}
	if of <= 0 {
		return whole
	}
	return int64(float64(used) / float64(of) * whole)
}

// score is read again for each comparison that matters: placing changes it.
func (g *group) score(n *node) score {
	r := g.spec.Resources
	cpu, memory := share(n.cpu+r.ReserveCPU, n.Info.CPU), share(n.memory+r.ReserveMemory, n.Info.Memory)
	s := score{same: int64(g.run[n.index]), tasks: int64(n.tasks)}
	if r.ReserveCPU > 0 || r.ReserveMemory > 0 {
		s.first, s.next = max(cpu, memory)/loadStep, max(cpu, memory)-min(cpu, memory)
	} else {
		s.first, s.next = s.tasks, max(cpu, memory)
	}
	return s
}

// branch is a part of the nodes: those with one value of a spread preference,
// or, at the ends of the tree, the nodes themselves in a heap.
//
// Entries of a heap may be out of date. A node's score gets better in one case
// only, adjust with less, which puts a second entry in; all others are put right
// when they come to the top.
type branch struct {
	parent *branch
	same   int64 // the service's tasks in it that stay
	kids   []*branch
	byName map[string]*branch
	heap   entries

	known bool // best is up to date
	best  *entry
}

type entry struct {
	score
	node *node
}

func (a *entry) compare(b *entry) int {
	return cmp.Or(a.score.compare(b.score), cmp.Compare(a.node.index, b.node.index))
}

type entries []*entry

func (e entries) Len() int           { return len(e) }
func (e entries) Less(i, j int) bool { return e[i].compare(e[j]) < 0 }
func (e entries) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *entries) Push(x any) {
	if v, ok := x.(*entry); ok {
		*e = append(*e, v)
	}
}

func (e *entries) Pop() any {
	old := *e
	last := old[len(old)-1]
	*e = old[:len(old)-1]
	return last
}

// scratch is memory that groups use one after the other.
type scratch struct {
	run, all []int32
	leaves   []*branch
	entries  []entry
	heap     entries
}

func newScratch(nodes int) scratch {
	return scratch{
		run: make([]int32, nodes), all: make([]int32, nodes), leaves: make([]*branch, nodes), entries: make([]entry, nodes),
		heap: make(entries, 0, nodes),
	}
}

// grow builds the tree of the class's nodes over the spread preferences. With
// flat the nodes are only noted as members: scan looks through them.
func (g *group) grow(c *class, flat bool) {
	g.root = &branch{heap: g.p.scratch.heap[:0]}
	g.leaves, g.class, g.flat = g.p.scratch.leaves, c, flat
	clear(g.leaves)
	for i, n := range c.nodes {
		b := g.root
		b.same += int64(g.run[n.index])
		for _, key := range g.place.spread {
			b = b.kid(n.Attribute(key))
			b.same += int64(g.run[n.index])
		}
		g.leaves[n.index] = b
		if !flat {
			e := &g.p.scratch.entries[i]
			*e = entry{g.score(n), n}
			b.heap = append(b.heap, e)
		}
	}
	g.root.order()
}

// scan returns the best node that no filter refuses, or nil: for one task it
// costs less than a heap.
func (g *group) scan() *node {
	var best entry
	for _, n := range g.class.nodes {
		e := entry{g.score(n), n}
		if (best.node == nil || e.compare(&best) < 0) && g.allows(n) {
			best = e
		}
	}
	return best.node
}

func (b *branch) kid(value string) *branch {
	if k := b.byName[value]; k != nil {
		return k
	}
	if b.byName == nil {
		b.byName = map[string]*branch{}
	}
	k := &branch{parent: b}
	b.byName[value] = k
	b.kids = append(b.kids, k)
	return k
}

func (b *branch) order() {
	heap.Init(&b.heap)
	for _, k := range b.kids {
		k.order()
	}
}

// pick returns the best node of the branch that no filter refuses, or nil.
func (g *group) pick(b *branch) *entry {
	if b.known {
		return b.best
	}
	b.known, b.best = true, nil
	if len(b.kids) > 0 {
		var from *branch
		for _, k := range b.kids {
			e := g.pick(k)
			if e == nil {
				continue
			}
			if from == nil || cmp.Or(cmp.Compare(k.same, from.same), e.compare(b.best)) < 0 {
				from, b.best = k, e
			}
		}
		return b.best
	}
	for len(b.heap) > 0 {
		top := b.heap[0]
		if !g.allows(top.node) {
			heap.Pop(&b.heap)
			continue
		}
		if now := g.score(top.node); now != top.score {
			top.score = now
			heap.Fix(&b.heap, 0)
			continue
		}
		b.best = top
		break
	}
	return b.best
}

// allows asks the dynamic filters.
func (g *group) allows(n *node) bool {
	for _, f := range g.checks {
		if !f.check(n) {
			return false
		}
	}
	return true
}

// adjust takes a task out of the counts (d -1) or puts it back (d +1).
func (g *group) adjust(u use, d int32) {
	i := u.node.index
	g.all[i] += d
	if u.runs {
		g.run[i] += d
	}
	leaf := g.leaves[i]
	if leaf == nil {
		return
	}
	for b := leaf; b != nil; b = b.parent {
		if u.runs {
			b.same += int64(d)
		}
		b.known = false
	}
	if d < 0 && !g.flat {
		heap.Push(&leaf.heap, &entry{g.score(u.node), u.node})
	}
}

// among returns the best of a few nodes that no filter refuses, or nil.
func (g *group) among(ids func(func(cluster.NodeID) bool)) *node {
	var best *node
	var bestSame []int64
	for id := range ids {
		n := g.p.byNode[id]
		if n == nil || g.leaves[n.index] == nil || !g.allows(n) {
			continue
		}
		same := g.path(n)
		if best == nil || cmp.Or(compareAll(same, bestSame), g.score(n).compare(g.score(best)), cmp.Compare(n.index, best.index)) < 0 {
			best, bestSame = n, same
		}
	}
	return best
}

// path returns the counts of the branches that n is in, the widest first.
func (g *group) path(n *node) []int64 {
	out := make([]int64, len(g.place.spread)+1)
	b := g.leaves[n.index]
	for i := len(out) - 1; i >= 0 && b != nil; i-- {
		out[i], b = b.same, b.parent
	}
	return out
}

func compareAll(a, b []int64) int {
	for i := range a {
		if c := cmp.Compare(a[i], b[i]); c != 0 {
			return c
		}
	}
	return 0
}

// key names the class of the tasks in q.
func (q *query) key() string {
	var b strings.Builder
	b.WriteString(q.Spec.Platform)
	for _, c := range q.place.constraints {
		b.WriteByte(0)
		b.WriteString(c.Text)
	}
	return b.String()
}
