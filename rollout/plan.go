package rollout

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// Bounds that users do not set.
const (
	drainBound     = 10 * time.Second // how long a lagging node or gateway is waited for
	defaultMonitor = 5 * time.Second
	progressBound  = time.Minute      // on top of what the health check allows
	startBound     = 10 * time.Minute // until a container starts: images are pulled in it
	firstBackoff   = time.Second
	maxBackoff     = 30 * time.Second
	backoffReset   = 10 * time.Minute // a task that lived as long starts the back-off anew
	history        = 2                // ended tasks kept in each slot
	freeRestarts   = 2                // of a task whose service has nothing to go back to
)

// Plan returns what must change so that each service moves towards its desired
// state. Actions come in the order in which they are safe to apply: service by
// service, its record first.
func Plan(s Snapshot) []Action {
	p := plan(s)
	return p.out
}

// Wake says how long after s.Now the plan could differ without any change in
// the store; 0 is never.
func Wake(s Snapshot) time.Duration {
	p := plan(s)
	if p.wake.IsZero() {
		return 0
	}
	return p.wake.Sub(s.Now)
}

// planner holds the snapshot, indexed, and collects the plan.
type planner struct {
	Snapshot
	services  map[cluster.ServiceID]cluster.Service
	scales    map[cluster.ServiceID]int
	rollouts  map[cluster.ServiceID]cluster.Rollout
	endpoints map[cluster.ServiceID]cluster.Endpoints
	tasks     map[cluster.ServiceID][]*task // by slot, then newest first
	nodes     map[cluster.NodeID]cluster.Node
	agents    map[cluster.NodeID]cluster.StoreRev
	gateways  map[cluster.NodeID]cluster.StoreRev
	changes   map[cluster.AppName]cluster.ChangeRecord
	kept      map[cluster.ServiceID]cluster.VolumePlaces

	out  []Action
	wake time.Time
}

// task is a task with what is observed of it. Its cluster.Task is a copy that
// the plan moves on.
type task struct {
	cluster.Task
	status cluster.Status // zero: none
	node   cluster.NodeID // where it is placed; "" is nowhere
	alive  bool           // its node is
	traces bool           // it has a placement, or a status of a node that may come back soon
	moved  bool           // this plan has changed it
}

// ready reports whether the task serves: its node vouches for it now.
func (t *task) ready() bool {
	return t.alive && t.status.State == cluster.StateRunning && t.status.Ready
}

// at names the node of a task in messages.
func (t *task) at() string {
	if t.node == "" {
		return ""
	}
	return " on " + string(t.node)
}

func plan(s Snapshot) *planner {
	p := index(s)
	ids := map[cluster.ServiceID]bool{}
	for id := range p.services {
		ids[id] = true
	}
	for id := range p.tasks {
		ids[id] = true
	}
	for id := range p.rollouts {
		ids[id] = true
	}
	for _, id := range slices.SortedFunc(maps.Keys(ids), cluster.ServiceID.Compare) {
		if svc, ok := p.services[id]; ok {
			p.plan(svc)
		} else {
			p.removed(id)
		}
	}
	p.releases()
	return p
}

func index(s Snapshot) *planner {
	p := &planner{
		Snapshot: s,
		services: make(map[cluster.ServiceID]cluster.Service, len(s.Services)),
		scales:   make(map[cluster.ServiceID]int, len(s.Scales)),
		rollouts: make(map[cluster.ServiceID]cluster.Rollout, len(s.Rollouts)),

		endpoints: make(map[cluster.ServiceID]cluster.Endpoints, len(s.Endpoints)),
		tasks:     make(map[cluster.ServiceID][]*task, len(s.Services)),
		nodes:     make(map[cluster.NodeID]cluster.Node, len(s.Nodes)),
		agents:    make(map[cluster.NodeID]cluster.StoreRev, len(s.AgentAcks)),
		gateways:  make(map[cluster.NodeID]cluster.StoreRev, len(s.GatewayAcks)),
		changes:   make(map[cluster.AppName]cluster.ChangeRecord, len(s.Changes)),
		kept:      make(map[cluster.ServiceID]cluster.VolumePlaces, len(s.Kept)),
	}
	for _, x := range s.Kept {
		p.kept[x.ServiceID] = x
	}
	for _, x := range s.Changes {
		p.changes[x.App] = x
	}
	for _, x := range s.Services {
		p.services[x.ServiceID] = x
	}
	for _, x := range s.Scales {
		p.scales[x.ServiceID] = x.Replicas
	}
	for _, x := range s.Rollouts {
		p.rollouts[x.ServiceID] = x
	}
	for _, x := range s.Endpoints {
		p.endpoints[x.ServiceID] = x
	}
	for _, x := range s.Nodes {
		p.nodes[x.ID] = x
	}
	for _, x := range s.AgentAcks {
		p.agents[x.Node] = x.Endpoint
	}
	for _, x := range s.GatewayAcks {
		p.gateways[x.Node] = x.Route
	}
	p.indexTasks()
	return p
}

func (p *planner) indexTasks() {
	placed := make(map[cluster.TaskID]cluster.NodeID, len(p.Placements))
	for i := range p.Placements {
		x := &p.Placements[i] // its specification is large
		if n, ok := placed[x.Task]; !ok || x.Node < n {
			placed[x.Task] = x.Node
		}
	}
	// The node that a task is placed on speaks for it, and the one that it ended on, for as
	// long as something of it is there. Of one that has no place yet no node can know.
	speaks := maps.Clone(placed)
	for i := range p.Tasks {
		t := &p.Tasks[i]
		if _, isPlaced := placed[t.ID]; !isPlaced && t.Outcome != nil && t.Outcome.Node != "" {
			speaks[t.ID] = t.Outcome.Node
		}
	}
	statuses := make(map[cluster.TaskID]*cluster.Status, len(p.Statuses))
	for i := range p.Statuses {
		x := &p.Statuses[i]
		if n, ok := speaks[x.Task]; ok && n == x.Node {
			statuses[x.Task] = x
		}
	}
	for i := range p.Tasks {
		if p.Tasks[i].Hook != "" {
			continue // those have a loop of their own
		}
		t := &task{Task: p.Tasks[i]}
		node, isPlaced := placed[t.ID]
		st, seen := statuses[t.ID]
		if seen {
			t.status = st.Brief()
		}
		t.node = node
		if !isPlaced {
			t.node = t.status.Node
		}
		t.alive = t.node != "" && p.nodes[t.node].Alive
		t.traces = isPlaced || (seen && !p.lost(t)) // a lost node's agent cannot take its status back
		p.tasks[t.ServiceID] = append(p.tasks[t.ServiceID], t)
	}
	for _, ts := range p.tasks {
		slices.SortFunc(ts, func(a, b *task) int {
			return cmp.Or(cmp.Compare(a.Slot, b.Slot), cmp.Compare(b.N, a.N), cmp.Compare(a.ID, b.ID))
		})
	}
}

// at notes that the plan may differ at t.
func (p *planner) at(t time.Time) {
	if t.After(p.Now) && (p.wake.IsZero() || t.Before(p.wake)) {
		p.wake = t
	}
}

// passed reports whether d has gone by since t, and else asks to be woken then.
func (p *planner) passed(t time.Time, d time.Duration) bool {
	end := t.Add(d)
	p.at(end)
	return !end.After(p.Now)
}

func (p *planner) emit(a Action) { p.out = append(p.out, a) }

// removed stops what is left of a service that is gone, then forgets it. Its
// routes and endpoints go at the same time, ahead of the containers.
func (p *planner) removed(id cluster.ServiceID) {
	ended, from := 0, len(p.out)
	for _, t := range p.tasks[id] {
		p.observeEnd(t, true)
		switch {
		case t.Outcome == nil:
			p.stop(t, "the service was removed")
		case !t.traces && !t.moved:
			p.emit(Delete{t.Task})
			ended++
		}
	}
	p.keepPlaces(id, from)
	if r, ok := p.rollouts[id]; ok && ended == len(p.tasks[id]) {
		p.emit(Forget{r})
	}
}

// observeEnd records the end of a task that has ended, or whose node is lost.
// With gone, the service does not want it any more.
func (p *planner) observeEnd(t *task, gone bool) {
	if t.Outcome != nil {
		return
	}
	st := t.status
	switch {
	case st.State.Terminal():
		o := cluster.Outcome{State: st.State, ExitCode: st.ExitCode, Reason: st.Reason, Node: st.Node, At: p.Now, Restarts: st.Restarts}
		if st.State == cluster.StateFailed || st.State == cluster.StateComplete {
			o.LogTail = st.LogTail
		}
		p.record(t, o)
	case t.Desire == cluster.DesireStop && !t.traces:
		// The scheduler compares the task's revision when it places it: once it is
		// to stop it cannot be placed any more.
		p.record(t, cluster.Outcome{State: cluster.StateStopped, Reason: "stopped before it ran", At: p.Now})
	case p.lost(t) && (gone || !t.Spec.HasLocalVolume() || slices.Contains(p.Lost, t.node)):
		p.record(t, cluster.Outcome{
			State: cluster.StateLost, Reason: "node " + string(t.node) + " is gone", Node: t.node, At: p.Now,
		})
	}
}

func (p *planner) record(t *task, o cluster.Outcome) {
	if t.Desire != cluster.DesireStop {
		t.Desire, t.Since = cluster.DesireStop, p.Now
	}
	t.Outcome, t.moved = &o, true
	p.emit(Record{t.Task})
}

// lost reports whether the task's node has been gone for longer than is waited for.
func (p *planner) lost(t *task) bool {
	if p.LostAfter <= 0 || t.node == "" || t.alive {
		return false
	}
	n, known := p.nodes[t.node]
	return !known || p.passed(n.Since, p.LostAfter)
}

func (p *planner) stop(t *task, reason string) {
	if t.Desire == cluster.DesireStop {
		return
	}
	if t.Desire == cluster.DesireRun {
		t.Reason = reason
	}
	t.Desire, t.Since, t.moved = cluster.DesireStop, p.Now, true
	p.emit(Stop{t.Task})
}
