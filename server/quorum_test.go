package server

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

func TestServersThatMayBeRemoved(t *testing.T) {
	up := func(n string) standing { return standing{Name: n, Answers: true} }
	down := func(n string) standing { return standing{Name: n} }
	learner := standing{Name: "l", Learner: true}
	for _, c := range []struct {
		all  []standing
		name string
		says string // "" when it may
	}{
		{[]standing{up("a")}, "a", "only server"},
		{[]standing{up("a"), learner}, "a", "only server"},
		{[]standing{up("a"), up("b")}, "b", ""},
		{[]standing{up("a"), up("b")}, "a", "ask another one"},
		{[]standing{up("a"), down("b")}, "b", ""},
		{[]standing{up("a"), up("b"), up("c")}, "c", ""},
		{[]standing{up("a"), up("b"), down("c")}, "c", ""},
		{[]standing{up("a"), up("b"), down("c")}, "b", "Bring c back"},
		{[]standing{up("a"), down("b"), down("c")}, "b", "1 of them"},
		{[]standing{up("a"), up("b"), up("c"), down("d")}, "b", ""},
		{[]standing{up("a"), up("b"), up("c"), down("d"), down("e")}, "b", "d or e"},
		{[]standing{up("a"), up("b"), up("c"), down("d"), down("e")}, "d", ""},
		{[]standing{up("a"), learner}, "l", ""},
		{[]standing{up("a")}, "z", "no server"},
	} {
		err := mayRemove(c.all, c.name, "a")
		switch {
		case c.says == "" && err != nil:
			t.Errorf("%v without %s: %v", c.all, c.name, err)
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%v without %s: %v, want %q", c.all, c.name, err, c.says)
		case c.says == "no server" && cluster.KindOf(err) != cluster.KindNotFound:
			t.Errorf("kind %v", cluster.KindOf(err))
		}
	}
}

// What is left after an allowed removal of a server is a majority of itself.
func TestRemovingKeepsAMajority(t *testing.T) {
	for bits := range 1 << 10 { // five servers: whether each is there, whether it answers
		var all []standing
		for i := range 5 {
			if bits>>i&1 == 1 {
				all = append(all, standing{Name: string(rune('a' + i)), Answers: bits>>(5+i)&1 == 1})
			}
		}
		for _, s := range all {
			if mayRemove(all, s.Name, "") != nil {
				continue
			}
			left, answer := 0, 0
			for _, o := range all {
				if o.Name != s.Name {
					left++
					if o.Answers {
						answer++
					}
				}
			}
			if left == 0 || answer*2 <= left {
				t.Fatalf("%v without %s: %d of %d answer", all, s.Name, answer, left)
			}
		}
	}
}

func TestAlarmsAboutServers(t *testing.T) {
	list := []v1.ServerSummary{
		{Node: "n1", Standing: v1.StandingVoter, Answers: true},
		{Node: "n2", Standing: v1.StandingVoter, Problem: "its store does not answer at x"},
		{Node: "n3", Standing: v1.StandingLearner, Problem: "it has not started yet"}, // it is on its way
		{Node: "n4", Standing: v1.StandingNone, Problem: neverStarted},                // so may this one be
	}
	if got := serverAlarms(list, nil); len(got) != 1 || !strings.HasPrefix(got[0], "server n2: ") {
		t.Errorf("got %q", got)
	}
	if got := serverAlarms(nil, cluster.Transientf("no quorum")); len(got) != 1 || !strings.Contains(got[0], "no majority") {
		t.Errorf("got %q", got)
	}
	a := &storeAlarms{embedded: func() string { return "full" }, servers: []string{"server n2: x"}}
	if got := a.list(); len(got) != 2 {
		t.Errorf("all of them: %q", got)
	}
}

func TestServersThatJoin(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	long, short := now.Add(-learnerPatience), now.Add(-learnerPatience+time.Second)
	for name, c := range map[string]struct {
		in   joining
		want []memberAction
	}{
		"not started yet":     {joining{ID: 1, Since: short}, nil},
		"never came":          {joining{ID: 1, Since: long}, []memberAction{drop{joining{ID: 1, Since: long}}}},
		"started":             {joining{ID: 1, Name: "a", Since: short, Answers: true}, []memberAction{promote{joining{ID: 1, Name: "a", Since: short, Answers: true}}}},
		"slow, but there":     {joining{ID: 1, Name: "a", Since: long, Answers: true}, []memberAction{promote{joining{ID: 1, Name: "a", Since: long, Answers: true}}}},
		"silent for a moment": {joining{ID: 1, Name: "a", Since: short}, nil}, // it may be dead
		"silent for long":     {joining{ID: 1, Name: "a", Since: long}, []memberAction{drop{joining{ID: 1, Name: "a", Since: long}}}},
	} {
		if d := cmp.Diff(c.want, planMembers([]joining{c.in}, now), cmp.AllowUnexported(promote{}, drop{}, joining{})); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}
