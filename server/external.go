package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
	"github.com/fairlead/fairlead/store/proxy"
)

// external reports whether the etcd is an operator's.
func (c *Config) external() bool { return len(c.EtcdEndpoints) > 0 }

// listenNodes opens the port where nodes reach an external etcd, the one that an
// embedded etcd would have, and keeps containers from it. Call it before the agent
// starts, as listenAPI. nil: no machine can join, or the embedded etcd listens.
func (m *machine) listenNodes(ctx context.Context, api net.Listener) (net.Listener, error) {
	if api == nil || !m.external() {
		return nil, nil //nolint:nilnil // no port is needed
	}
	at := net.JoinHostPort(m.Advertise, strconv.Itoa(m.EtcdClientPort))
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", at)
	if err != nil {
		return nil, fmt.Errorf("listen for nodes that use the store: %w; choose another port with --etcd-client-port", err)
	}
	m.proxied = "https://" + at
	m.private = append(m.private, uint16(m.EtcdClientPort)) //nolint:gosec // validated
	return l, nil
}

// serveNodes lets nodes use the external etcd, each as far as its record says.
func (m *machine) serveNodes(ctx context.Context, g *errgroup.Group, l net.Listener, etcd grpc.ClientConnInterface, st store.Store, mirror *store.Mirror) {
	if l == nil {
		return
	}
	p := proxy.New(proxy.Config{
		Etcd: etcd, Records: st, Mirror: mirror, Grants: store.NodeGrants, TLS: m.pki.NodesTLS(), Log: m.Log.Named("proxy"),
	})
	g.Go(func() error { return p.Serve(ctx, l) })
}

// recordUsers are the users of a store that nodes reach by the proxy: their records are
// all that they need, and without it a node is refused.
type recordUsers struct{}

// Users implements users.
func (recordUsers) Users(context.Context) ([]string, error) { return nil, nil }

// AddUser implements users.
func (recordUsers) AddUser(context.Context, string, []store.Grant) error { return nil }

// RemoveUser implements users.
func (recordUsers) RemoveUser(context.Context, string) error { return nil }

// storeOf names a cluster's store for people.
func storeOf(external bool) string {
	if external {
		return "external: give --etcd-endpoints, with --etcd-ca, --etcd-cert and --etcd-key, to this server too"
	}
	return "its servers' own: leave out --etcd-endpoints"
}

// sameStore refuses a server that would have another store than the cluster's.
func sameStore(endpoints []string, external bool) error {
	if ours := len(endpoints) > 0; ours != external {
		text := storeOf(ours)
		if ours {
			text += " (here it is " + strings.Join(endpoints, ",") + ")"
		}
		return cluster.Invalidf("this cluster's etcd is %s", text)
	}
	return nil
}

// clients are the servers of a cluster whose etcd is external.
func (r *roster) clients(ctx context.Context) []v1.ServerSummary {
	var out []v1.ServerSummary
	r.mirror.Read(func(v store.View) {
		lead, _ := v.Entry(store.LockKey("leader"))
		known := map[cluster.NodeID]cluster.ServerInfo{r.self.Node: r.self}
		for _, s := range store.Servers(v) {
			known[s.Node] = s
		}
		ids := serverNames(v)
		ids[r.self.Node] = true
		for id := range ids {
			s := known[id]
			out = append(out, v1.ServerSummary{
				Node: id, API: s.API, Version: s.Version, Standing: v1.StandingClient, Leader: string(lead.Value) == string(id),
			})
		}
	})
	slices.SortFunc(out, func(a, b v1.ServerSummary) int { return cmp.Compare(a.Node, b.Node) })
	var wg sync.WaitGroup
	for i := range out {
		wg.Go(func() { r.answers(ctx, &out[i]) })
	}
	wg.Wait()
	return out
}

// answers sees whether a server answers.
func (r *roster) answers(ctx context.Context, s *v1.ServerSummary) {
	switch {
	case s.Node == r.self.Node:
		s.Answers = true
		return
	case s.API == "":
		s.Problem = neverStarted
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	conn, err := (&tls.Dialer{Config: r.pki.RootTLS()}).DialContext(ctx, "tcp", s.API)
	if err != nil {
		s.Problem = "it does not answer at " + s.API
		return
	}
	_ = conn.Close()
	s.Answers = true
}

// mayForget says whether a server on an external etcd can be forgotten: nothing in
// that etcd would stop one that runs, which would only be known again.
func mayForget(list []v1.ServerSummary, id cluster.NodeID) error {
	for _, s := range list {
		switch {
		case s.Node != id:
		case s.Answers:
			return cluster.Invalidf("server %s runs, and the cluster's etcd is external, which would let it go on: stop it first (`fairlead system uninstall` there)", id)
		default:
			return nil
		}
	}
	return cluster.NotFoundf("there is no server %q; `fairlead server ls` lists them", id)
}
