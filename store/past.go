package store

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// lookEvery is how often a client that asks etcd for nothing looks whether the store was
// put back to an older state.
const lookEvery = 20 * time.Second

// past notices that a store was put back to an older state, as from a snapshot. A watch
// would say nothing of it: etcd lets it wait for a revision that the store had once, and
// by the time that comes again it is another change's.
//
// Reads and writes are linearizable, so what answers them is at no older revision than
// any that was known when they were sent.
type past struct {
	answers atomic.Int64 // that were compared

	mu    sync.Mutex
	known int64         // the newest revision
	over  chan struct{} // closed once the store is at an older one
}

func newPast() *past { return &past{over: make(chan struct{})} }

// newest is the newest revision known.
func (p *past) newest() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.known
}

// heard takes a revision that the store is known to have had, and reports whether that is
// news. over is closed when the store turns out to be at an older one.
func (p *past) heard(rev int64) (over <-chan struct{}, news bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	news = rev > p.known
	p.known = max(p.known, rev)
	return p.over, news
}

// answered takes the revision of an answer to a request that was sent when before was known.
func (p *past) answered(before, rev int64) {
	p.answers.Add(1)
	p.mu.Lock()
	defer p.mu.Unlock()
	if rev >= before {
		p.known = max(p.known, rev)
		return
	}
	p.known = rev
	close(p.over)
	p.over = make(chan struct{})
}

// get is a read whose answer past is told of.
func (e *Etcd) get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	before := e.past.newest()
	r, err := e.client.Get(ctx, key, opts...)
	if err == nil {
		e.past.answered(before, r.Header.Revision)
	}
	return r, err
}

// lookOn reads key in turns until ctx ends, unless other requests are answered meanwhile;
// with now also at once. That no answer comes says nothing.
func (e *Etcd) lookOn(ctx context.Context, key string, now bool) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		was := e.past.answers.Load()
		if now {
			lctx, cancel := context.WithTimeout(ctx, e.timeout)
			_, _ = e.get(lctx, key, clientv3.WithKeysOnly())
			cancel()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now = e.past.answers.Load() == was
	}
}
