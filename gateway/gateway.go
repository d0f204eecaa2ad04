package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/nftwatch"
	"github.com/fairlead/fairlead/outage"
)

// Cluster is what a gateway needs of the cluster's store.
type Cluster interface {
	// Follow calls apply with all pairs of the Traefik tree (whole), then with each
	// change, until ctx ends or it loses its place; the gateway then calls it again.
	Follow(ctx context.Context, apply func(whole bool, put map[string][]byte, deleted []string)) error
	// Ack records what the gateway serves.
	Ack(ctx context.Context, a cluster.GatewayAck) error
}

// Gateway runs Traefik on this node.
type Gateway struct {
	cfg     Config
	cluster Cluster
	log     hclog.Logger

	since    time.Time
	tree     *tree
	endpoint *endpoint
	nat      *nat
	first    chan struct{} // closed once the cluster's tree was read
	replace  chan chan error
	drained  chan *process
	news     chan struct{} // something new to acknowledge; holds one
	deleted  chan struct{} // somebody deleted nftables rules; holds one

	// Of the supervising goroutine alone.
	state   state
	program program
	holds   map[string]*hold
	wants   []string       // entry points of the last layout
	mapped  map[string]int // private ports that public ones are mapped to, by entry point
	crashes int

	mu      sync.Mutex
	serving []*process        // published, or still with connections of their own
	entries []string          // that are mapped
	refused map[string]string // published ports that cannot be had, by entry point, and why
}

// New makes a gateway; Run runs it.
func New(cfg Config, c Cluster, log hclog.Logger) (*Gateway, error) {
	cfg = cfg.WithDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Gateway{
		cfg: cfg, cluster: c, log: log, since: cfg.Now().UTC(),
		first: make(chan struct{}), replace: make(chan chan error), drained: make(chan *process),
		news: make(chan struct{}, 1), deleted: make(chan struct{}, 1),
		holds: map[string]*hold{},
	}, nil
}

// Run serves until ctx ends, and leaves Traefik running when it does: the next
// Run takes it over. Shutdown ends Traefik. An error is of KindInvalid when
// something of this machine must be put right first.
func (g *Gateway) Run(ctx context.Context) error {
	defer func() { // also of what a set-up that failed took
		for _, h := range g.holds {
			h.release()
		}
	}()
	l, err := g.setUp(ctx)
	if err != nil {
		return err
	}
	defer l.Close() //nolint:errcheck // closed already where it was served
	eg, ctx := errgroup.WithContext(ctx)
	eg.Go(func() error {
		if err := g.endpoint.serve(ctx, l); err != nil && ctx.Err() == nil {
			return fmt.Errorf("gateway: serve routes to Traefik: %w", err)
		}
		return context.Cause(ctx)
	})
	eg.Go(func() error { return g.follow(ctx) })
	eg.Go(func() error { return g.supervise(ctx) })
	eg.Go(func() error { return g.acknowledge(ctx) })
	eg.Go(func() error { return g.watchRules(ctx) })
	eg.Go(func() error { return g.watchDials(ctx) })
	if err := eg.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return context.Cause(ctx)
}

// watchRules says when rules were deleted, by anyone.
func (g *Gateway) watchRules(ctx context.Context) error {
	var away outage.Outage
	for {
		err := nftwatch.Deletions(ctx, nftwatch.Watched{Table: g.cfg.tableName()}, func() {
			select {
			case g.deleted <- struct{}{}:
			default:
			}
		})
		if ctx.Err() == nil {
			away.Failed(g.log, "cannot be told of rules that others delete; looking at them now and then", "every", lookEvery, "error", err)
		}
		if !wait(ctx, lookEvery) {
			return context.Cause(ctx)
		}
	}
}

// setUp prepares everything that can fail for good, before anything is started.
func (g *Gateway) setUp(ctx context.Context) (net.Listener, error) {
	if os.Geteuid() != 0 {
		return nil, cluster.Invalidf("gateway: it maps ports with nftables, which needs root")
	}
	for _, dir := range []string{g.cfg.dataDir(), g.cfg.runDir(), g.cfg.dynamicDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, cluster.Invalidf("gateway: %w", err)
		}
	}
	var err error
	if g.nat, err = newNAT(g.cfg); err != nil {
		return nil, err
	}
	if g.program, err = findTraefik(ctx, g.cfg.Traefik); err != nil {
		return nil, err
	}
	for name, port := range g.cfg.fixed() {
		h, err := holdPort("tcp", port, "give the gateway another port")
		if err != nil {
			return nil, fmt.Errorf("entry point %s: %w", name, err)
		}
		g.holds[name] = h
	}
	if g.state, err = loadState(g.cfg); err != nil {
		return nil, err
	}
	for _, f := range []dynamicFile{certificatesFile, usersFile} {
		if _, ok := f.shown(g.cfg); !ok {
			if err := f.write(g.cfg, nil, nil, false); err != nil {
				return nil, err
			}
		}
	}
	// Each start begins far above the revisions of the one before, so that a watch
	// of that time is told from one of this.
	g.tree = newTree(g.cfg.Now().UnixMilli() << 10)
	if err := g.tree.load(g.cfg.dataDir()); err != nil {
		g.log.Error("the last routes do not read; waiting for the control plane", "error", err)
	}
	g.endpoint = &endpoint{tree: g.tree}
	l, err := g.listen(ctx)
	if err != nil {
		return nil, err
	}
	// Nothing is answered there before it is closed to everyone but root.
	if err := g.nat.guard(ctx, g.state.all(), g.state.Etcd); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// listen opens the local etcd endpoint, on the port it had before when it can:
// a Traefik that runs on looks for it there.
func (g *Gateway) listen(ctx context.Context) (net.Listener, error) {
	var lc net.ListenConfig
	if g.state.Etcd != 0 {
		if l, err := lc.Listen(ctx, "tcp", "127.0.0.1:"+strconv.Itoa(g.state.Etcd)); err == nil {
			return l, nil
		}
	}
	taken := map[int]bool{}
	for _, p := range g.state.all() {
		taken[p.APIPort] = true
		for _, port := range p.Ports {
			taken[port] = true
		}
	}
	for {
		port, err := freePort(ctx, g.cfg, "tcp", g.cfg.PrivateFrom, taken)
		if err != nil {
			return nil, err
		}
		taken[port] = true
		if l, err := lc.Listen(ctx, "tcp", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
			g.state.Etcd = port
			return l, nil
		}
	}
}

// follow keeps the tree current.
func (g *Gateway) follow(ctx context.Context) error {
	const firstPause, maxPause = 100 * time.Millisecond, 5 * time.Second
	pause := firstPause
	var away outage.Outage
	for {
		err := g.cluster.Follow(ctx, func(whole bool, put map[string][]byte, deleted []string) {
			g.awaitUsers(ctx, put)
			g.tree.apply(whole, put, deleted)
			if whole {
				pause = firstPause
				away.Over(g.log, "the cluster's routes are in sight again")
				select {
				case <-g.first:
				default:
					close(g.first)
				}
			}
		})
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		away.Failed(g.log, "lost sight of the cluster's routes; serving the last ones", "error", err, "retry_in", pause)
		if !wait(ctx, pause) {
			return context.Cause(ctx)
		}
		pause = min(2*pause, maxPause)
	}
}

// wait returns false when ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// Replace starts a fresh Traefik and hands the public ports over to it; no
// request is lost. It returns once the new one is published, or with the reason
// why the old one stays. It needs Run to be running.
func (g *Gateway) Replace(ctx context.Context) error {
	done := make(chan error, 1)
	select {
	case g.replace <- done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Left reports whether a gateway of this configuration ran here that Shutdown has not
// ended: its Traefik may serve on.
func Left(cfg Config) bool {
	_, err := os.Stat(stateFile(cfg.WithDefaults()))
	return err == nil
}

// Shutdown ends every Traefik of this configuration and removes the table. Run
// must have returned, in this process or another.
func Shutdown(ctx context.Context, cfg Config, log hclog.Logger) error {
	cfg = cfg.WithDefaults()
	if err := cfg.Validate(); err != nil {
		return err
	}
	s, err := loadState(cfg)
	if err != nil {
		return err
	}
	n, err := newNAT(cfg)
	if err != nil {
		return err
	}
	procs := s.all()
	procs = append(procs, strays(cfg, procs)...)
	eg, ectx := errgroup.WithContext(ctx)
	for _, p := range procs {
		if p.adopt(ectx) {
			log.Info("stopping Traefik", "pid", p.PID)
			eg.Go(func() error { return p.stop(ectx, cfg.Grace) })
		}
	}
	err = eg.Wait()
	return errors.Join(err, n.remove(ctx), os.RemoveAll(cfg.runDir()), removeIfThere(stateFile(cfg)))
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
