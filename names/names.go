package names

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/dns"
)

// Config of Names.
type Config struct {
	// Dir is the process's own directory, on tmpfs.
	Dir string
	// Services is the range of service addresses.
	Services netip.Prefix
	// Serving is called with the revision of the endpoints that are served, or
	// with why none are. It must not block.
	Serving func(cluster.StoreRev, error)
	Log     hclog.Logger
	Now     func() time.Time

	// Of tests: the program, the port that is asked, the node's own resolvers.
	Program    string
	Port       uint16
	ResolvConf string
}

// listenBound is how long SetNetworks waits for its networks to be served.
const listenBound = 10 * time.Second

// Names keeps a process that answers names to the containers of this node. What
// is set is fed to it, only the newest; Run does that.
type Names struct {
	cfg  Config
	wake chan struct{}

	mu         sync.Mutex
	want       map[part]*wanted
	containers map[netip.Addr]dns.Container
	answered   chan struct{} // closed and made anew at each answer of the process

	keeper // of Run alone
}

// wanted is what a part should be, and how far the process is.
type wanted struct {
	body      any
	version   int              // of body
	rev       cluster.StoreRev // of endpoints
	answered  int              // the last version that the process answered, with err
	err       error
	notBefore time.Time // to feed it again
}

func (w *wanted) due() bool { return w.answered < w.version || w.err != nil }

// New makes what Run keeps up. Containers that an earlier server knew stay known
// until their address is another's: it takes a while until they are seen again.
func New(cfg Config) *Names {
	if cfg.Serving == nil {
		cfg.Serving = func(cluster.StoreRev, error) {}
	}
	n := &Names{
		cfg: cfg, wake: make(chan struct{}, 1), answered: make(chan struct{}),
		want: map[part]*wanted{}, containers: map[netip.Addr]dns.Container{},
	}
	var kept []dns.Container
	if b, err := os.ReadFile(keptFile(cfg.Dir, partContainers)); err == nil && json.Unmarshal(b, &kept) == nil {
		for _, c := range kept {
			n.containers[c.Addr] = c
		}
	}
	return n
}

// set wants a part to be so from now on.
func (n *Names) set(p part, body any, rev cluster.StoreRev) {
	w := n.want[p]
	if w == nil {
		w = &wanted{}
		n.want[p] = w
	}
	w.body, w.rev, w.notBefore = body, rev, time.Time{}
	w.version++
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// SetEndpoints says what names mean, as of a store revision, which is not positive
// where they are of no store; Serving tells when they do. It does not block.
func (n *Names) SetEndpoints(eps []cluster.Endpoints, rev cluster.StoreRev) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if w := n.want[partEndpoints]; w == nil || w.rev != rev || rev <= 0 {
		n.set(partEndpoints, eps, rev)
	}
}

// SetNetworks says which networks are to be served. It returns once they are, or
// with the reason why some are not; Run goes on trying those.
func (n *Names) SetNetworks(ctx context.Context, nets []dns.Network) error {
	nets = slices.Clone(nets)
	n.mu.Lock()
	w := n.want[partNetworks]
	if w == nil || !same(w.body, nets) {
		n.set(partNetworks, nets, 0)
		w = n.want[partNetworks]
	}
	version := w.version
	n.mu.Unlock()
	bound := time.NewTimer(listenBound)
	defer bound.Stop()
	for {
		n.mu.Lock()
		done, err, progress := w.answered >= version, w.err, n.answered
		n.mu.Unlock()
		if done {
			return err
		}
		select {
		case <-progress:
		case <-bound.C:
			return cluster.Transientf("the process that answers names does not serve them after %s", listenBound)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func same(old any, nets []dns.Network) bool {
	o, ok := old.([]dns.Network)
	return ok && slices.Equal(o, nets)
}

// Started says what a container is, by each of its addresses. It does not block.
func (n *Names) Started(list []dns.Container) {
	n.mu.Lock()
	defer n.mu.Unlock()
	changed := n.want[partContainers] == nil
	for _, c := range list {
		old, ok := n.containers[c.Addr]
		if !ok || old.Task != c.Task || old.App != c.App || old.OwnServers != c.OwnServers || !slices.Equal(old.Networks, c.Networks) {
			n.containers[c.Addr], changed = c, true
		}
	}
	if changed {
		n.setContainers()
	}
}

// Ended forgets a container. It does not block.
func (n *Names) Ended(t cluster.TaskID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	changed := false
	for a, c := range n.containers {
		if c.Task == t {
			delete(n.containers, a)
			changed = true
		}
	}
	if changed {
		n.setContainers()
	}
}

func (n *Names) setContainers() {
	list := make([]dns.Container, 0, len(n.containers))
	for _, c := range n.containers {
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b dns.Container) int { return a.Addr.Compare(b.Addr) })
	n.set(partContainers, list, 0)
}

// Run keeps the process up and at what is wanted until ctx ends, leaves it
// running then, and returns the context's cause.
func (n *Names) Run(ctx context.Context) error {
	defer n.letGo()
	n.takeOver(ctx)
	for ctx.Err() == nil {
		n.look()
		switch s := next(n.situation()); s.do {
		case start, replace:
			n.bringUp(ctx)
		case end:
			n.kill(ctx)
		case feed:
			n.feed(ctx, s.part)
		case rest:
			n.rest(ctx, s.wait)
		}
	}
	return context.Cause(ctx)
}

func (n *Names) situation() situation {
	s := situation{Now: n.cfg.Now(), NotBefore: n.notBefore}
	if c := n.child; c != nil {
		s.Running, s.Broken, s.Current = true, n.broken, c.Program == n.program()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for p, w := range n.want {
		if w.due() {
			s.Due = append(s.Due, due{p, w.notBefore})
		}
	}
	slices.SortFunc(s.Due, func(a, b due) int { return cmp.Compare(a.part, b.part) })
	return s
}

// rest waits until something happens.
func (n *Names) rest(ctx context.Context, limit time.Duration) {
	var late <-chan time.Time
	if limit > 0 {
		t := time.NewTimer(limit)
		defer t.Stop()
		late = t.C
	}
	var exited <-chan struct{}
	if n.child != nil {
		exited = n.child.exited
	}
	select {
	case <-ctx.Done():
	case <-exited:
	case <-n.wake:
	case <-late:
	}
}

// feed gives the process a part, and takes note of its answer.
func (n *Names) feed(ctx context.Context, p part) {
	n.mu.Lock()
	w := n.want[p]
	body, version, rev := w.body, w.version, w.rev
	n.mu.Unlock()
	b, err := json.Marshal(body)
	if err == nil {
		var r reply
		if r, _, err = n.child.exchange(ctx, request{Part: p, Body: b}, nil); err != nil {
			n.lost(ctx, err)
			return
		}
		if r.Warning != "" {
			n.cfg.Log.Warn("what names are served from was not kept", "reason", r.Warning)
		}
		if r.Error != "" {
			err = errors.New(r.Error)
		}
	}
	n.mu.Lock()
	w.answered, w.err = version, err
	if err != nil && w.version == version {
		w.notBefore = n.cfg.Now().Add(refusedPause)
	}
	close(n.answered)
	n.answered = make(chan struct{})
	n.mu.Unlock()
	if p == partNetworks {
		n.hold(ctx)
	}
	if p == partEndpoints {
		n.cfg.Serving(rev, err)
	}
}

// unanswered has everything fed again, to another process.
func (n *Names) unanswered() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, w := range n.want {
		w.answered, w.err, w.notBefore = 0, nil, time.Time{}
	}
}
