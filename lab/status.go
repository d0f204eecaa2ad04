package lab

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/cluster"
)

// Status is what a lab looks like.
type Status struct {
	Name   string `json:"name"`
	Dir    string `json:"dir"`
	Engine string `json:"engine"`
	// Running says that the lab's process is there; a lab without is on disk alone.
	Running bool `json:"running"`
	// HalfMade says that its making or its removal was interrupted: it has no nodes, and Trouble
	// says what to do.
	HalfMade bool `json:"half_made,omitempty"`
	// Ready says that all nodes with power, and their gateways, serve.
	Ready bool `json:"ready"`
	// Trouble is what the lab could not do.
	Trouble string `json:"trouble,omitempty"`
	// Doubt is why what the cluster says of its nodes may be old, or is not known.
	Doubt string `json:"doubt,omitempty"`
	// Socket is where the API of the first server answers on this machine, URLs where each
	// gateway does.
	Socket    string       `json:"socket"`
	URLs      []string     `json:"urls"`
	Nodes     []NodeStatus `json:"nodes"`
	Cuts      []Cut        `json:"cuts"`
	Snapshots []string     `json:"snapshots"`
}

// NodeStatus is what a node looks like.
type NodeStatus struct {
	Machine
	Power bool `json:"power"`
	// Wanted says that it should have power.
	Wanted bool `json:"wanted"`
	// Docker says that the engine answers, Alive that the cluster counts on the node.
	Docker bool `json:"docker"`
	Alive  bool `json:"alive"`
	// Unknown says that no server answers: Alive and GatewayServes say nothing.
	Unknown        bool        `json:"unknown,omitempty"`
	GatewayServes  bool        `json:"gateway_serves,omitempty"`
	GatewayProblem string      `json:"gateway_problem,omitempty"`
	DockerHost     string      `json:"docker_host"`
	Units          []UnitState `json:"units"`
	Stopped        Set         `json:"stopped,omitempty"`
	Slow           *Pace       `json:"slow,omitempty"`
	Logs           string      `json:"logs"`
	// Socket is where its API answers on this machine, when it is a server.
	Socket string `json:"socket,omitempty"`
	// URLs are where its gateway answers on this machine.
	URLs []string `json:"urls,omitempty"`
}

// newStatus is the status of a lab of which nothing is seen.
func newStatus(d Dir, s State) Status {
	out := Status{
		Name: s.Spec.Name, Dir: string(d), Engine: s.Spec.Engine, Cuts: slices.Clone(s.Cuts), URLs: []string{}, Snapshots: []string{},
	}
	for _, m := range s.Spec.Machines() {
		n := NodeStatus{
			Machine: m, Wanted: !s.Off.Has(m.Name), DockerHost: "unix://" + d.DockerSocket(m.Name), Units: []UnitState{},
			Stopped: stopped(s, m.Name), Logs: d.disk(m.Name),
		}
		if p, ok := s.Slow[m.Name]; ok {
			n.Slow = &p
		}
		if m.Server {
			n.Socket = d.APISocket(m.Name)
			out.Socket = cmp.Or(out.Socket, n.Socket)
		}
		out.Nodes = append(out.Nodes, n)
	}
	for _, p := range s.Ports {
		scheme := "http"
		if p.To == 443 {
			scheme = "https"
		}
		u := fmt.Sprintf("%s://127.0.0.1:%d", scheme, p.Port)
		out.URLs = append(out.URLs, u)
		for i := range out.Nodes {
			if n := &out.Nodes[i]; n.Name == p.Node {
				n.URLs = append(n.URLs, u)
			}
		}
	}
	return out
}

// unreadStatus is the status of a lab whose state is not there, or cannot be read.
func unreadStatus(d Dir, err error) Status {
	return Status{
		Name: filepath.Base(string(d)), Dir: string(d), HalfMade: cluster.KindOf(err) == cluster.KindNotFound, Trouble: err.Error(),
		URLs: []string{}, Nodes: []NodeStatus{}, Cuts: []Cut{}, Snapshots: []string{},
	}
}

// Waiting says what a lab that is coming up waits for, "" when it is ready: of the
// nodes that have no power, and units that were stopped, nothing is expected.
func (s Status) Waiting() string {
	var out []string
	for _, n := range s.Nodes {
		switch {
		case !n.Wanted || n.Stopped.Has(UnitDocker) || n.Stopped.Has(UnitFairlead):
		case !n.Power:
			out = append(out, n.Name+": power")
		case !n.Docker:
			out = append(out, n.Name+": Docker")
		case !n.Alive || !n.Runs(UnitFairlead):
			out = append(out, n.Name+": Fairlead")
		case n.Gateway && !n.GatewayServes:
			out = append(out, n.Name+": gateway")
		}
	}
	return strings.Join(out, ", ")
}

// reasons are what is known of why it is not ready, a line each.
func (s Status) reasons() string {
	var out strings.Builder
	if s.Trouble != "" {
		out.WriteString("\n" + s.Trouble)
	}
	if s.Doubt != "" {
		out.WriteString("\n" + s.Doubt)
	}
	for _, n := range s.Nodes {
		if n.GatewayProblem != "" {
			out.WriteString("\n" + n.Name + ": gateway: " + n.GatewayProblem)
		}
	}
	return out.String()
}

// Runs reports whether a unit of the node runs.
func (n NodeStatus) Runs(unit string) bool {
	return slices.ContainsFunc(n.Units, func(u UnitState) bool { return u.Name == unit && u.PID != 0 })
}

// Ailing names a unit that has ended again and again since its machine was started.
func (s Status) Ailing() (node, unit, ended string) {
	const often = 4
	for _, n := range s.Nodes {
		for _, u := range n.Units {
			if u.Starts >= often && u.PID == 0 {
				return n.Name, u.Name, u.Ended
			}
		}
	}
	return "", "", ""
}
