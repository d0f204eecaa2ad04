package names

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/atomicfile"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/dns"
)

// resolver is the process: a dns.Server that does what it is told.
type resolver struct {
	dir string
	log hclog.Logger

	mu     sync.Mutex
	server *dns.Server // nil until begun
	run    func()      // serves until the process ends
	done   chan struct{}
	conn   *net.UnixConn // of the newest server; one at a time is listened to
}

// serve is what the process does until ctx ends or it is told to retire.
func serve(ctx context.Context, dir string, l *net.UnixListener, log hclog.Logger) error {
	ctx, retire := context.WithCancel(ctx)
	defer retire()
	r := &resolver{dir: dir, log: log, done: make(chan struct{})}
	r.run = func() {
		defer close(r.done)
		_ = r.server.Run(ctx)
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			if ctx.Err() == nil {
				return err
			}
			break
		}
		r.take(c)
		go r.listen(ctx, c, retire)
	}
	r.mu.Lock()
	begun := r.server != nil
	r.mu.Unlock()
	if begun {
		<-r.done
	}
	return nil
}

// take listens to a new server, and no more to the one before.
func (r *resolver) take(c *net.UnixConn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn != nil {
		_ = r.conn.Close()
	}
	r.conn = c
}

// listen does what one server says until it goes away.
func (r *resolver) listen(ctx context.Context, c *net.UnixConn, retire func()) {
	defer c.Close() //nolint:errcheck // there is nobody to tell
	for {
		var req request
		fds, err := receive(c, &req)
		if err != nil {
			return
		}
		given, err := sockets(req.Given, fds)
		var answer reply
		var back []dns.Socket
		if err != nil {
			answer.Error = err.Error()
		} else {
			answer, back = r.do(ctx, c, req, given)
		}
		err = send(c, answer, back)
		for _, s := range back {
			s.Close()
		}
		if req.Retire {
			retire()
		}
		if err != nil {
			return
		}
	}
}

// do does one thing after the other, whoever asks.
func (r *resolver) do(ctx context.Context, c *net.UnixConn, req request, given []dns.Socket) (answer reply, back []dns.Socket) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if req.Begin != nil && r.server == nil {
		r.start(*req.Begin)
	}
	if r.conn != c || r.server == nil {
		for _, s := range given {
			s.Close()
		}
		return reply{Error: "it listens to another server, or was not told to begin"}, nil
	}
	r.server.Use(given)
	if req.Recall {
		r.recall(ctx)
	}
	if req.Part != "" {
		if err := r.apply(ctx, req.Part, req.Body); err != nil {
			answer.Error = err.Error()
		}
		if err := r.keep(req.Part, req.Body); err != nil {
			answer.Warning = err.Error()
		}
	}
	if req.Sockets {
		var err error
		if back, answer.Gone, err = r.sockets(req.Held); err != nil {
			answer.Error = err.Error()
		}
		answer.Given = addrs(back)
	}
	return answer, back
}

// sockets returns what is listened on and not held, and what is held for nothing.
func (r *resolver) sockets(held []netip.Addr) (back []dns.Socket, gone []netip.Addr, err error) {
	gone = slices.Clone(held)
	back, err = r.server.Sockets(func(a netip.Addr) bool {
		gone = slices.DeleteFunc(gone, func(h netip.Addr) bool { return h == a })
		return slices.Contains(held, a)
	}, maxSockets)
	return back, gone, err
}

func (r *resolver) start(b begin) {
	r.server = dns.New(dns.Config{Services: b.Services, Port: b.Port, ResolvConf: b.ResolvConf, Log: r.log})
	go r.run()
}

// recall serves what was kept. What does not read is left out: it comes again.
func (r *resolver) recall(ctx context.Context) {
	// Networks last: nothing is asked before it can be answered.
	for _, p := range []part{partEndpoints, partContainers, partNetworks} {
		b, err := os.ReadFile(keptFile(r.dir, p))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = r.apply(ctx, p, b)
		}
		if err != nil {
			r.log.Warn("what was kept cannot be served", "what", p, "error", err)
		}
	}
}

func (r *resolver) apply(ctx context.Context, p part, body []byte) error {
	switch p {
	case partNetworks:
		var nets []dns.Network
		if err := json.Unmarshal(body, &nets); err != nil {
			return err
		}
		return r.server.SetNetworks(ctx, nets)
	case partEndpoints:
		var eps []cluster.Endpoints
		if err := json.Unmarshal(body, &eps); err != nil {
			return err
		}
		r.server.SetEndpoints(eps)
	case partContainers:
		var list []dns.Container
		if err := json.Unmarshal(body, &list); err != nil {
			return err
		}
		r.server.SetContainers(list)
	default:
		return fmt.Errorf("%q is not known to this version", p)
	}
	return nil
}

func keptFile(dir string, p part) string { return filepath.Join(dir, string(p)+".json") }

// keep has the next process begin with it. The directory is on tmpfs: what is
// kept outlives processes, and no power cut, which no container outlives either.
func (r *resolver) keep(p part, body []byte) error {
	if err := atomicfile.Write(keptFile(r.dir, p), body); err != nil {
		return fmt.Errorf("keep %s: %w", p, err)
	}
	return nil
}
