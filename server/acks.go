package server

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// acks writes the endpoint revision that this node's kernel and name server
// serve, the lower of the two, and what does not work here. Only the newest matters: what comes while one is
// being written is written next.
type acks struct {
	store store.Store
	node  cluster.NodeID
	log   hclog.Logger

	mu            sync.Mutex
	kernel, names cluster.StoreRev
	failure       string // of the name server
	away          string // which other nodes are not reached, and why
	wake          chan struct{}
}

func newAcks(st store.Store, node cluster.NodeID, log hclog.Logger) *acks {
	return &acks{store: st, node: node, log: log, wake: make(chan struct{}, 1)}
}

// applied reports a revision that the kernel serves; it does not block.
func (a *acks) applied(rev cluster.StoreRev) {
	a.mu.Lock()
	a.kernel = max(a.kernel, rev)
	a.mu.Unlock()
	a.again()
}

// named reports a revision that the name server serves, or why it serves none; it
// does not block.
func (a *acks) named(rev cluster.StoreRev, err error) {
	a.mu.Lock()
	a.failure = ""
	if err != nil {
		a.failure = err.Error()
	} else {
		a.names = max(a.names, rev)
	}
	a.mu.Unlock()
	a.again()
}

// unreached reports which other nodes are not reached, and why; it does not block.
func (a *acks) unreached(text string) {
	a.mu.Lock()
	a.away = text
	a.mu.Unlock()
	a.again()
}

func (a *acks) again() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// wanted is what there is to acknowledge.
func (a *acks) wanted() cluster.AgentAck {
	a.mu.Lock()
	defer a.mu.Unlock()
	text := a.failure
	if text != "" && a.away != "" {
		text += "; "
	}
	return cluster.AgentAck{Node: a.node, Endpoint: min(a.kernel, a.names), Error: text + a.away}
}

func (a *acks) run(ctx context.Context) error {
	have := cluster.AgentAck{Node: a.node}
	said := ""
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-a.wake:
		}
		want := a.wanted()
		if want == have {
			continue
		}
		if err := a.write(ctx, want); err != nil {
			if ctx.Err() == nil && err.Error() != said {
				said = err.Error()
				a.log.Warn("could not acknowledge endpoints; will retry", "revision", want.Endpoint, "error", err)
			}
			time.AfterFunc(200*time.Millisecond, a.again)
			continue
		}
		have, said = want, ""
	}
}

func (a *acks) write(ctx context.Context, ack cluster.AgentAck) error {
	key := store.AgentAckKey(a.node)
	cond := store.Cond{Key: key}
	switch e, err := a.store.Get(ctx, key); {
	case err == nil:
		cond.Rev = e.Rev
	case cluster.KindOf(err) != cluster.KindNotFound:
		return err
	}
	op, err := store.PutJSON(key, ack)
	if err != nil {
		return err
	}
	_, err = a.store.Commit(ctx, store.Txn{If: []store.Cond{cond}, Then: []store.Op{op}})
	return err
}
