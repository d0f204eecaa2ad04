package lab

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/cluster"
)

func TestWhatALabWaitsFor(t *testing.T) {
	st := State{Spec: spec(3), Off: Set{"n3"}, Ports: []Port{{"n1", 80, 4000}, {"n1", 443, 4001}}}
	s := newStatus("/labs/t", st)
	if got, want := s.Waiting(), "n1: power, n2: power"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	s.Nodes[0].Power, s.Nodes[1].Power, s.Nodes[0].Docker, s.Nodes[1].Docker = true, true, true, true
	s.Nodes[1].Alive = true // of the time before its power was cut
	if got, want := s.Waiting(), "n1: Fairlead, n2: Fairlead"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	for i := range 2 {
		s.Nodes[i].Alive, s.Nodes[i].Units = true, []UnitState{{Name: UnitFairlead, PID: 9, Starts: 1}}
	}
	if got, want := s.Waiting(), "n1: gateway"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	s.Nodes[0].GatewayServes = true
	if got := s.Waiting(); got != "" {
		t.Errorf("%q", got)
	}
	if diff := cmp.Diff([]string{"http://127.0.0.1:4000", "https://127.0.0.1:4001"}, s.URLs); diff != "" {
		t.Error(diff)
	}
	if node, _, _ := s.Ailing(); node != "" {
		t.Errorf("%s ails", node)
	}
	s.Nodes[1].Units = []UnitState{{Name: UnitDocker, Starts: 4, Ended: "ended with exit code 1"}}
	if node, unit, ended := s.Ailing(); node != "n2" || unit != UnitDocker || ended != "ended with exit code 1" {
		t.Errorf("%s %s %s", node, unit, ended)
	}
	s.Nodes[1].Stopped = Set{UnitDocker}
	s.Nodes[1].Docker = false
	if got := s.Waiting(); got != "" {
		t.Errorf("nothing is expected of a node whose engine was killed: %q", got)
	}
}

func TestStateSurvives(t *testing.T) {
	d := Dir(t.TempDir())
	if _, err := Read(d); cluster.KindOf(err) != cluster.KindNotFound {
		t.Errorf("no lab: %v", err)
	}
	want := State{Spec: spec(2), Off: Set{"n1"}, Cuts: []Cut{{"n1", ""}}, Slow: map[string]Pace{"n2": {Rate: 5}}, Ports: []Port{{"n1", 80, 1}}}
	if err := want.write(d); err != nil {
		t.Fatal(err)
	}
	got, err := Read(d)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	c := want.clone()
	c.Cuts[0].From, c.Slow["n2"], c.Ports[0].Port = "x", Pace{}, 7
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("a clone shares:\n%s", diff)
	}
	if err := os.WriteFile(d.state(), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(d); cluster.KindOf(err) != cluster.KindNotFound {
		t.Errorf("half a file of nobody knows whom: %v", err)
	}
	if err := os.WriteFile(d.mark(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(d); cluster.KindOf(err) != cluster.KindInvalid {
		t.Errorf("half a file: %v", err)
	}
}

func TestRequestsAreRefused(t *testing.T) {
	for _, r := range []Request{
		{Op: OpKill, Target: "n9"}, {Op: OpStart, Target: "n1/sshd"}, {Op: OpCut, Target: "n1:n1"}, {Op: OpSlow, Target: "x"}, {Op: "explode"},
	} {
		st := State{Spec: spec(2)}
		if err := r.wanted(&st); err == nil {
			t.Errorf("%+v is not refused", r)
		}
		if diff := cmp.Diff(State{Spec: spec(2)}, st); diff != "" {
			t.Errorf("%+v changed:\n%s", r, diff)
		}
	}
}

func TestAskWithoutALab(t *testing.T) {
	_, err := Ask(t.Context(), Dir(t.TempDir()), Request{Op: OpStatus})
	if cluster.KindOf(err) != cluster.KindTransient {
		t.Errorf("%v", err)
	}
}

func TestCgroupDirs(t *testing.T) {
	root := t.TempDir()
	for _, p := range []string{
		"cpu/fairlead-lab/a/n1/c1", "memory/fairlead-lab/a/n1", "cpu/fairlead-lab/b/n1", "fairlead-lab/a", "cpu/docker/a",
	} {
		if err := os.MkdirAll(filepath.Join(root, p), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	got := cgroupDirs(root, "a")
	for i := range got {
		got[i], _ = filepath.Rel(root, got[i])
	}
	want := []string{
		"memory/fairlead-lab/a/n1", "memory/fairlead-lab/a", "fairlead-lab/a",
		"cpu/fairlead-lab/a/n1/c1", "cpu/fairlead-lab/a/n1", "cpu/fairlead-lab/a",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, g := range got {
		if err := os.Remove(filepath.Join(root, g)); err != nil {
			t.Error(err)
		}
	}
}

// What one end has said arrives whole, also after it has said that it says no more.
func TestForward(t *testing.T) {
	dir := t.TempDir()
	listen := func(name string) net.Listener {
		var lc net.ListenConfig
		l, err := lc.Listen(t.Context(), "unix", filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	back, front := listen("back"), listen("front")
	defer func() { _ = back.Close() }()
	go func() {
		c, err := back.Accept()
		if err != nil {
			return
		}
		defer func() { _ = c.Close() }()
		b, _ := io.ReadAll(c)
		slices.Reverse(b)
		_, _ = c.Write(b)
	}()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- forward(ctx, front, func(ctx context.Context) (net.Conn, error) { return dial(ctx, "unix", back.Addr().String()) })
	}()
	c, err := dial(t.Context(), "unix", front.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_, _ = io.WriteString(c, "abc")
	_ = c.(*net.UnixConn).CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != "cba" {
		t.Errorf("%q, %v", b, err)
	}
	cancel()
	if err := <-done; err == nil {
		t.Error("it does not say why it ended")
	}
}

func TestOrdersAreWhole(t *testing.T) {
	st := State{Spec: spec(2)}
	m := st.Spec.Machines()
	for _, want := range []order{
		{Boot: &boot{Lab: "t", Dir: "/x", Self: m[1], All: m, Units: Units("/x", st, m[1]), Stopped: Set{UnitDocker}}},
		{Stop: &stop{Set{UnitDocker}}},
		{Stop: &stop{}},
		{Token: "x"},
		{Halt: true},
	} {
		b, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got order
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b Machine) bool { return a == b })); diff != "" {
			t.Error(diff)
		}
	}
}
