package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/user"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/plan"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/control"
	"github.com/fairlead/fairlead/store"
)

// serveAPI serves the API on the local socket, for root and the group, and by
// TLS with tokens on the listener that n has.
func (m *machine) serveAPI(ctx context.Context, g *errgroup.Group, st store.Store, mirror *store.Mirror, n *nodeParts, src *sources) (*api.Server, error) {
	var door api.Admission
	var servers api.Servers
	if m.external() {
		m.users = recordUsers{}
	}
	if n.api != nil {
		a := &admission{machine: m, users: m.users, records: st, hub: n.hub, mirror: mirror, self: m.info(n.api.Addr())}
		if !m.external() {
			g.Go(func() error { return a.keepUsers(ctx) })
		}
		g.Go(func() error { return m.announce(ctx, store.Guarded(st, store.WriterServer), a.self) })
		if n.agent != nil {
			g.Go(func() error { return n.openToOthers(m, mirror) })
		}
		r := &roster{admission: a, members: m.members}
		g.Go(func() error { return r.watch(ctx) })
		door, servers = a, r
	}
	heard := newHeard(st, mirror, m.now, m.Log.Named("store"))
	g.Go(func() error { return heard.run(ctx) })
	handler, err := api.New(api.Config{
		Store: store.Guarded(st, store.WriterAPI), Mirror: mirror, Hosts: n, Keeper: m.key, Resolver: m.resolver(),
		CA: m.pki.Fingerprint(), URL: reachedAt(n.api, m.Advertise), Node: cluster.NodeID(m.Node), Now: m.now, Log: m.Log, Version: m.Version, Cluster: m.cluster, Domain: m.Domain,
		Ranges: m.ranges(), Admission: door, Servers: servers, Logins: n.credentials, Images: n.image, Sources: src,
		Entry:   plan.EntryPoints{Web: m.HTTPPort, WebSecure: m.HTTPSPort, Internal: m.InternalPort},
		Alarms:  func() []string { return append(m.alarmList(), n.hub.Alarms()...) },
		Preview: control.Preview(mirror, m.now),
		Stale:   heard.stale,
	})
	if err != nil {
		return nil, err
	}
	m.changer = handler
	local, err := m.localSocket()
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/", handler)
	serve(ctx, g, &http.Server{
		Handler: mux, ReadHeaderTimeout: 10 * time.Second,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return api.Trusted(ctx, peer(c)) },
	}, local)
	if l := n.api; l != nil {
		serve(ctx, g, &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, TLSConfig: m.pki.ServerTLS()}, l)
	}
	return handler, nil
}

// listenAPI opens the API's TLS port, nil when there is none, and keeps
// containers from it. Call it before the agent starts: the rules are made then.
func (m *machine) listenAPI(ctx context.Context) (net.Listener, error) {
	if m.Listen == "none" {
		return nil, nil //nolint:nilnil // no port is asked for
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", m.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for the API: %w; choose another with --listen", err)
	}
	if a, ok := l.Addr().(*net.TCPAddr); ok {
		m.private = append(m.private, uint16(a.Port)) //nolint:gosec // a port
	}
	return l, nil
}

// serve runs srv on l until ctx ends; streams then end at once, and other
// requests have two seconds.
func serve(ctx context.Context, g *errgroup.Group, srv *http.Server, l net.Listener) {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	srv.BaseContext = func(net.Listener) context.Context { return base }
	g.Go(func() error {
		var err error
		if srv.TLSConfig != nil {
			err = srv.ServeTLS(l, "", "")
		} else {
			err = srv.Serve(l)
		}
		if errors.Is(err, http.ErrServerClosed) {
			return nil
		}
		return fmt.Errorf("serve the API on %s: %w", l.Addr(), err)
	})
	g.Go(func() error {
		<-ctx.Done()
		cancel()
		grace, stop := context.WithTimeout(base, 2*time.Second)
		defer stop()
		_ = srv.Shutdown(grace)
		return srv.Close()
	})
}

// localSocket listens on the socket that root and the group may use.
func (m *local) localSocket() (net.Listener, error) {
	path := m.Socket()
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the old socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on the local socket: %w", err)
	}
	mode := os.FileMode(0o600)
	if grp, err := user.LookupGroup(m.SocketGroup); err == nil {
		if gid, err := strconv.Atoi(grp.Gid); err == nil && os.Chown(path, 0, gid) == nil {
			mode = 0o660
		}
	}
	return l, errors.Join(os.Chmod(path, mode))
}

// peer names the local user at the other end of a socket.
func peer(c net.Conn) string {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return "local"
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return "local"
	}
	name := "local"
	_ = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			return
		}
		name = "uid " + strconv.FormatUint(uint64(cred.Uid), 10)
		if who, err := user.LookupId(strconv.FormatUint(uint64(cred.Uid), 10)); err == nil {
			name = who.Username
		}
	})
	return name
}
