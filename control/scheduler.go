package control

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/loop"
	"github.com/fairlead/fairlead/scheduler"
	"github.com/fairlead/fairlead/store"
)

const schedulerName = "scheduler"

// Scheduler returns the loop that puts tasks on nodes.
func Scheduler(st store.Store, m *store.Mirror, now func() time.Time, log hclog.Logger) *loop.Loop[scheduler.Snapshot, scheduler.Action] {
	s := &schedulerStore{store: st, mirror: m, now: now, log: log}
	return &loop.Loop[scheduler.Snapshot, scheduler.Action]{
		Name: schedulerName, Snapshot: s.snapshot, Plan: scheduler.Plan, Apply: s.apply,
		Changed: m.Changed, Resync: 30 * time.Second, Gather: 2 * time.Millisecond, Log: log,
	}
}

type schedulerStore struct {
	store     store.Store
	mirror    *store.Mirror
	now       func() time.Time
	log       hclog.Logger
	committed int64 // revision of the last write
}

func (s *schedulerStore) snapshot(ctx context.Context) (scheduler.Snapshot, error) {
	out := scheduler.Snapshot{Now: s.now()}
	if err := caughtUp(ctx, s.mirror, s.committed); err != nil {
		return out, err
	}
	s.mirror.Read(func(v store.View) {
		out.Rev = cluster.StoreRev(v.Rev())
		out.Nodes, out.Services, out.Tasks = store.Nodes(v), store.Services(v), store.Tasks(v)
		out.Services = append(out.Services, hookServices(v)...)
		out.Placements, out.Statuses = store.Placements(v), store.Statuses(v)
		for _, d := range store.All[cluster.Decision](v, store.PrefixDecisions+schedulerName+"/", nil) {
			out.Notes = append(out.Notes, scheduler.Note{
				Object: d.V.Object, Task: d.V.Task, Reason: d.V.Reason, Rev: cluster.StoreRev(d.Rev),
			})
		}
		out.Lost, out.Kept = store.LostVolumes(v), store.VolumePlaces(v)
		turn, _ := v.Entry(store.TurnKey(schedulerName))
		out.Turn = cluster.StoreRev(turn.Rev)
	})
	return out, nil
}

// apply writes the actions in their order, in as few transactions as they fit
// in. Each compares the turn of the one before it, so that two nodes for one
// task cannot come from two looks at the store.
func (s *schedulerStore) apply(ctx context.Context, snap scheduler.Snapshot, acts []scheduler.Action) error {
	w := &turns{store: s.store, key: store.TurnKey(schedulerName), turn: int64(snap.Turn), value: []byte(`"` + schedulerName + `"`)}
	defer func() { s.committed = max(s.committed, w.rev) }()
	placed := 0
	for _, a := range acts {
		conds, op, err := s.write(snap, a)
		if err != nil {
			return err
		}
		if op.Key == "" {
			continue
		}
		if _, ok := a.(scheduler.Place); ok {
			placed++
		}
		if err := w.add(ctx, conds, op); err != nil {
			return fmt.Errorf("write placements: %w", err)
		}
	}
	if err := w.flush(ctx); err != nil {
		return fmt.Errorf("write placements: %w", err)
	}
	if placed > 0 {
		s.log.Info("placed tasks", "tasks", placed, "transactions", w.commits)
	}
	return nil
}

// write returns what one action writes, and the revisions it was decided on.
func (s *schedulerStore) write(snap scheduler.Snapshot, a scheduler.Action) ([]store.Cond, store.Op, error) {
	switch a := a.(type) {
	case scheduler.Place:
		x := a.Placement
		key := store.PlacementKey(x.Node, x.Task)
		op, err := store.PutJSON(key, x)
		return []store.Cond{
			{Key: key},
			taskCond(x.App, x.Task, a.TaskRev),
			{Key: store.NodeSpecKey(x.Node), Rev: int64(a.NodeRev)},
		}, op, err
	case scheduler.SetDesire:
		x := a.Placement
		key := store.PlacementKey(x.Node, x.Task)
		op, err := store.PutJSON(key, x)
		return []store.Cond{{Key: key, Rev: int64(x.Rev)}, taskCond(x.App, x.Task, a.TaskRev)}, op, err
	case scheduler.Remove:
		x := a.Placement
		key := store.PlacementKey(x.Node, x.Task)
		return []store.Cond{{Key: key, Rev: int64(x.Rev)}, taskCond(x.App, x.Task, a.TaskRev)}, store.Op{Key: key, Delete: true}, nil
	case scheduler.Unplaced:
		if a.Noted {
			return nil, store.Op{}, nil
		}
		object := scheduler.Object(a.Service, a.Slot)
		s.log.Info("no node for a task", "task", string(a.Task), "reason", a.Reason)
		key := store.DecisionKey(schedulerName, object)
		op, err := store.PutJSON(key, cluster.Decision{
			Loop: schedulerName, Object: object, Task: a.Task, Verdict: "unplaced",
			Reason: a.Reason, Refusals: a.Refusals, At: snap.Now,
		})
		return []store.Cond{{Key: key, Rev: int64(a.NoteRev)}, taskCond(a.Service.App, a.Task, a.TaskRev)}, op, err
	case scheduler.Forget:
		key := store.DecisionKey(schedulerName, a.Note.Object)
		return []store.Cond{{Key: key, Rev: int64(a.Note.Rev)}}, store.Op{Key: key, Delete: true}, nil
	}
	return nil, store.Op{}, fmt.Errorf("scheduler action %T is not known", a)
}

func taskCond(app cluster.AppName, t cluster.TaskID, rev cluster.StoreRev) store.Cond {
	return store.Cond{Key: store.TaskKey(app, t), Rev: int64(rev)}
}

// turns gathers writes into transactions of bounded size, each of which takes
// its turn after the one before.
type turns struct {
	store   store.Store
	key     string
	value   []byte
	turn    int64 // revision of key
	txn     store.Txn
	conds   map[string]int64
	bytes   int
	rev     int64 // of the last commit
	commits int
}

// maxTurnBytes leaves room for keys and framing below store.MaxBytes.
const maxTurnBytes = 1 << 20

func (w *turns) add(ctx context.Context, conds []store.Cond, op store.Op) error {
	size := len(op.Key) + len(op.Value)
	fresh := 0
	for _, c := range conds {
		if _, ok := w.conds[c.Key]; !ok {
			fresh++
		}
	}
	// One comparison and one write of each transaction are the turn's.
	if len(w.txn.If)+fresh >= store.MaxOps || len(w.txn.Then)+1 >= store.MaxOps || w.bytes+size > maxTurnBytes {
		if err := w.flush(ctx); err != nil {
			return err
		}
	}
	if w.conds == nil {
		w.conds = map[string]int64{}
	}
	for _, c := range conds {
		if _, ok := w.conds[c.Key]; !ok {
			w.conds[c.Key] = c.Rev
			w.txn.If = append(w.txn.If, c)
		}
	}
	w.txn.Then = append(w.txn.Then, op)
	w.bytes += size
	return nil
}

func (w *turns) flush(ctx context.Context) error {
	if len(w.txn.Then) == 0 {
		return nil
	}
	t := w.txn
	t.If = append(t.If, store.Cond{Key: w.key, Rev: w.turn})
	t.Then = append(t.Then, store.Op{Key: w.key, Value: w.value})
	w.txn, w.conds, w.bytes = store.Txn{}, nil, 0
	rev, err := w.store.Commit(ctx, t)
	if err != nil {
		return err
	}
	w.turn, w.rev = rev, rev
	w.commits++
	return nil
}
