package v1

import (
	"fmt"
	"strings"

	"github.com/fairlead/fairlead/cluster"
)

// Invite asks for a token that nodes join with.
type Invite struct {
	TTL  cluster.Duration `json:"ttl,omitempty" doc:"how long it is good for; 1h when not given, 30 days at most"`
	Uses int              `json:"uses,omitempty" minimum:"0" maximum:"1000" doc:"how many nodes may join with it; 1 when not given"`
	// Server tokens are for servers alone, others for nodes alone.
	Server bool `json:"server,omitempty" doc:"the machine becomes a server: it is given the cluster's keys"`
}

// Invitation is a new join token. Value is told this once and kept nowhere.
type Invitation struct {
	cluster.Token
	Value   string   `json:"value"`
	Servers []string `json:"servers" doc:"addresses that the new node may ask, host:port"`
}

// Line is what makes a machine a node. The token goes through standard input:
// arguments can be read by everyone on that machine.
func (i Invitation) Line() string {
	line := fmt.Sprintf("echo %s | sudo fairlead system install --join %s", i.Value, strings.Join(i.Servers, ","))
	if i.Server {
		line += " --server"
	}
	return line
}

// Join is what a machine sends to become a node.
type Join struct {
	Token   string         `json:"token" maxLength:"200"`
	Node    cluster.NodeID `json:"node" maxLength:"63"`
	Request string         `json:"request" maxLength:"4096" doc:"a certificate request in PEM, of the node's own key"`
	Version string         `json:"version,omitempty" maxLength:"100"`
	Gateway bool           `json:"gateway,omitempty" doc:"run a gateway there too"`
	// Networks are the machine's own: one that has addresses of the cluster's is refused.
	Networks []cluster.HostNet `json:"networks,omitempty" maxItems:"5000" doc:"what the machine reaches by itself"`
	// Volumes are those of its engine: a node's that was removed may be among them.
	Volumes []string `json:"volumes,omitzero" maxItems:"5000" doc:"names of the machine's volumes; left out where it does not say"`
}

// MostNetworks and MostVolumes are how many networks and volumes a machine that joins tells
// of at most.
const (
	MostNetworks = 5000
	MostVolumes  = 5000
)

// Renew is a node's request for its next certificate, of the same key.
type Renew struct {
	Request string `json:"request" maxLength:"4096"`
}

// NodeRemoveOptions say how a node is removed.
type NodeRemoveOptions struct {
	Force       bool // also when it is alive
	LoseVolumes bool // tasks with volumes there start anew elsewhere, with empty ones
}

// Membership is what a node needs to take part.
type Membership struct {
	Cluster      string           `json:"cluster"`
	Node         cluster.NodeID   `json:"node"`
	CA           string           `json:"ca" doc:"the authority's certificate in PEM"`
	Certificate  string           `json:"certificate" doc:"the node's certificate in PEM"`
	Etcd         []string         `json:"etcd" doc:"URLs of the store"`
	Servers      []string         `json:"servers" doc:"addresses of the servers' API, host:port"`
	Pool         string           `json:"pool" doc:"address range of the cluster's containers"`
	ServiceRange string           `json:"service_range" doc:"range of service addresses"`
	SampleEvery  cluster.Duration `json:"sample_every" doc:"how often usage is measured"`
	Gateway      bool             `json:"gateway,omitempty" doc:"whether it may run a gateway"`
}

// Login is the credentials of an image registry; empty when there are none.
type Login struct {
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty"`
}

// HeaderServers is where the servers' API is reached, host:port, separated by
// commas: clients with a token are told with each answer.
const HeaderServers = "Fairlead-Servers"

// HeaderStale says that an answer may be old: for how many seconds the server that gives it
// has not heard from a majority. HeaderStaleServer is the name of that server.
const (
	HeaderStale       = "Fairlead-Stale-Seconds"
	HeaderStaleServer = "Fairlead-Stale-Server"
)

// HeaderNode says which server's node opens a tunnel: its certificate is the control
// plane's, as every server's is.
const HeaderNode = "Fairlead-Node"

// HeaderInstance tells two machines with one node's certificate apart: a word that each
// agent makes up when it starts, and never keeps.
const HeaderInstance = "Fairlead-Instance"

// ServerJoin is what a machine sends to become a server.
type ServerJoin struct {
	Token     string         `json:"token" maxLength:"200"`
	Node      cluster.NodeID `json:"node" maxLength:"63"`
	Recipient string         `json:"recipient" maxLength:"200" doc:"the age public key that the cluster's keys are encrypted to"`
	Version   string         `json:"version,omitempty" maxLength:"100"`
	External  bool           `json:"external,omitempty" doc:"it was told of an external etcd, as every server of a cluster on one is"`
	// Networks and Volumes are as those of Join.
	Networks []cluster.HostNet `json:"networks,omitempty" maxItems:"5000" doc:"what the machine reaches by itself"`
	Volumes  []string          `json:"volumes,omitzero" maxItems:"5000" doc:"names of the machine's volumes; left out where it does not say"`
}

// ServerMembership is what a server needs to take part.
type ServerMembership struct {
	Cluster         string           `json:"cluster"`
	Node            cluster.NodeID   `json:"node"`
	CA              string           `json:"ca" doc:"the authority's certificate in PEM"`
	Sealed          []byte           `json:"sealed" doc:"the cluster's keys, encrypted to the recipient"`
	Etcd            []string         `json:"etcd" doc:"URLs of the store"`
	Servers         []string         `json:"servers" doc:"addresses of the servers' API, host:port"`
	Pool            string           `json:"pool" doc:"address range of the cluster's containers"`
	ServiceRange    string           `json:"service_range" doc:"range of service addresses"`
	Domain          string           `json:"domain" doc:"default domain of routes"`
	AutoscalePeriod cluster.Duration `json:"autoscale_period"`
	External        bool             `json:"external,omitempty" doc:"the cluster's etcd is an operator's"`
}

// Standing is what part a server has in the store.
type Standing string

// Standings.
const (
	StandingVoter   Standing = "voter"
	StandingLearner Standing = "learner" // it joins: it follows, and does not vote yet
	StandingNone    Standing = "none"    // the store does not know it
	StandingClient  Standing = "client"  // the store is an external etcd, which it uses
)

// ServerSummary is one server.
type ServerSummary struct {
	Node     cluster.NodeID `json:"node"`
	API      string         `json:"api,omitempty" doc:"host:port"`
	Version  string         `json:"version,omitempty"`
	Standing Standing       `json:"standing" enum:"voter,learner,none,client"`
	Answers  bool           `json:"answers" doc:"whether its store answers; with an external etcd, whether it does"`
	Leader   bool           `json:"leader,omitempty" doc:"whether it leads the store; with an external etcd, the control loops"`
	Size     int64          `json:"size,omitempty" doc:"of its store, in bytes"`
	Problem  string         `json:"problem,omitempty"`
}
