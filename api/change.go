package api

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/api/plan"
	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

type updateInput struct {
	AppPath
	Body v1.UpdateRequest
}

func (s *Server) update(ctx context.Context, in *updateInput) (v1.DeployResult, error) {
	return s.byHand(s.change(ctx, in.app(), func(c current) (plan.Input, error) {
		var words []string
		for _, n := range slices.Sorted(maps.Keys(in.Body.Images)) {
			words = append(words, string(n)+"="+in.Body.Images[n].Ref)
		}
		edit := orNote("", "update "+strings.Join(words, " "))
		out, err := s.again(c, orNote(in.Body.Note, edit))
		if err != nil {
			return out, err
		}
		out.Edits = append(slices.Clone(out.Edits), edit)
		out.Edits = out.Edits[max(0, len(out.Edits)-cluster.KeptEdits):]
		out.Origin = nil // no source says so
		for n, img := range in.Body.Images {
			spec, ok := out.Bundle.Services[n]
			if !ok {
				return out, c.noService(n)
			}
			if spec.Task.ImageID != "" && img.ID == "" && spec.Task.PullPolicy == "never" {
				spec.Task.PullPolicy = "" // that was about the image that was built here
			}
			spec.Task.Image, spec.Task.ImageID = img.Ref, img.ID
			out.Bundle.Services[n] = spec
		}
		return out, nil
	}))
}

func (c current) noService(name cluster.ServiceName) error {
	if c.App == nil {
		return noApp(c.app)
	}
	return cluster.NotFoundf("app %s has no service %q; it has %s", c.app, name, join(slices.Sorted(maps.Keys(c.Services))))
}

func orNote(note, otherwise string) string {
	const most = 500
	if note == "" {
		note = otherwise
	}
	return note[:min(len(note), most)]
}

type restartInput struct {
	AppPath
	Body v1.RestartRequest
}

func (s *Server) restart(ctx context.Context, in *restartInput) (v1.DeployResult, error) {
	return s.change(ctx, in.app(), func(c current) (plan.Input, error) {
		names := in.Body.Services
		if len(names) == 0 {
			names = slices.Sorted(maps.Keys(c.Services))
		}
		var words []string
		for _, n := range names {
			words = append(words, string(n))
		}
		out, err := s.again(c, orNote(in.Body.Note, "restart "+strings.Join(words, " ")))
		out.Restart = names
		return out, err
	})
}

type rollbackInput struct {
	AppPath
	Body v1.RollbackRequest
}

func (s *Server) rollback(ctx context.Context, in *rollbackInput) (v1.DeployResult, error) {
	return s.byHand(s.change(ctx, in.app(), s.back(in)))
}

// back builds a rollback.
func (s *Server) back(in *rollbackInput) func(current) (plan.Input, error) {
	return func(c current) (plan.Input, error) {
		if c.App == nil {
			return plan.Input{}, noApp(c.app)
		}
		n := in.Body.Release
		if n == 0 {
			var err error
			if n, err = s.goBack(c); err != nil {
				return plan.Input{}, err
			}
		}
		r, ok := s.release(c.app, n)
		if !ok {
			return plan.Input{}, cluster.NotFoundf("app %s has no release %d; `fairlead history %s` lists those it has", c.app, n, c.app)
		}
		return plan.Input{
			App: c.app, Exact: true, Package: r.Package, Action: cluster.HookRollback, Origin: r.Origin, Edits: r.Edits,
			Bundle: v1.Bundle{
				Services: r.Services, Hooks: r.Hooks, Secrets: plan.References(r.Services, r.Hooks), Rendered: r.Source,
				Note: fmt.Sprintf("rollback to %d", n), NoHooks: in.Body.NoHooks, Timeout: in.Body.Timeout,
			},
		}, nil
	}
}

// past is an earlier release with what became of it.
type past struct {
	release cluster.Release
	state   string // "" when nobody wrote that down
}

// earlier are the releases of an app below a number; of one that is uninstalled, all.
func (s *Server) earlier(c current, below int) (out []past) {
	s.Mirror.Read(func(v store.View) {
		for _, e := range store.All[cluster.Release](v, store.AppPrefix(c.app)+"releases/", nil) {
			if e.V.Number < below || c.App.Uninstalled {
				out = append(out, past{e.V, releaseSummary(v, e.V, c.App.Release).State})
			}
		}
	})
	return out
}

// undoTo is the release that a failed change goes back to: the one that it began from or,
// where that one had failed as well, the newest that worked, if there is one.
func undoTo(from int, earlier []past) int {
	for _, p := range earlier {
		if p.release.Number == from && p.state == string(cluster.RolloutFailed) {
			if n, ok := lastGood(earlier, nil); ok {
				return n
			}
		}
	}
	return from
}

// goBack is the release that a rollback without a number goes to.
func (s *Server) goBack(c current) (int, error) {
	leaves := c.change != nil && c.change.Action == cluster.HookDelete && c.stage() == cluster.StageBefore
	switch {
	case c.App.Release == 0:
		return 0, cluster.Invalidf("app %s was never installed: there is nothing to go back to; `fairlead uninstall %s` ends what is on its way, and forgets it", c.app, c.app)
	case c.notMade() > 0, leaves && !c.App.Uninstalled: // it is what it was before that
		return undoTo(c.App.Release, s.earlier(c, c.App.Release+1)), nil
	}
	earlier := s.earlier(c, c.App.Release)
	if len(earlier) == 0 {
		return 0, cluster.Invalidf("app %s has no release before %d to go back to", c.app, c.App.Release)
	}
	n, ok := lastGood(earlier, c.specs())
	if !ok {
		return 0, cluster.Invalidf("app %s has no release before %d to go back to: each of them failed, was never completed, or is what release %d is; `fairlead history %s` lists them, and `fairlead rollback %s RELEASE` goes to any",
			c.app, c.App.Release, c.App.Release, c.app, c.app)
	}
	return n, nil
}

// lastGood is the number of the newest release that worked and that differs from
// what is wanted now. A release that is still said to run was overtaken: nobody
// knows whether it works. One of which nothing is known may have.
func lastGood(earlier []past, now map[cluster.ServiceName]cluster.ServiceSpec) (int, bool) {
	out := 0
	for _, p := range earlier {
		worked := p.state == "" || p.state == string(cluster.RolloutComplete)
		if worked && !plan.Alike(p.release.Services, now) {
			out = max(out, p.release.Number)
		}
	}
	return out, out > 0
}

type scaleInput struct {
	AppPath
	Body v1.ScaleRequest
}

func (s *Server) scale(ctx context.Context, in *scaleInput) ([]v1.Scaled, error) {
	var out []v1.Scaled
	err := s.decide(ctx, func(ctx context.Context) error {
		out = []v1.Scaled{}
		c, err := s.current(in.app())
		if err != nil {
			return err
		}
		var steps []step
		var guard []store.Cond
		for _, name := range slices.Sorted(maps.Keys(in.Body.Services)) {
			svc, ok := c.Services[name]
			if !ok {
				return c.noService(name)
			}
			want, err := scaled(c, svc, in.Body.Services[name], who(ctx))
			if err != nil {
				return err
			}
			out = append(out, v1.Scaled{Scale: want})
			if old, exists := c.Scales[name]; exists && old == want {
				continue
			}
			st, err := put(store.ScaleKey(svc.ServiceID), want, c.scaleRevs[name])
			if err != nil {
				return err
			}
			guard = append(guard, store.Cond{Key: store.ServiceKey(svc.ServiceID), Rev: c.serviceRevs[name]})
			steps = append(steps, st)
		}
		if len(guard) > store.MaxOps/2 {
			return cluster.Invalidf("%d services at once: at most %d", len(guard), store.MaxOps/2)
		}
		s.foresee(c, out)
		if len(steps) == 0 {
			return nil
		}
		s.Log.Info("scaled", "app", c.app, "services", len(steps), "by", who(ctx))
		return s.commit(ctx, guard, steps)
	})
	return out, err
}

// foresee says of counts which tasks would wait for a place.
func (s *Server) foresee(c current, set []v1.Scaled) {
	if s.Preview == nil {
		return
	}
	var counts []cluster.Scale
	for _, x := range set {
		counts = append(counts, x.Scale)
	}
	services, scales := c.after(plan.Result{Scales: counts})
	for _, w := range s.Preview(c.app, services, scales) {
		for i := range set {
			if set[i].Name == w.Name {
				set[i].Waits = &w
			}
		}
	}
}

// scaled is the count that a person's wish gives a service.
func scaled(c current, svc cluster.Service, to v1.ScaleTo, by string) (cluster.Scale, error) {
	old, exists := c.Scales[svc.Name]
	old.Rev = 0
	if svc.Spec.Mode == cluster.Global {
		return old, cluster.Invalidf("%s runs once on each node (mode: global): there is nothing to scale", svc.ServiceID)
	}
	if to.Auto {
		if old.Owner == cluster.OwnerPerson {
			old.Owner = cluster.OwnerRelease
		}
		return plan.Scale(c.app, svc.Name, svc.Spec, old, exists), nil
	}
	if a := svc.Spec.Autoscale; a != nil && (to.Replicas < a.Min || to.Replicas > a.Max) {
		return old, cluster.Invalidf("%s is autoscaled between %d and %d: %d is outside of that; change the bounds in the file", svc.ServiceID, a.Min, a.Max, to.Replicas)
	}
	if by == "" {
		by = "a person"
	}
	return cluster.Scale{ServiceID: svc.ServiceID, Replicas: to.Replicas, Owner: cluster.OwnerPerson, Reason: "set by " + by}, nil
}
