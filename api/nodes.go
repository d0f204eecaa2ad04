package api

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

func (s *Server) registerNodes(api huma.API) {
	handle(api, op(http.MethodGet, "/nodes", "list-nodes", "nodes", "List nodes"), s.listNodes)
	handle(api, op(http.MethodGet, "/nodes/{node}", "get-node", "nodes", "All that is known about a node"), s.getNode)
	handle(api, op(http.MethodPatch, "/nodes/{node}", "change-node", "nodes", "Change a node's availability and labels"), s.changeNode)
	handle(api, op(http.MethodGet, "/version", "version", "cluster", "What a client must know of the cluster"), s.version)
	handle(api, op(http.MethodGet, "/status", "status", "cluster", "The cluster at a glance"), s.status)
	handle(api, op(http.MethodGet, "/health", "health", "cluster", "Whether this server can answer; needs no token"), s.health)
}

// NodePath names a node.
type NodePath struct {
	Node string `path:"node" maxLength:"100"`
}

func (m *model) node(n cluster.Node) v1.NodeSummary {
	out := v1.NodeSummary{
		ID: n.ID, Hostname: n.Info.Hostname, Address: n.Info.Address, Alive: n.Alive, Availability: n.Availability,
		Roles: n.Info.Roles, Engine: n.Info.Engine, EngineAway: n.Info.EngineAway, Version: n.Info.Version, OS: n.Info.OS, Arch: n.Info.Arch,
		CPU: n.Info.CPU, Memory: n.Info.Memory, Labels: n.Labels,
	}
	if out.Availability == "" {
		out.Availability = cluster.Active
	}
	for _, p := range m.placements {
		if p.Node == n.ID {
			out.Tasks++
			out.ReservedCPU += p.Spec.Resources.ReserveCPU
			out.ReservedMemory += p.Spec.Resources.ReserveMemory
		}
	}
	return out
}

func (m *model) sortedNodes() []cluster.Node {
	return slices.SortedFunc(maps.Values(m.nodes), func(a, b cluster.Node) int { return strings.Compare(string(a.ID), string(b.ID)) })
}

func (s *Server) listNodes(_ context.Context, _ *noInput) ([]v1.NodeSummary, error) {
	m := s.read("")
	out := []v1.NodeSummary{}
	for _, n := range m.sortedNodes() {
		out = append(out, m.node(n))
	}
	return out, nil
}

func noNode(id string) error {
	return cluster.NotFoundf("there is no node %q; `fairlead node ls` lists them", id)
}

func (s *Server) getNode(_ context.Context, in *NodePath) (v1.NodeDetail, error) {
	m := s.read("")
	n, ok := m.nodes[cluster.NodeID(in.Node)]
	if !ok {
		return v1.NodeDetail{}, noNode(in.Node)
	}
	out := v1.NodeDetail{NodeSummary: m.node(n), EngineLabels: n.Info.Labels, PublicKey: n.Info.PublicKey, Each: []v1.TaskStatus{}, Leaving: m.movesFrom(n)}
	for _, t := range m.tasks {
		if ts := m.task(t); ts.Node == n.ID && !ts.Ended() {
			out.Each = append(out.Each, ts)
		}
	}
	s.Mirror.Read(func(v store.View) {
		if a, ok, err := store.One[cluster.AgentAck](v, store.AgentAckKey(n.ID)); ok && err == nil {
			out.Agent = &a.V
		}
		if g, ok, err := store.One[cluster.GatewayAck](v, store.GatewayAckKey(n.ID)); ok && err == nil {
			out.Gateway = &g.V
		}
	})
	return out, nil
}

type changeNodeInput struct {
	NodePath
	Body v1.NodeChange
}

func (s *Server) changeNode(ctx context.Context, in *changeNodeInput) (v1.NodeSummary, error) {
	id := cluster.NodeID(in.Node)
	for _, k := range slices.Sorted(maps.Keys(in.Body.Labels)) {
		if err := cluster.ValidName("label", k); err != nil {
			return v1.NodeSummary{}, err
		}
		if len(in.Body.Labels[k]) > 255 || strings.ContainsFunc(in.Body.Labels[k], func(r rune) bool { return r < ' ' }) {
			return v1.NodeSummary{}, cluster.Invalidf("label %s: a value has at most 255 characters and no control characters", k)
		}
	}
	err := s.decide(ctx, func(ctx context.Context) error {
		n, ok := s.read("").nodes[id]
		if !ok {
			return noNode(in.Node)
		}
		spec := n.NodeSpec
		spec.Labels = maps.Clone(spec.Labels)
		if spec.Labels == nil {
			spec.Labels = map[string]string{}
		}
		maps.Copy(spec.Labels, in.Body.Labels)
		for _, k := range in.Body.Unset {
			delete(spec.Labels, k)
		}
		if in.Body.Availability != "" {
			spec.Availability = in.Body.Availability
		}
		if spec.Availability == n.Availability && maps.Equal(spec.Labels, n.Labels) {
			return nil
		}
		st, err := put(store.NodeSpecKey(id), spec, int64(n.Rev))
		if err != nil {
			return err
		}
		s.Log.Info("changed a node", "node", id, "availability", spec.Availability, "by", who(ctx))
		return s.commit(ctx, nil, []step{st})
	})
	if err != nil {
		return v1.NodeSummary{}, err
	}
	m := s.read("")
	return m.node(m.nodes[id]), nil
}

func (s *Server) version(_ context.Context, _ *noInput) (v1.ServerInfo, error) {
	return s.info(s.read("")), nil
}

func (s *Server) info(m *model) v1.ServerInfo {
	return v1.ServerInfo{
		Version: s.Version, API: "v1", Cluster: s.Cluster, Domain: s.Domain, Nodes: len(m.nodes),
		Web: s.Entry.Web, WebSecure: s.Entry.WebSecure, Internal: s.Entry.Internal,
	}
}

func (s *Server) health(_ context.Context, _ *noInput) (v1.ServerHealth, error) {
	out := v1.ServerHealth{Version: s.Version, StoreRev: s.Mirror.Rev()}
	if out.Ready = s.hasRead(); !out.Ready {
		return out, cluster.Transientf(notRead)
	}
	return out, nil
}

func (s *Server) status(_ context.Context, _ *noInput) (v1.ClusterStatus, error) {
	m := s.readFollowing("")
	out := v1.ClusterStatus{
		ServerInfo: s.info(m), StoreRev: m.rev, Apps: len(m.apps), Services: len(m.services),
		Gateways: []cluster.GatewayAck{}, Alarms: []string{}, Node: s.Node, CA: s.CA,
	}
	out.Serving = s.hasRead()
	if s.Alarms != nil {
		out.Alarms = append(out.Alarms, s.Alarms()...)
	}
	for _, n := range m.sortedNodes() {
		switch {
		case !n.Alive:
			out.Alarms = append(out.Alarms, fmt.Sprintf("node %s does not answer", n.ID))
		case n.Info.EngineAway:
			out.NodesAlive++
			out.Alarms = append(out.Alarms, fmt.Sprintf("node %s: its Docker engine does not answer; nothing starts or stops there until it does (systemctl restart docker)", n.ID))
		default:
			out.NodesAlive++
		}
		if n.Alive && n.Info.DiskFailure != "" {
			out.Alarms = append(out.Alarms, fmt.Sprintf("node %s cannot keep on its disk what it runs, and would not start it after a reboot while no server answers; make room there: %s", n.ID, n.Info.DiskFailure))
		}
		if n.Alive && n.Info.Overlap != "" {
			out.Alarms = append(out.Alarms, fmt.Sprintf("node %s has networks of its own among the cluster's addresses, and cannot reach all of both; give that machine other addresses, or remove the route: %s", n.ID, n.Info.Overlap))
		}
	}
	out.Alarms = append(out.Alarms, m.stranded()...)
	for _, svc := range m.services {
		sum := m.service(svc)
		out.Wanted += sum.Wanted
		out.Ready += min(sum.Ready, sum.Wanted)
		out.Alarms = append(out.Alarms, m.problems(svc, sum)...)
	}
	for _, app := range slices.Sorted(maps.Keys(m.following)) {
		if d := m.following[app]; d.Wrong() {
			out.Alarms = append(out.Alarms, "delivery "+advised(d))
		}
	}
	for _, t := range m.tasks {
		if m.task(t).State == stateUnplaced {
			out.Unplaced++
		}
	}
	var agents []cluster.AgentAck
	s.Mirror.Read(func(v store.View) {
		out.Gateways = append(out.Gateways, store.GatewayAcks(v)...)
		agents = store.AgentAcks(v)
	})
	for _, a := range agents {
		if a.Error != "" && m.nodes[a.Node].Alive {
			out.Alarms = append(out.Alarms, fmt.Sprintf("node %s: %s", a.Node, a.Error))
		}
	}
	for _, g := range out.Gateways {
		if g.Error != "" && m.nodes[g.Node].Alive {
			out.Alarms = append(out.Alarms, fmt.Sprintf("gateway %s lags: %s", g.Node, g.Error))
		}
		for _, e := range slices.Sorted(maps.Keys(g.Refused)) {
			if m.nodes[g.Node].Alive {
				out.Alarms = append(out.Alarms, fmt.Sprintf("gateway %s: %s", g.Node, g.Refused[e]))
			}
		}
	}
	s.Mirror.Read(func(v store.View) {
		for _, e := range store.All[v1.CertRecord](v, store.CertKey(""), nil) {
			if w := validity(e.V, s.Now()); w != "" {
				out.Alarms = append(out.Alarms, fmt.Sprintf("certificate %s %s", e.V.Name, w))
			}
		}
		for _, n := range store.NodeNets(v) {
			for _, name := range n.Outside {
				out.Alarms = append(out.Alarms, fmt.Sprintf("node %s has network %s in addresses that are not its own any more: nothing is sent to its tasks there, and who has those addresses now is not reached from there; `fairlead node drain %s` and then `fairlead node activate %s` make it anew", n.Node, name, n.Node, n.Node))
			}
			if n.Short > 0 {
				out.Alarms = append(out.Alarms, fmt.Sprintf("node %s gets no more addresses for containers, all of the cluster's --pool is given out: it wants %d networks more than it has addresses for, up to 2 of them to keep free; remove apps there, or nodes that are gone (fairlead node rm)", n.Node, n.Short))
			}
		}
	})
	return out, nil
}
