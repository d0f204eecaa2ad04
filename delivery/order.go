package delivery

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// items are all deliveries, by name.
type items map[cluster.DeliveryName]Item

func byName(list []Item) items {
	out := make(items, len(list))
	for _, i := range list {
		out[i.Spec.Name] = i
	}
	return out
}

// together reports whether two deliveries follow the same revisions: what one of them has to
// be ahead of is of one commit.
func together(a, b cluster.Delivery) bool {
	of := func(s cluster.SourceSpec) cluster.SourceSpec {
		s.User, s.Secret, s.KnownHosts, s.CA = "", "", "", ""
		return s
	}
	return of(a.Source) == of(b.Source)
}

// askAgain is how long a delivery that was looked at is left alone by those that wait for it.
const askAgain = 5 * time.Second

// lags reports whether i waits for a delivery to see the revision that it has seen itself.
func (all items) lags(i, on Item) bool {
	return i.State.Phase == cluster.PhaseWaiting && i.State.Seen != nil && !on.Spec.Suspend && together(i.Spec, on.Spec) &&
		(on.State.Seen == nil || on.State.Seen.Revision != i.State.Seen.Revision) && !on.State.Checked.After(i.State.Looked)
}

// lagging calls f with each delivery that another one waits for in that way.
func (all items) lagging(f func(on Item)) {
	for _, i := range all {
		for _, name := range i.Spec.DependsOn {
			if on, there := all[name]; there && !i.Spec.Suspend && all.lags(i, on) && on.State.Looked.Before(i.State.Looked) {
				f(on)
			}
		}
	}
}

// wanted are the deliveries whose sources are to be looked at now, as another one waits for that.
func (all items) wanted(now time.Time) map[cluster.DeliveryName]bool {
	out := map[cluster.DeliveryName]bool{}
	all.lagging(func(on Item) {
		if !now.Before(on.State.Looked.Add(askAgain)) {
			out[on.Spec.Name] = true
		}
	})
	return out
}

// next is when the first of them is.
func (all items) next() (first time.Time, is bool) {
	all.lagging(func(on Item) {
		if at := on.State.Looked.Add(askAgain); !is || at.Before(first) {
			first, is = at, true
		}
	})
	return first, is
}

// before says which other deliveries have to be ready before one is looked at or, where seen is
// what its source has, before that is deployed; "": none.
func (all items) before(i Item, seen *cluster.Origin, now time.Time) string {
	var words []string
	for _, name := range slices.Sorted(slices.Values(i.Spec.DependsOn)) {
		on, there := all[name]
		st := on.State
		switch {
		case !there:
			words = append(words, fmt.Sprintf("%s, which is not there", name))
		case st.Phase == cluster.PhaseNew:
			words = append(words, fmt.Sprintf("%s, which is new", name))
		case st.Phase != cluster.PhaseReady && st.Phase != cluster.PhaseDrifted:
			words = append(words, fmt.Sprintf("%s, which is %s", name, st.Phase))
		case on.Spec.Suspend: // as somebody wants it
		case on.Spec.Rev != st.Spec:
			words = append(words, fmt.Sprintf("%s, which was changed", name))
		case seen != nil && together(i.Spec, on.Spec) && st.Seen != nil && st.Seen.Revision != seen.Revision:
			words = append(words, fmt.Sprintf("%s, which is not at %s yet", name, cluster.ShortRevision(seen.Revision)))
		case seen == nil && all.lags(i, on) && now.Before(i.State.Looked.Add(i.Spec.Filled().Interval.D())):
			words = append(words, fmt.Sprintf("%s, which is not at %s yet", name, cluster.ShortRevision(i.State.Seen.Revision)))
		}
	}
	if words == nil {
		return ""
	}
	return cut("waits for " + strings.Join(words, "; "))
}

// Behind says which other deliveries, of those that there are, are to be at what a source has
// before one is deployed from it; "": none.
func Behind(i Item, list []Item, l Look, now time.Time) string {
	return byName(list).before(i, &l.Origin, now)
}

// Waits is the state of one that was looked at, and is deployed when others are ready.
func Waits(i Item, l Look, why string, now time.Time) cluster.DeliveryState {
	st := seeing(i.Spec.Source, i.State, l, now)
	st.Looked, st.Phase, st.Message = now, cluster.PhaseWaiting, why
	return st
}
