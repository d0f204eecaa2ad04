package lab

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fairlead/fairlead/cluster"
)

func spec(nodes int) Spec {
	return Spec{Name: "t", Nodes: nodes, Servers: 1, Gateways: 1, Engine: EngineDistro, Domain: "localhost", LogLevel: "info"}
}

// world is a lab without processes: what steps would make of it.
type world struct {
	rules    string
	serving  bool
	machines map[string]Seen
}

func (w *world) do(t interface{ Fatalf(string, ...any) }, st State, s Step) {
	switch s := s.(type) {
	case SetRules:
		w.rules = s.Rules
	case PowerOn:
		if w.machines[s.Node].Running {
			t.Fatalf("%s has power already", s.Node)
		}
		w.machines[s.Node] = Seen{Running: true, Joined: w.machines[s.Node].Joined, Stopped: stopped(st, s.Node)}
		w.serving = w.serving || s.Node == "n1"
	case PowerOff:
		w.machines[s.Node] = Seen{Joined: w.machines[s.Node].Joined}
		w.serving = w.serving && s.Node != "n1"
	case SetPace:
		m := w.machines[s.Node]
		m.Pace = s.Pace
		w.machines[s.Node] = m
	case Tell:
		m := w.machines[s.Node]
		m.Stopped = s.Stopped
		w.machines[s.Node] = m
	case Invite:
		for _, n := range s.Nodes {
			m := w.machines[n]
			if !w.serving || !m.Running || m.Joined {
				t.Fatalf("%s is invited: serving %v, %+v", n, w.serving, m)
			}
			m.Invited, m.Joined = true, true
			w.machines[n] = m
		}
	}
}

func (w *world) snapshot(st State) Snapshot {
	return Snapshot{State: st, Machines: w.machines, Rules: w.rules, Serving: w.serving}
}

func TestANewLabIsMadeInTwoRounds(t *testing.T) {
	st := State{Spec: spec(3)}
	w := &world{machines: map[string]Seen{}}
	first := Plan(w.snapshot(st))
	if diff := cmp.Diff([]Step{SetRules{SwitchRules(nil)}, PowerOn{"n1"}, PowerOn{"n2"}, PowerOn{"n3"}}, first); diff != "" {
		t.Errorf("first:\n%s", diff)
	}
	for _, s := range first {
		w.do(t, st, s)
	}
	second := Plan(w.snapshot(st))
	if diff := cmp.Diff([]Step{Invite{Nodes: []string{"n2", "n3"}}}, second); diff != "" {
		t.Errorf("then:\n%s", diff)
	}
	w.serving = false
	if got := Plan(w.snapshot(st)); len(got) > 0 {
		t.Errorf("nobody invites while no server answers: %v", got)
	}
}

// Whatever is asked for, in any order: a few rounds make it so, and then nothing is
// left to do.
func TestPlanEndsWhereItIsWanted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		st := State{Spec: spec(rapid.IntRange(1, 5).Draw(t, "nodes"))}
		w := &world{machines: map[string]Seen{}}
		node := rapid.SampledFrom(st.Spec.Machines())
		for range rapid.IntRange(0, 12).Draw(t, "requests") {
			a, b := node.Draw(t, "a").Name, node.Draw(t, "b").Name
			r := Request{Op: rapid.SampledFrom([]Op{OpKill, OpStart, OpCut, OpHeal, OpSlow}).Draw(t, "op"), Target: a}
			switch r.Op {
			case OpKill, OpStart:
				r.Target += rapid.SampledFrom([]string{"", "/docker", "/fairlead"}).Draw(t, "unit")
			case OpCut, OpHeal:
				r.OneWay = rapid.Bool().Draw(t, "one way")
				r.Target += rapid.SampledFrom([]string{"", ":" + b}).Draw(t, "to")
			case OpSlow:
				r.Pace.Rate = rapid.Uint64Range(0, 2).Draw(t, "rate")
			}
			before := st.clone()
			if err := r.wanted(&st); err != nil {
				if diff := cmp.Diff(before, st); diff != "" && a != b {
					t.Fatalf("a refused request changed:\n%s", diff)
				}
				continue
			}
			if rapid.Bool().Draw(t, "carried out") {
				for _, s := range Plan(w.snapshot(st)) {
					w.do(t, st, s)
				}
			}
		}
		for range 4 {
			for _, s := range Plan(w.snapshot(st)) {
				w.do(t, st, s)
			}
		}
		if left := Plan(w.snapshot(st)); len(left) > 0 {
			t.Fatalf("there is always more to do: %v", left)
		}
		for _, m := range st.Spec.Machines() {
			seen := w.machines[m.Name]
			if seen.Running == st.Off.Has(m.Name) {
				t.Fatalf("%s: running %v, off %v", m.Name, seen.Running, st.Off)
			}
			if seen.Running && (seen.Pace != st.Slow[m.Name] || !slices.Equal(seen.Stopped, stopped(st, m.Name))) {
				t.Fatalf("%s is %+v, wanted %+v", m.Name, seen, st)
			}
			if seen.Running && w.serving && m.joins() && !seen.Joined {
				t.Fatalf("%s has not joined", m.Name)
			}
		}
		if w.rules != SwitchRules(st.Cuts) {
			t.Fatalf("the switch has\n%s", w.rules)
		}
	})
}

func TestSpecIsValidated(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Spec)
		want   string
	}{
		"as it is":        {func(*Spec) {}, ""},
		"no gateway":      {func(s *Spec) { s.Gateways = 0 }, ""},
		"no name":         {func(s *Spec) { s.Name = "" }, "lab name"},
		"a path":          {func(s *Spec) { s.Name = "../x" }, "lab name"},
		"a long name":     {func(s *Spec) { s.Name = strings.Repeat("x", 21) }, "lab name"},
		"no nodes":        {func(s *Spec) { s.Nodes = 0 }, "--nodes 0"},
		"many":            {func(s *Spec) { s.Nodes = 101 }, "--nodes 101"},
		"no server":       {func(s *Spec) { s.Servers = 0 }, "--servers 0"},
		"more than nodes": {func(s *Spec) { s.Servers = 4 }, "--servers 4"},
	} {
		s := spec(3)
		c.change(&s)
		err := s.Validate()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestMachinesHaveRolesAndAddresses(t *testing.T) {
	s := spec(100)
	s.Servers, s.Gateways = 3, 2
	all := s.Machines()
	seen := map[string]bool{switchAddress().String(): true}
	for i, m := range all {
		if a := m.Address.String(); seen[a] || !network.Contains(m.Address) {
			t.Errorf("%s has %s", m.Name, a)
		} else {
			seen[a] = true
		}
		if m.Server != (i < 3) || m.Gateway != (i < 2) {
			t.Errorf("%+v", m)
		}
	}
	if _, err := s.Machine("n101"); cluster.KindOf(err) != cluster.KindNotFound {
		t.Errorf("n101: %v", err)
	}
	want := []Port{{"n1", 80, 0}, {"n1", 443, 0}, {"n2", 80, 0}, {"n2", 443, 0}}
	if diff := cmp.Diff(want, Ports(s)); diff != "" {
		t.Error(diff)
	}
}

func TestUnits(t *testing.T) {
	d := DirOf("/labs", "t")
	st := State{Spec: spec(2), EngineDir: "/engine", Traefik: "/bin/traefik"}
	m := st.Spec.Machines()
	server, agent := Units(d, st, m[0])[1], Units(d, st, m[1])[1]
	line := func(u Unit) string { return " " + strings.Join(u.Args, " ") + " " }
	for want, in := range map[string]string{
		" server --data-dir ": line(server), " --domain localhost ": line(server), " --traefik /bin/traefik ": line(server), " --advertise 10.99.0.1 ": line(server),
		" agent --data-dir ": line(agent), " --join 10.99.0.1:7420 ": line(agent), " --node n2 ": line(agent), " --data-dir /labs/t/nodes/n2/fairlead ": line(agent),
	} {
		if !strings.Contains(in, want) {
			t.Errorf("%q is not in %q", want, in)
		}
	}
	if server.Token || !agent.Token {
		t.Error("agents need a token, servers do not")
	}
	docker := Units(d, st, m[1])[0]
	if docker.Args[0] != "/engine/dockerd" || !strings.Contains(docker.Env[0], ":/engine:") {
		t.Errorf("%v %v", docker.Args, docker.Env)
	}
	if other := Units(DirOf("/other", "t"), st, m[1])[0]; slices.Equal(other.Args, docker.Args) ||
		DirOf("/other", "t").group() == d.group() || !strings.Contains(line(docker), " --cgroup-parent /fairlead-lab/"+d.group()+"/n2 ") {
		t.Errorf("labs of one name in two directories have the same control groups: %v", docker.Args)
	}
	st.Spec.Gateways = 2
	if got := line(Units(d, st, st.Spec.Machines()[1])[1]); !strings.Contains(got, " --gateway --traefik /bin/traefik ") {
		t.Errorf("a gateway on an agent: %s", got)
	}
	st.Spec.Gateways = 0
	if got := line(Units(d, st, st.Spec.Machines()[0])[1]); !strings.Contains(got, "--no-gateway") || strings.Contains(got, "traefik") {
		t.Errorf("without a gateway: %s", got)
	}
}

func TestSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s Set
		model := map[string]bool{}
		for range rapid.IntRange(0, 20).Draw(t, "n") {
			name, in := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name"), rapid.Bool().Draw(t, "in")
			before := slices.Clone(s)
			next := s.With(name, in)
			if !slices.Equal(before, s) {
				t.Fatalf("With changed its receiver")
			}
			s, model[name] = next, in
			for k, v := range model {
				if s.Has(k) != v {
					t.Fatalf("%v, want %v", s, model)
				}
			}
			if !slices.IsSorted(s) {
				t.Fatalf("%v", s)
			}
		}
	})
}

// Pasted, it is about the lab that said it and no other.
func TestCommandOfALab(t *testing.T) {
	for d, want := range map[Dir]string{
		DirOf(DefaultRoot, "lab"):    "fairlead lab down",
		DirOf(DefaultRoot, "two"):    "fairlead lab --name two down",
		DirOf("/srv/labs", "lab"):    "fairlead lab --dir /srv/labs down",
		DirOf("/srv/labs/", "two"):   "fairlead lab --name two --dir /srv/labs down",
		DirOf("/", "lab"):            "fairlead lab --dir / down",
		DirOf("/it's my; $x", "lab"): `fairlead lab --dir '/it'\''s my; $x' down`,
	} {
		if got := d.command("down"); got != want {
			t.Errorf("%s: %s, want %s", d, got, want)
		}
	}
}
