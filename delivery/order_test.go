package delivery_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery"
)

// pair is two deliveries of one repository, of which pub depends on base.
type pair struct {
	t     *testing.T
	r     *rand.Rand
	now   time.Time
	items []delivery.Item // base, pub
	at    [2]int          // the commit that each app is at
	head  int
	away  bool // the source
}

func newPair(t *testing.T, seed uint64, change func(base, pub *cluster.Delivery)) *pair {
	t.Helper()
	p := &pair{t: t, r: rand.New(rand.NewPCG(seed, 5)), now: time.Unix(1_700_000_000, 0).UTC(), head: 1}
	source := cluster.SourceSpec{Kind: cluster.SourceGit, URL: "https://git.example.com/all.git", Branch: "main"}
	base := cluster.Delivery{Name: "base", App: "base", Source: source, Path: "base", Rev: 1, Interval: cluster.Duration(time.Hour)}
	pub := cluster.Delivery{Name: "pub", App: "pub", Source: source, Path: "pub", Rev: 1, DependsOn: []cluster.DeliveryName{"base"}, Interval: cluster.Duration(time.Hour)}
	if change != nil {
		change(&base, &pub)
	}
	p.items = []delivery.Item{{Spec: base}, {Spec: pub}}
	return p
}

// step does what is planned, or lets time pass.
func (p *pair) step() {
	for n := range p.items {
		i := &p.items[n]
		if i.Outcome = nil; i.State.Watch != nil {
			i.Outcome = &cluster.ReleaseOutcome{Number: i.State.Watch.Release, State: []string{"running", "complete"}[p.r.IntN(2)]}
		}
	}
	s := delivery.Snapshot{Now: p.now, Deliveries: p.items, Free: 2}
	acts := delivery.Plan(s)
	if len(acts) == 0 {
		p.now = p.now.Add(min(max(delivery.Wake(s), time.Second), 10*time.Second)) // outcomes come unplanned
		return
	}
	for _, act := range acts {
		switch act := act.(type) {
		case delivery.Save:
			p.item(act.Spec.Name).State = act.State
		case delivery.Send:
			p.item(act.Spec.Name).State = delivery.Sent(act.Item, nil, nil, p.now)
		case delivery.Fetch:
			p.item(act.Spec.Name).State = p.fetch(act.Item)
		default:
			p.t.Fatalf("unexpected %T", act)
		}
	}
	p.now = p.now.Add(time.Second)
}

func (p *pair) item(n cluster.DeliveryName) *delivery.Item {
	if n == "base" {
		return &p.items[0]
	}
	return &p.items[1]
}

func (p *pair) fetch(i delivery.Item) cluster.DeliveryState {
	if p.away {
		return delivery.Missed(i, delivery.Look{}, cluster.Transientf("no route"), p.now)
	}
	n := 0
	if i.Spec.Name == "pub" {
		n = 1
	}
	l := delivery.Look{Origin: cluster.Origin{Revision: revision(p.head)}, Release: i.Release}
	if p.at[n] != p.head {
		l.Changes = []string{"update service web"}
	}
	if l.Verdict = delivery.Decide(i, l); l.Verdict == delivery.Deploy {
		if why := delivery.Behind(i, p.items, l, p.now); why != "" {
			return delivery.Waits(i, l, why, p.now)
		}
		if base := p.items[0]; n == 1 && !base.Spec.Suspend && (p.at[0] < p.head || base.State.Watch != nil) {
			p.t.Fatalf("pub is deployed at %d, and base is at %d: %+v", p.head, p.at[0], base.State.Watch)
		}
		p.at[n] = p.head
		p.items[n].Release++
		l.Release = p.items[n].Release
	}
	return delivery.Looked(i, l, p.now)
}

func (p *pair) run(d time.Duration) {
	for end := p.now.Add(d); p.now.Before(end); {
		p.step()
	}
}

// A commit of both is deployed where it is depended on first, and soon, though that one is asked
// for nothing and its own time is far.
func TestACommitComesInOrder(t *testing.T) {
	p := newPair(t, 1, nil)
	p.run(10 * time.Minute)
	if p.at != [2]int{1, 1} {
		t.Fatalf("at %v", p.at)
	}
	p.head = 2
	p.item("pub").Ask++
	began := p.now
	p.step()
	p.step()
	if st := p.item("pub").State; st.Phase != cluster.PhaseWaiting || st.Message != "waits for base, which is not at 00000000 yet" || st.Asked == p.item("pub").Ask {
		t.Errorf("%s: %s", st.Phase, st.Message)
	}
	for p.at[1] != 2 {
		if p.step(); p.now.Sub(began) > time.Minute {
			t.Fatalf("at %v; pub %s: %s", p.at, p.item("pub").State.Phase, p.item("pub").State.Message)
		}
	}
	p.run(time.Minute)
	for _, i := range p.items {
		if st := i.State; st.Phase != cluster.PhaseReady || st.Seen.Revision != revision(2) {
			t.Errorf("%s: %s at %+v: %s", i.Spec.Name, st.Phase, st.Seen, st.Message)
		}
	}
}

// Whenever commits come, and the source goes away, pub is never deployed at one that base is not
// healthy at, and both end at the last.
func TestLawWhatIsDependedOnComesFirst(t *testing.T) {
	for seed := range uint64(40) {
		p := newPair(t, seed, func(base, pub *cluster.Delivery) {
			if seed%2 == 0 {
				base.Interval, pub.Interval = cluster.Duration(7*time.Minute), cluster.Duration(time.Minute)
			}
		})
		for range 20 {
			p.run(time.Duration(p.r.IntN(600)) * time.Second)
			p.head += p.r.IntN(2)
			p.away = p.r.IntN(4) == 0
			for n := range p.items {
				p.items[n].Ask += int64(p.r.IntN(2))
			}
		}
		p.away = false
		p.run(3 * time.Hour)
		if p.at != [2]int{p.head, p.head} {
			t.Fatalf("seed %d: at %v of %d; %s: %s", seed, p.at, p.head, p.item("pub").State.Phase, p.item("pub").State.Message)
		}
	}
}

// One that is suspended is waited for only until it is ready; one of another branch, or that was
// changed, as it has to be.
func TestWhoIsWaitedFor(t *testing.T) {
	p := newPair(t, 1, nil)
	p.run(10 * time.Minute)
	p.item("base").Spec.Suspend = true
	p.head = 2
	p.item("pub").Ask++
	if p.run(time.Minute); p.at != [2]int{1, 2} {
		t.Errorf("suspended: at %v", p.at)
	}

	p = newPair(t, 1, func(base, _ *cluster.Delivery) { base.Source.Branch = "stable" })
	p.run(10 * time.Minute)
	p.items[0].State.Seen.Revision = "of another branch"
	p.at[0], p.head = 2, 2
	p.item("pub").Ask++
	if p.run(time.Minute); p.at[1] != 2 {
		t.Errorf("another branch: at %v; %s", p.at, p.item("pub").State.Message)
	}

	p = newPair(t, 1, nil)
	p.run(10 * time.Minute)
	p.item("base").Spec.Rev, p.away = 2, true
	p.item("pub").Ask++
	p.step()
	if st := p.item("pub").State; !strings.Contains(st.Message, "base, which was changed") {
		t.Errorf("changed: %s: %s", st.Phase, st.Message)
	}
}

// What hangs, a source or whoever is to hear of it, is ended for a release that failed.
func TestTheWayBackWaitsForNothingThatHangs(t *testing.T) {
	now := time.Unix(1_700_000_000, 0).UTC()
	good := &cluster.Applied{Key: "r1", Release: 1}
	i := delivery.Item{
		Spec: cluster.Delivery{Name: "shop", OnFailure: cluster.OnFailureRollback, Rev: 1}, Release: 2,
		State: cluster.DeliveryState{Applied: &cluster.Applied{Key: "r2", Release: 2}, Good: good, Watch: &cluster.DeliveryWatch{Release: 2, Since: now}, Spec: 1},
	}
	for _, tc := range []struct {
		outcome string
		busy    time.Duration
		ends    bool
	}{{"failed", time.Minute, true}, {"failed", time.Second, false}, {"running", time.Minute, false}, {"complete", time.Minute, false}} {
		i.Outcome = &cluster.ReleaseOutcome{Number: 2, State: tc.outcome}
		s := delivery.Snapshot{
			Now: now, Free: 1, Deliveries: []delivery.Item{i},
			Busy: map[cluster.DeliveryName]cluster.StoreRev{"shop": 1}, Since: map[cluster.DeliveryName]time.Time{"shop": now.Add(-tc.busy)},
		}
		if got, want := fmt.Sprint(delivery.Plan(s)), map[bool]string{true: "[{shop}]", false: "[]"}[tc.ends]; got != want {
			t.Errorf("%s, busy for %s: %s", tc.outcome, tc.busy, got)
		}
	}
}
