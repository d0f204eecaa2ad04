package control_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// app is what the server says of the app.
func (w *world) app() (out v1.AppDetail) {
	w.t.Helper()
	_, says := w.ask(http.MethodGet, "", nil)
	if err := json.Unmarshal([]byte(says), &out); err != nil {
		w.t.Fatal(err, says)
	}
	return out
}

// outcome is what became of a release.
func (w *world) outcome(release int) cluster.ReleaseOutcome {
	o, _ := one[cluster.ReleaseOutcome](w, store.OutcomeKey("shop", release))
	return o
}

// wantBroken looks that release 2 has failed with its hook, by all that says so.
func (w *world) wantBroken(after string) {
	w.t.Helper()
	const why = "post-upgrade hook breaks failed"
	if o := w.outcome(2); o.State != "failed" || !strings.Contains(o.Message, why) {
		w.t.Errorf("after %s, release 2 is %s: %q", after, o.State, o.Message)
	}
	if a := w.app(); a.State != "failed" || !strings.Contains(strings.Join(a.Problems, "\n"), why) {
		w.t.Errorf("after %s, the app is %s: %q", after, a.State, a.Problems)
	}
}

// TestAFailedReleaseStaysFailed asks for what makes no release of a release that a hook
// failed: it has failed all the same, until the same upgrade again has its hooks run.
func TestAFailedReleaseStaysFailed(t *testing.T) {
	inWorld(t, func(w *world) {
		w.must(http.MethodPost, "/deploy", version1())
		w.must(http.MethodPost, "/deploy", brokenVersion())
		w.wantBroken("its hook")
		w.must(http.MethodPost, "/test", v1.TestRequest{})
		w.wantBroken("its tests")
		w.must(http.MethodDelete, "", nil)
		w.wantBroken("a removal that a hook refused")
		w.must(http.MethodPost, "/test", v1.TestRequest{})
		w.wantBroken("tests after that")
		if code, says := w.ask(http.MethodPost, "/plan", brokenVersion()); code != http.StatusOK || !strings.Contains(says, "release 2 failed with its hook breaks; it is tried again") {
			t.Errorf("the plan of the same again: %d %s", code, says)
		}
		again := brokenVersion()
		again.Hooks = append(again.Hooks, hooked("before", "fail", 9, cluster.PreUpgrade))
		w.must(http.MethodPost, "/deploy", again)
		if o := w.outcome(3); o.State != "failed" {
			t.Errorf("release 3 is %s", o.State)
		}
		w.wantBroken("an upgrade that a hook before it failed")
		ran := w.begun()
		w.must(http.MethodPost, "/deploy", brokenVersion())
		if o, n := w.outcome(4), w.begun()-ran; o.State != "failed" || n != 4 {
			t.Errorf("the same again: release 4 is %s after %d hooks", o.State, n)
		}
		w.must(http.MethodPost, "/rollback", v1.RollbackRequest{})
		if s, _ := one[cluster.Service](w, store.AppPrefix("shop")+"services/web"); s.Spec.Task.Image != "web:1" {
			t.Errorf("it goes back to %s", s.Spec.Task.Image)
		}
	})
}

// TestARemovalCutsHooksShort ends the hooks of a release with a removal that is refused:
// the release whose hooks never ended is not a complete one.
func TestARemovalCutsHooksShort(t *testing.T) {
	inWorld(t, func(w *world) {
		w.must(http.MethodPost, "/deploy", version1())
		slow := brokenVersion()
		slow.Hooks[3] = hooked("breaks", "forever", 9, cluster.PostUpgrade)
		if code, says := w.ask(http.MethodPost, "/deploy", slow); code != http.StatusOK {
			t.Fatal(code, says)
		}
		for range 100 {
			if r, _ := one[cluster.ChangeRecord](w, store.ChangeRecordKey("shop")); r.Stage == cluster.StageAfter && len(r.Runs) == 4 {
				break
			}
			time.Sleep(time.Second)
		}
		w.must(http.MethodDelete, "", nil)
		const why = "another change took its place before its hooks had run"
		if o, a := w.outcome(2), w.app(); o.State != "failed" || o.Message != why || a.State != "failed" {
			t.Errorf("release 2 is %s: %q; the app is %s: %q", o.State, o.Message, a.State, a.Problems)
		}
		if code, says := w.ask(http.MethodPost, "/plan", slow); code != http.StatusOK || !strings.Contains(says, "release 2 failed before its hooks had run; it is tried again") {
			t.Errorf("the plan of the same again: %d %s", code, says)
		}
	})
}

// hangs waits until the hook of that name runs.
func (w *world) hangs() {
	w.t.Helper()
	for range 100 {
		rec, _ := one[cluster.ChangeRecord](w, store.ChangeRecordKey("shop"))
		for _, r := range rec.Runs {
			if st, known := one[cluster.Status](w, store.StatusKey("n1", r.Task)); r.Hook == "hangs" && known && st.State == cluster.StateRunning {
				return
			}
		}
		time.Sleep(time.Second)
	}
	w.t.Fatal("the hook does not run")
}

// hanging is a third version whose last hook ahead of it never ends by itself.
func hanging() v1.Bundle {
	b := packaged("3.0.0", map[cluster.ServiceName]string{"web": "web:3"}, hooked("hangs", "forever", 9, cluster.PreUpgrade, cluster.PreInstall))
	b.Timeout = cluster.Duration(time.Minute)
	return b
}

// TestARollbackCallsOff goes back from a release that is not there yet, as its hooks run, and
// from one that never was, as one of them failed: to what the app is, and no further.
func TestARollbackCallsOff(t *testing.T) {
	inWorld(t, func(w *world) {
		back := func(release, notMade int, says string) {
			t.Helper()
			code, body := w.ask(http.MethodPost, "/rollback", v1.RollbackRequest{Release: release})
			var got v1.DeployResult
			if err := json.Unmarshal([]byte(body), &got); err != nil || code != http.StatusOK || got.Changed || got.Release != 2 || got.NotMade != notMade {
				t.Fatalf("%d %s", code, body)
			}
			if why := w.settle(); why != "" {
				t.Fatal(why)
			}
			if o, a := w.outcome(notMade), w.app(); o.State != "failed" || !strings.Contains(o.Message, says) || a.State != "ready" || a.Release != 2 || a.Next != notMade+1 {
				t.Errorf("release %d is %s: %q; the app is %s at release %d, the next %d", notMade, o.State, o.Message, a.State, a.Release, a.Next)
			}
		}
		w.must(http.MethodPost, "/deploy", version1())
		w.must(http.MethodPost, "/deploy", version2())
		for n, release := range []int{0, 2} {
			if code, says := w.ask(http.MethodPost, "/deploy", hanging()); code != http.StatusOK {
				t.Fatal(code, says)
			}
			w.hangs()
			if code, says := w.ask(http.MethodPost, "/deploy", version1()); code != http.StatusConflict || !strings.Contains(says, "end it with `fairlead rollback shop` or `fairlead uninstall shop`") {
				t.Errorf("another one meanwhile: %d %s", code, says)
			}
			back(release, 3+n, "called off by a rollback by ann")
		}
		w.must(http.MethodPost, "/deploy", packaged("3.0.0", map[cluster.ServiceName]string{"web": "web:3"}, hooked("breaks", "fail", 9, cluster.PreUpgrade)))
		back(0, 5, "pre-upgrade hook breaks failed")
		w.must(http.MethodPost, "/rollback", v1.RollbackRequest{Release: 1})
		if a := w.app(); a.Release != 6 {
			t.Errorf("back at release 1: release %d", a.Release)
		}
	})
}

// TestARollbackCallsARemovalOff keeps an app whose removal waits for a hook.
func TestARollbackCallsARemovalOff(t *testing.T) {
	inWorld(t, func(w *world) {
		b := version1()
		b.Hooks = append(b.Hooks, hooked("hangs", "forever", 9, cluster.PreDelete))
		w.must(http.MethodPost, "/deploy", b)
		was := w.picture()
		if code, says := w.ask(http.MethodDelete, "", nil); code != http.StatusOK {
			t.Fatal(code, says)
		}
		w.hangs()
		w.must(http.MethodPost, "/rollback", v1.RollbackRequest{})
		if a := w.app(); w.picture() != was || a.Release != 1 || a.State != "ready" {
			t.Errorf("%s; the app is %s", w.picture(), a.State)
		}
	})
}

// TestNothingToGoBackTo asks for it while the first installation's hooks run.
func TestNothingToGoBackTo(t *testing.T) {
	inWorld(t, func(w *world) {
		if code, says := w.ask(http.MethodPost, "/deploy", hanging()); code != http.StatusOK {
			t.Fatal(code, says)
		}
		w.hangs()
		if code, says := w.ask(http.MethodPost, "/rollback", v1.RollbackRequest{}); code != http.StatusUnprocessableEntity || !strings.Contains(says, "shop was never installed: there is nothing to go back to") {
			t.Errorf("%d %s", code, says)
		}
		if code, says := w.ask(http.MethodPost, "/deploy", version1()); code != http.StatusConflict || !strings.Contains(says, "or end it with `fairlead uninstall shop`") {
			t.Errorf("another one meanwhile: %d %s", code, says)
		}
		w.must(http.MethodDelete, "", nil)
		if w.picture() != "no app" {
			t.Error(w.picture())
		}
	})
}

// TestWithoutHooks changes an app whose every hook would fail, with none of them.
func TestWithoutHooks(t *testing.T) {
	inWorld(t, func(w *world) {
		bundle := func(version string) v1.Bundle {
			b := packaged(version, map[cluster.ServiceName]string{"web": "web:" + version}, hooked("breaks", "fail", 0, cluster.HookEvents()...))
			b.NoHooks = true
			return b
		}
		complete := func(release int) {
			t.Helper()
			if o := w.outcome(release); o.State != "complete" {
				t.Errorf("release %d is %s: %s", release, o.State, o.Message)
			}
		}
		w.must(http.MethodPost, "/deploy", bundle("1"))
		complete(1)
		w.must(http.MethodPost, "/deploy", bundle("2"))
		complete(2)
		w.must(http.MethodPost, "/rollback", v1.RollbackRequest{NoHooks: true})
		complete(3)
		atomic := bundle("3")
		atomic.Atomic = true
		w.must(http.MethodPost, "/deploy", atomic)
		complete(4)
		w.must(http.MethodDelete, "?no_hooks=true", nil)
		if got := w.picture(); got != "no app" {
			t.Errorf("after its removal there is %s", got)
		}
		if n := w.begun(); n != 0 {
			t.Errorf("%d hooks ran", n)
		}
	})
}

// TestHooksThatRefuseARemoval has hooks before and behind a removal fail: the first leaves
// all as it is, the second the history, until the next removal.
func TestHooksThatRefuseARemoval(t *testing.T) {
	inWorld(t, func(w *world) {
		b := version1()
		b.Hooks = append(b.Hooks, hooked("refuses", "fail", 9, cluster.PreDelete), hooked("leaves", "fail", 9, cluster.PostDelete))
		w.must(http.MethodPost, "/deploy", b)
		was := w.picture()
		w.must(http.MethodDelete, "", nil)
		if got := w.picture(); got != was {
			t.Errorf("a pre-delete hook failed, and there is %q, not %q", got, was)
		}
		if a := w.app(); a.State != "ready" || !strings.Contains(strings.Join(a.Problems, "\n"), "its removal failed: pre-delete hook refuses failed") {
			t.Errorf("the app is %s: %q", a.State, a.Problems)
		}
		b = packaged("1.1.0", map[cluster.ServiceName]string{"web": "web:1"}, hooked("leaves", "fail", 9, cluster.PostDelete))
		w.must(http.MethodPost, "/deploy", b)
		w.must(http.MethodDelete, "", nil)
		if got := w.picture(); got != "uninstalled true" {
			t.Errorf("a post-delete hook failed, and there is %q", got)
		}
		if code, says := w.ask(http.MethodGet, "/releases", nil); code != http.StatusOK || !strings.Contains(says, `"number":1`) {
			t.Errorf("its history: %d %s", code, says)
		}
		w.must(http.MethodDelete, "", nil)
		if got := w.picture(); got != "no app" {
			t.Errorf("after the next removal there is %q", got)
		}
	})
}
