package api_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// TestRollbackGoesWhereItWorked: a rollback without a number passes over releases
// that failed, that were overtaken, and that are what runs already.
func TestRollbackGoesWhereItWorked(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	outcome := func(n int, state string) {
		b.put(store.OutcomeKey("shop", n), cluster.ReleaseOutcome{App: "shop", Number: n, State: state, Ended: time.Now()})
	}
	to := func(image string) {
		t.Helper()
		deployed(t, b, bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": service(image)}))
	}
	back := func(note, image string) {
		t.Helper()
		if _, err := b.Rollback(ctx, "shop", 0); err != nil {
			t.Fatal(err)
		}
		h, err := b.History(ctx, "shop")
		if err != nil || h[0].Note != note {
			t.Errorf("%q, %v: want %q", h[0].Note, err, note)
		}
		if got := get[cluster.Service](b, store.ServiceKey(webID)).Spec.Task.Image; got != image {
			t.Errorf("%s: it runs %s, not %s", note, got, image)
		}
		outcome(h[0].Number, "complete")
	}
	nowhere := func(says string) {
		t.Helper()
		if _, err := b.Rollback(ctx, "shop", 0); cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), says) {
			t.Errorf("%v", err)
		}
	}
	to("web:1")
	outcome(1, "complete")
	nowhere("no release before 1 to go back to")
	if _, err := b.Restart(ctx, "shop", v1.RestartRequest{}); err != nil {
		t.Fatal(err)
	}
	outcome(2, "complete")
	nowhere("each of them failed, was never completed, or is what release 2 is")
	to("web:bad")
	outcome(3, "failed")
	back("rollback to 2", "web:1") // release 4
	nowhere("`fairlead history shop` lists them")
	to("web:5")
	outcome(5, "complete")
	if _, err := b.Restart(ctx, "shop", v1.RestartRequest{}); err != nil {
		t.Fatal(err)
	}
	outcome(6, "complete")
	back("rollback to 4", "web:1") // not 5, of which 6 is a restart: release 7
	to("web:overtaken")
	outcome(8, "running")
	to("web:9")
	back("rollback to 7", "web:1")
	if r, err := b.Rollback(ctx, "shop", 3); err != nil || r.Release != 11 {
		t.Errorf("one that failed, by its number: %+v %v", r, err)
	}
}

// TestValuesGoBackWithTheirRelease: a value that a release brought goes back with it, once;
// one that was set by itself stays.
func TestValuesGoBackWithTheirRelease(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	deploy := func(value string) {
		t.Helper()
		web := service("web:1")
		web.Task.Secrets = []cluster.FileRef{{Name: "pw", Target: "/run/secrets/pw"}}
		bun := bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": web})
		bun.Secrets = map[string]v1.SecretDecl{"pw": {Value: v1.Plain(value)}}
		deployed(t, b, bun)
	}
	is := func(when, value string, version int) {
		t.Helper()
		rec := get[cluster.SecretRecord](b, store.SecretKey(cluster.SecretRef{App: "shop", Name: "pw"}))
		got, err := b.key.Resolve(ctx, rec)
		if err != nil || string(got.Reveal()) != value || rec.Version != version {
			t.Errorf("%s: version %d, %v; want version %d, %q", when, rec.Version, err, version, value)
		}
		web := get[cluster.Service](b, store.ServiceKey(webID)).Spec.Task.Secrets[0]
		if web.Version != strconv.Itoa(version) {
			t.Errorf("%s: tasks have version %s, not %d", when, web.Version, version)
		}
	}
	back := func(to int) v1.DeployResult {
		t.Helper()
		r, err := b.Rollback(ctx, "shop", to)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	deploy("one")
	deploy("two")
	is("before", "two", 2)
	if r := back(1); !strings.Contains(fmt.Sprint(r.Plan.Changes), "as in version 1") {
		t.Errorf("%+v", r.Plan.Changes)
	}
	is("back at 1", "one", 3)
	if r := back(1); r.Changed {
		t.Errorf("going back twice makes release %d: %+v", r.Release, r.Plan.Changes)
	}
	back(2)
	is("back at 2", "two", 4)
	if _, err := b.SetSecret(ctx, cluster.SecretRef{App: "shop", Name: "pw"}, v1.SecretSet{Value: v1.Plain("by hand")}); err != nil {
		t.Fatal(err)
	}
	back(1)
	is("set by hand, and back at 1", "by hand", 5)
}
