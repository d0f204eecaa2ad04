package delivery_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery"
)

// world is one app that follows a source, with an engine that is drawn: what a revision
// comes to, and when.
type world struct {
	t        *testing.T
	r        *rand.Rand
	now      time.Time
	i        delivery.Item
	head     int          // of the source
	bad      map[int]bool // commits that never become healthy
	tag      int          // of the newest image, 0 without a policy
	badTag   map[int]bool
	away     bool   // the source
	refuse   error  // what a way back is answered with
	sick     bool   // nothing becomes healthy
	wants    string // what the app is made to be
	releases map[int]string
	tries    map[string]int // deploys of a revision
	back     int
	steps    int
}

func newWorld(t *testing.T, seed uint64, d cluster.Delivery) *world {
	t.Helper()
	d.Name, d.App, d.Rev = "shop", "shop", 1
	return &world{
		t: t, r: rand.New(rand.NewPCG(seed, 3)), now: time.Unix(1_700_000_000, 0).UTC(), i: delivery.Item{Spec: d},
		head: 1, bad: map[int]bool{}, badTag: map[int]bool{}, releases: map[int]string{}, tries: map[string]int{},
	}
}

// content is what the app is to be made of.
func (w *world) content() string { return fmt.Sprintf("%d+%d", w.head, w.tag) }

func (w *world) origin() cluster.Origin { return originFor(w.head, w.tag) }

func originFor(head, tag int) cluster.Origin {
	o := cluster.Origin{Revision: revision(head)}
	if tag > 0 {
		o.Images = []cluster.ImageChoice{{Policy: "web", Repository: "r.io/web", Tag: fmt.Sprint(tag)}}
	}
	return o
}

// since are the releases after n, as the store has them.
func (w *world) since(n int) (out []cluster.Release) {
	for n++; n <= w.i.Release; n++ {
		r := cluster.Release{Number: n, By: "ann"}
		var head, tag int
		if _, err := fmt.Sscanf(w.releases[n], "%d+%d", &head, &tag); err == nil {
			o := originFor(head, tag)
			r.By, r.Origin = w.i.Spec.Actor(), &o
		}
		out = append(out, r)
	}
	return out
}

func revision(n int) string { return fmt.Sprintf("%040d", n) }

// release makes one, whose outcome comes later.
func (w *world) release(content string) int {
	w.i.Release++
	w.wants, w.releases[w.i.Release] = content, content
	return w.i.Release
}

// outcome is what the rollout says of the release that is watched.
func (w *world) outcome() {
	w.i.Outcome = nil
	watch := w.i.State.Watch
	if watch == nil {
		return
	}
	o := &cluster.ReleaseOutcome{Number: watch.Release, State: "running"}
	if w.r.IntN(3) > 0 {
		o.State = "complete"
		var n, tag int
		if _, err := fmt.Sscanf(w.releases[watch.Release], "%d+%d", &n, &tag); err == nil && (w.bad[n] || w.badTag[tag] || w.sick) {
			o.State, o.Message = "failed", "web: never healthy"
		}
	}
	w.i.Outcome = o
}

// step does what is planned, or lets time pass; crash: what was done is not written down.
func (w *world) step(crash bool) {
	w.outcome()
	s := delivery.Snapshot{Now: w.now, Deliveries: []delivery.Item{w.i}, Free: 1}
	acts := w.plan(s)
	if len(acts) == 0 {
		w.now = w.now.Add(min(max(delivery.Wake(s), time.Second), time.Minute))
		return
	}
	if len(acts) > 1 {
		w.t.Fatalf("one delivery, and %d actions", len(acts))
	}
	st := w.do(acts[0])
	if !crash {
		w.i.State = st
	}
	w.now = w.now.Add(time.Millisecond)
}

// plan plans; one time in sixteen, as it takes longer than all else, it makes sure that
// nothing is changed by it, and that the same comes of the same.
func (w *world) plan(s delivery.Snapshot) []delivery.Action {
	if w.steps++; w.steps%16 > 0 {
		return delivery.Plan(s)
	}
	before := copied(w.i.State)
	acts := delivery.Plan(s)
	if !reflect.DeepEqual(w.i.State, before) {
		w.t.Fatalf("the plan changed what it was given:\n%s", cmp.Diff(before, w.i.State))
	}
	if again := delivery.Plan(s); !reflect.DeepEqual(acts, again) {
		w.t.Fatalf("planned twice: %v and %v", acts, again)
	}
	return acts
}

// copied shares nothing with a state of a world.
func copied(st cluster.DeliveryState) cluster.DeliveryState {
	st.Seen, st.Applied, st.Good, st.Watch = clone(st.Seen), clone(st.Applied), clone(st.Good), clone(st.Watch)
	for _, o := range []*cluster.Origin{st.Seen, originOf(st.Applied), originOf(st.Good)} {
		if o != nil {
			o.Images = slices.Clone(o.Images)
		}
	}
	st.Drift, st.Images = slices.Clone(st.Drift), slices.Clone(st.Images)
	st.History, st.Outbox, st.Told = slices.Clone(st.History), slices.Clone(st.Outbox), slices.Clone(st.Told)
	return st
}

func clone[T any](p *T) *T {
	if p == nil {
		return nil
	}
	c := *p
	return &c
}

func originOf(a *cluster.Applied) *cluster.Origin {
	if a == nil {
		return nil
	}
	return &a.Origin
}

func (w *world) do(act delivery.Action) cluster.DeliveryState {
	switch act := act.(type) {
	case delivery.Save:
		return act.State
	case delivery.Send:
		return delivery.Sent(act.Item, nil, nil, w.now)
	case delivery.GoBack:
		w.back++
		if w.refuse != nil {
			return delivery.NotBack(act.Item, w.refuse, w.now)
		}
		content := w.releases[act.State.Good.Release]
		changed := content != w.wants
		release := w.i.Release
		if changed {
			release = w.release(content)
		}
		return delivery.WentBack(act.Item, release, changed, w.now)
	case delivery.Fetch:
		if w.away {
			return w.missed(act.Item)
		}
		content := w.content()
		var changes []string
		if w.wants != content || w.failed() {
			changes = []string{"update service web"}
		}
		l := delivery.Look{Origin: w.origin(), Changes: changes, Release: w.i.Release}
		for _, c := range l.Origin.Images {
			l.Images = append(l.Images, cluster.ImageState{ImageChoice: c})
		}
		if l.Verdict = delivery.Decide(act.Item, l); l.Verdict == delivery.Deploy {
			w.tries[content]++
			l.Release = w.release(content)
		}
		if l.Verdict == delivery.Hold {
			l.Changes = nil
			if st := act.State; delivery.Stays(st) {
				if w.wants != w.releases[st.Good.Release] {
					l.Changes = []string{"update service web"}
				}
				l.Verdict = delivery.Strayed(act.Spec, l.Changes)
			}
		}
		return delivery.Looked(act.Item, l, w.now)
	case delivery.Forget, delivery.End: // nothing is gone, or under way
	}
	w.t.Fatalf("unexpected %T", act)
	return cluster.DeliveryState{}
}

// missed is a look at a source that is away.
func (w *world) missed(i delivery.Item) cluster.DeliveryState {
	away := cluster.Transientf("no route")
	if !delivery.Keeps(i) || delivery.ByIt(i, w.since(delivery.Left(i.State))) {
		return delivery.Missed(i, delivery.Look{}, away, w.now)
	}
	var changes []string
	left := delivery.Left(i.State)
	if i.Release != left && w.wants != w.releases[left] {
		changes = []string{"update service web"}
	}
	release := 0
	if delivery.Remakes(i, changes) && w.refuse == nil {
		release = w.release(w.releases[left])
	}
	if len(changes) == 0 && !delivery.Stays(i.State) && i.Release != i.State.Applied.Release {
		changes, release = []string{"what was made before a crash"}, i.Release
	}
	return delivery.Kept(i, away, changes, release, w.now)
}

// failed: the same again is a change where its rollout failed.
func (w *world) failed() bool {
	return w.i.State.Phase == cluster.PhaseFailed && w.i.State.Watch == nil && (w.bad[w.head] || w.badTag[w.tag])
}

func (w *world) run(steps int, crash bool) {
	for range steps {
		w.step(crash && w.r.IntN(5) == 0)
	}
}

// Whatever happens in between, and whatever is forgotten by a crash: with a good commit
// at the head the app ends as that says, is ready, and nothing is left to send.
func TestLawAGoodCommitEndsReady(t *testing.T) {
	for seed := range uint64(150) {
		d := cluster.Delivery{OnFailure: []string{cluster.OnFailureRetry, cluster.OnFailureRollback}[seed%2]}
		w := newWorld(t, seed, d)
		for range 6 {
			w.bad[w.head] = w.r.IntN(2) == 0
			w.badTag[w.tag] = w.tag > 0 && w.r.IntN(3) == 0
			w.away = w.r.IntN(4) == 0
			w.sick = w.r.IntN(6) == 0
			w.refuse = refusals[w.r.IntN(len(refusals))]
			if w.r.IntN(4) == 0 {
				w.release("by hand")
			}
			w.run(20+w.r.IntN(60), true)
			if seed%3 == 0 {
				w.tag++
			}
			if w.tag == 0 || w.r.IntN(2) == 0 {
				w.head++
			}
			w.i.Ask++
		}
		w.away, w.sick = false, false // and a way back may be refused still
		w.bad[w.head], w.badTag[w.tag] = false, false
		if seed%4 < 2 { // else it is seen in its time
			w.i.Ask++
		}
		if w.tag > 0 {
			w.tag++
		} else {
			w.head++
		}
		w.run(200, false)
		st := w.i.State
		if w.wants != w.content() || st.Phase != cluster.PhaseReady || st.Good == nil || st.Good.Origin.Revision != revision(w.head) {
			t.Fatalf("seed %d: the app is %q, %s at %+v: %s", seed, w.wants, st.Phase, st.Good, st.Message)
		}
		if len(st.Outbox) > 0 || st.Failures != 0 || st.Watch != nil || st.Going {
			t.Fatalf("seed %d: left over: %+v", seed, st)
		}
	}
}

// refusals are what a way back is answered with; the most often it is made.
var refusals = []error{nil, nil, nil, cluster.Transientf("no leader"), cluster.Invalidf("the route is taken"), cluster.NotFoundf("there is no release 1"), errors.New("no")}

// Whatever becomes of a way back, what is new at the source is seen within two intervals,
// though nobody asks, and deployed.
func TestLawAWayBackThatFailsHidesNothing(t *testing.T) {
	for seed := range uint64(60) {
		w := newWorld(t, seed, cluster.Delivery{OnFailure: cluster.OnFailureRollback})
		w.run(60, false)
		w.head, w.bad[2] = 2, true
		w.i.Ask++
		if w.refuse = refusals[seed%uint64(len(refusals))]; w.refuse == nil {
			w.bad[1] = true // it is made, and is no good any more
		}
		for n := 0; w.back == 0 && n < 500; n++ {
			w.step(false)
		}
		w.run(100, false)
		asked := w.i.State.Asked
		if st := w.i.State; w.tries["2+0"] != 1 || w.back == 0 || asked != w.i.Ask {
			t.Fatalf("seed %d, way back %v: %d tries, %d times back, asked %d of %d: %s: %s", seed, w.refuse, w.tries["2+0"], w.back, asked, w.i.Ask, st.Phase, st.Message)
		}
		since := w.now
		for w.head = 3; w.i.State.Seen.Revision != revision(3); w.step(false) {
			if w.now.Sub(since) > 2*cluster.DefaultDeliveryInterval+10*time.Second {
				t.Fatalf("seed %d, way back %v: not seen in %s; %s, going %v: %s", seed, w.refuse, w.now.Sub(since), w.i.State.Phase, w.i.State.Going, w.i.State.Message)
			}
		}
		w.run(60, false)
		if st := w.i.State; w.wants != "3+0" || st.Phase != cluster.PhaseReady || st.Going || st.Stuck != "" || st.Failed != "" {
			t.Fatalf("seed %d, way back %v: the app is %q, %+v", seed, w.refuse, w.wants, st)
		}
	}
}

// However much is said of what is wrong, the state fits into the store, and every text of
// it is whole runes that say that they were cut.
func TestLongTextsAreCut(t *testing.T) {
	long := strings.Repeat("é", 1<<16)
	now := time.Unix(1_700_000_000, 0)
	key := cluster.Delivery{}.Key("r1")
	a := &cluster.Applied{Key: key, Release: 1}
	st := cluster.DeliveryState{Applied: a, Good: a, Going: true, Phase: cluster.PhaseReady}
	look := delivery.Look{
		Origin: cluster.Origin{Revision: "r1"}, Changes: []string{long, long}, Verdict: delivery.Report, Wrote: long,
		Images: []cluster.ImageState{{Message: long, Away: true, Failures: 3}},
	}
	watching := delivery.Item{State: st, Outcome: &cluster.ReleaseOutcome{State: "failed", Message: long}, Release: 1}
	watching.State.Watch = &cluster.DeliveryWatch{Release: 1}
	saved := delivery.Plan(delivery.Snapshot{Now: now, Free: 1, Deliveries: []delivery.Item{watching}})[0].(delivery.Save).State
	for what, st := range map[string]cluster.DeliveryState{
		"missed":    delivery.Missed(delivery.Item{}, delivery.Look{}, cluster.Invalidf("%s", long), now),
		"looked":    delivery.Looked(delivery.Item{State: st}, look, now),
		"refused":   delivery.NotBack(delivery.Item{State: st}, cluster.Invalidf("%s", long), now),
		"not back":  delivery.NotBack(delivery.Item{State: st}, errors.New(long), now),
		"went back": delivery.WentBack(delivery.Item{State: delivery.NotBack(delivery.Item{State: st}, errors.New(long), now)}, 2, true, now),
		"sent":      delivery.Sent(delivery.Item{State: st}, nil, errors.New(long), now),
		"failed":    saved,
	} {
		text, err := json.Marshal(st)
		if err != nil || len(text) > 20_000 || !utf8.Valid(text) || strings.Contains(string(text), `\ufffd`) || !strings.Contains(string(text), "… (cut)") {
			t.Errorf("%s: %d bytes, %v: %.300s", what, len(text), err, text)
		}
	}
	if st := delivery.Missed(delivery.Item{}, delivery.Look{}, cluster.Invalidf("short"), now); st.Message != "short" {
		t.Errorf("%q", st.Message)
	}
}

// One whose state cannot be written is left alone until its time.
func TestOneThatCannotBeWrittenWaits(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	s := delivery.Snapshot{
		Now: now, Free: 2, Deliveries: []delivery.Item{item("a", cluster.DeliveryState{}), item("b", cluster.DeliveryState{})},
		Later: map[cluster.DeliveryName]time.Time{"a": now.Add(time.Minute)},
	}
	if acts := delivery.Plan(s); len(acts) != 1 || acts[0].(delivery.Fetch).Spec.Name != "b" {
		t.Errorf("%v", acts)
	}
	s.Deliveries = s.Deliveries[:1]
	if w := delivery.Wake(s); w != time.Minute {
		t.Errorf("it wakes in %s", w)
	}
	s.Now = now.Add(time.Minute)
	if acts := delivery.Plan(s); len(acts) != 1 {
		t.Errorf("%v", acts)
	}
}

// What is refused is not asked for for ever: the delivery says so once, and is held.
func TestLawAWayBackThatIsRefusedIsHeld(t *testing.T) {
	for _, refused := range []error{cluster.Invalidf("the route is taken"), cluster.NotFoundf("there is no release 1")} {
		w := newWorld(t, 1, cluster.Delivery{OnFailure: cluster.OnFailureRollback})
		w.run(60, false)
		w.head, w.bad[2], w.refuse = 2, true, refused
		w.i.Ask++
		w.run(400, false)
		st := w.i.State
		if w.back != 1 || w.wants != "2+0" || w.tries["2+0"] != 1 || st.Phase != cluster.PhaseHeld || st.Going || st.Failures != 0 {
			t.Fatalf("%d times back, the app is %q, %d failures, %s: %s", w.back, w.wants, st.Failures, st.Phase, st.Message)
		}
		said := 0
		for _, e := range st.History {
			if e.Event == cluster.EventFailed && strings.Contains(e.Message, refused.Error()) {
				said++
			}
		}
		if said != 1 || !strings.Contains(st.Message, "no way back to "+revision(1)[:8]) || !strings.Contains(st.Message, refused.Error()) {
			t.Errorf("said %d times; it says %q", said, st.Message)
		}
		w.head, w.bad[3] = 3, true // one that fails too may be gone back from
		w.refuse = nil
		w.run(400, false)
		if st := w.i.State; w.back != 2 || w.wants != "1+0" || st.Phase != cluster.PhaseHeld || st.Stuck != "" {
			t.Fatalf("%d times back, the app is %q, %s: %s", w.back, w.wants, st.Phase, st.Message)
		}
	}
}

// Somebody who asks has the source looked at while the way back is tried, also where what
// the delivery depends on is not ready: then the way back comes first.
func TestAsksAreFollowedWhileItGoesBack(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for _, tc := range []struct {
		what  string
		next  time.Duration // until the way back is due
		look  time.Duration // since the last look
		ask   int64
		spec  cluster.StoreRev
		needs cluster.DeliveryName
		want  string
	}{
		{"due", 0, 0, 0, 1, "", "delivery.GoBack"},
		{"not due", time.Second, 0, 0, 1, "", "[]"},
		{"the interval is over", time.Second, time.Minute, 0, 1, "", "delivery.Fetch"},
		{"both", 0, time.Minute, 0, 1, "", "delivery.GoBack"},
		{"asked", 0, 0, 1, 1, "", "delivery.Fetch"},
		{"changed", 0, 0, 0, 2, "", "delivery.Fetch"},
		{"asked, and it waits", 0, 0, 1, 1, "db", "delivery.GoBack"},
		{"asked, and it waits, and is not due", time.Second, 0, 1, 1, "db", "[]"},
	} {
		i := item("shop", cluster.DeliveryState{
			Going: true, Phase: cluster.PhaseFailed, Failed: "x", Failures: 9, Next: now.Add(tc.next), Looked: now.Add(-tc.look), Checked: now.Add(-tc.look),
			Applied: &cluster.Applied{Key: "x", Release: 2}, Good: &cluster.Applied{Key: "y", Release: 1},
		})
		i.Ask, i.Spec.Rev = tc.ask, tc.spec
		if tc.needs != "" {
			i.Spec.DependsOn = []cluster.DeliveryName{tc.needs}
		}
		acts := delivery.Plan(delivery.Snapshot{Now: now, Free: 1, Deliveries: []delivery.Item{i}})
		got := fmt.Sprint(acts)
		if len(acts) > 0 {
			got = fmt.Sprintf("%T", acts[0])
		}
		if got != tc.want {
			t.Errorf("%s: %s, not %s", tc.what, got, tc.want)
		}
	}
}

// Where somebody has made the app what the source has now, there is nothing to go back from.
func TestNothingToGoBackFrom(t *testing.T) {
	st := cluster.DeliveryState{
		Going: true, Phase: cluster.PhaseFailed, Failed: "x", Applied: &cluster.Applied{Key: "x", Release: 2}, Good: &cluster.Applied{Key: "y", Release: 1},
	}
	l := delivery.Look{Origin: cluster.Origin{Revision: "r3"}, Verdict: delivery.Keep, Release: 3}
	got := delivery.Looked(delivery.Item{State: st}, l, time.Unix(100, 0))
	if got.Going || got.Failed != "" || got.Watch == nil || got.Watch.Release != 3 || !got.Next.After(time.Unix(100, 0)) {
		t.Errorf("%+v", got)
	}
}

// A source that is away does not put the way back off, nor hide why it is not made.
func TestASourceThatIsAwayDoesNotDelayTheWayBack(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	st := cluster.DeliveryState{Going: true, Phase: cluster.PhaseFailed, Message: "going back: no leader", Failures: 5, Next: now.Add(time.Minute)}
	got := delivery.Missed(delivery.Item{State: st}, delivery.Look{}, cluster.Transientf("no route"), now)
	if !got.Next.Equal(st.Next) || got.Message != st.Message || !got.Going || !got.Looked.Equal(now) {
		t.Errorf("%+v", got)
	}
}

// A revision that was gone back from is not deployed again, and the app is what was good.
func TestLawABadCommitIsHeld(t *testing.T) {
	for seed := range uint64(100) {
		w := newWorld(t, seed, cluster.Delivery{OnFailure: cluster.OnFailureRollback})
		w.run(60, false)
		w.head, w.bad[2] = 2, true
		w.i.Ask++
		w.run(400, false)
		st := w.i.State
		if w.tries["2+0"] != 1 || w.back != 1 || w.wants != "1+0" || st.Phase != cluster.PhaseHeld || st.Going || st.Watch != nil {
			t.Fatalf("seed %d: %d tries, %d times back, the app is %q, %s: %s", seed, w.tries["2+0"], w.back, w.wants, st.Phase, st.Message)
		}
	}
}

// What is changed by hand of an app that is held is undone or said, and told once; a crash in
// between takes nothing from that.
func TestLawWhatIsHeldIsNotChangedByHand(t *testing.T) {
	for seed := range uint64(100) {
		report := seed%2 == 0
		d := cluster.Delivery{OnFailure: cluster.OnFailureRollback}
		if report {
			d.Drift = cluster.DriftReport
		}
		w := newWorld(t, seed, d)
		w.run(60, false)
		w.head, w.bad[2] = 2, true
		w.i.Ask++
		w.run(400, false)
		if w.wants != "1+0" || w.i.State.Phase != cluster.PhaseHeld {
			t.Fatalf("seed %d: %s: %s", seed, w.i.State.Phase, w.i.State.Message)
		}
		for n := range 2 {
			w.release(fmt.Sprintf("by hand %d", n))
			if w.refuse = refusals[w.r.IntN(len(refusals))]; report {
				w.refuse = nil
			}
			w.run(40, true)
			w.refuse, w.away = nil, n == 0
			w.run(20, true)
			w.away = false
			w.run(200, true)
			w.run(50, false)
			want, drift := "1+0", 0
			if report {
				want, drift = fmt.Sprintf("by hand %d", n), 1
			}
			if st := w.i.State; w.wants != want || len(st.Drift) != drift || st.Phase != cluster.PhaseHeld || st.Going || st.Watch != nil || st.Stuck != "" || st.Failures != 0 {
				t.Fatalf("seed %d: the app is %q, %s: %s; %+v", seed, w.wants, st.Phase, st.Message, st)
			}
		}
		told := 0
		for _, e := range w.i.State.History {
			if e.Event == cluster.EventDrift {
				told++
			}
		}
		if want := map[bool]int{true: 1, false: 2}[report]; told != want { // reported, it is the same drift
			t.Errorf("seed %d: told of it %d times, not %d", seed, told, want)
		}
		w.head = 3
		w.i.Ask++
		w.run(200, false)
		if st := w.i.State; w.wants != "3+0" || st.Phase != cluster.PhaseReady || len(st.Drift) > 0 {
			t.Errorf("seed %d: the app is %q, %s: %s", seed, w.wants, st.Phase, st.Message)
		}
	}
}

// What is being undone stays when that is only to be reported from now on, and is not undone when
// whoever changed it has done so; a comparison that is refused is told once, and is no failure.
func TestWhatIsHeldIsComparedAnew(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	d := cluster.Delivery{}
	st := cluster.DeliveryState{
		Phase: cluster.PhaseHeld, Failed: d.Key("r2"), Failures: 2, Going: true, Drift: []string{"x"}, Next: now.Add(time.Minute),
		Applied: &cluster.Applied{Key: d.Key("r2"), Release: 2}, Good: &cluster.Applied{Key: d.Key("r1"), Release: 1},
	}
	look := func(st cluster.DeliveryState, drift string, l delivery.Look) cluster.DeliveryState {
		i := delivery.Item{Spec: cluster.Delivery{Drift: drift}, State: st}
		l.Origin.Revision = "r2"
		if l.Verdict = delivery.Decide(i, delivery.Look{Origin: l.Origin, Changes: []string{"from the source"}}); l.Verdict != delivery.Hold || !delivery.Stays(st) {
			t.Fatalf("%s; it stays: %v", l.Verdict, delivery.Stays(st))
		}
		if l.Unsure == "" {
			l.Verdict = delivery.Strayed(i.Spec, l.Changes)
		}
		return delivery.Looked(i, l, now)
	}
	got := look(st, "", delivery.Look{Changes: []string{"y"}})
	if !got.Going || !slices.Equal(got.Drift, []string{"y"}) || !got.Next.Equal(st.Next) || got.Failures != 2 || got.Events != 0 {
		t.Errorf("it is tried again at once, or not at all: %+v", got)
	}
	got = look(st, cluster.DriftReport, delivery.Look{Changes: []string{"x"}})
	if got.Going || len(got.Drift) != 1 || got.Phase != cluster.PhaseHeld || got.Failures != 0 || !strings.Contains(got.Message, "differs from that in 1: x") {
		t.Errorf("it is undone though it is to be reported: %+v", got)
	}
	got = look(st, "", delivery.Look{})
	if got.Going || len(got.Drift) > 0 || got.Events != 1 || got.History[0].Message != "corrected: x" {
		t.Errorf("it is undone twice: %+v", got)
	}
	st.Going, st.Drift = false, nil
	for n := range 3 {
		st = look(st, "", delivery.Look{Unsure: "the route is taken"})
		if st.Phase != cluster.PhaseHeld || st.Failures != 0 || st.Events != 1 || st.Going || !strings.Contains(st.Message, "cannot be compared with that: the route is taken") {
			t.Errorf("%d: %+v", n, st)
		}
	}
}

// So is an image, until another one or a commit comes.
func TestLawABadImageIsHeld(t *testing.T) {
	for seed := range uint64(40) {
		w := newWorld(t, seed, cluster.Delivery{OnFailure: cluster.OnFailureRollback})
		w.tag = 1
		w.run(60, false)
		w.tag, w.badTag[2] = 2, true
		w.i.Ask++
		w.run(400, false)
		st := w.i.State
		if w.tries["1+2"] != 1 || w.back != 1 || w.wants != "1+1" || st.Phase != cluster.PhaseHeld || st.Good == nil || len(st.Good.Origin.Images) != 1 || st.Good.Origin.Images[0].Tag != "1" {
			t.Fatalf("seed %d: %d tries, %d times back, the app is %q, %s: %s", seed, w.tries["1+2"], w.back, w.wants, st.Phase, st.Message)
		}
		if !strings.Contains(st.Message, "with web 2") || !strings.Contains(st.Message, "with web 1") {
			t.Fatalf("it says %q", st.Message)
		}
		w.tag, w.head = 3, w.head+int(seed%2)
		w.i.Ask++
		w.run(400, false)
		if st := w.i.State; w.wants != w.content() || st.Phase != cluster.PhaseReady || w.tries["1+2"] != 1 {
			t.Fatalf("seed %d: the app is %q, %s: %s", seed, w.wants, st.Phase, st.Message)
		}
	}
}

// Images that are chosen are news, and a registry that is away is when it lasts.
func TestNewsOfImages(t *testing.T) {
	i := delivery.Item{Spec: cluster.Delivery{Name: "shop"}, State: cluster.DeliveryState{Phase: cluster.PhaseReady}}
	st := cluster.ImageState{ImageChoice: cluster.ImageChoice{Policy: "web", Repository: "r.io/web", Tag: "1"}}
	var events []string
	look := func(wrote string) {
		l := delivery.Look{Origin: cluster.Origin{Revision: "r1"}, Images: []cluster.ImageState{st}, Wrote: wrote, Verdict: delivery.Keep}
		i.State = delivery.Looked(i, l, time.Unix(1, 0))
		events = nil
		for _, e := range i.State.History {
			events = append(events, e.Event+": "+e.Message)
		}
	}
	look("")
	look("")
	st.Tag = "2"
	look("committed as ab")
	for st.Failures = 1; st.Failures < 10; st.Failures++ {
		st.Away, st.Message = true, "r.io: no route"
		look("")
	}
	want := []string{"images: web 1", "images: web 2 (1 before); committed as ab", "failed: images of web: r.io: no route"}
	if !slices.Equal(events, want) {
		t.Errorf("%q, want %q", events, want)
	}
}

// Without a way back it is tried for ever, ever more seldom up to a bound.
func TestLawRetriesForEver(t *testing.T) {
	w := newWorld(t, 1, cluster.Delivery{OnFailure: cluster.OnFailureRetry})
	w.bad[1] = true
	began := w.now
	w.run(3000, false)
	tries, took := w.tries["1+0"], w.now.Sub(began)
	if tries < 10 || tries > int(took/(5*time.Minute))+10 {
		t.Errorf("%d tries in %s", tries, took)
	}
	if st := w.i.State; len(st.History) > 30 || st.Failures < 10 {
		t.Errorf("%d events, %d failures", len(st.History), st.Failures)
	}
	told := func() (out []string) {
		for _, e := range w.i.State.History {
			if !strings.Contains(e.Message, "not healthy after") { // once more it was late
				out = append(out, e.Event)
			}
		}
		return out
	}
	if got, late := told(), w.i.State.Events; fmt.Sprint(got) != "[deployed failed]" || late > 3 {
		t.Errorf("%d tries are told as %v, %d events", tries, got, late)
	}
	w.bad[1] = false
	w.run(500, false)
	if w.i.State.Phase != cluster.PhaseReady {
		t.Errorf("healthy, and yet %s: %s", w.i.State.Phase, w.i.State.Message)
	}
	w.head, w.bad[2] = 2, true // another one is news of its own
	w.run(500, false)
	if got := told(); fmt.Sprint(got) != "[deployed failed ready deployed failed]" {
		t.Errorf("told %v", got)
	}
	for w.head = 3; w.i.State.Seen.Revision != revision(3); w.step(false) {
		w.bad[3] = true
	}
	w.head = 2 // so is one that comes again
	w.run(500, false)
	if got := told(); !strings.HasSuffix(fmt.Sprint(got), " deployed failed]") || len(got) < 8 {
		t.Errorf("told %v", got)
	}
}

func TestSuspendedDoesNothing(t *testing.T) {
	w := newWorld(t, 1, cluster.Delivery{Suspend: true})
	w.run(50, false)
	if w.i.Release != 0 {
		t.Error("it deployed")
	}
}

func item(name cluster.DeliveryName, st cluster.DeliveryState, needs ...cluster.DeliveryName) delivery.Item {
	st.Name, st.Spec = name, 1
	return delivery.Item{Spec: cluster.Delivery{Name: name, App: cluster.AppName(name), DependsOn: needs, Rev: 1}, State: st}
}

func TestDependenciesFirst(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	later := now.Add(5 * time.Minute)
	ready := cluster.DeliveryState{Phase: cluster.PhaseReady, Next: later}
	for _, tc := range []struct {
		of   cluster.DeliveryState
		says string // "": it is fetched
	}{
		{ready, ""},
		{cluster.DeliveryState{Phase: cluster.PhaseDeploying, Next: later}, "waits for db, which is deploying"},
		{cluster.DeliveryState{Phase: cluster.PhaseHeld, Next: later}, "waits for db, which is held"},
		{cluster.DeliveryState{Next: later}, "waits for db, which is new"},
	} {
		acts := delivery.Plan(delivery.Snapshot{Now: now, Free: 2, Deliveries: []delivery.Item{item("shop", cluster.DeliveryState{}, "db"), item("db", tc.of)}})
		if len(acts) != 1 {
			t.Fatalf("%v", acts)
		}
		save, waits := acts[0].(delivery.Save)
		if waits != (tc.says != "") || waits && save.State.Message != tc.says {
			t.Errorf("%s: %+v", tc.of.Phase, acts[0])
		}
		if waits { // said once
			again := item("shop", save.State, "db")
			if acts := delivery.Plan(delivery.Snapshot{Now: now, Free: 2, Deliveries: []delivery.Item{again, item("db", tc.of)}}); len(acts) != 0 {
				t.Errorf("said again: %v", acts)
			}
		}
	}
}

func TestTheLongestDueComesFirst(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	var items []delivery.Item
	for n := range 10 {
		items = append(items, item(cluster.DeliveryName(fmt.Sprintf("d%d", n)), cluster.DeliveryState{Next: now.Add(-time.Duration(n) * time.Minute)}))
	}
	acts := delivery.Plan(delivery.Snapshot{Now: now, Deliveries: items, Free: 2, Busy: map[cluster.DeliveryName]cluster.StoreRev{"d9": items[9].Spec.Rev}})
	if len(acts) != 2 || acts[0].(delivery.Fetch).Spec.Name != "d8" || acts[1].(delivery.Fetch).Spec.Name != "d7" {
		t.Errorf("%v", acts)
	}
}

// What is being done for a delivery that was changed or removed since is given up, and
// nothing else; the new one begins once it has ended.
func TestWhatIsDoneForNothingEnds(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	same, changed := item("same", cluster.DeliveryState{}), item("changed", cluster.DeliveryState{})
	same.Spec.Rev, changed.Spec.Rev = 3, 5
	got := delivery.Plan(delivery.Snapshot{
		Now: now, Free: 4, Deliveries: []delivery.Item{same, changed},
		Busy: map[cluster.DeliveryName]cluster.StoreRev{"same": 3, "changed": 4, "gone": 2},
	})
	if want := []delivery.Action{delivery.End{Name: "changed"}, delivery.End{Name: "gone"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// However many sources hang, and however long they do: half of the hands are for the others.
func TestThoseThatFailLeaveHandsToOthers(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for _, tc := range []struct {
		what                             string
		failing, asked, good             int // due, those that fail the longest
		busyFailing, busyGood, free      int
		wantFailing, wantAsked, wantGood int
	}{
		{"all at once", 10, 0, 10, 0, 0, 4, 2, 0, 2},
		{"half is taken", 10, 0, 10, 2, 0, 2, 0, 0, 2},
		{"half is taken by others", 10, 0, 10, 0, 2, 2, 2, 0, 0},
		{"nothing else is due", 10, 0, 0, 0, 0, 4, 2, 0, 0},
		{"one hand", 10, 0, 10, 0, 0, 1, 1, 0, 0},
		{"somebody asked", 10, 3, 10, 2, 0, 2, 0, 2, 0},
	} {
		s := delivery.Snapshot{Now: now, Free: tc.free, Busy: map[cluster.DeliveryName]cluster.StoreRev{}}
		add := func(kind string, n int, due time.Duration, st cluster.DeliveryState, ask int64, busy bool) {
			for k := range n {
				st.Next = now.Add(-due)
				i := item(cluster.DeliveryName(fmt.Sprintf("%s%d", kind, k)), st)
				i.Ask = ask
				s.Deliveries = append(s.Deliveries, i)
				if busy {
					s.Busy[i.Spec.Name] = i.Spec.Rev
				}
			}
		}
		bad := cluster.DeliveryState{Failures: 7, Phase: cluster.PhaseFailed}
		add("failing", tc.failing, time.Hour, bad, 0, false)
		add("asked", tc.asked, 2*time.Hour, bad, 1, false)
		add("good", tc.good, time.Minute, cluster.DeliveryState{}, 0, false)
		add("busyfailing", tc.busyFailing, time.Hour, bad, 0, true)
		add("busygood", tc.busyGood, time.Hour, cluster.DeliveryState{}, 0, true)
		got := map[string]int{}
		for _, a := range delivery.Plan(s) {
			got[strings.TrimRight(string(a.(delivery.Fetch).Spec.Name), "0123456789")]++
		}
		if got["failing"] != tc.wantFailing || got["asked"] != tc.wantAsked || got["good"] != tc.wantGood {
			t.Errorf("%s: %v", tc.what, got)
		}
	}
}

func TestDriftIsReported(t *testing.T) {
	d := cluster.Delivery{Drift: cluster.DriftReport}
	key := d.Key("r1")
	st := cluster.DeliveryState{Good: &cluster.Applied{Key: key}, Applied: &cluster.Applied{Key: key}, Phase: cluster.PhaseReady}
	if v := delivery.Decide(delivery.Item{Spec: d, State: st}, delivery.Look{Origin: cluster.Origin{Revision: "r1"}, Changes: []string{"x"}}); v != delivery.Report {
		t.Errorf("a change by hand: %s", v)
	}
	if v := delivery.Decide(delivery.Item{Spec: d, State: st}, delivery.Look{Origin: cluster.Origin{Revision: "r2"}, Changes: []string{"x"}}); v != delivery.Deploy {
		t.Errorf("a new commit: %s", v)
	}
	back := st
	back.Applied = &cluster.Applied{Key: d.Key("r2")}
	if v := delivery.Decide(delivery.Item{Spec: d, State: back}, delivery.Look{Origin: cluster.Origin{Revision: "r1"}, Changes: []string{"x"}}); v != delivery.Deploy {
		t.Errorf("the commit before again: %s", v)
	}
	i := delivery.Item{Spec: d, State: st}
	l := delivery.Look{Origin: cluster.Origin{Revision: "r1"}, Changes: []string{"x"}, Verdict: delivery.Report}
	i.State = delivery.Looked(i, l, time.Unix(100, 0))
	if i.State.Phase != cluster.PhaseDrifted || len(i.State.Drift) != 1 || i.State.Events != 1 {
		t.Fatalf("%+v", i.State)
	}
	if i.State = delivery.Looked(i, l, time.Unix(200, 0)); i.State.Events != 1 {
		t.Error("the same drift is news twice")
	}
	l.Changes, l.Verdict = nil, delivery.Keep
	if i.State = delivery.Looked(i, l, time.Unix(300, 0)); i.State.Phase != cluster.PhaseReady || i.State.Drift != nil {
		t.Errorf("%+v", i.State)
	}
}

// A network that comes and goes is no news until it stays away.
func TestBriefOutagesAreNoNews(t *testing.T) {
	i := delivery.Item{}
	for n := 1; n <= 10; n++ {
		i.State = delivery.Missed(i, delivery.Look{}, cluster.Transientf("no route (%d)", n), time.Unix(int64(n), 0))
		if want := map[bool]int64{false: 0, true: 1}[n >= 3]; i.State.Events != want {
			t.Errorf("after %d failures %d events", n, i.State.Events)
		}
	}
	i = delivery.Item{}
	for range 3 {
		i.State = delivery.Missed(i, delivery.Look{}, cluster.Invalidf("compose.yaml:1: no"), time.Unix(1, 0))
	}
	if i.State.Events != 1 {
		t.Errorf("a file that is wrong is news %d times", i.State.Events)
	}
}

// News of a revision that leads to no release is of that one, not of the last that did.
func TestABadCommitIsNamed(t *testing.T) {
	good := cluster.Origin{Ref: "main", Revision: revision(1), Author: "Ann", Subject: "trunk"}
	a := &cluster.Applied{Origin: good, Key: cluster.Delivery{}.KeyOf(good), Release: 1}
	i := delivery.Item{State: cluster.DeliveryState{Phase: cluster.PhaseReady, Seen: &good, Applied: a, Good: a}}
	bad := cluster.Origin{Ref: "main", Revision: revision(2), Author: "Mallory", Subject: "break it"}
	for n := range 3 {
		l := delivery.Look{Origin: bad, Forced: n == 0}
		i.State = delivery.Missed(i, l, cluster.Invalidf("compose.yaml:1: no"), time.Unix(int64(n), 0))
	}
	st := i.State
	if len(st.Outbox) != 2 || st.Outbox[0].Event != cluster.EventForced || !strings.Contains(st.Outbox[0].Message, revision(1)[:8]) {
		t.Fatalf("%+v", st.Outbox)
	}
	if e := st.Outbox[1]; e.Event != cluster.EventFailed || e.Revision != bad.Revision || e.Author != "Mallory" || e.Subject != "break it" || e.Release != 0 {
		t.Errorf("%+v", e)
	}
	if st.Seen.Revision != bad.Revision || st.Applied != a || st.Good != a {
		t.Errorf("%+v", st)
	}
	// The next one with the same mistake is another.
	i.State = delivery.Missed(i, delivery.Look{Origin: cluster.Origin{Revision: revision(3)}}, cluster.Invalidf("compose.yaml:1: no"), time.Unix(9, 0))
	if n := len(i.State.Outbox); n != 3 || i.State.Outbox[n-1].Revision != revision(3) {
		t.Errorf("%+v", i.State.Outbox)
	}
	// A source that does not say which it has is not the last one's fault.
	i.State = delivery.Missed(i, delivery.Look{}, cluster.Invalidf("no such branch"), time.Unix(10, 0))
	if e := i.State.Outbox[len(i.State.Outbox)-1]; e.Message != "no such branch" || e.Revision != "" || e.Author != "" || i.State.Seen.Revision != revision(3) {
		t.Errorf("%+v", e)
	}
}

func TestWhatIsNotToldIsToldLater(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	st := cluster.DeliveryState{Outbox: []cluster.DeliveryEvent{{ID: 1, At: now.Add(-2 * time.Hour)}, {ID: 2, At: now}}}
	away, near := cluster.Notice{URL: "https://a.example.com"}, cluster.Notice{URL: "https://a.example.com", Format: "slack"}
	i := delivery.Item{Spec: cluster.Delivery{Notify: []cluster.Notice{away, near}}, State: st}
	got := delivery.Sent(i, map[string]int64{near.Key(): 2}, errors.New("no"), now)
	if len(got.Outbox) != 1 || got.Outbox[0].ID != 2 || !got.NotifyNext.After(now) || got.NotifyErr != "no" || got.Heard[near.Key()] != 2 || got.Heard[away.Key()] != 0 {
		t.Errorf("%+v", got)
	}
	// Heard by all, or refused, it is sent no more; what was refused stays said.
	got = delivery.Sent(i, map[string]int64{near.Key(): 2, away.Key(): 2}, errors.New("404"), now)
	if got.Outbox != nil || got.Heard != nil || !got.NotifyNext.IsZero() || got.NotifyErr != "404" {
		t.Errorf("%+v", got)
	}
	if got = delivery.Sent(i, map[string]int64{near.Key(): 2, away.Key(): 2}, nil, now); got.NotifyErr != "" {
		t.Errorf("%+v", got)
	}
}

// A release whose hooks run is neither overtaken nor late, and nothing is put in its place.
func TestHooksAreWaitedFor(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	hour := now.Add(time.Hour)
	failed := &cluster.ReleaseOutcome{Number: 5, State: "failed", Message: "migrate: no"}
	for _, tc := range []struct {
		what    string
		release int // the app's; 5 is watched, since an hour
		busy    int
		written time.Time
		outcome *cluster.ReleaseOutcome
		phase   string
		says    string
		acts    bool
	}{
		{what: "hooks ahead of it run", release: 4, busy: 5, phase: cluster.PhaseDeploying},
		{what: "one of them failed", release: 4, outcome: failed, phase: cluster.PhaseFailed, says: "migrate: no", acts: true},
		{what: "its services start", release: 5, written: hour, phase: cluster.PhaseDeploying, acts: true},
		{what: "they do for long", release: 5, written: now, phase: cluster.PhaseFailed, says: "not healthy", acts: true},
		{what: "hooks behind it run", release: 5, busy: 5, written: now, phase: cluster.PhaseDeploying},
		{what: "one of those failed", release: 5, outcome: failed, phase: cluster.PhaseFailed, says: "migrate: no", acts: true},
		{what: "somebody else's hooks run", release: 5, busy: 6, written: hour, phase: cluster.PhaseDeploying},
		{what: "somebody took its place", release: 6, outcome: failed, phase: cluster.PhaseDeploying, says: "overtaken", acts: true},
		{what: "it is gone", release: 4, phase: cluster.PhaseDeploying, says: "overtaken", acts: true},
	} {
		i := item("shop", cluster.DeliveryState{
			Phase: cluster.PhaseDeploying, Next: now, Watch: &cluster.DeliveryWatch{Release: 5, Since: now}, Applied: &cluster.Applied{Key: "x", Release: 5},
		})
		i.Release, i.Busy, i.Written, i.Outcome = tc.release, tc.busy, tc.written, tc.outcome
		i.Ask = 1 // somebody asks
		acts := delivery.Plan(delivery.Snapshot{Now: hour, Free: 1, Deliveries: []delivery.Item{i}})
		if (len(acts) > 0) != tc.acts {
			t.Errorf("%s: %v", tc.what, acts)
		}
		st := i.State
		for _, a := range acts {
			if save, is := a.(delivery.Save); is {
				st = save.State
			}
		}
		if st.Phase != tc.phase || !strings.Contains(st.Message, tc.says) {
			t.Errorf("%s: %s: %s", tc.what, st.Phase, st.Message)
		}
		going := i
		going.State.Watch, going.State.Going = nil, true
		acts = delivery.Plan(delivery.Snapshot{Now: hour, Free: 1, Deliveries: []delivery.Item{going}})
		if (len(acts) == 1) != (tc.busy == 0) {
			t.Errorf("%s, and it goes back: %v", tc.what, acts)
		}
	}
}
