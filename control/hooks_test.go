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
