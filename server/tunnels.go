package server

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/tunnel"
)

// refusedPause is how long a server that refuses this node is left alone: one that
// is cut off from the others may not know it yet.
const refusedPause = 10 * time.Second

// tunnels keeps a tunnel to each server, as servers come and go.
type tunnels struct {
	dialer func(server string) *tunnel.Dialer

	mu   sync.Mutex
	open map[string]*opened
}

type opened struct {
	dialer  *tunnel.Dialer
	cancel  context.CancelFunc
	refused error // what the server said when it refused this node last
}

// set opens tunnels to these servers and ends those to others. All of it ends with
// ctx, and g with an error when every server refuses this node.
func (t *tunnels) set(ctx context.Context, g *errgroup.Group, servers []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == nil {
		t.open = map[string]*opened{}
	}
	for s, o := range t.open {
		if !slices.Contains(servers, s) {
			o.cancel()
			delete(t.open, s)
		}
	}
	for _, s := range servers {
		if t.open[s] != nil {
			continue
		}
		dctx, cancel := context.WithCancel(ctx)
		o := &opened{dialer: t.dialer(s), cancel: cancel}
		t.open[s] = o
		g.Go(func() error {
			defer cancel()
			return t.keep(ctx, dctx, o)
		})
	}
}

// keep runs one tunnel until dctx ends.
func (t *tunnels) keep(ctx, dctx context.Context, o *opened) error {
	for {
		err := o.dialer.Run(dctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if dctx.Err() != nil {
			return nil // that server is one no more
		}
		if cluster.KindOf(err) == cluster.KindForbidden && t.refuse(o, err) {
			return err
		}
		timer := time.NewTimer(refusedPause)
		select {
		case <-dctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// refuse notes that a server refused this node and reports whether all do.
func (t *tunnels) refuse(o *opened, err error) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	o.refused = err
	for _, x := range t.open {
		if x.refused == nil || x.dialer.Connected() {
			return false
		}
	}
	return true
}

// connected reports whether a tunnel stands.
func (t *tunnels) connected() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, o := range t.open {
		if o.dialer.Connected() {
			return true
		}
	}
	return false
}
