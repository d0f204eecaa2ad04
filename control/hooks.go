package control

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/hook"
	"github.com/fairlead/fairlead/loop"
	"github.com/fairlead/fairlead/store"
)

// Hooks returns the loop that runs the hooks of packages: it writes their tasks, and
// where the changes that they belong to stand.
func Hooks(st store.Store, m *store.Mirror, now func() time.Time, log hclog.Logger) *loop.Loop[hook.Snapshot, hook.Action] {
	h := &hookStore{store: st, mirror: m, now: now, log: log, salt: rand.Text(), untaken: untaken{log: log, now: now}}
	return &loop.Loop[hook.Snapshot, hook.Action]{
		Name: "hooks", Snapshot: h.snapshot, Plan: hook.Plan, Apply: h.apply, Wake: hook.Wake,
		Changed: m.Changed, Resync: 30 * time.Second, Gather: 2 * time.Millisecond, Log: log,
	}
}

type hookStore struct {
	store     store.Store
	mirror    *store.Mirror
	now       func() time.Time
	log       hclog.Logger
	salt      string // of the names of tasks
	untaken   untaken
	committed int64 // revision of the last write
}

func (h *hookStore) snapshot(ctx context.Context) (hook.Snapshot, error) {
	s := hook.Snapshot{Now: h.now().UTC(), Salt: h.salt}
	if err := caughtUp(ctx, h.mirror, h.committed); err != nil {
		return s, err
	}
	h.mirror.Read(func(v store.View) {
		s.Changes, s.Records = store.PendingChanges(v), store.ChangeRecords(v)
		if len(s.Changes) == 0 && len(s.Records) == 0 {
			return // no task of a hook outlives the record
		}
		s.Apps, s.Tasks, s.Placements, s.Statuses = store.Apps(v), store.Tasks(v), store.Placements(v), store.Statuses(v)
		s.Rollouts, s.Outcomes, s.Nodes = store.Rollouts(v), store.Outcomes(v), store.Nodes(v)
	})
	return s, nil
}

// hookServices are the hooks of pending changes, as what a task is placed by.
func hookServices(v store.View) []cluster.Service {
	var out []cluster.Service
	for _, c := range store.PendingChanges(v) {
		for _, h := range c.Hooks {
			out = append(out, cluster.Service{ServiceID: cluster.ServiceID{App: c.App, Name: h.Service}, Version: h.Spec.Task.Hash(), Release: c.Release, Spec: h.Spec})
		}
	}
	return out
}

// apply writes app by app, each record with the task that it is about: what was
// decided on is compared, so that no hook runs twice.
func (h *hookStore) apply(ctx context.Context, s hook.Snapshot, acts []hook.Action) error {
	c := hookConds{records: map[cluster.AppName]cluster.StoreRev{}, changes: map[cluster.AppName]cluster.StoreRev{}}
	for _, r := range s.Records {
		c.records[r.App] = r.Rev
	}
	for _, x := range s.Changes {
		c.changes[x.App] = x.Rev
	}
	for len(acts) > 0 {
		app := hookApp(acts[0])
		n := 0
		for n < len(acts) && n < store.MaxOps/2 && hookApp(acts[n]) == app {
			n++
		}
		t, err := c.txn(app, acts[:n])
		if err != nil {
			return err
		}
		if h.untaken.waits(string(app)) {
			acts = acts[n:]
			continue
		}
		rev, err := h.store.Commit(ctx, t)
		if cluster.KindOf(err) == cluster.KindInvalid {
			h.untaken.refused(string(app), err)
			acts = acts[n:]
			continue // what else there is of the app waits, too
		}
		if err != nil {
			return fmt.Errorf("write hooks of %s: %w", app, err)
		}
		h.untaken.taken(string(app))
		h.committed = max(h.committed, rev)
		for _, a := range acts[:n] {
			if x, ok := a.(hook.Save); ok {
				c.records[app] = cluster.StoreRev(rev)
				h.log.Info("a change moves on", "app", app, "release", x.Record.Release, "stage", string(x.Record.Stage), "failed", x.Record.Failed)
			}
		}
		acts = acts[n:]
	}
	return nil
}

func hookApp(a hook.Action) cluster.AppName {
	switch a := a.(type) {
	case hook.Save:
		return a.Record.App
	case hook.Forget:
		return a.Record.App
	case hook.Create:
		return a.Task.App
	case hook.Stop:
		return a.Task.App
	case hook.Delete:
		return a.Task.App
	}
	return ""
}

// hookConds knows the revisions that the plan was made on.
type hookConds struct {
	records, changes map[cluster.AppName]cluster.StoreRev
}

func (c hookConds) txn(app cluster.AppName, acts []hook.Action) (store.Txn, error) {
	t := store.Txn{If: []store.Cond{
		{Key: store.ChangeRecordKey(app), Rev: int64(c.records[app])},
		{Key: store.ChangeKey(app), Rev: int64(c.changes[app])},
	}}
	task := func(x cluster.Task, remove bool) error {
		key := store.TaskKey(x.App, x.ID)
		t.If = append(t.If, store.Cond{Key: key, Rev: int64(x.Rev)})
		op, err := store.Op{Key: key, Delete: true}, error(nil)
		if !remove {
			op, err = store.PutJSON(key, x)
		}
		t.Then = append(t.Then, op)
		return err
	}
	for _, a := range acts {
		var err error
		switch a := a.(type) {
		case hook.Save:
			var op store.Op
			op, err = store.PutJSON(store.ChangeRecordKey(app), a.Record)
			t.Then = append(t.Then, op)
		case hook.Forget:
			t.Then = append(t.Then, store.Op{Key: store.ChangeRecordKey(app), Delete: true})
		case hook.Create:
			err = task(a.Task, false)
		case hook.Stop:
			err = task(a.Task, false)
		case hook.Delete:
			err = task(a.Task, true)
		}
		if err != nil {
			return t, err
		}
	}
	return t, nil
}

// Changer makes the part of a pending change that is the API's. It does nothing
// where that is not due.
type Changer interface {
	Continue(ctx context.Context, app cluster.AppName) error
}

// Changes returns the loop that has the API make what hooks have run for.
func Changes(m *store.Mirror, api Changer, log hclog.Logger) *loop.Loop[[]cluster.AppName, cluster.AppName] {
	return &loop.Loop[[]cluster.AppName, cluster.AppName]{
		Name: "changes",
		Snapshot: func(ctx context.Context) ([]cluster.AppName, error) {
			if err := caughtUp(ctx, m, 0); err != nil {
				return nil, err
			}
			var s hook.Snapshot
			m.Read(func(v store.View) { s.Changes, s.Records = store.PendingChanges(v), store.ChangeRecords(v) })
			return hook.Due(s), nil
		},
		Plan: func(due []cluster.AppName) []cluster.AppName { return due },
		Apply: func(ctx context.Context, _ []cluster.AppName, due []cluster.AppName) error {
			var first error
			for _, app := range due { // one that cannot be made keeps no other waiting
				if err := api.Continue(ctx, app); err != nil && first == nil {
					first = fmt.Errorf("go on with the change of %s: %w", app, err)
				}
			}
			return first
		},
		Changed: m.Changed, Resync: 30 * time.Second, Gather: 2 * time.Millisecond, Log: log,
	}
}
