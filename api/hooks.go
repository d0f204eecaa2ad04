package api

import (
	"cmp"
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

func (s *Server) registerHooks(api huma.API) {
	handle(api, op(http.MethodPost, "/apps/{app}/test", "test-app", "apps", "Run the tests of an app's package"), s.testApp)
}

// pending reads the app's pending change, and where it stands.
func (c *current) pending(v store.View) error {
	ch, ok, err := store.One[cluster.PendingChange](v, store.ChangeKey(c.app))
	if err != nil {
		return err
	}
	if ok {
		c.change, c.changeRev = &ch.V, ch.Rev
	}
	r, ok, err := store.One[cluster.ChangeRecord](v, store.ChangeRecordKey(c.app))
	if err != nil {
		return err
	}
	if ok {
		c.record, c.recordRev = r.V, r.Rev
	}
	if c.App != nil {
		if m := made(*c.App, c.record); m.Failed && !m.Open {
			c.Broke = &m
		}
	}
	return nil
}

// made is what came of making the app's release, as far as its record says.
func made(a cluster.App, r cluster.ChangeRecord) cluster.Made {
	if r.Created != a.Created { // of an app of the same name that is gone
		return cluster.Made{Release: a.Release}
	}
	return r.Made(a.Release)
}

// stage is where the pending change stands.
func (c current) stage() cluster.HookStage {
	if c.change == nil {
		return cluster.StageDone
	}
	return c.change.StageOf(c.record)
}

// action is what hooks stand around when a bundle is deployed.
func (c current) action(b v1.Bundle) cluster.HookAction {
	if b.Package == nil {
		return ""
	}
	return c.makes()
}

// makes is what a deploy is, seen from the app.
func (c current) makes() cluster.HookAction {
	if c.App == nil || c.App.Uninstalled {
		return cluster.HookInstall
	}
	return cluster.HookUpgrade
}

// busy refuses a change while hooks of another one run, but for a rollback: that
// takes its place. It ends in any case, so that nobody waits for ever.
func (c current) busy(in plan.Input) error {
	if c.change == nil || c.change.Action == cluster.HookTest || in.Action == cluster.HookRollback {
		return nil
	}
	what := fmt.Sprintf("release %d of %s", c.change.Release, c.app)
	if c.change.Action == cluster.HookDelete {
		what = fmt.Sprintf("the removal of %s", c.app)
	}
	switch stage := c.stage(); stage {
	case cluster.StageBefore, cluster.StageAfter:
		e := c.change.Action.Before()
		if stage == cluster.StageAfter {
			e = c.change.Action.After()
		}
		if len(cluster.HooksAt(c.change.Hooks, e)) == 0 {
			return cluster.Conflictf("%s is on its way; try again in a moment", what)
		}
		ends := fmt.Sprintf("`fairlead rollback %s` or `fairlead uninstall %s`", c.app, c.app)
		if c.App == nil || c.App.Release == 0 {
			ends = fmt.Sprintf("`fairlead uninstall %s`", c.app)
		}
		return cluster.Conflictf("%s is on its way: its %s hooks run; wait for it (`fairlead status %s`), or end it with %s", what, e, c.app, ends)
	case cluster.StageApply, cluster.StageUndo, cluster.StageFinish:
		return cluster.Conflictf("%s is on its way; try again in a moment", what)
	case cluster.StageSettle, cluster.StageDone:
	}
	return nil
}

// callOff ends a change whose hooks run ahead of it, where a rollback asks for what the app
// is without it.
func (s *Server) callOff(ctx context.Context, c current, in plan.Input, out *v1.DeployResult) error {
	if in.Action != cluster.HookRollback {
		return nil
	}
	out.NotMade = c.notMade()
	switch stage := c.stage(); {
	case c.change == nil, c.change.Action == cluster.HookTest:
		return nil
	case stage == cluster.StageApply, stage == cluster.StageUndo, stage == cluster.StageFinish:
		return cluster.Conflictf("a change of %s is on its way; try again in a moment", c.app)
	case stage != cluster.StageBefore:
		return nil
	}
	ch := *c.change
	ch.CalledOff = "called off by a rollback"
	if by := who(ctx); by != "" {
		ch.CalledOff += " by " + by
	}
	st, err := put(store.ChangeKey(c.app), ch, c.changeRev)
	if err != nil {
		return err
	}
	s.Log.Info("calls a change off", "app", c.app, "action", ch.Action, "release", ch.Release, "by", who(ctx))
	// Its hooks may just have ended: then it is made.
	guard := []store.Cond{{Key: store.AppKey(c.app), Rev: c.appRev}, {Key: store.ChangeRecordKey(c.app), Rev: c.recordRev}}
	return s.commit(ctx, guard, []step{st})
}

// notMade is the release above the app's that never came to be it, or is not yet; 0: there
// is none.
func (c current) notMade() int {
	if c.App == nil || c.App.Uninstalled || c.LastRelease <= c.App.Release {
		return 0
	}
	return c.LastRelease
}

// write returns what is written for a plan: the app itself or, when hooks run
// around that, when all of it may have to be taken back, or when it does not fit into
// one transaction, a pending change that whoever leads then goes on with.
func (s *Server) write(ctx context.Context, c current, r plan.Result, in plan.Input, texts []step) ([]store.Cond, []step, error) {
	guard := []store.Cond{{Key: store.AppKey(c.app), Rev: c.appRev}}
	steps, err := s.steps(ctx, c, r, in)
	if err != nil {
		return nil, nil, err
	}
	direct := append(slices.Clone(texts), steps...) // before the release that refers to them
	both := guard
	if r.Claims {
		both = append(slices.Clone(guard), store.Cond{Key: store.ClaimsKey, Rev: c.claimsRev})
	}
	small := len(chunks(both, direct)) == 1
	if r.Plan.Empty() || (in.Action == "" && small) {
		return both, direct, nil
	}
	ch := cluster.PendingChange{
		Action: in.Action, Release: r.Plan.Next, KeepHistory: c.App != nil && c.App.Release > 0, Timeout: in.Bundle.Timeout, Atomic: in.Bundle.Atomic, NoHooks: in.Bundle.NoHooks,
	}
	switch {
	case in.Action == "": // as a package whose hooks are left out
		ch.Action, ch.NoHooks, ch.Atomic = c.makes(), true, false
	case !in.Bundle.NoHooks:
		ch.Hooks = cluster.HooksAt(r.Hooks, in.Action.Before(), in.Action.After())
	}
	if small && len(ch.Hooks) == 0 && !ch.Atomic {
		return both, direct, nil
	}
	steps, err = s.pending(ctx, c, r, in, ch)
	return both, append(texts, steps...), err
}

// pending writes the release that a change will make, and the change.
func (s *Server) pending(ctx context.Context, c current, r plan.Result, in plan.Input, ch cluster.PendingChange) ([]step, error) {
	out, err := s.files(ctx, c, r)
	if err != nil {
		return nil, err
	}
	// Together: a release that nobody makes would look like one that was.
	next := s.next(ctx, c, r, in)
	one, err := releaseStep(next)
	if err != nil {
		return nil, err
	}
	add := func(st step, err error) error {
		one.conds, one.ops = append(one.conds, st.conds...), append(one.ops, st.ops...)
		return err
	}
	if err := add(s.pend(ctx, c, ch)); err != nil {
		return nil, err
	}
	if c.App == nil {
		if err := add(put(store.AppKey(c.app), cluster.App{Name: c.app, Domain: s.Domain, Uninstalled: true}, 0)); err != nil {
			return nil, err
		}
	}
	size := 0
	for _, o := range one.ops {
		size += len(o.Value)
	}
	if size > maxRelease {
		return nil, cluster.Invalidf("the app's description and its hooks are %d bytes: at most %d; move large values into configs", size, maxRelease)
	}
	out = append(out, one)
	if c.App != nil && c.App.Release < next.Number-1 { // the try before never came to be the app's
		out = append(out, s.superseded(c, r, next)...)
	}
	return out, nil
}

// pend writes a pending change in place of the one before it.
func (s *Server) pend(ctx context.Context, c current, ch cluster.PendingChange) (step, error) {
	now := s.Now().UTC()
	ch.App, ch.By, ch.Created, ch.ID = c.app, who(ctx), now, now.UnixNano()
	if c.App != nil && !c.App.Uninstalled {
		ch.From = c.App.Release
	}
	if ch.Release == 0 && c.App != nil {
		ch.Release = c.App.Release
	}
	if c.change != nil {
		ch.ID = max(ch.ID, c.change.ID+1)
		if ch.By == "" {
			ch.By = c.change.By
		}
	}
	return put(store.ChangeKey(c.app), ch, c.changeRev)
}

// Continue makes the part of an app's pending change that is due, if any is. It
// decides on what is there now, so that it can be called again, by anyone.
func (s *Server) Continue(ctx context.Context, app cluster.AppName) error {
	return s.decide(ctx, func(ctx context.Context) error {
		c, err := s.current(app)
		if err != nil || c.change == nil || c.App == nil {
			return err
		}
		stage := c.stage()
		switch {
		case stage == cluster.StageUndo && c.change.Stays == "":
			err = s.undo(ctx, c)
		case stage == cluster.StageUndo, c.change.Refused != "":
			return nil
		case stage == cluster.StageApply && c.change.Action == cluster.HookDelete:
			err = s.applyRemoval(ctx, c)
		case stage == cluster.StageApply:
			err = s.applyRelease(ctx, c)
		case stage == cluster.StageFinish:
			err = s.finish(ctx, c)
		}
		if k := cluster.KindOf(err); k == cluster.KindInvalid || k == cluster.KindNotFound {
			return s.refuse(ctx, c, err)
		}
		return err
	})
}

// guard makes what a pending change writes fail when the app or the change is another
// one by then.
func (c current) guard() []store.Cond {
	return []store.Cond{{Key: store.AppKey(c.app), Rev: c.appRev}, {Key: store.ChangeKey(c.app), Rev: c.changeRev}}
}

// refuse notes why a pending change cannot be made any more, or cannot be taken back.
func (s *Server) refuse(ctx context.Context, c current, why error) error {
	ch := *c.change
	if c.stage() == cluster.StageUndo {
		ch.Stays = why.Error()
	} else {
		ch.Refused = why.Error()
		for _, svc := range c.Services { // what did not fit into one transaction was cut short
			ch.Begun = ch.Begun || svc.Release == ch.Release
		}
	}
	st, err := put(store.ChangeKey(c.app), ch, c.changeRev)
	if err != nil {
		return err
	}
	return s.commit(ctx, nil, []step{st})
}

// releaseInput makes a release that is there once more.
func releaseInput(r cluster.Release) plan.Input {
	return plan.Input{
		App: r.App, Exact: true, Package: r.Package, Edits: r.Edits,
		Bundle: v1.Bundle{Services: r.Services, Hooks: r.Hooks, Secrets: plan.References(r.Services, r.Hooks), Rendered: r.Source},
	}
}

// applyRelease makes the app what its pending release says. Others may have taken
// its routes while its hooks ran: that is planned again.
func (s *Server) applyRelease(ctx context.Context, c current) error {
	if c.App.Release == c.change.Release && !c.App.Uninstalled {
		return nil // the loop of hooks has not seen it yet
	}
	r, ok := s.release(c.app, c.change.Release)
	if !ok {
		return cluster.NotFoundf("release %d is gone", c.change.Release)
	}
	if c.App.Release > c.change.Release {
		return cluster.Invalidf("release %d came before it", c.App.Release)
	}
	in := releaseInput(r)
	in.Number = r.Number
	p, err := s.plan(ctx, c, in)
	if err != nil {
		return err
	}
	steps, err := s.steps(ctx, c, p, in)
	if err != nil {
		return err
	}
	guard := c.guard()
	if p.Claims {
		guard = append(guard, store.Cond{Key: store.ClaimsKey, Rev: c.claimsRev})
	}
	if err := s.commit(ctx, guard, steps); err != nil {
		return err
	}
	s.Log.Info("made a release", "app", c.app, "release", r.Number, "by", c.change.By)
	return nil
}

// applyRemoval removes the services; the rest stays for the hooks behind it.
func (s *Server) applyRemoval(ctx context.Context, c current) error {
	if c.App.Uninstalled && len(c.Services) == 0 {
		return nil
	}
	r, err := s.removal(c, true, false)
	if err != nil {
		return err
	}
	st, err := c.uninstalled()
	if err != nil {
		return err
	}
	guard := c.guard()
	return s.commit(ctx, guard, append(r.services, st))
}

// finish removes what is left of an app without services.
func (s *Server) finish(ctx context.Context, c current) error {
	r, err := s.removal(c, false, c.change.PurgeSecrets)
	if err != nil {
		return err
	}
	guard := c.guard()
	return s.commit(ctx, guard, append(r.services, r.rest...))
}

// undo takes a failed change back with another one, once its failure is history.
func (s *Server) undo(ctx context.Context, c current) error {
	failed, old := c.change.Release, *c.change
	var o store.Value[cluster.ReleaseOutcome]
	s.Mirror.Read(func(v store.View) {
		o, _, _ = store.One[cluster.ReleaseOutcome](v, store.OutcomeKey(c.app, failed))
	})
	if o.V.State != "failed" {
		return nil
	}
	back := cluster.PendingChange{Timeout: old.Timeout, NoHooks: old.NoHooks, Undoes: failed, Why: c.record.Message}
	guard := []store.Cond{{Key: store.AppKey(c.app), Rev: c.appRev}}
	if old.From == 0 {
		back.Action, back.Release, back.KeepHistory = cluster.HookDelete, failed, old.KeepHistory
		if !old.NoHooks && len(c.Services) > 0 {
			back.Hooks = cluster.HooksAt(c.Hooks, cluster.PreDelete, cluster.PostDelete)
		}
		st, err := s.pend(ctx, c, back)
		if err != nil {
			return err
		}
		return s.commit(ctx, guard, []step{st})
	}
	to := undoTo(old.From, s.earlier(c, c.App.Release))
	r, ok := s.release(c.app, to)
	if !ok {
		return cluster.NotFoundf("release %d is gone", to)
	}
	in := releaseInput(r)
	in.Action, in.Bundle.Note = cluster.HookRollback, fmt.Sprintf("rollback to %d", to)
	p, err := s.plan(ctx, c, in)
	if err != nil {
		return err
	}
	back.Action, back.Release = cluster.HookRollback, p.Plan.Next
	if !old.NoHooks {
		back.Hooks = cluster.HooksAt(p.Hooks, cluster.PreRollback, cluster.PostRollback)
	}
	steps, err := s.pending(ctx, c, p, in, back)
	if err != nil {
		return err
	}
	s.Log.Info("takes a change back", "app", c.app, "release", failed, "to", to, "because", c.record.Message)
	return s.commit(ctx, guard, steps)
}

type testInput struct {
	AppPath
	Body v1.TestRequest
}

func (s *Server) testApp(ctx context.Context, in *testInput) (v1.HookProgress, error) {
	var out v1.HookProgress
	err := s.decide(ctx, func(ctx context.Context) error {
		c, err := s.current(in.app())
		if err != nil {
			return err
		}
		if c.App == nil || c.App.Uninstalled {
			return noApp(c.app)
		}
		if st := c.stage(); st != cluster.StageDone {
			return cluster.Conflictf("a change of %s is on its way, or its tests run already; try again when that is over: `fairlead status %s`", c.app, c.app)
		}
		hooks := cluster.HooksAt(c.Hooks, cluster.TestEvent)
		if len(in.Body.Names) > 0 {
			var known []string
			for _, h := range hooks {
				known = append(known, string(h.Service))
			}
			for _, n := range in.Body.Names {
				if !slices.Contains(known, string(n)) {
					return cluster.NotFoundf("%s has no test %q; it has %s", c.app, n, cmp.Or(strings.Join(known, ", "), "none"))
				}
			}
			hooks = slices.DeleteFunc(hooks, func(h cluster.Hook) bool { return !slices.Contains(in.Body.Names, h.Service) })
		}
		st, err := s.pend(ctx, c, cluster.PendingChange{Action: cluster.HookTest, Hooks: hooks, Timeout: in.Body.Timeout})
		if err != nil {
			return err
		}
		if err := s.commit(ctx, []store.Cond{{Key: store.AppKey(c.app), Rev: c.appRev}}, []step{st}); err != nil {
			return err
		}
		now, err := s.current(in.app())
		if err == nil && now.change != nil {
			out = hookProgress(*now.change, now.record)
		}
		return err
	})
	return out, err
}

// hookProgress is where a pending change stands.
func hookProgress(c cluster.PendingChange, r cluster.ChangeRecord) v1.HookProgress {
	out := v1.HookProgress{Action: c.Action, Release: c.Release, Stage: c.StageOf(r), Undoes: c.Undoes, ID: c.ID}
	if r.Change == c.ID {
		out.Failed, out.Message, out.Runs = r.Failed, r.Message, r.Runs
	}
	if out.Message == "" {
		out.Message = c.Why
	}
	return out
}
