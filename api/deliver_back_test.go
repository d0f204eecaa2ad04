package api_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/fairlead/fairlead/api"
	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// goodAt is a state whose last good release is n.
func goodAt(n int) cluster.DeliveryState {
	return cluster.DeliveryState{Good: &cluster.Applied{Release: n}}
}

// What failed is gone back from, with what it brought; what a person added stays where services
// that left the source do. Then nothing is left to do, also after a restart or a count of somebody.
func TestTheWayBackIsWhole(t *testing.T) {
	for _, keep := range []bool{false, true} {
		b := newBench(t)
		ctx := t.Context()
		set := fromGit("shop")
		set.KeepGone = keep
		d, err := b.SetDelivery(ctx, "shop", set)
		if err != nil {
			t.Fatal(err)
		}
		d.Rev = b.rev(store.DeliveryKey("shop"))
		services := func(names ...cluster.ServiceName) v1.Bundle {
			all := map[cluster.ServiceName]cluster.ServiceSpec{}
			for _, n := range names {
				all[n] = service(string(n) + ":1")
			}
			return bundle(all)
		}
		deliver := func(revision string, release int, b2 v1.Bundle) *cluster.Applied {
			o := cluster.Origin{Revision: revision}
			r, err := b.srv.Deliver(ctx, d.Delivery, api.Fetched{Origin: o, Bundle: b2}, release)
			if err != nil {
				t.Fatal(err)
			}
			return &cluster.Applied{Origin: o, Key: d.KeyOf(o), Release: r.Release}
		}
		st := cluster.DeliveryState{Good: deliver("one", 0, services("web"))}
		st.Applied = st.Good
		b.put(store.DeliveryStateKey("shop"), st)
		before := deployed(t, b, services("web", "early")) // by hand
		deliver("two", before.Release, services("web", "brought"))
		again := deployed(t, b, services("web", "early", "brought"))                    // by hand, on the way
		st.Applied = deliver("two", again.Release, services("web", "brought", "tried")) // again, and not the same
		st.Applied = deliver("three", st.Applied.Release, services("web", "brought"))   // that failed too
		is := func(when string, want ...cluster.ServiceName) {
			t.Helper()
			var got []cluster.ServiceName
			for _, k := range b.keys(store.AppPrefix("shop") + "services/") {
				got = append(got, get[cluster.Service](b, k).Name)
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("kept %v, %s: %v, not %v", keep, when, got, want)
			}
		}
		back := func(when string, changes bool) {
			t.Helper()
			p, err := b.srv.PlanTakeBack(ctx, d.Delivery, st)
			if err != nil || p.Empty() == changes {
				t.Errorf("kept %v, %s: %+v, %v", keep, when, p.Changes, err)
			}
			if r, err := b.srv.TakeBack(ctx, d.Delivery, st); err != nil || r.Changed != changes {
				t.Errorf("kept %v, %s: changed %v, %v", keep, when, r.Changed, err)
			}
		}
		by := map[bool][]cluster.ServiceName{false: {"web"}, true: {"early", "web"}}[keep]
		back("at first", true)
		is("back", by...)
		back("once more", false)

		if _, err := b.Restart(ctx, "shop", v1.RestartRequest{}); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Scale(ctx, "shop", v1.ScaleRequest{Services: map[cluster.ServiceName]v1.ScaleTo{"web": {Replicas: 3}}}); err != nil {
			t.Fatal(err)
		}
		back("restarted and scaled", false)

		by = append(slices.Clone(by), "added")
		hand := services(by...)
		hand.Services = maps.Clone(hand.Services)
		web := hand.Services["web"]
		web.Task.Image = "web:9"
		hand.Services["web"] = web
		deployed(t, b, hand)
		back("changed by hand", true)
		is("as it was", map[bool][]cluster.ServiceName{false: {"web"}, true: {"added", "early", "web"}}[keep]...)
		if got := get[cluster.Service](b, store.ServiceKey(webID)).Spec.Task.Image; got != "web:1" {
			t.Errorf("kept %v: the image is %s", keep, got)
		}
		back("at last", false)
	}
}
