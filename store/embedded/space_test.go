package embedded

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func TestNextStep(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, test := range map[string]struct {
		s    space
		want step
	}{
		"new":                      {space{Size: mib, InUse: mib / 50}, rest},
		"half is free, but little": {space{Size: 100 * mib, InUse: 40 * mib}, rest},
		"much is free, but a part": {space{Size: 1000 * mib, InUse: 800 * mib}, rest},
		"worth it":                 {space{Size: 200 * mib, InUse: 90 * mib}, defragment},
		"worth it, but again":      {space{Size: 200 * mib, InUse: 90 * mib, Last: now.Add(-time.Minute)}, rest},
		"worth it, after a while":  {space{Size: 200 * mib, InUse: 90 * mib, Last: now.Add(-2 * time.Hour)}, defragment},
		"near the quota":           {space{Size: 3500 * mib, InUse: 2900 * mib}, defragment},
		"near it and used":         {space{Size: 3500 * mib, InUse: 3400 * mib}, rest},
		"alarm with history":       {space{Size: 4096 * mib, InUse: 4000 * mib, Alarm: true, History: true}, compact},
		"alarm with free pages":    {space{Size: 4096 * mib, InUse: 300 * mib, Alarm: true}, defragment},
		"alarm, tried once":        {space{Size: 4096 * mib, InUse: 300 * mib, Alarm: true, Tried: true}, giveUp},
		"alarm, room again":        {space{Size: 300 * mib, InUse: 300 * mib, Alarm: true, Tried: true}, disarm},
		"alarm, truly full":        {space{Size: 4096 * mib, InUse: 4000 * mib, Alarm: true}, giveUp},
		"alarm, counted late":      {space{Size: 4096 * mib, InUse: 4000 * mib, Alarm: true, Compacted: true}, defragment},
		"alarm, full after that":   {space{Size: 4000 * mib, InUse: 4000 * mib, Alarm: true, Last: now, Tried: true}, giveUp},
		"alarm, full a while":      {space{Size: 4000 * mib, InUse: 4000 * mib, Alarm: true, Last: now.Add(-time.Hour)}, defragment},
		"alarm, larger quota":      {space{Size: 4096 * mib, InUse: 4000 * mib, Alarm: true, Quota: 8192 * mib}, disarm},
	} {
		test.s.Now = now
		if test.s.Quota == 0 {
			test.s.Quota = 4096 * mib
		}
		if got := test.s.next(); got != test.want {
			t.Errorf("%s: step %d, want %d", name, got, test.want)
		}
	}
}

// Whatever the state: a round comes to an end, takes the alarm back only with
// room to write, gives up only when the data itself does not fit, and the next
// round after it has nothing to do.
func TestRoundsComeToRest(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 20_000 {
		s := space{Quota: minQuota + rnd.Int64N(maxQuota-minQuota), Alarm: rnd.IntN(2) == 0, History: rnd.IntN(2) == 0}
		s.Size = rnd.Int64N(s.Quota + s.Quota/10)
		s.InUse = rnd.Int64N(s.Size + 1)
		live := rnd.Int64N(s.InUse + 1) // what compaction leaves
		s.Now = time.Unix(1e9, 0)
		if rnd.IntN(2) == 0 {
			s.Last = s.Now.Add(-time.Duration(rnd.Int64N(int64(2 * time.Hour))))
		}
		start, had := s, s.Alarm
		if !s.History {
			live = s.InUse
			if s.Compacted = rnd.IntN(2) == 0; s.Compacted {
				live = rnd.Int64N(s.InUse + 1) // what was forgotten is counted still
			}
		}
		late := rnd.IntN(2) == 0 // the pages that compaction frees are counted late
		round := func() (steps int, last step) {
			for s.Tried = false; steps < 10; steps++ {
				switch last = s.next(); last {
				case compact:
					s.History, s.Compacted = false, true
					if !late {
						s.InUse = live
					}
				case defragment:
					if s.Alarm || s.Compacted {
						s.InUse = live
					}
					s.Size, s.Last, s.Tried, s.Compacted = s.InUse, s.Now, s.Alarm, false
				case disarm:
					if s.Size >= s.Quota {
						t.Fatalf("%d: %+v: the alarm is taken back with %d of %d", i, start, s.Size, s.Quota)
					}
					s.Alarm = false
				case rest, giveUp:
					return steps, last
				}
			}
			return steps, last
		}
		steps, last := round()
		if steps > mostSteps-1 && last != rest {
			t.Fatalf("%d: %+v: %d steps", i, start, steps)
		}
		if (last == giveUp) != (had && live > s.limit()) {
			t.Fatalf("%d: %+v with %d live: ended with step %d", i, start, live, last)
		}
		if last == giveUp && !strings.Contains(s.trouble(), "--etcd-quota") {
			t.Fatalf("%d: %+v: says %q", i, start, s.trouble())
		}
		if steps, again := round(); steps != 0 || again != last {
			t.Fatalf("%d: %+v: the next round does %d steps and ends with %d after %d", i, start, steps, again, last)
		}
	}
}
