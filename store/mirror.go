package store

import (
	"context"
	"encoding/json"
	"fmt"
	"sort"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/outage"
)

// Mirror keeps one prefix of the store in memory, from one list and one watch,
// so that a loop's snapshot costs no request. Decoded values are kept with
// their entry: an unchanged value is decoded once.
type Mirror struct {
	store  Store
	prefix string
	log    hclog.Logger

	mu      sync.RWMutex
	rev     int64
	byKey   map[string]*item
	sorted  []string // keys in order; nil when it must be made again
	follows bool     // a watch goes on where the list ended
	changed chan struct{}
	ready   chan struct{}
}

type item struct {
	Entry
	once    sync.Once
	decoded any
	err     error
	told    sync.Once // that it is left out
}

// NewMirror makes a mirror of prefix; it is empty until Run has listed it.
func NewMirror(s Store, prefix string, log hclog.Logger) *Mirror {
	return &Mirror{
		store: s, prefix: prefix, log: log, byKey: map[string]*item{},
		changed: make(chan struct{}), ready: make(chan struct{}),
	}
}

// Run keeps the mirror current until ctx ends, and returns the context's cause.
func (m *Mirror) Run(ctx context.Context) error {
	var away outage.Outage
	for ctx.Err() == nil {
		entries, rev, err := m.store.List(ctx, m.prefix)
		if err != nil {
			if ctx.Err() == nil {
				away.Failed(m.log, "could not list the store; will retry", "prefix", m.prefix, "error", err)
			}
			pause(ctx)
			continue
		}
		away.Over(m.log, "the store answers again", "prefix", m.prefix)
		m.replace(entries, rev)
		wctx, cancel := context.WithCancel(ctx)
		for b := range m.store.Watch(wctx, m.prefix, rev) {
			if b.Err != nil {
				m.log.Info("watch ended; listing again", "prefix", m.prefix, "error", b.Err)
				break
			}
			m.apply(b)
		}
		cancel()
		m.left()
		pause(ctx)
	}
	return context.Cause(ctx)
}

// Ready is closed once the first list is in.
func (m *Mirror) Ready() <-chan struct{} { return m.ready }

// Changed returns a channel that is closed at the next change.
func (m *Mirror) Changed() <-chan struct{} {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.changed
}

// Rev is the revision the mirror stands at.
func (m *Mirror) Rev() int64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.rev
}

// Follows reports whether the mirror is told of changes. From the end of a watch until
// the store is listed again, which takes as long as the store does not answer, it is not.
func (m *Mirror) Follows() bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.follows
}

func (m *Mirror) left() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.follows = false
}

func (m *Mirror) replace(entries []Entry, rev int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := make(map[string]*item, len(entries))
	for _, e := range entries {
		if old := m.byKey[e.Key]; old != nil && old.Rev == e.Rev {
			next[e.Key] = old
			continue
		}
		next[e.Key] = &item{Entry: e}
	}
	m.byKey, m.sorted, m.rev, m.follows = next, nil, rev, true
	m.announce()
	select {
	case <-m.ready:
	default:
		close(m.ready)
	}
}

func (m *Mirror) apply(b Batch) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, ev := range b.Events {
		_, known := m.byKey[ev.Key]
		if ev.Deleted {
			delete(m.byKey, ev.Key)
		} else {
			m.byKey[ev.Key] = &item{Entry: ev.Entry}
		}
		if known == ev.Deleted {
			m.sorted = nil
		}
	}
	m.rev = b.Rev
	m.announce()
}

func (m *Mirror) announce() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// View is a consistent look at a mirror, at one revision. Do not keep it.
type View struct{ m *Mirror }

// Read calls f with a view that does not change while f runs.
func (m *Mirror) Read(f func(v View)) {
	m.mu.RLock()
	for m.sorted == nil {
		m.mu.RUnlock()
		m.sort()
		m.mu.RLock()
	}
	defer m.mu.RUnlock()
	f(View{m})
}

func (m *Mirror) sort() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sorted == nil {
		m.sorted = make([]string, 0, len(m.byKey))
		for k := range m.byKey {
			m.sorted = append(m.sorted, k)
		}
		sort.Strings(m.sorted)
	}
}

// Rev is the revision of the view.
func (v View) Rev() int64 { return v.m.rev }

// Entry returns a key's entry.
func (v View) Entry(key string) (Entry, bool) {
	it, ok := v.m.byKey[key]
	if !ok {
		return Entry{}, false
	}
	return it.Entry, true
}

// Keys returns the keys below prefix, in order.
func (v View) Keys(prefix string) []string {
	keys := v.m.sorted
	from := sort.SearchStrings(keys, prefix)
	to := from
	for to < len(keys) && strings.HasPrefix(keys[to], prefix) {
		to++
	}
	return keys[from:to]
}

// Value is a decoded value with its entry's revisions.
type Value[T any] struct {
	Key     string
	Rev     int64
	Created int64
	V       T
}

// Belongs reports whether a value was made for owner, or after it. Otherwise it is what is
// left of an earlier one that had the same key as owner.
func Belongs[T, O any](v Value[T], owner Value[O]) bool { return v.Created >= owner.Created }

// One returns the decoded value of a key. A value that does not decode is an
// error that names the key. Do not change what V points to: it is shared.
func One[T any](v View, key string) (Value[T], bool, error) {
	it, ok := v.m.byKey[key]
	if !ok {
		return Value[T]{}, false, nil
	}
	t, err := decode[T](it)
	if err != nil {
		return Value[T]{}, false, err
	}
	return valueOf(it, t), true, nil
}

// All returns the decoded values below prefix, in key order. With keep, only
// keys for which it returns true are decoded. Values that do not decode are
// left out and logged: one bad value must not stop the others.
func All[T any](v View, prefix string, keep func(key string) bool) []Value[T] {
	out := make([]Value[T], 0, count(v, prefix, keep))
	each(v, prefix, keep, func(it *item, t *T) { out = append(out, valueOf(it, t)) })
	return out
}

func valueOf[T any](it *item, t *T) Value[T] {
	return Value[T]{Key: it.Key, Rev: it.Rev, Created: it.Created, V: *t}
}

// count is how many keys below prefix are kept.
func count(v View, prefix string, keep func(key string) bool) (n int) {
	keys := v.Keys(prefix)
	if keep == nil {
		return len(keys)
	}
	for _, k := range keys {
		if keep(k) {
			n++
		}
	}
	return n
}

// each calls f with what All returns, without a copy of it: f must not change it.
func each[T any](v View, prefix string, keep func(key string) bool, f func(it *item, t *T)) {
	for _, k := range v.Keys(prefix) {
		if keep != nil && !keep(k) {
			continue
		}
		it := v.m.byKey[k]
		t, err := decode[T](it)
		if err != nil {
			it.told.Do(func() { v.m.log.Error("left out a value that does not decode", "key", cut(k), "error", err) })
			continue
		}
		f(it, t)
	}
}

// cut keeps a key that is meant to fill the log from doing so.
func cut(key string) string {
	const most = 200
	if len(key) <= most {
		return key
	}
	return strings.ToValidUTF8(key[:most], "") + "…"
}

func decode[T any](it *item) (*T, error) {
	it.once.Do(func() {
		if it.err = bounded(it.Key, it.Value); it.err != nil {
			return
		}
		t := new(T)
		if err := json.Unmarshal(it.Value, t); err != nil {
			it.err = fmt.Errorf("decode %s: %w", cut(it.Key), err)
			return
		}
		it.decoded = t
	})
	if it.err != nil {
		return nil, it.err
	}
	t, ok := it.decoded.(*T)
	if !ok {
		return nil, fmt.Errorf("decode %s: it was read before as %T, now as %T", it.Key, it.decoded, t)
	}
	return t, nil
}

// PutJSON is the operation that writes v to key.
func PutJSON(key string, v any) (Op, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return Op{}, fmt.Errorf("encode %s: %w", key, err)
	}
	return Op{Key: key, Value: b}, nil
}
