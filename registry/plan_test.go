package registry

import (
	"fmt"
	"maps"
	"math/rand"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/fairlead/fairlead/cluster"
)

var compare = []cmp.Option{cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()}

var testRange = netip.MustParsePrefix("10.212.0.0/16")

func id(name string) cluster.ServiceID {
	return cluster.ServiceID{App: "shop", Name: cluster.ServiceName(name)}
}

// one returns a snapshot of one service with one healthy task, to be spoilt.
func one() Snapshot {
	task := cluster.TaskSpec{Networks: []cluster.NetworkRef{{Name: "shop_default", Aliases: []string{"www", "web"}}}, Aliases: []string{"front"}}
	return Snapshot{
		Range:      testRange,
		Services:   []cluster.Service{{ServiceID: id("web"), Spec: cluster.ServiceSpec{Task: task}, Created: 3}},
		Tasks:      []cluster.Task{{ID: "t1", ServiceID: id("web"), Slot: 1, Version: "v1", Spec: task, Desire: cluster.DesireRun}},
		Placements: []cluster.NodePlacement{{Task: "t1", Node: "n1", ServiceID: id("web"), Spec: task, Desire: cluster.DesireRun}},
		Statuses: []cluster.Status{{
			Task: "t1", Node: "n1", ServiceID: id("web"), State: cluster.StateRunning, Ready: true,
			Addresses: map[cluster.NetworkName]string{"shop_default": "10.213.0.2"},
		}},
		Nodes: []cluster.Node{{NodeSpec: cluster.NodeSpec{ID: "n1"}, Info: cluster.NodeInfo{ID: "n1", Address: "192.0.2.1"}, Alive: true}},
	}
}

func endpointsOf(t *testing.T, acts []Action) cluster.Endpoints {
	t.Helper()
	for _, a := range acts {
		if p, ok := a.(PutEndpoints); ok {
			return p.Endpoints
		}
	}
	t.Fatalf("no endpoints among %v", acts)
	return cluster.Endpoints{}
}

func TestPlanOfAHealthyTask(t *testing.T) {
	acts := Plan(one())
	put, ok := acts[0].(PutAddress)
	if !ok || !testRange.Contains(put.Address) {
		t.Fatalf("the first action is %v, not the claim of an address", acts[0])
	}
	want := []Action{put, PutEndpoints{cluster.Endpoints{
		ServiceID: id("web"), Address: put.Address.String(), Aliases: []string{"front", "www"}, Networks: []cluster.NetworkName{"shop_default"},
		Tasks: []cluster.Endpoint{{Task: "t1", Slot: 1, Node: "n1", Version: "v1", Addresses: map[cluster.NetworkName]string{"shop_default": "10.213.0.2"}}},
	}}}
	if diff := cmp.Diff(want, acts, compare...); diff != "" {
		t.Error(diff)
	}
}

func TestWhatWithdrawsATask(t *testing.T) {
	for name, spoil := range map[string]func(*Snapshot){
		"draining":              func(s *Snapshot) { s.Tasks[0].Desire = cluster.DesireDrain },
		"to stop":               func(s *Snapshot) { s.Tasks[0].Desire = cluster.DesireStop },
		"ended":                 func(s *Snapshot) { s.Tasks[0].Outcome = &cluster.Outcome{State: cluster.StateFailed} },
		"task gone":             func(s *Snapshot) { s.Tasks = nil },
		"not placed":            func(s *Snapshot) { s.Placements = nil },
		"placement stops":       func(s *Snapshot) { s.Placements[0].Desire = cluster.DesireStop },
		"no status":             func(s *Snapshot) { s.Statuses = nil },
		"another node's status": func(s *Snapshot) { s.Statuses[0].Node = "n2" },
		"not ready":             func(s *Snapshot) { s.Statuses[0].Ready = false },
		"starting":              func(s *Snapshot) { s.Statuses[0].State = cluster.StateStarting },
		"failed yet ready":      func(s *Snapshot) { s.Statuses[0].State = cluster.StateFailed },
		"without an address":    func(s *Snapshot) { s.Statuses[0].Addresses = nil },
		"lease expired":         func(s *Snapshot) { s.Nodes[0].Alive = false },
		"node unknown":          func(s *Snapshot) { s.Nodes = nil },
	} {
		t.Run(name, func(t *testing.T) {
			s := one()
			spoil(&s)
			if e := endpointsOf(t, Plan(s)); len(e.Tasks) != 0 {
				t.Errorf("still an endpoint: %v", e.Tasks)
			}
		})
	}
}

// A server that comes back to an external etcd finds no heartbeat: the nodes renew
// theirs through it. What is published of a node stays until the node could have been
// heard of, and goes at once for any other reason.
func TestANodeThatCouldNotBeHeardOf(t *testing.T) {
	back := time.Unix(1_700_000_000, 0)
	keeps := func(*Snapshot) {}
	for name, c := range map[string]struct {
		change func(*Snapshot)
		after  time.Duration // since the server is back
		stays  bool
		wakes  time.Duration
	}{
		"at once":           {keeps, 0, true, Grace},
		"just before":       {keeps, Grace - 1, true, 1},
		"after":             {keeps, Grace, false, 0},
		"others led before": {func(s *Snapshot) { s.Since = time.Time{} }, 0, false, 0},
		"heard of since":    {func(s *Snapshot) { s.Heard = map[cluster.NodeID]bool{"n1": true} }, time.Second, false, Grace - time.Second},
		"another heard of":  {func(s *Snapshot) { s.Heard = map[cluster.NodeID]bool{"n2": true} }, time.Second, true, Grace - time.Second},
		"alive again":       {func(s *Snapshot) { s.Nodes[0].Alive = true }, Grace, true, 0},
		"removed":           {func(s *Snapshot) { s.Nodes = nil }, 0, false, Grace},
		"never published":   {func(s *Snapshot) { s.Endpoints = nil }, 0, false, Grace},
		"published elsewhere": {func(s *Snapshot) {
			s.Endpoints[0].Tasks = slices.Clone(s.Endpoints[0].Tasks)
			s.Endpoints[0].Tasks[0].Node = "n2"
		}, 0, false, Grace},
		"not ready":       {func(s *Snapshot) { s.Statuses[0].Ready = false }, 0, false, Grace},
		"draining":        {func(s *Snapshot) { s.Tasks[0].Desire = cluster.DesireDrain }, 0, false, Grace},
		"ended":           {func(s *Snapshot) { s.Tasks[0].Outcome = &cluster.Outcome{State: cluster.StateLost} }, 0, false, Grace},
		"placement stops": {func(s *Snapshot) { s.Placements[0].Desire = cluster.DesireStop }, 0, false, Grace},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(one())
			w.apply(Plan(w.s))
			w.s.Nodes[0].Alive = false
			w.s.Since, w.s.Now = back, back.Add(c.after)
			c.change(&w.s)
			w.apply(Plan(w.s))
			if got := len(w.s.Endpoints[0].Tasks) == 1; got != c.stays {
				t.Errorf("it is published: %v, should be %v", got, c.stays)
			}
			if got := Wake(w.s); got != c.wakes {
				t.Errorf("looks again in %v, should be in %v", got, c.wakes)
			}
		})
	}
}

func TestModes(t *testing.T) {
	s := one()
	s.Services[0].Spec.EndpointMode = ModeDNSRR
	if e := endpointsOf(t, Plan(s)); e.Mode != ModeDNSRR || e.Address != "" || len(e.Tasks) != 1 {
		t.Errorf("dnsrr: %+v", e)
	}
	s = one()
	s.Services[0].Spec.Task = cluster.TaskSpec{NetworkMode: "host"}
	s.Tasks[0].Spec.NetworkMode = "host"
	s.Statuses[0].Addresses = nil
	if e := endpointsOf(t, Plan(s)); e.Mode != ModeDNSRR || len(e.Tasks) != 1 || e.Tasks[0].Host != "192.0.2.1" {
		t.Errorf("host network: %+v", e)
	}
}

// A service that leaves a network answers there as long as a task of before serves.
func TestNetworksThatAServiceLeaves(t *testing.T) {
	s := one()
	s.Services[0].Spec.Task.Networks = []cluster.NetworkRef{{Name: "new"}}
	if d := cmp.Diff([]cluster.NetworkName{"new", "shop_default"}, endpointsOf(t, Plan(s)).Networks); d != "" {
		t.Errorf("while it serves: %s", d)
	}
	s.Tasks[0].Desire = cluster.DesireDrain
	if d := cmp.Diff([]cluster.NetworkName{"new"}, endpointsOf(t, Plan(s)).Networks); d != "" {
		t.Errorf("afterwards: %s", d)
	}
}

// TestAliases: an alias is answered on the networks that it was given on, a
// container_name on all. What an older reader knows of stays a list of them all.
func TestAliases(t *testing.T) {
	svc := cluster.Service{ServiceID: id("web"), Spec: cluster.ServiceSpec{Task: cluster.TaskSpec{
		Aliases: []string{"named"},
		Networks: []cluster.NetworkRef{
			{Name: "front", Aliases: []string{"www", "both", "web", "named", "www"}}, {Name: "back", Aliases: []string{"both", "db"}},
		},
	}}}
	want := cluster.Endpoints{
		ServiceID: id("web"), Networks: []cluster.NetworkName{"back", "front"}, Aliases: []string{"both", "db", "named", "www"},
		AliasNetworks: map[string][]cluster.NetworkName{"www": {"front"}, "db": {"back"}},
	}
	got := describe(svc)
	if diff := cmp.Diff(want, got, compare...); diff != "" {
		t.Error(diff)
	}
	nets := svc.Spec.Task.Networks
	nets[0].Aliases, nets[1].Aliases = nets[1].Aliases, nets[0].Aliases
	if same(got, describe(svc)) {
		t.Error("aliases changed networks, and nothing is written")
	}
}

func TestWhatRewritesEndpoints(t *testing.T) {
	for name, change := range map[string]func(*Snapshot){
		"an alias":  func(s *Snapshot) { s.Services[0].Spec.Task.Aliases = []string{"other"} },
		"a network": func(s *Snapshot) { s.Services[0].Spec.Task.Networks = []cluster.NetworkRef{{Name: "x"}} },
		"the mode":  func(s *Snapshot) { s.Services[0].Spec.EndpointMode = ModeDNSRR },
		"a task's address": func(s *Snapshot) {
			s.Statuses[0].Addresses = map[cluster.NetworkName]string{"shop_default": "10.213.0.9"}
		},
		"a task's slot":      func(s *Snapshot) { s.Tasks[0].Slot = 2 },
		"nothing (an image)": func(s *Snapshot) { s.Services[0].Spec.Task.Image = "x" },
	} {
		w := newWorld(one())
		w.apply(Plan(w.s))
		s := clone(w.s)
		change(&s)
		if got, want := len(Plan(s)) == 1, !strings.HasPrefix(name, "nothing"); got != want {
			t.Errorf("%s: rewritten %v, should be %v", name, got, want)
		}
	}
}

func TestARemovedServiceShrinksThenGoes(t *testing.T) {
	s := one()
	w := newWorld(s)
	w.apply(Plan(w.s))
	address := w.s.Endpoints[0].Address
	w.s.Services = nil
	if acts := Plan(w.s); len(acts) != 0 {
		t.Fatalf("removed with a running task: %v", acts)
	}
	w.s.Tasks[0].Desire = cluster.DesireDrain
	w.apply(Plan(w.s))
	if e := w.s.Endpoints[0]; len(e.Tasks) != 0 || e.Address != address || len(e.Networks) != 1 {
		t.Fatalf("draining: %+v", e)
	}
	w.s.Tasks = nil
	w.apply(Plan(w.s))
	if len(w.s.Endpoints) != 0 || len(w.s.Claims) != 0 {
		t.Errorf("left behind: %v %v", w.s.Endpoints, w.s.Claims)
	}
}

func TestPoolRunsOut(t *testing.T) {
	s := Snapshot{Range: netip.MustParsePrefix("10.0.0.0/30")} // two usable addresses
	for i := range 3 {
		s.Services = append(s.Services, cluster.Service{
			ServiceID: id(fmt.Sprintf("s%d", i)),
			Spec:      cluster.ServiceSpec{Task: cluster.TaskSpec{Networks: []cluster.NetworkRef{{Name: "n"}}}},
		})
	}
	counts := map[string]int{}
	for _, a := range Plan(s) {
		counts[fmt.Sprintf("%T", a)]++
	}
	if counts["registry.PutAddress"] != 2 || counts["registry.NoAddress"] != 1 || counts["registry.PutEndpoints"] != 3 {
		t.Errorf("%v", counts)
	}
}

// world applies actions as the store does.
type world struct {
	s   Snapshot
	rev cluster.StoreRev
}

func newWorld(s Snapshot) *world { return &world{s: s, rev: 100} }

func (w *world) apply(acts []Action) {
	w.rev++
	for _, a := range acts {
		switch a := a.(type) {
		case PutNodeNet, DeleteNodeNet:
		case PutAddress:
			w.s.Claims = append(w.s.Claims, Claim{Service: a.Service, Address: a.Address, Rev: w.rev})
		case DeleteAddress:
			w.s.Claims = slices.DeleteFunc(w.s.Claims, func(c Claim) bool { return c.Service == a.Service && c.Rev == a.Rev })
		case PutEndpoints:
			w.s.Endpoints = slices.DeleteFunc(w.s.Endpoints, func(e cluster.Endpoints) bool { return e.ServiceID == a.Endpoints.ServiceID })
			a.Endpoints.Rev = w.rev
			w.s.Endpoints = append(w.s.Endpoints, a.Endpoints)
		case DeleteEndpoints:
			w.s.Endpoints = slices.DeleteFunc(w.s.Endpoints, func(e cluster.Endpoints) bool { return e.ServiceID == a.Service && e.Rev == a.Rev })
		case NoAddress:
			if w.s.Refused[a.Service].Rev == a.Rev {
				w.s.Refused = maps.Clone(w.s.Refused)
				if w.s.Refused == nil {
					w.s.Refused = map[cluster.ServiceID]Refusal{}
				}
				w.s.Refused[a.Service] = Refusal{Reason: a.Reason, Rev: w.rev}
			}
		case ClearNoAddress:
			w.s.Refused = maps.Clone(w.s.Refused)
			maps.DeleteFunc(w.s.Refused, func(id cluster.ServiceID, r Refusal) bool { return id == a.Service && r.Rev == a.Rev })
		}
	}
}

// A refusal is written once, and taken back when there is an address again or
// the service is gone.
func TestARefusalGoesWhenItIsCured(t *testing.T) {
	s := Snapshot{Range: netip.MustParsePrefix("10.0.0.0/30")} // two usable addresses
	for i := range 4 {
		s.Services = append(s.Services, cluster.Service{
			ServiceID: id(fmt.Sprintf("s%d", i)),
			Spec:      cluster.ServiceSpec{Task: cluster.TaskSpec{Networks: []cluster.NetworkRef{{Name: "n"}}}},
		})
	}
	w := newWorld(s)
	w.apply(Plan(w.s))
	if len(w.s.Refused) != 2 || w.s.Refused[id("s2")].Reason == "" {
		t.Fatalf("refused: %v", w.s.Refused)
	}
	if acts := Plan(w.s); len(acts) != 0 {
		t.Errorf("it says again what it said: %v", acts)
	}
	w.s.Services = w.s.Services[1:3] // s0 gives its address back; s3 is gone
	for range 2 {
		w.apply(Plan(w.s))
	}
	if acts := Plan(w.s); len(w.s.Refused) != 0 || len(acts) != 0 {
		t.Errorf("still refused: %v, to do: %v", w.s.Refused, acts)
	}
}

// draw makes any cluster, coherent or not.
func draw(t *rapid.T) Snapshot {
	s := Snapshot{Range: netip.MustParsePrefix(rapid.SampledFrom([]string{"10.212.0.0/16", "10.0.0.0/29"}).Draw(t, "range"))}
	pick := func(label string, of ...string) string { return rapid.SampledFrom(of).Draw(t, label) }
	s.Now, s.Heard = time.Unix(1_700_000_000, 0), map[cluster.NodeID]bool{}
	if rapid.IntRange(0, 3).Draw(t, "waited") > 0 {
		s.Since = s.Now.Add(-time.Duration(rapid.IntRange(0, 2).Draw(t, "since")) * Grace / 2)
	}
	for i := range rapid.IntRange(0, 4).Draw(t, "nodes") {
		n := cluster.NodeID(fmt.Sprintf("n%d", i))
		s.Heard[n] = rapid.Bool().Draw(t, "heard")
		s.Nodes = append(s.Nodes, cluster.Node{
			NodeSpec: cluster.NodeSpec{ID: n}, Alive: rapid.Bool().Draw(t, "alive"),
			Info: cluster.NodeInfo{ID: n, Address: pick("address", "", "192.0.2.7")},
		})
	}
	for i := range rapid.IntRange(0, 8).Draw(t, "services") {
		svc := cluster.Service{ServiceID: id(fmt.Sprintf("s%d", i))}
		svc.Spec.EndpointMode = pick("mode", "", "vip", "dnsrr")
		spec := cluster.TaskSpec{NetworkMode: pick("net", "", "", "host", "none")}
		if spec.NetworkMode == "" {
			spec.Networks = []cluster.NetworkRef{{Name: "a", Aliases: []string{"x"}}, {Name: "b"}}
		}
		svc.Spec.Task = spec
		for j := range rapid.IntRange(0, 4).Draw(t, "tasks") {
			task := cluster.TaskID(fmt.Sprintf("s%d.%d", i, j))
			node := cluster.NodeID(pick("node", "n0", "n1", "n2", "n9"))
			tk := cluster.Task{ID: task, ServiceID: svc.ServiceID, Slot: j%2 + 1, Spec: spec, Desire: cluster.Desire(pick("desire", "run", "run", "drain", "stop"))}
			if rapid.IntRange(0, 5).Draw(t, "ended") == 0 {
				tk.Outcome = &cluster.Outcome{}
			}
			s.Tasks = append(s.Tasks, tk)
			if rapid.IntRange(0, 5).Draw(t, "placed") > 0 {
				s.Placements = append(s.Placements, cluster.NodePlacement{Task: task, Node: node, ServiceID: svc.ServiceID, Spec: spec, Desire: cluster.Desire(pick("placement", "run", "run", "drain"))})
			}
			st := cluster.Status{
				Task: task, Node: node, ServiceID: svc.ServiceID, Ready: rapid.IntRange(0, 3).Draw(t, "ready") > 0,
				State: cluster.TaskState(pick("state", "running", "running", "starting", "failed")),
			}
			if spec.NetworkMode == "" {
				st.Addresses = map[cluster.NetworkName]string{"a": fmt.Sprintf("10.213.%d.%d", i, j+2)}
			}
			s.Statuses = append(s.Statuses, st)
		}
		if rapid.IntRange(0, 4).Draw(t, "kept") > 0 {
			s.Services = append(s.Services, svc)
		}
	}
	return s
}

func TestPlanLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(draw(t))
		claimed := map[cluster.ServiceID]netip.Addr{}
		// The cluster changes under the planner: tasks and services come and go.
		for range 3 {
			before := clone(w.s)
			acts := Plan(w.s)
			if !reflect.DeepEqual(before, w.s) {
				t.Fatal("Plan changed its input")
			}
			if again := Plan(shuffle(w.s, rapid.Int64().Draw(t, "shuffle"))); !reflect.DeepEqual(acts, again) {
				t.Fatalf("the order of the input matters:\n%v\n%v", acts, again)
			}
			w.apply(acts)
			for _, a := range Plan(w.s) {
				t.Fatalf("a second plan still does %T %v", a, a)
			}
			laws(t, before.Endpoints, w.s, claimed)
			for i := range w.s.Nodes {
				if rapid.Bool().Draw(t, "turns") {
					w.s.Nodes[i].Alive = !w.s.Nodes[i].Alive
				}
			}
			w.s.Now = w.s.Now.Add(time.Duration(rapid.IntRange(0, 1).Draw(t, "passes")) * Grace / 2)
			for i := range w.s.Tasks {
				if rapid.IntRange(0, 3).Draw(t, "drain") == 0 {
					w.s.Tasks[i].Desire = cluster.DesireDrain
				}
			}
			if len(w.s.Services) > 0 && rapid.Bool().Draw(t, "remove") {
				w.s.Services = w.s.Services[1:]
			}
			if rapid.Bool().Draw(t, "forget") {
				w.s.Tasks = slices.DeleteFunc(w.s.Tasks, func(x cluster.Task) bool { return x.Desire != cluster.DesireRun })
			}
		}
	})
}

// laws holds what must be true of the store after every plan, worked out apart
// from the planner. before is what was published then.
func laws(t *rapid.T, before []cluster.Endpoints, s Snapshot, claimed map[cluster.ServiceID]netip.Addr) {
	owner := map[netip.Addr]cluster.ServiceID{}
	held := map[cluster.ServiceID]netip.Addr{}
	for _, c := range s.Claims {
		if other, dup := owner[c.Address]; dup {
			t.Fatalf("%s and %s share %s", other, c.Service, c.Address)
		}
		if !s.Range.Contains(c.Address) || c.Address == s.Range.Addr() {
			t.Fatalf("%s is not an address of %s", c.Address, s.Range)
		}
		owner[c.Address], held[c.Service] = c.Service, c.Address
	}
	for svc, a := range claimed {
		if now, still := held[svc]; still && now != a {
			t.Fatalf("%s moved from %s to %s", svc, a, now)
		}
	}
	clear(claimed)
	maps.Copy(claimed, held)

	desired := map[cluster.ServiceID]int{}
	for _, svc := range s.Services {
		desired[svc.ServiceID]++
	}
	served := map[cluster.TaskID]bool{}
	for _, e := range s.Endpoints {
		desired[e.ServiceID] += 2
		if e.Address != "" && e.Address != held[e.ServiceID].String() {
			t.Fatalf("%s is written with %s and holds %v", e.ServiceID, e.Address, held[e.ServiceID])
		}
		for _, x := range e.Tasks {
			served[x.Task] = true
		}
	}
	for svc, n := range desired {
		if n == 1 {
			t.Fatalf("service %s has no endpoints", svc)
		}
	}
	written := map[cluster.ServiceID]bool{}
	for _, e := range s.Endpoints {
		written[e.ServiceID] = true
	}
	for _, tk := range s.Tasks {
		healthy := tk.Desire == cluster.DesireRun && tk.Outcome == nil && written[tk.ServiceID]
		node := cluster.NodeID("")
		for _, p := range s.Placements {
			if p.Task == tk.ID && p.Desire == cluster.DesireRun {
				node = p.Node
			}
		}
		alive, host := false, ""
		for _, n := range s.Nodes {
			if n.ID == node {
				alive, host = n.Alive, n.Info.Address
				if !alive && !s.Heard[node] && !s.Since.IsZero() && s.Now.Sub(s.Since) < Grace {
					alive = slices.ContainsFunc(before, func(e cluster.Endpoints) bool {
						return slices.ContainsFunc(e.Tasks, func(x cluster.Endpoint) bool { return x.Task == tk.ID && x.Node == node })
					})
				}
			}
		}
		ready, address := false, false
		for _, st := range s.Statuses {
			if st.Task == tk.ID && st.Node == node {
				ready, address = st.Ready && st.State == cluster.StateRunning, len(st.Addresses) > 0
			}
		}
		if tk.Spec.NetworkMode == "host" {
			address = host != ""
		}
		if want := healthy && alive && ready && address; served[tk.ID] != want {
			t.Fatalf("task %s: an endpoint is %v, should be %v", tk.ID, served[tk.ID], want)
		}
	}
}

func clone(s Snapshot) Snapshot {
	s.Services, s.Tasks, s.Placements = slices.Clone(s.Services), slices.Clone(s.Tasks), slices.Clone(s.Placements)
	s.Statuses, s.Nodes = slices.Clone(s.Statuses), slices.Clone(s.Nodes)
	s.Endpoints, s.Claims = slices.Clone(s.Endpoints), slices.Clone(s.Claims)
	return s
}

func shuffle(s Snapshot, seed int64) Snapshot {
	s = clone(s)
	r := rand.New(rand.NewSource(seed))
	r.Shuffle(len(s.Services), func(i, j int) { s.Services[i], s.Services[j] = s.Services[j], s.Services[i] })
	r.Shuffle(len(s.Tasks), func(i, j int) { s.Tasks[i], s.Tasks[j] = s.Tasks[j], s.Tasks[i] })
	r.Shuffle(len(s.Placements), func(i, j int) { s.Placements[i], s.Placements[j] = s.Placements[j], s.Placements[i] })
	r.Shuffle(len(s.Statuses), func(i, j int) { s.Statuses[i], s.Statuses[j] = s.Statuses[j], s.Statuses[i] })
	r.Shuffle(len(s.Nodes), func(i, j int) { s.Nodes[i], s.Nodes[j] = s.Nodes[j], s.Nodes[i] })
	r.Shuffle(len(s.Endpoints), func(i, j int) { s.Endpoints[i], s.Endpoints[j] = s.Endpoints[j], s.Endpoints[i] })
	r.Shuffle(len(s.Claims), func(i, j int) { s.Claims[i], s.Claims[j] = s.Claims[j], s.Claims[i] })
	return s
}
