package v1

import (
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// AppSummary is one line of the list of apps.
type AppSummary struct {
	Name     cluster.AppName `json:"name"`
	Release  int             `json:"release"`
	Services int             `json:"services"`
	Wanted   int             `json:"wanted"` // tasks
	Ready    int             `json:"ready"`
	State    string          `json:"state" enum:"ready,deploying,degraded,failed,removing,uninstalled"`
	Chart    string          `json:"chart,omitempty" doc:"the package it came from, and its version"`
	Created  time.Time       `json:"created,omitzero"` // of the current release
	URLs     []string        `json:"urls,omitempty"`
	Delivery *AppDelivery    `json:"delivery,omitempty" doc:"the delivery that it follows"`
}

// AppDetail is what status shows of an app.
type AppDetail struct {
	AppSummary
	Note    string           `json:"note,omitempty"`
	By      string           `json:"by,omitempty"`
	Next    int              `json:"next" doc:"number of the release that a change makes"`
	Each    []ServiceSummary `json:"each"`
	Exposed []Exposed        `json:"exposed"`
	// Problems says in words what stands in the way, most important first.
	Problems []string `json:"problems,omitempty"`
	// Change is the last change that hooks ran for.
	Change *HookProgress `json:"change,omitempty"`
}

// ServiceSummary is one line of the list of services.
type ServiceSummary struct {
	cluster.ServiceID
	Mode      cluster.Mode `json:"mode"`
	Image     string       `json:"image"`
	Wanted    int          `json:"wanted"`
	Ready     int          `json:"ready"`
	Updated   int          `json:"updated"` // ready and of the current version
	Complete  int          `json:"complete,omitempty" doc:"of those ready: jobs that ended well and stay ended"`
	Owner     string       `json:"owner,omitempty"`
	Version   string       `json:"version"`
	Release   int          `json:"release"`
	State     string       `json:"state" doc:"a cluster.RolloutState, or pending"`
	Message   string       `json:"message,omitempty"`
	Address   string       `json:"address,omitempty"` // the service address
	Endpoints int          `json:"endpoints"`
	URLs      []string     `json:"urls,omitempty"`
	Ports     []string     `json:"ports,omitempty"`
}

// ServiceDetail is all that is known about a service.
type ServiceDetail struct {
	ServiceSummary
	Spec     cluster.ServiceSpec `json:"spec"`
	Scale    *cluster.Scale      `json:"scale,omitempty"`
	Rollout  *cluster.Rollout    `json:"rollout,omitempty"`
	Endpoint *cluster.Endpoints  `json:"endpoint,omitempty"`
	// EndpointRev is the revision of Endpoint: nodes say which they serve (NodeDetail).
	EndpointRev cluster.StoreRev   `json:"endpoint_rev,omitempty"`
	Tasks       []TaskStatus       `json:"tasks"`
	Decisions   []cluster.Decision `json:"decisions,omitempty"`
}

// TaskStatus is one line of ps.
type TaskStatus struct {
	ID      cluster.TaskID `json:"id"`
	Address string         `json:"address"` // "shop/web.2"
	cluster.ServiceID
	Slot int `json:"slot"`
	// Hook is the point of a change that it runs at; "" is a task of a service.
	Hook cluster.HookEvent `json:"hook,omitempty"`
	// State is a cluster.TaskState, or before the agent knows of the task
	// "unplaced" (no node takes it: Reason) or "pending"; "unknown" while its node
	// does not answer.
	State      string         `json:"state"`
	Desire     cluster.Desire `json:"desire"`
	Ready      bool           `json:"ready"`
	Node       cluster.NodeID `json:"node,omitempty"`
	Image      string         `json:"image"`
	Version    string         `json:"version"`
	Release    int            `json:"release"`
	Current    bool           `json:"current"` // of the service's current version
	Created    time.Time      `json:"created"`
	Started    time.Time      `json:"started,omitzero"`
	ReadySince time.Time      `json:"ready_since,omitzero"`
	Restarts   int            `json:"restarts,omitempty"`
	ExitCode   int            `json:"exit_code,omitempty"`
	Reason     string         `json:"reason,omitempty"`
	LogTail    []string       `json:"log_tail,omitempty"`
	Container  string         `json:"container,omitempty"`
	ImageID    string         `json:"image_id,omitempty"`
	// ImageDigest is what the image was pulled by, "repository@sha256:…"; "" where it was
	// built or loaded, and of nodes of older versions.
	ImageDigest string                         `json:"image_digest,omitempty"`
	Addresses   map[cluster.NetworkName]string `json:"addresses,omitempty"`
}

// Ended reports whether the task's container is gone for good.
func (t TaskStatus) Ended() bool { return cluster.TaskState(t.State).Terminal() }

// TaskDetail is all that is known about a task.
type TaskDetail struct {
	TaskStatus
	Spec      cluster.TaskSpec       `json:"spec"`
	Placement *cluster.NodePlacement `json:"placement,omitempty"`
	Status    *cluster.Status        `json:"status,omitempty"`
	Decisions []cluster.Decision     `json:"decisions,omitempty"`
}

// Explanation says why a service or task is as it is.
type Explanation struct {
	Address string `json:"address"`
	// Summary says it in sentences, most important first.
	Summary   []string           `json:"summary"`
	Decisions []cluster.Decision `json:"decisions"`
	Tasks     []TaskStatus       `json:"tasks"`
	Rollout   *cluster.Rollout   `json:"rollout,omitempty"`
	Scale     *cluster.Scale     `json:"scale,omitempty"`
}

// Progress is how far an app's change has come; one is sent at each change.
type Progress struct {
	App      cluster.AppName   `json:"app"`
	Release  int               `json:"release"`
	Services []ServiceProgress `json:"services"`
	// Done: nothing more will happen by itself. Failed: it did not get where it should.
	Done   bool `json:"done,omitempty"`
	Failed bool `json:"failed,omitempty"`
	// Superseded by this later release: what is shown is no longer aimed at.
	Superseded int    `json:"superseded,omitempty"`
	Message    string `json:"message,omitempty"`
	// Unserved is what should be reachable through a gateway and cannot be, with why.
	Unserved []string `json:"unserved,omitempty"`
	// Hooks are those that have run, or do.
	Hooks []cluster.HookRun `json:"hooks,omitempty"`
}

// ServiceProgress is how far one service has come.
type ServiceProgress struct {
	Service cluster.ServiceName `json:"service"`
	State   string              `json:"state" doc:"a cluster.RolloutState, pending, or removing"`
	Wanted  int                 `json:"wanted"`
	Ready   int                 `json:"ready"`
	Updated int                 `json:"updated"`
	Old     int                 `json:"old,omitempty"` // tasks of other versions that still run
	// Stable is the last release whose version of the service completed; none: it never served.
	Stable  int    `json:"stable,omitempty"`
	Message string `json:"message,omitempty"`
	// Task and Tail are the failed task and its last log lines.
	Task cluster.TaskID `json:"task,omitempty"`
	Tail []string       `json:"tail,omitempty"`
}

// NodeSummary is one line of the list of nodes.
type NodeSummary struct {
	ID           cluster.NodeID       `json:"id"`
	Hostname     string               `json:"hostname"`
	Address      string               `json:"address"`
	Alive        bool                 `json:"alive"`
	Availability cluster.Availability `json:"availability"`
	Roles        []string             `json:"roles,omitempty"`
	Engine       string               `json:"engine"`
	EngineAway   bool                 `json:"engine_away,omitempty"` // it does not answer
	Version      string               `json:"version"`
	OS           string               `json:"os"`
	Arch         string               `json:"arch"`
	CPU          int64                `json:"cpu"`
	Memory       int64                `json:"memory"`
	// Reserved by the tasks placed there.
	ReservedCPU    int64             `json:"reserved_cpu"`
	ReservedMemory int64             `json:"reserved_memory"`
	Tasks          int               `json:"tasks"`
	Labels         map[string]string `json:"labels,omitempty"`
}

// NodeDetail is all that is known about a node.
type NodeDetail struct {
	NodeSummary
	EngineLabels map[string]string   `json:"engine_labels,omitempty"`
	PublicKey    string              `json:"public_key,omitempty"`
	Agent        *cluster.AgentAck   `json:"agent,omitempty"`
	Gateway      *cluster.GatewayAck `json:"gateway,omitempty"`
	Each         []TaskStatus        `json:"each"`
	// Leaving are those tasks, while the node is drained, and how they come away.
	Leaving []Leaving `json:"leaving,omitempty"`
}

// Leaving is how a task comes away from a node that is drained.
type Leaving struct {
	Task    cluster.TaskID `json:"task"`
	Address string         `json:"address"` // "shop/web.2"
	cluster.ServiceID
	State LeavingState `json:"state"`
	// To is the node of the task that takes its place.
	To     cluster.NodeID `json:"to,omitempty"`
	Reason string         `json:"reason,omitempty"`
}

// LeavingState is how far a task has come on its way from a node.
type LeavingState string

// States of a task that leaves a node, in their order, and of one that does not.
const (
	LeavingWaits   LeavingState = "waits"   // for its turn
	LeavingStarts  LeavingState = "starts"  // another one elsewhere, which is not ready yet
	LeavingStops   LeavingState = "stops"   // it is not needed any more
	LeavingNowhere LeavingState = "nowhere" // no other node takes it now: Reason
	LeavingHeld    LeavingState = "held"    // its volumes are here
)

// NodeChange changes what operators say about a node.
type NodeChange struct {
	Availability cluster.Availability `json:"availability,omitempty" enum:"active,pause,drain"`
	// Labels to set; Unset names those to remove.
	Labels map[string]string `json:"labels,omitempty"`
	Unset  []string          `json:"unset,omitempty"`
}

// ServerInfo is what a client must know of the cluster before it can make a bundle.
type ServerInfo struct {
	Version string `json:"version"`
	API     string `json:"api"` // "v1"
	Cluster string `json:"cluster,omitempty"`
	// Domain is the default for route hosts: <service>.<app>.<domain>.
	Domain string `json:"domain,omitempty"`
	Nodes  int    `json:"nodes"`
	// Ports of the entry points.
	Web       int `json:"web,omitempty"`
	WebSecure int `json:"web_secure,omitempty"`
	Internal  int `json:"internal,omitempty"`
}

// ClusterStatus is the state of the cluster at a glance.
type ClusterStatus struct {
	ServerInfo
	// Node is the one whose server answers, CA the fingerprint of the authority
	// that clients are given, and Serving says that the server has read its store.
	Node       cluster.NodeID       `json:"node,omitempty"`
	CA         string               `json:"ca,omitempty"`
	Serving    bool                 `json:"serving"`
	StoreRev   int64                `json:"store_rev"`
	NodesAlive int                  `json:"nodes_alive"`
	Apps       int                  `json:"apps"`
	Services   int                  `json:"services"`
	Wanted     int                  `json:"wanted"`
	Ready      int                  `json:"ready"`
	Unplaced   int                  `json:"unplaced"`
	Gateways   []cluster.GatewayAck `json:"gateways"`
	// Alarms say in words what an operator should look at.
	Alarms []string `json:"alarms"`
}

// ServerHealth says whether this server can answer.
type ServerHealth struct {
	Ready    bool   `json:"ready"`
	Version  string `json:"version"`
	StoreRev int64  `json:"store_rev"`
}

// Event is one change in the cluster, as the store saw it.
type Event struct {
	Rev    int64     `json:"rev"`
	At     time.Time `json:"at"` // when this server saw it
	Object string    `json:"object" doc:"app, service, scale, release, rollout, task, status, endpoints, decision or node"`
	Name   string    `json:"name"` // "shop/web", "shop/web.2", "n1"
	Verb   string    `json:"verb" enum:"set,removed"`
	Text   string    `json:"text,omitempty"`
	Data   raw       `json:"data,omitempty"`
}
