package registry

import (
	"net/netip"

	"github.com/fairlead/fairlead/cluster"
)

// where says at which addresses tasks are reached. What nodes say of that is written down
// for all the others to go by: who is sent to an address that is not the task's reaches
// another's container, or a machine that no service of the cluster is on.
type where struct {
	snapshot *Snapshot
	nets     map[cluster.NodeID]cluster.NodeNet
	own      map[cluster.NodeID]ownership
}

func (s *Snapshot) where() *where {
	w := &where{s, make(map[cluster.NodeID]cluster.NodeNet, len(s.Nets)), map[cluster.NodeID]ownership{}}
	for _, n := range s.Nets {
		w.nets[n.Node] = n
	}
	return w
}

// addresses are those of a task, as its node says, on the networks that it was placed with:
// the node's own ones. Those of an external network may be of any other range, which the
// node alone knows, yet none that the cluster gives.
func (w *where) addresses(n cluster.Node, p cluster.NodePlacement, said map[cluster.NetworkName]string) map[cluster.NetworkName]string {
	own, known := w.own[n.ID]
	if !known {
		own = owns(n, w.nets)
		w.own[n.ID] = own
	}
	out := make(map[cluster.NetworkName]string, len(said))
	for _, ref := range p.Spec.Networks {
		a, ok := single(said[ref.Name])
		if ok && (own.has(netip.PrefixFrom(a, a.BitLen())) || ref.External && !w.given(a)) {
			out[ref.Name] = a.String()
		}
	}
	return out
}

// host is a node's own address; "" is none. A server alone may have a loopback one, as long
// as there are no other machines.
func (w *where) host(n cluster.Node) string {
	if n.Key == "" {
		return n.Info.Address
	}
	if a, ok := single(n.Info.Address); ok && !w.given(a) {
		return a.String()
	}
	return ""
}

// given reports whether an address is of the cluster's ranges.
func (w *where) given(a netip.Addr) bool {
	return w.snapshot.Pool.Contains(a) || w.snapshot.Range.Contains(a)
}

// single reads the address of one machine or container, in the one way to write it. A
// loopback or link-local one is another's on each machine: its own, or its cloud's metadata.
func single(text string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(text)
	a = a.Unmap()
	return a, err == nil && a.Zone() == "" && a.IsGlobalUnicast()
}
