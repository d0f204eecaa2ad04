package names

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestNext(t *testing.T) {
	now := time.Unix(1000, 0)
	later := now.Add(3 * time.Second)
	for name, c := range map[string]struct {
		s    situation
		want step
	}{
		"nothing runs":           {situation{}, step{do: start}},
		"it died early":          {situation{NotBefore: later}, step{do: rest, wait: 3 * time.Second}},
		"it died early, a while": {situation{NotBefore: now}, step{do: start}},
		"all is well":            {situation{Running: true, Current: true}, step{do: rest}},
		"it does not answer":     {situation{Running: true, Broken: true, Current: true, Due: []due{{partNetworks, now}}}, step{do: end}},
		"an earlier program":     {situation{Running: true, Due: []due{{partNetworks, now}}}, step{do: replace}},
		"its successor failed, and it is fed meanwhile": {
			situation{Running: true, NotBefore: later, Due: []due{{partNetworks, now}}}, step{do: feed, part: partNetworks},
		},
		"its successor failed": {situation{Running: true, NotBefore: later}, step{do: rest, wait: 3 * time.Second}},
		"endpoints come first": {
			situation{Running: true, Current: true, Due: []due{{partNetworks, now}, {partEndpoints, now}}}, step{do: feed, part: partEndpoints},
		},
		"what was refused waits, the others do not": {
			situation{Running: true, Current: true, Due: []due{{partEndpoints, later}, {partNetworks, now}}}, step{do: feed, part: partNetworks},
		},
		"the first of what was refused": {
			situation{Running: true, Current: true, Due: []due{{partEndpoints, later}, {partNetworks, now.Add(time.Second)}}},
			step{do: rest, wait: time.Second},
		},
	} {
		c.s.Now = now
		if diff := cmp.Diff(c.want, next(c.s), cmp.AllowUnexported(step{})); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// It comes to rest, at once or at a time that it names, and then all is as it should be.
func TestNextComesToRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(1000, 0)
		at := rapid.Custom(func(t *rapid.T) time.Time {
			return now.Add(time.Duration(rapid.Int64Range(-5, 5).Draw(t, "s")) * time.Second)
		})
		s := situation{
			Now: now, Running: rapid.Bool().Draw(t, "running"), Broken: rapid.Bool().Draw(t, "broken"),
			Current: rapid.Bool().Draw(t, "current"), NotBefore: at.Draw(t, "not before"),
		}
		parts := rapid.SliceOfNDistinct(rapid.SampledFrom(feedOrder), 0, 3, rapid.ID).Draw(t, "due")
		for _, p := range parts {
			s.Due = append(s.Due, due{p, at.Draw(t, "due")})
		}
		rests := 0
		for range 50 {
			x := next(s)
			switch x.do {
			case start, replace:
				s.Running, s.Broken, s.Current = true, false, true
				s.Due = nil
				for _, p := range parts {
					s.Due = append(s.Due, due{p, time.Time{}})
				}
			case end:
				s.Running, s.Broken = false, false
			case feed:
				var left []due
				for _, d := range s.Due {
					if d.part != x.part {
						left = append(left, d)
					}
				}
				if len(left) == len(s.Due) {
					t.Fatalf("feeds %s, which is not due", x.part)
				}
				s.Due = left
			case rest:
				if x.wait == 0 {
					if !s.Running || s.Broken || !s.Current || len(s.Due) > 0 {
						t.Fatalf("rests for good in %+v", s)
					}
					return
				}
				s.Now = s.Now.Add(x.wait)
				rests++
			}
		}
		t.Fatalf("it does not come to rest: %+v after %d rests", s, rests)
	})
}

func TestPauseIsBounded(t *testing.T) {
	last := time.Duration(-1)
	for failed := range 40 {
		p := pause(failed)
		if p < last || p > maxPause || (failed == 0) != (p == 0) {
			t.Errorf("after %d: %s", failed, p)
		}
		last = p
	}
}
