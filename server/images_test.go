package server

import (
	"testing"
	"time"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery/work"
)

func TestWhenRegistriesAreAsked(t *testing.T) {
	d := cluster.Delivery{Name: "shop", Images: []cluster.ImagePolicy{{Name: "web", Repository: "r.io/web", Semver: "1.x"}}, Interval: cluster.Duration(time.Minute)}
	now := time.Unix(1_700_000_000, 0)
	last := lastScan{policies: policies(d), at: now, asked: 3}
	other := d
	other.Images = []cluster.ImagePolicy{{Name: "web", Repository: "r.io/web", Semver: "2.x"}}
	for what, tc := range map[string]struct {
		last  lastScan
		d     cluster.Delivery
		asked int64
		after time.Duration
		want  bool
	}{
		"never before":          {lastScan{}, d, 0, 0, true},
		"after a failed look":   {last, d, 3, 10 * time.Second, false},
		"at the next look":      {last, d, 3, 55 * time.Second, true},
		"somebody asks":         {last, d, 4, time.Second, true},
		"another policy":        {last, other, 3, time.Second, true},
		"the default, too soon": {last, cluster.Delivery{Images: d.Images}, 3, 30 * time.Second, false},
	} {
		if got := tc.last.due(tc.d, tc.asked, now.Add(tc.after)); got != tc.want {
			t.Errorf("%s: %v", what, got)
		}
	}
}

// A registry that says when is taken at its word; one that goes on refusing is left alone
// for ever longer, and one that answers is forgiven.
func TestRegistriesAreLeftAlone(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	var l leave
	for _, want := range []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 16 * time.Minute, 32 * time.Minute, time.Hour, time.Hour} {
		if l = l.more(time.Second, now); l.until.Sub(now) != want {
			t.Errorf("the %d. time it is %s, want %s", l.times, l.until.Sub(now), want)
		}
	}
	if l = (leave{}).more(20*time.Minute, now); l.until.Sub(now) != 20*time.Minute {
		t.Errorf("%s", l.until.Sub(now))
	}
	s := &sources{machine: &machine{local: local{now: func() time.Time { return now }}}, scans: map[cluster.DeliveryName]lastScan{}, leaves: map[string]leave{}}
	task := work.Task{Delivery: cluster.Delivery{Name: "shop", Images: []cluster.ImagePolicy{{Name: "web"}}}, Scan: true}
	states := []cluster.ImageState{{ImageChoice: cluster.ImageChoice{Repository: "r.io/web"}, Failures: 1}}
	s.scanned(task, work.Result{Images: states, Waits: map[string]time.Duration{"r.io": time.Minute}}, 7)
	if got := s.scans["shop"]; s.leaves["r.io"].times != 1 || got.asked != 7 || got.policies != policies(task.Delivery) || len(got.states) != 1 || got.at.IsZero() {
		t.Errorf("%+v, %+v", s.leaves, got)
	}
	s.scanned(task, work.Result{}, 8) // it ended without an answer
	if got := s.scans["shop"]; len(got.states) != 1 || got.asked != 8 {
		t.Errorf("%+v", got)
	}
	states[0].Failures = 0
	s.scanned(task, work.Result{Images: states}, 8)
	if len(s.leaves) != 0 {
		t.Errorf("%+v", s.leaves)
	}
}

// A commit that is not taken is news once, and again after one that was.
func TestNewsOfCommits(t *testing.T) {
	states := func(why string) []cluster.ImageState {
		return []cluster.ImageState{{}, {ImageChoice: cluster.ImageChoice{Policy: "web", Tag: "1.1.0"}, Unwritten: why}}
	}
	for what, tc := range map[string]struct {
		was, is string
		wrote   []string
		want    string
	}{
		"nothing":        {"", "", nil, ""},
		"a commit":       {"", "", []string{"committed as 1", "a:1: b → c"}, "committed as 1, a:1: b → c"},
		"a refusal":      {"", "no", nil, "not committed: no"},
		"the same again": {"no", "no way", nil, ""},
		"a commit then":  {"no", "", []string{"committed as 1"}, "committed as 1"},
	} {
		if got := commitNews(states(tc.was), api.Fetched{Images: states(tc.is), Wrote: tc.wrote}); got != tc.want {
			t.Errorf("%s: %q, want %q", what, got, tc.want)
		}
	}
}
