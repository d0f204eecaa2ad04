package api

import (
	"cmp"
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

// PlanDelivery is what a deploy of what was fetched would change.
func (s *Server) PlanDelivery(ctx context.Context, d cluster.Delivery, f Fetched) (v1.Plan, error) {
	return s.planned(ctx, d.App, func(c current) (plan.Input, error) { return s.input(c, d, f), nil })
}

// Deliver deploys what was fetched, as long as the app is at the release that this was
// decided on (0: not there).
func (s *Server) Deliver(ctx context.Context, d cluster.Delivery, f Fetched, release int) (v1.DeployResult, error) {
	return s.changeFor(ctx, d, func(c current) (plan.Input, error) {
		in := s.input(c, d, f)
		b := &in.Bundle
		if err := s.adopts(c, d, *b); err != nil {
			return in, err
		}
		b.Expect, b.Timeout = &release, d.Filled().Timeout
		b.Note = orNote("", strings.TrimSpace(strings.Join([]string{
			f.Origin.Ref, cluster.ShortRevision(f.Origin.Revision), cluster.Choices(f.Origin.Images), f.Origin.Subject,
		}, " ")))
		in.Origin = &f.Origin
		return in, nil
	})
}

// adopts refuses to remove services of an app that the delivery has not made yet.
func (s *Server) adopts(c current, d cluster.Delivery, b v1.Bundle) error {
	var gone []cluster.ServiceName
	for _, n := range slices.Sorted(maps.Keys(c.Services)) {
		if _, stays := b.Services[n]; !stays {
			gone = append(gone, n)
		}
	}
	if d.Adopt || c.App == nil || len(gone) == 0 {
		return nil
	}
	r, _ := s.release(c.app, c.App.Release)
	if r.By == d.Actor() {
		return nil
	}
	now, err := s.delivery(d.Name)
	if err != nil || now.State.Applied != nil {
		return err // nil: what was changed by hand is drift
	}
	return cluster.Invalidf("the app %s was made by %s, and the source does not have its %s: `fairlead delivery create %s … --replace` with --adopt removes that, with --prune=false it stays",
		c.app, cmp.Or(r.By, "somebody else"), join(gone), d.Name)
}

// TakeBack makes the last good release of a delivery's app again.
func (s *Server) TakeBack(ctx context.Context, d cluster.Delivery, st cluster.DeliveryState) (v1.DeployResult, error) {
	return s.changeFor(ctx, d, s.good(d, st))
}

// PlanTakeBack is what that would change.
func (s *Server) PlanTakeBack(ctx context.Context, d cluster.Delivery, st cluster.DeliveryState) (v1.Plan, error) {
	return s.planned(ctx, d.App, s.good(d, st))
}

// good builds the way back to a delivery's last good release. Where services that left the source
// are kept, so is all that did not come with what failed.
func (s *Server) good(d cluster.Delivery, st cluster.DeliveryState) func(current) (plan.Input, error) {
	in := &rollbackInput{AppPath: AppPath{string(d.App)}}
	in.Body.Release, in.Body.Timeout = st.Good.Release, d.Filled().Timeout
	back := s.back(in)
	return func(c current) (plan.Input, error) {
		in, err := back(c)
		if err != nil {
			return in, err
		}
		in.Bundle.Services = c.restarted(in.Bundle.Services)
		if !d.KeepGone {
			return in, nil
		}
		kept, came := c.specs(), s.cameWith(d, st)
		maps.DeleteFunc(kept, func(n cluster.ServiceName, _ cluster.ServiceSpec) bool { return came[n] })
		in.Bundle = keep(in.Bundle, kept)
		return in, nil
	}
}

// restarted are specs in the generations of the services that are so already, and did not fail: a
// restart since is no difference.
func (c current) restarted(specs map[cluster.ServiceName]cluster.ServiceSpec) map[cluster.ServiceName]cluster.ServiceSpec {
	out := maps.Clone(specs)
	for n, spec := range specs {
		is, there := c.Services[n]
		if !there || plan.Failed(c.Rollouts[n].State) || !plan.AlikeService(spec, is.Spec) {
			continue
		}
		spec.Task.Generation = is.Spec.Task.Generation
		out[n] = spec
	}
	return out
}

// cameWith are the services that a delivery brought since its last good release.
func (s *Server) cameWith(d cluster.Delivery, st cluster.DeliveryState) map[cluster.ServiceName]bool {
	out := map[cluster.ServiceName]bool{}
	if st.Applied == nil {
		return out
	}
	before, _ := s.release(d.App, st.Good.Release)
	s.Mirror.Read(func(v store.View) {
		for _, e := range store.All[cluster.Release](v, store.AppPrefix(d.App)+"releases/", nil) {
			r := e.V
			if r.Number <= st.Good.Release || r.Number > st.Applied.Release {
				continue
			}
			for n := range r.Services {
				if _, there := before.Services[n]; !there {
					out[n] = r.By == d.Actor()
				}
			}
			before = r
		}
	})
	return out
}

// changeFor makes a delivery's change of its app, unless the delivery was removed,
// suspended or changed since that was decided.
func (s *Server) changeFor(ctx context.Context, d cluster.Delivery, build func(current) (plan.Input, error)) (v1.DeployResult, error) {
	stands := store.Cond{Key: store.DeliveryKey(d.Name), Rev: int64(d.Rev)}
	return s.change(asDelivery(ctx, d), d.App, func(c current) (plan.Input, error) {
		is := false
		s.Mirror.Read(func(v store.View) {
			e, ok := v.Entry(stands.Key)
			is = ok && e.Rev == stands.Rev
		})
		if !is {
			return plan.Input{}, cluster.Conflictf("the delivery %s was changed or removed meanwhile", d.Name)
		}
		return build(c)
	}, stands)
}

func asDelivery(ctx context.Context, d cluster.Delivery) context.Context {
	return Trusted(ctx, d.Actor())
}

// input is what a delivery's bundle asks for. A package whose templates draw at random is
// another one each time that it is rendered: what was rendered from the same before is taken,
// as it is in its release.
func (s *Server) input(c current, d cluster.Delivery, f Fetched) plan.Input {
	b := f.Bundle
	in := plan.Input{App: d.App, Bundle: b, Action: c.action(b)}
	if r, ok := s.rendered(d, b.Package, f.InputBefore); ok {
		in.Exact, in.Package = true, r.Package
		services := maps.Clone(r.Services)
		maps.DeleteFunc(services, func(n cluster.ServiceName, _ cluster.ServiceSpec) bool { // it was kept beside what was rendered
			_, is := b.Services[n]
			return !is
		})
		in.Bundle = v1.Bundle{Services: services, Hooks: r.Hooks, Secrets: plan.References(services, r.Hooks), Rendered: r.Source}
		for name := range in.Bundle.Secrets {
			if decl, is := b.Secrets[name]; is {
				decl.Value = nil // as it is there
				in.Bundle.Secrets[name] = decl
			}
		}
	}
	in.Bundle = meant(c, d, in.Bundle)
	return in
}

// rendered is the newest release of a delivery that was rendered from what p was.
func (s *Server) rendered(d cluster.Delivery, p *v1.Package, before string) (out cluster.Release, found bool) {
	if p == nil || p.Input == "" {
		return out, false
	}
	s.Mirror.Read(func(v store.View) {
		for _, e := range store.All[cluster.Release](v, store.AppPrefix(d.App)+"releases/", nil) {
			r := e.V
			if r.Package != nil && (r.Package.Input == p.Input || before != "" && r.Package.Input == before) && r.Origin != nil && r.Origin.Delivery == d.Name && r.Number > out.Number {
				out, found = r, true
			}
		}
	})
	return out, found
}

// meant is a delivery's bundle, with the services that left it where they are kept.
func meant(c current, d cluster.Delivery, b v1.Bundle) v1.Bundle {
	if !d.KeepGone {
		return b
	}
	return keep(b, c.specs())
}

// keep is b with those of specs that it does not have.
func keep(b v1.Bundle, specs map[cluster.ServiceName]cluster.ServiceSpec) v1.Bundle {
	kept := map[cluster.ServiceName]cluster.ServiceSpec{}
	for n, spec := range specs {
		if _, there := b.Services[n]; !there {
			kept[n] = spec
		}
	}
	b.Services, b.Secrets = maps.Clone(b.Services), maps.Clone(b.Secrets)
	maps.Copy(b.Services, kept)
	if b.Secrets == nil {
		b.Secrets = map[string]v1.SecretDecl{}
	}
	for name, decl := range plan.References(kept, nil) {
		if _, there := b.Secrets[name]; !there {
			b.Secrets[name] = decl
		}
	}
	return b
}

// byHand says of a person's change of an app which delivery undoes it.
func (s *Server) byHand(res v1.DeployResult, err error) (v1.DeployResult, error) {
	if err == nil && res.Changed {
		res.Plan.Warnings = append(res.Plan.Warnings, s.undone(res.App)...)
	}
	return res, err
}

func (s *Server) undone(app cluster.AppName) (out []v1.Detail) {
	all, _, _ := s.follows()
	for _, d := range all {
		if d.App != app || d.Suspend {
			continue
		}
		does, from := "makes it as its source says at its next look", "its source"
		if d.State.Back() {
			from = fmt.Sprintf("release %d, the last good one,", d.State.Good.Release)
			does = "makes " + from + " again at its next look"
		}
		switch {
		case d.State.Phase == cluster.PhaseHeld && !d.State.Back():
			does = "deploys over this when a new commit comes"
		case d.Drift == cluster.DriftReport:
			does = "says how it differs from " + from + " at its next look"
		}
		out = append(out, v1.Detail{Message: "the delivery " + string(d.Name) + " follows " + string(app) + " and " + does + ": `fairlead delivery suspend " + string(d.Name) + "` first leaves a change by hand"})
	}
	return out
}
