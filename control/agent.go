package control

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// AgentStore is what an agent needs of the store: its own node's keys, nothing else.
type AgentStore struct {
	st  store.Store
	log hclog.Logger

	mu     sync.Mutex
	loaded bool
	have   map[string]store.Entry // this node's statuses as last read or written
}

// NewAgentStore makes the store of one node's agent.
func NewAgentStore(st store.Store, log hclog.Logger) *AgentStore {
	return &AgentStore{st: st, log: log, have: map[string]store.Entry{}}
}

// Follow calls on with the node's placements and sealed payloads, all of them,
// once read and after each change.
func (a *AgentStore) Follow(ctx context.Context, node cluster.NodeID, on func([]cluster.NodePlacement, []cluster.Sealed)) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	ps := store.NewMirror(a.st, store.PlacementPrefix(node), a.log)
	ss := store.NewMirror(a.st, store.SealedPrefix(node), a.log)
	for _, m := range []*store.Mirror{ps, ss} {
		wg.Go(func() { _ = m.Run(ctx) })
	}
	for _, m := range []*store.Mirror{ps, ss} {
		select {
		case <-m.Ready():
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	for ctx.Err() == nil {
		changedP, changedS := ps.Changed(), ss.Changed()
		var placements []cluster.NodePlacement
		var sealed []cluster.Sealed
		ps.Read(func(v store.View) { placements = store.Placements(v) })
		ss.Read(func(v store.View) {
			for _, s := range store.All[cluster.Sealed](v, store.SealedPrefix(node), nil) {
				sealed = append(sealed, s.V)
			}
		})
		on(placements, sealed)
		select {
		case <-ctx.Done():
		case <-changedP:
		case <-changedS:
		}
	}
	return context.Cause(ctx)
}

// Statuses returns what the node's agent wrote last.
func (a *AgentStore) Statuses(ctx context.Context, node cluster.NodeID) ([]cluster.Status, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.load(ctx, node); err != nil {
		return nil, err
	}
	out := make([]cluster.Status, 0, len(a.have))
	for _, k := range slices.Sorted(maps.Keys(a.have)) {
		var s cluster.Status
		if err := json.Unmarshal(a.have[k].Value, &s); err != nil {
			a.log.Error("left out a status that does not decode", "key", k, "error", err)
			continue
		}
		out = append(out, s)
	}
	return out, nil
}

func (a *AgentStore) load(ctx context.Context, node cluster.NodeID) error {
	if a.loaded {
		return nil
	}
	entries, _, err := a.st.List(ctx, store.StatusPrefix(node))
	if err != nil {
		return fmt.Errorf("read this node's statuses: %w", err)
	}
	clear(a.have)
	for _, e := range entries {
		a.have[e.Key] = e
	}
	a.loaded = true
	return nil
}

// WriteStatus puts statuses and deletes those of the tasks in gone.
func (a *AgentStore) WriteStatus(ctx context.Context, node cluster.NodeID, put []cluster.Status, gone []cluster.TaskID) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.load(ctx, node); err != nil {
		return err
	}
	var txn store.Txn
	for _, s := range put {
		op, err := statusOp(node, s)
		if err != nil {
			return err
		}
		txn.Then = append(txn.Then, op)
	}
	for _, t := range gone {
		if k := store.StatusKey(node, t); a.have[k].Rev != 0 {
			txn.Then = append(txn.Then, store.Op{Key: k, Delete: true})
		}
	}
	for len(txn.Then) > 0 {
		n := fitting(txn.Then)
		if err := a.commit(ctx, txn.Then[:n]); err != nil {
			return err
		}
		txn.Then = txn.Then[n:]
	}
	return nil
}

// maxStatus bounds one status. What a task said last is told by its log too.
const maxStatus = 64 << 10

// statusOp puts a status, without its last words where they make it too large.
func statusOp(node cluster.NodeID, s cluster.Status) (store.Op, error) {
	key := store.StatusKey(node, s.Task)
	op, err := store.PutJSON(key, s)
	if err != nil || len(op.Value) <= maxStatus {
		return op, err
	}
	const most = 1 << 10
	s.LogTail = nil
	if len(s.Reason) > most {
		s.Reason = strings.ToValidUTF8(s.Reason[:most], "") + "…"
	}
	return store.PutJSON(key, s)
}

// fitting returns how many of ops one transaction takes, at least one.
func fitting(ops []store.Op) int {
	size := 0
	for i, op := range ops {
		size += 2*len(op.Key) + len(op.Value) // each key is compared too
		if i == store.MaxOps || i > 0 && size > store.MaxBytes {
			return i
		}
	}
	return len(ops)
}

func (a *AgentStore) commit(ctx context.Context, ops []store.Op) error {
	t := store.Txn{Then: ops}
	for _, op := range ops {
		t.If = append(t.If, store.Cond{Key: op.Key, Rev: a.have[op.Key].Rev})
	}
	rev, err := a.st.Commit(ctx, t)
	if err != nil {
		// Also when it cannot be known whether it was written: read before the next write.
		a.loaded = false
		return fmt.Errorf("write statuses: %w", err)
	}
	for _, op := range ops {
		if op.Delete {
			delete(a.have, op.Key)
		} else {
			a.have[op.Key] = store.Entry{Key: op.Key, Value: op.Value, Rev: rev}
		}
	}
	return nil
}

// WriteInfo puts what the node says about itself, unless it is there already.
func (a *AgentStore) WriteInfo(ctx context.Context, info cluster.NodeInfo) error {
	op, err := store.PutJSON(store.NodeInfoKey(info.ID), info)
	if err != nil {
		return err
	}
	return a.replace(ctx, op)
}

// replace writes a key of this agent's own over whatever it holds.
func (a *AgentStore) replace(ctx context.Context, op store.Op) error {
	e, err := a.st.Get(ctx, op.Key)
	if err != nil && cluster.KindOf(err) != cluster.KindNotFound {
		return err
	}
	if err == nil && op.Lease == 0 && string(e.Value) == string(op.Value) {
		return nil
	}
	_, err = a.st.Commit(ctx, store.Txn{If: []store.Cond{{Key: op.Key, Rev: e.Rev}}, Then: []store.Op{op}})
	return err
}

// Beat keeps alive/<node> under a lease until ctx ends or the lease is lost. When
// ctx ends it leaves the key for the lease's time: the node's containers run on,
// and an agent that is back by then takes the key over; without it, every
// endpoint of the node would be withdrawn at each restart.
func (a *AgentStore) Beat(ctx context.Context, node cluster.NodeID, ttl time.Duration) error {
	held, leave := context.WithCancelCause(context.WithoutCancel(ctx))
	defer leave(store.ErrLeft)
	lease, lost, err := a.st.Lease(held, max(1, int64(ttl/time.Second)))
	if err != nil {
		return err
	}
	op, err := store.PutJSON(store.AliveKey(node), map[string]any{"node": node})
	if err != nil {
		return err
	}
	op.Lease = lease
	if err := a.replace(ctx, op); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-lost:
		return cluster.Transientf("the lease of node %s ended", node)
	}
}
