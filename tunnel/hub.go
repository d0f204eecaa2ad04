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
	twice map[cluster.NodeID]twice
}

// twice is a machine that was refused as another is connected as the same node.
type twice struct {
	connected, refused string // addresses
	at                 time.Time
}

// NewHub makes a hub without tunnels.
func NewHub(log hclog.Logger) *Hub {
	return &Hub{log: log, nodes: map[cluster.NodeID]*Remote{}, twice: map[cluster.NodeID]twice{}}
}

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

// alarmed is how long a machine that was refused stays an alarm: it asks again before.
const alarmed = 10 * time.Minute

// Claim is KindConflict while another instance of the node is connected and answers:
// the machine was cloned, or restored beside the original. The same one comes back at
// once, also while its former connection is not known to have ended.
func (h *Hub) Claim(ctx context.Context, id cluster.NodeID, instance, from string) error {
	h.mu.Lock()
	old := h.nodes[id]
	h.mu.Unlock()
	if old == nil || instance == "" || old.instance == "" || old.instance == instance || !old.answers(ctx) {
		return nil
	}
	t := twice{hostOf(old.conn.RemoteAddr().String()), hostOf(from), time.Now()} //nolint:forbidigo // nothing is decided by it
	h.mu.Lock()
	before := h.twice[id]
	h.twice[id] = t
	h.mu.Unlock()
	if before.connected != t.connected || before.refused != t.refused {
		h.log.Warn("refused a machine: another one is connected as the same node", "node", id, "connected", t.connected, "refused", t.refused)
	}
	return &cluster.Error{Kind: cluster.KindConflict, Msg: t.text(id)}
}

func (t twice) text(id cluster.NodeID) string {
	return fmt.Sprintf("two machines are node %s, as one is a copy of the other: that at %s is connected, that at %s is refused. "+
		"On the one that is the copy: `fairlead system uninstall --purge`, which removes what it has of Fairlead, and join as another node", id, t.connected, t.refused)
}

func hostOf(addr string) string {
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return addr
}

// Alarms are the nodes that more than one machine is.
func (h *Hub) Alarms() (out []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(h.twice)) {
		t := h.twice[id]
		if time.Since(t.at) > alarmed { //nolint:forbidigo // as above
			delete(h.twice, id)
			continue
		}
		out = append(out, t.text(id))
	}
	return out
}

// answers reports whether there is somebody at the other end.
func (r *Remote) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://node/", nil)
	if err != nil {
		return false
	}
	resp, err := r.rt.RoundTrip(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close() // of an answer that there is no such call
	return true
}

// Serve makes conn the node's tunnel and returns when it or ctx ends.
func (h *Hub) Serve(ctx context.Context, id cluster.NodeID, instance string, conn net.Conn) error {
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
	r := &Remote{id: id, instance: instance, conn: w, rt: cc}
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
