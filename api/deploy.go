package api

import (
	"bytes"
	"context"
	"maps"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fairlead/fairlead/api/plan"
	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/secrets"
	"github.com/fairlead/fairlead/store"
)

func (s *Server) registerDeploy(api huma.API) {
	big := func(o huma.Operation) huma.Operation { o.MaxBodyBytes = v1.MaxBundle; return o }
	handle(api, big(op(http.MethodPost, "/apps/{app}/plan", "plan", "apps", "What a deploy would do; changes nothing")), s.planApp)
	handle(api, big(op(http.MethodPost, "/apps/{app}/deploy", "deploy", "apps", "Make an app as a bundle says")), s.deploy)
	handle(api, op(http.MethodPost, "/apps/{app}/update", "update", "apps", "Change images of services"), s.update)
	handle(api, op(http.MethodPost, "/apps/{app}/restart", "restart", "apps", "Replace tasks of services"), s.restart)
	handle(api, op(http.MethodPost, "/apps/{app}/rollback", "rollback", "apps", "Go back to a release, as a new one"), s.rollback)
	handle(api, op(http.MethodPost, "/apps/{app}/scale", "scale", "apps", "Set counts of services"), s.scale)
	handle(api, op(http.MethodDelete, "/apps/{app}", "remove-app", "apps", "Remove an app; volumes stay"), s.removeApp)
}

// current is the state of an app for a decision, with the revisions to compare.
type current struct {
	plan.State
	app         cluster.AppName
	appRev      int64
	claimsRev   int64
	claims      int
	serviceRevs map[cluster.ServiceName]int64
	scaleRevs   map[cluster.ServiceName]int64
	secretRevs  map[string]int64
	users       []cluster.UserList

	change    *cluster.PendingChange // nil: there was none
	changeRev int64
	record    cluster.ChangeRecord
	recordRev int64
}

// current reads the state that a change of an app is decided on.
func (s *Server) current(app cluster.AppName) (current, error) {
	c := current{
		app: app,
		State: plan.State{
			Services: map[cluster.ServiceName]cluster.Service{}, Scales: map[cluster.ServiceName]cluster.Scale{},
			Rollouts: map[cluster.ServiceName]cluster.Rollout{}, Secrets: map[string]cluster.SecretRecord{},
			OtherScales: map[cluster.ServiceID]cluster.Scale{}, Configs: map[string]bool{}, Users: map[string]bool{}, Same: map[string]bool{}, Unreadable: map[string]string{}, Entry: s.Entry,
		},
		serviceRevs: map[cluster.ServiceName]int64{}, scaleRevs: map[cluster.ServiceName]int64{}, secretRevs: map[string]int64{},
	}
	if err := cluster.ValidAppName(app); err != nil {
		return c, err
	}
	var err error
	s.Mirror.Read(func(v store.View) { err = c.fill(v) })
	return c, err
}

func (c *current) fill(v store.View) error {
	a, ok, err := store.One[cluster.App](v, store.AppKey(c.app))
	if err != nil {
		return err
	}
	if ok {
		c.App, c.appRev = &a.V, a.Rev
		c.App.Created = cluster.StoreRev(a.Created)
	}
	n, _, err := store.One[int](v, store.ClaimsKey)
	if err != nil {
		return err
	}
	c.claims, c.claimsRev = n.V, n.Rev
	part := func(want string) func(string) bool {
		return func(k string) bool { return segment(k, 2) == want }
	}
	for _, e := range store.All[cluster.Service](v, store.PrefixApps, part("services")) {
		svc := e.V
		svc.Rev, svc.Created = cluster.StoreRev(e.Rev), cluster.StoreRev(e.Created)
		if svc.App != c.app {
			c.Others = append(c.Others, svc)
			continue
		}
		c.Services[svc.Name], c.serviceRevs[svc.Name] = svc, e.Rev
	}
	for _, e := range store.All[cluster.Scale](v, store.PrefixApps, part("scale")) {
		if e.V.App != c.app {
			c.OtherScales[e.V.ServiceID] = e.V
		}
	}
	own := store.AppPrefix(c.app)
	for _, e := range store.All[cluster.Scale](v, own+"scale/", nil) {
		c.Scales[e.V.Name], c.scaleRevs[e.V.Name] = e.V, e.Rev
	}
	for _, e := range store.All[cluster.SecretRecord](v, own+"secrets/", nil) {
		c.Secrets[e.V.Name], c.secretRevs[e.V.Name] = e.V, e.Rev
	}
	for _, e := range store.All[cluster.UserList](v, store.UserListKey(c.app, ""), nil) {
		c.users, c.Users[e.V.ID] = append(c.users, e.V), true
	}
	for _, k := range v.Keys(own + "config/") {
		c.Configs[segment(k, 3)] = true
	}
	for _, e := range store.All[cluster.Rollout](v, store.PrefixRollouts+string(c.app)+"/", nil) {
		c.Rollouts[e.V.Name] = e.V
	}
	c.LastRelease = store.LastRelease(v, c.app)
	if ok {
		r, _, err := store.One[cluster.Release](v, store.ReleaseKey(c.app, c.App.Release))
		if err != nil {
			return err
		}
		c.Package, c.Hooks = r.V.Package, r.V.Hooks
	}
	if err := c.pending(v); err != nil {
		return err
	}
	c.Nodes = store.Nodes(v)
	return nil
}

// specs are the specs of the app's services as they are.
func (c *current) specs() map[cluster.ServiceName]cluster.ServiceSpec {
	out := map[cluster.ServiceName]cluster.ServiceSpec{}
	for n, svc := range c.Services {
		out[n] = svc.Spec
	}
	return out
}

// after are the app's services and counts once r is written.
func (c *current) after(r plan.Result) (services []cluster.Service, scales []cluster.Scale) {
	next, counts := maps.Clone(c.Services), maps.Clone(c.Scales)
	for _, n := range r.Removed {
		delete(next, n)
	}
	for _, svc := range r.Services {
		svc.Created, svc.Rev = next[svc.Name].Created, next[svc.Name].Rev
		next[svc.Name] = svc
	}
	for _, n := range r.Unscaled {
		delete(counts, n)
	}
	for _, sc := range r.Scales {
		counts[sc.Name] = sc
	}
	return slices.Collect(maps.Values(next)), slices.Collect(maps.Values(counts))
}

// release is one release of an app.
func (s *Server) release(app cluster.AppName, n int) (cluster.Release, bool) {
	var out store.Value[cluster.Release]
	var ok bool
	s.Mirror.Read(func(v store.View) { out, ok, _ = store.One[cluster.Release](v, store.ReleaseKey(app, n)) })
	return out.V, ok
}

// again is the input that makes the current state again, to be changed; it comes from where
// that came from.
func (s *Server) again(c current, note string) (plan.Input, error) {
	if c.App == nil || len(c.Services) == 0 {
		return plan.Input{}, noApp(c.app)
	}
	specs := c.specs()
	in := plan.Input{App: c.app, Exact: true, Package: c.Package, Bundle: v1.Bundle{Services: specs, Hooks: c.Hooks, Secrets: plan.References(specs, c.Hooks), Note: note}}
	if r, ok := s.release(c.app, c.App.Release); ok {
		in.Bundle.Rendered, in.Origin, in.Edits = r.Source, r.Origin, r.Edits
	}
	return in, nil
}

// plan decides, after looking which secret values are the ones already there.
func (s *Server) plan(ctx context.Context, c current, in plan.Input) (plan.Result, error) {
	for name, d := range in.Bundle.Secrets {
		rec, known := c.Secrets[name]
		if d.Vault != "" && d.Vault != rec.Ref {
			if err := s.readable(ctx, cluster.SecretRef{App: c.app, Name: name}, d.Vault); err != nil {
				if cluster.KindOf(err) == cluster.KindTransient {
					return plan.Result{}, err
				}
				c.Unreadable[name] = err.Error()
			}
			continue
		}
		if len(d.Value) == 0 || !known || s.Resolver == nil {
			continue
		}
		// A value that cannot be read counts as another one.
		if old, err := s.Resolver.Resolve(ctx, rec); err == nil && bytes.Equal(old.Reveal(), d.Value) {
			c.Same[name] = true
		}
	}
	r, err := plan.Make(c.State, in)
	if err == nil && s.Preview != nil {
		services, scales := c.after(r)
		r.Plan.Waits = append(r.Plan.Waits, s.Preview(c.app, services, scales)...)
	}
	return r, err
}

type bundleInput struct {
	AppPath
	Body v1.Bundle
}

func (s *Server) planApp(ctx context.Context, in *bundleInput) (v1.Plan, error) {
	p, err := s.planned(ctx, in.app(), func(c current) (plan.Input, error) {
		return plan.Input{App: in.app(), Bundle: in.Body, Action: c.action(in.Body)}, nil
	})
	if err == nil && !p.Empty() {
		p.Warnings = append(p.Warnings, s.undone(in.app())...)
	}
	return p, err
}

// planned is what a deploy would do.
func (s *Server) planned(ctx context.Context, app cluster.AppName, meant func(current) (plan.Input, error)) (v1.Plan, error) {
	c, err := s.current(app)
	if err != nil {
		return v1.Plan{}, err
	}
	input, err := meant(c)
	if err != nil {
		return v1.Plan{}, err
	}
	if input.Bundle, _, err = s.hideUsers(ctx, c, input.Bundle); err != nil {
		return v1.Plan{}, err
	}
	if input.Bundle.Package != nil {
		if input.Package, _, err = s.packageOf(c, &input.Bundle); err != nil {
			return v1.Plan{}, err
		}
	}
	r, err := s.plan(ctx, c, input)
	if err == nil {
		// What is too large for the store is refused here as a deploy would.
		_, err = releaseStep(s.next(ctx, c, r, input))
	}
	return r.Plan, err
}

func (s *Server) deploy(ctx context.Context, in *bundleInput) (v1.DeployResult, error) {
	return s.byHand(s.change(ctx, in.app(), func(c current) (plan.Input, error) {
		return plan.Input{App: in.app(), Bundle: in.Body, Action: c.action(in.Body)}, nil
	}))
}

// change plans what build makes of the current state, and writes it, if then the
// conditions hold.
func (s *Server) change(ctx context.Context, app cluster.AppName, build func(current) (plan.Input, error), conds ...store.Cond) (v1.DeployResult, error) {
	var out v1.DeployResult
	err := s.decide(ctx, func(ctx context.Context) error {
		c, err := s.current(app)
		if err != nil {
			return err
		}
		in, err := build(c)
		if err != nil {
			return err
		}
		if err := c.busy(in); err != nil {
			return err
		}
		var users []cluster.UserList
		if in.Bundle, users, err = s.hideUsers(ctx, c, in.Bundle); err != nil {
			return err
		}
		var texts []step
		if in.Bundle.Package != nil {
			if in.Package, texts, err = s.packageOf(c, &in.Bundle); err != nil {
				return err
			}
		}
		r, err := s.plan(ctx, c, in)
		if err != nil {
			return err
		}
		out = v1.DeployResult{App: app, Release: r.Plan.Release, Plan: r.Plan}
		if !r.Changed() {
			return s.callOff(ctx, c, in, &out)
		}
		for _, u := range users { // before what refers to them
			st, err := put(store.UserListKey(app, u.ID), u, 0)
			if err != nil {
				return err
			}
			texts = append(texts, st)
		}
		if len(conds) > 0 { // with what is written first: nothing is left half written for them
			texts = slices.Insert(texts, 0, step{conds: conds})
		}
		guard, steps, err := s.write(ctx, c, r, in, texts)
		if err != nil {
			return err
		}
		if err := s.commit(ctx, guard, steps); err != nil {
			return err
		}
		if !r.Plan.Empty() {
			out.Release, out.Changed = r.Plan.Next, true
			s.Log.Info("made a release", "app", app, "release", out.Release, "by", who(ctx), "changes", len(r.Plan.Changes))
		}
		return nil
	})
	return out, err
}

const maxRelease = store.MaxBytes - 64<<10

// next is the release that a plan makes.
func (s *Server) next(ctx context.Context, c current, r plan.Result, in plan.Input) cluster.Release {
	note := in.Bundle.Note
	if note == "" {
		note = "deploy"
	}
	return s.counted(c, cluster.Release{
		App: c.app, Number: r.Plan.Next, Created: s.Now().UTC(), By: who(ctx), Note: note,
		Source: in.Bundle.Rendered, Package: in.Package, Origin: in.Origin, Services: r.Rendered, Hooks: r.Hooks, Edits: in.Edits,
	})
}

// releaseStep writes the release that a plan makes.
func releaseStep(next cluster.Release) (step, error) {
	st, err := put(store.ReleaseKey(next.App, next.Number), next, 0)
	if err != nil {
		return st, err
	}
	if n := len(st.ops[0].Value); n > maxRelease {
		return st, cluster.Invalidf("the app's description is %d bytes as a release: at most %d; move large values into configs", n, maxRelease)
	}
	return st, nil
}

// steps orders the writes so that each leaves a state that can be gone on from:
// what services refer to, the release, services, removals, and the app last.
func (s *Server) steps(ctx context.Context, c current, r plan.Result, in plan.Input) ([]step, error) {
	var out []step
	var failure error
	add := func(st step, err error) {
		if failure == nil {
			failure = err
		}
		out = append(out, st)
	}
	if r.Claims {
		add(put(store.ClaimsKey, c.claims+1, c.claimsRev))
	}
	files, err := s.files(ctx, c, r)
	if err != nil {
		return nil, err
	}
	out = append(out, files...)
	var next cluster.Release
	switch {
	case in.Number > 0: // it is written
		next, _ = s.release(c.app, in.Number)
	case !r.Plan.Empty():
		next = s.next(ctx, c, r, in)
		add(releaseStep(next))
	}
	scales := map[cluster.ServiceName]cluster.Scale{}
	for _, sc := range r.Scales {
		scales[sc.Name] = sc
	}
	for _, svc := range r.Services {
		st, err := put(store.ServiceKey(svc.ServiceID), svc, c.serviceRevs[svc.Name])
		if sc, ok := scales[svc.Name]; ok && err == nil {
			var more step
			more, err = put(store.ScaleKey(sc.ServiceID), sc, c.scaleRevs[sc.Name])
			st.conds, st.ops = append(st.conds, more.conds...), append(st.ops, more.ops...)
			delete(scales, svc.Name)
		}
		add(st, err)
	}
	for _, n := range slices.Sorted(maps.Keys(scales)) {
		add(put(store.ScaleKey(scales[n].ServiceID), scales[n], c.scaleRevs[n]))
	}
	for _, n := range r.Removed {
		out = append(out, remove(store.ServiceKey(cluster.ServiceID{App: c.app, Name: n}), c.serviceRevs[n]))
	}
	for _, n := range r.Unscaled {
		out = append(out, remove(store.ScaleKey(cluster.ServiceID{App: c.app, Name: n}), c.scaleRevs[n]))
	}
	if c.change != nil && in.Number == 0 && c.stage() != cluster.StageDone {
		out = append(out, remove(store.ChangeKey(c.app), c.changeRev)) // this takes its place
	}
	if !r.Plan.Empty() || in.Number > 0 {
		app := cluster.App{Name: c.app, Domain: s.Domain}
		if c.App != nil {
			app = *c.App
		}
		app.Release, app.Uninstalled = r.Plan.Next, false
		add(put(store.AppKey(c.app), app, c.appRev))
		out = append(out, s.prune(c, r.Plan.Next, r, in.Package)...)
		out = append(out, s.superseded(c, r, next)...)
	}
	return out, failure
}

// files are the configs and secrets that a plan makes: nothing refers to them yet.
func (s *Server) files(ctx context.Context, c current, r plan.Result) ([]step, error) {
	var out []step
	for _, conf := range r.Configs {
		st, err := put(store.ConfigKey(c.app, conf.Name, conf.Hash), conf, 0)
		if err != nil {
			return nil, err
		}
		out = append(out, st)
	}
	for _, sec := range r.Secrets {
		st, err := s.secretStep(ctx, c, r.Plan.Next, sec)
		if err != nil {
			return nil, err
		}
		out = append(out, st)
	}
	return out, nil
}

// secretStep writes a value that a release brings, or the one that it had at an earlier version.
func (s *Server) secretStep(ctx context.Context, c current, release int, sec plan.NewSecret) (step, error) {
	old := c.Secrets[sec.Name]
	if then, kept := old.At(sec.Of); sec.Of > 0 && kept {
		if sec.Vault = then.Ref; sec.Vault == "" {
			var err error
			if sec.Value, err = s.Keeper.Open(then.Sealed, secrets.RecordContext(then.SecretRef, then.Version)); err != nil {
				return step{}, err
			}
		}
	}
	rec, err := s.seal(ctx, c.app, sec)
	if err != nil {
		return step{}, err
	}
	rec = rec.After(old)
	if rec.Of = sec.Of; sec.Generate == 0 {
		rec.Release = release
	}
	return put(store.SecretKey(rec.SecretRef), rec, c.secretRevs[sec.Name])
}

// seal makes the record of a new secret value.
func (s *Server) seal(ctx context.Context, app cluster.AppName, n plan.NewSecret) (cluster.SecretRecord, error) {
	rec := cluster.SecretRecord{
		SecretRef: cluster.SecretRef{App: app, Name: n.Name}, Version: n.Version, Created: s.Now().UTC(), By: who(ctx),
		Generated: n.Generate > 0,
	}
	if n.Vault != "" {
		rec.Provider, rec.Ref = secrets.ProviderVault, n.Vault
		return rec, nil
	}
	value := cluster.NewSecret(n.Value)
	if n.Generate > 0 {
		var err error
		if value, err = secrets.Generate(n.Generate); err != nil {
			return cluster.SecretRecord{}, err
		}
	}
	return secrets.SealRecord(s.Keeper, rec, value)
}
