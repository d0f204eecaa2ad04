package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/cluster"
)

var web = cluster.ServiceID{App: "shop", Name: "web"}

// world builds snapshots in few words.
type world struct{ Snapshot }

func (w *world) node(id string, cpu, memory int64, change ...func(*cluster.Node)) *world {
	n := cluster.Node{
		NodeSpec: cluster.NodeSpec{ID: cluster.NodeID(id)},
		Info:     cluster.NodeInfo{Hostname: "host-" + id, CPU: cpu, Memory: memory, OS: "linux", Arch: "amd64", Address: "10.0.0.1"},
		Alive:    true,
	}
	for _, f := range change {
		f(&n)
	}
	w.Nodes = append(w.Nodes, n)
	return w
}

func zone(v string) func(*cluster.Node) {
	return func(n *cluster.Node) { n.Labels = map[string]string{"zone": v} }
}

func (w *world) service(id cluster.ServiceID, p cluster.Placement) *world {
	w.Services = append(w.Services, cluster.Service{ServiceID: id, Spec: cluster.ServiceSpec{Placement: p}})
	return w
}

func (w *world) task(id cluster.ServiceID, slot int, spec cluster.TaskSpec, change ...func(*cluster.Task)) *world {
	t := cluster.Task{
		ID: cluster.TaskID(fmt.Sprintf("%s.%d.%d", id.Name, slot, len(w.Tasks))), ServiceID: id, Slot: slot,
		Version: spec.Hash(), Spec: spec, Desire: cluster.DesireRun, N: int64(len(w.Tasks) + 1), Rev: 5,
	}
	for _, f := range change {
		f(&t)
	}
	w.Tasks = append(w.Tasks, t)
	return w
}

// on places the last task.
func (w *world) on(node string, state cluster.TaskState) *world {
	t := w.Tasks[len(w.Tasks)-1]
	w.Placements = append(w.Placements, cluster.NodePlacement{
		Task: t.ID, Node: cluster.NodeID(node), ServiceID: t.ServiceID, Slot: t.Slot, Version: t.Version, Spec: t.Spec, Desire: cluster.DesireRun, Rev: 9,
	})
	if state != "" {
		w.Statuses = append(w.Statuses, cluster.Status{Task: t.ID, Node: cluster.NodeID(node), ServiceID: t.ServiceID, Slot: t.Slot, State: state})
	}
	return w
}

// brief writes a plan in one line an action.
func brief(acts []Action) []string {
	out := []string{}
	for _, a := range acts {
		switch a := a.(type) {
		case Place:
			out = append(out, fmt.Sprintf("place %s on %s", a.Placement.Task, a.Placement.Node))
		case SetDesire:
			out = append(out, fmt.Sprintf("%s %s", a.Placement.Desire, a.Placement.Task))
		case Remove:
			out = append(out, fmt.Sprintf("remove %s from %s: %s", a.Placement.Task, a.Placement.Node, a.Reason))
		case Unplaced:
			out = append(out, fmt.Sprintf("refuse %s: %s", a.Task, a.Reason))
		case Forget:
			out = append(out, "forget "+a.Note.Object)
		}
	}
	return out
}

func reserve(cpu, memory int64) cluster.TaskSpec {
	return cluster.TaskSpec{Image: "i", Resources: cluster.Resources{ReserveCPU: cpu, ReserveMemory: memory}}
}

func withVolume(names ...string) cluster.TaskSpec {
	s := cluster.TaskSpec{Image: "i"}
	for _, n := range names {
		s.Mounts = append(s.Mounts, cluster.Mount{Type: cluster.MountVolume, Source: n, Target: "/" + n})
	}
	return s
}

// places adds that slot 1 of web had its volume on b, and slot 2 on a node that is gone.
func places(w *world) *world {
	w.Kept = []cluster.VolumePlaces{{ServiceID: web, Slots: map[int]cluster.VolumePlace{
		1: {Node: "b", Volumes: []string{"data"}, Ended: 7}, 2: {Node: "gone", Volumes: []string{"data"}, Ended: 9},
	}}}
	return w
}

func withPort(ip string) cluster.TaskSpec {
	return cluster.TaskSpec{Image: "i", NodePorts: []cluster.PublishedPort{{Published: 5432, Target: 5432, Protocol: "tcp", HostIP: ip}}}
}

func desire(d cluster.Desire) func(*cluster.Task) {
	return func(t *cluster.Task) { t.Desire = d }
}

func TestPlan(t *testing.T) {
	plain := cluster.TaskSpec{Image: "i"}
	other := cluster.TaskSpec{Image: "j"}
	db := cluster.ServiceID{App: "shop", Name: "db"}
	for _, tc := range []struct {
		name string
		in   *world
		want []string
	}{
		{"nothing", &world{}, nil},
		{
			"no node at all", (&world{}).service(web, cluster.Placement{}).task(web, 1, plain),
			[]string{"refuse web.1.0: no suitable node (the cluster has none)"},
		},
		{
			"spread over nodes", (&world{}).node("a", 1000, 100).node("b", 1000, 100).service(web, cluster.Placement{}).
				task(web, 1, plain).task(web, 2, plain).task(web, 3, plain),
			[]string{"place web.1.0 on a", "place web.2.1 on b", "place web.3.2 on a"},
		},
		{
			"the fewest tasks of the service come before the least loaded",
			(&world{}).node("a", 8000, 100).node("b", 1000, 100).service(web, cluster.Placement{}).service(db, cluster.Placement{}).
				task(web, 1, plain).on("a", cluster.StateRunning).task(db, 1, reserve(900, 0)).on("b", cluster.StateRunning).task(web, 2, plain),
			[]string{"place web.2.2 on b"},
		},
		{
			"the least reserved", (&world{}).node("a", 1000, 100).node("b", 4000, 100).service(web, cluster.Placement{}).
				task(web, 1, reserve(500, 0)),
			[]string{"place web.1.0 on b"},
		},
		{
			"what is even fits best", (&world{}).node("a", 1000, 1000).node("b", 1000, 510).service(web, cluster.Placement{}).
				task(web, 1, reserve(500, 255)),
			[]string{"place web.1.0 on b"},
		},
		{
			"every refusal is counted",
			(&world{}).node("a", 1000, 100, func(n *cluster.Node) { n.Alive = false }).
				node("b", 1000, 100, func(n *cluster.Node) { n.Availability = cluster.Drain }).
				node("c", 1000, 100, func(n *cluster.Node) { n.Availability = cluster.Pause }).
				node("d", 500, 1<<20, zone("x")).node("e", 9000, 1<<20, zone("y")).
				node("f", 1000, 100, func(n *cluster.Node) { n.Info.EngineAway = true }).
				service(web, cluster.Placement{Constraints: []string{"node.labels.zone==x"}}).task(web, 1, reserve(2000, 2<<20)),
			[]string{"refuse web.1.0: no suitable node (1 node down; 1 node without a Docker engine that answers; 1 node paused; 1 node drained; scheduling constraints not satisfied on 1 node, " +
				"e: node.labels.zone==x, has y; insufficient resources on 1 node, d: needs 2 CPU, 0.5 free; needs 2M of memory, 1M free)"},
		},
		{
			"a constraint that is none", (&world{}).node("a", 1, 1).service(web, cluster.Placement{Constraints: []string{"zone = a"}}).task(web, 1, plain),
			[]string{`refuse web.1.0: placement constraint "zone = a" has neither == nor !=: write for example node.labels.zone==a`},
		},
		{
			"spread over zones comes first",
			(&world{}).node("a", 1, 1, zone("1")).node("b", 1, 1, zone("1")).node("c", 1, 1, zone("2")).
				service(web, cluster.Placement{Spread: []string{"node.labels.zone"}}).
				task(web, 1, plain).task(web, 2, plain).task(web, 3, plain).task(web, 4, plain),
			[]string{"place web.1.0 on a", "place web.2.1 on c", "place web.3.2 on b", "place web.4.3 on c"},
		},
		{
			"host ports", (&world{}).node("a", 1, 1).node("b", 1, 1).service(web, cluster.Placement{}).service(db, cluster.Placement{}).
				task(db, 1, withPort("127.0.0.1")).on("a", cluster.StateRunning).task(web, 1, withPort("")).task(web, 2, withPort("")),
			[]string{"place web.1.1 on b", "refuse web.2.2: no suitable node (host-mode port already in use on 2 nodes)"},
		},
		{
			"host ports on other addresses do not clash",
			(&world{}).node("a", 1, 1).service(web, cluster.Placement{}).service(db, cluster.Placement{}).
				task(db, 1, withPort("127.0.0.1")).on("a", cluster.StateRunning).task(web, 1, withPort("10.0.0.1")),
			[]string{"place web.1.1 on a"},
		},
		{
			"max_per_node counts slots, so that an update can start first",
			(&world{}).node("a", 1, 1).service(web, cluster.Placement{MaxPerNode: 1}).
				task(web, 1, plain).on("a", cluster.StateRunning).task(web, 1, other).task(web, 2, plain),
			[]string{"place web.1.1 on a", "refuse web.2.2: no suitable node (max_per_node 1 reached on 1 node, a: has 2)"},
		},
		{
			"an update keeps the spread",
			(&world{}).node("a", 1, 1).node("b", 1, 1).service(web, cluster.Placement{}).
				task(web, 1, other).on("a", cluster.StateRunning).
				task(web, 2, plain).on("b", cluster.StateRunning).task(web, 2, other),
			[]string{"place web.2.2 on b"},
		},
		{
			"a slot stays with its volume, though the node is down",
			(&world{}).node("a", 1, 1, func(n *cluster.Node) { n.Alive = false }).node("b", 1, 1).service(web, cluster.Placement{}).
				task(web, 1, withVolume("data"), func(t *cluster.Task) {
					t.Desire, t.Outcome = cluster.DesireStop, &cluster.Outcome{State: cluster.StateStopped, Node: "a"}
				}).task(web, 1, withVolume("data")).task(web, 2, withVolume("data")),
			[]string{"place web.2.2 on b", "refuse web.1.1: no suitable node (1 node down; volume data is on lost node a, not on 1 node)"},
		},
		{
			"a volume on a node that was removed is waited for",
			removedWithVolume(),
			[]string{"stop web.1.0", "refuse web.1.1: no suitable node (volume data is on lost node a, not on 1 node)"},
		},
		{
			"until it is given up",
			func() *world { w := removedWithVolume(); w.Lost = []cluster.NodeID{"a", "b"}; return w }(), // b is there again
			[]string{"remove web.1.0 from a: its node is gone", "place web.1.1 on b"},
		},
		{
			"a slot that nobody speaks of any more goes where its volume is",
			places((&world{}).node("a", 1, 1).node("b", 1, 1).service(web, cluster.Placement{}).task(web, 1, withVolume("data")).task(web, 2, withVolume("data"))),
			[]string{"place web.1.0 on b", "refuse web.2.1: no suitable node (volume data is on lost node gone, not on 2 nodes)"},
		},
		{
			"the last task that had it counts more",
			places((&world{}).node("a", 1, 1).node("b", 1, 1).service(web, cluster.Placement{}).
				task(web, 1, withVolume("data"), func(t *cluster.Task) {
					t.Desire, t.Outcome = cluster.DesireStop, &cluster.Outcome{State: cluster.StateStopped, Node: "a"}
				}).task(web, 1, withVolume("data"))),
			[]string{"place web.1.1 on a"},
		},
		{
			"another service goes to the volume of one that was removed",
			places((&world{}).node("a", 1, 1).node("b", 1, 1).service(db, cluster.Placement{}).task(db, 1, withVolume("data"))),
			[]string{"place db.1.0 on b"},
		},
		{
			"a global service's volumes are those of its nodes",
			places((&world{}).node("a", 1, 1).node("b", 1, 1).service(web, cluster.Placement{}).
				task(web, 1, withVolume("data"), func(t *cluster.Task) { t.Node = "a" })),
			[]string{"place web.1.0 on a"},
		},
		{
			"a volume on a file server",
			places((&world{}).node("a", 1, 1).node("b", 1, 1).service(web, cluster.Placement{}).task(web, 2, func() cluster.TaskSpec {
				s := withVolume("data")
				s.Mounts[0].DriverOpts = map[string]string{"type": "nfs"}
				return s
			}())),
			[]string{"place web.2.0 on a"},
		},
		{
			"a volume shared with another service",
			(&world{}).node("a", 1, 1).node("b", 1, 1).service(web, cluster.Placement{}).service(db, cluster.Placement{}).
				task(db, 1, withVolume("data")).task(web, 1, withVolume("data")).task(web, 2, withVolume("data")),
			[]string{"place db.1.0 on a", "place web.1.1 on a", "place web.2.2 on a"},
		},
		{
			"spread over the few nodes that have a shared volume",
			(&world{}).node("a", 1, 1, zone("1")).node("b", 1, 1, zone("1")).node("c", 1, 1, zone("2")).
				service(web, cluster.Placement{Spread: []string{"node.labels.zone"}}).service(db, cluster.Placement{}).
				task(db, 1, withVolume("data")).on("a", cluster.StateRunning).task(db, 2, withVolume("data")).on("c", cluster.StateRunning).
				task(web, 1, plain).on("b", cluster.StateRunning).task(web, 2, withVolume("data")),
			[]string{"place web.2.3 on c"},
		},
		{
			"a global task stays where it belongs",
			(&world{}).node("a", 1, 1).node("b", 1, 1, func(n *cluster.Node) { n.Alive = false }).service(web, cluster.Placement{}).
				task(web, 1, plain, func(t *cluster.Task) { t.Node = "b" }).task(web, 2, plain, func(t *cluster.Task) { t.Node = "a" }).
				task(web, 3, plain, func(t *cluster.Task) { t.Node = "gone" }),
			[]string{
				"place web.2.1 on a", "refuse web.1.0: no suitable node (1 node down)",
				"refuse web.3.2: no suitable node (node gone is not part of the cluster)",
			},
		},
		{
			"a task that runs without a placement keeps its node",
			func() *world {
				w := (&world{}).node("a", 1, 1).node("b", 1, 1).service(web, cluster.Placement{}).task(web, 1, plain)
				w.Statuses = []cluster.Status{{Task: "web.1.0", Node: "b", State: cluster.StateRunning}}
				return w
			}(),
			[]string{"place web.1.0 on b"},
		},
		{
			"of a task without a placement no node knows how it ended",
			func() *world {
				w := (&world{}).node("a", 1, 1).node("b", 1, 1).service(web, cluster.Placement{}).task(web, 1, plain)
				w.Statuses = []cluster.Status{{Task: "web.1.0", Node: "b", State: cluster.StateComplete}}
				return w
			}(),
			[]string{"place web.1.0 on a"},
		},
		{
			"a node that may not have a task cannot hold it by saying that it runs there",
			func() *world {
				w := (&world{}).node("a", 1, 1).node("b", 1, 1, zone("1")).node("down", 1, 1, zone("1"), func(n *cluster.Node) { n.Alive = false }).
					service(web, cluster.Placement{Constraints: []string{"node.labels.zone==1"}}).
					task(web, 1, plain).task(web, 2, plain).task(web, 3, plain, func(t *cluster.Task) { t.Node = "b" })
				for i, n := range []cluster.NodeID{"a", "down", "gone"} {
					for slot := range 3 {
						w.Statuses = append(w.Statuses, cluster.Status{Task: cluster.TaskID(fmt.Sprintf("web.%d.%d", slot+1, slot)), Node: n, State: cluster.StateRunning, Rev: cluster.StoreRev(i)})
					}
				}
				return w
			}(),
			[]string{"place web.1.0 on b", "place web.2.1 on b", "place web.3.2 on b"},
		},
		{
			"nor hide the one where it does run",
			func() *world {
				w := (&world{}).node("a", 1, 1).node("b", 1, 1, zone("1")).node("c", 1, 1, zone("1")).
					service(web, cluster.Placement{Constraints: []string{"node.labels.zone==1"}}).task(web, 1, plain)
				w.Statuses = []cluster.Status{
					{Task: "web.1.0", Node: "a", State: cluster.StateRunning}, {Task: "web.1.0", Node: "c", State: cluster.StateRunning},
				}
				return w
			}(),
			[]string{"place web.1.0 on c"},
		},
		{
			"desires follow, forward only",
			func() *world {
				w := (&world{}).node("a", 1, 1).service(web, cluster.Placement{}).
					task(web, 1, plain, desire(cluster.DesireDrain)).on("a", cluster.StateRunning).
					task(web, 2, plain, desire(cluster.DesireStop)).on("a", cluster.StateRunning).
					task(web, 3, plain, desire(cluster.DesireRun)).on("a", cluster.StateRunning).
					task(web, 4, plain).on("a", cluster.StateRunning)
				w.Placements[2].Desire = cluster.DesireDrain
				w.Tasks = w.Tasks[:3]
				return w
			}(),
			[]string{"drain web.1.0", "stop web.2.1", "stop web.4.3"},
		},
		{
			"a placement goes when the end is on record, and makes room before that",
			func() *world {
				ended := func(t *cluster.Task) {
					t.Desire, t.Outcome = cluster.DesireStop, &cluster.Outcome{State: cluster.StateFailed}
				}
				w := (&world{}).node("a", 1000, 1).service(web, cluster.Placement{}).
					task(web, 1, reserve(500, 0), ended).on("a", cluster.StateFailed).
					task(web, 2, reserve(500, 0)).on("a", cluster.StateComplete).
					task(web, 3, reserve(500, 0)).task(web, 4, reserve(500, 0))
				w.Notes = []Note{{Object: "shop/web.3", Rev: 4}, {Object: "shop/old.1", Rev: 4}}
				return w
			}(),
			[]string{
				"remove web.1.0 from a: the task ended: failed", "place web.3.2 on a", "place web.4.3 on a",
				"forget shop/old.1", "forget shop/web.3",
			},
		},
		{
			"to the last byte and thousandth", (&world{}).node("a", 1000, 1000).service(web, cluster.Placement{}).service(db, cluster.Placement{}).
				task(db, 1, reserve(1000, 1000)).task(web, 2, reserve(1, 0)),
			[]string{"place db.1.0 on a", "refuse web.2.1: no suitable node (insufficient resources on 1 node, a: needs 0.001 CPU, 0 free)"},
		},
		{
			"not a thousandth more", (&world{}).node("a", 1000, 1000).service(web, cluster.Placement{}).service(db, cluster.Placement{}).
				task(db, 1, reserve(1001, 0)).task(web, 2, reserve(0, 1001)),
			[]string{
				"refuse db.1.0: no suitable node (insufficient resources on 1 node, a: needs 1.001 CPU, 1 free)",
				"refuse web.2.1: no suitable node (insufficient resources on 1 node, a: needs 1001B of memory, 1000B free)",
			},
		},
		{
			"platform", (&world{}).node("a", 1, 1).node("b", 1, 1, func(n *cluster.Node) { n.Info.Arch = "aarch64" }).service(web, cluster.Placement{}).
				service(db, cluster.Placement{}).task(web, 1, cluster.TaskSpec{Platform: "linux/arm64/v8"}).task(db, 1, cluster.TaskSpec{Platform: "windows"}),
			[]string{"place web.1.0 on b", "refuse db.1.1: no suitable node (platform windows not available on 2 nodes)"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(append([]string{}, tc.want...), brief(Plan(tc.in.Snapshot))); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPlacementCarriesTheTask(t *testing.T) {
	w := (&world{}).node("a", 1, 1, func(n *cluster.Node) { n.Rev = 3 }).task(web, 2, cluster.TaskSpec{Image: "i"}, func(t *cluster.Task) { t.Release = 4 })
	restart := cluster.RestartPolicy{Condition: "on-failure", MaxAttempts: 2}
	w.Services = []cluster.Service{{ServiceID: web, Spec: cluster.ServiceSpec{Restart: restart}}}
	task := w.Tasks[0]
	want := []Action{Place{
		Placement: cluster.NodePlacement{
			Task: task.ID, Node: "a", ServiceID: web, Slot: 2, Version: task.Version, Release: 4, Spec: task.Spec, Restart: restart, Desire: cluster.DesireRun,
		},
		TaskRev: 5, NodeRev: 3,
	}}
	if diff := cmp.Diff(want, Plan(w.Snapshot)); diff != "" {
		t.Error(diff)
	}
}

func TestNoteIsWrittenOnce(t *testing.T) {
	w := (&world{}).service(web, cluster.Placement{}).task(web, 1, cluster.TaskSpec{Image: "i"})
	first, ok := Plan(w.Snapshot)[0].(Unplaced)
	if !ok || first.Noted || first.NoteRev != 0 {
		t.Fatalf("first: %+v", first)
	}
	w.Notes = []Note{{Object: "shop/web.1", Task: first.Task, Reason: first.Reason, Rev: 8}}
	again, ok := Plan(w.Snapshot)[0].(Unplaced)
	if !ok || !again.Noted {
		t.Fatalf("the same reason is written again: %+v", again)
	}
	w.Notes[0].Reason = "another"
	changed, ok := Plan(w.Snapshot)[0].(Unplaced)
	if !ok || changed.Noted || changed.NoteRev != 8 {
		t.Fatalf("another reason is not written over revision 8: %+v", changed)
	}
}

// TestRollingUpdateStaysSpread replaces every task of a service, start-first,
// in any order of slots, and looks at the spread after it.
func TestRollingUpdateStaysSpread(t *testing.T) {
	const replicas = 10
	w := (&world{}).service(web, cluster.Placement{})
	for i := range 5 {
		w.node(fmt.Sprint("n", i), 4000, 1<<30)
	}
	for slot := range replicas {
		w.task(web, slot+1, reserve(100, 0))
	}
	w.Snapshot = apply(w.Snapshot, Plan(w.Snapshot))
	next := reserve(100, 1)
	for _, slot := range []int{7, 1, 4, 10, 2, 3, 9, 5, 8, 6} {
		w.task(web, slot, next)
		w.Snapshot = apply(w.Snapshot, Plan(w.Snapshot))
		old := w.Tasks[slot-1].ID
		w.Placements = slices.DeleteFunc(w.Placements, func(p cluster.NodePlacement) bool { return p.Task == old })
		w.Tasks[slot-1].Desire = cluster.DesireStop
	}
	count := map[cluster.NodeID]int{}
	for _, p := range w.Placements {
		count[p.Node]++
	}
	want := map[cluster.NodeID]int{"n0": 2, "n1": 2, "n2": 2, "n3": 2, "n4": 2}
	if !maps.Equal(count, want) {
		t.Errorf("tasks by node after the update: %v", count)
	}
}

// removedWithVolume is a task whose last one was on a, which was removed.
func removedWithVolume() *world {
	return (&world{}).node("b", 1, 1).service(web, cluster.Placement{}).
		task(web, 1, withVolume("data"), desire(cluster.DesireStop)).on("a", "").
		task(web, 1, withVolume("data"))
}

// TestForeignNetworks: an external network is the cluster's when some app declares
// it without external, also one without a task.
func TestForeignNetworks(t *testing.T) {
	on := func(refs ...cluster.NetworkRef) cluster.TaskSpec { return cluster.TaskSpec{Networks: refs} }
	w := (&world{}).node("n1", 1000, 1<<30)
	w.service(web, cluster.Placement{}).task(web, 1, on(
		cluster.NetworkRef{Name: "shop_default"}, cluster.NetworkRef{Name: "shared", External: true}, cluster.NetworkRef{Name: "proxy", External: true},
	))
	for name, ref := range map[cluster.ServiceName]cluster.NetworkRef{"a": {Name: "shared"}, "b": {Name: "proxy", External: true}} {
		w.service(cluster.ServiceID{App: "blog", Name: name}, cluster.Placement{})
		w.Services[len(w.Services)-1].Spec.Task = on(ref)
	}
	for _, a := range Plan(w.Snapshot) {
		if p, ok := a.(Place); !ok || !slices.Equal(p.Placement.Foreign, []cluster.NetworkName{"proxy"}) {
			t.Errorf("%+v", a)
		}
	}
}

// TestWhy: a placement says what decided for its node when it was made, in few bytes.
func TestWhy(t *testing.T) {
	reserves := func(cpu, memory int64) cluster.TaskSpec {
		return cluster.TaskSpec{Resources: cluster.Resources{ReserveCPU: cpu, ReserveMemory: memory}}
	}
	drained := func(n *cluster.Node) { n.Availability = cluster.Drain }
	db := cluster.ServiceID{App: "shop", Name: "db"}
	long := "node.labels.zone==" + strings.Repeat("z", 200)
	three := func() *world {
		return (&world{}).node("n1", 1000, 1000).node("n2", 1000, 1000).node("n3", 1000, 1000, drained)
	}
	for name, c := range map[string]struct {
		w    *world
		want string
	}{
		"no choice":          {(&world{}).node("n1", 1000, 1000).service(web, cluster.Placement{}).task(web, 1, cluster.TaskSpec{}), ""},
		"only one is left":   {three().node("n4", 100, 1000).service(web, cluster.Placement{Constraints: []string{"node.id!=n1"}}).task(web, 1, reserves(500, 0)), "the only one of 4 nodes that could take it; n3: drained; n1: node.id!=n1, has n1; n4: needs 0.5 CPU, 0.1 free"},
		"tasks of a service": {three().service(web, cluster.Placement{}).task(web, 1, cluster.TaskSpec{}).on("n1", cluster.StateRunning).task(web, 2, cluster.TaskSpec{}), "the best of the 2 nodes that could take it (fewest tasks of the service 0, on n1 1); n3: drained"},
		"room": {
			three().service(web, cluster.Placement{}).service(db, cluster.Placement{}).task(db, 1, reserves(600, 0)).on("n1", cluster.StateRunning).task(web, 1, reserves(200, 0)),
			"the best of the 2 nodes that could take it (most room: reserved with it 20 %, on n1 80 %); n3: drained",
		},
		"tasks": {
			three().service(web, cluster.Placement{}).service(db, cluster.Placement{}).task(db, 1, cluster.TaskSpec{}).on("n1", cluster.StateRunning).task(web, 1, cluster.TaskSpec{}),
			"the best of the 2 nodes that could take it (fewest tasks 0, on n1 1); n3: drained",
		},
		"spread": {
			(&world{}).node("n1", 1000, 1000, zone("a")).node("n2", 1000, 1000, zone("a")).node("n3", 1000, 1000, zone("b")).
				service(web, cluster.Placement{Spread: []string{"node.labels.zone"}}).task(web, 1, cluster.TaskSpec{}).on("n1", cluster.StateRunning).task(web, 2, cluster.TaskSpec{}),
			"the best of the 3 nodes that could take it (fewest tasks of the service by node.labels.zone 0, on n2 1)",
		},
		"the name": {three().service(web, cluster.Placement{}).task(web, 1, cluster.TaskSpec{}), "the best of the 2 nodes that could take it (n2 is as good, the first name decides); n3: drained"},
		"too long": {
			(&world{}).node("n1", 1000, 1000).node("n2", 1000, 1000, zone(strings.Repeat("z", 200))).service(web, cluster.Placement{Constraints: []string{long}}).task(web, 1, cluster.TaskSpec{}),
			("the only one of 2 nodes that could take it; n1: " + long)[:maxWhy-len("…")] + "…",
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, a := range Plan(c.w.Snapshot) {
				p, ok := a.(Place)
				if !ok || p.Placement.Why != c.want || len(p.Placement.Why) > maxWhy {
					t.Errorf("%+v\nwant %s", a, c.want)
				}
			}
		})
	}
	large := big(whyNodes+1, 1, 1, nil)
	if p, ok := Plan(large)[0].(Place); !ok || p.Placement.Why != "" {
		t.Errorf("looks through %d nodes: %q", len(large.Nodes), p.Placement.Why)
	}
}
