package cluster

import (
	"net/netip"
	"slices"
	"time"
)

// Availability of a node, as an operator set it.
type Availability string

// Availabilities.
const (
	Active Availability = "active"
	Pause  Availability = "pause" // takes no new tasks
	Drain  Availability = "drain" // takes none and gives up those it has
)

// NodeSpec is what operators say about a node. Writer: API.
type NodeSpec struct {
	ID           NodeID            `json:"id"`
	Labels       map[string]string `json:"labels,omitempty"`
	Availability Availability      `json:"availability,omitempty"` // "" is active
	// Key names the public key of a node that joined (hex SHA-256): certificates
	// of other keys are refused. "" for a server's own node.
	Key string `json:"key,omitempty"`
	// Gateway lets a node that joined run a gateway: routes, and certificates and
	// users sealed to it, are opened to it. A server's own node needs no leave.
	Gateway bool `json:"gateway,omitempty"`
}

// LostVolumes says that the volumes of a node that was removed are given up: tasks
// that had them start anew elsewhere, with empty ones. Writer: the API.
type LostVolumes struct {
	Node NodeID    `json:"node"`
	At   time.Time `json:"at"`
	By   string    `json:"by,omitempty"`
}

// RemovedNode says that a node which had joined was removed: what is still said in its
// name counts for nothing, until a machine joins under it. Writer: the API.
type RemovedNode struct {
	Node NodeID    `json:"node"`
	At   time.Time `json:"at"`
	By   string    `json:"by,omitempty"`
}

// NodeInfo is what a node says about itself. Writer: its agent.
type NodeInfo struct {
	ID       NodeID `json:"id"`
	Hostname string `json:"hostname"`
	Address  string `json:"address"` // IP that other nodes reach
	OS       string `json:"os"`
	Arch     string `json:"arch"`
	Engine   string `json:"engine"`
	// EngineAway: the Docker engine does not answer. What runs, runs on; nothing new starts.
	EngineAway bool `json:"engine_away,omitempty"`
	// DiskFailure says why the agent cannot keep on disk what the node runs.
	DiskFailure string `json:"disk_failure,omitempty"`
	// Overlap says which of the machine's own networks overlap with the cluster's ranges.
	Overlap   string            `json:"overlap,omitempty"`
	Version   string            `json:"version"`          // of fairlead
	CPU       int64             `json:"cpu"`              // thousandths of a core
	Memory    int64             `json:"memory"`           // bytes
	PublicKey string            `json:"public_key"`       // age recipient
	Roles     []string          `json:"roles,omitempty"`  // "server", "agent", "gateway"
	Labels    map[string]string `json:"labels,omitempty"` // engine labels
	// Networks are the subnets of the networks that the node made.
	Networks map[NetworkName]netip.Prefix `json:"networks,omitempty"`
}

// Node is all the control plane knows of a node, read at one revision.
type Node struct {
	NodeSpec
	Info  NodeInfo  `json:"info"`
	Alive bool      `json:"alive"`
	Since time.Time `json:"since,omitzero"` // of Alive

	Rev StoreRev `json:"-"`
}

// Schedulable reports whether new tasks may go there.
func (n Node) Schedulable() bool {
	return n.Alive && !n.Info.EngineAway && (n.Availability == "" || n.Availability == Active)
}

// HasRole reports whether the node plays a role.
func (n Node) HasRole(role string) bool {
	return slices.Contains(n.Info.Roles, role)
}

// AgentAck is the endpoint revision whose service addresses and names a node
// serves. Key acks/<node>/agent. Writer: its agent.
type AgentAck struct {
	Node     NodeID   `json:"node"`
	Endpoint StoreRev `json:"endpoint"`
	// Error says in words what does not work there, for the alarm.
	Error string `json:"error,omitempty"`
}

// GatewayAck is the route revision that a gateway's Traefik serves, read back
// from Traefik itself. Key acks/<node>/gateway. Writer: its gateway.
type GatewayAck struct {
	Node    NodeID   `json:"node"`
	Route   StoreRev `json:"route"`
	Traefik string   `json:"traefik,omitempty"` // version
	// Since is when the process that says this began to look after the gateway.
	Since time.Time `json:"since,omitzero"`
	Error string    `json:"error,omitempty"` // why it lags, or does not work at all
	// Entries are the entry points whose ports it has: "web", "tcp-5432".
	Entries []string `json:"entries,omitempty"`
	// Refused are the published ports that it cannot have, by entry point, and why.
	Refused map[string]string `json:"refused,omitempty"`
}
