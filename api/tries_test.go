package api_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// TestTriesOfOneCommitAreOneRelease: a commit that fails is tried for ever, and what worked stays
// in history, with all that others made.
func TestTriesOfOneCommitAreOneRelease(t *testing.T) {
	apiID := cluster.ServiceID{App: "shop", Name: "api"}
	for _, tc := range []struct {
		what  string
		fresh bool // a service came with the first try, and works
		want  string
	}{
		{"all of it fails", false, "[62×61 1]"},
		{"one of two fails", true, "[62×61 2 1]"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			b := newBench(t)
			ctx := t.Context()
			d, err := b.SetDelivery(ctx, "shop", fromGit("shop"))
			if err != nil {
				t.Fatal(err)
			}
			d.Rev = b.rev(store.DeliveryKey("shop"))
			deliver := func(revision string, after int, services map[cluster.ServiceName]cluster.ServiceSpec) int {
				t.Helper()
				origin := cluster.Origin{Delivery: "shop", URL: d.Source.URL, Ref: "main", Revision: revision, At: time.Unix(1, 0).UTC()}
				r, err := b.srv.Deliver(ctx, d.Delivery, api.Fetched{Origin: origin, Bundle: bundle(services)}, after)
				if err != nil || !r.Changed {
					t.Fatalf("release %d: changed %v, %v", r.Release, r.Changed, err)
				}
				return r.Release
			}
			became := func(n int, state cluster.RolloutState, name cluster.ServiceID) {
				app, err := b.store.Get(ctx, store.AppKey("shop"))
				if err != nil {
					t.Fatal(err)
				}
				svc := get[cluster.Service](b, store.ServiceKey(name))
				b.put(store.RolloutKey(name), cluster.Rollout{ServiceID: name, Target: svc.Version, Release: svc.Release, State: state})
				b.put(store.OutcomeKey("shop", n), cluster.ReleaseOutcome{App: "shop", Number: n, State: string(state), Created: cluster.StoreRev(app.Created)})
			}
			numbers := func() string {
				list, err := b.History(ctx, "shop")
				if err != nil {
					t.Fatal(err)
				}
				var out []string
				for _, r := range list {
					n := fmt.Sprint(r.Number)
					if r.Tries > 0 {
						n += fmt.Sprintf("×%d", r.Tries)
						if r.First.IsZero() || r.First.After(r.Created) {
							t.Errorf("release %d was first tried at %s, and made at %s", r.Number, r.First, r.Created)
						}
					}
					out = append(out, n)
				}
				return fmt.Sprint(out)
			}
			good := map[cluster.ServiceName]cluster.ServiceSpec{"web": service("web:1")}
			bad := map[cluster.ServiceName]cluster.ServiceSpec{"web": service("web:2")}
			if tc.fresh {
				bad["api"] = service("api:1")
			}
			became(deliver("one", 0, good), cluster.RolloutComplete, webID)
			for n := 1; n <= cluster.KeptReleases+11; n++ {
				made := deliver("two", n, bad)
				if tc.fresh && n == 1 {
					became(made, cluster.RolloutComplete, apiID)
				}
				became(made, cluster.RolloutFailed, webID)
			}
			if got := numbers(); got != tc.want {
				t.Errorf("history has %s, not %s", got, tc.want)
			}
			if tc.fresh {
				if tr, err := b.Trace(ctx, apiID); err != nil || tr.Origin == nil || tr.Origin.Revision != "two" {
					t.Errorf("%+v, %v", tr, err)
				}
			}
			last := cluster.KeptReleases + 12
			if made := deliver("three", last, bad); numbers() != fmt.Sprintf("[%d %s", made, tc.want[1:]) { // another commit is another release
				t.Errorf("history has %s", numbers())
			}
			if _, err := b.srv.TakeBack(ctx, d.Delivery, goodAt(1)); err != nil || get[cluster.Service](b, store.ServiceKey(webID)).Spec.Task.Image != "web:1" {
				t.Errorf("the way back: %v", err)
			}
		})
	}
}
