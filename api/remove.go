package api

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

type removeInput struct {
	AppPath
	PurgeSecrets bool   `query:"purge_secrets" doc:"remove the app's secrets too"`
	KeepHistory  bool   `query:"keep_history" doc:"keep its releases: a rollback brings it back"`
	NoHooks      bool   `query:"no_hooks" doc:"run no hook of the package"`
	Timeout      string `query:"timeout" maxLength:"40" doc:"how long each hook may take; default 10m"`
}

// removal is what it takes to remove an app.
type removal struct {
	v1.RemoveResult
	services []step // in an order that is safe at every step
	rest     []step // what is left without them, the app last
}

// removal removes services first, so that their tasks drain, and the app last.
func (s *Server) removal(c current, keepHistory, purge bool) (removal, error) {
	out := removal{RemoveResult: v1.RemoveResult{App: c.app, Services: []cluster.ServiceName{}}}
	volumes := map[string]bool{}
	for _, n := range slices.Sorted(maps.Keys(c.Services)) {
		out.Services = append(out.Services, n)
		out.services = append(out.services, remove(store.ServiceKey(c.Services[n].ServiceID), c.serviceRevs[n]))
		for _, mt := range c.Services[n].Spec.Task.Mounts {
			if mt.Type == cluster.MountVolume && mt.Source != "" {
				volumes[mt.Source] = true
			}
		}
	}
	out.KeptVolumes = slices.Sorted(maps.Keys(volumes))
	s.Mirror.Read(func(v store.View) {
		below := func(prefix string) (list []step) {
			for _, k := range v.Keys(store.AppPrefix(c.app) + prefix) {
				e, _ := v.Entry(k)
				list = append(list, remove(k, e.Rev))
			}
			return list
		}
		out.services = append(out.services, below("scale/")...)
		if !keepHistory {
			for _, prefix := range []string{"config/", "users/", "package/", "releases/"} {
				out.rest = append(out.rest, below(prefix)...)
			}
		}
	})
	for _, n := range slices.Sorted(maps.Keys(c.Secrets)) {
		if !purge {
			out.KeptSecrets = append(out.KeptSecrets, n)
			continue
		}
		out.rest = append(out.rest, remove(store.SecretKey(c.Secrets[n].SecretRef), c.secretRevs[n]))
	}
	var last step // in one transaction: without its change an app would stay half removed
	if c.change != nil {
		last = remove(store.ChangeKey(c.app), c.changeRev)
	}
	if c.App != nil {
		st := remove(store.AppKey(c.app), c.appRev)
		if keepHistory {
			var err error
			if st, err = c.uninstalled(); err != nil {
				return out, err
			}
		}
		last.conds, last.ops = append(last.conds, st.conds...), append(last.ops, st.ops...)
	}
	if len(last.ops) > 0 {
		out.rest = append(out.rest, last)
	}
	return out, nil
}

// uninstalled marks an app as one of which the history is left.
func (c current) uninstalled() (step, error) {
	app := *c.App
	app.Uninstalled = true
	return put(store.AppKey(c.app), app, c.appRev)
}

func (s *Server) removeApp(ctx context.Context, in *removeInput) (v1.RemoveResult, error) {
	timeout, err := time.ParseDuration(cmp.Or(in.Timeout, "0s"))
	if err != nil || timeout < 0 {
		return v1.RemoveResult{}, cluster.Invalidf("timeout %q: give a time such as 5m", in.Timeout)
	}
	var out v1.RemoveResult
	err = s.decide(ctx, func(ctx context.Context) error {
		c, err := s.current(in.app())
		if err != nil {
			return err
		}
		if c.App == nil && len(c.Services) == 0 && (!in.PurgeSecrets || len(c.Secrets) == 0) {
			return noApp(c.app)
		}
		unfollowed, err := s.unfollowed(c.app)
		if err != nil {
			return err
		}
		r, err := s.removal(c, in.KeepHistory, in.PurgeSecrets)
		if err != nil {
			return err
		}
		out = r.RemoveResult
		guard := []store.Cond{{Key: store.AppKey(c.app), Rev: c.appRev}, unfollowed}
		steps := append(r.services, r.rest...)
		ch := cluster.PendingChange{
			Action: cluster.HookDelete, Timeout: cluster.Duration(timeout), NoHooks: in.NoHooks, KeepHistory: in.KeepHistory, PurgeSecrets: in.PurgeSecrets,
		}
		if !in.NoHooks && c.App != nil && !c.App.Uninstalled {
			ch.Hooks = cluster.HooksAt(c.Hooks, cluster.PreDelete, cluster.PostDelete)
		}
		if c.App != nil && (len(ch.Hooks) > 0 || len(chunks(guard, steps)) > 1) {
			out.Pending = true
			if c.change != nil && c.change.Action == cluster.HookDelete && c.stage() != cluster.StageDone && !in.NoHooks {
				return nil // it is on its way
			}
			st, err := s.pend(ctx, c, ch)
			if err != nil {
				return err
			}
			steps = []step{st}
		}
		s.Log.Info("removes an app", "app", c.app, "by", who(ctx), "pending", out.Pending)
		return s.commit(ctx, guard, steps)
	})
	return out, err
}
