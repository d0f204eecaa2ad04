package delivery

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// Snapshot is what the next steps are decided on.
type Snapshot struct {
	Now        time.Time
	Deliveries []Item
	// Orphans are states of deliveries that are gone.
	Orphans []cluster.DeliveryState
	// Busy are the deliveries that something is being done for, at the revision of them
	// that it is for, and Since when that began; Free is how many more there may be, not
	// counting that what takes long has a place of its own.
	Busy  map[cluster.DeliveryName]cluster.StoreRev
	Since map[cluster.DeliveryName]time.Time
	Free  int
	// Later are the deliveries that are left alone until then, as what became of them could
	// not be written.
	Later map[cluster.DeliveryName]time.Time
}

// Item is a delivery with what it depends on.
type Item struct {
	Spec  cluster.Delivery
	State cluster.DeliveryState
	Ask   int64 // the newest DeliveryAsk
	Again bool  // what failed is to be tried again, with that
	// Release is the app's current release, 0 without one; Outcome what became of it, and App
	// when the app was created. State is of that app.
	App     cluster.StoreRev
	Release int
	Outcome *cluster.ReleaseOutcome
	// Busy is the release of a change of the app that nothing takes the place of, as its
	// hooks run: it ends in its own time. 0: there is none.
	Busy int
	// Written is when the services of the release that is watched were, where hooks ran first.
	Written time.Time
}

// Action is a next step.
//
//sumtype:decl
type Action interface{ action() }

// Fetch looks at the source and deploys what is new.
type Fetch struct{ Item }

// GoBack makes the last good release again.
type GoBack struct{ Item }

// Send sends the outbox.
type Send struct{ Item }

// Save writes the state of the item.
type Save struct{ Item }

// Forget deletes the state of a delivery that is gone.
type Forget struct{ State cluster.DeliveryState }

// End gives up what is being done for a delivery that was changed, suspended or removed
// since. What it leads to would not be written, and a host that hangs would keep the new one
// waiting.
type End struct{ Name cluster.DeliveryName }

// hopeless: the app's release failed and is to be gone back from, which is not to wait for a
// source, or a receiver of news, that hangs.
func hopeless(i Item, now time.Time) bool {
	i.Spec = i.Spec.Filled()
	st, changed := watched(i, now)
	return changed && st.Going && !i.State.Going
}

func (End) action()    {}
func (Fetch) action()  {}
func (GoBack) action() {}
func (Send) action()   {}
func (Save) action()   {}
func (Forget) action() {}

func (s Snapshot) busy(n cluster.DeliveryName) bool {
	_, is := s.Busy[n]
	return is
}

// What takes longer than slowAfter hangs, or is large: it gives its hand back to the others, as
// long as there are no more than maxSlow.
const (
	slowAfter = 10 * time.Second
	maxSlow   = 8
)

func (s Snapshot) slow(n cluster.DeliveryName) bool {
	at, is := s.Since[n]
	return is && s.busy(n) && !s.Now.Before(at.Add(slowAfter))
}

// hands is how many more may be begun.
func (s Snapshot) hands() int {
	slow := 0
	for n := range s.Busy {
		if s.slow(n) {
			slow++
		}
	}
	return s.Free + min(slow, maxSlow)
}

// doubtful says of which deliveries a look may take long: they failed, or another one hangs now
// that is from the same host. Somebody who asks is believed.
func (s Snapshot) doubtful() func(Item) bool {
	hosts := map[string]bool{}
	for _, i := range s.Deliveries {
		if s.slow(i.Spec.Name) {
			hosts[i.Spec.Source.Host()] = true
		}
	}
	delete(hosts, "")
	return func(i Item) bool { return retried(i) || hosts[i.Spec.Source.Host()] && !i.asked() }
}

// ended is what is being done for nothing.
func ended(s Snapshot) (out []Action) {
	now := map[cluster.DeliveryName]cluster.StoreRev{}
	for _, i := range s.Deliveries {
		now[i.Spec.Name] = i.Spec.Rev
	}
	for _, n := range slices.Sorted(maps.Keys(s.Busy)) {
		if rev, is := now[n]; !is || rev != s.Busy[n] {
			out = append(out, End{n})
		}
	}
	return out
}

// Plan returns what is to be done now, the longest due first where not all of it can be. A
// source that hangs takes its time at each try: those that are tried again, or are from a host
// where one hangs, have half of the hands at most, so that the others are looked at meanwhile.
func Plan(s Snapshot) []Action {
	out := ended(s)
	old := map[cluster.DeliveryName]bool{}
	for _, o := range s.Orphans {
		old[o.Name] = true
		if !s.busy(o.Name) {
			out = append(out, Forget{o})
		}
	}
	all := byName(s.Deliveries)
	wanted := all.wanted(s.Now)
	items := slices.Clone(s.Deliveries)
	slices.SortFunc(items, func(a, b Item) int {
		return cmp.Or(a.State.Next.Compare(b.State.Next), cmp.Compare(a.Spec.Name, b.Spec.Name))
	})
	free, again, doubtful := s.hands(), max(1, (s.Free+len(s.Busy))/2), s.doubtful()
	for _, i := range items {
		if s.busy(i.Spec.Name) && !s.slow(i.Spec.Name) && doubtful(i) {
			again--
		}
	}
	for _, i := range items {
		if s.busy(i.Spec.Name) {
			if s.slow(i.Spec.Name) && hopeless(i, s.Now) {
				out = append(out, End{i.Spec.Name})
			}
			continue
		}
		if old[i.Spec.Name] || s.Now.Before(s.Later[i.Spec.Name]) { // what is left of one before goes first
			continue
		}
		i.Spec = i.Spec.Filled()
		act := next(i, all, wanted[i.Spec.Name], s.Now)
		if act == nil {
			continue
		}
		if _, quick := act.(Save); !quick {
			fetch, is := act.(Fetch)
			retry := is && doubtful(fetch.Item)
			if free <= 0 || retry && again <= 0 {
				continue
			}
			free--
			if retry {
				again--
			}
		}
		out = append(out, act)
	}
	return out
}

// Wake is how long until the plan could differ though nothing changes; 0: never.
func Wake(s Snapshot) time.Duration {
	var first time.Time
	sooner := func(t time.Time) {
		if first.IsZero() || t.Before(first) {
			first = t
		}
	}
	for _, i := range s.Deliveries {
		if s.busy(i.Spec.Name) { // its end is a change
			if at, is := s.Since[i.Spec.Name]; is && !s.slow(i.Spec.Name) {
				sooner(at.Add(slowAfter))
			}
			continue
		}
		if at := s.Later[i.Spec.Name]; s.Now.Before(at) {
			sooner(at)
			continue
		}
		st := i.State
		if !i.Spec.Suspend && i.Busy == 0 { // the end of a change is one
			sooner(st.Next)
			sooner(i.look())
		}
		if at, may := i.late(); may {
			sooner(at)
		}
		if len(st.Outbox) > 0 {
			sooner(st.NotifyNext)
		}
	}
	if first.IsZero() && len(s.Deliveries) == 0 {
		return 0
	}
	if at, is := byName(s.Deliveries).next(); is {
		sooner(at)
	}
	// Not at once again for what waits for another delivery, or for a free hand.
	return max(first.Sub(s.Now), time.Second)
}

func next(i Item, all items, wanted bool, now time.Time) Action {
	if st, ahead := rewound(i, now); ahead {
		i.State = st
		return Save{i}
	}
	if st, changed := watched(i, now); changed {
		i.State = st
		return Save{i}
	}
	if act := step(i, all, wanted, now); act != nil {
		return act
	}
	if st := i.State; len(st.Outbox) > 0 && !now.Before(st.NotifyNext) {
		return Send{i}
	}
	return nil
}

// step is what is next to be done about the app. A way back that cannot be made keeps nobody
// from looking at the source: what is new there may be the only way on.
func step(i Item, all items, wanted bool, now time.Time) Action {
	if i.Spec.Suspend || i.Busy != 0 {
		return nil
	}
	st, look, why := i.State, wanted || i.asked() || !now.Before(i.look()), ""
	if look {
		why = all.before(i, nil, now)
	}
	switch {
	case st.Going && !now.Before(st.Next) && (!i.asked() || why != ""):
		return GoBack{i}
	case look && why == "":
		return Fetch{i}
	case look && !st.Going && st.Watch == nil && (st.Phase != cluster.PhaseWaiting || st.Message != why):
		i.State.Phase, i.State.Message = cluster.PhaseWaiting, why
		return Save{i}
	}
	return nil
}

// late is when the release that is watched should be healthy; may: it is not yet said that
// it is late. Hooks have a time of their own.
func (i Item) late() (at time.Time, may bool) {
	w := i.State.Watch
	if w == nil || w.Late || i.Busy == w.Release {
		return time.Time{}, false
	}
	at = w.Since
	if i.Written.After(at) {
		at = i.Written
	}
	return at.Add(i.Spec.Filled().Timeout.D()), true
}

// asked: somebody asked, or the delivery itself was changed.
func (i Item) asked() bool { return i.Ask > i.State.Asked || i.Spec.Rev != i.State.Spec }

// look is when the source is to be looked at though nobody asks.
func (i Item) look() time.Time {
	st, d := i.State, i.Spec.Filled()
	if !st.Going {
		return st.Next
	}
	wait := d.Interval.D()
	if st.Looked.After(st.Checked) { // without success
		wait = max(wait, Backoff(d.Name, st.Failures))
	}
	return st.Looked.Add(wait)
}

// retried: it failed, and is looked at because the time for that has come, not because
// somebody asked.
func retried(i Item) bool { return i.State.Failures > 0 && !i.asked() }

// watched takes in what became of the release that is watched.
func watched(i Item, now time.Time) (cluster.DeliveryState, bool) {
	st, w := i.State, i.State.Watch
	if w == nil {
		return st, false
	}
	outcome := ""
	if i.Outcome != nil {
		outcome = i.Outcome.State
	}
	lateAt, mayBeLate := i.late()
	switch {
	case i.Busy == w.Release && outcome != "failed": // its hooks run
		return st, false
	case i.Release != w.Release && (outcome != "failed" || i.Release > w.Release):
		if st.Watch = nil; !w.Rollback && !w.Kept { // the same revision failed
			st.Told = nil
		}
		st.Message = fmt.Sprintf("release %d was overtaken: the app is at %d", w.Release, i.Release)
		st.Next = now
		return st, true
	case outcome == "complete" && (w.Rollback || w.Kept):
		good := *st.Good
		good.Release = w.Release
		st.Watch, st.Good = nil, &good
		if w.Rollback {
			st.Failures = 0
		} else { // the source is away still
			st.Accepted = w.Release
		}
		return st, true
	case outcome == "complete":
		st.Watch, st.Failures, st.Drift, st.Told = nil, 0, nil, nil
		st.Good, st.AppCreated, st.Accepted = st.Applied, i.App, w.Release
		st.Phase, st.Message = cluster.PhaseReady, ""
		return event(st, now, cluster.EventReady, st.Applied, ""), true
	case outcome == "failed" && w.Rollback:
		st.Watch, st.Going = nil, true
		return fail(i.Spec, st, now, "", "the way back failed too: "+i.Outcome.Message), true
	case outcome == "failed":
		st.Watch = nil
		return released(i.Spec, st, now, fmt.Sprintf("release %d", w.Release), ": "+i.Outcome.Message), true
	case mayBeLate && !now.Before(lateAt):
		late := *w
		late.Late = true
		st.Watch = &late
		which, why := fmt.Sprintf("release %d", w.Release), fmt.Sprintf(" is not healthy after %s", i.Spec.Timeout)
		if w.Rollback {
			return fail(i.Spec, st, now, which, why), true
		}
		return released(i.Spec, st, now, which, why), true
	}
	return st, false
}

// released takes in that a release failed.
func released(d cluster.Delivery, st cluster.DeliveryState, now time.Time, which, why string) cluster.DeliveryState {
	st = fail(d, st, now, which, why)
	if d.OnFailure == cluster.OnFailureRollback && st.Good != nil && st.Applied != nil && st.Good.Key != st.Applied.Key {
		st.Watch, st.Going, st.Next = nil, true, now
		st.Failed, st.Terms = st.Applied.Key, d.Terms()
	}
	return st
}

// fail is one more failure. The same one, of which release ever, is told once.
func fail(d cluster.Delivery, st cluster.DeliveryState, now time.Time, which, why string) cluster.DeliveryState {
	st = setback(d, st, now, which+why)
	return tell(st, now, cluster.EventFailed, st.Applied, why, st.Message)
}

// setback counts a failure.
func setback(d cluster.Delivery, st cluster.DeliveryState, now time.Time, why string) cluster.DeliveryState {
	st.Failures++
	st.Phase, st.Message = cluster.PhaseFailed, cut(why)
	st.Next = now.Add(Backoff(d.Name, st.Failures))
	return st
}
