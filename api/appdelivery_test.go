package api_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// A change by hand is answered with what the delivery does about it.
func TestAChangeByHandIsWarnedOf(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	back := cluster.DeliveryState{Phase: cluster.PhaseHeld, Failed: "2", Applied: &cluster.Applied{Key: "2", Release: 2}, Good: &cluster.Applied{Key: "1", Release: 1}}
	stuck := back
	stuck.Stuck = "the route is taken"
	first := cluster.DeliveryState{Phase: cluster.PhaseHeld}
	ready := cluster.DeliveryState{Phase: cluster.PhaseReady}
	for n, tc := range []struct {
		state   cluster.DeliveryState
		drift   string
		suspend bool
		says    string // "": nothing
	}{
		{ready, "", false, "makes it as its source says at its next look: "},
		{ready, cluster.DriftReport, false, "says how it differs from its source at its next look: "},
		{back, "", false, "makes release 1, the last good one, again at its next look: "},
		{back, cluster.DriftReport, false, "says how it differs from release 1, the last good one, at its next look: "},
		{stuck, "", false, "deploys over this when a new commit comes: "},
		{first, cluster.DriftReport, false, "deploys over this when a new commit comes: "},
		{back, "", true, ""},
	} {
		set := fromGit("shop")
		tc.state.Name = "follow"
		set.Replace, set.Drift, set.Suspend = true, tc.drift, tc.suspend
		if _, err := b.SetDelivery(ctx, "follow", set); err != nil {
			t.Fatal(err)
		}
		b.put(store.DeliveryStateKey("follow"), tc.state)
		res, err := b.Deploy(ctx, "shop", bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": service(fmt.Sprintf("web:%d", n))}))
		if err != nil {
			t.Fatal(err)
		}
		said := ""
		for _, w := range res.Plan.Warnings {
			if strings.HasPrefix(w.Message, "the delivery ") {
				said += w.Message
			}
		}
		want := ""
		if tc.says != "" {
			want = "the delivery follow follows shop and " + tc.says + "`fairlead delivery suspend follow` first leaves a change by hand"
		}
		if said != want {
			t.Errorf("%+v, drift %q: %q, want %q", tc.state, tc.drift, said, want)
		}
	}
}

// An app says which delivery it follows, and where that stands; the cluster which are to be
// looked at, also of an app that is not there yet.
func TestAppsSayWhatTheyFollow(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	for _, app := range []cluster.AppName{"plain", "shop"} {
		if _, err := b.Deploy(ctx, app, bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": service("web:1")})); err != nil {
			t.Fatal(err)
		}
	}
	for name, app := range map[cluster.DeliveryName]cluster.AppName{"follow": "shop", "db": "db", "quiet": "quiet"} {
		if _, err := b.SetDelivery(ctx, name, fromGit(app)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Suspend(ctx, "quiet"); err != nil {
		t.Fatal(err)
	}
	good := &cluster.Applied{Key: "1", Origin: cluster.Origin{Ref: "main", Revision: "r1"}}
	bad := &cluster.Applied{Key: "2", Origin: cluster.Origin{Ref: "main", Revision: "r2"}}
	b.put(store.DeliveryStateKey("follow"), cluster.DeliveryState{Name: "follow", Phase: cluster.PhaseHeld, Applied: bad, Good: good, Failed: "2", Message: "r2 failed"})
	b.put(store.DeliveryStateKey("db"), cluster.DeliveryState{Name: "db", Phase: cluster.PhaseFailed, Message: "no such branch"})
	b.put(store.DeliveryStateKey("quiet"), cluster.DeliveryState{Name: "quiet", Phase: cluster.PhaseFailed, Message: "no such branch"})
	want := &v1.AppDelivery{Name: "follow", Phase: cluster.PhaseHeld, Ref: "main", Revision: "r1", Message: "r2 failed"}
	list, err := b.Apps(ctx)
	if err != nil || len(list) != 2 || list[0].Delivery != nil {
		t.Fatalf("%+v, %v", list, err)
	}
	if d := cmp.Diff(want, list[1].Delivery); d != "" {
		t.Error(d)
	}
	whole, err := b.App(ctx, "shop")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, whole.Delivery); d != "" {
		t.Error(d)
	}
	st, err := b.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var alarms []string
	for _, a := range st.Alarms {
		if strings.HasPrefix(a, "delivery ") {
			alarms = append(alarms, a)
		}
	}
	if d := cmp.Diff([]string{
		"delivery db: failed: no such branch; `fairlead delivery describe db` tells more",
		"delivery follow: held at r1 (main): r2 failed; `fairlead delivery describe follow` tells more",
	}, alarms); d != "" {
		t.Error(d)
	}
	if _, err := b.App(ctx, "db"); cluster.KindOf(err) != cluster.KindNotFound || !strings.Contains(err.Error(), `there is no app "db" yet; delivery db: failed: no such branch; `) {
		t.Errorf("%v", err)
	}
}
