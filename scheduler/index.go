package scheduler

import (
	"cmp"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/cluster"
)

// node is a node with what is reserved on it, kept current while tasks are placed.
type node struct {
	*cluster.Node
	index  int // in the order of names: the last tie-break
	cpu    int64
	memory int64
	tasks  int
	ports  map[port][]string // addresses of the host that are taken
}

type port struct {
	number   int
	protocol string
}

// use is a task of a service on a node, not ended.
type use struct {
	task cluster.TaskID
	node *node
	slot int
	runs bool // its desire is run: it stays
}

// service is what the planner knows of a service that has tasks to place.
type service struct {
	id    cluster.ServiceID
	spec  *cluster.ServiceSpec // nil: the service is gone
	uses  []use
	slots map[int][]int // indexes in uses
	// holders says, by slot, where the newest task that had a node was: its
	// volumes are there. Only for services with a local volume.
	holders map[int]holder
}

type holder struct {
	node cluster.NodeID
	n    int64
	task cluster.TaskID
}

// planner holds the snapshot, indexed, and collects the plan.
type planner struct {
	Snapshot
	nodes    []*node // by name
	byNode   map[cluster.NodeID]*node
	lost     map[cluster.NodeID]bool // gone, and its volumes are given up
	tasks    map[cluster.TaskID]*cluster.Task
	services map[cluster.ServiceID]*service // those with tasks to place
	pending  []*pending
	// volumes says which services keep a named volume on which nodes; filled when
	// a task to place mounts one.
	volumes map[string]map[cluster.ServiceID]map[cluster.NodeID]bool
	classes map[string]*class
	// declared are the networks that apps say are theirs; filled when a task to
	// place is on an external one.
	declared map[cluster.NetworkName]bool

	removes []Action
	desires []Action
	places  []Action
	refused []Unplaced
	groups  []*group // with refused tasks
	scratch scratch
}

// pending is a task that should run and has no placement.
type pending struct {
	*cluster.Task
	// seen are nodes that say it runs there, though it has no placement: an older store was
	// put back. It stays on one of them if that may have it. More is not believed, as any
	// node can say so.
	seen []cluster.NodeID
}

type onNode struct {
	node cluster.NodeID
	task cluster.TaskID
}

func index(s Snapshot) *planner {
	p := &planner{
		Snapshot: s,
		nodes:    make([]*node, len(s.Nodes)),
		byNode:   make(map[cluster.NodeID]*node, len(s.Nodes)),
		lost:     map[cluster.NodeID]bool{},
		tasks:    make(map[cluster.TaskID]*cluster.Task, len(s.Tasks)),
		services: map[cluster.ServiceID]*service{},
		classes:  map[string]*class{},
	}
	for i := range s.Nodes {
		p.nodes[i] = &node{Node: &s.Nodes[i]}
	}
	slices.SortFunc(p.nodes, func(a, b *node) int { return cmp.Compare(a.ID, b.ID) })
	for i, n := range p.nodes {
		n.index = i
		p.byNode[n.ID] = n
	}
	for i := range s.Tasks {
		p.tasks[s.Tasks[i].ID] = &s.Tasks[i]
	}
	for _, id := range s.Lost {
		if p.byNode[id] == nil {
			p.lost[id] = true
		}
	}
	p.collect()
	p.follow()
	p.locate()
	return p
}

// away reports whether a node is not part of the cluster, or does not answer.
func (p *planner) away(id cluster.NodeID) bool { return p.byNode[id] == nil || !p.byNode[id].Alive }

// collect finds the tasks to place, and their services.
func (p *planner) collect() {
	placed := make(map[cluster.TaskID]bool, len(p.Placements))
	for i := range p.Placements {
		placed[p.Placements[i].Task] = true
	}
	waiting := map[cluster.TaskID]*pending{}
	for i := range p.Tasks {
		t := &p.Tasks[i]
		if wanted(t) && !placed[t.ID] {
			waiting[t.ID] = &pending{Task: t}
		}
	}
	if len(waiting) == 0 {
		return
	}
	for i := range p.Statuses {
		st := &p.Statuses[i]
		if w := waiting[st.Task]; w != nil && !st.State.Terminal() {
			w.seen = append(w.seen, st.Node)
		}
	}
	for _, w := range waiting {
		p.pending = append(p.pending, w)
		if p.services[w.ServiceID] == nil {
			p.services[w.ServiceID] = &service{id: w.ServiceID}
		}
	}
	slices.SortFunc(p.pending, func(a, b *pending) int {
		return cmp.Or(
			a.Compare(b.ServiceID), strings.Compare(a.Version, b.Version),
			cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.N, b.N), cmp.Compare(a.ID, b.ID),
		)
	})
	for i := range p.Services {
		if s := p.services[p.Services[i].ServiceID]; s != nil {
			s.spec = &p.Services[i].Spec
		}
	}
}

// wanted reports whether the task should have a node.
func wanted(t *cluster.Task) bool { return t.Desire == cluster.DesireRun && t.Outcome == nil }

// follow compares placements with their tasks, and counts what they reserve.
//
// A placement stays until the task's outcome is on record: the agent forgets its
// status when the placement goes, and with it how the task ended and where its
// volumes are.
func (p *planner) follow() {
	ended := make(map[onNode]cluster.TaskState)
	for i := range p.Statuses {
		if st := &p.Statuses[i]; st.State.Terminal() {
			ended[onNode{st.Node, st.Task}] = st.State
		}
	}
	for i := range p.Placements {
		x := &p.Placements[i]
		t := p.tasks[x.Task]
		var rev cluster.StoreRev
		desire := cluster.DesireStop
		if t != nil {
			rev, desire = t.Rev, t.Desire
		}
		n := p.byNode[x.Node]
		state, over := ended[onNode{x.Node, x.Task}]
		switch {
		case t != nil && t.Outcome != nil:
			p.remove(x, rev, "the task ended: "+string(t.Outcome.State))
			over = true
		case over && t == nil:
			p.remove(x, rev, "the task ended: "+string(state))
		case n == nil && desire == cluster.DesireStop && (t == nil || p.lost[x.Node] || !x.Spec.HasLocalVolume()):
			p.remove(x, rev, "its node is gone")
		case rank(desire) > rank(x.Desire):
			next := *x
			next.Desire = desire
			p.desires = append(p.desires, SetDesire{Placement: next, TaskRev: rev})
		}
		if over || n == nil {
			continue
		}
		n.reserve(&x.Spec)
		if s := p.services[x.ServiceID]; s != nil {
			s.add(use{task: x.Task, node: n, slot: x.Slot, runs: desire == cluster.DesireRun})
		}
	}
}

func (p *planner) remove(x *cluster.NodePlacement, rev cluster.StoreRev, reason string) {
	p.removes = append(p.removes, Remove{Placement: *x, TaskRev: rev, Reason: reason})
}

// rank orders desires; an unknown one is the first.
func rank(d cluster.Desire) int {
	switch d {
	case cluster.DesireRun:
	case cluster.DesireDrain:
		return 1
	case cluster.DesireStop:
		return 2
	}
	return 0
}

// reserve counts a task on the node.
func (n *node) reserve(spec *cluster.TaskSpec) {
	n.cpu += spec.Resources.ReserveCPU
	n.memory += spec.Resources.ReserveMemory
	n.tasks++
	for _, x := range spec.NodePorts {
		if n.ports == nil {
			n.ports = map[port][]string{}
		}
		k := portOf(x)
		n.ports[k] = append(n.ports[k], x.HostIP)
	}
}

func portOf(x cluster.PublishedPort) port {
	return port{number: x.Published, protocol: cmp.Or(x.Protocol, "tcp")}
}

func (s *service) add(u use) {
	if s.slots == nil {
		s.slots = map[int][]int{}
	}
	s.slots[u.slot] = append(s.slots[u.slot], len(s.uses))
	s.uses = append(s.uses, u)
}

// locate finds the nodes that hold the volumes which tasks to place mount.
func (p *planner) locate() {
	for _, w := range p.pending {
		names := w.Spec.LocalVolumes()
		if s := p.services[w.ServiceID]; s.holders == nil && len(names) > 0 {
			s.holders = map[int]holder{}
		}
		for _, v := range names {
			if p.volumes == nil {
				p.volumes = map[string]map[cluster.ServiceID]map[cluster.NodeID]bool{}
			}
			if p.volumes[v] == nil {
				p.volumes[v] = map[cluster.ServiceID]map[cluster.NodeID]bool{}
			}
		}
	}
	if p.volumes == nil {
		return
	}
	placed := make(map[cluster.TaskID]cluster.NodeID, len(p.Placements))
	for i := range p.Placements {
		x := &p.Placements[i]
		placed[x.Task] = x.Node
		p.used(x.ServiceID, x.Slot, &x.Spec, holder{node: x.Node, task: x.Task})
	}
	for i := range p.Tasks {
		t := &p.Tasks[i]
		h := holder{node: placed[t.ID], n: t.N, task: t.ID}
		if h.node == "" && t.Outcome != nil {
			h.node = t.Outcome.Node
		}
		if h.node != "" {
			p.used(t.ServiceID, t.Slot, &t.Spec, h)
		}
	}
	for i := range p.Kept {
		p.recall(&p.Kept[i])
	}
}

// recall reads where the volumes of a service were as far as no task of it says so: those
// that are there are newer, and have the volumes that others share.
func (p *planner) recall(x *cluster.VolumePlaces) {
	unsaid := map[string]bool{}
	for _, place := range x.Slots {
		for _, v := range place.Volumes {
			unsaid[v] = len(p.volumes[v][x.ServiceID]) == 0
		}
	}
	for slot, place := range x.Slots {
		h := holder{node: place.Node, n: -1}
		p.had(x.ServiceID, slot, h)
		for _, v := range place.Volumes {
			if unsaid[v] {
				p.hold(x.ServiceID, []string{v}, h.node)
			}
		}
	}
}

// used notes where a task has, or had, its volumes.
func (p *planner) used(id cluster.ServiceID, slot int, spec *cluster.TaskSpec, h holder) {
	if volumes := spec.LocalVolumes(); len(volumes) > 0 {
		p.hold(id, volumes, h.node)
		p.had(id, slot, h)
	}
}

// hold notes that a service's volumes are on a node.
func (p *planner) hold(id cluster.ServiceID, volumes []string, at cluster.NodeID) {
	for _, v := range volumes {
		services := p.volumes[v]
		if services == nil {
			continue // no task to place mounts it
		}
		if services[id] == nil {
			services[id] = map[cluster.NodeID]bool{}
		}
		services[id][at] = true
	}
}

// had notes where a task of a slot had its volumes; the newest one decides.
func (p *planner) had(id cluster.ServiceID, slot int, h holder) {
	s := p.services[id]
	if s == nil || s.holders == nil {
		return
	}
	have, ok := s.holders[slot]
	if !ok || cmp.Or(cmp.Compare(h.n, have.n), cmp.Compare(h.task, have.task), cmp.Compare(have.node, h.node)) > 0 {
		s.holders[slot] = h
	}
}
