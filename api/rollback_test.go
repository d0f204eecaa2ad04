package api_test

import (
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
