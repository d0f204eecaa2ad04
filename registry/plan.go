package registry

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// Claim is a service address as the store holds it.
type Claim struct {
	Service cluster.ServiceID
	Address netip.Addr
	Rev     cluster.StoreRev
}

// Refusal is a NoAddress as the store holds it.
type Refusal struct {
	Reason string
	Rev    cluster.StoreRev
}

// Snapshot is all that Plan looks at, read at one revision.
type Snapshot struct {
	Services   []cluster.Service
	Tasks      []cluster.Task
	Placements []cluster.NodePlacement
	Statuses   []cluster.Status
	Nodes      []cluster.Node
	Endpoints  []cluster.Endpoints
	Claims     []Claim
	// Refused are the services that the store says have no address, and why.
	Refused map[cluster.ServiceID]Refusal
	// Range is where service addresses come from.
	Range netip.Prefix
	// Nets are where the nodes' containers are, as the store has it; Pool is where
	// their addresses come from.
	Nets []cluster.NodeNet
	Pool netip.Prefix
	// Now is the time. Since is when the nodes' heartbeats could first reach the store
	// again after nobody led; zero is long ago. Heard are the nodes that were alive at
	// some time since.
	Now, Since time.Time
	Heard      map[cluster.NodeID]bool
}

// Grace is how long after Since a node that was not heard of keeps what is published
// of it. The nodes of an external etcd renew their leases through the servers: while
// no server is there these end, whatever becomes of the nodes. Each then has a lease's
// time (5 s), as when a server is there, and the longest pause between two of its
// attempts to connect (3 s).
const Grace = 8 * time.Second

// grace is what is left of it.
func (s Snapshot) grace() time.Duration {
	if s.Since.IsZero() {
		return 0
	}
	return max(0, s.Since.Add(Grace).Sub(s.Now))
}

// Wake says how long after s.Now the plan could differ without any change in the
// store; 0 is never.
func Wake(s Snapshot) time.Duration { return s.grace() }

// Action is one thing to write, or one refusal.
//
//sumtype:decl
type Action interface{ action() }

// PutAddress claims an address for a service that has none.
type PutAddress struct {
	Service cluster.ServiceID
	Address netip.Addr
}

// DeleteAddress gives back the address of a service that is gone.
type DeleteAddress struct {
	Service cluster.ServiceID
	Rev     cluster.StoreRev
}

// PutEndpoints writes the endpoints of a service. Endpoints.Rev is the revision
// that they replace, 0 when there are none yet.
type PutEndpoints struct{ Endpoints cluster.Endpoints }

// DeleteEndpoints removes the endpoints of a service that is gone.
type DeleteEndpoints struct {
	Service cluster.ServiceID
	Rev     cluster.StoreRev
}

// NoAddress says that the range has no address left for a service. It is served
// by task addresses meanwhile.
type NoAddress struct {
	Service cluster.ServiceID
	Reason  string
	Rev     cluster.StoreRev // of the refusal that it replaces, 0 when there is none
}

// ClearNoAddress takes back a NoAddress that is not true any more.
type ClearNoAddress struct {
	Service cluster.ServiceID
	Rev     cluster.StoreRev
}

// PutNodeNet writes where a node's containers are. Net.Rev is the revision that it
// replaces, 0 when there is none yet.
type PutNodeNet struct{ Net cluster.NodeNet }

// DeleteNodeNet removes that of a node that is gone.
type DeleteNodeNet struct {
	Node cluster.NodeID
	Rev  cluster.StoreRev
}

func (PutNodeNet) action()      {}
func (DeleteNodeNet) action()   {}
func (PutAddress) action()      {}
func (DeleteAddress) action()   {}
func (PutEndpoints) action()    {}
func (DeleteEndpoints) action() {}
func (NoAddress) action()       {}
func (ClearNoAddress) action()  {}

// Plan returns what must change so that the store says who serves what. Actions
// are sorted by service; what is taken back comes last.
func Plan(s Snapshot) []Action {
	tasks := serving(s)
	current := make(map[cluster.ServiceID]cluster.Endpoints, len(s.Endpoints))
	for _, e := range s.Endpoints {
		current[e.ServiceID] = e
	}
	claims := make(map[cluster.ServiceID]Claim, len(s.Claims))
	for _, c := range s.Claims {
		claims[c.Service] = c
	}
	services := make(map[cluster.ServiceID]cluster.Service, len(s.Services))
	for _, svc := range s.Services {
		services[svc.ServiceID] = svc
	}
	leftover := map[cluster.ServiceID]bool{} // has tasks of any kind
	for _, t := range s.Tasks {
		if t.Outcome == nil {
			leftover[t.ServiceID] = true
		}
	}
	ids := map[cluster.ServiceID]bool{}
	for id := range services {
		ids[id] = true
	}
	for id := range current {
		ids[id] = true
	}
	for id := range claims {
		ids[id] = true
	}

	pool := newPool(s.Range, s.Claims)
	var out []Action
	for _, id := range slices.SortedFunc(maps.Keys(ids), cluster.ServiceID.Compare) {
		svc, exists := services[id]
		old, written := current[id]
		if !exists && !leftover[id] {
			if written {
				out = append(out, DeleteEndpoints{Service: id, Rev: old.Rev})
			}
			if c, ok := claims[id]; ok {
				out = append(out, DeleteAddress{Service: id, Rev: c.Rev})
			}
			continue
		}
		want := old
		if exists {
			want = describe(svc)
			want.Rev = old.Rev
			if want.Mode == "" {
				act, addr := pool.address(id, claims)
				if act != nil {
					out = append(out, act)
				}
				want.Address = addr
			}
		} else if !written {
			continue // removed before it was ever written: nothing to shrink
		}
		want.Tasks = tasks[id]
		if exists {
			want.Networks = reached(want)
		}
		if !written || !same(want, old) {
			out = append(out, PutEndpoints{Endpoints: want})
		}
	}
	return append(refusals(out, s.Refused), nodeNets(s)...)
}

// refusals leaves out what the store says already, and takes back what acts do
// not say any more.
func refusals(acts []Action, written map[cluster.ServiceID]Refusal) []Action {
	said := map[cluster.ServiceID]bool{}
	var out []Action
	for _, a := range acts {
		if no, ok := a.(NoAddress); ok {
			said[no.Service] = true
			old := written[no.Service]
			if old.Reason == no.Reason {
				continue
			}
			no.Rev = old.Rev
			a = no
		}
		out = append(out, a)
	}
	for _, id := range slices.SortedFunc(maps.Keys(written), cluster.ServiceID.Compare) {
		if !said[id] {
			out = append(out, ClearNoAddress{Service: id, Rev: written[id].Rev})
		}
	}
	return out
}

// ModeDNSRR is the endpoint mode without a service address.
const ModeDNSRR = "dnsrr"

// describe returns the part of the endpoints that follows from the service's
// specification alone.
func describe(svc cluster.Service) cluster.Endpoints {
	e := cluster.Endpoints{ServiceID: svc.ServiceID}
	t := svc.Spec.Task
	on := map[string][]cluster.NetworkName{} // by alias
	for _, n := range t.Networks {
		e.Networks = append(e.Networks, n.Name)
		for _, a := range n.Aliases {
			on[a] = append(on[a], n.Name)
		}
	}
	slices.Sort(e.Networks)
	e.Networks = slices.Compact(e.Networks)
	for _, a := range t.Aliases {
		on[a] = e.Networks
	}
	for _, a := range slices.Sorted(maps.Keys(on)) {
		if a == "" || a == string(svc.Name) {
			continue
		}
		e.Aliases = append(e.Aliases, a)
		slices.Sort(on[a])
		if nets := slices.Compact(on[a]); len(nets) < len(e.Networks) {
			if e.AliasNetworks == nil {
				e.AliasNetworks = map[string][]cluster.NetworkName{}
			}
			e.AliasNetworks[a] = nets
		}
	}
	// A service address is a rule on a network of the cluster: a service that is
	// on none of them (host or no network) is known by its tasks' addresses only.
	if svc.Spec.EndpointMode == ModeDNSRR || t.NetworkMode != "" || len(e.Networks) == 0 {
		e.Mode = ModeDNSRR
	}
	return e
}

// reached are the networks that a service is on, and those that it has left, as long
// as tasks of an earlier version serve there.
func reached(e cluster.Endpoints) []cluster.NetworkName {
	out := slices.Clone(e.Networks)
	for _, t := range e.Tasks {
		out = slices.AppendSeq(out, maps.Keys(t.Addresses))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// serving returns the endpoints of each service, sorted by slot, then task.
func serving(s Snapshot) map[cluster.ServiceID][]cluster.Endpoint {
	nodes := make(map[cluster.NodeID]cluster.Node, len(s.Nodes))
	for _, n := range s.Nodes {
		nodes[n.ID] = n
	}
	placed := make(map[cluster.TaskID]cluster.NodePlacement, len(s.Placements))
	for _, p := range s.Placements {
		placed[p.Task] = p
	}
	status := make(map[cluster.TaskID]cluster.Status, len(s.Statuses))
	for _, st := range s.Statuses {
		// A task has one status, on the node of its placement; one that another
		// node left behind must not speak for it.
		if p, ok := placed[st.Task]; ok && p.Node == st.Node {
			status[st.Task] = st
		}
	}
	published := map[cluster.TaskID]cluster.NodeID{}
	for _, e := range s.Endpoints {
		for _, x := range e.Tasks {
			published[x.Task] = x.Node
		}
	}
	grace, w := s.grace() > 0, s.where()
	out := map[cluster.ServiceID][]cluster.Endpoint{}
	for _, t := range s.Tasks {
		p, ok := placed[t.ID]
		if !ok {
			continue
		}
		n, known := nodes[p.Node]
		if grace && known && !s.Heard[p.Node] && published[t.ID] == p.Node {
			n.Alive = true // for all that is known
		}
		if e, ok := w.endpoint(t, p, status[t.ID], n); ok {
			out[t.ServiceID] = append(out[t.ServiceID], e)
		}
	}
	for id := range out {
		slices.SortFunc(out[id], func(a, b cluster.Endpoint) int {
			if a.Slot != b.Slot {
				return a.Slot - b.Slot
			}
			return strings.Compare(string(a.Task), string(b.Task))
		})
	}
	return out
}

// endpoint returns the task as an endpoint, when it is one.
func (w *where) endpoint(t cluster.Task, p cluster.NodePlacement, st cluster.Status, n cluster.Node) (cluster.Endpoint, bool) {
	e := cluster.Endpoint{Task: t.ID, Slot: t.Slot, Node: p.Node, Version: t.Version}
	switch {
	case t.Desire != cluster.DesireRun, t.Outcome != nil:
		return e, false
	case p.Desire != cluster.DesireRun && p.Desire != "":
		return e, false
	case !n.Alive:
		return e, false
	case st.State != cluster.StateRunning || !st.Ready:
		return e, false
	}
	if t.Spec.NetworkMode == "host" {
		e.Host = w.host(n)
		return e, e.Host != ""
	}
	e.Addresses = w.addresses(n, p, st.Addresses)
	return e, len(e.Addresses) > 0
}

func same(a, b cluster.Endpoints) bool {
	return a.ServiceID == b.ServiceID && a.Address == b.Address && a.Mode == b.Mode &&
		slices.Equal(a.Aliases, b.Aliases) && maps.EqualFunc(a.AliasNetworks, b.AliasNetworks, slices.Equal[[]cluster.NetworkName]) &&
		slices.Equal(a.Networks, b.Networks) &&
		slices.EqualFunc(a.Tasks, b.Tasks, func(x, y cluster.Endpoint) bool {
			return x.Task == y.Task && x.Slot == y.Slot && x.Node == y.Node && x.Host == y.Host && x.Version == y.Version &&
				maps.Equal(x.Addresses, y.Addresses)
		})
}
