package scheduler

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/cluster"
)

// FuzzPlan checks what holds for every snapshot. The fuzzer only picks the seed,
// so that a failing case is one number.
func FuzzPlan(f *testing.F) {
	for seed := range uint64(2000) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		s := generate(rand.New(rand.NewPCG(seed, 0)))
		before := dump(t, s)
		acts := Plan(s)
		if diff := cmp.Diff(before, dump(t, s)); diff != "" {
			t.Fatalf("Plan changed its input:\n%s", diff)
		}
		if diff := cmp.Diff(acts, Plan(shuffle(s, seed))); diff != "" {
			t.Fatalf("the plan depends on the order of the input:\n%s", diff)
		}
		conserved(t, s, acts)
		replay(t, s, acts)
		after := apply(s, acts)
		for _, a := range Plan(after) {
			if u, ok := a.(Unplaced); !ok || !u.Noted {
				t.Fatalf("not a fixed point: %#v", a)
			}
		}
	})
}

func dump(t *testing.T, s Snapshot) string {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// conserved: what should run is placed or explained, once; desires move forward;
// only what has ended is removed.
func conserved(t *testing.T, s Snapshot, acts []Action) {
	t.Helper()
	want := map[cluster.TaskID]bool{}
	desire := map[cluster.TaskID]cluster.Desire{}
	ended := map[string]bool{}
	for _, x := range s.Tasks {
		want[x.ID] = x.Desire == cluster.DesireRun && x.Outcome == nil
		desire[x.ID] = x.Desire
		if x.Outcome != nil {
			ended[string(x.ID)] = true
		}
	}
	for _, x := range s.Placements {
		delete(want, x.Task)
	}
	for _, x := range s.Statuses {
		if x.State.Terminal() {
			ended[string(x.Node)+"/"+string(x.Task)] = true
		}
	}
	known := map[cluster.NodeID]bool{}
	for _, n := range s.Nodes {
		known[n.ID] = true
	}
	meet := func(id cluster.TaskID) {
		if !want[id] {
			t.Fatalf("task %s is planned twice, or without need", id)
		}
		delete(want, id)
	}
	for _, a := range acts {
		switch a := a.(type) {
		case Place:
			meet(a.Placement.Task)
		case Unplaced:
			meet(a.Task)
			if a.Reason == "" || strings.HasSuffix(a.Reason, "()") {
				t.Fatalf("task %s is refused without a reason: %q", a.Task, a.Reason)
			}
		case SetDesire:
			i := slices.IndexFunc(s.Placements, func(p cluster.NodePlacement) bool {
				return p.Task == a.Placement.Task && p.Node == a.Placement.Node
			})
			if rank(a.Placement.Desire) <= rank(s.Placements[i].Desire) {
				t.Fatalf("desire of %s goes from %s to %s", a.Placement.Task, s.Placements[i].Desire, a.Placement.Desire)
			}
		case Remove:
			x := a.Placement
			d, have := desire[x.Task]
			stopped := !have || d == cluster.DesireStop
			over := ended[string(x.Node)+"/"+string(x.Task)]
			if !ended[string(x.Task)] && (!stopped || known[x.Node] && (have || !over)) {
				t.Fatalf("placement of %s on %s is removed though it has not ended", x.Task, x.Node)
			}
		case Forget:
		}
	}
	for id, missing := range want {
		if missing {
			t.Fatalf("task %s is neither placed nor explained", id)
		}
	}
}

// model is a second, slow reading of the rules: it shares no code with the planner's indexes.
type model struct {
	nodes    map[cluster.NodeID]cluster.Node
	services map[cluster.ServiceID]cluster.Service
	tasks    map[cluster.TaskID]cluster.Task
	placed   []cluster.NodePlacement // not ended
	past     map[cluster.ServiceID]map[int]pastRun
	kept     []keptVolume
}

type pastRun struct {
	node cluster.NodeID
	n    int64
}

// keptVolume is a volume that a service had on a node.
type keptVolume struct {
	volume  string
	service cluster.ServiceID
	node    cluster.NodeID
}

func newModel(s Snapshot) *model {
	m := &model{nodes: map[cluster.NodeID]cluster.Node{}, services: map[cluster.ServiceID]cluster.Service{}, tasks: map[cluster.TaskID]cluster.Task{}, past: map[cluster.ServiceID]map[int]pastRun{}}
	for _, n := range s.Nodes {
		m.nodes[n.ID] = n
	}
	for _, x := range s.Services {
		m.services[x.ServiceID] = x
	}
	for _, x := range s.Tasks {
		m.tasks[x.ID] = x
		if x.Outcome != nil && x.Outcome.Node != "" && x.Spec.HasLocalVolume() {
			m.remember(x.ServiceID, x.Slot, pastRun{x.Outcome.Node, x.N}, x.Spec)
		}
	}
	for _, p := range s.Placements {
		task := m.tasks[p.Task]
		if p.Spec.HasLocalVolume() {
			m.remember(p.ServiceID, p.Slot, pastRun{p.Node, task.N}, p.Spec)
		}
		over := task.Outcome != nil || slices.ContainsFunc(s.Statuses, func(st cluster.Status) bool {
			return st.Task == p.Task && st.Node == p.Node && st.State.Terminal()
		})
		if !over {
			m.placed = append(m.placed, p)
		}
	}
	for _, x := range s.Kept {
		keeps := slices.Clone(m.kept)
		for slot, place := range x.Slots {
			if _, ok := m.past[x.ServiceID][slot]; !ok {
				if m.past[x.ServiceID] == nil {
					m.past[x.ServiceID] = map[int]pastRun{}
				}
				m.past[x.ServiceID][slot] = pastRun{place.Node, -1}
			}
			for _, v := range place.Volumes { // with whom others share it: as long as no task says so
				if !slices.ContainsFunc(keeps, func(k keptVolume) bool { return k.volume == v && k.service == x.ServiceID }) {
					m.kept = append(m.kept, keptVolume{v, x.ServiceID, place.Node})
				}
			}
		}
	}
	return m
}

func (m *model) remember(id cluster.ServiceID, slot int, r pastRun, spec cluster.TaskSpec) {
	for _, v := range spec.Mounts {
		m.kept = append(m.kept, keptVolume{v.Source, id, r.node})
	}
	if m.past[id] == nil {
		m.past[id] = map[int]pastRun{}
	}
	if have, ok := m.past[id][slot]; !ok || r.n > have.n {
		m.past[id][slot] = r
	}
}

func (m *model) on(id cluster.NodeID, f func(cluster.NodePlacement) bool) int {
	c := 0
	for _, p := range m.placed {
		if p.Node == id && f(p) {
			c++
		}
	}
	return c
}

// fits says why a node may not take a task, or "".
func (m *model) fits(n cluster.Node, task cluster.Task) string {
	svc := m.services[task.ServiceID]
	switch {
	case !n.Alive || n.Availability == cluster.Drain || n.Availability == cluster.Pause:
		return "not ready"
	case task.Node != "" && task.Node != n.ID:
		return "global"
	case task.Spec.Platform == "linux/arm64" && n.Info.Arch != "arm64":
		return "platform"
	}
	for _, c := range svc.Spec.Placement.Constraints {
		if zone, ok := strings.CutPrefix(c, "node.labels.zone=="); ok && n.Labels["zone"] != zone {
			return "constraint"
		}
		if zone, ok := strings.CutPrefix(c, "node.labels.zone != "); ok && n.Labels["zone"] == zone {
			return "constraint"
		}
	}
	cpu, memory := task.Spec.Resources.ReserveCPU, task.Spec.Resources.ReserveMemory
	usedCPU, usedMemory := int64(0), int64(0)
	for _, p := range m.placed {
		if p.Node == n.ID {
			usedCPU += p.Spec.Resources.ReserveCPU
			usedMemory += p.Spec.Resources.ReserveMemory
			for _, a := range p.Spec.NodePorts {
				for _, b := range task.Spec.NodePorts {
					if a.Published == b.Published && a.Protocol == b.Protocol && (a.HostIP == b.HostIP || a.HostIP == "" || b.HostIP == "") {
						return "port"
					}
				}
			}
		}
	}
	switch {
	case cpu > 0 && usedCPU+cpu > n.Info.CPU, memory > 0 && usedMemory+memory > n.Info.Memory:
		return "resources"
	case svc.Spec.Placement.MaxPerNode > 0 && m.on(n.ID, func(p cluster.NodePlacement) bool {
		return p.ServiceID == task.ServiceID && p.Slot != task.Slot
	}) >= svc.Spec.Placement.MaxPerNode:
		return "max per node"
	}
	if task.Spec.HasLocalVolume() && task.Node == "" {
		r, ok := m.past[task.ServiceID][task.Slot]
		if ok && r.node != n.ID || !ok && !m.shares(task, n.ID) {
			return "volume"
		}
	}
	return ""
}

// shares reports whether the volumes that the task shares with other services are on the node.
func (m *model) shares(task cluster.Task, n cluster.NodeID) bool {
	for _, v := range task.Spec.Mounts {
		elsewhere, here := false, false
		for _, k := range m.kept {
			if k.volume == v.Source && k.service != task.ServiceID {
				elsewhere = true
				here = here || k.node == n
			}
		}
		if elsewhere && !here {
			return false
		}
	}
	return true
}

// same counts the service's tasks that stay, on nodes that in accepts.
func (m *model) same(task cluster.Task, in func(cluster.Node) bool) int {
	c := 0
	for _, p := range m.placed {
		t, ok := m.tasks[p.Task]
		n, known := m.nodes[p.Node]
		if ok && known && t.Desire == cluster.DesireRun && p.ServiceID == task.ServiceID && p.Slot != task.Slot && in(n) {
			c++
		}
	}
	return c
}

// replay checks every placement against the model at the moment it was decided,
// and every refusal at the end.
func replay(t *testing.T, s Snapshot, acts []Action) {
	t.Helper()
	m := newModel(s)
	for _, a := range acts {
		p, ok := a.(Place)
		if !ok {
			continue
		}
		task, n := m.tasks[p.Placement.Task], m.nodes[p.Placement.Node]
		if why := m.fits(n, task); why != "" {
			t.Fatalf("task %s is placed on %s in spite of: %s", task.ID, n.ID, why)
		}
		at, known := m.nodes[running(s, task.ID)]
		switch {
		case !known || m.fits(at, task) != "":
			m.best(t, task, n)
		case n.ID != at.ID:
			t.Fatalf("task %s is placed on %s, though it still runs on %s", task.ID, n.ID, at.ID)
		}
		m.placed = append(m.placed, p.Placement)
		if task.Spec.HasLocalVolume() {
			m.remember(task.ServiceID, task.Slot, pastRun{n.ID, task.N}, task.Spec)
		}
	}
	for _, a := range acts {
		u, ok := a.(Unplaced)
		if !ok || strings.Contains(u.Reason, "constraint \"") || strings.Contains(u.Reason, "service is gone") {
			continue
		}
		for _, n := range s.Nodes {
			if m.fits(n, m.tasks[u.Task]) == "" {
				t.Fatalf("task %s is refused (%s), but %s would take it", u.Task, u.Reason, n.ID)
			}
		}
	}
}

// running returns where a status says that a task without a placement runs.
func running(s Snapshot, id cluster.TaskID) cluster.NodeID {
	for _, st := range s.Statuses {
		if st.Task == id && !st.State.Terminal() {
			return st.Node
		}
	}
	return ""
}

// best checks the two first criteria: the branch of the spread preference, and
// the tasks of the service on the node.
func (m *model) best(t *testing.T, task cluster.Task, chosen cluster.Node) {
	t.Helper()
	spread := len(m.services[task.ServiceID].Spec.Placement.Spread) > 0
	static := func(n cluster.Node) bool {
		why := m.fits(n, task)
		return why != "not ready" && why != "constraint" && why != "platform"
	}
	cost := func(n cluster.Node) [2]int {
		var c [2]int
		if spread {
			c[0] = m.same(task, func(o cluster.Node) bool { return static(o) && o.Labels["zone"] == n.Labels["zone"] })
		}
		c[1] = m.same(task, func(o cluster.Node) bool { return o.ID == n.ID })
		return c
	}
	for _, n := range m.nodes {
		if m.fits(n, task) == "" && slices.Compare(slice(cost(n)), slice(cost(chosen))) < 0 {
			t.Fatalf("task %s is placed on %s %v, but %s %v is better", task.ID, chosen.ID, cost(chosen), n.ID, cost(n))
		}
	}
}

func slice(a [2]int) []int { return a[:] }

// apply does to the snapshot what the loop does to the store.
func apply(s Snapshot, acts []Action) Snapshot {
	next := s
	next.Placements, next.Notes = slices.Clone(s.Placements), slices.Clone(s.Notes)
	find := func(p cluster.NodePlacement) int {
		return slices.IndexFunc(next.Placements, func(o cluster.NodePlacement) bool { return o.Task == p.Task && o.Node == p.Node })
	}
	for _, a := range acts {
		switch a := a.(type) {
		case Place:
			next.Placements = append(next.Placements, a.Placement)
		case SetDesire:
			next.Placements[find(a.Placement)] = a.Placement
		case Remove:
			i := find(a.Placement)
			next.Placements = slices.Delete(next.Placements, i, i+1)
		case Unplaced:
			if !a.Noted {
				object := Object(a.Service, a.Slot)
				next.Notes = slices.DeleteFunc(next.Notes, func(n Note) bool { return n.Object == object })
				next.Notes = append(next.Notes, Note{Object: object, Task: a.Task, Reason: a.Reason, Rev: 7})
			}
		case Forget:
			next.Notes = slices.DeleteFunc(next.Notes, func(n Note) bool { return n.Object == a.Note.Object })
		}
	}
	return next
}

func shuffle(s Snapshot, seed uint64) Snapshot {
	r := rand.New(rand.NewPCG(seed, 1))
	s.Nodes, s.Services, s.Tasks = mix(r, s.Nodes), mix(r, s.Services), mix(r, s.Tasks)
	s.Placements, s.Statuses, s.Notes = mix(r, s.Placements), mix(r, s.Statuses), mix(r, s.Notes)
	return s
}

func mix[T any](r *rand.Rand, in []T) []T {
	out := slices.Clone(in)
	r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

func generate(r *rand.Rand) Snapshot {
	s := Snapshot{Now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), Rev: 100}
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	for i := range r.IntN(6) {
		s.Nodes = append(s.Nodes, cluster.Node{
			NodeSpec: cluster.NodeSpec{
				ID: cluster.NodeID(fmt.Sprint("n", i)), Labels: map[string]string{"zone": pick("a", "b", "c")},
				Availability: cluster.Availability(pick("", "", "", "", "active", "pause", "drain")),
			},
			Info: cluster.NodeInfo{
				CPU: int64(500 * r.IntN(6)), Memory: int64(64 * r.IntN(8)), OS: "linux", Arch: pick("amd64", "amd64", "aarch64", "arm64"),
			},
			Alive: r.IntN(6) > 0, Rev: cluster.StoreRev(i),
		})
		if s.Nodes[i].Info.Arch == "aarch64" {
			s.Nodes[i].Info.Arch = "arm64"
		}
	}
	for i := range r.IntN(5) {
		genService(r, &s, cluster.ServiceID{App: "app", Name: cluster.ServiceName(fmt.Sprint("s", i))})
	}
	for i := range r.IntN(5) {
		x := cluster.VolumePlaces{ServiceID: cluster.ServiceID{App: "app", Name: cluster.ServiceName(fmt.Sprint("s", i))}, Slots: map[int]cluster.VolumePlace{}}
		for range r.IntN(3) {
			x.Slots[1+r.IntN(5)] = cluster.VolumePlace{
				Node: cluster.NodeID(fmt.Sprint("n", r.IntN(7))), Volumes: []string{pick("app_shared", "app_"+string(x.Name))},
			}
		}
		s.Kept = append(s.Kept, x)
	}
	for range r.IntN(4) {
		s.Notes = append(s.Notes, Note{Object: fmt.Sprintf("app/s%d.%d", r.IntN(4), 1+r.IntN(4)), Task: "x", Reason: "old", Rev: 3})
	}
	slices.SortFunc(s.Notes, func(a, b Note) int { return strings.Compare(a.Object, b.Object) })
	s.Notes = slices.CompactFunc(s.Notes, func(a, b Note) bool { return a.Object == b.Object })
	return s
}

func genService(r *rand.Rand, s *Snapshot, id cluster.ServiceID) {
	var place cluster.Placement
	switch r.IntN(6) {
	case 0:
		place.Constraints = []string{"node.labels.zone==a"}
	case 1:
		place.Constraints = []string{"node.labels.zone != b"}
	case 2:
		place.Constraints = []string{"node.labels.zone=a"}
	}
	if r.IntN(3) == 0 {
		place.Spread = []string{"node.labels.zone"}
	}
	if r.IntN(3) == 0 {
		place.MaxPerNode = 1 + r.IntN(2)
	}
	if r.IntN(8) > 0 {
		s.Services = append(s.Services, cluster.Service{ServiceID: id, Spec: cluster.ServiceSpec{Placement: place}})
	}
	specs := make([]cluster.TaskSpec, 2)
	for i := range specs {
		specs[i] = genSpec(r, string(id.Name))
	}
	global := r.IntN(6) == 0
	for i := range r.IntN(8) {
		v := r.IntN(2)
		t := cluster.Task{
			ID: cluster.TaskID(fmt.Sprintf("%s.%d", id.Name, i)), ServiceID: id, Slot: 1 + r.IntN(5), N: int64(i + 1),
			Version: fmt.Sprint("v", v), Spec: specs[v], Rev: cluster.StoreRev(10 + i),
			Desire: []cluster.Desire{cluster.DesireRun, cluster.DesireRun, cluster.DesireRun, cluster.DesireDrain, cluster.DesireStop}[r.IntN(5)],
		}
		if global {
			t.Node = cluster.NodeID(fmt.Sprint("n", r.IntN(6)))
		}
		at := cluster.NodeID(fmt.Sprint("n", r.IntN(7))) // some are of nodes that are gone
		if r.IntN(10) == 0 {
			t.Outcome = &cluster.Outcome{State: cluster.StateLost, Node: at}
			t.Desire = cluster.DesireStop
		}
		if r.IntN(10) > 0 || t.Spec.HasLocalVolume() {
			s.Tasks = append(s.Tasks, t)
		}
		genRun(r, s, t, at)
	}
}

// genRun gives a task, sometimes, a placement and a status.
func genRun(r *rand.Rand, s *Snapshot, t cluster.Task, at cluster.NodeID) {
	placed := r.IntN(2) == 0
	if placed {
		s.Placements = append(s.Placements, cluster.NodePlacement{
			Task: t.ID, Node: at, ServiceID: t.ServiceID, Slot: t.Slot, Version: t.Version, Spec: t.Spec, Rev: 50,
			Desire: []cluster.Desire{cluster.DesireRun, cluster.DesireRun, cluster.DesireDrain, cluster.DesireStop}[r.IntN(4)],
		})
	}
	if r.IntN(8) == 0 || (placed && r.IntN(2) == 0) {
		state := []cluster.TaskState{cluster.StateRunning, cluster.StateStarting, cluster.StateStopped, cluster.StateFailed}[r.IntN(4)]
		s.Statuses = append(s.Statuses, cluster.Status{Task: t.ID, Node: at, ServiceID: t.ServiceID, Slot: t.Slot, State: state, Rev: 60})
	}
}

func genSpec(r *rand.Rand, name string) cluster.TaskSpec {
	spec := cluster.TaskSpec{Image: name}
	if r.IntN(2) == 0 {
		spec.Resources.ReserveCPU = int64(250 * r.IntN(5))
	}
	if r.IntN(2) == 0 {
		spec.Resources.ReserveMemory = int64(32 * r.IntN(4))
	}
	if r.IntN(5) == 0 {
		spec.Platform = "linux/arm64"
	}
	if r.IntN(4) == 0 {
		spec.NodePorts = []cluster.PublishedPort{{Published: 8000 + r.IntN(2), Protocol: "tcp", HostIP: []string{"", "127.0.0.1", "10.0.0.1"}[r.IntN(3)]}}
	}
	if r.IntN(4) == 0 {
		spec.Mounts = []cluster.Mount{{Type: cluster.MountVolume, Source: "app_" + name, Target: "/data"}}
		if r.IntN(3) == 0 {
			spec.Mounts = append(spec.Mounts, cluster.Mount{Type: cluster.MountVolume, Source: "app_shared", Target: "/shared"})
		}
	}
	return spec
}
