package control

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/loop"
	"github.com/fairlead/fairlead/secrets"
	"github.com/fairlead/fairlead/store"
)

const (
	brokerName     = "broker"
	brokerVerdict  = "waiting"
	firstHold      = time.Second
	maxHold        = 30 * time.Second
	maxBrokerBytes = 1 << 20 // of one transaction; etcd takes 1.5 MiB in a request
	maxSealedBytes = store.MaxBytes - 64<<10
	// What the API accepts must pass, in the base64 of JSON: this does not compile where it would not.
	_ = uint(maxSealedBytes - cluster.MaxPayload*4/3 - 16<<10)
)

// Broker returns the loop that resolves what placed tasks need to know in secret
// and writes it, encrypted to the node of each.
func Broker(st store.Store, m *store.Mirror, resolve secrets.Resolver, now func() time.Time, log hclog.Logger) *loop.Loop[secrets.Snapshot, secrets.Action] {
	b := &broker{store: st, mirror: m, resolve: resolve, now: now, log: log, held: map[cluster.TaskID]hold{}}
	return &loop.Loop[secrets.Snapshot, secrets.Action]{
		Name: brokerName, Snapshot: b.snapshot, Plan: secrets.Plan, Apply: b.apply,
		Changed: m.Changed, Wake: b.wake, Resync: time.Minute, Log: log,
	}
}

type broker struct {
	store     store.Store
	mirror    *store.Mirror
	resolve   secrets.Resolver
	now       func() time.Time
	log       hclog.Logger
	held      map[cluster.TaskID]hold
	committed int64 // revision of the last write
}

// hold is a task whose secrets could not be had; it is tried again later.
type hold struct {
	secrets.Hold
	wait time.Duration
}

func (b *broker) snapshot(ctx context.Context) (secrets.Snapshot, error) {
	s := secrets.Snapshot{Now: b.now(), Held: map[cluster.TaskID]secrets.Hold{}}
	if err := caughtUp(ctx, b.mirror, b.committed); err != nil {
		return s, err
	}
	b.mirror.Read(func(v store.View) {
		for _, p := range store.Placements(v) {
			if p.Spec.NeedsPayload() {
				s.Placements = append(s.Placements, p)
			}
		}
		for _, r := range store.All[cluster.SecretRecord](v, store.PrefixApps, inApp("secrets")) {
			s.Records = append(s.Records, secrets.Record{SecretRecord: r.V, Rev: cluster.StoreRev(r.Rev)})
		}
		for _, c := range store.All[cluster.Config](v, store.PrefixApps, inApp("config")) {
			s.Configs = append(s.Configs, secrets.Config{Config: c.V, Rev: cluster.StoreRev(c.Rev)})
		}
		for _, n := range store.NodeInfos(v) {
			s.Nodes = append(s.Nodes, secrets.Recipient{Node: n.V.ID, Key: n.V.PublicKey, Rev: cluster.StoreRev(n.Rev)})
		}
		for _, e := range store.All[cluster.Sealed](v, store.PrefixSealed, nil) {
			s.Sealed = append(s.Sealed, secrets.Entry{Node: e.V.Node, Task: e.V.Task, Key: e.V.Key, Rev: cluster.StoreRev(e.Rev)})
		}
		for _, d := range store.All[cluster.Decision](v, store.PrefixDecisions+brokerName+"/", nil) {
			app, name, _ := strings.Cut(d.V.Object, "/")
			id := cluster.ServiceID{App: cluster.AppName(app), Name: cluster.ServiceName(name)}
			s.Notes = append(s.Notes, secrets.Note{Service: id, Reason: d.V.Reason, Rev: cluster.StoreRev(d.Rev)})
		}
	})
	b.release(s)
	for t, h := range b.held {
		s.Held[t] = h.Hold
	}
	return s, nil
}

// inApp keeps the keys apps/<app>/<kind>/….
func inApp(kind string) func(string) bool {
	return func(key string) bool {
		_, rest, _ := strings.Cut(strings.TrimPrefix(key, store.PrefixApps), "/")
		return strings.HasPrefix(rest, kind+"/")
	}
}

// release forgets the holds of tasks that are gone.
func (b *broker) release(s secrets.Snapshot) {
	for t := range b.held {
		if !slices.ContainsFunc(s.Placements, func(p cluster.NodePlacement) bool { return p.Task == t }) {
			delete(b.held, t)
		}
	}
}

func (b *broker) wake(s secrets.Snapshot) time.Duration {
	var first time.Duration
	for _, h := range b.held {
		d := max(h.Until.Sub(s.Now), time.Millisecond)
		if first == 0 || d < first {
			first = d
		}
	}
	return first
}

// apply writes what was planned. A task whose secrets cannot be had is noted and
// held; it does not stop the others.
func (b *broker) apply(ctx context.Context, s secrets.Snapshot, acts []secrets.Action) error {
	w := &batch{store: b.store}
	defer func() { b.committed = max(b.committed, w.rev) }()
	values := map[secretVersion]resolved{}
	failed := map[cluster.ServiceID]string{}
	for _, a := range acts {
		var conds []store.Cond
		var op store.Op
		var err error
		switch a := a.(type) {
		case secrets.Seal:
			conds, op, err = b.seal(ctx, a, values)
			if err != nil && ctx.Err() == nil {
				b.hold(s.Now, a, err)
				failed[a.Placement.ServiceID] = err.Error()
				continue
			}
			delete(b.held, a.Placement.Task)
		case secrets.Drop:
			key := store.SealedKey(a.Entry.Node, a.Entry.Task)
			conds, op = one(key, a.Entry.Rev), store.Op{Key: key, Delete: true}
		case secrets.Note:
			conds, op, err = b.note(a)
		case secrets.Forget:
			key := store.DecisionKey(brokerName, a.Note.Service.String())
			conds, op = one(key, a.Note.Rev), store.Op{Key: key, Delete: true}
		}
		if err != nil {
			return err
		}
		if err := w.add(ctx, conds, op); err != nil {
			return err
		}
	}
	if err := b.noteFailures(ctx, w, s, acts, failed); err != nil {
		return err
	}
	return w.flush(ctx)
}

func one(key string, rev cluster.StoreRev) []store.Cond {
	return []store.Cond{{Key: key, Rev: int64(rev)}}
}

func (b *broker) note(n secrets.Note) ([]store.Cond, store.Op, error) {
	key := store.DecisionKey(brokerName, n.Service.String())
	op, err := store.PutJSON(key, cluster.Decision{
		Loop: brokerName, Object: n.Service.String(), Verdict: brokerVerdict, Reason: n.Reason, At: b.now(),
	})
	return one(key, n.Rev), op, err
}

// noteFailures tells why secrets could not be had, where no other note does.
func (b *broker) noteFailures(ctx context.Context, w *batch, s secrets.Snapshot, acts []secrets.Action, failed map[cluster.ServiceID]string) error {
	for _, a := range acts {
		if n, ok := a.(secrets.Note); ok {
			delete(failed, n.Service)
		}
	}
	for id, reason := range failed {
		n := secrets.Note{Service: id, Reason: reason}
		if i := slices.IndexFunc(s.Notes, func(o secrets.Note) bool { return o.Service == id }); i >= 0 {
			n.Rev = s.Notes[i].Rev
			if s.Notes[i].Reason == reason {
				continue
			}
		}
		conds, op, err := b.note(n)
		if err != nil {
			return err
		}
		if err := w.add(ctx, conds, op); err != nil {
			return err
		}
	}
	return nil
}

func (b *broker) hold(now time.Time, a secrets.Seal, err error) {
	h := b.held[a.Placement.Task]
	if h.Rev < a.Newest() {
		h.wait = 0
	}
	h.wait = min(max(2*h.wait, firstHold), maxHold)
	h.Until, h.Rev = now.Add(h.wait), a.Newest()
	b.held[a.Placement.Task] = h
	b.log.Warn("a task's secrets cannot be had; will retry", "task", string(a.Placement.Task), "error", err, "retry_in", h.wait)
}

type secretVersion struct {
	cluster.SecretRef
	version int
}

// resolved is the outcome for one secret, kept for the length of one apply: fifty
// tasks that need it cost one request.
type resolved struct {
	value cluster.Secret
	err   error
}

func (b *broker) seal(ctx context.Context, a secrets.Seal, values map[secretVersion]resolved) ([]store.Cond, store.Op, error) {
	p := a.Placement
	key := store.SealedKey(p.Node, p.Task)
	conds := []store.Cond{
		{Key: key, Rev: int64(a.Rev)},
		{Key: store.PlacementKey(p.Node, p.Task), Rev: int64(p.Rev)},
		{Key: store.NodeInfoKey(p.Node), Rev: int64(a.To.Rev)},
	}
	payload := cluster.Payload{Secrets: map[string][]byte{}, Configs: map[string][]byte{}}
	for _, r := range a.Records {
		which := secretVersion{r.SecretRef, r.Version}
		v, ok := values[which]
		if !ok {
			v.value, v.err = b.resolve.Resolve(ctx, r.SecretRecord)
			values[which] = v
		}
		if v.err != nil {
			return nil, store.Op{}, v.err
		}
		payload.Secrets[r.Name] = v.value.Reveal()
		conds = append(conds, store.Cond{Key: store.SecretKey(r.SecretRef), Rev: int64(r.Rev)})
	}
	for _, c := range a.Configs {
		payload.Configs[c.Name] = c.Content
		conds = append(conds, store.Cond{Key: store.ConfigKey(c.App, c.Name, c.Hash), Rev: int64(c.Rev)})
	}
	if len(conds) > store.MaxOps {
		return nil, store.Op{}, cluster.Invalidf("service %s has %d secrets and configs; the most is %d", p.ServiceID, len(conds)-3, store.MaxOps-3)
	}
	data, err := secrets.SealPayload(payload, a.To.Key)
	if err != nil {
		return nil, store.Op{}, fmt.Errorf("node %s: %w", p.Node, err)
	}
	op, err := store.PutJSON(key, cluster.Sealed{Task: p.Task, Node: p.Node, Data: data, Key: a.To.Key})
	if err == nil && len(op.Value) > maxSealedBytes {
		err = cluster.Invalidf("the secrets and configs of service %s are too large together: %d bytes once encrypted, the most is %d", p.ServiceID, len(op.Value), maxSealedBytes)
	}
	return conds, op, err
}

// batch gathers writes into transactions of bounded size.
type batch struct {
	store store.Store
	txn   store.Txn
	bytes int
	rev   int64 // of the last commit
}

func (w *batch) add(ctx context.Context, conds []store.Cond, op store.Op) error {
	if len(w.txn.If)+len(conds) > store.MaxOps || len(w.txn.Then) == store.MaxOps || w.bytes+len(op.Value) > maxBrokerBytes {
		if err := w.flush(ctx); err != nil {
			return err
		}
	}
	for _, c := range conds {
		if !slices.Contains(w.txn.If, c) {
			w.txn.If = append(w.txn.If, c)
		}
	}
	w.txn.Then = append(w.txn.Then, op)
	w.bytes += len(op.Value)
	return nil
}

func (w *batch) flush(ctx context.Context) error {
	if len(w.txn.Then) == 0 {
		return nil
	}
	t := w.txn
	w.txn, w.bytes = store.Txn{}, 0
	rev, err := w.store.Commit(ctx, t)
	if err != nil {
		return fmt.Errorf("write sealed payloads: %w", err)
	}
	w.rev = rev
	return nil
}
