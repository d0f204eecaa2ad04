package delivery

import "github.com/fairlead/fairlead/cluster"

// Verdict is what a look at the source leads to.
type Verdict string

// Verdicts.
const (
	Keep   Verdict = "keep"   // the app is as the source says
	Deploy Verdict = "deploy" // make it so
	Hold   Verdict = "hold"   // this revision was gone back from
	Report Verdict = "report" // the app was changed by hand
	// Restore goes back again to the last good release, as the app was changed by hand since.
	Restore Verdict = "restore"
)

// Decide says what is to be done about an app that differs from its source.
func Decide(i Item, l Look) Verdict {
	d, st := i.Spec, i.State
	switch {
	case failed(d, st, l) && !i.Again && (st.Terms == "" || st.Terms == d.Terms()):
		return Hold
	case len(l.Changes) == 0:
		return Keep
	case d.Filled().Drift == cluster.DriftReport && alike(d, st.Good, l) && alike(d, st.Applied, l):
		return Report
	}
	return Deploy
}

// failed reports whether the source has what was gone back from, or has it again: a commit
// elsewhere in the repository makes it no better.
func failed(d cluster.Delivery, st cluster.DeliveryState, l Look) bool {
	if st.Failed == "" {
		return false
	}
	return d.KeyOf(l.Origin) == st.Failed || st.Applied != nil && st.Applied.Key == st.Failed && alike(d, st.Applied, l)
}

// alike reports whether the source asks for what was applied then, at whatever revision.
func alike(d cluster.Delivery, a *cluster.Applied, l Look) bool {
	return a != nil && (a.Key == d.KeyOf(l.Origin) || l.Content != "" && a.Content == l.Content)
}

// Stays reports whether the app was gone back with and is to stay so: how it differs from its last
// good release was done by hand.
func Stays(st cluster.DeliveryState) bool { return st.Back() && st.Watch == nil }

// Strayed says what is to be done about an app that stays at its last good release, and differs from it
// in changes.
func Strayed(d cluster.Delivery, changes []string) Verdict {
	if len(changes) == 0 || d.Filled().Drift == cluster.DriftReport {
		return Hold
	}
	return Restore
}
