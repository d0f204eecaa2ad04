package store

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// Memory is the in-process twin of etcd: revisions, transactions, watches with
// history and compaction, leases. It is for tests and simulation; nothing is kept.
type Memory struct {
	mu        sync.Mutex
	rev       int64
	compacted int64
	keys      map[string]memEntry
	history   []Event       // in order of revision, none at or below compacted
	changed   chan struct{} // closed and replaced at every change of this struct
	leases    map[LeaseID]*memLease
	nextLease LeaseID
	down      bool
}

type memEntry struct {
	Entry
	lease LeaseID
}

type memLease struct {
	ttl   time.Duration
	lost  chan struct{}
	timer *time.Timer // runs while the store is down
}

var _ Store = (*Memory)(nil)

// NewMemory makes an empty store. Like etcd's, its first write has revision 2.
func NewMemory() *Memory {
	return &Memory{
		rev: 1, keys: map[string]memEntry{}, changed: make(chan struct{}),
		leases: map[LeaseID]*memLease{},
	}
}

func (m *Memory) available(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return cluster.Transientf("store request: %w", err)
	}
	if m.down {
		return cluster.Transientf("the store does not answer")
	}
	return nil
}

// Get implements Store.
func (m *Memory) Get(ctx context.Context, key string) (Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.available(ctx); err != nil {
		return Entry{}, err
	}
	if key == "" {
		return Entry{}, cluster.Invalidf("get without a key")
	}
	e, ok := m.keys[key]
	if !ok {
		return Entry{}, cluster.NotFoundf("%s is not in the store", key)
	}
	return cloneEntry(e.Entry), nil
}

// List implements Store.
func (m *Memory) List(ctx context.Context, prefix string) ([]Entry, int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.available(ctx); err != nil {
		return nil, 0, err
	}
	var out []Entry
	for k, e := range m.keys {
		if strings.HasPrefix(k, prefix) {
			out = append(out, cloneEntry(e.Entry))
		}
	}
	slices.SortFunc(out, func(a, b Entry) int { return strings.Compare(a.Key, b.Key) })
	return out, m.rev, nil
}

// Commit implements Store.
func (m *Memory) Commit(ctx context.Context, t Txn) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := t.Check(); err != nil {
		return 0, err
	}
	if err := m.available(ctx); err != nil {
		return 0, err
	}
	for _, c := range t.If {
		if m.keys[c.Key].Rev != c.Rev {
			return 0, t.conflict()
		}
	}
	for _, o := range t.Then {
		if !o.Delete && o.Lease != 0 && m.leases[o.Lease] == nil {
			return 0, cluster.NotFoundf("write %s: lease %d is gone", o.Key, o.Lease)
		}
	}
	m.write(t.Then)
	return m.rev, nil
}

// write applies ops at one new revision. A transaction that changes nothing
// makes no revision, as in etcd. It is called with mu held.
func (m *Memory) write(ops []Op) {
	rev, n := m.rev+1, len(m.history)
	for _, o := range ops {
		old, exists := m.keys[o.Key]
		if o.Delete {
			if exists {
				delete(m.keys, o.Key)
				m.history = append(m.history, Event{Entry: Entry{Key: o.Key, Rev: rev}, Deleted: true})
			}
			continue
		}
		e := cloneEntry(Entry{Key: o.Key, Value: o.Value, Rev: rev, Created: rev})
		if exists {
			e.Created = old.Created
		}
		m.keys[o.Key] = memEntry{Entry: e, lease: o.Lease}
		m.history = append(m.history, Event{Entry: e})
	}
	if len(m.history) > n {
		m.rev = rev
		m.announce()
	}
}

func (m *Memory) announce() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// Watch implements Store.
func (m *Memory) Watch(ctx context.Context, prefix string, rev int64) <-chan Batch {
	out := make(chan Batch)
	go func() {
		defer close(out)
		for {
			b, changed := m.since(prefix, rev)
			if b.Err == nil && len(b.Events) == 0 {
				rev = max(rev, b.Rev)
				select {
				case <-ctx.Done():
					return
				case <-changed:
				}
				continue
			}
			select {
			case <-ctx.Done():
				return
			case out <- b:
			}
			if b.Err != nil {
				return
			}
			rev = b.Rev
		}
	}()
	return out
}

// since returns the events below prefix after rev, and a channel that is closed
// at the next change. Without events, Rev is how far there are none.
func (m *Memory) since(prefix string, rev int64) (Batch, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.down:
		return Batch{Err: cluster.Transientf("the store does not answer")}, m.changed
	case rev+1 < m.compacted:
		return Batch{Err: ErrCompacted}, m.changed
	}
	b := Batch{Rev: m.rev}
	from := sort.Search(len(m.history), func(i int) bool { return m.history[i].Rev > rev })
	for _, ev := range m.history[from:] {
		if strings.HasPrefix(ev.Key, prefix) {
			ev.Entry = cloneEntry(ev.Entry)
			b.Events = append(b.Events, ev)
		}
	}
	if n := len(b.Events); n > 0 {
		b.Rev = b.Events[n-1].Rev
	}
	return b, m.changed
}

// Lease implements Store. The lease lives until ctx ends, Revoke, or the store
// was down (Down) for as long as the lease's time.
func (m *Memory) Lease(ctx context.Context, ttlSeconds int64) (LeaseID, <-chan struct{}, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if ttlSeconds <= 0 {
		return 0, nil, cluster.Invalidf("lease of %d seconds", ttlSeconds)
	}
	if err := m.available(ctx); err != nil {
		return 0, nil, err
	}
	m.nextLease++
	id := m.nextLease
	l := &memLease{ttl: time.Duration(ttlSeconds) * time.Second, lost: make(chan struct{})}
	m.leases[id] = l
	context.AfterFunc(ctx, func() {
		if errors.Is(context.Cause(ctx), ErrLeft) {
			time.AfterFunc(l.ttl, func() { m.expire(id, false) })
			return
		}
		m.expire(id, false)
	})
	return id, l.lost, nil
}

// expire ends a lease and, at one revision, its keys.
func (m *Memory) expire(id LeaseID, lost bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	l, ok := m.leases[id]
	if !ok {
		return false
	}
	delete(m.leases, id)
	if l.timer != nil {
		l.timer.Stop()
	}
	if lost {
		close(l.lost)
	}
	var ops []Op
	for _, k := range slices.Sorted(maps.Keys(m.keys)) {
		if m.keys[k].lease == id {
			ops = append(ops, Op{Key: k, Delete: true})
		}
	}
	m.write(ops)
	return true
}

// Revoke ends a lease as if it had expired: its holder sees it as lost.
func (m *Memory) Revoke(_ context.Context, id LeaseID) error {
	if !m.expire(id, true) {
		return cluster.NotFoundf("lease %d is gone", id)
	}
	return nil
}

// LeaseOf answers which lease a key is under, 0 for none.
func (m *Memory) LeaseOf(_ context.Context, key string) (LeaseID, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.keys[key]
	if !ok {
		return 0, cluster.NotFoundf("%s is not in the store", key)
	}
	return e.lease, nil
}

// Compact forgets what was before rev: a watch from an earlier revision fails.
func (m *Memory) Compact(_ context.Context, rev int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if rev <= m.compacted || rev > m.rev {
		return cluster.Invalidf("compact at revision %d: the store has %d to %d", rev, m.compacted, m.rev)
	}
	m.compacted = rev
	from := sort.Search(len(m.history), func(i int) bool { return m.history[i].Rev >= rev })
	m.history = slices.Clone(m.history[from:])
	m.announce()
	return nil
}

// Down makes the store unreachable, or reachable again. While it is down every
// request is a KindTransient error, watches end with one, and leases run out.
func (m *Memory) Down(down bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down == down {
		return
	}
	m.down = down
	for id, l := range m.leases {
		if down {
			l.timer = time.AfterFunc(l.ttl, func() { m.expire(id, true) })
			continue
		}
		l.timer.Stop()
	}
	m.announce()
}

func cloneEntry(e Entry) Entry {
	if len(e.Value) == 0 {
		e.Value = nil // etcd does not tell empty from absent
		return e
	}
	e.Value = bytes.Clone(e.Value)
	return e
}
