package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/autoscaler"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/loop"
	"github.com/fairlead/fairlead/store"
)

const autoscalerName = "autoscaler"

// AutoscalerOptions configure the autoscaler.
type AutoscalerOptions struct {
	// Samples returns the newest sample of each task, of every node.
	Samples func() []cluster.Sample
	Period  time.Duration // between two looks at a service; 0 means 15s
	Now     func() time.Time
}

// Autoscaler returns the loop that sets the counts of services by what they use.
// It looks once a period: a change in the store is no reason to look earlier.
func Autoscaler(st store.Store, m *store.Mirror, opts AutoscalerOptions, log hclog.Logger) *loop.Loop[autoscaler.Snapshot, autoscaler.Action] {
	if opts.Period <= 0 {
		opts.Period = autoscaler.DefaultPeriod
	}
	a := &autoscalerStore{store: st, mirror: m, opts: opts, log: log, seen: map[cluster.TaskID]seenSample{}}
	return &loop.Loop[autoscaler.Snapshot, autoscaler.Action]{
		Name: autoscalerName, Snapshot: a.snapshot, Plan: autoscaler.Plan, Apply: a.apply,
		Changed: func() <-chan struct{} { return nil }, Resync: opts.Period, Log: log,
	}
}

type autoscalerStore struct {
	store     store.Store
	mirror    *store.Mirror
	opts      AutoscalerOptions
	log       hclog.Logger
	seen      map[cluster.TaskID]seenSample
	committed int64 // revision of the last write
}

// seenSample is when, by this server's clock, a sample was new. The time in a
// sample is of its node's clock, which may be wrong.
type seenSample struct{ at, since time.Time }

// staleAfter is for how many periods a sample is good; at least a minute.
const staleAfter = 4

func (a *autoscalerStore) snapshot(ctx context.Context) (autoscaler.Snapshot, error) {
	s := autoscaler.Snapshot{Now: a.opts.Now(), Period: a.opts.Period}
	if err := caughtUp(ctx, a.mirror, a.committed); err != nil {
		return s, err
	}
	placed := map[cluster.TaskID]cluster.NodeID{}
	a.mirror.Read(func(v store.View) {
		for _, p := range store.Placements(v) {
			placed[p.Task] = p.Node
		}
		s.Services, s.Scales, s.Rollouts = store.Services(v), store.Scales(v), store.Rollouts(v)
		s.Tasks, s.Statuses = store.Tasks(v), store.Statuses(v)
		for _, x := range store.All[autoscaler.State](v, store.PrefixDemand, nil) {
			x.V.Rev = cluster.StoreRev(x.Rev)
			s.States = append(s.States, x.V)
		}
	})
	if a.opts.Samples != nil {
		s.Samples = a.fresh(s.Now, a.opts.Samples(), placed)
	}
	// The node that a task is placed on speaks for it, and for no other.
	s.Statuses = slices.DeleteFunc(s.Statuses, func(x cluster.Status) bool {
		node, is := placed[x.Task]
		return is && node != x.Node
	})
	return s, nil
}

// fresh returns those of all samples that are not old news, each of the node that its task
// is placed on.
func (a *autoscalerStore) fresh(now time.Time, all []cluster.Sample, placed map[cluster.TaskID]cluster.NodeID) []cluster.Sample {
	seen := make(map[cluster.TaskID]seenSample, len(all))
	out := make([]cluster.Sample, 0, len(all))
	for _, x := range all {
		if node, is := placed[x.Task]; !is || node != x.Node {
			continue
		}
		was, ok := a.seen[x.Task]
		if !ok || !was.at.Equal(x.At) {
			was = seenSample{x.At, now}
		}
		seen[x.Task] = was
		if now.Sub(was.since) < max(time.Minute, staleAfter*a.opts.Period) {
			out = append(out, x)
		}
	}
	a.seen = seen
	return out
}

// apply writes service by service: a conflict about one does not keep the others
// waiting.
func (a *autoscalerStore) apply(ctx context.Context, _ autoscaler.Snapshot, acts []autoscaler.Action) error {
	var errs []error
	for _, act := range acts {
		t, err := a.write(act)
		if err == nil {
			var rev int64
			if rev, err = a.store.Commit(ctx, t); err == nil {
				a.committed = rev
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("write counts: %w", err))
			if cluster.KindOf(err) != cluster.KindConflict {
				break
			}
		}
	}
	return errors.Join(errs...)
}

func (a *autoscalerStore) write(act autoscaler.Action) (store.Txn, error) {
	var t store.Txn
	put := func(key string, v any) error {
		op, err := store.PutJSON(key, v)
		t.Then = append(t.Then, op)
		return err
	}
	state := func(s autoscaler.State) error {
		key := store.DemandKey(s.ServiceID)
		t.If = append(t.If, store.Cond{Key: key, Rev: int64(s.Rev)})
		return put(key, s)
	}
	// The count follows from the bounds and from itself.
	decidedOn := func(id cluster.ServiceID, service, scale cluster.StoreRev) {
		t.If = append(t.If, store.Cond{Key: store.ServiceKey(id), Rev: int64(service)}, store.Cond{Key: store.ScaleKey(id), Rev: int64(scale)})
	}
	switch act := act.(type) {
	case autoscaler.SetScale:
		id := act.Scale.ServiceID
		decidedOn(id, act.ServiceRev, act.Scale.Rev)
		a.log.Info("scaled a service", "service", id.String(), "replicas", act.Scale.Replicas, "reason", act.Scale.Reason)
		return t, errors.Join(
			put(store.ScaleKey(id), act.Scale), state(act.State), put(store.DecisionKey(autoscalerName, id.String()), act.Decision),
		)
	case autoscaler.SaveState:
		id := act.State.ServiceID
		decidedOn(id, act.ServiceRev, act.ScaleRev)
		err := state(act.State)
		if d := act.Decision; d != nil {
			a.log.Info("left a service's count", "service", id.String(), "reason", d.Reason)
			err = errors.Join(err, put(store.DecisionKey(autoscalerName, id.String()), *d))
		}
		return t, err
	case autoscaler.Forget:
		key := store.DemandKey(act.State.ServiceID)
		t.If = append(t.If, store.Cond{Key: key, Rev: int64(act.State.Rev)})
		t.Then = append(t.Then, store.Op{Key: key, Delete: true},
			store.Op{Key: store.DecisionKey(autoscalerName, act.State.String()), Delete: true})
		return t, nil
	}
	return t, fmt.Errorf("autoscaler action %T is not known", act)
}
