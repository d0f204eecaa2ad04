package gateway

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fairlead/fairlead/proc"
)

const (
	lookEvery = 10 * time.Second // at the program, and at what failed before
	// refusedEvery is how often a port is tried that another program has. Who waits
	// for a deploy is told that it cannot be had only after several tries.
	refusedEvery = time.Second
	// reconnectBound is how long an adopted Traefik may take to find the local
	// endpoint again. Its client waits up to two minutes between attempts after a
	// long absence; replacing it costs no request and takes a second.
	reconnectBound = 2 * time.Second
	stableAfter    = 5 * time.Second // a Traefik that lived this long did not fail to start
)

// supervise owns the Traefik processes.
func (g *Gateway) supervise(ctx context.Context) error {
	if g.tree.empty() {
		// A first start: routes that are about to come spare a second one.
		t := time.NewTimer(3 * time.Second)
		select {
		case <-g.first:
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
	}
	if _, err := g.layout(); err != nil {
		return err
	}
	g.adoptAll(ctx)
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for ctx.Err() == nil {
		if g.state.Current == nil {
			if err := g.restart(ctx); err != nil {
				return err
			}
			continue
		}
		_, _, changed := g.tree.wanted()
		g.adjust(ctx)
		var again <-chan time.Time
		if g.anyRefused() {
			again = time.After(refusedEvery)
		}
		select {
		case <-ctx.Done():
		case <-g.state.Current.exited:
			g.log.Error("Traefik ended by itself; starting another", "pid", g.state.Current.PID, "last_words", lastWords(g.cfg, g.state.Current))
			g.died()
		case <-changed:
			wait(ctx, 20*time.Millisecond) // several ports of one deploy are one replacement
		case done := <-g.replace:
			done <- g.swap(ctx)
		case p := <-g.drained:
			g.ended(ctx, p)
		case <-again: // a port may be free by now
		case <-g.deleted:
			g.keepMapped(ctx)
		case <-look.C:
			g.keepMapped(ctx)
		}
	}
	return context.Cause(ctx)
}

func (g *Gateway) anyRefused() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.refused) > 0
}

// keepMapped writes the table again when another program has removed it or
// changed it: a firewall that is loaded anew flushes all there is.
func (g *Gateway) keepMapped(ctx context.Context) {
	if g.nat.intact(ctx) || ctx.Err() != nil {
		return
	}
	g.log.Warn("another program changed the map of the public ports; writing it again")
	if err := g.publish(ctx); err != nil && ctx.Err() == nil {
		g.log.Error("could not map the public ports", "error", err)
	}
}

// adoptAll takes over what an earlier Fairlead left running.
func (g *Gateway) adoptAll(ctx context.Context) {
	known := g.state.all()
	current := g.state.Current
	g.state.Current, g.state.Old = nil, nil
	for _, p := range append(known, strays(g.cfg, known)...) {
		g.state.Generation = max(g.state.Generation, p.Generation)
		if !p.adopt(ctx) {
			g.clean(p)
			continue
		}
		if p == current {
			if _, err := p.api.loaded(ctx); err == nil {
				g.state.Current = p
				continue
			}
		}
		g.state.Old = append(g.state.Old, p)
	}
	if p := g.state.Current; p != nil {
		g.log.Info("took over the running Traefik", "pid", p.PID)
		if err := g.publish(ctx); err != nil && ctx.Err() == nil {
			g.log.Error("could not map the public ports", "error", err)
		}
		if !g.reconnected(ctx) {
			g.log.Info("the running Traefik does not come back for its routes; replacing it")
			if err := g.swap(ctx); err != nil {
				g.log.Error("could not replace Traefik; the old one serves on", "error", err)
			}
		}
	}
	for _, p := range g.state.Old {
		go g.drain(ctx, p)
	}
}

func (g *Gateway) reconnected(ctx context.Context) bool {
	deadline := time.NewTimer(reconnectBound)
	defer deadline.Stop()
	for {
		if g.endpoint.watchers.Load() > 0 {
			return true
		}
		select {
		case <-deadline.C:
			return false
		default:
		}
		if !wait(ctx, readyPoll) {
			return true
		}
	}
}

// adjust replaces Traefik when it has not the layout that it should, or is another
// program, and else maps the ports that are published now.
func (g *Gateway) adjust(ctx context.Context) {
	p := g.state.Current
	if p == nil || p.gone() {
		return
	}
	want, err := g.layout()
	if err != nil {
		g.log.Error("could not work out Traefik's entry points", "error", err)
		return
	}
	reason := ""
	if !p.Layout.serves(want) {
		reason = "its static configuration changed"
	} else if g.lookAtProgram(ctx); g.program.path != p.Program || g.program.id != p.ProgramID {
		reason = "the program changed"
	}
	if reason == "" {
		// A port that is published no more, or again, needs no other process, which
		// would end connections to all the other ports sooner or later.
		if !maps.Equal(g.toMap(), g.mapped) {
			if err := g.publish(ctx); err != nil && ctx.Err() == nil {
				g.log.Error("could not map the public ports", "error", err)
			}
		}
		return
	}
	g.log.Info("replacing Traefik", "reason", reason)
	if err := g.swap(ctx); err != nil && ctx.Err() == nil {
		g.log.Error("could not replace Traefik; the old one serves on", "error", err)
	}
}

// lookAtProgram looks for Traefik again when the file it knows has changed. One
// that does not run, half written perhaps, is left alone until the next look.
func (g *Gateway) lookAtProgram(ctx context.Context) {
	if proc.FileID(g.program.path) == g.program.id {
		return
	}
	prog, err := findTraefik(ctx, g.cfg.Traefik)
	if err != nil {
		g.log.Warn("the changed Traefik cannot be used", "error", err)
		return
	}
	g.program = prog
}

// layout returns what Traefik should run with now. A published port that
// another program has is left out and named in the acknowledgement.
func (g *Gateway) layout() (layout, error) {
	_, extra, _ := g.tree.wanted()
	entries := make([]string, 0, len(extra)+3)
	for name := range g.cfg.fixed() {
		entries = append(entries, name)
	}
	refused := map[string]string{}
	for _, e := range extra {
		proto, port, _ := published(e)
		if g.holds[e] == nil {
			h, err := holdPort(proto, port, "publish another port")
			if err != nil {
				refused[e] = err.Error()
				continue
			}
			g.holds[e] = h
		}
		entries = append(entries, e)
	}
	slices.Sort(entries)
	g.mu.Lock()
	if !maps.Equal(refused, g.refused) {
		g.tell()
	}
	for e, reason := range refused {
		if g.refused[e] != reason {
			g.log.Error("cannot publish a port; will try again", "reason", reason)
		}
	}
	g.refused = refused // never changed: who read it may keep it
	g.mu.Unlock()
	g.wants = entries
	options, err := g.cfg.options()
	return layout{Entries: entries, Etcd: g.state.Etcd, Options: options}, err
}

// releaseHolds gives back the ports that are published no more.
func (g *Gateway) releaseHolds() {
	for e, h := range g.holds {
		if !slices.Contains(g.wants, e) && g.mapped[e] == 0 {
			h.release()
			delete(g.holds, e)
		}
	}
}

// toMap are the private ports of the current process that public ones should be
// mapped to.
func (g *Gateway) toMap() map[string]int {
	out := map[string]int{}
	if p := g.state.Current; p != nil {
		for _, e := range g.wants {
			if port := p.Ports[e]; port != 0 {
				out[e] = port
			}
		}
	}
	return out
}

// start launches a Traefik and waits until it serves the routes.
func (g *Gateway) start(ctx context.Context) (p *process, ready error, err error) {
	l, err := g.layout()
	if err != nil {
		return nil, nil, err
	}
	g.lookAtProgram(ctx)
	taken := map[int]bool{g.state.Etcd: true}
	for _, old := range g.state.all() {
		taken[old.APIPort] = true
		for _, port := range old.Ports {
			taken[port] = true
		}
	}
	g.state.Generation++
	if err := g.state.save(g.cfg); err != nil {
		return nil, nil, err
	}
	p, err = prepare(ctx, g.cfg, g.program, l, g.state.Generation, taken)
	if err != nil {
		return nil, nil, err
	}
	// Traefik listens on every address, long before its ports are mapped.
	if err := g.nat.guard(ctx, append(g.state.all(), p), g.state.Etcd); err != nil {
		return nil, nil, err
	}
	if err := p.launch(g.cfg); err != nil {
		return nil, nil, err
	}
	p.born = g.cfg.Now()
	g.log.Info("started Traefik", "pid", p.PID, "version", p.Version, "entry_points", strings.Join(l.Entries, ","))
	return p, g.ready(ctx, p), nil
}

// swap replaces the current Traefik, or leaves it when the new one does not come up.
func (g *Gateway) swap(ctx context.Context) error {
	next, notReady, err := g.start(ctx)
	if err != nil {
		return err
	}
	if notReady != nil {
		_ = next.stop(ctx, 0)
		g.clean(next)
		return notReady
	}
	old := g.state.Current
	g.state.Current = next
	if old != nil {
		g.state.Old = append(g.state.Old, old)
	}
	if err := g.publish(ctx); err != nil {
		g.state.Current = old
		g.state.Old = slices.DeleteFunc(g.state.Old, func(p *process) bool { return p == old })
		g.keepState()
		_ = next.stop(ctx, 0)
		g.clean(next)
		return err
	}
	if old != nil {
		go g.drain(ctx, old)
	}
	return nil
}

// restart brings up a Traefik when there is none. One that does not show the
// routes in time is published all the same: some may work, and a route that is
// missing is told from a dead gateway.
func (g *Gateway) restart(ctx context.Context) error {
	if g.crashes > 1 { // the first try, and the first after a death, are at once
		pause := min(250*time.Millisecond<<min(g.crashes-2, 6), 10*time.Second)
		if !wait(ctx, pause) {
			return nil
		}
	}
	g.crashes++
	p, notReady, err := g.start(ctx)
	if err != nil {
		if ctx.Err() == nil {
			g.log.Error("could not start Traefik; will try again", "error", err)
		}
		return nil
	}
	if notReady != nil && ctx.Err() == nil {
		g.log.Error("Traefik does not serve all routes", "error", notReady)
	}
	if p.gone() {
		g.clean(p)
		return nil
	}
	g.state.Current = p
	if err := g.publish(ctx); err != nil && ctx.Err() == nil {
		g.log.Error("could not map the public ports", "error", err)
	}
	return nil
}

// died notes that the current Traefik is gone, and restarts at once when it had
// been running well.
func (g *Gateway) died() {
	p := g.state.Current
	if g.cfg.Now().Sub(p.born) > stableAfter {
		g.crashes = 0
	}
	g.state.Current = nil
	// Its ports stay closed and its connections mapped until the next one is
	// published: that is when clients that try again find it.
	g.state.Old = append(g.state.Old, p)
}

// publish maps the public ports to the current process, and forgets the
// connections of processes that have ended.
func (g *Gateway) publish(ctx context.Context) error {
	// Before the ports are mapped: a Fairlead that is killed in between leaves a
	// Traefik that serves, and the next one must know which it is.
	g.keepState()
	ports := g.toMap()
	if err := g.nat.publish(ctx, ports, g.state.all(), g.state.Etcd); err != nil {
		return err
	}
	gone := unpublished(g.mapped, ports, g.state.all())
	g.mapped = ports
	if err := errors.Join(forgetUnmapped(g.cfg, ports), forget(gone)); err != nil {
		g.log.Warn("who asked before the public ports were mapped may wait for minutes", "error", err)
	}
	g.releaseHolds()
	for _, p := range slices.Clone(g.state.Old) {
		if p.gone() {
			g.clean(p)
			g.state.Old = slices.DeleteFunc(g.state.Old, func(o *process) bool { return o == p })
		}
	}
	g.nowServing()
	g.keepState()
	return nil
}

// keepState writes the state for the next Fairlead. Without it that one replaces
// Traefik instead of taking it over, which is no reason not to serve now.
func (g *Gateway) keepState() {
	if err := g.state.save(g.cfg); err != nil {
		g.log.Warn("the next start would replace Traefik", "error", err)
	}
}

func (g *Gateway) nowServing() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.serving = g.state.all()
	if g.state.Current != nil { // else the ports are mapped to the last one, and soon to the next
		g.entries = slices.Sorted(maps.Keys(g.mapped))
	}
	g.tell()
}

// tell wakes the acknowledging goroutine.
func (g *Gateway) tell() {
	select {
	case g.news <- struct{}{}:
	default:
	}
}

// ended removes what a replaced process leaves behind.
func (g *Gateway) ended(ctx context.Context, p *process) {
	g.state.Old = slices.DeleteFunc(g.state.Old, func(o *process) bool { return o == p })
	g.clean(p)
	if err := g.publish(ctx); err != nil && ctx.Err() == nil {
		g.log.Error("could not map the public ports", "error", err)
	}
	g.log.Info("the replaced Traefik has ended", "pid", p.PID)
}

// clean removes a dead process's files and connections.
func (g *Gateway) clean(p *process) {
	if err := forget(slices.Collect(maps.Values(p.Ports))); err != nil {
		g.log.Warn("could not forget connections", "error", err)
	}
	// Traefik itself gives a log that is full another name.
	full, _ := filepath.Glob(strings.TrimSuffix(p.logFile(g.cfg), ".log") + "-*.log")
	for _, path := range append(full, p.dir(g.cfg), p.logFile(g.cfg)) {
		if err := os.RemoveAll(path); err != nil {
			g.log.Warn("could not remove what a Traefik left", "error", err)
		}
	}
}
