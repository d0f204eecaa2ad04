package rollout_test

import (
	"encoding/json"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/rollout"
)

// seeds yields so many seeds, each with its dice; a failing case is one number. With
// FAIRLEAD_LAWS=N (make laws) there are N times as many.
func seeds(t *testing.T, n uint64) iter.Seq2[uint64, *rand.Rand] {
	t.Helper()
	times := uint64(1)
	if s := os.Getenv("FAIRLEAD_LAWS"); s != "" {
		var err error
		if times, err = strconv.ParseUint(s, 10, 16); err != nil {
			t.Fatalf("FAIRLEAD_LAWS: %v", err)
		}
	}
	return func(yield func(uint64, *rand.Rand) bool) {
		for seed := range n * times {
			if !yield(seed, rand.New(rand.NewPCG(seed, 7))) {
				return
			}
		}
	}
}

// drawSpec draws a replicated service and an update policy.
func drawSpec(r *rand.Rand, image string, replicas int, order string) cluster.ServiceSpec {
	return spec(image, replicas, func(s *cluster.ServiceSpec) {
		s.Update = cluster.UpdatePolicy{Order: order, Parallelism: r.IntN(4)}
		if r.IntN(3) == 0 {
			s.Update.Delay = cluster.Duration(time.Duration(r.IntN(20)) * time.Second)
		}
		s.Rollback = cluster.UpdatePolicy{Order: order, Parallelism: r.IntN(3)}
	})
}

func parallelism(s cluster.UpdatePolicy, replicas int) int {
	if s.Parallelism > 0 {
		return s.Parallelism
	}
	return max(1, replicas/4)
}

// A working update with start-first: never more tasks than replicas +
// parallelism, never fewer endpoints than replicas, exactly the replicas in the end.
func TestLawStartFirst(t *testing.T) {
	for seed, r := range seeds(t, 24) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed, 1+r.IntN(3))
			n := 1 + r.IntN(8)
			w.deploy(map[string]cluster.ServiceSpec{"web": spec("v1", n)})
			w.run(nil)
			w.expect("web", version("v1"), n, cluster.RolloutComplete)
			if r.IntN(4) == 0 {
				w.deaf["n1"] = true // acknowledges nothing: the bound must let the rollout go on
			}
			next := drawSpec(r, "v2", n, "start-first")
			w.deploy(map[string]cluster.ServiceSpec{"web": next})
			w.run(func() {
				ended := map[int]int{}
				for _, x := range w.tasks {
					if x.Outcome != nil && w.placements[x.ID].Task == "" && w.statuses[x.ID].Task == "" {
						if ended[x.Slot]++; ended[x.Slot] > 3 { // two, and one that this plan may have ended
							t.Fatalf("%d ended tasks kept in slot %d\n%s", ended[x.Slot], x.Slot, w.dump())
						}
					}
				}
				if got := len(w.live("web")); got > n+parallelism(next.Update, n) {
					t.Fatalf("%d tasks, at most %d + %d\n%s", got, n, parallelism(next.Update, n), w.dump())
				}
				if got := len(w.endpoints[sid("web")].Tasks); got < n {
					t.Fatalf("%d endpoints of %d during a rollout\n%s", got, n, w.dump())
				}
			})
			w.expect("web", version("v2"), n, cluster.RolloutComplete)
			if w.deaf["n1"] != (len(w.explained) > 0) {
				t.Fatalf("node deaf: %v, decisions on record: %v", w.deaf["n1"], w.explained)
			}
			if o := w.outcomes["shop2"]; o.State != "complete" {
				t.Fatalf("release outcome: %+v", o)
			}
		})
	}
}

// Stop-first: never two tasks in a slot, never more than parallelism missing.
func TestLawStopFirst(t *testing.T) {
	for seed, r := range seeds(t, 16) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed, 2)
			n := 1 + r.IntN(6)
			w.deploy(map[string]cluster.ServiceSpec{"web": spec("v1", n)})
			w.run(nil)
			next := drawSpec(r, "v2", n, "stop-first")
			if r.IntN(2) == 0 {
				next.Update.Order = "" // by default, for the volume
				next.Task.Mounts = []cluster.Mount{{Type: cluster.MountVolume, Source: "shop_data", Target: "/data"}}
			}
			w.deploy(map[string]cluster.ServiceSpec{"web": next})
			w.run(func() {
				slots := map[int]int{}
				for _, x := range w.live("web") {
					if slots[x.Slot]++; slots[x.Slot] > 1 {
						t.Fatalf("two tasks in slot %d\n%s", x.Slot, w.dump())
					}
				}
				if got := len(w.endpoints[sid("web")].Tasks); got < n-parallelism(next.Update, n) {
					t.Fatalf("%d endpoints of %d, parallelism %d\n%s", got, n, parallelism(next.Update, n), w.dump())
				}
			})
			w.expect("web", next.Task.Hash(), n, cluster.RolloutComplete)
		})
	}
}

// A target that always fails: the service goes back by itself, and with
// start-first no endpoint is missing at any time.
func TestLawRollback(t *testing.T) {
	for seed, r := range seeds(t, 24) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed, 1+r.IntN(3))
			n := 1 + r.IntN(8)
			w.deploy(map[string]cluster.ServiceSpec{"web": spec("v1", n)})
			w.run(nil)
			order := []string{"start-first", "stop-first"}[r.IntN(2)]
			next := drawSpec(r, "v2", n, order)
			how := []string{"exit", "restart", "unready", "never"}[r.IntN(4)]
			w.fails[next.Task.Hash()] = how
			w.deploy(map[string]cluster.ServiceSpec{"web": next})
			lost := parallelism(next.Update, n)
			if order == "start-first" {
				lost = 0
			}
			w.run(func() {
				// What starts and then crashes is ready for a while, and takes an old task's place.
				if got := len(w.endpoints[sid("web")].Tasks); got < n-lost && how != "restart" {
					t.Fatalf("%d endpoints of %d while going back\n%s", got, n, w.dump())
				}
			})
			w.expect("web", version("v1"), n, cluster.RolloutRolledBack)
			rec := w.rollouts[sid("web")]
			if rec.Message == "" || rec.Target != next.Task.Hash() || (how == "exit" && len(rec.Tail) == 0) {
				t.Fatalf("record says too little: %+v", rec)
			}
			if o := w.outcomes["shop2"]; o.State != "failed" || o.Message == "" {
				t.Fatalf("release outcome: %+v", o)
			}
			made := rec.NextTask
			w.now = w.now.Add(time.Hour)
			w.run(nil)
			if got := w.rollouts[sid("web")].NextTask; got != made {
				t.Fatalf("the failed target was tried again by itself: %d tasks, then %d", made, got)
			}
			delete(w.fails, next.Task.Hash()) // the same again, and now it works
			w.deploy(map[string]cluster.ServiceSpec{"web": next})
			w.run(nil)
			w.expect("web", next.Task.Hash(), n, cluster.RolloutComplete)
		})
	}
}

// shut makes a node take tasks, or not, as the dice say.
func (w *world) shut(r *rand.Rand, id cluster.NodeID) {
	n := w.nodes[id]
	n.Availability = []cluster.Availability{cluster.Active, cluster.Drain, cluster.Pause}[r.IntN(3)]
	w.nodes[id] = n
}

// cut cuts a node off, or lets it come back.
func (w *world) cut(id cluster.NodeID) {
	n := w.nodes[id]
	n.Alive, n.Since = !n.Alive, w.now
	w.nodes[id] = n
}

func (w *world) drain(id cluster.NodeID) {
	n := w.nodes[id]
	n.Availability = cluster.Drain
	w.nodes[id] = n
}

// mend brings all nodes back.
func (w *world) mend() {
	for id, n := range w.nodes {
		n.Alive, n.Availability = true, cluster.Active
		w.nodes[id] = n
	}
}

// Anything at any time: deploys, scaling, crashes, drained and lost nodes. When
// that ends, the service is what it should be, or what it was.
func TestLawChaos(t *testing.T) {
	for seed, r := range seeds(t, 32) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed, 3)
			w.lostAfter = 20 * time.Second
			n, image := 1+r.IntN(5), "v1"
			w.deploy(map[string]cluster.ServiceSpec{"web": drawSpec(r, image, n, ""), "api": spec("api", 2)})
			w.crash = 0.02
			for range 12 {
				switch r.IntN(8) {
				case 7:
					w.label(cluster.NodeID(fmt.Sprint("n", 1+r.IntN(3))), []string{"a", "b"}[r.IntN(2)])
				case 0:
					image = fmt.Sprint("v", 1+r.IntN(4))
					w.deploy(map[string]cluster.ServiceSpec{"web": drawSpec(r, image, n, ""), "api": spec("api", 2, zoneA)})
				case 1:
					n = r.IntN(7)
					w.scale("web", n)
				case 2:
					w.fails[version(fmt.Sprint("v", 2+r.IntN(3)))] = []string{"exit", "restart", "unready"}[r.IntN(3)]
				case 3:
					w.shut(r, "n2")
				case 4:
					w.cut("n3")
				case 5:
					w.deploy(map[string]cluster.ServiceSpec{"api": spec("api", 2)}) // web is removed
					w.steps(r.IntN(30), nil)
					w.deploy(map[string]cluster.ServiceSpec{"web": drawSpec(r, image, n, ""), "api": spec("api", 2, zoneA)})
				}
				w.steps(r.IntN(60), nil)
			}
			w.crash, w.fails = 0, map[string]string{}
			w.mend()
			w.label(cluster.NodeID(fmt.Sprint("n", 1+r.IntN(3))), "a")
			w.deploy(map[string]cluster.ServiceSpec{"web": drawSpec(r, image, n, ""), "api": spec("api", 2, zoneA)})
			w.run(nil)
			w.expect("web", version(image), n, cluster.RolloutComplete)
			w.expect("api", version("api"), 2, cluster.RolloutComplete)
			for _, x := range w.live("api") {
				if at := w.placements[x.ID].Node; !w.fulfils(at, x.ServiceID) {
					t.Fatalf("%s runs on %s, which its constraint excludes\n%s", x.ID, at, w.dump())
				}
			}
			w.deploy(nil)
			w.run(nil)
			if len(w.tasks)+len(w.rollouts)+len(w.placements) > 0 {
				t.Fatalf("left behind: %s", w.dump())
			}
			delete(w.apps, "shop")
			w.run(nil)
			if len(w.outcomes) > 0 {
				t.Fatalf("left behind: %v", w.outcomes)
			}
		})
	}
}

// outage is one of what happens to nodes, engines and servers, for a while.
func (w *world) outage(r *rand.Rand, check func()) {
	pass := func() {
		for range r.IntN(80) {
			w.steps(1, check)
			w.now = w.now.Add(time.Duration(r.IntN(2500)) * time.Millisecond)
		}
	}
	ids := []cluster.NodeID{"n1", "n2", "n3"}
	id := ids[r.IntN(3)]
	switch r.IntN(5) {
	case 0: // a node is cut off, or switched off
		w.cut(id)
		pass()
		w.cut(id)
	case 1: // its engine is restarted, and that takes a while
		n := w.nodes[id]
		n.Info.EngineAway = true
		w.nodes[id] = n
		w.unreadyOn(id)
		pass()
		n.Info.EngineAway = false
		w.nodes[id] = n
	case 2: // the same, and soon over
		w.unreadyOn(id)
	case 3: // the only server is away, and what keeps nodes alive with it
		for _, id := range ids {
			w.cut(id)
		}
		w.unready, w.lostAfter = nil, 0
		w.steps(1+r.IntN(3), check)
		w.registry()
		w.now = w.now.Add(time.Duration(r.IntN(300)) * time.Second)
		w.lostAfter = 4 * time.Second
		for _, id := range ids {
			w.cut(id)
		}
		w.steps(r.IntN(3), check)
	case 4: // a server is away, and another leads then
		w.registry()
		w.now = w.now.Add(time.Duration(r.IntN(1200)) * time.Second)
		w.unready = nil
	}
	pass()
}

// unreadyOn ends the containers of a node, which its agent starts again.
func (w *world) unreadyOn(id cluster.NodeID) {
	for t, st := range w.statuses {
		if st.Node == id && st.Ready {
			st.Ready, st.ReadySince = false, time.Time{}
			w.statuses[t] = st
			delete(w.served, t) // what is sent there now is lost, whatever becomes of it
		}
	}
}

// Nodes that are killed or cut off, engines and servers that are restarted, do not make a
// rollout turn: no version is to blame for them.
func TestLawOutages(t *testing.T) {
	for seed, r := range seeds(t, 48) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed, 3)
			w.lostAfter = 4 * time.Second
			n := 1 + r.IntN(5)
			for _, image := range []string{"v1", "v2"} {
				next := drawSpec(r, image, n, []string{"", "stop-first"}[r.IntN(2)])
				next.Update.Monitor = cluster.Duration(time.Duration(r.IntN(120)) * time.Second)
				next.Update.FailureAction = []string{"", "pause"}[r.IntN(2)]
				switch r.IntN(4) {
				case 0:
					volume(&next)
				case 1:
					w.label("n1", "a")
					zoneA(&next)
				}
				w.deploy(specs{"web": next})
				check := func() {
					switch rec := w.rollouts[sid("web")]; rec.State {
					case cluster.RolloutRunning, cluster.RolloutComplete:
					case cluster.RolloutFailed, cluster.RolloutPaused, cluster.RolloutRollingBack, cluster.RolloutRolledBack:
						t.Fatalf("it turned: %s\n%s", rec.Message, w.dump())
					}
				}
				w.steps(r.IntN(40), check)
				for range 6 {
					w.outage(r, check)
				}
				w.run(check)
				w.expect("web", next.Task.Hash(), n, cluster.RolloutComplete)
			}
		})
	}
}

// A clock that was ahead, of another leader or of this one, holds nothing up for as long as it
// was: back-offs, drains and batches take their own time.
func TestLawClock(t *testing.T) {
	const ahead = 24 * time.Hour
	for seed, r := range seeds(t, 32) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed, 3)
			n := 1 + r.IntN(5)
			w.deploy(specs{"web": drawSpec(r, "v1", n, "")})
			w.run(nil)
			w.now = w.now.Add(ahead)
			if r.IntN(3) == 0 {
				w.deaf["n1"] = true
			}
			w.crash = []float64{0, 0.05}[r.IntN(2)]
			next := drawSpec(r, "v2", n, "")
			if r.IntN(3) == 0 {
				w.fails[next.Task.Hash()] = "exit"
			}
			w.deploy(specs{"web": next})
			w.steps(r.IntN(120), nil)
			w.now, w.crash = w.now.Add(-ahead), 0
			began := w.now
			w.run(nil)
			if took := w.now.Sub(began); took > time.Hour {
				t.Fatalf("it took %s\n%s", took, w.dump())
			}
			w.deploy(specs{"web": drawSpec(r, "v3", n, "")})
			w.run(nil)
			w.expect("web", version("v3"), n, cluster.RolloutComplete)
		})
	}
}

// The plan does not depend on the order of its input, does not change it, and
// comes to rest when nothing but the plan itself changes the world.
func TestLawPure(t *testing.T) {
	for seed, r := range seeds(t, 16) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed, 3)
			w.crash = 0.05
			w.fails[version("v2")] = []string{"", "exit", "restart", "unready"}[r.IntN(4)]
			for i := range 6 {
				w.deploy(map[string]cluster.ServiceSpec{
					"web": drawSpec(r, fmt.Sprint("v", 1+i%3), 1+r.IntN(5), ""),
					"agt": spec("g", 0, func(s *cluster.ServiceSpec) { s.Mode = cluster.Global }),
					"api": spec("api", r.IntN(3), func(s *cluster.ServiceSpec) {
						s.DependsOn = []cluster.Dependency{{Service: "web", Condition: "service_healthy"}}
					}),
				})
				w.steps(r.IntN(40), func() {
					s := w.snapshot()
					before := written(t, s)
					acts := rollout.Plan(s)
					if written(t, s) != before {
						t.Fatal("Plan changed its input")
					}
					if again := rollout.Plan(w.snapshot()); !reflect.DeepEqual(acts, again) {
						t.Fatalf("the order of the input matters:\n%s", cmp.Diff(acts, again))
					}
				})
				rounds := 0
				for len(w.plan()) > 0 {
					if rounds++; rounds > 5 {
						t.Fatalf("no fixed point: still %+v", rollout.Plan(w.snapshot()))
					}
				}
			}
		})
	}
}

func written(t *testing.T, s rollout.Snapshot) string {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Slots of a service that scales down go from the top, and history is bounded.
func TestLawScale(t *testing.T) {
	for seed, r := range seeds(t, 8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed, 2)
			w.deploy(map[string]cluster.ServiceSpec{"web": spec("v1", 1)})
			w.run(nil)
			for range 4 {
				n := r.IntN(10)
				w.scale("web", n)
				w.run(nil)
				w.expect("web", version("v1"), n, cluster.RolloutComplete)
				var got []int
				for _, x := range w.live("web") {
					got = append(got, x.Slot)
				}
				slices.Sort(got)
				for i, slot := range got {
					if slot != i+1 {
						t.Fatalf("slots %v, want 1 to %d", got, n)
					}
				}
			}
		})
	}
}

// What has a volume never starts where it is not, whatever happens: scaled to none, removed
// and deployed again, deployed often while its node takes no tasks, cut off.
func TestLawVolumes(t *testing.T) {
	for seed, r := range seeds(t, 32) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed, 3)
			w.lostAfter = 20 * time.Second
			n, image := 1+r.IntN(3), "v1"
			deploy := func() { w.deploy(specs{"db": spec(image, n, volume), "api": spec("api", 2)}) }
			deploy()
			w.run(nil)
			for range 16 {
				switch r.IntN(6) {
				case 0, 1:
					image = fmt.Sprint("v", 1+r.IntN(4))
					deploy()
				case 2:
					n = r.IntN(4)
					w.scale("db", n)
				case 3:
					w.shut(r, "n2")
				case 4:
					w.cut("n3")
				case 5:
					w.deploy(specs{"api": spec("api", 2)}) // db is removed
					w.steps(r.IntN(200), nil)
					deploy()
				}
				w.steps(r.IntN(100), nil)
			}
			w.mend()
			n = 3
			deploy()
			w.run(nil)
			w.expect("db", spec(image, n, volume).Task.Hash(), n, cluster.RolloutComplete)
		})
	}
}
