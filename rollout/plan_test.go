package rollout_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/rollout"
)

type specs = map[string]cluster.ServiceSpec

// busy is a world in which every part takes each step.
func busy(t *testing.T, nodes int) *world {
	t.Helper()
	w := newWorld(t, 1, nodes)
	w.lazy = 0
	return w
}

func (w *world) message(name string) string { return w.rollouts[sid(name)].Message }

func (w *world) wantMessage(name, part string) {
	w.t.Helper()
	if got := w.message(name); !strings.Contains(got, part) || (part == "" && got != "") {
		w.t.Fatalf("message %q, want %q in it\n%s", got, part, w.dump())
	}
}

// made reports whether t is seen for the first time.
func made(t cluster.Task, have map[cluster.TaskID]bool) bool {
	fresh := !have[t.ID]
	have[t.ID] = true
	return fresh
}

func dependsOn(service, condition string) func(*cluster.ServiceSpec) {
	return func(s *cluster.ServiceSpec) {
		s.DependsOn = []cluster.Dependency{{Service: cluster.ServiceName(service), Condition: condition}}
	}
}

func restart(condition string) func(*cluster.ServiceSpec) {
	return func(s *cluster.ServiceSpec) { s.Restart.Condition = condition }
}

func volume(s *cluster.ServiceSpec) {
	s.Task.Mounts = []cluster.Mount{{Type: cluster.MountVolume, Source: "shop_data", Target: "/data"}}
}

func nfs(s *cluster.ServiceSpec) {
	volume(s)
	s.Task.Mounts[0].DriverOpts = map[string]string{"type": "nfs", "o": "addr=10.0.0.9"}
}

func TestFirstDeployMakesAllAtOnce(t *testing.T) {
	w := busy(t, 1)
	w.deploy(specs{"web": spec("v1", 50)})
	w.plan()
	if got := len(w.live("web")); got != 50 {
		t.Fatalf("%d tasks after one plan, want 50", got)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	w := busy(t, 1)
	for _, v := range []string{"v1", "v2", "v3", "v4", "v5"} {
		w.deploy(specs{"web": spec(v, 1)})
		w.run(nil)
	}
	if got := len(w.tasks); got != 3 {
		t.Fatalf("%d tasks kept, want the running one and the last two\n%s", got, w.dump())
	}
}

func TestDependencies(t *testing.T) {
	for _, tc := range []struct {
		condition, fails, waits string // what api does, and what web then waits for; "" is nothing
		exits                   bool
	}{
		{"service_started", "never", "waits for api to start", false},
		{"service_started", "unready", "", false},
		{"service_healthy", "unready", "waits for api to be healthy", false},
		{"service_healthy", "exit", "waits for api to be healthy, but its rollout failed", false},
		{"service_healthy", "", "", false},
		{"service_completed_successfully", "", "waits for api to complete", false},
		{"service_completed_successfully", "", "", true},
	} {
		t.Run(tc.condition+" "+tc.fails, func(t *testing.T) {
			w := busy(t, 1)
			w.fails[version("api")], w.exits[version("api")] = tc.fails, tc.exits
			w.deploy(specs{"api": spec("api", 1, restart("on-failure")), "web": spec("v1", 2, dependsOn("api", tc.condition))})
			w.steps(50, nil)
			if w.wantMessage("web", tc.waits); (tc.waits == "") != (len(w.live("web")) == 2) {
				t.Fatalf("%d tasks of web\n%s", len(w.live("web")), w.dump())
			}
			delete(w.fails, version("api"))
			w.exits[version("api")] = tc.condition == "service_completed_successfully"
			w.run(nil)
			w.expect("web", version("v1"), 2, cluster.RolloutComplete)
		})
	}
}

// TestBlocked: what waits for a service that has failed waits in vain, and so does
// what waits for that; no longer than until it is well again.
func TestBlocked(t *testing.T) {
	blocked := func(w *world, want string) {
		t.Helper()
		var got []string
		for _, id := range slices.SortedFunc(maps.Keys(w.rollouts), cluster.ServiceID.Compare) {
			if w.rollouts[id].Blocked {
				got = append(got, string(id.Name))
			}
		}
		if strings.Join(got, " ") != want {
			t.Fatalf("%q wait in vain, want %q\n%s", got, want, w.dump())
		}
	}
	w := busy(t, 1)
	w.fails[version("z1")] = "unready"
	all := specs{"z": spec("z1", 1), "m": spec("m1", 1, dependsOn("z", "service_healthy")), "a": spec("a1", 1, dependsOn("m", "")), "b": spec("b1", 1)}
	w.deploy(all)
	w.steps(20, nil)
	blocked(w, "") // z may still become healthy
	w.fails[version("z1")] = "exit"
	for _, x := range w.live("z") {
		w.statuses[x.ID] = cluster.Status{Task: x.ID, Node: "n1", State: cluster.StateFailed, ExitCode: 1}
	}
	w.steps(50, nil)
	w.wantMessage("a", "waits for m to start, but that waits in vain: waits for z to be healthy, but its rollout failed")
	blocked(w, "a m")
	delete(w.fails, version("z1"))
	w.run(nil)
	w.expect("a", version("a1"), 1, cluster.RolloutComplete)
	blocked(w, "")

	// A service that was complete, and then failed as often as it may.
	once := func(s *cluster.ServiceSpec) { s.Restart.Condition = "none" }
	w = busy(t, 1)
	w.deploy(specs{"api": spec("p1", 1, once)})
	w.run(nil)
	for _, x := range w.live("api") {
		w.statuses[x.ID] = cluster.Status{Task: x.ID, Node: "n1", State: cluster.StateFailed, ExitCode: 1}
	}
	w.steps(20, nil)
	w.services[sid("web")] = cluster.Service{ServiceID: sid("web"), Version: version("v1"), Release: 2, Spec: spec("v1", 1, dependsOn("api", "service_healthy")), Created: 1}
	w.apps["shop"] = cluster.App{Name: "shop", Release: 2, Created: w.apps["shop"].Created, Rev: w.next()}
	w.steps(20, nil)
	w.wantMessage("web", "but it failed and is not started again")
	blocked(w, "web")
	if o := w.outcomes["shop2"]; o.State != "failed" || !strings.Contains(o.Message, "web: waits for api to be healthy, but it failed") {
		t.Errorf("the release: %+v\n%s", o, w.dump())
	}
}

func TestDependencyNeverTakesDownWhatRuns(t *testing.T) {
	w := busy(t, 1)
	web := func(v string) cluster.ServiceSpec { return spec(v, 2, dependsOn("api", "service_healthy")) }
	w.deploy(specs{"api": spec("a1", 1), "web": web("v1")})
	w.run(nil)
	w.fails[version("a2")] = "unready"
	w.deploy(specs{"api": spec("a2", 1), "web": web("v2")})
	w.steps(100, func() {
		if got := w.ready("web", version("v1")); got != 2 {
			t.Fatalf("%d tasks of the old version serve while the new one waits\n%s", got, w.dump())
		}
	})
	w.wantMessage("web", "waits for api to be healthy")
	w.now = w.now.Add(5 * time.Minute) // api goes back
	w.run(nil)
	w.expect("web", version("v1"), 2, cluster.RolloutRunning)
	w.wantMessage("web", "but its rollout failed")

	// The gate asks no more once the target has a task.
	w.deploy(specs{"api": spec("a1", 1), "web": web("v3")})
	w.fails[version("v3")] = "unready"
	w.steps(30, nil)
	before := w.live("web")
	w.services[sid("api")] = cluster.Service{ServiceID: sid("api"), Version: "other", Release: 9, Spec: spec("a4", 1), Created: 1}
	w.plan()
	if diff := cmp.Diff(before, w.live("web")); diff != "" {
		t.Fatalf("a dependency that went took tasks along:\n%s", diff)
	}
}

func TestBackoffGrows(t *testing.T) {
	w := busy(t, 1)
	w.deploy(specs{"web": spec("v1", 1)})
	w.run(nil)
	w.fails[version("v1")] = "exit"
	for id, st := range w.statuses {
		st.State, st.Ready, st.ExitCode = cluster.StateFailed, false, 1
		w.statuses[id] = st
	}
	var gaps []time.Duration
	have := map[cluster.TaskID]bool{}
	ended := w.now
	for len(gaps) < 7 {
		w.plan()
		for _, x := range w.live("web") {
			if made(x, have) {
				gaps = append(gaps, x.Created.Sub(ended).Round(time.Second))
			}
		}
		for _, x := range w.tasks {
			if x.Outcome != nil && x.Outcome.At.After(ended) {
				ended = x.Outcome.At
			}
		}
		w.step()
		w.now = w.now.Add(100 * time.Millisecond)
	}
	want := []time.Duration{1, 2, 4, 8, 16, 30, 30}
	for i := range want {
		want[i] *= time.Second
	}
	if diff := cmp.Diff(want, gaps[:7]); diff != "" {
		t.Fatalf("waits between an end and the next task:\n%s", diff)
	}
	if got := w.rollouts[sid("web")].State; got != cluster.RolloutComplete {
		t.Fatalf("a crash after the rollout made it %s", got)
	}
}

func TestDelayBetweenBatches(t *testing.T) {
	w := busy(t, 1)
	w.deploy(specs{"web": spec("v1", 4)})
	w.run(nil)
	w.deploy(specs{"web": spec("v2", 4, func(s *cluster.ServiceSpec) {
		s.Update = cluster.UpdatePolicy{Parallelism: 2, Delay: cluster.Duration(time.Minute)}
	})})
	times := map[time.Time]int{}
	have := map[cluster.TaskID]bool{}
	w.run(func() {
		for _, x := range w.live("web") {
			if x.Version == version("v2") && made(x, have) {
				times[x.Created]++
			}
		}
	})
	at := slices.SortedFunc(maps.Keys(times), time.Time.Compare)
	if len(at) != 2 || times[at[0]] != 2 || at[1].Sub(at[0]) < time.Minute {
		t.Fatalf("batches %v, want two of two, a minute apart", times)
	}
}

func TestNodeLost(t *testing.T) {
	for _, tc := range []struct {
		name  string
		after time.Duration
		spec  cluster.ServiceSpec
		want  bool // is replaced
	}{
		{"replaced", time.Minute, spec("v1", 1), true},
		{"never asked to", 0, spec("v1", 1), false},
		{"has a volume", time.Minute, spec("v1", 1, volume), false},
		{"its volume is on a file server", time.Minute, spec("v1", 1, nfs), true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := busy(t, 2)
			w.lostAfter = tc.after
			w.deploy(specs{"db": tc.spec})
			w.run(nil)
			was := w.live("db")[0]
			gone := w.placements[was.ID].Node
			n := w.nodes[gone]
			n.Alive, n.Since = false, w.now
			w.nodes[gone] = n
			w.steps(20, nil)
			if got := w.live("db")[0]; got.ID != was.ID {
				t.Fatal("replaced before the bound")
			}
			w.now = w.now.Add(2 * time.Minute)
			w.run(nil)
			replaced := w.live("db")[0].ID != was.ID
			if replaced != tc.want {
				t.Fatalf("replaced: %v\n%s", replaced, w.dump())
			}
			if replaced && w.tasks[was.ID].Outcome.State != cluster.StateLost {
				t.Fatalf("outcome %+v", w.tasks[was.ID].Outcome)
			}
			if tc.after > 0 && !replaced {
				w.wantMessage("db", "waits for node "+string(gone))
			}
		})
	}
}

// A task with a volume is not replaced when its node is removed either, until its
// volumes are given up.
func TestVolumesGivenUp(t *testing.T) {
	w := busy(t, 2)
	w.lostAfter = time.Minute
	w.deploy(specs{"db": spec("v1", 1, volume)})
	w.run(nil)
	was := w.live("db")[0]
	gone := w.placements[was.ID].Node
	delete(w.nodes, gone)
	maps.DeleteFunc(w.statuses, func(_ cluster.TaskID, s cluster.Status) bool { return s.Node == gone })
	w.now = w.now.Add(2 * time.Minute)
	w.run(nil)
	if got := w.live("db")[0]; got.ID != was.ID {
		t.Fatalf("its node was removed, and it is replaced\n%s", w.dump())
	}
	w.lost = []cluster.NodeID{"another"}
	w.run(nil)
	if got := w.live("db")[0]; got.ID != was.ID {
		t.Fatalf("another node's volumes are given up, and it is replaced\n%s", w.dump())
	}
	w.lost = append(w.lost, gone)
	w.run(nil)
	if w.live("db")[0].ID == was.ID || w.tasks[was.ID].Outcome.State != cluster.StateLost {
		t.Fatalf("its volumes are given up, and it is not replaced\n%s", w.dump())
	}
}

func TestDrainedNode(t *testing.T) {
	for name, s := range map[string]cluster.ServiceSpec{"moves": spec("v1", 1), "stays": spec("v1", 1, volume)} {
		t.Run(name, func(t *testing.T) {
			w := busy(t, 2)
			w.deploy(specs{"web": s})
			w.run(nil)
			was := w.live("web")[0].ID
			n := w.nodes[w.placements[was].Node]
			n.Availability = cluster.Drain
			w.nodes[n.ID] = n
			w.run(func() {
				if len(w.endpoints[sid("web")].Tasks) == 0 {
					t.Fatalf("nothing serves\n%s", w.dump())
				}
			})
			w.expect("web", s.Task.Hash(), 1, cluster.RolloutComplete)
			if moved := w.live("web")[0].ID != was; moved != (name == "moves") {
				t.Fatalf("moved: %v", moved)
			}
		})
	}
}

func zoneA(s *cluster.ServiceSpec) {
	s.Placement.Constraints = []string{"node.labels.zone==a"}
}

// TestConstraintsChange: tasks on nodes that no longer fulfil the constraints move,
// start-first; where they cannot, they stay, serve, and it is said.
func TestConstraintsChange(t *testing.T) {
	release := func(change ...func(*cluster.ServiceSpec)) func(*world) {
		return func(w *world) { w.deploy(specs{"web": spec("v1", 3, change...)}) }
	}
	relabel := func(w *world) {
		w.label("n1", "b")
		w.label("n2", "a")
	}
	noZone := func(w *world) { w.label("n1", "b") }
	for _, tc := range []struct {
		name    string
		before  []func(*cluster.ServiceSpec)
		change  func(*world)
		moves   bool
		message string
	}{
		{"a constraint is added", nil, func(w *world) {
			relabel(w)
			release(zoneA)(w)
		}, true, ""},
		{"a label moves to another node", []func(*cluster.ServiceSpec){zoneA}, relabel, true, ""},
		{"stop-first is of versions", []func(*cluster.ServiceSpec){zoneA, func(s *cluster.ServiceSpec) { s.Update.Order = "stop-first" }}, relabel, true, ""},
		{"no node has the label", []func(*cluster.ServiceSpec){zoneA}, noZone, false, ""},
		{"a volume stays", []func(*cluster.ServiceSpec){zoneA, volume}, relabel, false, "shop/web.1 stays on node n1, which has its volume and does not fulfil the constraint node.labels.zone==a"},
		{"a volume is where it should be", []func(*cluster.ServiceSpec){zoneA, volume}, func(w *world) { w.label("n2", "a") }, false, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := busy(t, 1)
			w.label("n1", "a")
			release(tc.before...)(w)
			w.run(nil)
			was := w.live("web")
			w.node("n2")
			w.label("n2", "")
			tc.change(w)
			w.run(func() {
				if len(w.endpoints[sid("web")].Tasks) < 3 {
					t.Fatalf("a task that was to move no longer serves\n%s", w.dump())
				}
			})
			for _, x := range was {
				if gone := w.tasks[x.ID].Desire != cluster.DesireRun; gone != tc.moves {
					t.Fatalf("%s moved: %v, want %v\n%s", x.ID, gone, tc.moves, w.dump())
				}
			}
			if w.rollouts[sid("web")].State != cluster.RolloutComplete {
				t.Fatalf("%+v", w.rollouts[sid("web")])
			}
			w.wantMessage("web", tc.message)
			if tc.moves {
				w.expect("web", version("v1"), 3, cluster.RolloutComplete)
			}
		})
	}
}

// TestWhatCannotStartAgainIsNotStopped: an update of a task whose node has its volume, and
// takes no tasks, waits, and holds up no other slot.
func TestWhatCannotStartAgainIsNotStopped(t *testing.T) {
	for name, tc := range map[string]struct {
		change  func(*cluster.Node)
		message string
	}{
		"drained":    {func(n *cluster.Node) { n.Availability = cluster.Drain }, "takes no tasks now"},
		"paused":     {func(n *cluster.Node) { n.Availability = cluster.Pause }, "takes no tasks now"},
		"no engine":  {func(n *cluster.Node) { n.Info.EngineAway = true }, "takes no tasks now"},
		"relabelled": {func(n *cluster.Node) { n.Labels = map[string]string{"zone": "b"} }, "does not fulfil the constraint node.labels.zone==a"},
	} {
		t.Run(name, func(t *testing.T) {
			w := busy(t, 2)
			w.label("n1", "a")
			w.label("n2", "a")
			db := func(image string) specs { return specs{"db": spec(image, 4, volume, zoneA)} }
			w.deploy(db("v1"))
			w.run(nil)
			there := map[cluster.TaskID]bool{}
			for _, x := range w.live("db") {
				there[x.ID] = w.placements[x.ID].Node == "n1"
			}
			n1 := w.nodes["n1"]
			tc.change(&n1)
			w.nodes["n1"] = n1
			w.deploy(db("v2"))
			w.run(nil)
			v2, stayed := spec("v2", 4, volume).Task.Hash(), 0
			for _, x := range w.live("db") {
				switch {
				case there[x.ID] && w.statuses[x.ID].Ready:
					stayed++
				case x.Version != v2 || w.placements[x.ID].Node != "n2":
					t.Errorf("%s of %s on %s", x.ID, x.Version, w.placements[x.ID].Node)
				}
			}
			if stayed == 0 || stayed == 4 || len(w.live("db")) != 4 || w.rollouts[sid("db")].State != cluster.RolloutRunning {
				t.Fatalf("%d stayed\n%s", stayed, w.dump())
			}
			w.wantMessage("db", "is not replaced: node n1, which has its volume, "+tc.message)
			n1.Availability, n1.Info.EngineAway, n1.Labels = cluster.Active, false, map[string]string{"zone": "a"}
			w.nodes["n1"] = n1
			w.run(nil)
			w.expect("db", v2, 4, cluster.RolloutComplete)
		})
	}
}

// TestVolumeElsewhereMoves: a task whose volume is on a file server leaves a drained node,
// and has it alone, unless the user says otherwise.
func TestVolumeElsewhereMoves(t *testing.T) {
	for order, together := range map[string]bool{"": false, "stop-first": false, "start-first": true} {
		t.Run(order, func(t *testing.T) {
			w := busy(t, 2)
			w.deploy(specs{"db": spec("v1", 1, nfs, func(s *cluster.ServiceSpec) { s.Update.Order = order })})
			w.run(nil)
			was := w.live("db")[0].ID
			n := w.nodes[w.placements[was].Node]
			n.Availability = cluster.Drain
			w.nodes[n.ID] = n
			most := 0
			w.run(func() { most = max(most, len(w.live("db"))) })
			if now := w.live("db"); len(now) != 1 || now[0].ID == was || (most > 1) != together {
				t.Fatalf("%d at once\n%s", most, w.dump())
			}
		})
	}
}

// TestVolumeElsewhereWithNowhereToGo: no other node fulfils the constraints; it serves on.
func TestVolumeElsewhereWithNowhereToGo(t *testing.T) {
	w := busy(t, 2)
	w.label("n1", "a")
	w.deploy(specs{"db": spec("v1", 1, nfs, zoneA)})
	w.run(nil)
	n1 := w.nodes["n1"]
	n1.Availability = cluster.Drain
	w.nodes["n1"] = n1
	w.run(func() {
		if len(w.endpoints[sid("db")].Tasks) != 1 {
			t.Fatalf("it is stopped\n%s", w.dump())
		}
	})
}

func TestOneRestartTurnsAnUpdateBack(t *testing.T) {
	w := busy(t, 1)
	w.deploy(specs{"web": spec("v1", 1)})
	w.run(nil)
	w.deploy(specs{"web": spec("v2", 1)})
	w.steps(8, nil)
	for id, st := range w.statuses {
		if st.Version == version("v2") {
			st.Restarts, st.ExitCode, st.LogTail = 1, 3, []string{"bad config"}
			w.statuses[id] = st
		}
	}
	w.run(nil)
	w.expect("web", version("v1"), 1, cluster.RolloutRolledBack)
	w.wantMessage("web", "shop/web.1 was started again on n1: exit code 3; release 1 serves again")
	if diff := cmp.Diff([]string{"bad config"}, w.rollouts[sid("web")].Tail); diff != "" {
		t.Fatal(diff)
	}
	for _, x := range w.tasks {
		if x.Version == version("v2") && x.Reason != "replaced: the service goes back to release 1: shop/web.1 was started again on n1: exit code 3" {
			t.Errorf("the task that failed says %q", x.Reason)
		}
	}
}

func TestFirstDeployFailsAndHeals(t *testing.T) {
	w := busy(t, 1)
	w.deploy(specs{"web": spec("v1", 1)})
	w.steps(4, nil)
	restarts := func(n int) {
		for id, st := range w.statuses {
			st.Restarts, st.ExitCode, st.Reason = n, 1, "no database"
			w.statuses[id] = st
		}
		w.plan()
	}
	restarts(2)
	if got := w.rollouts[sid("web")].State; got != cluster.RolloutRunning {
		t.Fatalf("%s after two restarts", got)
	}
	restarts(3)
	if got := w.rollouts[sid("web")].State; got != cluster.RolloutFailed {
		t.Fatalf("%s after three restarts", got)
	}
	w.plan()
	if o := w.outcomes["shop1"]; o.State != "failed" || !strings.Contains(o.Message, "web: shop/web.1 was started again on n1: exit code 1: no database") {
		t.Fatalf("outcome %+v", o)
	}
	w.run(nil) // its node starts it once more, and now the database is there
	w.expect("web", version("v1"), 1, cluster.RolloutComplete)
	w.wantMessage("web", "")
	if o := w.outcomes["shop1"]; o.State != "complete" || o.Message != "" {
		t.Fatalf("outcome %+v", o)
	}
}

// What became of a release is kept as long as the release is, however many came since.
func TestOldOutcomesAreForgotten(t *testing.T) {
	w := busy(t, 1)
	w.deploy(specs{"web": spec("v1", 1)})
	w.run(nil)
	for _, tc := range []struct {
		release, pruned int
		kept            bool
	}{{2, 0, true}, {1000, 0, true}, {1001, 1, false}} {
		svc, a := w.services[sid("web")], w.apps["shop"]
		svc.Release, svc.Rev, a.Release = tc.release, w.next(), tc.release
		w.services[sid("web")], w.apps["shop"], w.pruned = svc, a, tc.pruned
		w.run(nil)
		if _, kept := w.outcomes["shop1"]; kept != tc.kept {
			t.Errorf("at release %d: kept %v", tc.release, kept)
		}
	}
}

func TestReleaseOutcomes(t *testing.T) {
	w := busy(t, 1)
	w.deploy(specs{"web": spec("v1", 1)})
	w.run(nil)
	svc := w.services[sid("web")] // release 2 is being written: its services come first, the app last
	svc.Release, svc.Rev = 2, w.next()
	svc.Spec.Task.Image = "v2"
	svc.Version = svc.Spec.Task.Hash()
	w.services[sid("web")] = svc
	w.fails[svc.Version] = "never"
	w.steps(20, nil)
	if o := w.outcomes["shop1"]; o.State != "complete" {
		t.Fatalf("a complete release became %+v", o)
	}
	a := w.apps["shop"]
	a.Release = 2
	w.apps["shop"] = a
	w.steps(3, nil)
	if o := w.outcomes["shop2"]; o.State != "running" || !o.Ended.IsZero() {
		t.Fatalf("%+v", o)
	}
	w.deploy(specs{"web": spec("v1", 1)})
	w.run(nil)
	if o := w.outcomes["shop2"]; o.State != "failed" || o.Message != "release 3 came before it was complete" || o.Ended.IsZero() {
		t.Fatalf("%+v", o)
	}
	// An app of the same name, made again before anything was cleaned up.
	w.apps["shop"] = cluster.App{Name: "shop", Release: 1, Created: w.next()}
	svc = w.services[sid("web")]
	svc.Release, svc.Created = 1, w.next()
	svc.Spec.Task.Image = "v9"
	svc.Version = svc.Spec.Task.Hash()
	w.services[sid("web")] = svc
	w.fails[svc.Version] = "exit"
	w.plan()
	if o := w.outcomes["shop1"]; o.State != "running" {
		t.Fatalf("the outcome of an earlier life counts: %+v", o)
	}
	w.steps(60, nil)
	if r := w.rollouts[sid("web")]; r.State != cluster.RolloutFailed || r.Stable != nil {
		t.Fatalf("it goes back to a service that was removed: %+v", r)
	}
	svc.Created = w.next() // and again, the same in all else
	w.services[sid("web")] = svc
	w.plan()
	if r := w.rollouts[sid("web")]; r.State != cluster.RolloutRunning || r.Created != svc.Created {
		t.Fatalf("the record of a service that was removed counts: %+v", r)
	}
}

func TestJobs(t *testing.T) {
	w := busy(t, 1)
	w.exits[version("job")] = true
	w.deploy(specs{"job": spec("job", 1, restart("on-failure"))})
	w.run(nil)
	r := w.rollouts[sid("job")]
	if len(w.live("job")) != 0 || r.State != cluster.RolloutComplete || r.NextTask != 1 {
		t.Fatalf("%d tasks made, %s\n%s", r.NextTask, r.State, w.dump())
	}
	for _, x := range w.tasks {
		if x.Name == "job" && (x.Outcome == nil || !slices.Equal(x.Outcome.LogTail, []string{"all done"})) {
			t.Errorf("nobody keeps what it said last: %+v", x.Outcome)
		}
	}
	w.deploy(specs{"job": spec("job", 1, restart("on-failure"))})
	w.run(nil)
	if r = w.rollouts[sid("job")]; r.NextTask != 1 || r.Release != 2 || r.State != cluster.RolloutComplete {
		t.Fatalf("a finished job ran again: %+v", r)
	}
}

func TestRestartNoneIsNotTriedAgain(t *testing.T) {
	w := busy(t, 1)
	w.fails[version("job")] = "exit"
	w.deploy(specs{"job": spec("job", 1, restart("none"))})
	w.run(nil)
	if r := w.rollouts[sid("job")]; r.NextTask != 1 || r.State != cluster.RolloutFailed {
		t.Fatalf("%+v", r)
	}
	w.wantMessage("job", "shop/job.1 failed on n1: exit code 1: no database")
	delete(w.fails, version("job"))
	w.exits[version("job")] = true
	w.deploy(specs{"job": spec("job", 1, restart("none"))})
	w.run(nil)
	if r := w.rollouts[sid("job")]; r.NextTask != 2 || r.State != cluster.RolloutComplete {
		t.Fatalf("a new release must try again: %+v\n%s", r, w.dump())
	}
}

func TestMaxAttemptsBoundTheSlot(t *testing.T) {
	bounded := func(s *cluster.ServiceSpec) {
		s.Restart = cluster.RestartPolicy{Condition: "on-failure", MaxAttempts: 3}
	}
	w := busy(t, 1)
	w.fails[version("job")] = "exit"
	w.deploy(specs{"job": spec("job", 1, bounded)})
	w.run(nil)
	const said = "shop/job.1 failed on n1: exit code 1: no database; max_attempts (3) is reached: a new release or fairlead restart tries again"
	if r := w.rollouts[sid("job")]; r.NextTask != 4 || r.State != cluster.RolloutFailed { // the first, and three attempts
		t.Fatalf("%+v", r)
	}
	w.wantMessage("job", said)

	delete(w.fails, version("job"))
	w.deploy(specs{"job": spec("job", 1, bounded)})
	w.run(nil)
	if r := w.rollouts[sid("job")]; r.NextTask != 5 || r.State != cluster.RolloutComplete {
		t.Fatalf("a new release must try again: %+v\n%s", r, w.dump())
	}

	// Later its container crashes until the agent gives up: no other task is made.
	for id, st := range w.statuses {
		st.State, st.Ready, st.ExitCode, st.Reason, st.Restarts = cluster.StateFailed, false, 1, "no database", 3
		w.statuses[id] = st
	}
	w.run(nil)
	if r := w.rollouts[sid("job")]; r.NextTask != 5 || len(w.live("job")) != 0 {
		t.Fatalf("%+v\n%s", r, w.dump())
	}
	w.wantMessage("job", said)
}

func TestGlobal(t *testing.T) {
	w := busy(t, 3)
	n2 := w.nodes["n2"]
	n2.Labels = map[string]string{"zone": "b"}
	w.nodes["n2"] = n2
	w.nodes["srv"] = cluster.Node{NodeSpec: cluster.NodeSpec{ID: "srv"}, Alive: true, Info: cluster.NodeInfo{ID: "srv", Roles: []string{"server"}}}
	agt := func(v string) cluster.ServiceSpec {
		return spec(v, 0, func(s *cluster.ServiceSpec) {
			s.Mode = cluster.Global
			s.Placement.Constraints = []string{"node.labels.zone != b"}
		})
	}
	where := func() map[cluster.NodeID]int {
		out := map[cluster.NodeID]int{}
		for _, x := range w.live("agt") {
			out[x.Node] = x.Slot
		}
		return out
	}
	w.deploy(specs{"agt": agt("v1")})
	w.run(nil)
	delete(w.nodes, "srv") // its acknowledgements are of no matter here
	if diff := cmp.Diff(map[cluster.NodeID]int{"n1": 1, "n3": 2}, where()); diff != "" {
		t.Fatal(diff)
	}
	w.node("a0") // sorts first, and must not shift the others
	w.deploy(specs{"agt": agt("v2")})
	w.run(nil)
	w.expect("agt", version("v2"), 3, cluster.RolloutComplete)
	if diff := cmp.Diff(map[cluster.NodeID]int{"n1": 1, "n3": 2, "a0": 3}, where()); diff != "" {
		t.Fatal(diff)
	}
	n1, n3 := w.nodes["n1"], w.nodes["n3"]
	n1.Availability, n3.Availability = cluster.Drain, cluster.Pause
	w.nodes["n1"], w.nodes["n3"] = n1, n3
	w.run(nil)
	if diff := cmp.Diff(map[cluster.NodeID]int{"n3": 2, "a0": 3}, where()); diff != "" {
		t.Fatal(diff)
	}
}

func TestProgressDeadline(t *testing.T) {
	health := &cluster.Health{HTTPPort: 80, Interval: cluster.Duration(5 * time.Second), Retries: 2, StartPeriod: cluster.Duration(20 * time.Second)}
	bound := time.Minute + 30*time.Second
	for _, tc := range []struct {
		name   string
		age    time.Duration
		placed bool
		status cluster.Status
		failed string
	}{
		{"no node yet", bound - time.Second, false, cluster.Status{}, ""},
		{"no node", bound, false, cluster.Status{}, "is not ready after 1m30s: too big for any node"},
		{"pulls", 9 * time.Minute, true, cluster.Status{State: cluster.StatePulling}, ""},
		{"pulls for too long", 10 * time.Minute, true, cluster.Status{State: cluster.StatePulling, Reason: "pulling v1"}, "10m0s on n1: pulling v1"},
		{"waits for a secret", bound, true, cluster.Status{State: cluster.StateWaiting, Reason: "secret x is missing"}, "secret x is missing"},
		{"started late", 9 * time.Minute, true, cluster.Status{State: cluster.StateRunning, Started: epoch.Add(8 * time.Minute)}, ""},
		{"started and not ready", 9 * time.Minute, true, cluster.Status{State: cluster.StateRunning, Started: epoch.Add(7 * time.Minute)}, "after 1m30s"},
		{"its node's clock is behind", bound - time.Second, true, cluster.Status{State: cluster.StateRunning, Started: epoch.Add(-time.Hour)}, ""},
		{"ready", time.Hour, true, cluster.Status{State: cluster.StateRunning, Ready: true, Started: epoch}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := busy(t, 1)
			w.deploy(specs{"web": spec("v1", 1, func(s *cluster.ServiceSpec) { s.Task.Health = health })})
			w.plan()
			x := w.live("web")[0]
			if tc.placed {
				w.placements[x.ID] = cluster.NodePlacement{Task: x.ID, Node: "n1", ServiceID: x.ServiceID}
				tc.status.Task, tc.status.Node, tc.status.ServiceID = x.ID, "n1", x.ServiceID
				w.statuses[x.ID] = tc.status
			}
			w.now = epoch.Add(tc.age)
			s := w.snapshot()
			s.Unplaced = map[cluster.TaskID]string{x.ID: "too big for any node"}
			got := ""
			for _, a := range rollout.Plan(s) {
				if save, ok := a.(rollout.Save); ok && save.Rollout.State == cluster.RolloutFailed {
					got = save.Rollout.Message
				}
			}
			if (got == "") != (tc.failed == "") || !strings.Contains(got, tc.failed) {
				t.Fatalf("failed with %q, want %q", got, tc.failed)
			}
		})
	}
	// A clock that is ahead moves the bound by no more than it is wrong.
	w := busy(t, 1)
	w.deploy(specs{"web": spec("v1", 1)})
	w.steps(3, nil)
	for id, st := range w.statuses {
		st.Started = w.now.Add(time.Hour)
		w.statuses[id] = st
	}
	if got := rollout.Wake(w.snapshot()); got != time.Minute {
		t.Fatalf("wakes after %s, want a minute: the container cannot have started later than now", got)
	}
}

// TestNotReadyAgain: what was ready, or could not be seen, is late only when it was seen for as
// long, and not while its node is away; and it is late then.
func TestNotReadyAgain(t *testing.T) {
	const bound = time.Minute
	step := func(w *world, seconds int) {
		for range seconds {
			w.now = w.now.Add(time.Second)
			w.plan()
		}
	}
	node := func(w *world, change func(*cluster.Node)) {
		n := w.nodes["n1"]
		change(&n)
		w.nodes["n1"] = n
	}
	never := time.Duration(0)
	for _, tc := range []struct {
		name   string
		happen func(*world)
		after  time.Duration // until the rollout fails; never
		says   string
	}{
		{"it stays unhealthy", func(w *world) { w.unreadyOn("n1") }, bound, "shop/web.1 is not ready after 1m0s on n1"},
		{"its node is cut off", func(w *world) { node(w, func(n *cluster.Node) { n.Alive = false }) }, never, ""},
		{"its node is back", func(w *world) {
			node(w, func(n *cluster.Node) { n.Alive = false })
			w.unreadyOn("n1")
			step(w, 300)
			node(w, func(n *cluster.Node) { n.Alive = true })
			w.plan()
		}, bound, "is not ready after"},
		{"its Docker is away", func(w *world) {
			w.unreadyOn("n1")
			node(w, func(n *cluster.Node) { n.Info.EngineAway = true })
		}, never, "shop/web.1 waits for node n1, whose Docker does not answer"},
		{"another server leads", func(w *world) {
			w.unreadyOn("n1")
			step(w, 50)
			w.unready = nil
			w.plan()
		}, bound, "is not ready after"},
		{"a crash of many that are free", func(w *world) {
			w.unreadyOn("n1")
			step(w, 50)
			for id, st := range w.statuses {
				st.Ready = true
				w.statuses[id] = st
			}
			step(w, 1)
			w.unreadyOn("n1")
		}, bound, "is not ready after"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := busy(t, 1)
			w.deploy(specs{"web": spec("v1", 1, func(s *cluster.ServiceSpec) { s.Update.Monitor = cluster.Duration(time.Hour) })})
			w.steps(20, nil)
			if w.ready("web", version("v1")) != 1 {
				t.Fatalf("it is not ready\n%s", w.dump())
			}
			step(w, 600)
			tc.happen(w)
			w.plan()
			from, failed := w.now, never
			for range 900 {
				if w.plan(); w.rollouts[sid("web")].State == cluster.RolloutFailed {
					failed = w.now.Sub(from)
					break
				}
				w.now = w.now.Add(time.Second)
			}
			if failed != tc.after {
				t.Errorf("failed after %s, want %s: %s", failed, tc.after, w.message("web"))
			}
			w.wantMessage("web", tc.says)
		})
	}
}

func TestPauseAndContinue(t *testing.T) {
	update := func(action string, ratio float64) func(*cluster.ServiceSpec) {
		return func(s *cluster.ServiceSpec) {
			s.Update = cluster.UpdatePolicy{FailureAction: action, MaxFailureRatio: ratio, Parallelism: 1}
		}
	}
	// slot 2 of the target fails, the others work
	failing := func(w *world) {
		for id, st := range w.statuses {
			if st.Version == version("v2") && st.Slot == 2 && st.State == cluster.StateRunning {
				st.State, st.Ready, st.ExitCode = cluster.StateFailed, false, 1
				w.statuses[id] = st
			}
		}
	}
	for _, tc := range []struct {
		name   string
		update func(*cluster.ServiceSpec)
		state  cluster.RolloutState
		v2, v1 int
	}{
		{"pause", update("pause", 0), cluster.RolloutPaused, 1, 3},
		{"continue", update("continue", 0), cluster.RolloutFailed, 3, 1},
		{"tolerated", update("", 0.25), cluster.RolloutComplete, 3, 1},
		{"not tolerated", update("", 0.2), cluster.RolloutRolledBack, 0, 4},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := busy(t, 1)
			w.deploy(specs{"web": spec("v1", 4, tc.update)})
			w.run(nil)
			w.deploy(specs{"web": spec("v2", 4, tc.update)})
			for range 600 {
				w.steps(1, nil)
				failing(w)
			}
			if got := w.rollouts[sid("web")].State; got != tc.state || w.ready("web", version("v2")) != tc.v2 || w.ready("web", version("v1")) != tc.v1 {
				t.Fatalf("%s, %d of v2, %d of v1; want %s, %d, %d\n%s", got,
					w.ready("web", version("v2")), w.ready("web", version("v1")), tc.state, tc.v2, tc.v1, w.dump())
			}
			w.deploy(specs{"web": spec("v2", 4, tc.update)}) // what was wrong is put right: the same again
			w.run(nil)
			w.expect("web", version("v2"), 4, cluster.RolloutComplete)
		})
	}
}

// TestFailureOnTheWayBack: v2 fails in slot 4, and v1, which the service goes back
// to, in slot 2.
func TestFailureOnTheWayBack(t *testing.T) {
	const again, asWell = "; release 1 serves again, but not everywhere: shop/web.2 failed on n1: exit code 1", "; release 1 fails as well now: shop/web.2 failed on n1: exit code 1"
	for _, tc := range []struct {
		name    string
		policy  cluster.UpdatePolicy
		state   cluster.RolloutState
		v1, v2  int
		message string
	}{
		{"by default", cluster.UpdatePolicy{}, cluster.RolloutRolledBack, 2, 2, asWell},
		{"continue", cluster.UpdatePolicy{FailureAction: "continue"}, cluster.RolloutRolledBack, 3, 1, again},
		{"pause", cluster.UpdatePolicy{FailureAction: "pause"}, cluster.RolloutPaused, 2, 2, asWell},
		{"too many for the ratio", cluster.UpdatePolicy{FailureAction: "pause", MaxFailureRatio: 0.2}, cluster.RolloutPaused, 2, 2, asWell},
		{"tolerated", cluster.UpdatePolicy{FailureAction: "pause", MaxFailureRatio: 0.25}, cluster.RolloutRolledBack, 3, 1, again},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := busy(t, 1)
			policy := func(s *cluster.ServiceSpec) {
				s.Update = cluster.UpdatePolicy{Parallelism: 1, MaxFailureRatio: 0.2}
				s.Rollback = tc.policy
				s.Rollback.Parallelism = 1
			}
			w.deploy(specs{"web": spec("v1", 4, policy)})
			w.run(nil)
			w.deploy(specs{"web": spec("v2", 4, policy)})
			for range 600 {
				w.steps(1, nil)
				back := w.rollouts[sid("web")].State != cluster.RolloutRunning
				for id, st := range w.statuses {
					bad := st.Version == version("v2") && st.Slot == 4 || back && st.Version == version("v1") && st.Slot == 2
					if bad && st.State == cluster.StateRunning {
						st.State, st.Ready, st.ExitCode = cluster.StateFailed, false, 1
						w.statuses[id] = st
					}
				}
			}
			if got := w.rollouts[sid("web")].State; got != tc.state || w.ready("web", version("v1")) != tc.v1 || w.ready("web", version("v2")) != tc.v2 {
				t.Fatalf("%s, %d of v1, %d of v2; want %s, %d, %d\n%s", got,
					w.ready("web", version("v1")), w.ready("web", version("v2")), tc.state, tc.v1, tc.v2, w.dump())
			}
			w.wantMessage("web", tc.message)
		})
	}
}

func TestWhatDoesNotServeGoesFirst(t *testing.T) {
	w := busy(t, 1)
	w.deploy(specs{"web": spec("v1", 3)})
	w.run(nil)
	for id, st := range w.statuses {
		if st.Slot == 3 {
			st.Ready = false
			w.statuses[id] = st
		}
	}
	w.deploy(specs{"web": spec("v2", 3, func(s *cluster.ServiceSpec) { s.Update.Parallelism = 1 })})
	w.plan()
	for _, x := range w.live("web") {
		if x.Version == version("v2") && x.Slot != 3 {
			t.Fatalf("slot %d goes first", x.Slot)
		}
	}
}

func TestFailedSlotIsTriedAgainBeforeOthersAreTouched(t *testing.T) {
	w := busy(t, 1)
	w.fails[version("v1")], w.fails[version("v2")] = "", "exit"
	w.deploy(specs{"web": spec("v1", 4)})
	w.steps(15, nil) // serves, but has not passed its monitor period: nothing to go back to
	if w.ready("web", version("v1")) != 4 || w.rollouts[sid("web")].Stable != nil {
		t.Fatalf("not the case that is meant\n%s", w.dump())
	}
	for id, st := range w.statuses {
		if st.Slot == 4 { // for a moment, so that its turn comes first
			st.Ready = false
			w.statuses[id] = st
		}
	}
	w.deploy(specs{"web": spec("v2", 4)})
	for range 2000 {
		w.steps(1, nil)
		for _, x := range w.tasks {
			if x.Version == version("v2") && x.Slot != 4 {
				t.Fatalf("slot %d is touched while slot 4 fails\n%s", x.Slot, w.dump())
			}
		}
	}
	if got := w.ready("web", version("v1")); got != 4 {
		t.Fatalf("%d of the earlier version serve", got)
	}
	delete(w.fails, version("v2"))
	w.run(nil)
	w.expect("web", version("v2"), 4, cluster.RolloutComplete)
}

func TestPausedFillsWithWhatWorked(t *testing.T) {
	w := busy(t, 1)
	pause := func(s *cluster.ServiceSpec) {
		s.Update = cluster.UpdatePolicy{FailureAction: "pause", Order: "stop-first"}
	}
	w.deploy(specs{"web": spec("v1", 2, pause)})
	w.run(nil)
	w.fails[version("v2")] = "exit"
	w.deploy(specs{"web": spec("v2", 2, pause)})
	w.run(nil)
	w.expect("web", version("v1"), 2, cluster.RolloutPaused)
}

// TestPausedStillMoves: a node that is drained, or gone, is left by what was updated before the
// rollout paused, and each slot keeps the version that it had.
func TestPausedStillMoves(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*cluster.ServiceSpec)
		happen func(*world)
		alone  bool // two never run in one slot
	}{
		{"drained", func(*cluster.ServiceSpec) {}, func(w *world) { w.drain("n2") }, false},
		{"drained, with a delay", func(s *cluster.ServiceSpec) { s.Update.Delay = cluster.Duration(time.Minute) }, func(w *world) { w.drain("n2") }, false},
		{"drained, with a volume on a file server", nfs, func(w *world) { w.drain("n2") }, true},
		{"drained, stop-first", func(s *cluster.ServiceSpec) { s.Update.Order, s.Rollback.Order = "stop-first", "stop-first" }, func(w *world) { w.drain("n2") }, false},
		{"does not fulfil the constraints any more", zoneA, func(w *world) { w.label("n2", "b") }, false},
		{"gone", func(*cluster.ServiceSpec) {}, func(w *world) { w.cut("n2") }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := busy(t, 3)
			w.lostAfter = 4 * time.Second
			web := func(image string) cluster.ServiceSpec {
				return spec(image, 6, tc.change, func(s *cluster.ServiceSpec) { s.Update.FailureAction, s.Update.Parallelism = "pause", 1 })
			}
			v2 := web("v2").Task.Hash()
			for _, id := range []cluster.NodeID{"n1", "n2", "n3"} {
				w.label(id, "a")
			}
			w.deploy(specs{"web": web("v1")})
			w.run(nil)
			w.deploy(specs{"web": web("v2")})
			w.plan()
			for w.rollouts[sid("web")].State == cluster.RolloutRunning {
				w.steps(1, nil)
				w.now = w.now.Add(time.Second)
				for id, st := range w.statuses {
					if st.Version == v2 && st.Slot == 5 && st.State == cluster.StateRunning {
						st.State, st.Ready, st.ExitCode = cluster.StateFailed, false, 1
						w.statuses[id] = st
					}
				}
			}
			w.run(nil)
			had := map[int]string{}
			on := map[string]bool{}
			for _, x := range w.live("web") {
				had[x.Slot] = x.Version
				if w.placements[x.ID].Node == "n2" {
					on[x.Version] = true
				}
			}
			if len(on) != 2 || len(had) != 6 {
				t.Fatalf("not the case that is meant\n%s", w.dump())
			}
			tc.happen(w)
			w.run(func() {
				slots := map[int]int{}
				for _, x := range w.live("web") {
					if slots[x.Slot]++; tc.alone && slots[x.Slot] > 1 {
						t.Fatalf("two tasks in slot %d\n%s", x.Slot, w.dump())
					}
				}
			})
			now := map[int]string{}
			for _, x := range w.live("web") {
				now[x.Slot] = x.Version
				if w.placements[x.ID].Node == "n2" {
					t.Errorf("%s stays on n2", x.ID)
				}
			}
			if diff := cmp.Diff(had, now); diff != "" || w.rollouts[sid("web")].State != cluster.RolloutPaused {
				t.Errorf("versions of the slots:\n%s\n%s", diff, w.dump())
			}
		})
	}
}

// TestDelayIsOfVersions: a drained node is left though the updates of a service wait in between.
func TestDelayIsOfVersions(t *testing.T) {
	w := busy(t, 2)
	w.deploy(specs{"web": spec("v1", 2, func(s *cluster.ServiceSpec) { s.Update.Delay = cluster.Duration(time.Minute) })})
	w.run(nil)
	w.drain("n1")
	w.run(nil)
	for _, x := range w.live("web") {
		if w.placements[x.ID].Node == "n1" {
			t.Errorf("%s stays on n1", x.ID)
		}
	}
}

// TestStopFirstSaysWhichNodeItWaitsFor: the node of the task that leaves, which has the volume,
// is gone.
func TestStopFirstSaysWhichNodeItWaitsFor(t *testing.T) {
	w := busy(t, 2)
	w.lostAfter = 4 * time.Second
	w.deploy(specs{"db": spec("v1", 1, volume)})
	w.run(nil)
	was := w.live("db")[0]
	at := w.placements[was.ID].Node
	w.deploy(specs{"db": spec("v2", 1, volume)})
	for w.tasks[was.ID].Desire == cluster.DesireRun {
		w.plan()
	}
	w.cut(at)
	w.run(nil)
	w.wantMessage("db", "shop/db.1 waits for node "+string(at)+", which is gone and has its volume")
	w.cut(at)
	w.run(nil)
	w.expect("db", spec("v2", 1, volume).Task.Hash(), 1, cluster.RolloutComplete)
	w.wantMessage("db", "")
}

func TestGoingBackToWhatStillRunsTakesNoTime(t *testing.T) {
	w := busy(t, 1)
	w.deploy(specs{"web": spec("v1", 2)})
	w.run(nil)
	w.fails[version("v2")] = "exit"
	w.deploy(specs{"web": spec("v2", 2)})
	for range 200 {
		w.steps(1, nil)
		if r := w.rollouts[sid("web")]; r.State != cluster.RolloutRunning {
			w.plan()
			if got := w.rollouts[sid("web")].State; got != cluster.RolloutRolledBack {
				t.Fatalf("%s right after the failure, though release 1 was never touched", got)
			}
			return
		}
	}
	t.Fatal("never failed")
}

func TestAnOutcomeIsOfItsOwnReleaseAlone(t *testing.T) {
	for _, tc := range []struct {
		name    string
		release int // of the service
		rollout cluster.RolloutState
		outcome string // as stored
		want    string // as written; "" is not at all
	}{
		{"complete", 1, cluster.RolloutComplete, "running", "complete"},
		{"failed", 1, cluster.RolloutFailed, "running", "failed"},
		{"heals", 1, cluster.RolloutComplete, "failed", "complete"},
		{"complete stays", 1, cluster.RolloutRolledBack, "complete", ""},
		{"still going back", 1, cluster.RolloutRollingBack, "running", ""},
		{"the next one fails while it is written", 2, cluster.RolloutFailed, "running", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v1 := spec("v1", 0)
			svc := cluster.Service{ServiceID: sid("web"), Version: v1.Task.Hash(), Release: tc.release, Spec: v1, Created: 3}
			stable := cluster.TaskSpec{Image: "v0"}
			got := ""
			for _, a := range rollout.Plan(rollout.Snapshot{
				Now: epoch, Apps: []cluster.App{{Name: "shop", Release: 1, Created: 2}}, Services: []cluster.Service{svc},
				Rollouts: []cluster.Rollout{{ServiceID: sid("web"), Target: svc.Version, Release: tc.release, State: tc.rollout, Stable: &stable, Created: 3}},
				Outcomes: []cluster.ReleaseOutcome{{App: "shop", Number: 1, State: tc.outcome, Created: 2}},
			}) {
				if s, ok := a.(rollout.Settle); ok {
					got = s.Outcome.State
				}
			}
			if got != tc.want {
				t.Fatalf("wrote %q, want %q", got, tc.want)
			}
		})
	}
}

// A release that a hook failed does not become a complete one by what is asked for since,
// and one whose hooks are still to come is not complete yet.
func TestHooksDecideAnOutcome(t *testing.T) {
	failed := []cluster.HookRun{{Hook: "a", State: cluster.RunFailed}}
	for _, tc := range []struct {
		name    string
		record  cluster.ChangeRecord
		rollout cluster.RolloutState
		stored  string
		want    map[int]string // as written
	}{
		{"its hooks run", cluster.ChangeRecord{Action: cluster.HookUpgrade, Release: 2, Stage: cluster.StageAfter}, cluster.RolloutComplete, "", map[int]string{2: "running"}},
		{"a hook failed", cluster.ChangeRecord{Action: cluster.HookUpgrade, Release: 2, Stage: cluster.StageDone, Failed: true, Message: "why", Runs: failed}, cluster.RolloutComplete, "running", map[int]string{2: "failed"}},
		{"it is tested since", cluster.ChangeRecord{Action: cluster.HookTest, Release: 2, Stage: cluster.StageBefore, Earlier: &cluster.Made{Release: 2, Failed: true, Message: "why"}}, cluster.RolloutComplete, "failed", map[int]string{}},
		{"that was written down late", cluster.ChangeRecord{Action: cluster.HookTest, Release: 2, Stage: cluster.StageDone, Earlier: &cluster.Made{Release: 2, Failed: true, Message: "why"}}, cluster.RolloutComplete, "running", map[int]string{2: "failed"}},
		{"its tests fail", cluster.ChangeRecord{Action: cluster.HookTest, Release: 2, Stage: cluster.StageDone, Failed: true, Runs: failed}, cluster.RolloutComplete, "running", map[int]string{2: "complete"}},
		{"what failed was another release", cluster.ChangeRecord{Action: cluster.HookTest, Release: 2, Stage: cluster.StageDone, Earlier: &cluster.Made{Release: 1, Failed: true}}, cluster.RolloutComplete, "running", map[int]string{2: "complete"}},
		{"its services failed, and heal", cluster.ChangeRecord{Action: cluster.HookUpgrade, Release: 2, Stage: cluster.StageDone, Failed: true, Message: "why"}, cluster.RolloutComplete, "failed", map[int]string{2: "complete"}},
		{"they heal, and the hooks behind them never ran", cluster.ChangeRecord{Action: cluster.HookUpgrade, Release: 2, Stage: cluster.StageDone, Failed: true, Message: "why", Behind: true}, cluster.RolloutComplete, "failed", map[int]string{}},
		{"the next one failed before it was made", cluster.ChangeRecord{Action: cluster.HookUpgrade, Release: 3, Stage: cluster.StageDone, Failed: true, Message: "no", Runs: failed}, cluster.RolloutComplete, "running", map[int]string{2: "complete", 3: "failed"}},
		{"the next one is on its way", cluster.ChangeRecord{Action: cluster.HookUpgrade, Release: 3, Stage: cluster.StageBefore}, cluster.RolloutRunning, "running", map[int]string{3: "running"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			web := spec("v1", 0)
			svc := cluster.Service{ServiceID: sid("web"), Version: web.Task.Hash(), Release: 2, Spec: web, Created: 3}
			tc.record.App, tc.record.Created = "shop", 2
			var outcomes []cluster.ReleaseOutcome
			if tc.stored != "" {
				o := cluster.ReleaseOutcome{App: "shop", Number: 2, State: tc.stored, Created: 2}
				if tc.stored == "failed" {
					o.Message = "why"
				}
				outcomes = append(outcomes, o)
			}
			got := map[int]string{}
			for _, a := range rollout.Plan(rollout.Snapshot{
				Now: epoch, Apps: []cluster.App{{Name: "shop", Release: 2, Created: 2}}, Services: []cluster.Service{svc}, Changes: []cluster.ChangeRecord{tc.record}, Outcomes: outcomes,
				Rollouts: []cluster.Rollout{{ServiceID: sid("web"), Target: svc.Version, Release: 2, State: tc.rollout, Created: 3}},
			}) {
				if s, ok := a.(rollout.Settle); ok {
					got[s.Outcome.Number] = s.Outcome.State
				}
			}
			if !maps.Equal(got, tc.want) {
				t.Errorf("wrote %v, want %v", got, tc.want)
			}
		})
	}
}
