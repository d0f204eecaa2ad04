package store

import (
	"slices"
	"strconv"
	"strings"

	"github.com/fairlead/fairlead/cluster"
)

// The functions below read one noun each from a view of Root and fill in the
// revisions that the values themselves do not carry.

// Apps returns every app.
func Apps(v View) []cluster.App {
	return list(v, PrefixApps, func(k string) bool { return k == AppKey(cluster.AppName(segment(k, 3))) }, nil, func(a *cluster.App, rev, created int64) {
		a.Rev, a.Created = cluster.StoreRev(rev), cluster.StoreRev(created)
	})
}

// Services returns every service.
func Services(v View) []cluster.Service {
	return list(v, PrefixApps, named("services"), nil, func(s *cluster.Service, rev, created int64) {
		s.Rev, s.Created = cluster.StoreRev(rev), cluster.StoreRev(created)
	})
}

// Scales returns every service's live count.
func Scales(v View) []cluster.Scale {
	return list(v, PrefixApps, named("scale"), nil, func(s *cluster.Scale, rev, _ int64) { s.Rev = cluster.StoreRev(rev) })
}

// UserLists returns the sealed user lists of every app.
func UserLists(v View) []cluster.UserList {
	return list[cluster.UserList](v, PrefixApps, named("users"), nil, nil)
}

// Tasks returns every task.
func Tasks(v View) []cluster.Task {
	return list(v, PrefixTasks, nil, nil, func(t *cluster.Task, rev, _ int64) { t.Rev = cluster.StoreRev(rev) })
}

// Placements returns every placement.
func Placements(v View) []cluster.NodePlacement {
	return list(v, PrefixPlacements, nil, nil, func(p *cluster.NodePlacement, rev, _ int64) { p.Rev = cluster.StoreRev(rev) })
}

// What a node writes is about that node alone, as its key has it: etcd keeps nodes
// to their own keys, and no value may speak in another's name. One that does is
// left out.
func truthful(key string, node cluster.NodeID) bool { return segment(key, 3) == string(node) }

// Statuses returns every status.
func Statuses(v View) []cluster.Status {
	own := func(k string, s *cluster.Status) bool { return truthful(k, s.Node) && segment(k, 4) == string(s.Task) }
	return list(v, PrefixStatus, nil, own, func(s *cluster.Status, rev, _ int64) { s.Rev = cluster.StoreRev(rev) })
}

// NodeInfos returns what each node says about itself, with its revision. One that was
// removed and speaks all the same, as it can until the store is closed to it, is left out.
// A server's own node has no record either, unless somebody labelled it.
func NodeInfos(v View) []Value[cluster.NodeInfo] {
	vals := All[cluster.NodeInfo](v, PrefixNodes, named("info"))
	return slices.DeleteFunc(vals, func(x Value[cluster.NodeInfo]) bool {
		_, recorded := v.Entry(NodeSpecKey(x.V.ID))
		_, server := v.Entry(ServerInfoKey(x.V.ID))
		_, removed := v.Entry(NodeRemovedKey(x.V.ID))
		return !truthful(x.Key, x.V.ID) || removed && !recorded && !server
	})
}

// Rollouts returns where every rollout stands.
func Rollouts(v View) []cluster.Rollout {
	return list(v, PrefixRollouts, nil, nil, func(r *cluster.Rollout, rev, _ int64) { r.Rev = cluster.StoreRev(rev) })
}

// LastRelease is the newest of an app's releases, also one that never came to be the
// app's; 0: it has none.
func LastRelease(v View, a cluster.AppName) int {
	keys := v.Keys(AppPrefix(a) + "releases/")
	if len(keys) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(keys[len(keys)-1][len(AppPrefix(a)+"releases/"):])
	return n
}

// Outcomes returns how every release went.
func Outcomes(v View) []cluster.ReleaseOutcome {
	return list(v, PrefixOutcomes, nil, nil, func(o *cluster.ReleaseOutcome, rev, _ int64) { o.Rev = cluster.StoreRev(rev) })
}

// PendingChanges returns the changes of apps that hooks stand around.
func PendingChanges(v View) []cluster.PendingChange {
	return list(v, PrefixChanges, nil, nil, func(c *cluster.PendingChange, rev, _ int64) { c.Rev = cluster.StoreRev(rev) })
}

// ChangeRecords returns where each of those changes stands.
func ChangeRecords(v View) []cluster.ChangeRecord {
	return list(v, PrefixHooks, nil, nil, func(r *cluster.ChangeRecord, rev, _ int64) { r.Rev = cluster.StoreRev(rev) })
}

// EndpointSets returns the endpoints of every service.
func EndpointSets(v View) []cluster.Endpoints {
	return list(v, PrefixEndpoints, nil, nil, func(e *cluster.Endpoints, rev, _ int64) { e.Rev = cluster.StoreRev(rev) })
}

// IsServer reports whether a server has this name.
func IsServer(v View, id cluster.NodeID) bool {
	_, spec := v.Entry(ServerSpecKey(id))
	_, info := v.Entry(ServerInfoKey(id))
	return spec || info
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
		n.Info.Roles = roles(n)
		_, n.Alive = v.Entry(AliveKey(i.V.ID))
		out = append(out, n)
	}
	return out
}

// roles are those that a node says it plays, as far as it may: one that joined is no server,
// and a gateway only where its record says so.
func roles(n cluster.Node) []string {
	if n.Key == "" {
		return n.Info.Roles
	}
	return slices.DeleteFunc(slices.Clone(n.Info.Roles), func(r string) bool {
		return r != "agent" && (r != "gateway" || !n.Gateway)
	})
}

// VolumePlaces returns where volumes are that no task speaks of.
func VolumePlaces(v View) []cluster.VolumePlaces {
	return list(v, PrefixVolumes, nil, nil, func(p *cluster.VolumePlaces, rev, _ int64) { p.Rev = cluster.StoreRev(rev) })
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
	return list(v, PrefixNodeNets, nil, nil, func(n *cluster.NodeNet, rev, _ int64) { n.Rev = cluster.StoreRev(rev) })
}

// AgentAcks returns what each node's agent acknowledged.
func AgentAcks(v View) []cluster.AgentAck {
	return list(v, PrefixAcks, named("agent"), func(k string, a *cluster.AgentAck) bool { return truthful(k, a.Node) }, nil)
}

// GatewayAcks returns what each gateway acknowledged.
func GatewayAcks(v View) []cluster.GatewayAck {
	return list(v, PrefixAcks, named("gateway"), func(k string, a *cluster.GatewayAck) bool { return truthful(k, a.Node) }, nil)
}

// Servers returns where each server is reached, in the order of their names.
func Servers(v View) []cluster.ServerInfo {
	return list(v, PrefixServers, named("info"), func(k string, s *cluster.ServerInfo) bool { return truthful(k, s.Node) }, nil)
}

// GatewayFiles returns what gateways of nodes that joined get by files.
func GatewayFiles(v View) []Value[cluster.GatewayFile] {
	vals := All[cluster.GatewayFile](v, PrefixGateways, nil)
	return slices.DeleteFunc(vals, func(x Value[cluster.GatewayFile]) bool {
		return x.Key != GatewayFileKey(x.V.Node, x.V.Kind, x.V.App, x.V.Name)
	})
}

// list returns the values below prefix whose keys and values the filters, if any, let
// through, with what set fills in.
func list[T any](v View, prefix string, keep func(key string) bool, own func(key string, t *T) bool, set func(t *T, rev, created int64)) []T {
	out := make([]T, 0, count(v, prefix, keep))
	each(v, prefix, keep, func(it *item, t *T) {
		if own != nil && !own(it.Key, t) {
			return
		}
		out = append(out, *t)
		if set != nil {
			set(&out[len(out)-1], it.Rev, it.Created)
		}
	})
	return slices.Clip(out)
}

// named returns a filter of keys by what follows the app or the node in them.
func named(name string) func(key string) bool {
	return func(key string) bool { return segment(key, 4) == name }
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
