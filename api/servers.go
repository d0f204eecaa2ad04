package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// Servers looks at the cluster's servers and changes which there are.
type Servers interface {
	// Addresses are where the servers' API is reached, host:port.
	Addresses() []string
	// List is every server, in the order of their names.
	List(ctx context.Context) ([]v1.ServerSummary, error)
	// Keys are what a server that joins is given, the secret of it encrypted to its
	// age recipient. One that would have another store than the others is refused.
	Keys(join v1.ServerJoin) (v1.ServerMembership, error)
	// MayRemove says why a server cannot be taken out of the store: that would stop it.
	MayRemove(ctx context.Context, id cluster.NodeID) error
	// Remove takes a server out of the store, unless MayRemove refuses it, or allows
	// that one which has stopped is forgotten.
	Remove(ctx context.Context, id cluster.NodeID) error
}

const joinServerPath = "/v1/join-server"

func (s *Server) registerServers(api huma.API) {
	handle(api, op(http.MethodGet, "/servers", "list-servers", "cluster", "List servers"), s.listServers)
	handle(api, op(http.MethodDelete, "/servers/{node}", "remove-server", "cluster", "Take a server out of the cluster; refused where the rest would be no majority"), s.removeServer)
	handle(api, op(http.MethodPost, "/join-server", "join-server", "cluster", "Become a server; needs a join token for servers"), s.joinServer)
}

func (s *Server) noServers() error {
	if s.Servers == nil {
		return cluster.Invalidf("no server can join this cluster: this one listens for no other machine (--listen is none)")
	}
	return nil
}

func (s *Server) listServers(ctx context.Context, _ *noInput) ([]v1.ServerSummary, error) {
	if err := s.noServers(); err != nil {
		return nil, err
	}
	return s.Servers.List(ctx)
}

type removeServerInput struct {
	NodePath
	Force bool `query:"force" doc:"also when it runs containers"`
}

func (s *Server) removeServer(ctx context.Context, in *removeServerInput) (nothing, error) {
	if err := s.noServers(); err != nil {
		return nothing{}, err
	}
	id := cluster.NodeID(in.Node)
	if err := s.Servers.MayRemove(ctx, id); err != nil {
		return nothing{}, err
	}
	if err := s.read("").abandoned(id); err != nil && !in.Force {
		return nothing{}, err
	}
	if err := s.Servers.Remove(ctx, id); err != nil {
		return nothing{}, err
	}
	s.Log.Info("removed a server", "server", id, "forced", in.Force, "by", who(ctx))
	return nothing{}, s.decide(ctx, func(ctx context.Context) error {
		var steps []step
		for _, k := range []string{store.ServerSpecKey(id), store.ServerInfoKey(id)} {
			if rev := s.rev(k); rev > 0 {
				steps = append(steps, remove(k, rev))
			}
		}
		return s.commit(ctx, nil, steps)
	})
}

// abandoned says what a server runs that nobody would look after once it is taken
// out: its agent ends with it. Of a server that is away nobody does already.
func (m *model) abandoned(id cluster.NodeID) error {
	if !m.nodes[id].Alive {
		return nil
	}
	var tasks, held []string
	for _, t := range m.tasks {
		ts := m.task(t)
		if ts.Node != id || ts.Ended() {
			continue
		}
		tasks = append(tasks, ts.Address)
		if t.Spec.HasLocalVolume() {
			held = append(held, ts.Address)
		}
	}
	if len(tasks) == 0 {
		return nil
	}
	slices.Sort(tasks)
	slices.Sort(held)
	advice := ""
	if len(held) > 0 {
		advice = fmt.Sprintf("; %s: the volumes are there and stay, so first copy what is needed (`fairlead cp`)", some(held))
	}
	return cluster.Invalidf("server %s runs containers (%s), and its agent ends with it: they would run on there with nobody to look after them, beside what replaces them elsewhere. First `fairlead node drain %s`, until `fairlead ps` shows none there%s; or --force",
		id, some(tasks), id, advice)
}

// some names the first few of many.
func some(names []string) string {
	const most = 5
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

type joinServerInput struct{ Body v1.ServerJoin }

func (s *Server) joinServer(ctx context.Context, in *joinServerInput) (out v1.ServerMembership, err error) {
	if err := s.noServers(); err != nil {
		return out, err
	}
	id := in.Body.Node
	if err := cluster.ValidName("node", string(id)); err != nil {
		return out, err
	}
	if err := s.fits(in.Body.Networks); err != nil {
		return out, err
	}
	err = s.decide(ctx, func(ctx context.Context) error {
		steps, err := s.admitServer(in.Body)
		if err != nil {
			return err
		}
		if out, err = s.Servers.Keys(in.Body); err != nil {
			return err
		}
		return s.commit(ctx, nil, steps)
	})
	if err != nil {
		return v1.ServerMembership{}, err
	}
	s.Log.Info("a server joins: it was given the cluster's keys", "server", id, "version", in.Body.Version)
	return out, nil
}

// admitServer decides whether a machine may become a server, and what to write. One
// that asks again with its own key, since an answer was lost, writes nothing.
func (s *Server) admitServer(asks v1.ServerJoin) ([]step, error) {
	id, recipient := asks.Node, asks.Recipient
	tok, found := s.joinToken(asks.Token)
	switch {
	case !found:
		return nil, unknownToken("server")
	case !tok.V.Server:
		return nil, &cluster.Error{Kind: cluster.KindForbidden, Msg: "that token is for nodes, and servers are given the cluster's keys: `fairlead server invite` makes one for a server"}
	}
	var spec store.Value[cluster.ServerSpec]
	known, isServer := false, false
	s.Mirror.Read(func(v store.View) {
		var err error
		spec, known, err = store.One[cluster.ServerSpec](v, store.ServerSpecKey(id))
		known = known && err == nil
		_, isServer = v.Entry(store.ServerInfoKey(id))
	})
	if known && spec.V.Key == recipient && s.Now().Before(tok.V.Expires) {
		return nil, nil
	}
	if !tok.V.Joins(s.Now()) {
		return nil, endedToken("server")
	}
	_, there := s.read("").nodes[id]
	if _, joined := s.nodeSpec(id); joined {
		there = true
	}
	if err := s.free(id, known || isServer, there, asks.Volumes); err != nil {
		return nil, err
	}
	server, err := put(store.ServerSpecKey(id), cluster.ServerSpec{Node: id, Key: recipient, Joined: s.Now().UTC(), By: tok.V.Name}, 0)
	if err != nil {
		return nil, err
	}
	server.conds = append(server.conds, store.Cond{Key: store.NodeSpecKey(id)})
	left := tok.V
	left.Uses--
	token, err := put(tok.Key, left, tok.Rev)
	return append([]step{server, token}, s.found(id)...), err
}

// free says that a name is a server's or a node's already, and how it becomes free, or that
// a node of that name was removed, whose volumes the machine that asks for it has not.
func (s *Server) free(id cluster.NodeID, server, node bool, volumes []string) error {
	var what, advice []string
	if server {
		what, advice = append(what, "server"), append(advice, fmt.Sprintf("`fairlead server rm %s`", id))
	}
	if node {
		what, advice = append(what, "node"), append(advice, fmt.Sprintf("`fairlead node rm %s`", id))
	}
	if len(what) == 0 {
		return s.hasHeld(id, volumes)
	}
	held := ""
	if names := s.heldVolumes(id); node && len(names) > 0 {
		held = fmt.Sprintf("; it has volumes (%s), and a machine without them takes its name only after `fairlead node rm %s --lose-volumes`", some(names), id)
	}
	return cluster.Invalidf("there is a %s %q already: choose another name with --node, or remove that one with %s%s", strings.Join(what, " and "), id, strings.Join(advice, " and then "), held)
}
