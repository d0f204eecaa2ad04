package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/lab"
)

// kills is how often the leading server loses its power.
const kills = 10

// measureLeaders takes the power of the server that leads, again and again, and
// cuts each off once, while labels are written without a pause through whichever
// server accepts them.
func measureLeaders(ctx context.Context, b *bench) error {
	if err := sweepLabs(ctx, b); err != nil {
		return err
	}
	return b.lab(ctx, func(l *bed) error {
		w, err := newWriter(l)
		if err != nil {
			return err
		}
		defer w.close()
		var took []float64
		for range kills {
			leader, err := l.voters(ctx, w)
			if err != nil {
				return err
			}
			d, err := w.without(ctx, leader, func() error { _, err := l.lab(ctx, "kill", leader); return err })
			if err != nil {
				return err
			}
			took = append(took, d.Seconds())
			if _, err := l.lab(ctx, "start", leader); err != nil {
				return err
			}
		}
		l.b.say("  a leader's power lost to the first accepted write: %.2f s", took)
		var cuts []float64
		for _, n := range l.status.Nodes {
			if _, err := l.voters(ctx, w); err != nil {
				return err
			}
			d, err := w.without(ctx, n.Name, func() error { _, err := l.lab(ctx, "cut", n.Name); return err })
			if err != nil {
				return err
			}
			cuts = append(cuts, d.Seconds())
			if _, err := l.lab(ctx, "heal", n.Name); err != nil {
				return err
			}
		}
		l.b.say("  a server cut off to the first accepted write: %.2f s", cuts)
		if _, err := l.voters(ctx, w); err != nil {
			return err
		}
		lost, err := w.lost(ctx)
		if err != nil {
			return err
		}
		b.set("leader_kills", float64(len(took)))
		b.set("leader_failover_s_p50", median(took))
		b.set("leader_acked_writes", float64(len(w.acked)))
		b.set("leader_acked_writes_lost", float64(lost))
		return nil
	}, "--servers", "3", "--gateways", "0")
}

// voters waits until all three servers vote and answer, and returns which leads.
func (l *bed) voters(ctx context.Context, w *writer) (leader string, err error) {
	err = until(ctx, 2*time.Minute, 200*time.Millisecond, "three servers vote and answer", func() error {
		leader = ""
		for _, c := range w.servers { // as each sees it
			list, err := c.Servers(ctx)
			if err != nil {
				return err
			}
			good := 0
			for _, s := range list {
				if s.Standing == v1.StandingVoter && s.Answers {
					good++
				}
				if s.Leader {
					leader = string(s.Node)
				}
			}
			if good != len(w.servers) || leader == "" {
				return fmt.Errorf("%+v", list)
			}
		}
		return nil
	})
	return leader, err
}

// writer writes labels of a node, each once, and remembers those that were accepted.
type writer struct {
	servers map[string]*client.Client
	n       int
	acked   map[string]string
}

func newWriter(l *bed) (*writer, error) {
	w := &writer{servers: map[string]*client.Client{}, acked: map[string]string{}}
	for _, n := range l.status.Nodes {
		c, err := client.New(client.Options{Socket: lab.DirOf(l.root, labName).APISocket(n.Name)})
		if err != nil {
			return nil, err
		}
		w.servers[n.Name] = c
	}
	return w, nil
}

func (w *writer) close() {
	for _, c := range w.servers {
		c.Close()
	}
}

// without does something to a server while writes go on through the two others,
// and returns the time from its start to the first write accepted after it that
// needed the two. Twenty more follow.
func (w *writer) without(ctx context.Context, server string, harm func() error) (time.Duration, error) {
	began := time.Now()
	var wg sync.WaitGroup
	var harmed error
	done := make(chan struct{})
	wg.Go(func() { defer close(done); harmed = harm() })
	defer wg.Wait()
	var first time.Duration
	for more := 20; more > 0; {
		after := false
		select {
		case <-done:
			after = true
		default:
		}
		if time.Since(began) > time.Minute {
			return 0, fmt.Errorf("no write is accepted without %s", server)
		}
		if err := w.write(ctx, server); err != nil {
			if ctx.Err() != nil {
				return 0, context.Cause(ctx)
			}
			continue
		}
		if after {
			more--
			if first == 0 {
				first = time.Since(began)
			}
		}
	}
	return first, harmed
}

// write tries one label through each server but one.
func (w *writer) write(ctx context.Context, not string) error {
	var failed error
	for name, c := range w.servers {
		if name == not {
			continue
		}
		w.n++
		key, value := fmt.Sprintf("k%d", w.n), fmt.Sprint(w.n)
		wctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		_, err := c.ChangeNode(wctx, "n1", v1.NodeChange{Labels: map[string]string{key: value}})
		cancel()
		if err == nil {
			w.acked[key] = value
			return nil
		}
		failed = errors.Join(failed, err)
	}
	return failed
}

// lost counts the accepted writes that some server does not know.
func (w *writer) lost(ctx context.Context) (int, error) {
	gone := map[string]bool{}
	for _, c := range w.servers {
		n, err := c.Node(ctx, cluster.NodeID("n1"))
		if err != nil {
			return 0, err
		}
		for k, v := range w.acked {
			if n.Labels[k] != v {
				gone[k] = true
			}
		}
	}
	return len(gone), nil
}
