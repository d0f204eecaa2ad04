package api

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

func (s *Server) registerWatch(api huma.API) {
	handleEvents[watchInput, v1.Progress](api, op(http.MethodGet, "/apps/{app}/watch", "watch-app", "apps", "How far a change of an app has come"), "progress", s.watch)
	handleEvents[AppQuery, v1.Event](api, op(http.MethodGet, "/events", "events", "cluster", "Every change in the cluster, as it happens"), "change", s.events)
}

type watchInput struct {
	AppPath
	Release int `query:"release" minimum:"0" doc:"the release to follow; 0 is the current one"`
}

func (s *Server) watch(_ context.Context, in *watchInput) (func(context.Context, *events) error, error) {
	m := s.read(in.app())
	if !slices.Contains(m.appNames(), in.app()) && in.Release > 0 {
		return nil, noApp(in.app())
	}
	release := in.Release
	if release == 0 {
		release = m.apps[in.app()].Release
	}
	return func(ctx context.Context, e *events) error {
		var last v1.Progress
		ping := time.NewTicker(pingEvery)
		defer ping.Stop()
		var stands <-chan time.Time // when what is refused counts as refused
		stood := false
		why := "" // what was made is removed again; then nothing else says so
		for first := true; ; first = false {
			changed := s.Mirror.Changed()
			m := s.read(in.app())
			now := m.progress(in.app(), release)
			why = cmp.Or(s.why(in.app(), release), why)
			if _, exists := m.apps[in.app()]; !exists && now.Failed && why != "" {
				now.Message = why + "; it is removed again"
			}
			if now.Done && len(now.Unserved) > 0 && !stood {
				now.Done, now.Failed = false, false
				if stands == nil {
					stands = time.After(refusalStands)
				}
			}
			if first || !reflect.DeepEqual(now, last) {
				if err := e.send("progress", now); err != nil {
					return err
				}
				if err := e.flush(); err != nil {
					return err
				}
				last = now
			}
			if now.Done {
				return nil
			}
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-stands:
				stood = true
			case <-changed:
				t := time.NewTimer(gather)
				for more := true; more; {
					changed = s.Mirror.Changed()
					why = cmp.Or(s.why(in.app(), release), why)
					select {
					case <-changed:
					case <-ctx.Done():
						more = false
					case <-t.C:
						more = false
					}
				}
				t.Stop()
			case <-ping.C:
				if err := e.ping(); err != nil {
					return err
				}
			}
		}
	}, nil
}

// refusalStands is how long a gateway must say that it cannot have a port before
// that ends the wait: it tries again every second, and the program that had the
// port may just be ending. So may the service that had a route.
const refusalStands = 3 * time.Second

// gather is how long a watcher waits for more changes before it looks: each
// look costs time that grows with the cluster.
const gather = 30 * time.Millisecond

// progress says how far an app has come on its way to a release; release 0 is
// the way to being gone.
func (m *model) progress(app cluster.AppName, release int) v1.Progress {
	out := v1.Progress{App: app, Release: release, Services: []v1.ServiceProgress{}, Done: true}
	cur, exists := m.apps[app]
	if m.hooked(&out, release) {
		return out
	}
	if exists && cur.Release > release && release > 0 {
		out.Superseded, out.Message = cur.Release, fmt.Sprintf("release %d has taken over", cur.Release)
		return out
	}
	for _, svc := range m.servicesOf(app) {
		p := m.serviceProgress(svc)
		if p.State == string(cluster.RolloutComplete) {
			coming, refused := m.unserved(svc)
			out.Unserved = append(out.Unserved, refused...)
			out.Done = out.Done && len(coming) == 0
			if all := append(coming, refused...); len(all) > 0 {
				p.Message = all[0]
			}
		}
		out.Services = append(out.Services, p)
		switch cluster.RolloutState(p.State) {
		case cluster.RolloutComplete:
			// It was complete once: a count that grew since, or a task that crashed, is
			// waited for like any other.
			switch missing := p.Wanted - p.Ready; {
			case missing <= m.rollouts[svc.ServiceID].Failures: // as many as the file tolerates
			case missing <= m.givenUp(svc):
				out.Failed = true
			default:
				out.Done = false
			}
		case cluster.RolloutRolledBack, cluster.RolloutPaused, cluster.RolloutFailed:
			out.Failed = true
		case cluster.RolloutRunning:
			if m.rollouts[svc.ServiceID].Blocked { // waiting longer would change nothing
				out.Failed = true
			} else {
				out.Done = false
			}
		case cluster.RolloutRollingBack:
			out.Done = false
		default:
			out.Done = false // pending
		}
	}
	for _, id := range m.leaving(app) {
		out.Services = append(out.Services, id)
		out.Done = false
	}
	if out.Done && !exists {
		out.Message = "the app is gone"
		out.Failed = release > 0
	}
	// Said at the end.
	out.Failed = out.Done && (out.Failed || len(out.Unserved) > 0)
	m.after(&out, release)
	return out
}

// why is for what reason a release failed that is taken back, as long as that goes on.
func (s *Server) why(app cluster.AppName, release int) (why string) {
	s.Mirror.Read(func(v store.View) {
		ch, ok, err := store.One[cluster.PendingChange](v, store.ChangeKey(app))
		if !ok || err != nil || release == 0 {
			return
		}
		rec, _, err := store.One[cluster.ChangeRecord](v, store.ChangeRecordKey(app))
		switch {
		case ch.V.Undoes == release:
			why = ch.V.Why
		case err == nil && ch.V.Release == release && rec.V.Change == ch.V.ID && rec.V.Failed:
			why = rec.V.Message
		}
	})
	return why
}

// hooked tells of a change whose release is not the app's: hooks run before it is, or
// one that failed is taken back. It reports whether that is all there is to tell.
func (m *model) hooked(out *v1.Progress, release int) bool {
	ch, ok := m.changes[out.App]
	cur := m.apps[out.App]
	rec := m.records[out.App]
	stage := ch.StageOf(rec)
	switch {
	case !ok || release == 0:
		return m.overtaken(out, release)
	case ch.Undoes == release:
		out.Done, out.Message = stage == cluster.StageDone, ch.Why
		out.Failed = out.Done
		to := "it is removed again"
		if ch.Action == cluster.HookRollback {
			to = fmt.Sprintf("release %d takes it back", ch.Release)
		}
		out.Message += "; " + to
		if rec.Change == ch.ID {
			out.Hooks = rec.Runs
			if rec.Failed {
				out.Message += ", which failed: " + rec.Message
			}
		}
		return true
	case ch.Release != release || !ch.Action.Makes():
		return m.overtaken(out, release)
	}
	if rec.Change == ch.ID {
		out.Hooks = rec.Runs
	}
	if cur.Release == release && !cur.Uninstalled {
		return false
	}
	out.Done = stage == cluster.StageDone
	if out.Failed = out.Done; out.Done {
		out.Message = rec.Message
	} else if stage == cluster.StageUndo {
		out.Message = rec.Message + "; it is taken back"
	}
	return true
}

// overtaken tells of a release that never was the app's, and is not to be any more.
func (m *model) overtaken(out *v1.Progress, release int) bool {
	cur, exists := m.apps[out.App]
	if !exists || cur.Release >= release {
		return false
	}
	out.Done = m.last >= release // else this server has not seen it yet
	if out.Failed = out.Done; out.Done {
		out.Message = "another change took its place"
	}
	return true
}

// after keeps a release from being done while hooks run behind it, and fails it with one.
func (m *model) after(out *v1.Progress, release int) {
	ch, ok := m.changes[out.App]
	rec := m.records[out.App]
	if !ok || ch.Release != release || !ch.Action.Makes() {
		if made := made(m.apps[out.App], rec); made.Failed && made.Release == release && out.Done {
			out.Failed, out.Message = true, made.Message // whatever was asked for since
		}
		return
	}
	switch stage := ch.StageOf(rec); {
	case stage == cluster.StageUndo:
		out.Done, out.Failed, out.Message = false, false, rec.Message+"; it is taken back"
	case stage != cluster.StageDone:
		out.Done, out.Failed = false, false
	case rec.Failed:
		out.Failed = out.Done
		if _, broke := rec.Broke(); broke || ch.Stays != "" {
			out.Message = rec.Message
		}
	}
}

func (m *model) serviceProgress(svc cluster.Service) v1.ServiceProgress {
	n := m.tally(svc)
	p := v1.ServiceProgress{Service: svc.Name, Wanted: n.wanted, Ready: n.ready, Updated: n.updated, Old: n.old}
	if r := m.rollouts[svc.ServiceID]; r.Created == 0 || r.Created == svc.Created {
		p.Stable = r.StableRelease
	}
	p.State, p.Message = m.rolloutState(svc)
	switch cluster.RolloutState(p.State) {
	case cluster.RolloutRolledBack, cluster.RolloutPaused, cluster.RolloutFailed, cluster.RolloutRollingBack:
		p.Tail = m.rollouts[svc.ServiceID].Tail
		if n.failed != nil {
			p.Task = n.failed.ID
			if len(p.Tail) == 0 {
				p.Tail = n.failed.LogTail
			}
			if p.Message == "" {
				p.Message = n.failed.Reason
			}
		}
	case cluster.RolloutRunning, cluster.RolloutComplete:
		if n.updated < n.wanted {
			if why := m.holdup(svc); why != "" {
				p.Message = why
			} else if n.failed != nil && m.givenUp(svc) > 0 {
				p.Task, p.Tail = n.failed.ID, n.failed.LogTail
				p.Message = cmp.Or(p.Message, fmt.Sprintf("%s failed: %s; it is not started again", n.failed.Address, n.failed.Reason))
			}
		}
	}
	return p
}

// givenUp counts the slots of a service that nothing is tried in any more: the
// newest task of the current version failed, and the restart policy allows no other.
func (m *model) givenUp(svc cluster.Service) int {
	ended := map[int]bool{}
	policy, first := svc.Spec.Restart, m.rollouts[svc.ServiceID].FirstTask
	for _, t := range m.ofService[svc.ServiceID] {
		if t.Version != svc.Version {
			continue
		}
		failed := t.Outcome != nil && t.Outcome.State == cluster.StateFailed && t.N >= first
		last := policy.Condition == "none" || (failed && policy.MaxAttempts > 0 && t.Attempt+t.Outcome.Restarts >= policy.MaxAttempts)
		ended[t.Slot] = failed && last
	}
	n := 0
	for _, yes := range ended {
		if yes {
			n++
		}
	}
	return n
}

// holdup is what the first task that is not ready waits for.
func (m *model) holdup(svc cluster.Service) string {
	for _, t := range m.ofService[svc.ServiceID] {
		ts := m.task(t)
		if t.Version == svc.Version && t.Desire == cluster.DesireRun && !ts.Ready && !ts.Ended() && ts.Reason != "" {
			return standing(ts)
		}
	}
	return ""
}

// leaving are the services that are no longer wanted but still have containers.
func (m *model) leaving(app cluster.AppName) []v1.ServiceProgress {
	counts := map[cluster.ServiceName]int{}
	for _, t := range m.tasks {
		if _, wanted := m.byID[t.ServiceID]; !wanted && t.App == app && t.Outcome == nil && t.Hook == "" {
			counts[t.Name]++
		}
	}
	var out []v1.ServiceProgress
	for n, c := range counts {
		out = append(out, v1.ServiceProgress{Service: n, State: "removing", Old: c, Message: count(c, "task") + " still to stop"})
	}
	slices.SortFunc(out, func(a, b v1.ServiceProgress) int { return strings.Compare(string(a.Service), string(b.Service)) })
	return out
}

func (s *Server) events(_ context.Context, in *AppQuery) (func(context.Context, *events) error, error) {
	return func(ctx context.Context, e *events) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		ping := time.NewTicker(pingEvery)
		defer ping.Stop()
		watch := s.Store.Watch(ctx, store.Root, s.Mirror.Rev())
		for {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-ping.C:
				if err := e.ping(); err != nil {
					return err
				}
			case b, ok := <-watch:
				if !ok || b.Err != nil {
					return cluster.Transientf("the store's watch ended: ask again")
				}
				for _, ev := range b.Events {
					out, shown := event(ev, s.Now())
					if !shown || (in.App != "" && eventApp(out) != in.App) {
						continue
					}
					if err := e.send("change", out); err != nil {
						return err
					}
				}
				if err := e.flush(); err != nil {
					return err
				}
			}
		}
	}, nil
}

// event makes what people may see of a store's event: no configs, secrets,
// sealed payloads, certificates or credentials.
func event(ev store.Event, now time.Time) (v1.Event, bool) {
	rest, ok := strings.CutPrefix(ev.Key, store.Root)
	if !ok {
		return v1.Event{}, false
	}
	p := strings.Split(rest, "/")
	last := p[len(p)-1]
	out := v1.Event{Rev: ev.Rev, At: now.UTC(), Verb: "set", Data: json.RawMessage(ev.Value)}
	if ev.Deleted {
		out.Verb, out.Data = "removed", nil
	}
	switch kind := p[0]; {
	case kind == "apps" && len(p) == 3 && p[2] == "app":
		out.Object, out.Name = "app", p[1]
	case kind == "apps" && len(p) == 4 && (p[2] == "services" || p[2] == "scale"):
		out.Object, out.Name = strings.TrimSuffix(p[2], "s"), p[1]+"/"+last
	case kind == "apps" && len(p) == 4 && p[2] == "releases":
		out.Object, out.Name, out.Data = "release", p[1]+"/"+strings.TrimLeft(last, "0"), nil
	case (kind == "rollouts" || kind == "endpoints") && len(p) == 3:
		out.Object, out.Name = kind, p[1]+"/"+last
		if kind == "rollouts" {
			out.Object = "rollout"
		}
	case kind == "hooks" && len(p) == 2:
		out.Object, out.Name = "change", p[1]+"/hooks"
	case kind == "tasks" && len(p) == 3:
		out.Object, out.Name = "task", last
	case kind == "status" && len(p) == 3:
		out.Object, out.Name = "status", last
	case kind == "decisions" && len(p) >= 3:
		out.Object, out.Name = "decision", strings.Join(p[2:], "/")
	case kind == "nodes" && len(p) == 3:
		out.Object, out.Name = "node", p[1]
	case kind == "alive" && len(p) == 2:
		out.Object, out.Name, out.Data = "node", p[1], nil
		out.Text = map[string]string{"set": "answers", "removed": "does not answer"}[out.Verb]
	default:
		return v1.Event{}, false
	}
	return out, true
}

// eventApp is the app that an event is about.
func eventApp(e v1.Event) string {
	if i := strings.IndexAny(e.Name, "/_"); i > 0 {
		return e.Name[:i]
	}
	if e.Object == "app" {
		return e.Name
	}
	return ""
}
