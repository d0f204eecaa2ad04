package cluster

import (
	"cmp"
	"strconv"
	"strings"
)

// Mode says how a service's count is decided.
type Mode string

// Modes of a service.
const (
	Replicated Mode = "replicated" // a number of slots
	Global     Mode = "global"     // one task on each eligible node; the slot is fixed per node
)

// Service is the desired state of one service, in one version. It holds no
// live count: that is Scale. Source: API.
type Service struct {
	ServiceID
	// Version is TaskSpec.Hash: tasks of another version are replaced.
	Version string `json:"version"`
	// Release is the number of the release that wrote this.
	Release int         `json:"release"`
	Spec    ServiceSpec `json:"spec"`
	// Unrouted: gateways served what was declared before, and nothing of this. That
	// they have seen it is waited for as that of routes is.
	Unrouted bool `json:"unrouted,omitempty"`
	// Before are the ports that tasks of earlier versions are reached on: those that
	// serve until they are replaced, and again after the service went back to them.
	// By version, then by what leads to the port (Route.Way, PublishedPort.EntryPoint);
	// only those that differ from the spec's.
	Before map[string]map[string]int `json:"before,omitempty"`
	// Left are routes of earlier versions that the spec has no more: the tasks of those
	// answer there as long as they serve.
	Left []Route `json:"left,omitempty"`
	// LeftPorts are the same of ports that gateways publish.
	LeftPorts []PublishedPort `json:"left_ports,omitempty"`

	// Created is the store revision at which the service first appeared. The
	// store fills it when reading; it is not part of the value.
	Created StoreRev `json:"-"`
	// Rev is the store revision of this value, filled when reading.
	Rev StoreRev `json:"-"`
}

// ServiceSpec is everything a user declares about a service.
type ServiceSpec struct {
	Mode     Mode     `json:"mode"`
	Replicas int      `json:"replicas"` // what the file asks for; Scale holds the live count
	Task     TaskSpec `json:"task"`     // what makes a container; its hash is the version

	Placement    Placement         `json:"placement,omitzero"`
	Restart      RestartPolicy     `json:"restart,omitzero"`
	Update       UpdatePolicy      `json:"update,omitzero"`
	Rollback     UpdatePolicy      `json:"rollback,omitzero"`
	EndpointMode string            `json:"endpoint_mode,omitempty"` // "" or "vip": service address; "dnsrr": task addresses
	Routes       []Route           `json:"routes,omitempty"`
	Ports        []PublishedPort   `json:"ports,omitempty"`
	Autoscale    *Autoscale        `json:"autoscale,omitempty"`
	DependsOn    []Dependency      `json:"depends_on,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"` // service labels (deploy.labels)
	Source       Source            `json:"source,omitzero"`
}

// Source is the place in a user's file that something comes from.
type Source struct {
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
}

// Placement restricts and steers where tasks run.
type Placement struct {
	// Constraints are Swarm's: "node.labels.zone==a", "node.hostname!=x", "node.role==manager", "node.platform.os==linux".
	Constraints []string `json:"constraints,omitempty"`
	// Spread lists node attributes to spread over, most important first ("node.labels.zone").
	Spread []string `json:"spread,omitempty"`
	// MaxPerNode limits tasks of the service on one node; 0 is no limit.
	MaxPerNode int `json:"max_per_node,omitempty"`
}

// RestartPolicy says what happens when a task's container ends.
type RestartPolicy struct {
	Condition   string   `json:"condition,omitempty"` // "any" (default), "on-failure", "none"
	Delay       Duration `json:"delay,omitempty"`     // first back-off; 0 means 1s. It doubles up to 30s.
	MaxAttempts int      `json:"max_attempts,omitempty"`
	Window      Duration `json:"window,omitempty"`
}

// UpdatePolicy says how a rollout replaces tasks.
type UpdatePolicy struct {
	Parallelism     int      `json:"parallelism,omitempty"` // 0 means: max(1, a quarter of the replicas)
	Delay           Duration `json:"delay,omitempty"`
	FailureAction   string   `json:"failure_action,omitempty"` // "rollback" (default), "pause", "continue"
	Monitor         Duration `json:"monitor,omitempty"`        // how long a ready task is watched; 0 means 5s
	MaxFailureRatio float64  `json:"max_failure_ratio,omitempty"`
	Order           string   `json:"order,omitempty"` // "start-first" (default), "stop-first" (default with a local volume or a node port)
}

// Dependency says that a service starts after another.
type Dependency struct {
	Service   ServiceName `json:"service"`
	Condition string      `json:"condition"` // "service_started", "service_healthy", "service_completed_successfully"
	Optional  bool        `json:"optional,omitempty"`
}

// Autoscale bounds and targets for the autoscaler; percentages are of the reservation.
type Autoscale struct {
	Min int `json:"min"`
	Max int `json:"max"`
	// CPUPercent and MemoryPercent are the target average utilisation; 0 is unset.
	CPUPercent    int `json:"cpu_percent,omitempty"`
	MemoryPercent int `json:"memory_percent,omitempty"`
	// UpWindow and DownWindow are stabilisation windows; 0 means 0s up and 5m down.
	UpWindow   Duration `json:"up_window,omitempty"`
	DownWindow Duration `json:"down_window,omitempty"`
}

// Owners of a scale: who decided the count.
const (
	OwnerRelease    = "release"
	OwnerPerson     = "person"
	OwnerAutoscaler = "autoscaler"
)

// Scale is the live count of a service and who decided it. Writers: API or
// autoscaler, by owner, compare-and-swap.
type Scale struct {
	ServiceID
	Replicas int    `json:"replicas"`
	Owner    string `json:"owner"`
	Reason   string `json:"reason,omitempty"`

	Rev StoreRev `json:"-"`
}

// Route makes a service reachable through the gateways by HTTP.
type Route struct {
	Host     string `json:"host,omitempty"` // "" matches every host
	Path     string `json:"path,omitempty"` // prefix; "" matches every path
	Port     int    `json:"port"`           // the container's port
	Internal bool   `json:"internal,omitempty"`
	// TLS serves the route on the TLS entry point too, with the certificate that matches the host.
	TLS bool `json:"tls,omitempty"`
	// Rule is a Traefik rule in place of Host and Path, from Traefik's labels.
	Rule        string   `json:"rule,omitempty"`
	EntryPoints []string `json:"entry_points,omitempty"` // "web", "websecure"; from labels
	// Priority is the user's, of labels: the highest wins, 0 is the length of the rule.
	Priority int `json:"priority,omitempty"`
	// Scheme of the server, "http" (default), "https", "h2c".
	Scheme string `json:"scheme,omitempty"`
	// Middlewares apply in order.
	Middlewares []Middleware `json:"middlewares,omitempty"`
	Source      Source       `json:"source,omitzero"`
}

// Way is what leads to the route's port, in words that stay when the port changes.
func (r Route) Way() string {
	return strings.Join([]string{cmp.Or(r.Rule, r.Host+r.Path), strconv.FormatBool(r.Internal), strings.Join(r.EntryPoints, ",")}, " ")
}

// GatewayPorts are the container's ports that gateways lead to, by Route.Way and
// PublishedPort.EntryPoint.
func (s ServiceSpec) GatewayPorts() map[string]int {
	out := map[string]int{}
	for _, p := range s.Ports {
		if p.Mode == "gateway" {
			out[p.EntryPoint()] = p.Target
		}
	}
	for _, r := range s.Routes {
		out[r.Way()] = r.Port
	}
	return out
}

// MaxPriority bounds a route's Priority on both sides.
const MaxPriority = 100_000_000

// Middleware is one Traefik middleware: Options are its keys below
// "http/middlewares/<name>/", in Traefik's own vocabulary ("retry/attempts": "3").
type Middleware struct {
	Name    string            `json:"name"`
	Options map[string]string `json:"options,omitempty"`
	// Sealed is the ID of the UserList that holds all of a middleware that asks for
	// a user: the store has its options sealed only.
	Sealed string `json:"sealed,omitempty"`
}

// PublishedPort is a TCP or UDP port reachable from outside its network.
type PublishedPort struct {
	Published int    `json:"published"`
	Target    int    `json:"target"`
	Protocol  string `json:"protocol"`          // "tcp", "udp"
	Mode      string `json:"mode"`              // "gateway": on every gateway; "node": on the task's own node
	HostIP    string `json:"host_ip,omitempty"` // with mode "node"
	Source    Source `json:"source,omitzero"`
}

// EntryPoint is the gateways' entry point of a port with mode "gateway": "tcp-5432".
func (p PublishedPort) EntryPoint() string {
	return cmp.Or(p.Protocol, "tcp") + "-" + strconv.Itoa(p.Published)
}

// Public reports whether p is reachable from other machines.
func (p PublishedPort) Public() bool {
	return p.Mode == "gateway" || (!strings.HasPrefix(p.HostIP, "127.") && p.HostIP != "::1")
}

// OverlapIP reports whether two addresses of a host cannot both listen on a port.
func OverlapIP(a, b string) bool {
	every := func(ip string) bool { return ip == "" || ip == "0.0.0.0" || ip == "::" }
	return a == b || every(a) || every(b)
}
