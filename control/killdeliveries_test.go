package control_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead/fairlead/api"
	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/control"
	"github.com/fairlead/fairlead/delivery"
	"github.com/fairlead/fairlead/store"
)

// source is what a world's delivery follows, and where it tells its news. It outlives servers.
type source struct {
	mu       sync.Mutex
	revision string
	bundle   v1.Bundle
	told     map[int64]string
}

func (s *source) push(revision string, b v1.Bundle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revision, s.bundle = revision, b
}

func (s *source) head() (string, v1.Bundle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.revision, s.bundle
}

// follower acts for deliveries as a server does, but for fetching.
type follower struct {
	api *api.Server
	src *source
}

func (f follower) Look(ctx context.Context, d cluster.Delivery, _ cluster.DeliveryState) (control.Proposal, error) {
	rev, b := f.src.head()
	got := api.Fetched{Origin: cluster.Origin{Delivery: d.Name, URL: d.Source.URL, Ref: "main", Revision: rev}, Bundle: b}
	p, err := f.api.PlanDelivery(ctx, d, got)
	if err != nil {
		return control.Proposal{}, err
	}
	return control.Proposal{
		Look: delivery.Look{Origin: got.Origin, Changes: changed(p), Release: p.Release},
		Deploy: func(ctx context.Context) (int, error) {
			res, err := f.api.Deliver(ctx, d, got, p.Release)
			return res.Release, err
		},
	}, nil
}

// changed are a plan's changes.
func changed(p v1.Plan) (out []string) {
	for _, c := range p.Changes {
		out = append(out, fmt.Sprintf("%s %s %s", c.Action, c.Object, c.Name))
	}
	return out
}

func (f follower) Strayed(ctx context.Context, d cluster.Delivery, st cluster.DeliveryState) ([]string, error) {
	p, err := f.api.PlanTakeBack(ctx, d, st)
	return changed(p), err
}

func (f follower) GoBack(ctx context.Context, d cluster.Delivery, st cluster.DeliveryState) (int, bool, error) {
	res, err := f.api.TakeBack(ctx, d, st)
	return res.Release, res.Changed, err
}

func (f follower) Send(_ context.Context, d cluster.Delivery, st cluster.DeliveryState) (map[string]int64, error) {
	f.src.mu.Lock()
	defer f.src.mu.Unlock()
	heard := map[string]int64{}
	for _, e := range st.Outbox {
		f.src.told[e.ID] = e.Event
		for _, n := range d.Notify {
			heard[n.Key()] = e.ID
		}
	}
	return heard, nil
}

// unsettled says what of the delivery is on its way.
func (w *world) unsettled() string {
	st, looked := one[cluster.DeliveryState](w, store.DeliveryStateKey("shop"))
	if !w.followed() {
		if looked {
			return "the delivery is gone, and its state is left"
		}
		return ""
	}
	asked, _ := one[cluster.DeliveryAsk](w, store.DeliveryAskKey("shop"))
	unseen := ""
	if head, _ := w.src.head(); w.beyond != nil {
		unseen = w.beyond.unseen(st)
	} else if st.Seen == nil || st.Seen.Revision != head {
		unseen = head
	}
	switch {
	case unseen != "":
		return fmt.Sprintf("it has not seen %s: %s, %s", unseen, st.Phase, st.Message)
	case st.Phase != cluster.PhaseReady && st.Phase != cluster.PhaseHeld:
		return fmt.Sprintf("it is %s: %s", st.Phase, st.Message)
	case st.Asked < asked.Number, st.Watch != nil, st.Going, len(st.Outbox) > 0:
		return fmt.Sprintf("something is left to do: asked %d of %d, watches %v, goes back %v, %d to tell", st.Asked, asked.Number, st.Watch, st.Going, len(st.Outbox))
	}
	return ""
}

// delivered is a commit of an app, or with a command one that ends at once.
func delivered(version string, command ...string) v1.Bundle {
	b := packaged(version, map[cluster.ServiceName]string{"web": "web:" + version})
	b.Package = nil
	for n, s := range b.Services {
		s.Task.Command = command
		s.Restart = cluster.RestartPolicy{Condition: "none"}
		b.Services[n] = s
	}
	return b
}

// withHooks is a commit of a package.
func withHooks(version string, more ...cluster.Hook) v1.Bundle {
	b := delivered(version)
	b.Package, b.Hooks = &v1.Package{Chart: "shop", Version: version}, append(goodHooks(), more...)
	return b
}

// reconciliation is what the server is killed in.
type reconciliation struct {
	name   string
	before func(w *world)
	push   func(w *world) // what comes before the request, and is not undone by a kill
	method string
	path   string
	body   any
	want   string // the picture in the end, with the delivery
	// hooks is how many run in it, each once; 0: that is not looked at.
	hooks int
	// sure: it ends so even when the request was not written down, as the source is
	// looked at from time to time.
	sure bool
}

func reconciliations() []reconciliation {
	const path = "/v1/deliveries/shop"
	spec := v1.DeliverySet{Delivery: cluster.Delivery{
		App: "shop", OnFailure: cluster.OnFailureRollback, Source: cluster.SourceSpec{Kind: cluster.SourceGit, URL: "https://git.example.com/shop.git"},
		Notify: []cluster.Notice{{URL: "https://example.com/"}},
	}}
	nothing := func(*world) {}
	follow := func(w *world) { w.must(http.MethodPut, path, spec) }
	push := func(rev string, b v1.Bundle) func(*world) { return func(w *world) { w.src.push(rev, b) } }
	const is = "web is web:%s, 2 of web=web:%[1]s, complete, uninstalled false; %s at %s, told %s, made from %s"
	return []reconciliation{
		{"the first commit", nothing, nothing, http.MethodPut, path, spec, fmt.Sprintf(is, "1", "ready", "one", "deployed ready", "one"), 0, false},
		{"a new commit", follow, push("two", delivered("2")), http.MethodPost, path + "/reconcile", nil, fmt.Sprintf(is, "2", "ready", "two", "deployed ready deployed ready", "two"), 0, true},
		{
			"a commit with hooks", follow, push("two", withHooks("2")), http.MethodPost, path + "/reconcile", nil,
			fmt.Sprintf(is, "2", "ready", "two", "deployed ready deployed ready", "two"), 3, true,
		},
		{
			"a hook before a commit fails", follow, push("bad", withHooks("2", hooked("breaks", "fail", 9, cluster.PreUpgrade))), http.MethodPost, path + "/reconcile", nil,
			fmt.Sprintf(is, "1", "held", "bad", "deployed ready deployed failed rolled-back", "one"), 0, true,
		},
		{
			"a hook behind a commit fails", follow, push("bad", withHooks("2", hooked("breaks", "fail", 9, cluster.PostUpgrade))), http.MethodPost, path + "/reconcile", nil,
			fmt.Sprintf(is, "1", "held", "bad", "deployed ready deployed failed rolled-back", "one"), 0, true,
		},
		{
			"a bad commit", follow, push("bad", delivered("2", "fail")), http.MethodPost, path + "/reconcile", nil,
			fmt.Sprintf(is, "1", "held", "bad", "deployed ready deployed failed rolled-back", "one"), 0, true,
		},
		{
			"a bad commit, whose way back is refused", func(w *world) { w.src.push("one", routed(delivered("1"), "old.test")); follow(w) },
			func(w *world) { w.src.push("bad", routed(delivered("2", "fail"), "new.test")); taken("old.test")(w) }, http.MethodPost, path + "/reconcile", nil,
			"web is web:2, 2 of web=web:1, failed, uninstalled false; held at bad, told deployed ready deployed failed failed, made from bad", 0, true,
		},
		{
			"a change by hand", func(w *world) { follow(w); w.hand(delivered("3")) }, nothing, http.MethodPost, path + "/reconcile", nil,
			fmt.Sprintf(is, "1", "ready", "one", "deployed ready drift deployed ready", "one"), 0, true,
		},
		{
			"a change by hand of what is held", func(w *world) {
				follow(w)
				w.src.push("bad", delivered("2", "fail"))
				w.must(http.MethodPost, path+"/reconcile", nil)
				time.Sleep(2 * time.Minute)
				w.hand(delivered("3"))
			}, nothing, http.MethodPost, path + "/reconcile", nil,
			fmt.Sprintf(is, "1", "held", "bad", "deployed ready deployed failed rolled-back drift", "one"), 0, true,
		},
		{"the end", follow, nothing, http.MethodDelete, path, nil, "web is web:1, 2 of web=web:1, complete, uninstalled false; not followed", 0, false},
	}
}

// hand deploys as a person does; it does not last.
func (w *world) hand(b v1.Bundle) {
	if code, says := w.ask(http.MethodPost, "/deploy", b); code != http.StatusOK {
		w.t.Fatalf("by hand: %d %s", code, says)
	}
}

func (w *world) followed() bool {
	_, ok := one[cluster.Delivery](w, store.DeliveryKey("shop"))
	return ok
}

// follows is the picture, with the delivery.
func (w *world) follows() string {
	st, looked := one[cluster.DeliveryState](w, store.DeliveryStateKey("shop"))
	if !looked {
		return w.picture() + "; not followed"
	}
	w.src.mu.Lock()
	defer w.src.mu.Unlock()
	var told []string
	for id := int64(1); id <= st.Events; id++ {
		told = append(told, w.src.told[id])
	}
	app, _ := one[cluster.App](w, store.AppKey("shop"))
	made := "nothing"
	if r, ok := one[cluster.Release](w, store.ReleaseKey("shop", app.Release)); ok && r.Origin != nil {
		made = r.Origin.Revision
	}
	picture, at := w.picture(), st.Seen.Revision
	if w.beyond != nil {
		picture, at, made = w.beyond.named(picture), w.beyond.named(at), w.beyond.named(made)
	}
	return fmt.Sprintf("%s; %s at %s, told %s, made from %s", picture, st.Phase, at, strings.Join(told, " "), made)
}

// try runs it in a world of its own; with n > 0 the server is killed with its n-th write
// and another one started.
func (r reconciliation) try(t *testing.T, n int, after bool) (writes int, wrong string) {
	t.Helper()
	inWorld(t, func(w *world) {
		r.before(w)
		was, followed, hooks := w.follows(), w.followed(), w.begun()
		w.srv.killAt(n, after)
		r.push(w)
		code, says := w.ask(r.method, r.path, r.body)
		if n == 0 {
			if code != http.StatusOK && code != http.StatusNoContent {
				wrong = fmt.Sprintf("refused: %d %s", code, says)
				return
			}
			wrong = r.ends(w, hooks)
			writes = w.srv.writes()
			return
		}
		w.awaitDeath()
		if !r.sure && w.followed() == followed { // it was killed before it wrote down what was asked for
			r.want = was
		}
		w.start()
		if r.sure {
			time.Sleep(2 * time.Minute) // the longest that it takes until the source is looked at
		}
		if wrong = r.ends(w, hooks); wrong != "" {
			return
		}
		w.src.push("next", delivered("9")) // no lock is left
		if code, says := w.ask(http.MethodPut, "/v1/deliveries/shop", v1.DeliverySet{Replace: true, Delivery: cluster.Delivery{
			App: "shop", Source: cluster.SourceSpec{Kind: cluster.SourceGit, URL: "https://git.example.com/shop.git"},
		}}); code != http.StatusOK {
			wrong = fmt.Sprintf("the next change is refused: %d %s", code, says)
			return
		}
		if wrong = w.settle(); wrong == "" && !strings.HasPrefix(w.follows(), "web is web:9, 2 of web=web:9, complete, uninstalled false; ready at next") {
			wrong = "after the next commit there is " + w.follows()
		}
	})
	return writes, wrong
}

// ends waits until nothing is on its way, and compares; hooks is how many ran before.
func (r reconciliation) ends(w *world, hooks int) string {
	if why := w.settle(); why != "" {
		return why
	}
	if got := w.follows(); got != r.want {
		return fmt.Sprintf("there is %q, not %q", got, r.want)
	}
	if n := w.begun() - hooks; r.hooks > 0 && n != r.hooks {
		return fmt.Sprintf("%d hooks ran, not %d", n, r.hooks)
	}
	return ""
}

// TestKillPointsOfDeliveries kills the server while an app follows its source.
func TestKillPointsOfDeliveries(t *testing.T) {
	for _, r := range reconciliations() {
		t.Run(r.name, func(t *testing.T) { killPoints(t, 6, r.try) })
	}
}

// TestAnAppThatWasRemovedIsAnother: what a delivery knows of an app is not held against one of
// the same name, that it makes after the first was removed.
func TestAnAppThatWasRemovedIsAnother(t *testing.T) {
	inWorld(t, func(w *world) {
		state := func() cluster.DeliveryState {
			st, _ := one[cluster.DeliveryState](w, store.DeliveryStateKey("shop"))
			return st
		}
		ask := func(method, path string) {
			t.Helper()
			if code, says := w.ask(method, path, nil); code >= http.StatusBadRequest {
				t.Fatalf("%s %s: %d %s", method, path, code, says)
			}
		}
		const path = "/v1/deliveries/shop"
		w.must(http.MethodPut, path, reconciliations()[0].body)
		w.src.push("two", delivered("2"))
		w.must(http.MethodPost, path+"/reconcile", nil)
		if g := state().Good; g == nil || g.Release != 2 {
			t.Fatalf("%+v", state())
		}
		ask(http.MethodPost, path+"/suspend")
		ask(http.MethodDelete, "")
		time.Sleep(2 * time.Minute)
		if _, says := w.ask(http.MethodGet, path, nil); strings.Contains(says, `"good"`) || strings.Contains(says, `"applied"`) {
			t.Errorf("it shows releases that are gone: %s", says)
		}
		w.src.push("bad", delivered("3", "fail"))
		ask(http.MethodPost, path+"/resume")
		time.Sleep(5 * time.Minute)
		if st := state(); st.Good != nil || st.Phase == cluster.PhaseHeld || st.Stuck != "" {
			t.Errorf("it goes back to a release of an app that is gone: %s, %s, %+v", st.Phase, st.Message, st.Good)
		}
		w.src.push("good", delivered("4"))
		ask(http.MethodPost, path+"/reconcile")
		if why := w.settle(); why != "" {
			t.Fatal(why)
		}
		if st := state(); st.Phase != cluster.PhaseReady || st.Good.Origin.Revision != "good" {
			t.Errorf("%s, %s, %+v", st.Phase, st.Message, st.Good)
		}
	})
}
