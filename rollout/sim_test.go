package rollout_test

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/rollout"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// world is a model of the rest of the cluster: a store, a scheduler, agents, the
// registry and gateways, each of which takes a step when the dice say so.
type world struct {
	t   *testing.T
	r   *rand.Rand
	now time.Time
	rev cluster.StoreRev

	apps       map[cluster.AppName]cluster.App
	services   map[cluster.ServiceID]cluster.Service
	scales     map[cluster.ServiceID]cluster.Scale
	tasks      map[cluster.TaskID]cluster.Task
	placements map[cluster.TaskID]cluster.NodePlacement
	statuses   map[cluster.TaskID]cluster.Status
	rollouts   map[cluster.ServiceID]cluster.Rollout
	endpoints  map[cluster.ServiceID]cluster.Endpoints
	outcomes   map[string]cluster.ReleaseOutcome
	pruned     int // releases up to this one are kept no more
	nodes      map[cluster.NodeID]cluster.Node
	agents     map[cluster.NodeID]cluster.StoreRev
	gateways   map[cluster.NodeID]cluster.StoreRev

	unready map[cluster.TaskID]time.Time // as the leader has seen it
	places  map[cluster.ServiceID]cluster.VolumePlaces
	data    map[string]cluster.NodeID // where the volume of a service's slot really is

	explained []cluster.Decision
	used      map[cluster.TaskID]bool             // names of tasks ever made
	left      map[cluster.TaskID]cluster.StoreRev // endpoints revision that a task was taken out with
	served    map[cluster.TaskID]bool             // was ever in the endpoints
	lostAfter time.Duration
	lost      []cluster.NodeID // removed with their volumes
	lies      []cluster.Status // what a stolen node says of others' tasks
	moves     int              // changes that have no revision here

	// behaviour
	fails    map[string]string // version → "exit", "restart", "unready", "never" (a version not named works)
	exits    map[string]bool   // versions that end with exit code 0 by themselves
	crash    float64           // chance that a ready container fails for good, a step
	lazy     float64           // chance that a part takes no step
	deaf     map[cluster.NodeID]bool
	noPlaces bool
}

func newWorld(t *testing.T, seed uint64, nodes int) *world {
	t.Helper()
	w := &world{
		t: t, r: rand.New(rand.NewPCG(seed, 1)), now: epoch, rev: 100,
		apps: map[cluster.AppName]cluster.App{}, services: map[cluster.ServiceID]cluster.Service{},
		scales: map[cluster.ServiceID]cluster.Scale{}, tasks: map[cluster.TaskID]cluster.Task{},
		placements: map[cluster.TaskID]cluster.NodePlacement{}, statuses: map[cluster.TaskID]cluster.Status{},
		rollouts: map[cluster.ServiceID]cluster.Rollout{}, endpoints: map[cluster.ServiceID]cluster.Endpoints{},
		outcomes: map[string]cluster.ReleaseOutcome{}, nodes: map[cluster.NodeID]cluster.Node{},
		agents: map[cluster.NodeID]cluster.StoreRev{}, gateways: map[cluster.NodeID]cluster.StoreRev{},
		used: map[cluster.TaskID]bool{}, left: map[cluster.TaskID]cluster.StoreRev{}, served: map[cluster.TaskID]bool{},
		places: map[cluster.ServiceID]cluster.VolumePlaces{}, data: map[string]cluster.NodeID{},
		fails: map[string]string{}, exits: map[string]bool{}, deaf: map[cluster.NodeID]bool{}, lazy: 0.3,
	}
	for i := range nodes {
		w.node(fmt.Sprintf("n%d", i+1))
	}
	return w
}

func (w *world) node(id string) {
	w.nodes[cluster.NodeID(id)] = cluster.Node{
		NodeSpec: cluster.NodeSpec{ID: cluster.NodeID(id)}, Alive: true,
		Info: cluster.NodeInfo{ID: cluster.NodeID(id), Hostname: id, Roles: []string{"agent", "gateway"}},
	}
}

func (w *world) next() cluster.StoreRev { w.rev++; return w.rev }

func sid(name string) cluster.ServiceID {
	return cluster.ServiceID{App: "shop", Name: cluster.ServiceName(name)}
}

// spec returns a service of so many replicas whose version follows from image.
func spec(image string, replicas int, change ...func(*cluster.ServiceSpec)) cluster.ServiceSpec {
	s := cluster.ServiceSpec{
		Mode: cluster.Replicated, Replicas: replicas, Task: cluster.TaskSpec{Image: image},
		Routes: []cluster.Route{{Host: "shop", Port: 80}},
	}
	for _, f := range change {
		f(&s)
	}
	return s
}

func version(image string) string {
	return spec(image, 1).Task.Hash()
}

// deploy writes a release that has these services and no others.
func (w *world) deploy(specs map[string]cluster.ServiceSpec) {
	a := w.apps["shop"]
	if a.Name == "" {
		a = cluster.App{Name: "shop", Created: w.next()}
	}
	a.Release++
	for _, name := range slices.Sorted(maps.Keys(specs)) {
		s := specs[name]
		svc := cluster.Service{ServiceID: sid(name), Version: s.Task.Hash(), Release: a.Release, Spec: s, Rev: w.next()}
		svc.Created = cmp.Or(w.services[sid(name)].Created, svc.Rev)
		w.services[sid(name)] = svc
		w.scale(name, s.Replicas)
	}
	for id := range w.services {
		if _, keep := specs[string(id.Name)]; !keep {
			delete(w.services, id)
			delete(w.scales, id)
		}
	}
	a.Rev = w.next()
	w.apps["shop"] = a
}

func (w *world) scale(name string, n int) {
	w.scales[sid(name)] = cluster.Scale{ServiceID: sid(name), Replicas: n, Rev: w.next()}
}

func values[K comparable, V any](w *world, m map[K]V) []V {
	keys := slices.AppendSeq(make([]K, 0, len(m)), maps.Keys(m))
	w.r.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] }) // maps alone shuffle without the seed
	out := make([]V, len(keys))
	for i, k := range keys {
		out[i] = m[k]
	}
	return out
}

func (w *world) snapshot() rollout.Snapshot {
	s := rollout.Snapshot{
		Now: w.now, Rev: w.rev, Salt: fmt.Sprint(w.rev % 3), Apps: values(w, w.apps), Services: values(w, w.services), Scales: values(w, w.scales),
		Tasks: values(w, w.tasks), Placements: values(w, w.placements), Statuses: slices.Concat(w.lies, values(w, w.statuses)),
		Rollouts: values(w, w.rollouts), Endpoints: values(w, w.endpoints), Outcomes: values(w, w.outcomes),
		Nodes: values(w, w.nodes), Lost: w.lost, Kept: values(w, w.places), LostAfter: w.lostAfter, Unready: w.unready,
	}
	for i := range s.Outcomes {
		s.Outcomes[i].Released = s.Outcomes[i].Number > w.pruned
	}
	for n, r := range w.agents {
		s.AgentAcks = append(s.AgentAcks, cluster.AgentAck{Node: n, Endpoint: r})
	}
	for n, r := range w.gateways {
		s.GatewayAcks = append(s.GatewayAcks, cluster.GatewayAck{Node: n, Route: r})
	}
	return s
}

// plan runs the planner once and applies what it says.
func (w *world) plan() []rollout.Action {
	w.t.Helper()
	w.unready = rollout.Look(w.unready, w.snapshot())
	acts := rollout.Plan(w.snapshot())
	touched := map[cluster.TaskID]bool{}
	for _, a := range acts {
		w.apply(a, touched)
	}
	return acts
}

func (w *world) apply(a rollout.Action, touched map[cluster.TaskID]bool) {
	w.t.Helper()
	switch a := a.(type) {
	case rollout.Create:
		if w.used[a.Task.ID] {
			w.t.Fatalf("the name %s is used twice", a.Task.ID)
		}
		if a.Task.N >= w.rollouts[a.Task.ServiceID].NextTask {
			w.t.Fatalf("task %d made before the record counts it", a.Task.N)
		}
		w.used[a.Task.ID] = true
		w.put(a.Task, touched)
	case rollout.Drain:
		w.put(a.Task, touched)
	case rollout.Withdraw:
		w.put(a.Task, touched)
	case rollout.Stop:
		w.checkStop(a.Task)
		w.put(a.Task, touched)
	case rollout.Record:
		w.put(a.Task, touched)
	case rollout.Rewind:
		w.put(a.Task, touched)
	case rollout.Delete:
		w.put(a.Task, touched)
		if _, ok := w.placements[a.Task.ID]; ok || a.Task.Outcome == nil {
			w.t.Fatalf("%s is forgotten while it is placed, or has not ended", a.Task.ID)
		}
		delete(w.tasks, a.Task.ID)
	case rollout.Save:
		if w.rollouts[a.Rollout.ServiceID].Rev != a.Rollout.Rev {
			w.t.Fatalf("record of %s written twice in a plan", a.Rollout.ServiceID)
		}
		a.Rollout.Rev = w.next()
		w.rollouts[a.Rollout.ServiceID] = a.Rollout
	case rollout.Keep:
		if w.places[a.Places.ServiceID].Rev != a.Places.Rev {
			w.t.Fatalf("where the volumes of %s are is written twice in a plan", a.Places.ServiceID)
		}
		a.Places.Rev = w.next()
		w.places[a.Places.ServiceID] = a.Places
	case rollout.Forget:
		delete(w.rollouts, a.Rollout.ServiceID)
	case rollout.Settle:
		a.Outcome.Rev = w.next()
		w.outcomes[fmt.Sprint(a.Outcome.App, a.Outcome.Number)] = a.Outcome
	case rollout.Unsettle:
		delete(w.outcomes, fmt.Sprint(a.Outcome.App, a.Outcome.Number))
	case rollout.Explain:
		w.explained = append(w.explained, a.Decision)
	}
}

func (w *world) put(t cluster.Task, touched map[cluster.TaskID]bool) {
	w.t.Helper()
	old, known := w.tasks[t.ID]
	if touched[t.ID] {
		w.t.Fatalf("two actions about %s in one plan", t.ID)
	}
	touched[t.ID] = true
	if old.Rev != t.Rev {
		w.t.Fatalf("%s decided on revision %d, it is at %d", t.ID, t.Rev, old.Rev)
	}
	order := map[cluster.Desire]int{cluster.DesireRun: 0, cluster.DesireDrain: 1, cluster.DesireStop: 2}
	if known && order[t.Desire] < order[old.Desire] {
		w.t.Fatalf("%s moved back from %s to %s", t.ID, old.Desire, t.Desire)
	}
	t.Rev = w.next()
	w.tasks[t.ID] = t
}

// checkStop holds the drain protocol: what has served is stopped only when all
// who live have acknowledged endpoints without it, or the bound has passed and
// somebody was told.
func (w *world) checkStop(t cluster.Task) {
	w.t.Helper()
	if _, exists := w.services[t.ServiceID]; !exists || !w.served[t.ID] {
		return
	}
	old := w.tasks[t.ID]
	if w.endpoints[t.ServiceID].Has(t.ID) {
		w.t.Fatalf("%s stopped while it is an endpoint", t.ID)
	}
	var late []string
	for id, n := range w.nodes {
		if n.Alive && (w.agents[id] < w.left[t.ID] || w.gateways[id] < w.left[t.ID]) {
			late = append(late, string(id))
		}
	}
	if len(late) == 0 {
		return
	}
	if old.Desire == cluster.DesireDrain && w.now.Sub(old.Since) >= 10*time.Second && len(w.explained) > 0 {
		return
	}
	w.t.Fatalf("%s stopped (it was to %s since %s) though %v may still send to it", t.ID, old.Desire, w.now.Sub(old.Since), late)
}

// step lets every part of the world take a step, or not, and time pass.
func (w *world) step() {
	for _, part := range []func(){w.schedule, w.agent, w.registry, w.acknowledge} {
		if w.r.Float64() >= w.lazy {
			part()
		}
	}
}

func sorted[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

func (w *world) schedule() {
	for _, id := range sorted(w.tasks) {
		t := w.tasks[id]
		p, placed := w.placements[id]
		switch {
		case placed && p.Desire != t.Desire:
			p.Desire = t.Desire
			w.placements[id] = p
			w.moves++
		case placed || t.Desire != cluster.DesireRun || t.Outcome != nil || w.noPlaces:
		default:
			only := t.Node
			if only == "" && t.Spec.HasLocalVolume() {
				only = w.holder(t)
			}
			var may []cluster.NodeID
			for _, n := range sorted(w.nodes) {
				if w.nodes[n].Schedulable() && (only == "" || only == n) && w.fulfils(n, t.ServiceID) {
					may = append(may, n)
				}
			}
			if len(may) > 0 {
				w.mount(t, may)
				w.placements[id] = cluster.NodePlacement{Task: id, Node: may[0], ServiceID: t.ServiceID, Desire: t.Desire}
				w.moves++
			}
		}
	}
	for _, id := range sorted(w.placements) {
		if st, ok := w.statuses[id]; ok && st.State.Terminal() && w.tasks[id].Outcome != nil {
			delete(w.placements, id)
			w.moves++
		}
	}
}

// holder is where, as far as anybody remembers, the volume of a task's slot is.
func (w *world) holder(t cluster.Task) cluster.NodeID {
	at, newest := w.places[t.ServiceID].Slots[t.Slot].Node, int64(-1)
	for id, x := range w.tasks {
		node := w.placements[id].Node
		if node == "" && x.Outcome != nil {
			node = x.Outcome.Node
		}
		if x.ServiceID == t.ServiceID && x.Slot == t.Slot && x.Spec.HasLocalVolume() && node != "" && x.N > newest {
			at, newest = node, x.N
		}
	}
	if slices.Contains(w.lost, at) {
		return ""
	}
	return at
}

// mount chooses one of the nodes, which it puts first, and fails the test when the volume
// of the task is on another one.
func (w *world) mount(t cluster.Task, may []cluster.NodeID) {
	w.t.Helper()
	i := w.r.IntN(len(may))
	may[0], may[i] = may[i], may[0]
	if t.Node != "" || !t.Spec.HasLocalVolume() {
		return
	}
	slot := fmt.Sprint(t.ServiceID, t.Slot)
	if at, ok := w.data[slot]; ok && at != may[0] && !slices.Contains(w.lost, at) {
		w.t.Fatalf("%s starts on %s with an empty volume: its data are on %s\n%s", t.ID, may[0], at, w.dump())
	}
	w.data[slot] = may[0]
}

// fulfils reports whether a node has what the constraints of a service ask for.
func (w *world) fulfils(id cluster.NodeID, svc cluster.ServiceID) bool {
	n := w.nodes[id]
	return !slices.ContainsFunc(w.services[svc].Spec.Placement.Constraints, func(text string) bool {
		c, err := cluster.ParseConstraint(text)
		return err != nil || !c.Holds(&n)
	})
}

func (w *world) label(id cluster.NodeID, zone string) {
	n := w.nodes[id]
	n.Labels = map[string]string{"zone": zone}
	w.nodes[id] = n
}

func (w *world) agent() {
	for _, id := range sorted(w.placements) {
		p := w.placements[id]
		if n := w.nodes[p.Node]; n.Alive && !n.Info.EngineAway && w.r.Float64() >= w.lazy {
			w.advance(id, p)
		}
	}
	for _, id := range sorted(w.statuses) {
		if _, placed := w.placements[id]; !placed && w.nodes[w.statuses[id].Node].Alive {
			delete(w.statuses, id)
			w.moves++
		}
	}
}

// advance moves one container on.
func (w *world) advance(id cluster.TaskID, p cluster.NodePlacement) {
	st, known := w.statuses[id]
	t := w.tasks[id]
	switch {
	case known && st.State.Terminal():
		return
	case !known:
		st = cluster.Status{Task: id, Node: p.Node, ServiceID: p.ServiceID, Slot: t.Slot, Version: t.Version, State: cluster.StateAccepted}
	case p.Desire == cluster.DesireStop && st.State != cluster.StateStopping:
		st.State, st.Ready = cluster.StateStopping, false
	case p.Desire == cluster.DesireStop:
		st.State, st.ExitCode = cluster.StateStopped, 143
	case st.State == cluster.StateAccepted:
		st.State = cluster.StatePulling
	case st.State == cluster.StatePulling:
		st.State, st.Started = cluster.StateStarting, w.now
	case w.fails[t.Version] == "never":
	case st.State == cluster.StateStarting && w.fails[t.Version] == "exit":
		st.State, st.ExitCode, st.Reason, st.LogTail = cluster.StateFailed, 1, "no database", []string{"panic: no database"}
	case st.State == cluster.StateStarting:
		st.State = cluster.StateRunning
	case w.fails[t.Version] == "unready":
		st.Reason = "health check: connection refused"
	case !st.Ready:
		st.Ready, st.ReadySince = true, w.now
	case w.fails[t.Version] == "restart":
		st.State, st.Ready = cluster.StateStarting, false
		st.Restarts++
		st.ExitCode, st.LogTail = 2, []string{"out of luck"}
	case w.exits[t.Version]:
		st.State, st.Ready, st.LogTail = cluster.StateComplete, false, []string{"all done"}
	case w.r.Float64() < w.crash:
		st.State, st.Ready, st.ExitCode = cluster.StateFailed, false, 137
	}
	if !reflect.DeepEqual(w.statuses[id], st) {
		w.moves++
	}
	w.statuses[id] = st
}

func (w *world) registry() {
	want := map[cluster.ServiceID][]cluster.Endpoint{}
	for _, id := range sorted(w.tasks) {
		t, st := w.tasks[id], w.statuses[id]
		if t.Desire == cluster.DesireRun && st.Ready && w.nodes[st.Node].Alive {
			want[t.ServiceID] = append(want[t.ServiceID], cluster.Endpoint{Task: id, Slot: t.Slot, Node: st.Node})
		}
	}
	for id := range w.services {
		old := w.endpoints[id]
		names := func(es []cluster.Endpoint) (out []cluster.TaskID) {
			for _, e := range es {
				out = append(out, e.Task)
			}
			return out
		}
		if slices.Equal(names(old.Tasks), names(want[id])) {
			continue
		}
		next := cluster.Endpoints{ServiceID: id, Tasks: want[id], Rev: w.next()}
		w.endpoints[id] = next
		for _, e := range old.Tasks {
			if !next.Has(e.Task) {
				w.left[e.Task] = next.Rev
			}
		}
		for _, e := range next.Tasks {
			w.served[e.Task] = true
		}
	}
}

func (w *world) acknowledge() {
	top := cluster.StoreRev(0)
	for _, e := range w.endpoints {
		top = max(top, e.Rev)
	}
	for _, n := range sorted(w.nodes) {
		if !w.nodes[n].Alive || w.deaf[n] {
			continue
		}
		if w.r.Float64() >= w.lazy && w.agents[n] != top {
			w.agents[n] = top
			w.moves++
		}
		if w.r.Float64() >= w.lazy && w.gateways[n] != top {
			w.gateways[n] = top
			w.moves++
		}
	}
}

// run plans and steps until nothing changes any more, and calls check after
// each plan. Time jumps to the planner's next deadline when nothing else moves.
func (w *world) run(check func()) {
	w.t.Helper()
	quiet := 0
	for range 6000 {
		before := w.rev
		acts := w.plan()
		if check != nil {
			check()
		}
		moves := w.moves
		w.step()
		w.now = w.now.Add(time.Duration(w.r.IntN(300)) * time.Millisecond)
		if len(acts) > 0 || w.rev != before || w.moves != moves {
			quiet = 0
			continue
		}
		if quiet++; quiet < 20 {
			continue // everyone may have been lazy
		}
		s := w.snapshot()
		wake := rollout.Wake(s)
		if wake == 0 && len(rollout.Plan(s)) > 0 {
			continue // a deadline passed since the last plan
		}
		if wake == 0 {
			return
		}
		w.now, quiet = w.now.Add(wake), 0
	}
	w.t.Fatalf("no rest after 6000 steps: %s", w.dump())
}

// steps lets so many steps pass.
func (w *world) steps(n int, check func()) {
	w.t.Helper()
	for range n {
		w.plan()
		if check != nil {
			check()
		}
		w.step()
		w.now = w.now.Add(time.Duration(w.r.IntN(300)) * time.Millisecond)
	}
}

func (w *world) dump() string {
	out := fmt.Sprintln("now", w.now)
	for _, r := range w.rollouts {
		out += fmt.Sprintf("%s: %s target %s failures %d message %q settled %s\n", r.ServiceID, r.State, r.Target, r.Failures, r.Message, r.Settled)
	}
	for _, id := range sorted(w.tasks) {
		t, st := w.tasks[id], w.statuses[id]
		out += fmt.Sprintf("%s v %s %s outcome %v on %s: %s ready %v restarts %d\n", id, t.Version, t.Desire, t.Outcome, w.placements[id].Node, st.State, st.Ready, st.Restarts)
	}
	return out
}

// live returns the tasks of a service that have not ended.
func (w *world) live(name string) (out []cluster.Task) {
	for _, id := range sorted(w.tasks) {
		if t := w.tasks[id]; t.ServiceID == sid(name) && t.Outcome == nil {
			out = append(out, t)
		}
	}
	return out
}

// ready counts the ready tasks of a version that are to run.
func (w *world) ready(name, version string) int {
	n := 0
	for _, t := range w.live(name) {
		if t.Version == version && t.Desire == cluster.DesireRun && w.statuses[t.ID].Ready {
			n++
		}
	}
	return n
}

// expect fails unless the service has exactly n tasks, all ready and of version.
func (w *world) expect(name, version string, n int, state cluster.RolloutState) {
	w.t.Helper()
	if got := w.ready(name, version); got != n || len(w.live(name)) != n {
		w.t.Fatalf("%s has %d live tasks and %d ready of %s, want %d\n%s", name, len(w.live(name)), got, version, n, w.dump())
	}
	if got := w.rollouts[sid(name)].State; got != state {
		w.t.Fatalf("rollout of %s is %s (%s), want %s\n%s", name, got, w.rollouts[sid(name)].Message, state, w.dump())
	}
}
