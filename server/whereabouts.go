package server

import (
	"cmp"
	"context"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/outage"
	"github.com/fairlead/fairlead/store"
	"github.com/fairlead/fairlead/tunnel"
)

// untilDone repeats f until it succeeds or ctx ends.
func untilDone(ctx context.Context, log hclog.Logger, what string, f func() error) error {
	var away outage.Outage
	for {
		err := f()
		if err == nil {
			away.Over(log, "could "+what+" after all")
			return nil
		}
		if ctx.Err() == nil {
			away.Failed(log, "could not "+what+"; will retry", "error", err)
		}
		t := time.NewTimer(time.Second)
		select {
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		case <-t.C:
		}
	}
}

// info is where this server is reached.
func (m *machine) info(api net.Addr) cluster.ServerInfo {
	port := 0
	if t, ok := api.(*net.TCPAddr); ok {
		port = t.Port
	}
	return cluster.ServerInfo{
		Node: cluster.NodeID(m.Node), API: net.JoinHostPort(m.Advertise, strconv.Itoa(port)), Etcd: cmp.Or(m.etcd, m.proxied), Version: m.Version,
	}
}

// reachedAt is the URL where other machines reach the API that listens on l, ""
// without one: on the address it was given, else on the machine's own.
func reachedAt(l net.Listener, advertise string) string {
	if l == nil {
		return ""
	}
	t, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return ""
	}
	if len(t.IP) > 0 && !t.IP.IsUnspecified() {
		advertise = t.IP.String()
	}
	return "https://" + net.JoinHostPort(advertise, strconv.Itoa(t.Port))
}

// announce writes where this server is reached, for nodes and the other servers.
func (m *machine) announce(ctx context.Context, st store.Store, info cluster.ServerInfo) error {
	key := store.ServerInfoKey(info.Node)
	return untilDone(ctx, m.Log, "say where this server is reached", func() error {
		e, err := st.Get(ctx, key)
		if err != nil && cluster.KindOf(err) != cluster.KindNotFound {
			return err
		}
		if e.Rev > 0 && m.unsettled() {
			return nil // where it was is more likely right than where nobody reaches it
		}
		op, err := store.PutJSON(key, info)
		if err != nil || string(op.Value) == string(e.Value) {
			return err
		}
		_, err = st.Commit(ctx, store.Txn{If: []store.Cond{{Key: key, Rev: e.Rev}}, Then: []store.Op{op}})
		return err
	})
}

// followServers calls use with where the servers are, now and at every change.
func followServers(ctx context.Context, mirror *store.Mirror, use func([]cluster.ServerInfo)) error {
	select {
	case <-mirror.Ready():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	var last []cluster.ServerInfo
	for {
		changed := mirror.Changed()
		var now []cluster.ServerInfo
		mirror.Read(func(v store.View) { now = store.Servers(v) })
		if !slices.Equal(now, last) {
			last = now
			use(now)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		}
	}
}

// openToOthers keeps a tunnel from this server's node to each other server, as
// nodes do: whichever is asked for logs reaches the containers here.
func (n *nodeParts) openToOthers(m *machine, mirror *store.Mirror) error {
	h := n.handler()
	t := &tunnels{dialer: func(server string) *tunnel.Dialer {
		return &tunnel.Dialer{Server: server, TLS: m.pki.RootTLS(), Node: cluster.NodeID(n.Node), Handler: h, Log: n.Log.Named("tunnel")}
	}}
	return followServers(n.ctx, mirror, func(all []cluster.ServerInfo) {
		var others []string
		for _, s := range all {
			if s.Node != cluster.NodeID(n.Node) && s.API != "" {
				others = append(others, s.API)
			}
		}
		t.set(n.ctx, n.g, others)
	})
}
