package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// What becomes of a release.
const (
	releaseRunning  = "running"
	releaseComplete = "complete"
	releaseFailed   = "failed"
)

// releases keeps the outcome of each app's current release, and closes those of
// earlier ones. It reads the records as they are stored: an outcome is never
// ahead of what it sums up.
func (p *planner) releases() {
	apps := make(map[cluster.AppName]cluster.App, len(p.Apps))
	for _, a := range p.Apps {
		apps[a.Name] = a
	}
	inUse := map[cluster.AppName]bool{}
	services := map[cluster.AppName][]cluster.Service{}
	for _, s := range p.Services {
		inUse[s.App] = true
		services[s.App] = append(services[s.App], s)
	}
	for id := range p.tasks {
		inUse[id.App] = true
	}
	current, coming := map[cluster.AppName]cluster.ReleaseOutcome{}, map[cluster.AppName]cluster.ReleaseOutcome{}
	for _, o := range slices.SortedFunc(slices.Values(p.Outcomes), func(a, b cluster.ReleaseOutcome) int {
		return cmp.Or(cmp.Compare(a.App, b.App), cmp.Compare(a.Number, b.Number))
	}) {
		a, exists := apps[o.App]
		switch {
		case !exists && inUse[o.App]:
		case exists && o.Created == a.Created && o.Number > a.Release: // hooks run before it is there
			switch {
			case p.ahead(a).Release == o.Number:
				coming[o.App] = o
			case o.State == releaseRunning:
				o.State, o.Ended, o.Message = releaseFailed, p.Now, "another change took its place"
				p.emit(Settle{o})
			}
		case !exists, o.Created != a.Created && o.Number != a.Release, o.Number > a.Release, o.Number <= a.Release-cluster.KeptReleases && !o.Released:
			p.emit(Unsettle{o})
		case o.Number == a.Release:
			current[o.App] = o
		case o.State == releaseRunning:
			o.State, o.Ended = releaseFailed, p.Now
			o.Message = fmt.Sprintf("release %d came before it was complete", a.Release)
			p.emit(Settle{o})
		}
	}
	for _, a := range slices.SortedFunc(slices.Values(p.Apps), func(a, b cluster.App) int { return cmp.Compare(a.Name, b.Name) }) {
		if a.Release > 0 && !a.Uninstalled {
			p.release(a, services[a.Name], current[a.Name])
		}
		if ahead := p.ahead(a); ahead.Release > 0 {
			p.coming(a, ahead, coming[a.Name])
		}
	}
}

// ahead is where the change stands that would make an app's next release; zero: there
// is none.
func (p *planner) ahead(a cluster.App) cluster.ChangeRecord {
	r := p.changes[a.Name]
	if r.Created != a.Created || r.Release <= a.Release {
		return cluster.ChangeRecord{}
	}
	return r
}

// coming keeps the outcome of a release that is not there yet: hooks run before it
// is, and one that fails leaves the app as it was.
func (p *planner) coming(a cluster.App, r cluster.ChangeRecord, old cluster.ReleaseOutcome) {
	if old.Number != r.Release || old.Created != a.Created {
		old = cluster.ReleaseOutcome{}
	}
	next := cluster.ReleaseOutcome{App: a.Name, Number: r.Release, State: releaseRunning, Created: a.Created, Rev: old.Rev}
	if r.Failed {
		next.State, next.Message, next.Ended = releaseFailed, r.Message, p.Now
	}
	if next.State != old.State || next.Message != old.Message {
		p.emit(Settle{next})
	}
}

func (p *planner) release(a cluster.App, services []cluster.Service, old cluster.ReleaseOutcome) {
	if old.Created != a.Created {
		old = cluster.ReleaseOutcome{Rev: old.Rev} // of an app of the same name that is gone
	}
	if old.State == releaseComplete {
		return
	}
	next := cluster.ReleaseOutcome{
		App: a.Name, Number: a.Release, State: releaseComplete, Ended: p.Now, Created: a.Created, Rev: old.Rev,
	}
	slices.SortFunc(services, func(x, y cluster.Service) int { return x.Compare(y.ServiceID) })
	busy, blocked := false, "" // what waits in vain fails the release once all else has ended
	for _, s := range services {
		r := p.rollouts[s.ServiceID]
		switch known := r.Target == s.Version && r.Release == s.Release && r.Created == s.Created; {
		case s.Release > a.Release:
			return // a later release is being written
		case known && r.State == cluster.RolloutComplete:
		case known && r.State != cluster.RolloutRollingBack && givenUp(r.State):
			if next.State != releaseFailed {
				next.State, next.Message = releaseFailed, fmt.Sprintf("%s: %s", s.Name, r.Message)
			}
		case known && r.Blocked:
			blocked = cmp.Or(blocked, fmt.Sprintf("%s: %s", s.Name, r.Message))
		default:
			busy = true
		}
	}
	switch {
	case next.State == releaseFailed:
	case busy:
		next.State = releaseRunning
	case blocked != "":
		next.State, next.Message = releaseFailed, blocked
	}
	p.hooked(a, &next)
	if next.State == releaseRunning {
		next.Ended = time.Time{}
	}
	if next.State == old.State && next.Message == old.Message && next.Settled == old.Settled {
		return
	}
	p.emit(Settle{next})
}

// hooked keeps a release whose services are complete from being so before its hooks
// are, and fails it with one of them.
func (p *planner) hooked(a cluster.App, o *cluster.ReleaseOutcome) {
	r := p.changes[a.Name]
	if r.Created != a.Created {
		return
	}
	switch m := r.Made(a.Release); {
	case m.Failed:
		o.State, o.Message, o.Ended = releaseFailed, m.Message, p.Now
	case o.State == releaseComplete && m.Open:
		o.State, o.Settled = releaseRunning, true
	}
}
