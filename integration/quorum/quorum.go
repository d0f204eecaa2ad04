// Package quorum writes through the servers of a cluster while one after the other
// is harmed, and finds out whether a write that was accepted is lost.
package quorum

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
)

// Writer writes labels of a node, each once, and remembers those that were accepted.
// It has no lock: one goroutine uses it.
type Writer struct {
	node    cluster.NodeID
	servers map[string]*client.Client
	n       int
	acked   map[string]string
}

// New makes a writer of labels of a node through servers, given by their names.
func New(node cluster.NodeID, servers map[string]*client.Client) *Writer {
	return &Writer{node: node, servers: servers, acked: map[string]string{}}
}

// Close ends the connections to the servers.
func (w *Writer) Close() {
	for _, c := range w.servers {
		c.Close()
	}
}

// Acked is how many writes were accepted.
func (w *Writer) Acked() int { return len(w.acked) }

// Voters waits until every server votes and answers, as each of them sees it, and
// returns which leads.
func (w *Writer) Voters(ctx context.Context, limit time.Duration) (leader string, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		leader, err := w.voters(ctx)
		if err == nil {
			return leader, nil
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return "", fmt.Errorf("%d servers vote and answer: not within %s: %w", len(w.servers), limit, err)
		}
	}
}

func (w *Writer) voters(ctx context.Context) (leader string, err error) {
	for _, c := range w.servers {
		list, err := c.Servers(ctx)
		if err != nil {
			return "", err
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
			return "", fmt.Errorf("%+v", list)
		}
	}
	return leader, nil
}

// Without does something to a server while writes go on through the others, and
// returns the time from its start to the first write accepted after it. Twenty more
// follow.
func (w *Writer) Without(ctx context.Context, server string, harm func() error) (time.Duration, error) {
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
			if harmed != nil {
				return 0, harmed
			}
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
	return first, nil
}

// write tries one label through each server but one.
func (w *Writer) write(ctx context.Context, not string) error {
	var failed error
	for _, name := range slices.Sorted(maps.Keys(w.servers)) {
		if name == not {
			continue
		}
		w.n++
		key, value := fmt.Sprintf("k%d", w.n), fmt.Sprint(w.n)
		wctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		_, err := w.servers[name].ChangeNode(wctx, w.node, v1.NodeChange{Labels: map[string]string{key: value}})
		cancel()
		if err == nil {
			w.acked[key] = value
			return nil
		}
		failed = errors.Join(failed, err)
	}
	return failed
}

// Lost are the accepted writes that some server does not know.
func (w *Writer) Lost(ctx context.Context) ([]string, error) {
	gone := map[string]bool{}
	for _, c := range w.servers {
		n, err := c.Node(ctx, w.node)
		if err != nil {
			return nil, err
		}
		for k, v := range w.acked {
			if n.Labels[k] != v {
				gone[k] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(gone)), nil
}
