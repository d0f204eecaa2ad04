package rollout_test

import (
	"math/rand/v2"
	"testing"

	"github.com/fairlead/fairlead/cluster"
)

// lie has a stolen node, the first by name, say something of every task.
func (w *world) lie(r *rand.Rand, states ...cluster.TaskState) {
	w.lies = nil
	for _, id := range sorted(w.tasks) {
		t := w.tasks[id]
		state := states[r.IntN(len(states))]
		w.lies = append(w.lies, cluster.Status{
			Task: id, Node: "a-thief", ServiceID: t.ServiceID, Slot: t.Slot, Version: t.Version, State: state, Ready: state == cluster.StateRunning,
			ReadySince: w.now, Started: w.now, Restarts: r.IntN(4), ExitCode: 1,
		})
	}
}

// What a stolen node says of tasks that are not placed, placed elsewhere or ended elsewhere
// changes nothing: a release goes as it would, with all replicas there, and one that cannot
// be placed takes no good task away.
func TestLawAThiefIsNotBelieved(t *testing.T) {
	states := []cluster.TaskState{cluster.StateRunning, cluster.StateFailed, cluster.StateComplete, cluster.StateStopped, cluster.StateStarting}
	for seed, r := range seeds(t, 40) {
		w := newWorld(t, seed, 3)
		for id := range w.nodes {
			w.label(id, "a")
		}
		w.node("a-thief")
		said := states[:1+r.IntN(len(states))]
		const n = 3
		here := func(s *cluster.ServiceSpec) { s.Placement.Constraints = []string{"node.labels.zone==a"} }
		v1, v2 := version("v1"), version("v2")
		all := func() {
			t.Helper()
			w.lie(r, said...)
			if got := w.ready("web", v1) + w.ready("web", v2); got < n {
				t.Fatalf("seed %d: %d of %d serve\n%s", seed, got, n, w.dump())
			}
		}
		w.deploy(specs{"web": spec("v1", n, here)})
		w.run(func() { w.lie(r, said...) })
		w.expect("web", v1, n, cluster.RolloutComplete)
		w.noPlaces = true
		w.deploy(specs{"web": spec("v2", n, here)})
		w.steps(20, all)
		for id, x := range w.tasks {
			if x.Version == v2 && (x.Outcome != nil || x.Desire != cluster.DesireRun) {
				t.Fatalf("seed %d: %s, which has no place, is to %s: %+v", seed, id, x.Desire, x.Outcome)
			}
		}
		w.noPlaces = false
		w.run(all)
		w.expect("web", v2, n, cluster.RolloutComplete)
		w.deploy(specs{})
		w.run(func() { w.lie(r, said...) })
		if len(w.tasks) > 0 {
			t.Fatalf("seed %d: a thief keeps what was removed\n%s", seed, w.dump())
		}
	}
}
