package store

import (
	"slices"
	"strings"

	"github.com/fairlead/fairlead/cluster"
)

// The functions below read one noun each from a view of Root and fill in the
// revisions that the values themselves do not carry.

// Services returns every service.
func Services(v View) []cluster.Service {
	vals := All[cluster.Service](v, PrefixApps, func(k string) bool { return segment(k, 4) == "services" })
	return fill(vals, func(s *cluster.Service, rev, created int64) {
		s.Rev, s.Created = cluster.StoreRev(rev), cluster.StoreRev(created)
	})
}

// Scales returns every service's live count.
func Scales(v View) []cluster.Scale {
	vals := All[cluster.Scale](v, PrefixApps, func(k string) bool { return segment(k, 4) == "scale" })
	return fill(vals, func(s *cluster.Scale, rev, _ int64) { s.Rev = cluster.StoreRev(rev) })
}

// UserLists returns the sealed user lists of every app.
func UserLists(v View) []cluster.UserList {
	return fill(All[cluster.UserList](v, PrefixApps, func(k string) bool { return segment(k, 4) == "users" }), nil)
}

// Tasks returns every task.
func Tasks(v View) []cluster.Task {
	return fill(All[cluster.Task](v, PrefixTasks, nil), func(t *cluster.Task, rev, _ int64) { t.Rev = cluster.StoreRev(rev) })
}

// Placements returns every placement.
func Placements(v View) []cluster.NodePlacement {
	return fill(All[cluster.NodePlacement](v, PrefixPlacements, nil), func(p *cluster.NodePlacement, rev, _ int64) { p.Rev = cluster.StoreRev(rev) })
}

// What a node writes is about that node alone, as its key has it: etcd keeps nodes
// to their own keys, and no value may speak in another's name. One that does is
// left out.
func truthful[T any](vals []Value[T], node func(T) cluster.NodeID) []Value[T] {
	return slices.DeleteFunc(vals, func(x Value[T]) bool { return segment(x.Key, 3) != string(node(x.V)) })
}

// Statuses returns every status.
func Statuses(v View) []cluster.Status {
	vals := truthful(All[cluster.Status](v, PrefixStatus, nil), func(s cluster.Status) cluster.NodeID { return s.Node })
	vals = slices.DeleteFunc(vals, func(x Value[cluster.Status]) bool { return segment(x.Key, 4) != string(x.V.Task) })
	return fill(vals, func(s *cluster.Status, rev, _ int64) { s.Rev = cluster.StoreRev(rev) })
}

// NodeInfos returns what each node says about itself, with its revision.
func NodeInfos(v View) []Value[cluster.NodeInfo] {
	vals := All[cluster.NodeInfo](v, PrefixNodes, func(k string) bool { return strings.HasSuffix(k, "/info") })
	return truthful(vals, func(i cluster.NodeInfo) cluster.NodeID { return i.ID })
}

// Rollouts returns where every rollout stands.
func Rollouts(v View) []cluster.Rollout {
	return fill(All[cluster.Rollout](v, PrefixRollouts, nil), func(r *cluster.Rollout, rev, _ int64) { r.Rev = cluster.StoreRev(rev) })
}

// EndpointSets returns the endpoints of every service.
func EndpointSets(v View) []cluster.Endpoints {
	return fill(All[cluster.Endpoints](v, PrefixEndpoints, nil), func(e *cluster.Endpoints, rev, _ int64) { e.Rev = cluster.StoreRev(rev) })
}

// Nodes returns every node that has said something about itself.
func Nodes(v View) []cluster.Node {
	infos := NodeInfos(v)
	out := make([]cluster.Node, 0, len(infos))
	for _, i := range infos {
		n := cluster.Node{NodeSpec: cluster.NodeSpec{ID: i.V.ID}, Info: i.V}
		if spec, ok, err := One[cluster.NodeSpec](v, NodeSpecKey(i.V.ID)); ok && err == nil {
			n.NodeSpec, n.Rev = spec.V, cluster.StoreRev(spec.Rev)
		}
		_, n.Alive = v.Entry(AliveKey(i.V.ID))
		out = append(out, n)
	}
	return out
}

// LostVolumes returns the nodes whose volumes were given up.
func LostVolumes(v View) []cluster.NodeID {
	var out []cluster.NodeID
	for _, l := range All[cluster.LostVolumes](v, PrefixNodes, func(k string) bool { return strings.HasSuffix(k, "/lost") }) {
		out = append(out, l.V.Node)
	}
	return out
}

// NodeNets returns where each node's containers are.
func NodeNets(v View) []cluster.NodeNet {
	return fill(All[cluster.NodeNet](v, PrefixNodeNets, nil), func(n *cluster.NodeNet, rev, _ int64) { n.Rev = cluster.StoreRev(rev) })
}

// AgentAcks returns what each node's agent acknowledged.
func AgentAcks(v View) []cluster.AgentAck {
	vals := All[cluster.AgentAck](v, PrefixAcks, func(k string) bool { return strings.HasSuffix(k, "/agent") })
	return fill(truthful(vals, func(a cluster.AgentAck) cluster.NodeID { return a.Node }), nil)
}

// GatewayAcks returns what each gateway acknowledged.
func GatewayAcks(v View) []cluster.GatewayAck {
	vals := All[cluster.GatewayAck](v, PrefixAcks, func(k string) bool { return strings.HasSuffix(k, "/gateway") })
	return fill(truthful(vals, func(a cluster.GatewayAck) cluster.NodeID { return a.Node }), nil)
}

// Servers returns where each server is reached, in the order of their names.
func Servers(v View) []cluster.ServerInfo {
	vals := All[cluster.ServerInfo](v, PrefixServers, func(k string) bool { return strings.HasSuffix(k, "/info") })
	return fill(truthful(vals, func(s cluster.ServerInfo) cluster.NodeID { return s.Node }), nil)
}

// GatewayFiles returns what gateways of nodes that joined get by files.
func GatewayFiles(v View) []Value[cluster.GatewayFile] {
	vals := All[cluster.GatewayFile](v, PrefixGateways, nil)
	return slices.DeleteFunc(vals, func(x Value[cluster.GatewayFile]) bool {
		return x.Key != GatewayFileKey(x.V.Node, x.V.Kind, x.V.App, x.V.Name)
	})
}

func fill[T any](vals []Value[T], set func(*T, int64, int64)) []T {
	out := make([]T, len(vals))
	for i, v := range vals {
		out[i] = v.V
		if set != nil {
			set(&out[i], v.Rev, v.Created)
		}
	}
	return slices.Clip(out)
}

// segment returns the n-th part of a key: fairlead is 0, v1 is 1.
func segment(key string, n int) string {
	for ; n > 0; n-- {
		_, rest, ok := strings.Cut(key, "/")
		if !ok {
			return ""
		}
		key = rest
	}
	s, _, _ := strings.Cut(key, "/")
	return s
}
