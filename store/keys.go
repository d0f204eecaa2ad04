package store

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/cluster"
)

// Root is the prefix of every key but Traefik's.
const Root = "fairlead/v1/"

// TraefikRoot is the root key of Traefik's etcd provider: no prefix, no leading slash.
const TraefikRoot = "traefik"

// Prefixes to list and watch.
const (
	PrefixNodes      = Root + "nodes/"
	PrefixAlive      = Root + "alive/"
	PrefixApps       = Root + "apps/"
	PrefixRollouts   = Root + "rollouts/"
	PrefixVolumes    = Root + "volumes/"
	PrefixOutcomes   = Root + "outcomes/"
	PrefixTasks      = Root + "tasks/"
	PrefixHooks      = Root + "hooks/"
	PrefixChanges    = Root + "changes/"
	PrefixPlacements = Root + "placements/"
	PrefixSealed     = Root + "sealed/"
	PrefixStatus     = Root + "status/"
	PrefixAcks       = Root + "acks/"
	PrefixEndpoints  = Root + "endpoints/"
	PrefixDemand     = Root + "demand/"
	PrefixPools      = Root + "pools/"
	PrefixLocks      = Root + "locks/"
	PrefixDecisions  = Root + "decisions/"
	PrefixAccess     = Root + "access/"
	PrefixPKI        = Root + "pki/"
	PrefixCluster    = Root + "cluster/"
	PrefixGateways   = Root + "gateways/"
	PrefixServers    = Root + "servers/"
	PrefixDeliveries = Root + "deliveries/"
	PrefixImages     = Root + "images/"
)

// NodeSpecKey holds a cluster.NodeSpec.
func NodeSpecKey(n cluster.NodeID) string { return PrefixNodes + string(n) + "/spec" }

// NodeLostKey holds a cluster.LostVolumes.
func NodeLostKey(n cluster.NodeID) string { return PrefixNodes + string(n) + "/lost" }

// NodeRemovedKey holds a cluster.RemovedNode.
func NodeRemovedKey(n cluster.NodeID) string { return PrefixNodes + string(n) + "/removed" }

// NodeInfoKey holds a cluster.NodeInfo.
func NodeInfoKey(n cluster.NodeID) string { return PrefixNodes + string(n) + "/info" }

// AliveKey is the node's heartbeat, under its lease.
func AliveKey(n cluster.NodeID) string { return PrefixAlive + string(n) }

// AppPrefix is the prefix of what the API keeps about an app.
func AppPrefix(a cluster.AppName) string { return PrefixApps + string(a) + "/" }

// AppKey holds a cluster.App.
func AppKey(a cluster.AppName) string { return AppPrefix(a) + "app" }

// ChangeKey holds a cluster.PendingChange: the app's last.
func ChangeKey(a cluster.AppName) string { return PrefixChanges + string(a) }

// ChangeRecordKey holds a cluster.ChangeRecord. It stands apart from the change,
// which has another writer.
func ChangeRecordKey(a cluster.AppName) string { return PrefixHooks + string(a) }

// ServiceKey holds a cluster.Service.
func ServiceKey(s cluster.ServiceID) string {
	return AppPrefix(s.App) + "services/" + string(s.Name)
}

// ScaleKey holds a cluster.Scale.
func ScaleKey(s cluster.ServiceID) string { return AppPrefix(s.App) + "scale/" + string(s.Name) }

// ReleaseKey holds a cluster.Release. Numbers are padded so that key order is their order.
func ReleaseKey(a cluster.AppName, n int) string {
	return fmt.Sprintf("%sreleases/%08d", AppPrefix(a), n)
}

// OutcomeKey holds a cluster.ReleaseOutcome. It stands apart from the release, which has another writer.
func OutcomeKey(a cluster.AppName, n int) string {
	return fmt.Sprintf("%s%s/%08d", PrefixOutcomes, a, n)
}

// ConfigKey holds a cluster.Config. Its name carries the hash, so that tasks of an
// earlier release keep theirs.
func ConfigKey(a cluster.AppName, name, hash string) string {
	return AppPrefix(a) + "config/" + name + "@" + hash
}

// ClaimsKey holds a cluster-wide counter: every change that takes a route or a
// gateway port compares and writes it, so that two apps cannot take one at the
// same time.
const ClaimsKey = Root + "claims"

// FollowsKey holds a cluster-wide counter: every change that makes an app follow a
// source compares and writes it, so that two deliveries cannot take one app at the
// same time.
const FollowsKey = Root + "follows"

// SecretKey holds a cluster.SecretRecord.
func SecretKey(r cluster.SecretRef) string { return AppPrefix(r.App) + "secrets/" + r.Name }

// PackageKey holds a cluster.PackagePart. Releases with the same text share it.
func PackageKey(a cluster.AppName, text string, part int) string {
	return fmt.Sprintf("%spackage/%s/%04d", AppPrefix(a), text, part)
}

// UserListKey holds a cluster.UserList.
func UserListKey(a cluster.AppName, id string) string { return AppPrefix(a) + "users/" + id }

// RolloutKey holds a cluster.Rollout.
func RolloutKey(s cluster.ServiceID) string {
	return PrefixRollouts + string(s.App) + "/" + string(s.Name)
}

// VolumesKey holds a cluster.VolumePlaces.
func VolumesKey(s cluster.ServiceID) string {
	return PrefixVolumes + string(s.App) + "/" + string(s.Name)
}

// TaskKey holds a cluster.Task.
func TaskKey(a cluster.AppName, t cluster.TaskID) string {
	return PrefixTasks + string(a) + "/" + string(t)
}

// ImageKey holds a cluster.ImageRecord.
func ImageKey(ref string) string { return PrefixImages + cluster.TaggedImage(ref) }

// PlacementPrefix is the prefix of a node's placements.
func PlacementPrefix(n cluster.NodeID) string { return PrefixPlacements + string(n) + "/" }

// PlacementKey holds a cluster.NodePlacement.
func PlacementKey(n cluster.NodeID, t cluster.TaskID) string { return PlacementPrefix(n) + string(t) }

// SealedPrefix is the prefix of a node's sealed payloads.
func SealedPrefix(n cluster.NodeID) string { return PrefixSealed + string(n) + "/" }

// SealedKey holds a cluster.Sealed.
func SealedKey(n cluster.NodeID, t cluster.TaskID) string { return SealedPrefix(n) + string(t) }

// GatewayFilesPrefix is the prefix of what a node's gateway gets by files.
func GatewayFilesPrefix(n cluster.NodeID) string { return PrefixGateways + string(n) + "/" }

// GatewayFileKey holds a cluster.GatewayFile; app is "" for a certificate.
func GatewayFileKey(n cluster.NodeID, kind string, app cluster.AppName, name string) string {
	return GatewayFilesPrefix(n) + kind + "/" + string(app) + "/" + name
}

// ServerSpecKey holds a cluster.ServerSpec.
func ServerSpecKey(n cluster.NodeID) string { return PrefixServers + string(n) + "/spec" }

// ServerInfoKey holds a cluster.ServerInfo.
func ServerInfoKey(n cluster.NodeID) string { return PrefixServers + string(n) + "/info" }

// StatusPrefix is the prefix of a node's statuses.
func StatusPrefix(n cluster.NodeID) string { return PrefixStatus + string(n) + "/" }

// StatusKey holds a cluster.Status.
func StatusKey(n cluster.NodeID, t cluster.TaskID) string { return StatusPrefix(n) + string(t) }

// AgentAckKey holds a cluster.AgentAck.
func AgentAckKey(n cluster.NodeID) string { return PrefixAcks + string(n) + "/agent" }

// GatewayAckKey holds a cluster.GatewayAck.
func GatewayAckKey(n cluster.NodeID) string { return PrefixAcks + string(n) + "/gateway" }

// EndpointsKey holds a cluster.Endpoints.
func EndpointsKey(s cluster.ServiceID) string {
	return PrefixEndpoints + string(s.App) + "/" + string(s.Name)
}

// PrefixNodeNets is the prefix of where nodes' containers are.
const PrefixNodeNets = PrefixPools + "nodes/"

// NodeNetKey holds a cluster.NodeNet.
func NodeNetKey(n cluster.NodeID) string { return PrefixNodeNets + string(n) }

// DemandKey holds the autoscaler's state of a service.
func DemandKey(s cluster.ServiceID) string {
	return PrefixDemand + string(s.App) + "/" + string(s.Name)
}

// AddressKey holds the service address of a service (a JSON string).
func AddressKey(s cluster.ServiceID) string {
	return PrefixPools + "addresses/" + string(s.App) + "/" + string(s.Name)
}

// DeliveryKey holds a cluster.Delivery.
func DeliveryKey(d cluster.DeliveryName) string { return PrefixDeliveries + string(d) + "/spec" }

// DeliveryAskKey holds a cluster.DeliveryAsk.
func DeliveryAskKey(d cluster.DeliveryName) string { return PrefixDeliveries + string(d) + "/asked" }

// DeliveryStateKey holds a cluster.DeliveryState.
func DeliveryStateKey(d cluster.DeliveryName) string { return PrefixDeliveries + string(d) + "/state" }

// DecisionKey holds a cluster.Decision: the newest about an object, by loop.
func DecisionKey(loop, object string) string { return PrefixDecisions + loop + "/" + object }

// TurnKey is written in every transaction of a loop whose decisions exclude one
// another, such as two nodes for one task: a decision taken on a state from
// before the loop's own last write then never stands, even where that write was
// reported as failed. It holds the loop's name.
func TurnKey(loop string) string { return Root + "turns/" + loop }

// LockKey is a lease-held lock.
func LockKey(name string) string { return PrefixLocks + name }

// CertKey holds a user's certificate: the chain in clear, the key sealed.
func CertKey(name string) string { return PrefixPKI + "certs/" + name }

// RegistryCredentialKey holds the sealed credentials of an image registry.
func RegistryCredentialKey(host string) string { return PrefixAccess + "registries/" + host }

// TokenKey holds a cluster.Token; hash is the hex SHA-256 of the token.
func TokenKey(hash string) string { return PrefixAccess + "tokens/" + hash }

// Writer names the part of Fairlead that may write a key.
type Writer string

// Writers.
const (
	WriterAPI        Writer = "api"
	WriterAgent      Writer = "agent"
	WriterGateway    Writer = "gateway"
	WriterRollout    Writer = "rollout"
	WriterHooks      Writer = "hooks"
	WriterScheduler  Writer = "scheduler"
	WriterRegistry   Writer = "registry"
	WriterProxyconf  Writer = "proxyconf"
	WriterAutoscaler Writer = "autoscaler"
	WriterBroker     Writer = "broker"
	WriterServer     Writer = "server"
	WriterDelivery   Writer = "delivery"
)

// owners maps key patterns ("*" is one segment, a last "**" any rest) to their
// writers. All have one writer but scale, which has two by owner, compare-and-swap,
// tasks, which are of a service or of a hook for good, and what a node or server says,
// which the API removes with it once it is expelled.
var owners = []struct {
	pattern string
	writers []Writer
}{
	{Root + "nodes/*/spec", []Writer{WriterAPI}},
	{Root + "nodes/*/lost", []Writer{WriterAPI}},
	{Root + "nodes/*/removed", []Writer{WriterAPI}},
	{Root + "nodes/*/info", []Writer{WriterAgent, WriterAPI}},
	{Root + "alive/*", []Writer{WriterAgent, WriterAPI}},
	{Root + "apps/*/scale/*", []Writer{WriterAPI, WriterAutoscaler}},
	{Root + "apps/**", []Writer{WriterAPI}},
	{ClaimsKey, []Writer{WriterAPI}},
	{FollowsKey, []Writer{WriterAPI}},
	{Root + "rollouts/**", []Writer{WriterRollout}},
	{Root + "volumes/*/*", []Writer{WriterRollout}},
	{Root + "outcomes/*/*", []Writer{WriterRollout}},
	{Root + "tasks/*/*", []Writer{WriterRollout, WriterHooks}},
	{Root + "changes/*", []Writer{WriterAPI}},
	{Root + "hooks/*", []Writer{WriterHooks}},
	{Root + "placements/*/*", []Writer{WriterScheduler}},
	{Root + "sealed/*/*", []Writer{WriterBroker}},
	{Root + "servers/*/spec", []Writer{WriterAPI}},
	{Root + "servers/*/info", []Writer{WriterServer, WriterAPI}},
	{Root + "gateways/**", []Writer{WriterBroker}},
	{Root + "status/*/*", []Writer{WriterAgent, WriterAPI}},
	{Root + "acks/*/agent", []Writer{WriterAgent, WriterAPI}},
	{Root + "acks/*/gateway", []Writer{WriterGateway, WriterAPI}},
	{Root + "endpoints/*/*", []Writer{WriterRegistry}},
	{Root + "pools/addresses/*/*", []Writer{WriterRegistry}},
	{Root + "pools/nodes/*", []Writer{WriterRegistry}},
	{Root + "demand/*/*", []Writer{WriterAutoscaler}},
	{Root + "deliveries/*/spec", []Writer{WriterAPI}},
	{Root + "deliveries/*/asked", []Writer{WriterAPI}},
	{Root + "deliveries/*/state", []Writer{WriterDelivery}},
	{Root + "images/**", []Writer{WriterAPI}},
	{Root + "decisions/scheduler/**", []Writer{WriterScheduler}},
	{Root + "decisions/rollout/**", []Writer{WriterRollout}},
	{Root + "decisions/autoscaler/**", []Writer{WriterAutoscaler}},
	{Root + "decisions/broker/**", []Writer{WriterBroker}},
	{Root + "decisions/registry/**", []Writer{WriterRegistry}},
	{Root + "decisions/proxyconf/**", []Writer{WriterProxyconf}},
	{Root + "turns/scheduler", []Writer{WriterScheduler}},
	{Root + "pki/certs/*", []Writer{WriterAPI}},
	{Root + "access/**", []Writer{WriterAPI}},
	{Root + "locks/**", []Writer{WriterServer}},
	{Root + "cluster/**", []Writer{WriterServer}},
	{TraefikRoot, []Writer{WriterProxyconf}},
	{TraefikRoot + "/**", []Writer{WriterProxyconf}},
}

// MayWrite reports whether the architecture's table lets w write key.
func MayWrite(w Writer, key string) bool {
	for _, o := range owners {
		if !match(o.pattern, key) {
			continue
		}
		return slices.Contains(o.writers, w)
	}
	return false
}

func match(pattern, key string) bool {
	p, k := strings.Split(pattern, "/"), strings.Split(key, "/")
	for i, seg := range p {
		switch {
		case seg == "**":
			return len(k) > i
		case i >= len(k), seg != "*" && seg != k[i]:
			return false
		}
	}
	return len(p) == len(k)
}
