package control

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/loop"
	"github.com/fairlead/fairlead/rollout"
	"github.com/fairlead/fairlead/store"
)

// Rollout returns the loop that writes tasks, rollout records and the outcomes
// of releases.
func Rollout(st store.Store, m *store.Mirror, now func() time.Time, log hclog.Logger) *loop.Loop[rollout.Snapshot, rollout.Action] {
	r := &rolloutStore{store: st, mirror: m, now: now, log: log, salt: rand.Text(), gone: map[cluster.NodeID]time.Time{}, untaken: untaken{log: log, now: now}}
	return &loop.Loop[rollout.Snapshot, rollout.Action]{
		Name: "rollout", Snapshot: r.snapshot, Plan: rollout.Plan, Apply: r.apply, Wake: rollout.Wake,
		Changed: m.Changed, Resync: 30 * time.Second, Gather: 2 * time.Millisecond, Log: log,
	}
}

type rolloutStore struct {
	store     store.Store
	mirror    *store.Mirror
	now       func() time.Time
	log       hclog.Logger
	salt      string                       // of the names of tasks
	gone      map[cluster.NodeID]time.Time // nodes that are not alive, since when this loop has seen it
	unready   map[cluster.TaskID]time.Time // see rollout.Look
	untaken   untaken                      // services and outcomes
	committed int64                        // revision of the last write
}

func (r *rolloutStore) snapshot(ctx context.Context) (rollout.Snapshot, error) {
	var s rollout.Snapshot
	if err := caughtUp(ctx, r.mirror, r.committed); err != nil {
		return s, err
	}
	r.mirror.Read(func(v store.View) {
		s = rollout.Snapshot{
			Now: r.now().UTC(), Salt: r.salt, Rev: cluster.StoreRev(v.Rev()),
			Apps: store.Apps(v), Services: store.Services(v), Scales: store.Scales(v), Tasks: store.Tasks(v),
			Placements: store.Placements(v), Statuses: store.Statuses(v), Rollouts: store.Rollouts(v),
			Endpoints: store.EndpointSets(v), Outcomes: store.Outcomes(v), Changes: store.ChangeRecords(v), Nodes: store.Nodes(v), Lost: store.LostVolumes(v), Kept: store.VolumePlaces(v),
			AgentAcks: store.AgentAcks(v), GatewayAcks: store.GatewayAcks(v),
		}
		s.Unplaced = unplaced(v, s.Tasks)
		released(v, s.Apps, s.Outcomes)
	})
	r.since(&s)
	r.unready = rollout.Look(r.unready, s)
	s.Unready = r.unready
	return s, nil
}

// released marks outcomes of old releases that are kept: numbers do not say so, as a
// release that is tried again and again takes the place of the try before.
func released(v store.View, apps []cluster.App, outcomes []cluster.ReleaseOutcome) {
	current := make(map[cluster.AppName]int, len(apps))
	for _, a := range apps {
		current[a.Name] = a.Release
	}
	for i := range outcomes {
		if o := &outcomes[i]; o.Number <= current[o.App]-cluster.KeptReleases {
			_, o.Released = v.Entry(store.ReleaseKey(o.App, o.Number))
		}
	}
}

// lostAfter is how long a node's heartbeat may be missing, after its lease ended,
// before its tasks are replaced on others.
const lostAfter = 4 * time.Second

// since fills in for how long nodes have been gone, as this leader has seen it. A
// cluster none of whose nodes is there has nowhere to replace anything; when the first is
// back, the others have as long to follow.
func (r *rolloutStore) since(s *rollout.Snapshot) {
	if !slices.ContainsFunc(s.Nodes, func(n cluster.Node) bool { return n.Alive }) {
		clear(r.gone)
		return
	}
	s.LostAfter = lostAfter
	for i, n := range s.Nodes {
		if n.Alive {
			delete(r.gone, n.ID)
			continue
		}
		if at := r.gone[n.ID]; at.IsZero() || at.After(s.Now) { // the clock was set back
			r.gone[n.ID] = s.Now
		}
		s.Nodes[i].Since = r.gone[n.ID]
	}
}

// unplaced reads why the scheduler has found no node, for tasks without one.
func unplaced(v store.View, tasks []cluster.Task) map[cluster.TaskID]string {
	out := map[cluster.TaskID]string{}
	for _, t := range tasks {
		if t.Outcome != nil || t.Desire != cluster.DesireRun || t.Hook != "" {
			continue
		}
		object := cluster.Address{App: t.App, Service: t.Name, Slot: t.Slot}.String()
		d, ok, err := store.One[cluster.Decision](v, store.DecisionKey("scheduler", object))
		if ok && err == nil && d.V.Task == t.ID {
			out[t.ID] = d.V.Reason
		}
	}
	return out
}

// apply writes service by service, then the outcomes. A conflict about one
// service does not keep the others waiting, nor does one that the store does not take.
func (r *rolloutStore) apply(ctx context.Context, s rollout.Snapshot, acts []rollout.Action) error {
	c := newRolloutConds(s)
	var batches []*rolloutBatch
	byService := map[cluster.ServiceID]*rolloutBatch{}
	for _, a := range acts {
		w, err := c.write(a)
		if err != nil {
			return err
		}
		b := byService[w.service]
		if b == nil || w.service == (cluster.ServiceID{}) {
			b = &rolloutBatch{service: w.service, base: w.base}
			byService[w.service] = b
			batches = append(batches, b)
		}
		b.writes = append(b.writes, w)
		if f, ok := a.(rollout.Forget); ok {
			key := store.DecisionKey("rollout", f.Rollout.String())
			b.writes = append(b.writes, rolloutWrite{op: store.Op{Key: key, Delete: true}})
		}
	}
	var errs []error
	for _, b := range batches {
		what := b.writes[0].op.Key
		if b.service != (cluster.ServiceID{}) {
			what = b.service.String()
		}
		if r.untaken.waits(what) {
			continue
		}
		err := r.commit(ctx, b)
		switch {
		case err == nil:
			r.untaken.taken(what)
			continue
		case cluster.KindOf(err) == cluster.KindInvalid:
			r.untaken.refused(what, err)
			continue
		}
		errs = append(errs, err)
		if cluster.KindOf(err) != cluster.KindConflict {
			break
		}
	}
	return errors.Join(errs...)
}

// rolloutBatch is all that is written for one service, or one outcome.
type rolloutBatch struct {
	service cluster.ServiceID
	base    []store.Cond // compared in each transaction
	writes  []rolloutWrite
}

type rolloutWrite struct {
	service cluster.ServiceID
	base    []store.Cond
	cond    store.Cond // of the key that is written; empty: none
	op      store.Op
}

// batchBytes keeps transactions well below store.MaxBytes.
const batchBytes = store.MaxBytes / 2

// commit writes a batch in as many transactions as it takes. The record comes
// first: a crash in between leaves task numbers unused, never used twice.
func (r *rolloutStore) commit(ctx context.Context, b *rolloutBatch) error {
	record := store.RolloutKey(b.service)
	for len(b.writes) > 0 {
		t := store.Txn{If: append([]store.Cond(nil), b.base...)}
		compared := map[string]bool{}
		for _, c := range b.base {
			compared[c.Key] = true
		}
		size, n, saved, at := 0, 0, false, map[string]int{}
		for _, w := range b.writes {
			compare := w.cond.Key != "" && !compared[w.cond.Key]
			if (compare && len(t.If) >= store.MaxOps) || len(t.Then) >= store.MaxOps || (n > 0 && size+len(w.op.Value) > batchBytes) {
				break
			}
			n++
			size += len(w.op.Value)
			if compare {
				t.If = append(t.If, w.cond)
			}
			saved = saved || (w.op.Key == record && !w.op.Delete)
			if i, twice := at[w.op.Key]; twice { // a newer decision about the same object
				t.Then[i] = w.op
				continue
			}
			at[w.op.Key] = len(t.Then)
			t.Then = append(t.Then, w.op)
		}
		rev, err := r.store.Commit(ctx, t)
		if err != nil {
			return fmt.Errorf("write %s: %w", t.Then[0].Key, err)
		}
		r.committed = max(r.committed, rev)
		for i := range b.base {
			if saved && b.base[i].Key == record {
				b.base[i].Rev = rev
			}
		}
		b.writes = b.writes[n:]
	}
	return nil
}

// rolloutConds knows the revisions that the plan was made on.
type rolloutConds struct {
	services, scales, rollouts map[cluster.ServiceID]cluster.StoreRev
	apps, changes              map[cluster.AppName]cluster.StoreRev
	snapshot                   rollout.Snapshot
}

func newRolloutConds(s rollout.Snapshot) rolloutConds {
	c := rolloutConds{
		services: map[cluster.ServiceID]cluster.StoreRev{}, scales: map[cluster.ServiceID]cluster.StoreRev{},
		rollouts: map[cluster.ServiceID]cluster.StoreRev{}, apps: map[cluster.AppName]cluster.StoreRev{}, changes: map[cluster.AppName]cluster.StoreRev{}, snapshot: s,
	}
	for _, x := range s.Services {
		c.services[x.ServiceID] = x.Rev
	}
	for _, x := range s.Scales {
		c.scales[x.ServiceID] = x.Rev
	}
	for _, x := range s.Rollouts {
		c.rollouts[x.ServiceID] = x.Rev
	}
	for _, x := range s.Apps {
		c.apps[x.Name] = x.Rev
	}
	for _, x := range s.Changes {
		c.changes[x.App] = x.Rev
	}
	return c
}

// service compares all that a decision about a service was made on.
func (c rolloutConds) service(id cluster.ServiceID) []store.Cond {
	return []store.Cond{
		{Key: store.ServiceKey(id), Rev: int64(c.services[id])},
		{Key: store.ScaleKey(id), Rev: int64(c.scales[id])},
		{Key: store.RolloutKey(id), Rev: int64(c.rollouts[id])},
	}
}

// outcome compares what the outcome of a release was decided on: the app, and
// as many of its services' records as fit.
func (c rolloutConds) outcome(o cluster.ReleaseOutcome) []store.Cond {
	out := []store.Cond{
		{Key: store.OutcomeKey(o.App, o.Number), Rev: int64(o.Rev)},
		{Key: store.AppKey(o.App), Rev: int64(c.apps[o.App])},
		{Key: store.ChangeRecordKey(o.App), Rev: int64(c.changes[o.App])},
	}
	for _, s := range c.snapshot.Services {
		if s.App == o.App && len(out) < store.MaxOps {
			out = append(out, store.Cond{Key: store.RolloutKey(s.ServiceID), Rev: int64(c.rollouts[s.ServiceID])})
		}
	}
	return out
}

func (c rolloutConds) write(a rollout.Action) (rolloutWrite, error) {
	switch a := a.(type) {
	case rollout.Create:
		return c.task(a.Task, false)
	case rollout.Drain:
		return c.task(a.Task, false)
	case rollout.Withdraw:
		return c.task(a.Task, false)
	case rollout.Stop:
		return c.task(a.Task, false)
	case rollout.Record:
		return c.task(a.Task, false)
	case rollout.Rewind:
		return c.task(a.Task, false)
	case rollout.Delete:
		return c.task(a.Task, true)
	case rollout.Save:
		op, err := store.PutJSON(store.RolloutKey(a.Rollout.ServiceID), a.Rollout)
		return rolloutWrite{service: a.Rollout.ServiceID, base: c.service(a.Rollout.ServiceID), op: op}, err
	case rollout.Keep:
		key := store.VolumesKey(a.Places.ServiceID)
		op, err := store.PutJSON(key, a.Places)
		return rolloutWrite{
			service: a.Places.ServiceID, base: c.service(a.Places.ServiceID), cond: store.Cond{Key: key, Rev: int64(a.Places.Rev)}, op: op,
		}, err
	case rollout.Forget:
		op := store.Op{Key: store.RolloutKey(a.Rollout.ServiceID), Delete: true}
		return rolloutWrite{service: a.Rollout.ServiceID, base: c.service(a.Rollout.ServiceID), op: op}, nil
	case rollout.Explain:
		op, err := store.PutJSON(store.DecisionKey("rollout", a.Service.String()), a.Decision)
		return rolloutWrite{service: a.Service, base: c.service(a.Service), op: op}, err
	case rollout.Settle:
		op, err := store.PutJSON(store.OutcomeKey(a.Outcome.App, a.Outcome.Number), a.Outcome)
		return rolloutWrite{base: c.outcome(a.Outcome), op: op}, err
	case rollout.Unsettle:
		op := store.Op{Key: store.OutcomeKey(a.Outcome.App, a.Outcome.Number), Delete: true}
		return rolloutWrite{base: c.outcome(a.Outcome), op: op}, nil
	}
	return rolloutWrite{}, fmt.Errorf("rollout action %T is not known", a)
}

func (c rolloutConds) task(t cluster.Task, remove bool) (rolloutWrite, error) {
	key := store.TaskKey(t.App, t.ID)
	w := rolloutWrite{
		service: t.ServiceID, base: c.service(t.ServiceID),
		cond: store.Cond{Key: key, Rev: int64(t.Rev)}, op: store.Op{Key: key, Delete: true},
	}
	var err error
	if !remove {
		w.op, err = store.PutJSON(key, t)
	}
	return w, err
}
