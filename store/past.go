package store

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// ErrPutBack says that the store was put back to an older state, as from a snapshot.
var ErrPutBack = errors.New("the store was put back to an older state")

// lookEvery is how often a client that asks etcd for nothing else looks whether the store
// was put back.
const lookEvery = 20 * time.Second

// past notices that the store was put back. A watch would say nothing of it: etcd lets it
// wait for a revision that the store had once, and by the time that comes again it is
// another change's.
//
// Reads and writes are linearizable, so what answers them is at no older revision than any
// that was known when they were sent.
type past struct {
	answers atomic.Int64 // that were compared

	mu     sync.Mutex
	newest int64 // revision known

	over    chan struct{} // closed by putBack
	putBack func()
}

func newPast() *past {
	over := make(chan struct{})
	return &past{over: over, putBack: sync.OnceFunc(func() { close(over) })}
}

// known is the newest revision known.
func (p *past) known() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.newest
}

// heard takes a revision that a watch has told.
func (p *past) heard(rev int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.newest = max(p.newest, rev)
}

// answered takes the revision of an answer to a request that was sent when before was known.
func (p *past) answered(before, rev int64) {
	p.heard(rev)
	p.answers.Add(1)
	if rev < before {
		p.putBack()
	}
}

// AwaitPutBack returns ErrPutBack once the store turns out to have been put back: what was
// read by this client, and what was decided on that, counts no more, and its watches wait for
// changes that are gone. key is one that this client may read.
func (e *Etcd) AwaitPutBack(ctx context.Context, key string) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		was := e.past.answers.Load()
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-e.past.over:
			return ErrPutBack
		case <-tick.C:
		}
		if e.past.answers.Load() == was {
			_, _ = e.Get(ctx, key) // that no answer comes says nothing
		}
	}
}

// get is a read whose answer past is told of.
func (e *Etcd) get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	before := e.past.known()
	r, err := e.client.Get(ctx, key, opts...)
	if err == nil {
		e.past.answered(before, r.Header.Revision)
	}
	return r, err
}
