package names

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/dns"
	"github.com/fairlead/fairlead/proc"
)

// keeper is what Run remembers of the process.
type keeper struct {
	child     *child
	broken    bool // it did not answer
	failed    int  // processes in a row that did not live long
	notBefore time.Time
	held      map[netip.Addr]dns.Socket
	gen       int
}

// retireWithin is how long a process may take to answer what it has read: that is
// bounded by the time limits of the resolvers that it asks.
const retireWithin = 15 * time.Second

// program is what the process should be running.
func (n *Names) program() string { return proc.FileID(n.path()) }

func (n *Names) path() string {
	if n.cfg.Program != "" {
		return n.cfg.Program
	}
	return "/proc/self/exe" // the server's own, also when its file was replaced
}

// takeOver goes on with the process of an earlier server, with its sockets.
func (n *Names) takeOver(ctx context.Context) {
	n.held = map[netip.Addr]dns.Socket{}
	known, ok := readRecord(n.cfg.Dir)
	// Whatever else answers there is fed by nobody.
	for _, stray := range strays(n.cfg.Dir) {
		if stray.ID == known.ID {
			continue
		}
		n.gen = max(n.gen, known.Generation+1)
		if exited, ok := proc.Adopt(ctx, stray.ID); ok {
			n.cfg.Log.Warn("ending a name server that is not known", "pid", stray.PID)
			n.ended(ctx, stray.ID, exited, retireWithin)
		}
	}
	n.gen = max(n.gen, known.Generation)
	if !ok {
		return
	}
	c := &child{record: known, now: n.cfg.Now}
	if c.exited, ok = proc.Adopt(ctx, known.ID); !ok {
		return
	}
	n.child = c
	err := c.connect(n.cfg.Dir)
	if err == nil {
		err = c.ask(ctx, request{Begin: n.begin()}, nil)
	}
	if err != nil {
		n.lost(ctx, err)
		return
	}
	n.hold(ctx)
	if !n.broken {
		n.cfg.Log.Info("took over the running name server", "pid", c.PID)
	}
}

func (n *Names) begin() *begin {
	return &begin{Services: n.cfg.Services, Port: n.cfg.Port, ResolvConf: n.cfg.ResolvConf}
}

// hold takes copies of the sockets that the process listens on.
func (n *Names) hold(ctx context.Context) {
	for {
		have := make([]netip.Addr, 0, len(n.held))
		for a := range n.held {
			have = append(have, a)
		}
		r, socks, err := n.child.exchange(ctx, request{Sockets: true, Held: have}, nil)
		if err != nil {
			n.lost(ctx, err)
			return
		}
		for _, a := range append(r.Gone, addrs(socks)...) {
			if s, ok := n.held[a]; ok {
				s.Close()
				delete(n.held, a)
			}
		}
		for _, s := range socks {
			n.held[s.Addr] = s
		}
		if len(socks) < maxSockets {
			return
		}
	}
}

// bringUp starts a process, and retires the one before once this one serves.
func (n *Names) bringUp(ctx context.Context) {
	old := n.child
	if old != nil {
		n.hold(ctx)
	}
	n.gen++
	c, err := n.launch(ctx)
	if ctx.Err() != nil && err != nil {
		return
	}
	if err != nil {
		n.failed++
		n.notBefore = n.cfg.Now().Add(pause(n.failed))
		n.cfg.Log.Error("could not start the process that answers names; will try again", "error", err)
		n.cfg.Serving(0, fmt.Errorf("no process answers names: %w", err))
		return
	}
	n.child, n.broken = c, false
	n.unanswered()
	n.cfg.Log.Info("started the process that answers names", "pid", c.PID)
	if old == nil {
		return
	}
	// It stops reading at once, and may take its time to answer.
	err = old.ask(ctx, request{Retire: true}, nil)
	go func() {
		defer old.close()
		if err == nil {
			n.ended(ctx, old.ID, old.exited, retireWithin)
		} else {
			n.ended(ctx, old.ID, old.exited, 0)
		}
	}()
}

// launch starts a process on the sockets that are held. It serves when this returns.
func (n *Names) launch(ctx context.Context) (*child, error) {
	c := &child{record: record{Generation: n.gen, Program: n.program()}, now: n.cfg.Now, born: n.cfg.Now()}
	if err := c.start(n.cfg.Dir, n.path()); err != nil {
		return nil, err
	}
	err := c.connect(n.cfg.Dir)
	if err == nil {
		err = c.ask(ctx, request{Begin: n.begin()}, nil)
	}
	held := make([]dns.Socket, 0, len(n.held))
	for _, s := range n.held {
		held = append(held, s)
	}
	for some := range slices.Chunk(held, maxSockets) {
		if err == nil {
			err = c.ask(ctx, request{}, some)
		}
	}
	if err == nil {
		err = c.ask(ctx, request{Recall: true}, nil)
	}
	if err == nil {
		err = c.write(n.cfg.Dir)
	}
	if err != nil {
		c.close()
		n.ended(ctx, c.ID, c.exited, 0)
		return nil, fmt.Errorf("%w: %s", err, lastWords(n.cfg.Dir))
	}
	return c, nil
}

// look takes note of the process's end.
func (n *Names) look() {
	c := n.child
	if c == nil {
		return
	}
	select {
	case <-c.exited:
	default:
		return
	}
	n.child, n.broken = nil, false
	c.close()
	n.unanswered()
	if n.cfg.Now().Sub(c.born) >= stableAfter { // of one that was taken over too
		n.failed = 0
	} else {
		n.failed++
	}
	n.notBefore = n.cfg.Now().Add(pause(n.failed))
	n.cfg.Log.Error("the process that answers names ended by itself; starting another", "pid", c.PID, "last_words", lastWords(n.cfg.Dir))
	if n.failed > 1 {
		n.cfg.Serving(0, errors.New("the process that answers names ends again and again"))
	}
}

// lost takes note that the process does not answer.
func (n *Names) lost(ctx context.Context, err error) {
	if ctx.Err() == nil {
		n.broken = true
		n.cfg.Log.Warn("the process that answers names does not answer the server", "pid", n.child.PID, "error", err)
	}
}

// kill ends a process that does not answer.
func (n *Names) kill(ctx context.Context) {
	n.ended(ctx, n.child.ID, n.child.exited, 0)
	select {
	case <-n.child.exited:
	case <-ctx.Done():
	}
}

// ended ends a process, by force after grace.
func (n *Names) ended(ctx context.Context, id proc.ID, exited <-chan struct{}, grace time.Duration) {
	if err := proc.Stop(ctx, id, exited, "the name server", grace); err != nil && ctx.Err() == nil {
		n.cfg.Log.Error("could not end a name server", "error", err)
	}
}

// letGo leaves the process to the next server.
func (n *Names) letGo() {
	if n.child != nil {
		n.child.close()
	}
	for _, s := range n.held {
		s.Close()
	}
}

// Shutdown ends what answers names from a directory, and removes the directory.
// Run must have returned, in this process or another.
func Shutdown(ctx context.Context, dir string, log hclog.Logger) error {
	var errs []error
	for _, p := range strays(dir) {
		if exited, ok := proc.Adopt(ctx, p.ID); ok {
			log.Info("stopping the name server", "pid", p.PID)
			errs = append(errs, proc.Stop(ctx, p.ID, exited, "the name server", retireWithin))
		}
	}
	return errors.Join(append(errs, os.RemoveAll(dir))...)
}

// Running returns the PID of the process that answers names from a directory, 0
// when none does.
func Running(dir string) int {
	if r, ok := readRecord(dir); ok && r.Alive() {
		return r.PID
	}
	return 0
}
