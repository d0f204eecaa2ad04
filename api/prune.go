package api

import (
	"slices"

	"github.com/fairlead/fairlead/api/plan"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// maxPruned bounds what one change of an app deletes of each kind; the next
// change goes on.
const maxPruned = 16

// prune deletes releases that are too old to keep, but for those to go back to, and configs
// that nothing refers to any more: no kept release, no service, no task, and no version that
// a rollout may go back to. The app's record, which every release writes,
// guards it: nobody can begin to refer to a config meanwhile.
func (s *Server) prune(c current, next int, r plan.Result, pkg *cluster.Package) []step {
	var out []step
	s.Mirror.Read(func(v store.View) {
		own := store.AppPrefix(c.app)
		unused := map[string]bool{}
		for _, prefix := range []string{"config/", "users/", "package/"} {
			for _, k := range v.Keys(own + prefix) {
				unused[k] = true
			}
		}
		use := func(t cluster.TaskSpec) {
			for _, f := range t.Configs {
				delete(unused, store.ConfigKey(c.app, f.Name, f.Version))
			}
		}
		useSpec := func(s cluster.ServiceSpec) {
			use(s.Task)
			for _, r := range s.Routes {
				for _, m := range r.Middlewares {
					delete(unused, store.UserListKey(c.app, m.Sealed))
				}
			}
		}
		usePackage := func(p *cluster.Package) {
			for i := 0; p != nil && i < p.Parts; i++ {
				delete(unused, store.PackageKey(c.app, p.Text, i))
			}
		}
		usePackage(pkg)
		for _, h := range r.Hooks {
			useSpec(h.Spec)
		}
		for _, spec := range r.Rendered {
			useSpec(spec)
		}
		for _, svc := range c.Services {
			useSpec(svc.Spec)
		}
		for _, r := range store.All[cluster.Rollout](v, store.PrefixRollouts+string(c.app)+"/", nil) {
			if r.V.Stable != nil {
				use(*r.V.Stable)
			}
		}
		for _, t := range store.All[cluster.Task](v, store.PrefixTasks+string(c.app)+"/", nil) {
			use(t.V.Spec)
		}
		// Those that are there are counted, and no numbers: tries of one commit have many.
		releases := slices.DeleteFunc(slices.Clone(v.Keys(own+"releases/")), func(k string) bool { return k == store.ReleaseKey(c.app, next) })
		good, newest := c.good(v), len(releases)-cluster.KeptReleases+1
		var old []string
		for i, k := range releases {
			if i < newest && !good[k] {
				old = append(old, k)
				continue
			}
			if len(unused) == 0 {
				continue
			}
			r, _, err := store.One[cluster.Release](v, k)
			if err != nil {
				clear(unused) // what it refers to cannot be known
			}
			usePackage(r.V.Package)
			for _, spec := range r.V.Services {
				useSpec(spec)
			}
			for _, h := range r.V.Hooks {
				useSpec(h.Spec)
			}
		}
		for _, keys := range [][]string{old, sortedKeys(unused)} {
			for _, k := range keys[:min(len(keys), maxPruned)] {
				if e, ok := v.Entry(k); ok {
					out = append(out, remove(k, e.Rev))
				}
			}
		}
	})
	return out
}

// good are the keys of releases that are kept however old they are: the last that became
// complete, and that which a delivery goes back to.
func (c current) good(v store.View) map[string]bool {
	out := map[string]bool{}
	app, there, err := store.One[cluster.App](v, store.AppKey(c.app))
	if !there || err != nil {
		return out
	}
	app.V.Created = cluster.StoreRev(app.Created) // another app of this name may have been here
	var outcomes []cluster.ReleaseOutcome
	for _, o := range store.All[cluster.ReleaseOutcome](v, store.PrefixOutcomes+string(c.app)+"/", nil) {
		outcomes = append(outcomes, o.V)
	}
	for _, n := range cluster.LastComplete(app.V, outcomes) {
		out[store.ReleaseKey(c.app, n)] = true
	}
	for _, d := range deliveries(v) {
		if d.App == c.app && d.State.Good != nil {
			out[store.ReleaseKey(c.app, d.State.Good.Release)] = true
		}
	}
	return out
}

func sortedKeys(m map[string]bool) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
