package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fairlead/fairlead/api/plan"
	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

type noInput struct{}

// The types below are parameters that several operations share. They are
// exported because only exported embedded fields are filled in.

// AppQuery limits an answer to one app.
type AppQuery struct {
	App string `query:"app" maxLength:"40" doc:"only this app"`
}

// AppPath names an app.
type AppPath struct {
	App string `path:"app" maxLength:"40"`
}

// ServicePath names a service.
type ServicePath struct {
	AppPath
	Service string `path:"service" maxLength:"63"`
}

func (p AppPath) app() cluster.AppName { return cluster.AppName(p.App) }

func (p ServicePath) id() cluster.ServiceID {
	return cluster.ServiceID{App: p.app(), Name: cluster.ServiceName(p.Service)}
}

func (s *Server) registerState(api huma.API) {
	handle(api, op(http.MethodGet, "/apps", "list-apps", "apps", "List apps"), s.listApps)
	handle(api, op(http.MethodGet, "/apps/{app}", "get-app", "apps", "How an app is"), s.getApp)
	handle(api, op(http.MethodGet, "/services", "list-services", "apps", "List services"), s.listServices)
	handle(api, op(http.MethodGet, "/apps/{app}/services/{service}", "get-service", "apps", "All that is known about a service"), s.getService)
	handle(api, op(http.MethodGet, "/tasks", "list-tasks", "apps", "List tasks"), s.listTasks)
	handle(api, op(http.MethodGet, "/tasks/{task}", "get-task", "apps", "All that is known about a task"), s.getTask)
	handle(api, op(http.MethodGet, "/apps/{app}/explain", "explain", "apps", "Why services and tasks are as they are"), s.explain)
	handle(api, op(http.MethodGet, "/exposure", "list-exposure", "apps", "What is reachable from outside, and which line made it so"), s.exposure)
	handle(api, op(http.MethodGet, "/apps/{app}/releases", "list-releases", "apps", "An app's history, newest first"), s.history)
	handle(api, op(http.MethodGet, "/apps/{app}/releases/{number}", "get-release", "apps", "One release"), s.getRelease)
}

func noApp(app cluster.AppName) error {
	return cluster.NotFoundf("there is no app %q; `fairlead ls` lists those there are", app)
}

func (s *Server) listApps(_ context.Context, _ *noInput) ([]v1.AppSummary, error) {
	m := s.readFollowing("")
	out := []v1.AppSummary{}
	for _, a := range m.appNames() {
		out = append(out, m.app(a))
	}
	return out, nil
}

// app sums an app up.
func (m *model) app(name cluster.AppName) v1.AppSummary {
	out := v1.AppSummary{Name: name, Release: m.apps[name].Release, Created: m.releases[name].Created}
	var going, failed bool
	for _, svc := range m.servicesOf(name) {
		sum := m.service(svc)
		out.Services++
		out.Wanted += sum.Wanted
		out.Ready += min(sum.Ready, sum.Wanted)
		out.URLs = append(out.URLs, sum.URLs...)
		switch cluster.RolloutState(sum.State) {
		case cluster.RolloutComplete:
		case cluster.RolloutRolledBack, cluster.RolloutPaused, cluster.RolloutFailed:
			failed = true
		case cluster.RolloutRunning, cluster.RolloutRollingBack:
			going = true
		default:
			going = true // pending
		}
	}
	if p := m.releases[name].Package; p != nil {
		out.Chart = p.String()
	}
	if d, follows := m.following[name]; follows {
		out.Delivery = &d
	}
	app, exists := m.apps[name]
	ch, pending := m.changes[name]
	rec, stage := m.records[name], ch.StageOf(m.records[name])
	hooks := pending && ch.Action != cluster.HookTest && rec.Change == ch.ID
	switch {
	case pending && ch.Action == cluster.HookDelete && stage != cluster.StageDone:
		out.State = "removing"
	case pending && ch.Action != cluster.HookTest && stage != cluster.StageDone:
		out.State = "deploying"
	case app.Uninstalled && app.Release == 0 && exists && out.Services == 0:
		out.State = "failed" // it never got so far
	case hooks && rec.Failed && rec.Action.Makes() && rec.Release == app.Release:
		out.State = "failed"
	case app.Uninstalled && out.Services == 0:
		out.State = "uninstalled"
	case !exists && out.Services == 0:
		out.State = "removing"
	case failed, made(app, rec).Failed:
		out.State = "failed"
	case going:
		out.State = "deploying"
	case out.Ready < out.Wanted:
		out.State = "degraded"
	default:
		out.State = "ready"
	}
	return out
}

func (s *Server) getApp(_ context.Context, in *AppPath) (v1.AppDetail, error) {
	m := s.readFollowing(in.app())
	if !slices.Contains(m.appNames(), in.app()) {
		if d, follows := m.following[in.app()]; follows {
			return v1.AppDetail{}, cluster.NotFoundf("there is no app %q yet; delivery %s", in.app(), advised(d))
		}
		return v1.AppDetail{}, noApp(in.app())
	}
	svcs := m.servicesOf(in.app())
	out := v1.AppDetail{
		AppSummary: m.app(in.app()), Note: m.releases[in.app()].Note, By: m.releases[in.app()].By, Next: max(m.last, m.apps[in.app()].Release) + 1,
		Each: []v1.ServiceSummary{}, Exposed: plan.Exposures(svcs, s.Entry),
	}
	for _, svc := range svcs {
		sum := m.service(svc)
		out.Each = append(out.Each, sum)
		out.Problems = append(out.Problems, m.problems(svc, sum)...)
	}
	if ch, ok := m.changes[in.app()]; ok {
		p := hookProgress(ch, m.records[in.app()])
		out.Change = &p
		if says := m.changeSays(p, out.Release); says != "" {
			out.Problems = append([]string{says}, out.Problems...)
		}
		app := m.apps[in.app()]
		own := p.Action.Makes() && p.Release == out.Release // the change that made it says so
		if x := made(app, m.records[in.app()]); x.Failed && !own && !app.Uninstalled {
			out.Problems = append([]string{fmt.Sprintf("release %d failed: %s", x.Release, x.Message)}, out.Problems...)
		}
	}
	return out, nil
}

// changeSays is a line about a change that is on its way, or has failed.
func (m *model) changeSays(p v1.HookProgress, current int) string {
	what := fmt.Sprintf("release %d", p.Release)
	switch p.Action {
	case cluster.HookDelete:
		what = "its removal"
	case cluster.HookTest:
		what = "its tests"
	case cluster.HookInstall, cluster.HookUpgrade, cluster.HookRollback:
	}
	switch {
	case p.Failed && p.Action.Makes() && p.Release > current && current > 0:
		return fmt.Sprintf("%s failed: %s; release %d is as it was", what, p.Message, current)
	case p.Failed:
		return fmt.Sprintf("%s failed: %s", what, p.Message)
	case p.Stage == cluster.StageBefore || p.Stage == cluster.StageAfter:
		for _, r := range p.Runs {
			if r.State == cluster.RunRunning {
				return fmt.Sprintf("%s: %s hook %s runs", what, r.Event, r.Hook)
			}
		}
	case p.Stage == cluster.StageUndo:
		return fmt.Sprintf("%s failed: %s; it is taken back", what, p.Message)
	case p.Stage == cluster.StageApply, p.Stage == cluster.StageSettle, p.Stage == cluster.StageFinish, p.Stage == cluster.StageDone:
	}
	return ""
}

// problems says what stands between a service and being as it should.
func (m *model) problems(svc cluster.Service, sum v1.ServiceSummary) []string {
	var out []string
	switch cluster.RolloutState(sum.State) {
	case cluster.RolloutRolledBack, cluster.RolloutPaused, cluster.RolloutFailed, cluster.RolloutRollingBack:
		out = append(out, fmt.Sprintf("%s: rollout %s: %s", svc.ServiceID, strings.ReplaceAll(sum.State, "_", " "), sum.Message))
	case cluster.RolloutRunning, cluster.RolloutComplete:
	}
	for _, d := range m.decisions[svc.String()] {
		if d.Loop == "proxyconf" || d.Loop == "registry" { // what they note is always in the way
			out = append(out, fmt.Sprintf("%s: %s: %s", svc.ServiceID, d.Verdict, sentence(d)))
		}
	}
	if sum.Ready >= sum.Wanted {
		return out
	}
	seen := map[string]bool{}
	for _, t := range m.ofService[svc.ServiceID] {
		ts := m.task(t)
		if ts.Ready || ts.Reason == "" || t.Desire != cluster.DesireRun || seen[ts.Reason] {
			continue
		}
		seen[ts.Reason] = true
		out = append(out, standing(ts))
	}
	return out
}

func (s *Server) listServices(_ context.Context, in *AppQuery) ([]v1.ServiceSummary, error) {
	m := s.read(cluster.AppName(in.App))
	out := []v1.ServiceSummary{}
	for _, svc := range m.services {
		out = append(out, m.service(svc))
	}
	return out, nil
}

func noService(m *model, id cluster.ServiceID) error {
	if len(m.servicesOf(id.App)) == 0 {
		return noApp(id.App)
	}
	var names []string
	for _, s := range m.servicesOf(id.App) {
		names = append(names, string(s.Name))
	}
	return cluster.NotFoundf("app %s has no service %q; it has %s", id.App, id.Name, strings.Join(names, ", "))
}

func (s *Server) getService(_ context.Context, in *ServicePath) (v1.ServiceDetail, error) {
	m := s.read(in.app())
	svc, ok := m.byID[in.id()]
	if !ok {
		return v1.ServiceDetail{}, noService(m, in.id())
	}
	out := v1.ServiceDetail{ServiceSummary: m.service(svc), Spec: svc.Spec, Tasks: m.tasksOf(svc.ServiceID), Decisions: m.about(svc.ServiceID, 0)}
	if sc, ok := m.scales[svc.ServiceID]; ok {
		out.Scale = &sc
	}
	if r, ok := m.rollouts[svc.ServiceID]; ok {
		out.Rollout = &r
	}
	if e, ok := m.endpoints[svc.ServiceID]; ok {
		out.Endpoint, out.EndpointRev = &e, e.Rev
	}
	return out, nil
}

// about are the decisions about a service and its slots, or about one slot of it.
func (m *model) about(id cluster.ServiceID, slot int) []cluster.Decision {
	out := []cluster.Decision{}
	for object, ds := range m.decisions {
		of := object == id.String() || strings.HasPrefix(object, id.String()+".") || strings.HasPrefix(object, fmt.Sprintf("%s_%s.", id.App, id.Name))
		if slot > 0 {
			one := fmt.Sprintf("%s.%d", id, slot)
			of = object == id.String() || object == one || strings.HasPrefix(object, fmt.Sprintf("%s_%s.%d.", id.App, id.Name, slot))
		}
		if of {
			out = append(out, ds...)
		}
	}
	slices.SortFunc(out, func(a, b cluster.Decision) int {
		if c := b.At.Compare(a.At); c != 0 {
			return c
		}
		return strings.Compare(a.Loop+a.Object, b.Loop+b.Object)
	})
	return out
}

type taskQuery struct {
	AppQuery
	Ended bool `query:"ended" doc:"also tasks whose container is gone"`
}

func (s *Server) listTasks(_ context.Context, in *taskQuery) ([]v1.TaskStatus, error) {
	m := s.read(cluster.AppName(in.App))
	out := []v1.TaskStatus{}
	for _, t := range m.tasks {
		if ts := m.task(t); in.Ended || !ts.Ended() {
			out = append(out, ts)
		}
	}
	return out, nil
}

type taskPath struct {
	Task string `path:"task" maxLength:"200"`
}

func (s *Server) getTask(_ context.Context, in *taskPath) (v1.TaskDetail, error) {
	app, _, _ := strings.Cut(in.Task, "_")
	m := s.read(cluster.AppName(app))
	for _, t := range m.tasks {
		if string(t.ID) != in.Task {
			continue
		}
		out := v1.TaskDetail{TaskStatus: m.task(t), Spec: t.Spec, Decisions: m.about(t.ServiceID, t.Slot)}
		if p, ok := m.placements[t.ID]; ok {
			out.Placement = &p
		}
		if st, ok := m.statuses[t.ID]; ok {
			out.Status = &st
		}
		return out, nil
	}
	return v1.TaskDetail{}, cluster.NotFoundf("there is no task %q; `fairlead ps -o wide` lists them", in.Task)
}

// AddressQuery narrows an answer to a service or one of its slots.
type AddressQuery struct {
	Service string `query:"service" maxLength:"63"`
	Slot    int    `query:"slot" minimum:"0"`
}

type explainInput struct {
	AppPath
	AddressQuery
}

func (s *Server) explain(_ context.Context, in *explainInput) ([]v1.Explanation, error) {
	m := s.read(in.app())
	id := cluster.ServiceID{App: in.app(), Name: cluster.ServiceName(in.Service)}
	if _, ok := m.byID[id]; in.Service != "" && !ok {
		return nil, noService(m, id)
	}
	there := func(t cluster.Task) bool { return t.Slot == in.Slot }
	if in.Slot > 0 && in.Service != "" && !slices.ContainsFunc(m.ofService[id], there) {
		return nil, cluster.NotFoundf("there is no task %s.%d; `fairlead ps %s` lists those there are", id, in.Slot, in.App)
	}
	out := []v1.Explanation{}
	for _, svc := range m.servicesOf(in.app()) {
		if in.Service == "" || svc.Name == id.Name {
			out = append(out, m.explanation(svc, in.Slot))
		}
	}
	if len(out) == 0 {
		return nil, noApp(in.app())
	}
	return out, nil
}

func (m *model) explanation(svc cluster.Service, slot int) v1.Explanation {
	sum := m.service(svc)
	out := v1.Explanation{
		Address:   cluster.Address{App: svc.App, Service: svc.Name, Slot: slot}.String(),
		Decisions: m.about(svc.ServiceID, slot), Tasks: []v1.TaskStatus{},
	}
	for _, ts := range m.tasksOf(svc.ServiceID) {
		if slot == 0 || ts.Slot == slot {
			out.Tasks = append(out.Tasks, ts)
		}
	}
	if r, ok := m.rollouts[svc.ServiceID]; ok {
		out.Rollout = &r
	}
	sc, scaled := m.scales[svc.ServiceID]
	if scaled {
		out.Scale = &sc
	}
	whole := "release %d is %s; %s"
	if slot > 0 {
		out.Summary, whole = m.ofSlot(svc, slot), svc.String()+" as a whole: "+whole
	} else if out.Summary = m.problems(svc, sum); scaled {
		out.Summary = append(out.Summary, fmt.Sprintf("%s, decided by %s: %s", count(sc.Replicas, "replica"), sc.Owner, sc.Reason))
	}
	state := strings.ReplaceAll(sum.State, "_", " ")
	how := fmt.Sprintf("%d of %d ready", sum.Ready, sum.Wanted)
	switch {
	case sum.Complete > 0 && sum.Complete == sum.Wanted:
		how = fmt.Sprintf("%d of %d complete: ended well, and not started again", sum.Complete, sum.Wanted)
	case sum.Complete > 0:
		how += fmt.Sprintf(", of which %d complete: ended well, and not started again", sum.Complete)
	}
	if r := out.Rollout; r != nil && r.Message != "" && !slices.ContainsFunc(out.Summary, func(s string) bool { return strings.Contains(s, r.Message) }) {
		how += ": " + r.Message
	}
	out.Summary = append(out.Summary, fmt.Sprintf(whole, svc.Release, state, how))
	return out
}

func (s *Server) exposure(_ context.Context, in *AppQuery) ([]v1.Exposed, error) {
	m := s.read(cluster.AppName(in.App))
	out := plan.Exposures(m.reachable(), s.Entry)
	gateways := m.liveGateways()
	for i := range out {
		if out[i].Where == "gateway" {
			out[i].Gateways = gateways
		}
	}
	return out, nil
}

// reachable are the services, with the routes and ports that tasks of earlier versions
// answer on.
func (m *model) reachable() []cluster.Service {
	out := slices.Clone(m.services)
	for i, svc := range out {
		if len(svc.Left)+len(svc.LeftPorts) > 0 && len(m.endpoints[svc.ServiceID].Earlier(svc.Version).Tasks) > 0 {
			out[i].Spec.Routes = slices.Concat(svc.Spec.Routes, svc.Left)
			out[i].Spec.Ports = slices.Concat(svc.Spec.Ports, svc.LeftPorts)
		}
	}
	return out
}

// liveGateways are the gateways whose nodes are alive, with their addresses.
func (m *model) liveGateways() (out []string) {
	for _, n := range m.sortedNodes() {
		if _, acks := m.gateways[n.ID]; n.Alive && (acks || n.HasRole("gateway")) {
			out = append(out, fmt.Sprintf("%s (%s)", n.ID, n.Info.Address))
		}
	}
	return out
}

func (s *Server) history(_ context.Context, in *AppPath) ([]v1.ReleaseSummary, error) {
	out := []v1.ReleaseSummary{}
	s.Mirror.Read(func(v store.View) {
		app, _, _ := store.One[cluster.App](v, store.AppKey(in.app()))
		for _, e := range store.All[cluster.Release](v, store.AppPrefix(in.app())+"releases/", nil) {
			out = append(out, releaseSummary(v, e.V, app.V.Release))
		}
	})
	slices.Reverse(out)
	if len(out) == 0 {
		return nil, noApp(in.app())
	}
	return out, nil
}

func releaseSummary(v store.View, r cluster.Release, current int) v1.ReleaseSummary {
	out := v1.ReleaseSummary{
		Number: r.Number, Current: r.Number == current, Created: r.Created, By: r.By, Note: r.Note, Origin: r.Origin, Services: len(r.Services),
		Tries: r.Tries, First: r.First,
	}
	if r.Package != nil {
		out.Chart = r.Package.String()
	}
	// An app that was removed and made again starts at 1: an older outcome is not its own.
	if o, ok, err := store.One[cluster.ReleaseOutcome](v, store.OutcomeKey(r.App, r.Number)); ok && err == nil && (o.V.Ended.IsZero() || !o.V.Ended.Before(r.Created)) {
		out.State, out.Message, out.Ended = o.V.State, o.V.Message, o.V.Ended
	}
	return out
}

type releasePath struct {
	AppPath
	Number int `path:"number" minimum:"1"`
}

func (s *Server) getRelease(_ context.Context, in *releasePath) (v1.ReleaseDetail, error) {
	var out v1.ReleaseDetail
	var found bool
	s.Mirror.Read(func(v store.View) {
		app, _, _ := store.One[cluster.App](v, store.AppKey(in.app()))
		r, ok, err := store.One[cluster.Release](v, store.ReleaseKey(in.app(), in.Number))
		if found = ok && err == nil; found {
			out = v1.ReleaseDetail{ReleaseSummary: releaseSummary(v, r.V, app.V.Release), App: in.app(), Source: documentOf(v, r.V), Rendered: r.V.Services}
			for n := r.V.Number - 1; n > 0; n-- {
				earlier, there, _ := store.One[cluster.Release](v, store.ReleaseKey(in.app(), n))
				if !there || !sameSource(earlier.V, r.V) {
					break
				}
				out.SourceOf = n
			}
		}
	})
	if !found {
		return out, cluster.NotFoundf("app %s has no release %d; `fairlead history %s` lists those it has", in.App, in.Number, in.App)
	}
	return out, nil
}
