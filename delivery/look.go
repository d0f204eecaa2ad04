package delivery

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// Look is what was seen, and done about it.
type Look struct {
	Origin cluster.Origin
	// Content tells what the source asks for from anything else it could, whatever the
	// revision; "": that is not known.
	Content string
	// Changes are how the app differs from what it is to be: what the source says or, of one that
	// is held, the last good release.
	Changes []string
	Verdict Verdict
	Release int // that was made, or the current one
	// Made: the current release was deployed from this revision by the delivery, and the
	// state does not know it.
	Made bool
	// Unsure is why one that is held could not be compared.
	Unsure string
	// Forced: the branch's history was replaced.
	Forced bool
	// Varies: the package makes something else each time that it is rendered.
	Varies bool
	// Images are what the image policies chose; Wrote says what of it was committed.
	Images []cluster.ImageState
	Wrote  string
}

// Looked is the state after a look at the source.
func Looked(i Item, l Look, now time.Time) cluster.DeliveryState {
	d, st := i.Spec.Filled(), followed(i, now)
	key := d.KeyOf(l.Origin)
	l = bounded(l)
	st, st.Checked = seeing(d.Source, st, l, now), now
	st.Varies = l.Varies
	later := now.Add(spread(d.Name, st.Checks, d.Interval.D()))
	applied := &cluster.Applied{Origin: l.Origin, Key: key, Release: l.Release, Content: l.Content}
	same := st.Applied != nil && st.Applied.Key == key
	applied.Install = i.Release == 0 || same && l.Verdict == Keep && st.Applied.Install
	st = imaged(st, l, applied, now)
	if l.Verdict == Keep && l.Made {
		// Whoever deployed it ended before the state was written.
		l.Verdict, l.Changes = Deploy, []string{fmt.Sprintf("release %d", l.Release)}
	}
	switch l.Verdict {
	case Hold:
		if st.Going && (!st.Restores() || l.Unsure != "") { // it is not held yet
			return st
		}
		st = holding(st, l, now)
	case Restore:
		if !st.Going { // else it is tried in its time
			st.Going, st.Next = true, now
			st.Phase, st.Message = cluster.PhaseHeld, differs(l, "its last good release")
		}
		st.Drift = l.Changes
		return st
	case Report:
		st.Told, st.Failures = nil, 0
		st = drifted(st, l, applied, now)
		st.Phase, st.Message = cluster.PhaseDrifted, differs(l, "the source")
	case Deploy:
		if same && st.Good != nil && st.Good.Key == key && st.Phase != cluster.PhaseFailed {
			st = event(st, now, cluster.EventDrift, applied, "corrected: "+first(l.Changes))
		}
		if !same {
			st.Failures, st.Told = 0, nil
		}
		st.Applied, st.Failed, st.Drift = applied, "", nil
		st.Going, st.Stuck = false, ""
		st.Watch = &cluster.DeliveryWatch{Release: l.Release, Since: now}
		st.Phase, st.Message = cluster.PhaseDeploying, fmt.Sprintf("release %d", l.Release)
		st = tell(st, now, cluster.EventDeployed, applied, "", first(l.Changes))
	case Keep:
		st.Drift, st.Accepted = nil, l.Release
		switch {
		case same && st.Watch != nil && st.Watch.Kept: // now it says how the source's own is
			st.Watch = &cluster.DeliveryWatch{Release: st.Watch.Release, Since: st.Watch.Since}
			st.Phase, st.Message = cluster.PhaseDeploying, fmt.Sprintf("release %d", st.Watch.Release)
		case same && (st.Phase == cluster.PhaseReady || st.Phase == cluster.PhaseDrifted):
			st.Phase, st.Message, st.Failures = cluster.PhaseReady, "", 0
		case same && st.Watch != nil:
		case st.Watch == nil && st.Good != nil && st.Good.Release == l.Release && (!same || st.Good.Key == key):
			st = unmoved(st, applied, now)
		default: // what became of the release that is there says how it is
			if !same {
				st.Failed, st.Going, st.Stuck, st.Told = "", false, "", nil
			}
			st.Applied = applied
			st.Watch = &cluster.DeliveryWatch{Release: l.Release, Since: now}
			st.Phase, st.Message = cluster.PhaseDeploying, fmt.Sprintf("release %d", l.Release)
		}
	}
	st.Next = later
	return st
}

// unmoved is the state of one whose app is still as it was when it became healthy, and as the
// source says: that is news only where something else was told since.
func unmoved(st cluster.DeliveryState, applied *cluster.Applied, now time.Time) cluster.DeliveryState {
	told := len(st.Told) > 0 || st.Failures >= lasting
	st.Applied, st.Good = applied, applied
	st.Failed, st.Going, st.Stuck, st.Told, st.Failures = "", false, "", nil, 0
	st.Phase, st.Message = cluster.PhaseReady, ""
	if told {
		st = event(st, now, cluster.EventReady, applied, "")
	}
	return st
}

// holding is the state of one that stays at its last good release.
func holding(st cluster.DeliveryState, l Look, now time.Time) cluster.DeliveryState {
	undone := st.Restores() && len(l.Changes) == 0
	st.Phase, st.Message, st.Going, st.Failures = cluster.PhaseHeld, held(st, st.Applied.Origin), false, 0
	switch {
	case l.Unsure != "":
		st.Message = cut(st.Message + "; it cannot be compared with that: " + l.Unsure)
		return tell(st, now, cluster.EventFailed, st.Good, l.Unsure, st.Message)
	case undone:
		st = event(st, now, cluster.EventDrift, st.Good, "corrected: "+first(st.Drift))
	case len(l.Changes) > 0:
		st.Message = cut(st.Message + "; " + differs(l, "that"))
	}
	return drifted(st, l, st.Good, now)
}

// drifted takes in how the app was changed by hand, which is news once.
func drifted(st cluster.DeliveryState, l Look, from *cluster.Applied, now time.Time) cluster.DeliveryState {
	if len(l.Changes) > 0 && !slices.Equal(st.Drift, l.Changes) {
		st = event(st, now, cluster.EventDrift, from, first(l.Changes))
	}
	st.Drift = l.Changes
	return st
}

func differs(l Look, from string) string {
	return cut(fmt.Sprintf("differs from %s in %d: %s", from, len(l.Changes), first(l.Changes)))
}

// seeing takes in which revision the source has.
func seeing(src cluster.SourceSpec, st cluster.DeliveryState, l Look, now time.Time) cluster.DeliveryState {
	was, seen := st.Seen, l.Origin
	st.Seen = &seen
	if l.Forced && was != nil {
		st = event(st, now, cluster.EventForced, &cluster.Applied{Origin: seen, Release: l.Release},
			fmt.Sprintf("%s no longer has %s in its history", seen.Ref, cluster.ShortRevision(was.Revision)))
	}
	if v := republished(was, seen); v != "" {
		st = event(st, now, cluster.EventForced, &cluster.Applied{Origin: seen, Release: l.Release},
			fmt.Sprintf("%s was published again with other content: it was %s", v, cluster.ShortRevision(was.Revision)))
	}
	if src.Kind == cluster.SourceGit && src.Tag+src.Semver != "" && moved(was, seen) {
		st = event(st, now, cluster.EventForced, &cluster.Applied{Origin: seen, Release: l.Release},
			fmt.Sprintf("the tag %s was moved: it was at %s", seen.Ref, cluster.ShortRevision(was.Revision)))
	}
	return st
}

// moved reports whether what has the same name as before is another revision.
func moved(was *cluster.Origin, is cluster.Origin) bool {
	return was != nil && was.URL == is.URL && was.Ref == is.Ref && was.Revision != is.Revision
}

// republished is the version of a package that a source has with other content than before; "":
// there is none. The revision is VERSION@DIGEST in a repository; in a registry it is the digest,
// and the version stands behind the package's name.
func republished(was *cluster.Origin, is cluster.Origin) string {
	if !moved(was, is) {
		return ""
	}
	old, _, before := strings.Cut(was.Revision, "@")
	version, _, packaged := strings.Cut(is.Revision, "@")
	if packaged && before && old == version {
		return version
	}
	_, version, packaged = strings.Cut(is.Ref, " ")
	if packaged {
		return version
	}
	return ""
}

// held says of a revision that failed where the app stays.
func held(st cluster.DeliveryState, failed cluster.Origin) string {
	switch {
	case st.Good == nil:
		return fmt.Sprintf("%s failed; it stays as it was until a new one comes", Named(failed))
	case st.Stuck != "":
		return cut(fmt.Sprintf("%s failed, and it stays as it is until a new one comes: there is no way back to %s: %s", Named(failed), Named(st.Good.Origin), st.Stuck))
	}
	return fmt.Sprintf("%s failed; it stays at %s until a new one comes", Named(failed), Named(st.Good.Origin))
}

// imaged takes in what the image policies chose. A registry that is away is news once it
// was so for a while.
func imaged(st cluster.DeliveryState, l Look, a *cluster.Applied, now time.Time) cluster.DeliveryState {
	was := map[string]cluster.ImageState{}
	for _, s := range st.Images {
		was[s.Policy] = s
	}
	var fresh []string
	for _, s := range l.Images {
		old := was[s.Policy]
		switch {
		case s.Tag != "" && old.Tag == "":
			fresh = append(fresh, s.String())
		case s.Tag != "" && s.Ref() != old.Ref():
			fresh = append(fresh, fmt.Sprintf("%s (%s before)", s, strings.TrimPrefix(old.String(), old.Policy+" ")))
		}
		if s.Away && s.Failures >= lasting && old.Failures < lasting {
			st = event(st, now, cluster.EventFailed, a, fmt.Sprintf("images of %s: %s", s.Policy, s.Message))
		}
	}
	if len(fresh) > 0 || l.Wrote != "" {
		st = event(st, now, cluster.EventImages, a, strings.Join(slices.DeleteFunc([]string{strings.Join(fresh, ", "), l.Wrote}, func(s string) bool { return s == "" }), "; "))
	}
	st.Images = l.Images
	return st
}

// lasting is how often in a row something is away before it is news.
const lasting = 3

// Missed is the state after a look, or a deploy, that did not work: l has the revision that
// it was about, or none where the source did not say. Network comes and goes: what is
// transient is news only when it lasts.
func Missed(i Item, l Look, err error, now time.Time) cluster.DeliveryState {
	d, st := i.Spec.Filled(), followed(i, now)
	var about *cluster.Applied
	if l.Origin.Revision != "" {
		about = &cluster.Applied{Origin: l.Origin, Key: d.KeyOf(l.Origin)} // and no release
		st = seeing(d.Source, st, Look{Origin: l.Origin, Forced: l.Forced}, now)
	}
	st = setback(d, st, now, err.Error())
	was, passes := i.State, cluster.KindOf(err) == cluster.KindTransient || cluster.KindOf(err) == cluster.KindConflict
	switch {
	case !passes:
		st = tell(st, now, cluster.EventFailed, about, st.Message, st.Message)
	case st.Failures == lasting:
		st = event(st, now, cluster.EventFailed, about, st.Message)
	case st.Failures < lasting && !i.asked() && settled(was.Phase): // whoever asked wants to know
		st.Phase = was.Phase
		if was.Phase == cluster.PhaseHeld {
			st.Message = was.Message
		}
	}
	if was.Going { // that is how it is still, and tried again in its own time
		st.Phase, st.Message, st.Next = was.Phase, was.Message, was.Next
	}
	return st
}

// settled are the phases in which the app is as it is to be, as far as that is known.
func settled(phase string) bool {
	switch phase {
	case cluster.PhaseReady, cluster.PhaseDrifted, cluster.PhaseHeld:
		return true
	}
	return false
}

// WentBack is the state after the last good release was made again as release;
// changed is false where the app was so already.
func WentBack(i Item, release int, changed bool, now time.Time) cluster.DeliveryState {
	st := i.State
	st.Going, st.Stuck, st.Watch = false, "", nil
	d := i.Spec.Filled()
	if changed {
		st.Watch = &cluster.DeliveryWatch{Release: release, Since: now, Rollback: true}
	}
	st.Next = now.Add(spread(d.Name, st.Checks, d.Interval.D()))
	back := *st.Good
	back.Release = release
	back.Key = st.Applied.Key
	st.Phase = cluster.PhaseHeld
	if i.State.Restores() { // it was back already
		drift := st.Drift
		st.Message, st.Failures, st.Drift = held(st, st.Applied.Origin), 0, nil
		return event(st, now, cluster.EventDrift, &back, "corrected: "+first(drift))
	}
	why := st.Message
	st.Message = cut(fmt.Sprintf("%s failed; back at %s until a new one comes: %s", Named(st.Applied.Origin), Named(st.Good.Origin), why))
	return tell(st, now, cluster.EventRolledBack, &back, "", st.Message)
}

// NotBack is the state after the way back could not be begun. What was refused is not asked for
// again: the app stays as it is, until a new revision comes. Only what was changed by hand since the
// app was back is tried to be undone for ever.
func NotBack(i Item, err error, now time.Time) cluster.DeliveryState {
	d, st := i.Spec.Filled(), i.State
	k := cluster.KindOf(err)
	if refused := k == cluster.KindInvalid || k == cluster.KindNotFound; !refused || st.Restores() { // what was changed by hand may be changed again
		return fail(d, st, now, "", "going back: "+err.Error())
	}
	st.Going, st.Stuck, st.Failures = false, cut(err.Error()), 0
	st.Phase, st.Message = cluster.PhaseHeld, held(st, st.Applied.Origin)
	st.Next = now.Add(spread(d.Name, st.Checks, d.Interval.D()))
	return tell(st, now, cluster.EventFailed, st.Applied, st.Stuck, st.Message)
}

// notifyAgain is when what could not be sent is sent again.
const notifyAgain = 30 * time.Second

// Sent is the state after the outbox was sent: heard says how far each receiver is, by
// its key, and err what somebody was not told.
func Sent(i Item, heard map[string]int64, err error, now time.Time) cluster.DeliveryState {
	const tooOld = time.Hour
	st := i.State
	st.Outbox = slices.DeleteFunc(slices.Clone(st.Outbox), func(e cluster.DeliveryEvent) bool {
		waits := slices.ContainsFunc(i.Spec.Notify, func(n cluster.Notice) bool { return heard[n.Key()] < e.ID })
		return !waits || now.Sub(e.At) > tooOld
	})
	st.Heard, st.NotifyErr, st.NotifyNext = heard, "", now.Add(notifyAgain)
	if len(st.Outbox) == 0 {
		st.Outbox, st.Heard, st.NotifyNext = nil, nil, time.Time{}
	}
	if err != nil {
		st.NotifyErr = cut(err.Error())
	}
	return st
}

// followed notes that the delivery and the newest request were looked at.
func followed(i Item, now time.Time) cluster.DeliveryState {
	st := i.State
	st.Name, st.Asked, st.Spec, st.Looked = i.Spec.Name, i.Ask, i.Spec.Rev, now
	st.Checks++
	if st.Applied != nil { // else it is none of the delivery's yet
		st.AppCreated = i.App
	}
	return st
}

// Bounds of what is kept of events.
const (
	maxHistory = 30
	maxOutbox  = 30
	maxTold    = 30
)

// tell is an event, unless the same about of was told of the revision: one that is tried
// again and again is news once.
func tell(st cluster.DeliveryState, now time.Time, what string, a *cluster.Applied, about, message string) cluster.DeliveryState {
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "%s\n%s", what, about)
	if a != nil {
		_, _ = fmt.Fprintf(h, "\n%s", a.Key)
	}
	sum := fmt.Sprintf("%x", h.Sum64())
	if slices.Contains(st.Told, sum) {
		return st
	}
	st.Told = last(append(slices.Clone(st.Told), sum), maxTold)
	return event(st, now, what, a, message)
}

func event(st cluster.DeliveryState, now time.Time, what string, a *cluster.Applied, message string) cluster.DeliveryState {
	st.Events++
	e := cluster.DeliveryEvent{ID: st.Events, At: now, Event: what, Message: cut(message)}
	if a != nil {
		e.Revision, e.Author, e.Subject, e.Release = a.Origin.Revision, a.Origin.Author, a.Origin.Subject, a.Release
		e.Images = cluster.Choices(a.Origin.Images)
	}
	st.History = last(append(slices.Clone(st.History), e), maxHistory)
	st.Outbox = last(append(slices.Clone(st.Outbox), e), maxOutbox)
	return st
}

// maxMessage bounds each text of a state, in bytes: the store takes a state as one value.
const maxMessage = 1000

// cut is s within that.
func cut(s string) string {
	const mark = "… (cut)"
	if len(s) <= maxMessage {
		return s
	}
	return strings.ToValidUTF8(s[:maxMessage-len(mark)], "") + mark
}

// bounded is what was seen with all its texts within that.
func bounded(l Look) Look {
	l.Changes = slices.Clone(l.Changes)
	for n := range l.Changes {
		l.Changes[n] = cut(l.Changes[n])
	}
	l.Images = slices.Clone(l.Images)
	for n := range l.Images {
		l.Images[n].Message = cut(l.Images[n].Message)
	}
	return l
}

func last[T any](list []T, n int) []T { return list[max(0, len(list)-n):] }

func first(changes []string) string {
	switch len(changes) {
	case 0:
		return ""
	case 1:
		return changes[0]
	}
	return fmt.Sprintf("%s, and %d more", changes[0], len(changes)-1)
}

// Named is what a source had, as people write it.
func Named(o cluster.Origin) string {
	s := cluster.ShortRevision(o.Revision)
	if len(o.Images) > 0 {
		s += " with " + cluster.Choices(o.Images)
	}
	return s
}

const (
	firstBackoff = 10 * time.Second
	maxBackoff   = 10 * time.Minute
)

// Backoff grows to its bound, and stays there for ever.
func Backoff(name cluster.DeliveryName, failures int) time.Duration {
	d := maxBackoff
	if doublings := failures - 1; doublings < 6 {
		d = firstBackoff << max(0, doublings)
	}
	return spread(name, int64(failures), d)
}

// spread is d, up to a tenth more or less, so that many do not come at once.
func spread(name cluster.DeliveryName, n int64, d time.Duration) time.Duration {
	const parts = 1000
	h := fnv.New32a()
	_, _ = fmt.Fprintf(h, "%s %d", name, n)
	return d - d/10 + d/5*time.Duration(h.Sum32()%parts)/parts
}
