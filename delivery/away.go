package delivery

import (
	"slices"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// Keeps reports whether the app of one whose source is not to be had is to be as it was left: as in
// the release that the source asked for when it was seen last, or that was gone back to. Whoever asks
// for a look, or changes the delivery, is told that there is none. Services that left the source and
// are kept are nobody's to say.
func Keeps(i Item) bool {
	d, st := i.Spec.Filled(), i.State
	if i.asked() || i.Busy != 0 || i.Release == 0 || d.KeepGone || st.Watch != nil || st.Going || st.Good == nil || st.Applied == nil {
		return false
	}
	return Stays(st) || Left(st) > 0 && st.Failed == "" && st.Applied.Key == st.Good.Key &&
		d.KeyOf(st.Good.Origin) == st.Good.Key && (st.Seen == nil || d.KeyOf(*st.Seen) == st.Good.Key)
}

// Left is the release that the app was left at.
func Left(st cluster.DeliveryState) int {
	if Stays(st) {
		return st.Good.Release
	}
	return st.Accepted
}

// LeftAt is the state with that as the last good one.
func LeftAt(st cluster.DeliveryState) cluster.DeliveryState {
	good := *st.Good
	good.Release = Left(st)
	st.Good = &good
	return st
}

// ByIt reports whether a release since is one that the delivery itself made, of something else than it
// was left at: whoever deployed that ended before the state was written.
func ByIt(i Item, since []cluster.Release) bool {
	return slices.ContainsFunc(since, func(r cluster.Release) bool {
		if r.By != i.Spec.Actor() {
			return false
		}
		key := ""
		if r.Origin != nil {
			key = i.Spec.KeyOf(*r.Origin)
		}
		return key != i.State.Good.Key && key != i.State.Failed
	})
}

// Remakes reports whether that release is made again at once, as the app differs from it in changes.
// One that was gone back to has a way there of its own.
func Remakes(i Item, changes []string) bool {
	return len(changes) > 0 && !Stays(i.State) && i.Spec.Filled().Drift != cluster.DriftReport
}

// Kept is Missed, for one whose app was compared with its last good release: it differs from that in
// changes, and release (0: none) made it so again.
func Kept(i Item, away error, changes []string, release int, now time.Time) cluster.DeliveryState {
	st := Missed(i, Look{}, away, now)
	l := bounded(Look{Changes: changes})
	switch {
	case release > 0:
		again := *st.Good
		again.Release = release
		st.Applied, st.Drift = &again, nil
		st.Watch = &cluster.DeliveryWatch{Release: release, Since: now, Kept: true}
		if i.Release != i.State.Applied.Release { // else what undid it failed, and is made again
			st = event(st, now, cluster.EventDrift, &again, "corrected: "+first(l.Changes))
		}
	case Stays(st) && Strayed(i.Spec, l.Changes) == Restore:
		st.Going, st.Next, st.Drift = true, now, l.Changes
		st.Phase, st.Message = cluster.PhaseHeld, differs(l, "its last good release")
	default:
		st = drifted(st, l, st.Good, now)
		switch {
		case st.Phase == cluster.PhaseReady && len(l.Changes) > 0:
			st.Phase, st.Message = cluster.PhaseDrifted, cut(differs(l, "its last good release")+"; "+st.Message)
		case st.Phase == cluster.PhaseDrifted && len(l.Changes) == 0:
			st.Phase = cluster.PhaseReady
		}
	}
	return st
}
