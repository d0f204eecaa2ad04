package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery"
	"github.com/fairlead/fairlead/store"
)

// origin is the world of deliveries: a source with commits, some of them bad, and an app.
type origin struct {
	t  *testing.T
	st *store.Memory

	mu      sync.Mutex
	head    string
	bad     map[string]bool
	away    error
	broken  map[string]error // what commits are that cannot be deployed
	hang    bool
	full    map[string]error                // what the store answers to a write of a key
	mute    func(cluster.DeliveryName) bool // which sources take half a minute, and answer nothing
	looks   map[cluster.DeliveryName][]time.Time
	app     string // what it is made to be
	at      int    // its release
	content map[int]string
	deploys []string
	sent    []cluster.DeliveryEvent
	deaf    bool // whoever is told is away
	most    int  // looks at once
	now     int
}

func (o *origin) Look(ctx context.Context, d cluster.Delivery, _ cluster.DeliveryState) (Proposal, error) {
	o.mu.Lock()
	o.now++
	o.most = max(o.most, o.now)
	hang, mute := o.hang, o.mute != nil && o.mute(d.Name)
	o.looks[d.Name] = append(o.looks[d.Name], time.Now())
	o.mu.Unlock()
	time.Sleep(2 * time.Second) // of a bubble
	if hang {
		<-ctx.Done()
	}
	if mute {
		time.Sleep(30 * time.Second)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.now--
	if mute {
		return Proposal{}, cluster.Transientf("no answer")
	}
	if o.away != nil {
		return Proposal{}, o.away
	}
	var changes []string
	if o.app != o.head {
		changes = []string{"update service web"}
	}
	head, at := o.head, o.at
	if err := o.broken[head]; err != nil {
		return Proposal{Look: delivery.Look{Origin: cluster.Origin{Revision: head}}}, err
	}
	return Proposal{Look: delivery.Look{Origin: cluster.Origin{Revision: head}, Changes: changes, Release: at}, Deploy: func(context.Context) (int, error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.at != at {
			return 0, cluster.Conflictf("the app is at %d, not %d", o.at, at)
		}
		o.deploys = append(o.deploys, head)
		return o.release(d.App, head), nil
	}}, nil
}

// release makes one, and says what becomes of it.
func (o *origin) release(app cluster.AppName, content string) int {
	o.at++
	o.app, o.content[o.at] = content, content
	state := "complete"
	if o.bad[content] {
		state = "failed"
	}
	write(o.t, o.st, store.AppKey(app), cluster.App{Name: app, Release: o.at})
	write(o.t, o.st, store.OutcomeKey(app, o.at), cluster.ReleaseOutcome{App: app, Number: o.at, State: state, Message: "web: no"})
	return o.at
}

func (o *origin) Strayed(_ context.Context, _ cluster.Delivery, st cluster.DeliveryState) (changes []string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.app != o.content[st.Good.Release] {
		changes = []string{"update service web"}
	}
	return changes, nil
}

func (o *origin) GoBack(_ context.Context, d cluster.Delivery, st cluster.DeliveryState) (int, bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.release(d.App, o.content[st.Good.Release]), true, nil
}

func (o *origin) Send(_ context.Context, d cluster.Delivery, st cluster.DeliveryState) (map[string]int64, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	heard := map[string]int64{d.Notify[0].Key(): 0}
	if o.deaf {
		return heard, cluster.Transientf("nobody listens")
	}
	o.sent = append(o.sent, st.Outbox...)
	heard[d.Notify[0].Key()] = o.sent[len(o.sent)-1].ID
	return heard, nil
}

// push is a commit, and a webhook that says so.
func (o *origin) push(commit string, ask int64) {
	o.mu.Lock()
	o.head = commit
	o.mu.Unlock()
	write(o.t, o.st, store.DeliveryAskKey("shop"), cluster.DeliveryAsk{Number: ask})
}

func (o *origin) state(name cluster.DeliveryName) (st cluster.DeliveryState) {
	o.t.Helper()
	e, err := o.st.Get(o.t.Context(), store.DeliveryStateKey(name))
	if cluster.KindOf(err) == cluster.KindNotFound {
		return st
	}
	if err == nil {
		err = json.Unmarshal(e.Value, &st)
	}
	if err != nil {
		o.t.Fatal(err)
	}
	return st
}

// lead runs the loop until the end of f.
func (o *origin) lead(f func()) {
	ctx, cancel := context.WithCancel(o.t.Context())
	log := hclog.NewNullLogger()
	m := store.NewMirror(o.st, store.Root, log)
	l := NewDeliveries(picky{strict{o.st, o.t, store.WriterDelivery}, o}, m, DeliveryOptions{Do: o, Now: time.Now}, log)
	var wg sync.WaitGroup
	wg.Go(func() { _ = m.Run(ctx) })
	wg.Go(func() { _ = l.Run(ctx) })
	f()
	cancel()
	wg.Wait()
}

// picky is a store that does not take every value.
type picky struct {
	store.Store
	o *origin
}

func (p picky) Commit(ctx context.Context, t store.Txn) (int64, error) {
	p.o.mu.Lock()
	defer p.o.mu.Unlock()
	for _, op := range t.Then {
		if err := p.o.full[op.Key]; err != nil {
			return 0, err
		}
	}
	return p.Store.Commit(ctx, t)
}

// A delivery whose state the store does not take is tried ever more seldom, until somebody
// asks, and holds up no other.
func TestWhatTheStoreDoesNotTakeHoldsNobodyUp(t *testing.T) {
	inOrigin(t, func(o *origin) {
		o.full = map[string]error{}
		for n := range 6 {
			name := cluster.DeliveryName(fmt.Sprintf("full%d", n))
			o.follow(name)
			o.full[store.DeliveryStateKey(name)] = cluster.Invalidf("transaction of 2000000 bytes")
		}
		o.follow("shop", func(d *cluster.Delivery) { d.Interval = cluster.Duration(time.Minute) })
		o.lead(func() {
			time.Sleep(time.Hour)
			o.mu.Lock()
			tries, shop := len(o.looks["full0"]), len(o.looks["shop"])
			o.mu.Unlock()
			if tries < 5 || tries > 20 || shop < 50 {
				t.Errorf("looked at %d times in an hour, and at the other one %d times", tries, shop)
			}
			o.mu.Lock()
			delete(o.full, store.DeliveryStateKey("full0"))
			o.mu.Unlock()
			write(t, o.st, store.DeliveryAskKey("full0"), cluster.DeliveryAsk{Number: 1})
			time.Sleep(30 * time.Second)
			if st := o.state("full0"); st.Asked != 1 {
				t.Errorf("somebody asked, and it is held still: %+v", st)
			}
		})
	})
}

// Nor does one hold up the loop whose state is written by the loop itself.
func TestWhatTheLoopCannotWriteHoldsNobodyUp(t *testing.T) {
	inOrigin(t, func(o *origin) {
		o.full = map[string]error{store.DeliveryStateKey("full"): cluster.Invalidf("transaction of 2000000 bytes")}
		o.follow("full", func(d *cluster.Delivery) { d.DependsOn = []cluster.DeliveryName{"none"} }) // it says what it waits for
		o.follow("shop", func(d *cluster.Delivery) { d.Interval = cluster.Duration(time.Minute) })
		o.lead(func() { time.Sleep(time.Hour) })
		if n := len(o.looks["shop"]); n < 50 {
			t.Errorf("the other one was looked at %d times in an hour", n)
		}
	})
}

func inOrigin(t *testing.T, f func(o *origin)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f(&origin{t: t, st: store.NewMemory(), head: "one", bad: map[string]bool{}, content: map[int]string{}, looks: map[cluster.DeliveryName][]time.Time{}})
	})
}

func (o *origin) follow(name cluster.DeliveryName, more ...func(*cluster.Delivery)) {
	d := cluster.Delivery{Name: name, App: cluster.AppName(name), Interval: cluster.Duration(time.Hour), Notify: []cluster.Notice{{URL: "https://news.example.com"}}}
	for _, f := range more {
		f(&d)
	}
	write(o.t, o.st, store.DeliveryKey(name), d)
}

func rollback(d *cluster.Delivery) { d.OnFailure = cluster.OnFailureRollback }

func TestACommitThatCannotBeReadIsNamed(t *testing.T) {
	inOrigin(t, func(o *origin) {
		o.broken = map[string]error{"two": cluster.Invalidf("compose.yaml:1: no")}
		o.follow("shop")
		o.lead(func() {
			time.Sleep(10 * time.Second)
			o.push("two", 1)
			time.Sleep(10 * time.Minute)
			if st := o.state("shop"); st.Phase != cluster.PhaseFailed || st.Seen.Revision != "two" || st.Applied.Origin.Revision != "one" {
				t.Errorf("%+v", st)
			}
		})
		if n := len(o.sent); n != 3 || o.sent[n-1].Event != cluster.EventFailed || o.sent[n-1].Revision != "two" {
			t.Errorf("%+v", o.sent)
		}
	})
}

func TestADeliveryFollowsItsSource(t *testing.T) {
	inOrigin(t, func(o *origin) {
		o.bad["two"] = true
		o.follow("shop", rollback)
		o.lead(func() {
			time.Sleep(10 * time.Second)
			if st := o.state("shop"); st.Phase != cluster.PhaseReady || o.app != "one" {
				t.Fatalf("%s: %s; the app is %s", st.Phase, st.Message, o.app)
			}
			o.push("two", 1)
			time.Sleep(10 * time.Second)
			if st := o.state("shop"); st.Phase != cluster.PhaseHeld || o.app != "one" || st.Watch != nil {
				t.Fatalf("%s: %s; the app is %s", st.Phase, st.Message, o.app)
			}
			time.Sleep(10 * time.Hour)
			if len(o.deploys) != 2 {
				t.Errorf("deploys: %v", o.deploys)
			}
			o.mu.Lock()
			o.release("shop", "by hand")
			o.mu.Unlock()
			time.Sleep(2 * time.Hour)
			if st := o.state("shop"); st.Phase != cluster.PhaseHeld || o.is() != "one" || st.Watch != nil {
				t.Fatalf("%s: %s; the app is %s", st.Phase, st.Message, o.app)
			}
			o.push("three", 2)
			time.Sleep(10 * time.Second)
			if st := o.state("shop"); st.Phase != cluster.PhaseReady || o.app != "three" {
				t.Fatalf("%s: %s; the app is %s", st.Phase, st.Message, o.app)
			}
		})
		var told []string
		for n, e := range o.sent {
			told = append(told, e.Event)
			if e.ID != int64(n+1) {
				t.Errorf("event %d has the ID %d", n+1, e.ID)
			}
		}
		if want := "[deployed ready deployed failed rolled-back drift deployed ready]"; fmt.Sprint(told) != want {
			t.Errorf("told %v, want %s", told, want)
		}
	})
}

// Drift that is only to be reported is, and stays until the source has something new.
func TestDriftIsLeftWhereItIsReported(t *testing.T) {
	inOrigin(t, func(o *origin) {
		o.follow("shop", func(d *cluster.Delivery) { d.Drift = cluster.DriftReport })
		o.lead(func() {
			time.Sleep(10 * time.Second)
			o.mu.Lock()
			o.release("shop", "by hand")
			o.mu.Unlock()
			time.Sleep(10 * time.Hour)
			if st := o.state("shop"); st.Phase != cluster.PhaseDrifted || len(st.Drift) != 1 || o.is() != "by hand" {
				t.Errorf("%s: %s; drift %v, the app is %s", st.Phase, st.Message, st.Drift, o.is())
			}
			o.push("two", 1)
			time.Sleep(10 * time.Second)
			if st := o.state("shop"); st.Phase != cluster.PhaseReady || len(st.Drift) != 0 || o.is() != "two" {
				t.Errorf("%s: %s; drift %v, the app is %s", st.Phase, st.Message, st.Drift, o.is())
			}
		})
		drifts := 0
		for _, e := range o.sent {
			if e.Event == cluster.EventDrift {
				drifts++
			}
		}
		if drifts != 1 {
			t.Errorf("told of it %d times: %v", drifts, o.sent)
		}
	})
}

// A delivery waits for those that it depends on, and goes when they are ready.
func TestADeliveryWaitsForOthers(t *testing.T) {
	inOrigin(t, func(o *origin) {
		o.mute = func(n cluster.DeliveryName) bool { return n == "db" }
		o.follow("db")
		o.follow("shop", func(d *cluster.Delivery) { d.DependsOn = []cluster.DeliveryName{"db"} })
		o.lead(func() {
			time.Sleep(time.Hour)
			if st := o.state("shop"); st.Phase != cluster.PhaseWaiting || !strings.Contains(st.Message, "waits for db") || o.looked("shop") != 0 {
				t.Errorf("%s: %s; looked at %d times", st.Phase, st.Message, o.looked("shop"))
			}
			o.mu.Lock()
			o.mute = nil
			o.mu.Unlock()
			time.Sleep(15 * time.Minute)
			if o.looked("shop") == 0 {
				t.Errorf("%s: %s", o.state("shop").Phase, o.state("shop").Message)
			}
		})
	})
}

// A commit of both comes to the one that is depended on first, and soon, though nobody asks for that.
func TestACommitComesInOrder(t *testing.T) {
	inOrigin(t, func(o *origin) {
		o.follow("db")
		o.follow("shop", func(d *cluster.Delivery) { d.DependsOn = []cluster.DeliveryName{"db"} })
		o.lead(func() {
			time.Sleep(time.Minute)
			before := o.looked("db")
			o.push("two", 1)
			time.Sleep(3 * time.Second)
			if st := o.state("shop"); st.Phase != cluster.PhaseWaiting || !strings.Contains(st.Message, "waits for db, which is not at two yet") {
				t.Errorf("%s: %s", st.Phase, st.Message)
			}
			time.Sleep(30 * time.Second)
			if st := o.state("shop"); st.Phase == cluster.PhaseWaiting || st.Asked != 1 || o.state("db").Seen.Revision != "two" || o.looked("db") != before+1 {
				t.Errorf("%s: %s; db was looked at %d times", st.Phase, st.Message, o.looked("db")-before)
			}
		})
	})
}

// What failed and was gone back from is tried again when somebody asks for that.
func TestWhatIsHeldIsTriedAgain(t *testing.T) {
	inOrigin(t, func(o *origin) {
		o.follow("shop", func(d *cluster.Delivery) { d.OnFailure = cluster.OnFailureRollback })
		o.lead(func() {
			time.Sleep(time.Minute)
			fails := func(commit string, is bool) {
				o.mu.Lock()
				defer o.mu.Unlock()
				o.bad[commit] = is
			}
			fails("two", true)
			o.push("two", 1)
			time.Sleep(time.Minute)
			if st := o.state("shop"); st.Phase != cluster.PhaseHeld {
				t.Fatalf("%s: %s", st.Phase, st.Message)
			}
			fails("two", false) // what it needs is there now
			o.push("two", 2)
			time.Sleep(time.Minute)
			if st := o.state("shop"); st.Phase != cluster.PhaseHeld || st.Asked != 2 {
				t.Errorf("asked to look: %s: %s", st.Phase, st.Message)
			}
			write(t, o.st, store.DeliveryAskKey("shop"), cluster.DeliveryAsk{Number: 3, Again: true})
			time.Sleep(time.Minute)
			if st := o.state("shop"); st.Phase != cluster.PhaseReady || o.is() != "two" {
				t.Errorf("asked to try again: %s: %s", st.Phase, st.Message)
			}
		})
	})
}

func (o *origin) is() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.app
}

func (o *origin) looked(name cluster.DeliveryName) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.looks[name])
}

// Who is to be told and is away hears all of it within the hour, in order and once; deliveries go on.
func TestWhoIsAwayIsToldLater(t *testing.T) {
	inOrigin(t, func(o *origin) {
		o.deaf = true
		o.follow("shop")
		o.lead(func() {
			time.Sleep(10 * time.Second)
			o.push("two", 1)
			time.Sleep(50 * time.Minute)
			if st := o.state("shop"); st.Phase != cluster.PhaseReady || o.is() != "two" || st.NotifyErr == "" {
				t.Errorf("%s: %s; the app is %s, told: %q", st.Phase, st.Message, o.is(), st.NotifyErr)
			}
			o.mu.Lock()
			o.deaf = false
			o.mu.Unlock()
			time.Sleep(time.Hour)
			if st := o.state("shop"); len(st.Outbox) != 0 || st.NotifyErr != "" {
				t.Errorf("left to tell: %v, %q", st.Outbox, st.NotifyErr)
			}
		})
		var told []string
		for _, e := range o.sent {
			told = append(told, fmt.Sprint(e.ID, " ", e.Event))
		}
		if want := "[1 deployed 2 ready 3 deployed 4 ready]"; fmt.Sprint(told) != want {
			t.Errorf("told %v, want %s", told, want)
		}
	})
}

// The next leader goes on where the last one was cut off: in a look, or between a deploy
// and what is written of it.
func TestTheNextLeaderGoesOn(t *testing.T) {
	inOrigin(t, func(o *origin) {
		o.follow("shop")
		o.hang = true
		o.lead(func() { time.Sleep(5 * time.Second) })
		o.hang = false
		o.release("shop", "one") // was made, and not written down
		o.lead(func() { time.Sleep(5 * time.Second) })
		if st := o.state("shop"); st.Phase != cluster.PhaseReady || st.Applied.Release != 1 || len(o.deploys) != 0 {
			t.Errorf("%s: %+v; deploys %v", st.Phase, st.Applied, o.deploys)
		}
	})
}

func TestASourceThatIsAwayIsTriedAgain(t *testing.T) {
	inOrigin(t, func(o *origin) {
		o.follow("shop")
		o.away = cluster.Transientf("no route")
		o.lead(func() {
			time.Sleep(time.Hour)
			if st := o.state("shop"); st.Phase != cluster.PhaseFailed || st.Failures < 8 || st.Failures > 15 {
				t.Errorf("%s after %d failures", st.Phase, st.Failures)
			}
			o.mu.Lock()
			o.away = nil
			o.mu.Unlock()
			time.Sleep(11 * time.Minute)
			if st := o.state("shop"); st.Phase != cluster.PhaseReady || st.Failures != 0 {
				t.Errorf("%s: %s", st.Phase, st.Message)
			}
		})
	})
}

func TestFewAtOnceAndForgottenWhenGone(t *testing.T) {
	inOrigin(t, func(o *origin) {
		o.away = errors.New("no")
		for n := range 20 {
			o.follow(cluster.DeliveryName(fmt.Sprintf("d%d", n)))
		}
		o.lead(func() {
			time.Sleep(time.Minute)
			o.mu.Lock()
			most := o.most
			o.mu.Unlock()
			if most != deliveriesAtOnce {
				t.Errorf("%d looks at once, want %d", most, deliveriesAtOnce)
			}
			for n := range 20 {
				if o.state(cluster.DeliveryName(fmt.Sprintf("d%d", n))).Checks == 0 {
					t.Errorf("d%d was not looked at", n)
				}
			}
			if _, err := o.st.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: store.DeliveryKey("d3"), Delete: true}}}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			if st := o.state("d3"); st.Name != "" {
				t.Errorf("left over: %+v", st)
			}
		})
	})
}

// Sources that hang, each time for as long as they are let, keep no other from being looked
// at; and they are tried for ever.
func TestSourcesThatHangHoldNobodyUp(t *testing.T) {
	inOrigin(t, func(o *origin) {
		o.mute = func(n cluster.DeliveryName) bool { return n != "shop" }
		for n := range 60 {
			o.follow(cluster.DeliveryName(fmt.Sprintf("mute%d", n)))
		}
		minutely := func(d *cluster.Delivery) { d.Interval = cluster.Duration(time.Minute) }
		o.follow("shop", minutely)
		o.lead(func() { time.Sleep(2 * time.Hour) })
		const once = 60 * 32 * time.Second / deliveriesAtOnce // each of them takes a hand once, unknown yet
		begun, last := o.looks["mute0"][0], time.Time{}
		for _, at := range o.looks["shop"] {
			if gap := at.Sub(last); last.Sub(begun) > once && gap > 2*time.Minute {
				t.Errorf("nobody looked at shop for %s, %s in", gap, last.Sub(begun))
			}
			last = at
		}
		if n := len(o.looks["shop"]); n < 100 {
			t.Errorf("shop was looked at %d times in two hours", n)
		}
		for n := range 60 {
			name := cluster.DeliveryName(fmt.Sprintf("mute%d", n))
			if l := o.looks[name]; len(l) < 5 || time.Since(l[len(l)-1]) > time.Hour {
				t.Errorf("%s was tried %d times, at last %s ago", name, len(l), time.Since(l[len(l)-1]))
			}
		}
	})
}

// What hangs for a delivery ends when that is changed, and a look for the new one begins at once.
func TestALookEndsWithItsDelivery(t *testing.T) {
	inOrigin(t, func(o *origin) {
		o.hang = true
		o.follow("mute")
		o.lead(func() {
			time.Sleep(10 * time.Second)
			if n := o.looked("mute"); n != 1 {
				t.Fatalf("looked at %d times", n)
			}
			o.mu.Lock()
			o.hang = false
			o.mu.Unlock()
			e, err := o.st.Get(t.Context(), store.DeliveryKey("mute"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := o.st.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: e.Key, Value: e.Value}}}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
			if st := o.state("mute"); o.looked("mute") < 2 || st.Seen == nil {
				t.Errorf("looked at %d times: %s, %s", o.looked("mute"), st.Phase, st.Message)
			}
		})
	})
}

// A delivery that is removed and made again is another one: it has nothing of what the
// first went through, neither where the loop saw it gone nor where it did not.
func TestOneOfTheSameNameStartsAnew(t *testing.T) {
	inOrigin(t, func(o *origin) {
		o.follow("shop")
		o.push("one", 7)
		o.away = errors.New("no")
		again := func() {
			for _, key := range []string{store.DeliveryKey("shop"), store.DeliveryAskKey("shop")} {
				if _, err := o.st.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: key, Delete: true}}}); err != nil {
					t.Fatal(err)
				}
			}
			o.follow("shop")
			o.mu.Lock()
			o.away = nil
			o.mu.Unlock()
			o.push("two", 1)
		}
		anew := func() {
			t.Helper()
			time.Sleep(30 * time.Second)
			st := o.state("shop")
			if st.Phase != cluster.PhaseReady || st.Asked != 1 || st.Applied == nil || st.Applied.Origin.Revision != "two" {
				t.Errorf("%s at %+v, asked %d: %s", st.Phase, st.Applied, st.Asked, st.Message)
			}
			for _, e := range st.History {
				if e.Event == "failed" {
					t.Errorf("its history is that of one before: %+v", st.History)
				}
			}
		}
		o.lead(func() {
			time.Sleep(time.Minute)
			if st := o.state("shop"); st.Phase != cluster.PhaseFailed || st.Asked != 7 {
				t.Fatalf("%s, asked %d", st.Phase, st.Asked)
			}
			again()
			anew()
		})
		o.mu.Lock()
		o.away = errors.New("no")
		o.mu.Unlock()
		o.push("one", 7)
		o.lead(func() { time.Sleep(time.Minute) })
		again() // while nobody leads
		o.lead(anew)
	})
}
