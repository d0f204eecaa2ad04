package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/fairlead/fairlead/cluster"
)

// nodePort is a port of a node that a service must have to run as asked.
type nodePort struct {
	cluster.PublishedPort
	node   cluster.NodeID
	holder cluster.ServiceID
	field  string
}

func (p nodePort) clashes(o nodePort) bool {
	return p.node == o.node && p.Published == o.Published && cmp.Or(p.Protocol, "tcp") == cmp.Or(o.Protocol, "tcp") &&
		cluster.OverlapIP(p.HostIP, o.HostIP)
}

// nodePorts lists the ports that a service has on the nodes where it must run: all
// that its constraints allow when it is global, the only one otherwise. Where it
// has a choice the scheduler keeps services apart, and one that ends by itself
// gives its ports back.
func nodePorts(s cluster.Service, count int, nodes []cluster.Node) []nodePort {
	global := s.Spec.Mode == cluster.Global
	if len(s.Spec.Task.NodePorts) == 0 || (!global && count == 0) || !endless(s.Spec.Restart) {
		return nil
	}
	at, err := allowed(s.Spec.Placement, nodes)
	if err != nil || (!global && len(at) != 1) {
		return nil
	}
	var out []nodePort
	for i, p := range s.Spec.Task.NodePorts {
		// The task's own ports do not say where they stand.
		if j := slices.IndexFunc(s.Spec.Ports, func(o cluster.PublishedPort) bool { return samePort(o, p) }); j >= 0 {
			p.Source = s.Spec.Ports[j].Source
		}
		p.Source = orElse(p.Source, s.Spec.Source)
		for _, n := range at {
			out = append(out, nodePort{PublishedPort: p, node: n, holder: s.ServiceID, field: fmt.Sprintf("services.%s.task.node_ports[%d]", s.Name, i)})
		}
	}
	return out
}

// endless reports whether the tasks of a service never end by themselves.
func endless(r cluster.RestartPolicy) bool { return r.Condition == "" || r.Condition == "any" }

// allowed returns the nodes that a service's constraints allow, there now or not.
func allowed(p cluster.Placement, nodes []cluster.Node) ([]cluster.NodeID, error) {
	var cons []cluster.Constraint
	for _, text := range p.Constraints {
		con, err := cluster.ParseConstraint(text)
		if err != nil {
			return nil, err
		}
		cons = append(cons, con)
	}
	var out []cluster.NodeID
	for i := range nodes {
		if !slices.ContainsFunc(cons, func(con cluster.Constraint) bool { return !con.Holds(&nodes[i]) }) {
			out = append(out, cmp.Or(nodes[i].ID, nodes[i].Info.ID))
		}
	}
	slices.Sort(out)
	return out, nil
}

// portClash is a port of a node that two services must have.
type portClash struct{ wants, has nodePort }

// portClashes returns those of an app's services with each other and with others'.
func portClashes(s State, services []cluster.Service) []portClash {
	var taken []nodePort
	for _, o := range s.Others {
		count := o.Spec.Replicas
		if sc, ok := s.OtherScales[o.ServiceID]; ok {
			count = sc.Replicas
		}
		taken = append(taken, nodePorts(o, count, s.Nodes)...)
	}
	var out []portClash
	for _, svc := range services {
		old, exists := s.Scales[svc.Name]
		wants := nodePorts(svc, Scale(svc.App, svc.Name, svc.Spec, old, exists).Replicas, s.Nodes)
		for _, p := range wants {
			if i := slices.IndexFunc(taken, p.clashes); i >= 0 {
				out = append(out, portClash{p, taken[i]})
			}
		}
		taken = append(taken, wants...)
	}
	return out
}

// checkNodePorts refuses ports of a node that another service must have there too.
// What clashes already, because a node went, does not stand in the way of a deploy.
func (c *checker) checkNodePorts() {
	standing := portClashes(c.state, slices.SortedFunc(maps.Values(c.state.Services), func(a, b cluster.Service) int { return a.Compare(b.ServiceID) }))
	var now []cluster.Service
	for _, name := range slices.Sorted(maps.Keys(c.in.Bundle.Services)) {
		now = append(now, cluster.Service{ServiceID: cluster.ServiceID{App: c.in.App, Name: name}, Spec: c.in.Bundle.Services[name]})
	}
	told := map[string]bool{}
	for _, x := range portClashes(c.state, now) {
		w := x.wants
		if told[w.field] || slices.ContainsFunc(standing, func(o portClash) bool { return o.wants.holder == w.holder && o.wants.clashes(w) }) {
			continue
		}
		told[w.field] = true // of a global service one node is enough
		c.badAt(w.Source, w.field, "%s wants port %d/%s of node %s, which %s already has%s; choose another one, or remove that",
			w.holder, w.Published, cmp.Or(w.Protocol, "tcp"), w.node, x.has.holder, place(x.has.Source))
	}
}
