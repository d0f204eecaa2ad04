package control

import (
	"context"
	"fmt"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery"
	"github.com/fairlead/fairlead/store"
)

// keep undoes, or says, what was changed by hand of an app whose source is not to be had.
func (d *Deliveries) keep(ctx context.Context, i delivery.Item, away error) cluster.DeliveryState {
	if !d.kept(i) {
		return delivery.Missed(i, delivery.Look{}, away, d.opts.Now().UTC())
	}
	var changes []string
	var err error
	left := delivery.LeftAt(i.State)
	if i.Release != left.Good.Release {
		if changes, err = d.opts.Do.Strayed(ctx, i.Spec, left); err != nil {
			d.log.Warn("could not compare a delivery's app with what it was left at; will retry", "delivery", i.Spec.Name, "release", left.Good.Release, "error", err)
			return delivery.Missed(i, delivery.Look{}, away, d.opts.Now().UTC())
		}
	}
	release := 0
	switch {
	case len(changes) == 0 && !delivery.Stays(i.State) && d.made(i, delivery.Look{Origin: i.State.Good.Origin, Release: i.Release}):
		// Whoever undid it ended before the state was written.
		changes, release = []string{fmt.Sprintf("release %d", i.Release)}, i.Release
	case delivery.Remakes(i, changes):
		if release, _, err = d.opts.Do.GoBack(ctx, i.Spec, left); err != nil {
			d.log.Warn("could not undo what was changed by hand; will retry", "delivery", i.Spec.Name, "release", left.Good.Release, "error", err)
			release = 0
		}
	}
	return delivery.Kept(i, away, changes, release, d.opts.Now().UTC())
}

// kept reports whether an app is to be as it was left, as far as is known now: a look at a source that
// is away takes minutes.
func (d *Deliveries) kept(i delivery.Item) (is bool) {
	if !delivery.Keeps(i) {
		return false
	}
	d.mirror.Read(func(v store.View) {
		now := delivery.Item{Spec: i.Spec, State: i.State}
		around(v, &now)
		is = now.Release == i.Release && now.Ask == i.Ask && now.Busy == 0 &&
			!delivery.ByIt(i, releasesSince(v, i.Spec.App, delivery.Left(i.State), i.Release))
	})
	return is
}

func releasesSince(v store.View, app cluster.AppName, from, to int) (out []cluster.Release) {
	for n := from + 1; n <= to; n++ {
		if r, ok, err := store.One[cluster.Release](v, store.ReleaseKey(app, n)); ok && err == nil {
			out = append(out, r.V)
		}
	}
	return out
}
