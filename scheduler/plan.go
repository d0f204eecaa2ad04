package scheduler

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/cluster"
)

// Plan returns what must change: placements that ended first (they make room),
// then desires, placements, the reasons of tasks without a node, and notes that
// no longer hold.
func Plan(s Snapshot) []Action {
	p := index(s)
	p.scratch = newScratch(len(p.nodes))
	filters := dynamic()
	for from := 0; from < len(p.pending); {
		to := from + 1
		for to < len(p.pending) && p.pending[to].ServiceID == p.pending[from].ServiceID && p.pending[to].Version == p.pending[from].Version {
			to++
		}
		p.group(p.pending[from:to], filters)
		from = to
	}
	for _, g := range p.groups {
		g.tell()
	}
	out := make([]Action, 0, len(p.removes)+len(p.desires)+len(p.places)+len(p.refused))
	out = append(out, sorted(p.removes)...)
	out = append(out, sorted(p.desires)...)
	out = append(out, p.places...)
	return append(out, p.notes()...)
}

// sorted orders removals and desires by node and task.
func sorted(acts []Action) []Action {
	of := func(a Action) *cluster.NodePlacement {
		switch a := a.(type) {
		case Remove:
			return &a.Placement
		case SetDesire:
			return &a.Placement
		case Place:
			return &a.Placement
		case Unplaced, Forget:
		}
		return &cluster.NodePlacement{}
	}
	slices.SortFunc(acts, func(a, b Action) int {
		x, y := of(a), of(b)
		return cmp.Or(cmp.Compare(x.Node, y.Node), cmp.Compare(x.Task, y.Task))
	})
	return acts
}

// group places tasks of one service in one version.
func (p *planner) group(tasks []*pending, filters []named) {
	svc := p.services[tasks[0].ServiceID]
	if svc.spec == nil {
		p.refuseAll(tasks, "its service is gone")
		return
	}
	parsed, err := parsePlacement(svc.spec.Placement)
	if err != nil {
		p.refuseAll(tasks, err.Error())
		return
	}
	spec := &tasks[0].Spec
	g := &group{p: p, svc: svc, spec: spec, place: parsed, volumes: spec.LocalVolumes()}
	g.count()
	g.grow(p.class(&query{pending: tasks[0], group: g, place: parsed}), len(tasks) == 1 && len(parsed.spread) == 0)
	for _, w := range tasks {
		g.task(w, filters)
	}
	if len(g.refused) > 0 {
		p.groups = append(p.groups, g)
	}
}

// count counts the service's tasks by node.
func (g *group) count() {
	g.run, g.all = g.p.scratch.run, g.p.scratch.all
	clear(g.run)
	clear(g.all)
	for _, u := range g.svc.uses {
		g.all[u.node.index]++
		if u.runs {
			g.run[u.node.index]++
		}
	}
}

func (p *planner) refuseAll(tasks []*pending, reason string) {
	for _, w := range tasks {
		p.refuse(w, &refusal{reason: reason})
	}
}

func (p *planner) refuse(w *pending, why *refusal) {
	p.refused = append(p.refused, Unplaced{
		Task: w.ID, Service: w.ServiceID, Slot: w.Slot, TaskRev: w.Rev, Reason: why.reason, Refusals: why.refusals,
	})
}

// class returns the nodes that the static filters let through.
func (p *planner) class(q *query) *class {
	key := q.key()
	if c := p.classes[key]; c != nil {
		return c
	}
	c := &class{}
	checks := active(static(), q)
	for _, n := range p.nodes {
		if refusing(checks, n) < 0 {
			c.nodes = append(c.nodes, n)
		}
	}
	p.classes[key] = c
	return c
}

// active prepares filters for q and returns those that have a say.
func active(filters []named, q *query) []named {
	out := make([]named, 0, len(filters))
	for _, f := range filters {
		if f.set(q) {
			out = append(out, f)
		}
	}
	return out
}

// refusing returns the index of the first filter that refuses n, or -1.
func refusing(checks []named, n *node) int {
	return slices.IndexFunc(checks, func(f named) bool { return !f.check(n) })
}

// query makes the question that filters answer about a task.
func (g *group) query(w *pending) *query {
	q := &query{pending: w, group: g, place: g.place, away: g.p.away}
	if w.Node == "" { // a global service's volumes are those of its nodes
		q.holders = g.holders(w.Slot)
	}
	return q
}

// task places one task, or notes that no node takes it.
func (g *group) task(w *pending, filters []named) {
	q := g.query(w)
	g.checks = active(filters, q)
	others := g.svc.slots[w.Slot]
	for _, i := range others {
		g.adjust(g.svc.uses[i], -1)
	}
	var n *node
	why := ""
	if q.Node == "" {
		n = g.among(slices.Values(w.seen))
	}
	switch {
	case n != nil:
		why = "its node says that it runs there"
	case q.Node != "":
		n = g.among(func(yield func(cluster.NodeID) bool) { yield(q.Node) })
	case q.holders != nil:
		n = g.among(maps.Keys(q.holders))
	case g.flat:
		n = g.scan()
	default:
		if e := g.pick(g.root); e != nil {
			n = e.node
		}
	}
	if n != nil && why == "" {
		why = g.why(q, n)
	}
	for _, i := range others {
		g.adjust(g.svc.uses[i], +1)
	}
	if n == nil {
		g.refused = append(g.refused, w)
		return
	}
	g.put(w, n, why)
}

// tell explains the group's refusals by what stands once all is placed: a reason
// from the middle of a plan would change with the next one.
func (g *group) tell() {
	g.count()
	var usual *refusal // of the tasks that any node would do for
	for _, w := range g.refused {
		q := g.query(w)
		others := g.svc.slots[w.Slot]
		special := q.Node != "" || q.holders != nil || len(others) > 0
		if !special && usual != nil {
			g.p.refuse(w, usual)
			continue
		}
		for _, i := range others {
			g.all[g.svc.uses[i].node.index]--
		}
		why := g.p.explain(q)
		for _, i := range others {
			g.all[g.svc.uses[i].node.index]++
		}
		if !special {
			usual = why
		}
		g.p.refuse(w, why)
	}
}

// put places a task on n.
func (g *group) put(w *pending, n *node, why string) {
	n.reserve(&w.Spec)
	u := use{task: w.ID, node: n, slot: w.Slot, runs: true}
	g.svc.add(u)
	g.adjust(u, +1)
	if len(g.volumes) > 0 {
		g.p.used(w.ServiceID, w.Slot, &w.Spec, holder{node: n.ID, n: w.N, task: w.ID})
	}
	g.p.places = append(g.p.places, Place{
		Placement: cluster.NodePlacement{
			Task: w.ID, Node: n.ID, ServiceID: w.ServiceID, Slot: w.Slot, Version: w.Version, Release: w.Release,
			Spec: w.Spec, Restart: g.svc.spec.Restart, Desire: w.Desire, Foreign: g.p.foreign(&w.Spec), Why: why,
		},
		TaskRev: w.Rev, NodeRev: n.Rev,
	})
}

// foreign returns the external networks of a task that no app has declared.
func (p *planner) foreign(spec *cluster.TaskSpec) []cluster.NetworkName {
	var out []cluster.NetworkName
	for _, n := range spec.Networks {
		if n.External && !p.declares(n.Name) {
			out = append(out, n.Name)
		}
	}
	return out
}

func (p *planner) declares(name cluster.NetworkName) bool {
	if p.declared == nil {
		p.declared = map[cluster.NetworkName]bool{}
		for i := range p.Services {
			for _, n := range p.Services[i].Spec.Task.Networks {
				p.declared[n.Name] = p.declared[n.Name] || !n.External
			}
		}
	}
	return p.declared[name]
}

// holders returns the only nodes that have the volumes of a slot: where its last
// task was, or else where other services keep volumes that it shares with them.
// nil is any node.
func (g *group) holders(slot int) map[cluster.NodeID]bool {
	if len(g.volumes) == 0 {
		return nil
	}
	if h, ok := g.svc.holders[slot]; ok && !g.p.lost[h.node] {
		return map[cluster.NodeID]bool{h.node: true}
	}
	var out map[cluster.NodeID]bool
	for _, v := range g.volumes {
		at := map[cluster.NodeID]bool{}
		for id, nodes := range g.p.volumes[v] {
			for n := range nodes {
				if id != g.svc.id && !g.p.lost[n] {
					at[n] = true
				}
			}
		}
		switch {
		case len(at) == 0:
		case out == nil:
			out = at
		default:
			maps.DeleteFunc(out, func(n cluster.NodeID, _ bool) bool { return !at[n] })
		}
	}
	return out
}

// refusal is why a task has no node.
type refusal struct {
	reason   string
	refusals []cluster.Refusal
}

// explain asks every node for the first filter that refuses it.
func (p *planner) explain(q *query) *refusal {
	candidates := p.nodes
	if q.Node != "" {
		n := p.byNode[q.Node]
		if n == nil {
			return &refusal{reason: "no suitable node (node " + string(q.Node) + " is not part of the cluster)"}
		}
		candidates = []*node{n}
	}
	if len(candidates) == 0 {
		return &refusal{reason: "no suitable node (the cluster has none)"}
	}
	checks := append(active(static(), q), active(dynamic(), q)...)
	refused := make([][]*node, len(checks))
	for _, n := range candidates {
		if i := refusing(checks, n); i >= 0 {
			refused[i] = append(refused[i], n)
		}
	}
	var phrases []string
	out := &refusal{}
	for i, f := range checks {
		if len(refused[i]) == 0 {
			continue
		}
		phrase, details := f.explain(refused[i])
		if len(refused[i]) == 1 && len(details) == 1 && f.name != "ready" {
			phrase += ", " + details[0]
		}
		phrases = append(phrases, phrase)
		out.refusals = append(out.refusals, cluster.Refusal{Filter: f.name, Nodes: len(refused[i]), Examples: details})
	}
	out.reason = "no suitable node (" + strings.Join(phrases, "; ") + ")"
	return out
}

// number returns the number of the i-th refused task.
func (p *planner) number(i int) int64 { return p.tasks[p.refused[i].Task].N }

// notes compares the reasons with those that are stored. A slot has one note: of
// two tasks in it, the newer one is told of.
func (p *planner) notes() []Action {
	stored := make(map[string]Note, len(p.Notes))
	for _, n := range p.Notes {
		stored[n.Object] = n
	}
	newest := map[string]int{}
	for i := range p.refused {
		object := Object(p.refused[i].Service, p.refused[i].Slot)
		have, ok := newest[object]
		if !ok || p.number(i) > p.number(have) {
			newest[object] = i
		}
	}
	out := make([]Action, 0, len(p.refused))
	for i, u := range p.refused {
		object := Object(u.Service, u.Slot)
		n := stored[object]
		u.NoteRev = n.Rev
		u.Noted = newest[object] != i || (n.Rev != 0 && n.Task == u.Task && n.Reason == u.Reason)
		out = append(out, u)
	}
	objects := slices.SortedFunc(slices.Values(p.Notes), func(a, b Note) int { return cmp.Compare(a.Object, b.Object) })
	for _, n := range objects {
		if _, still := newest[n.Object]; !still {
			out = append(out, Forget{n})
		}
	}
	return out
}
