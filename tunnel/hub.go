package tunnel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/fairlead/fairlead/cluster"
	"github.com/hashicorp/go-hclog"
)

// Hub holds a server's tunnels. The zero value is not usable: make it with NewHub.
type Hub struct {
	log hclog.Logger

	mu    sync.Mutex
	nodes map[cluster.NodeID]*Remote
}

// NewHub makes a hub without tunnels.
func NewHub(log hclog.Logger) *Hub { return &Hub{log: log, nodes: map[cluster.NodeID]*Remote{}} }

// Node finds the node's tunnel.
func (h *Hub) Node(id cluster.NodeID) (*Remote, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r := h.nodes[id]; r != nil {
		return r, nil
	}
	return nil, cluster.Transientf("node %s is not connected: its agent does not run, or its link is cut", id)
}

// Nodes are the connected nodes, in order.
func (h *Hub) Nodes() []cluster.NodeID {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Sorted(maps.Keys(h.nodes))
}

// Samples are the newest measurements of all connected nodes.
func (h *Hub) Samples() []cluster.Sample {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []cluster.Sample
	for _, r := range h.nodes {
		r.mu.Lock()
		out = append(out, r.samples...)
		r.mu.Unlock()
	}
	slices.SortFunc(out, func(a, b cluster.Sample) int { return compare(a.Task, b.Task) })
	return out
}

func compare(a, b cluster.TaskID) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Cut ends a node's tunnel; its agent may open another.
func (h *Hub) Cut(id cluster.NodeID) {
	h.mu.Lock()
	r := h.nodes[id]
	h.mu.Unlock()
	if r != nil {
		_ = r.conn.Close()
	}
}

// Serve makes conn the node's tunnel and returns when it or ctx ends.
func (h *Hub) Serve(ctx context.Context, id cluster.NodeID, conn net.Conn) error {
	w := &watched{Conn: conn, closed: make(chan struct{})}
	defer func() { _ = w.Close() }()
	t := &http.Transport{
		DialContext:        func(context.Context, string, string) (net.Conn, error) { return w, nil },
		Protocols:          http2Only(),
		HTTP2:              &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout, WriteByteTimeout: time.Minute},
		DisableCompression: true,
	}
	cc, err := t.NewClientConn(ctx, "http", "node:80") // the address means nothing: DialContext has the connection
	if err != nil {
		return fmt.Errorf("tunnel of node %s: %w", id, err)
	}
	r := &Remote{id: id, conn: w, rt: cc}
	h.mu.Lock()
	old := h.nodes[id]
	h.nodes[id] = r
	h.mu.Unlock()
	if old != nil {
		_ = old.conn.Close()
	}
	h.log.Info("a node connected", "node", id, "from", conn.RemoteAddr())
	sctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := r.followSamples(sctx); err != nil && sctx.Err() == nil {
			h.log.Warn("no usage is read from a node until it connects again", "node", id, "error", err)
		}
	})
	select {
	case <-w.closed:
		err = errors.New("the connection ended")
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	cancel()
	_ = w.Close()
	wg.Wait()
	h.mu.Lock()
	if h.nodes[id] == r {
		delete(h.nodes, id)
	}
	h.mu.Unlock()
	h.log.Info("a node's tunnel ended", "node", id, "reason", err)
	return err
}

// http2Only speaks HTTP/2 without TLS of its own: the connection is encrypted.
func http2Only() *http.Protocols {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return p
}

// watched is a connection whose end can be waited for. HTTP/2 closes it when a
// read fails or a ping is not answered.
type watched struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

func (w *watched) Close() error {
	w.once.Do(func() { close(w.closed) })
	return w.Conn.Close()
}
