package api

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/api/plan"
	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// model is what the API shows, read from the mirror at one revision.
type model struct {
	rev        int64
	apps       map[cluster.AppName]cluster.App
	releases   map[cluster.AppName]cluster.Release // the current ones
	services   []cluster.Service                   // sorted
	byID       map[cluster.ServiceID]cluster.Service
	scales     map[cluster.ServiceID]cluster.Scale
	rollouts   map[cluster.ServiceID]cluster.Rollout
	endpoints  map[cluster.ServiceID]cluster.Endpoints
	tasks      []cluster.Task // sorted by service, slot, creation
	ofService  map[cluster.ServiceID][]cluster.Task
	placements map[cluster.TaskID]cluster.NodePlacement
	statuses   map[cluster.TaskID]cluster.Status
	nodes      map[cluster.NodeID]cluster.Node
	gateways   map[cluster.NodeID]cluster.GatewayAck
	decisions  map[string][]cluster.Decision // by object
	last       int                           // the newest release of the one app
	changes    map[cluster.AppName]cluster.PendingChange
	records    map[cluster.AppName]cluster.ChangeRecord
	entry      plan.EntryPoints
	following  map[cluster.AppName]v1.AppDelivery // of readFollowing
}

// segment is the n-th part of a key below store.Root.
func segment(key string, n int) string {
	parts := strings.Split(strings.TrimPrefix(key, store.Root), "/")
	if n < len(parts) {
		return parts[n]
	}
	return ""
}

// read makes a model of one app, or of all with an empty name.
func (s *Server) read(app cluster.AppName) *model {
	m := &model{
		apps: map[cluster.AppName]cluster.App{}, releases: map[cluster.AppName]cluster.Release{},
		byID: map[cluster.ServiceID]cluster.Service{}, scales: map[cluster.ServiceID]cluster.Scale{},
		rollouts: map[cluster.ServiceID]cluster.Rollout{}, endpoints: map[cluster.ServiceID]cluster.Endpoints{},
		placements: map[cluster.TaskID]cluster.NodePlacement{}, statuses: map[cluster.TaskID]cluster.Status{},
		ofService: map[cluster.ServiceID][]cluster.Task{}, changes: map[cluster.AppName]cluster.PendingChange{}, records: map[cluster.AppName]cluster.ChangeRecord{},
		nodes: map[cluster.NodeID]cluster.Node{}, gateways: map[cluster.NodeID]cluster.GatewayAck{}, decisions: map[string][]cluster.Decision{}, entry: s.Entry,
	}
	s.Mirror.Read(func(v store.View) { m.fill(v, app) })
	slices.SortFunc(m.tasks, func(a, b cluster.Task) int {
		return cmp.Or(a.Compare(b.ServiceID), cmp.Compare(a.Slot, b.Slot), a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	for _, t := range m.tasks {
		m.ofService[t.ServiceID] = append(m.ofService[t.ServiceID], t)
	}
	return m
}

func (m *model) fill(v store.View, app cluster.AppName) {
	m.rev = v.Rev()
	below := func(prefix string) string {
		if app == "" {
			return prefix
		}
		return prefix + string(app) + "/"
	}
	ofApp := func(key string) bool { // keys that end in a task's name
		return app == "" || strings.HasPrefix(key[strings.LastIndex(key, "/")+1:], string(app)+"_")
	}
	part := func(n int, want string) func(string) bool {
		return func(k string) bool { return segment(k, n) == want }
	}
	for _, e := range store.All[cluster.App](v, below(store.PrefixApps), part(2, "app")) {
		a := e.V
		a.Created = cluster.StoreRev(e.Created)
		m.apps[a.Name] = a
		if r, ok, err := store.One[cluster.Release](v, store.ReleaseKey(e.V.Name, e.V.Release)); ok && err == nil {
			m.releases[e.V.Name] = r.V
		}
	}
	for _, e := range store.All[cluster.Service](v, below(store.PrefixApps), part(2, "services")) {
		svc := e.V
		svc.Rev, svc.Created = cluster.StoreRev(e.Rev), cluster.StoreRev(e.Created)
		m.services = append(m.services, svc)
		m.byID[svc.ServiceID] = svc
	}
	for _, e := range store.All[cluster.Scale](v, below(store.PrefixApps), part(2, "scale")) {
		sc := e.V
		sc.Rev = cluster.StoreRev(e.Rev)
		m.scales[sc.ServiceID] = sc
	}
	for _, e := range store.All[cluster.Rollout](v, below(store.PrefixRollouts), nil) {
		m.rollouts[e.V.ServiceID] = e.V
	}
	for _, e := range store.All[cluster.Endpoints](v, below(store.PrefixEndpoints), nil) {
		ep := e.V
		ep.Rev = cluster.StoreRev(e.Rev)
		m.endpoints[ep.ServiceID] = ep
	}
	for _, e := range store.All[cluster.Task](v, below(store.PrefixTasks), nil) {
		m.tasks = append(m.tasks, e.V)
	}
	for _, e := range store.All[cluster.NodePlacement](v, store.PrefixPlacements, ofApp) {
		m.placements[e.V.Task] = e.V
	}
	m.hear(v, ofApp)
	if app != "" {
		m.last = store.LastRelease(v, app)
	}
	whole := func(prefix string) string { return prefix + string(app) }
	for _, e := range store.All[cluster.PendingChange](v, whole(store.PrefixChanges), nil) {
		m.changes[e.V.App] = e.V
	}
	for _, e := range store.All[cluster.ChangeRecord](v, whole(store.PrefixHooks), nil) {
		m.records[e.V.App] = e.V
	}
	for _, n := range store.Nodes(v) {
		m.nodes[n.ID] = n
	}
	for _, g := range store.GatewayAcks(v) {
		m.gateways[g.Node] = g
	}
	for _, e := range store.All[cluster.Decision](v, store.PrefixDecisions, func(k string) bool {
		return app == "" || segment(k, 2) == string(app)
	}) {
		m.decisions[e.V.Object] = append(m.decisions[e.V.Object], e.V)
	}
}

// hear reads the statuses. The node that a task is placed on speaks for it, or the one that
// it ended on, and no other: commands go where a status says that the task is.
func (m *model) hear(v store.View, ofApp func(key string) bool) {
	speaks := make(map[cluster.TaskID]cluster.NodeID, len(m.tasks))
	for _, t := range m.tasks {
		if p, placed := m.placements[t.ID]; placed {
			speaks[t.ID] = p.Node
		} else if t.Outcome != nil {
			speaks[t.ID] = t.Outcome.Node
		}
	}
	for _, e := range store.All[cluster.Status](v, store.PrefixStatus, ofApp) {
		if n := speaks[e.V.Task]; n != "" && n == e.V.Node && segment(e.Key, 1) == string(n) {
			m.statuses[e.V.Task] = e.V
		}
	}
}

// States of a task before its agent knows of it, and of a service before its rollout.
const (
	stateUnplaced = "unplaced"
	statePending  = "pending"
	stateUnknown  = "unknown" // its node does not answer
)

func slotAddress(t cluster.Task) string {
	return cluster.Address{App: t.App, Service: t.Name, Slot: t.Slot}.String()
}

// task puts together what is known of a task from four writers.
func (m *model) task(t cluster.Task) v1.TaskStatus {
	out := v1.TaskStatus{
		ID: t.ID, Address: slotAddress(t), ServiceID: t.ServiceID, Slot: t.Slot, Hook: t.Hook, State: statePending, Desire: t.Desire,
		Node: t.Node, Image: t.Spec.Image, Version: t.Version, Release: t.Release, Created: t.Created,
	}
	if svc, ok := m.byID[t.ServiceID]; ok {
		out.Current = svc.Version == t.Version
	}
	p, placed := m.placements[t.ID]
	st, seen := m.statuses[t.ID]
	switch {
	case t.Outcome != nil:
		o := t.Outcome
		out.State, out.ExitCode, out.Reason, out.LogTail, out.Node = string(o.State), o.ExitCode, o.Reason, o.LogTail, o.Node
		out.Restarts = o.Restarts
		switch {
		case out.Reason != "" || o.State == cluster.StateComplete:
		case o.State == cluster.StateFailed:
			out.Reason = fmt.Sprintf("exited with code %d", o.ExitCode)
		default:
			out.Reason = t.Reason // that it was told to stop
		}
		return out
	case seen:
		out.State, out.Ready, out.Node, out.Restarts, out.ExitCode = string(st.State), st.Ready, st.Node, st.Restarts, st.ExitCode
		out.Reason, out.LogTail, out.Container, out.Addresses = st.Reason, st.LogTail, st.Container, st.Addresses
		out.ImageID, out.ImageDigest, out.Started, out.ReadySince = st.ImageID, st.ImageDigest, st.Started, st.ReadySince
	case placed:
		out.Node, out.Reason = p.Node, fmt.Sprintf("placed on %s; its agent has not taken it up yet", p.Node)
	default:
		out.Reason = "waits for the scheduler"
		if d, ok := m.refusal(t); ok {
			out.State, out.Reason = stateUnplaced, d
		}
	}
	if out.Node != "" && (seen || placed) {
		if n, known := m.nodes[out.Node]; !known || !n.Alive {
			out.Ready = false
			if seen && !st.State.Terminal() {
				out.State = stateUnknown // what its agent said last is not what is
			}
			out.Reason = m.lostNode(t, out.Node, known)
		} else if n.Availability == cluster.Drain && t.Spec.HasLocalVolume() && t.Desire == cluster.DesireRun && out.Reason == "" {
			out.Reason = fmt.Sprintf("its volumes are on node %s, so it stays there though that is drained", out.Node)
		}
	}
	if out.Reason == "" && t.Desire != cluster.DesireRun {
		out.Reason = t.Reason
	}
	if cluster.TaskState(out.State) == cluster.StateWaiting {
		out.Reason = m.waiting(t, out.Reason)
	}
	return out
}

// lostNode says what becomes of a task whose node is not there.
func (m *model) lostNode(t cluster.Task, node cluster.NodeID, known bool) string {
	reason := fmt.Sprintf("node %s does not answer", node)
	if !known {
		reason = fmt.Sprintf("node %s is not part of the cluster any more", node)
	}
	if t.Spec.HasLocalVolume() && t.Desire == cluster.DesireRun {
		reason += fmt.Sprintf("; volume on lost node: it waits for %s (or for `fairlead node rm %s --lose-volumes`: anew elsewhere, with empty volumes)", node, node)
	}
	return reason
}

// stranded tells of tasks that wait for a node because their volumes are there. What
// a node that only does not answer holds up is told with the task.
func (m *model) stranded() []string {
	var out []string
	for _, t := range m.tasks {
		node := cmp.Or(m.placements[t.ID].Node, m.statuses[t.ID].Node)
		if _, known := m.nodes[node]; node != "" && !known && t.Outcome == nil && t.Desire == cluster.DesireRun && t.Spec.HasLocalVolume() {
			out = append(out, slotAddress(t)+": "+m.lostNode(t, node, false))
		}
	}
	return out
}

// refusal is why the scheduler has not placed a task.
func (m *model) refusal(t cluster.Task) (string, bool) {
	for _, object := range []string{string(t.ID), slotAddress(t), t.String()} {
		for _, d := range m.decisions[object] {
			if d.Loop == "scheduler" {
				return sentence(d), true
			}
		}
	}
	return "", false
}

// waiting prefers what the broker says a task waits for over what its agent can know.
func (m *model) waiting(t cluster.Task, reason string) string {
	for _, d := range m.decisions[t.String()] {
		if d.Loop == "broker" && d.Reason != "" {
			return d.Reason
		}
	}
	return reason
}

// standing says in a line how a task that is not ready stands, and why.
func standing(ts v1.TaskStatus) string {
	if cluster.TaskState(ts.State) == cluster.StateWaiting && strings.HasPrefix(ts.Reason, "waits ") {
		return fmt.Sprintf("%s %s", ts.Address, ts.Reason)
	}
	return fmt.Sprintf("%s is %s: %s", ts.Address, ts.State, ts.Reason)
}

// sentence says a decision in one line.
func sentence(d cluster.Decision) string {
	if d.Reason != "" || len(d.Refusals) == 0 {
		return cmp.Or(d.Reason, d.Verdict)
	}
	parts := make([]string, 0, len(d.Refusals))
	for _, r := range d.Refusals {
		p := fmt.Sprintf("%s (%s)", r.Filter, count(r.Nodes, "node"))
		if len(r.Examples) > 0 {
			p += ": " + strings.Join(r.Examples, "; ")
		}
		parts = append(parts, p)
	}
	return d.Verdict + ": " + strings.Join(parts, ", ")
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// tally counts a service's tasks.
type tally struct {
	wanted, ready, updated, old int
	complete                    int            // of those ready: jobs that are done
	failed                      *v1.TaskStatus // the newest failed task of the current version
}

func (m *model) tally(svc cluster.Service) tally {
	var out tally
	global := svc.Spec.Mode == cluster.Global
	done := map[int]bool{} // by slot: its newest task of the current version has completed
	for _, t := range m.ofService[svc.ServiceID] {
		ts := m.task(t)
		current := t.Version == svc.Version
		if current {
			done[t.Slot] = cluster.TaskState(ts.State) == cluster.StateComplete
			if cluster.TaskState(ts.State) == cluster.StateFailed {
				out.failed = &ts
			}
		} else if !ts.Ended() {
			out.old++
		}
		if t.Desire != cluster.DesireRun || ts.Ended() {
			continue
		}
		if global {
			out.wanted++
		}
		if ts.Ready || ending(svc, ts) {
			out.ready++
			if current {
				out.updated++
			}
		}
	}
	if !global {
		out.wanted = svc.Spec.Replicas
		if sc, ok := m.scales[svc.ServiceID]; ok {
			out.wanted = sc.Replicas
		}
	}
	for slot, yes := range done {
		switch {
		case !yes, !global && slot > out.wanted:
			continue
		case global:
			out.wanted++
		}
		out.complete++
	}
	out.ready += out.complete
	out.updated += out.complete
	return out
}

// ending reports whether a task that runs once has just ended: until its agent says
// how, it is counted as before. It would be ready, then not, then complete.
func ending(svc cluster.Service, ts v1.TaskStatus) bool {
	once := svc.Spec.Restart.Condition == "none" || svc.Spec.Restart.Condition == "on-failure"
	return once && ts.Reason == cluster.ProcessEnded
}

// rolloutState is where a service's current version stands.
func (m *model) rolloutState(svc cluster.Service) (state, message string) {
	r, ok := m.rollouts[svc.ServiceID]
	if !ok || r.Target != svc.Version || r.Release != svc.Release || (r.Created != 0 && r.Created != svc.Created) {
		return statePending, "the rollout has not begun"
	}
	return string(r.State), r.Message
}

func (m *model) service(svc cluster.Service) v1.ServiceSummary {
	n := m.tally(svc)
	out := v1.ServiceSummary{
		ServiceID: svc.ServiceID, Mode: svc.Spec.Mode, Image: svc.Spec.Task.Image, Wanted: n.wanted, Ready: n.ready,
		Updated: n.updated, Complete: n.complete, Version: svc.Version, Release: svc.Release, Owner: m.scales[svc.ServiceID].Owner,
		Address: m.endpoints[svc.ServiceID].Address, Endpoints: len(m.endpoints[svc.ServiceID].Tasks),
	}
	out.State, out.Message = m.rolloutState(svc)
	for _, e := range plan.Exposures([]cluster.Service{svc}, m.entry) {
		switch {
		case e.URL != "":
			out.URLs = append(out.URLs, e.URL)
		case e.Kind == "host":
			out.Ports = append(out.Ports, "host network")
		case e.Kind != "http":
			out.Ports = append(out.Ports, fmt.Sprintf("%s→%d/%s", e.Address, e.Port, e.Kind))
		}
	}
	return out
}

// servicesOf are the services of an app, sorted by name.
func (m *model) servicesOf(app cluster.AppName) []cluster.Service {
	var out []cluster.Service
	for _, s := range m.services {
		if s.App == app {
			out = append(out, s)
		}
	}
	return out
}

func (m *model) tasksOf(id cluster.ServiceID) []v1.TaskStatus {
	out := []v1.TaskStatus{}
	for _, t := range m.ofService[id] {
		out = append(out, m.task(t))
	}
	return out
}

// appNames are the apps that exist, or whose tasks still run.
func (m *model) appNames() []cluster.AppName {
	seen := map[cluster.AppName]bool{}
	var out []cluster.AppName
	add := func(a cluster.AppName) {
		if !seen[a] {
			seen[a] = true
			out = append(out, a)
		}
	}
	for a := range m.apps {
		add(a)
	}
	for _, s := range m.services {
		add(s.App)
	}
	for _, t := range m.tasks {
		if t.Outcome == nil {
			add(t.App)
		}
	}
	slices.Sort(out)
	return out
}
