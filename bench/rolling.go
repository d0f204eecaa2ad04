package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// measureRolling updates ten replicas while requests come from outside, through
// Traefik, and from inside, through the service's name and address.
func measureRolling(ctx context.Context, b *bench) error {
	image, err := b.app(ctx)
	if err != nil {
		return err
	}
	return b.with(ctx, func(n *node) error {
		r, err := n.underLoad(ctx, b, image, 10)
		if err != nil {
			return err
		}
		b.set("rolling_requests", r.requests)
		b.set("rolling_failed", r.failed)
		b.set("inside_requests", r.insideRequests)
		b.set("inside_failed", r.insideFailed)
		return nil
	})
}

// rolled is what became of the requests during an update.
type rolled struct{ requests, failed, insideRequests, insideFailed float64 }

// underLoad updates so many replicas under load.
func (n *node) underLoad(ctx context.Context, b *bench, image string, count int) (r rolled, err error) {
	if err := n.roll(ctx, image, "1", count); err != nil {
		return r, err
	}
	before, err := n.inside(ctx)
	if err != nil {
		return r, err
	}
	l := n.load(ctx, "http://roll.example.com/")
	err = n.roll(ctx, image, "2", count)
	if err == nil {
		err = pause(ctx, 2*time.Second) // what comes after the end of the update counts too
	}
	l.stop()
	if err != nil {
		return r, err
	}
	after, err := n.inside(ctx)
	if err != nil {
		return r, err
	}
	for _, e := range l.examples {
		b.say("  failed: %s", e)
	}
	if after.Failed > before.Failed { // it may have called before any replica was there
		b.say("  failed from inside, the last: %q", after.Examples)
	}
	return rolled{
		requests: float64(l.requests.Load()), failed: float64(l.failed.Load()),
		insideRequests: float64(after.Requests - before.Requests), insideFailed: float64(after.Failed - before.Failed),
	}, nil
}

// roll deploys so many replicas of a version, and the caller beside them.
func (n *node) roll(ctx context.Context, image, version string, count int) error {
	web, caller := service(image, version, count), service(image, "caller", 1)
	caller["environment"] = map[string]string{"VERSION": "caller", "UPSTREAM": "web:8080"}
	for host, s := range map[string]map[string]any{"roll.example.com": web, "caller.example.com": caller} {
		s["x-fairlead"].(map[string]any)["routes"] = []map[string]any{{"host": host, "port": 8080}}
	}
	path, err := n.compose(file("roll", map[string]any{"web": web, "caller": caller}))
	if err != nil {
		return err
	}
	_, err = n.fairlead(ctx, "deploy", "-f", path)
	return err
}

type insideCalls struct {
	Requests, Failed int64
	Examples         []string
}

// inside asks the caller for its count.
func (n *node) inside(ctx context.Context) (c insideCalls, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://caller.example.com/calls", nil)
	if err != nil {
		return c, err
	}
	resp, err := n.traefik(false).Do(req)
	if err != nil {
		return c, err
	}
	defer func() { _ = resp.Body.Close() }()
	return c, json.NewDecoder(resp.Body).Decode(&c)
}

// load is requests at a bounded rate, for at most two minutes.
type load struct {
	requests, failed atomic.Int64
	mu               sync.Mutex
	examples         []string
	stop             func()
}

// load sends GET and POST, with connections kept and not, each every 5 ms.
func (n *node) load(ctx context.Context, url string) *load {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	l := &load{}
	var workers sync.WaitGroup
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		for _, keep := range []bool{true, false} {
			c := n.traefik(keep)
			workers.Go(func() {
				defer c.CloseIdleConnections()
				l.work(ctx, c, method, url)
			})
		}
	}
	l.stop = func() { cancel(); workers.Wait() }
	return l
}

func (l *load) work(ctx context.Context, c *http.Client, method, url string) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		l.requests.Add(1)
		var body io.Reader
		if method == http.MethodPost {
			body = strings.NewReader("hello")
		}
		// A request that was begun is finished: the end of the load fails none.
		if ok, err := good(context.WithoutCancel(ctx), c, method, url, body); err != nil || !ok {
			l.failed.Add(1)
			l.mu.Lock()
			if len(l.examples) < 10 {
				l.examples = append(l.examples, fmt.Sprintf("%s %s: answered %v, %v", method, url, ok, err))
			}
			l.mu.Unlock()
		}
	}
}
