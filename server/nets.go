package server

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/atomicfile"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/mesh"
	"github.com/fairlead/fairlead/store"
)

// nets follows where the nodes' containers are: this node's own part of the range,
// and how the others are reached. It keeps that on disk, for a boot without a store.
type nets struct {
	mirror *store.Mirror
	path   string
	log    hclog.Logger

	mu    sync.Mutex
	pools []netip.Prefix
	had   []netip.Prefix // of this node's networks, by what the others go
	known bool           // something is, from the store or from disk
	only  bool           // there is no other node
}

// blocks is what this node's networks are carved from.
func (n *nets) blocks() []netip.Prefix {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.pools
}

// holds reports whether addresses are this node's own: of its blocks, or, on a server, of a
// network from before there were blocks.
func (n *nets) holds(p netip.Prefix) (bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.known || len(n.pools) == 0 {
		return false, cluster.Transientf("which addresses are this node's is not known yet")
	}
	return slices.Contains(n.had, p) || cluster.Within(n.pools, p), nil
}

// alone reports whether there is no other node, for agent.Config.
func (n *nets) alone() (bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.known {
		return false, cluster.Transientf("whether the cluster has other nodes is not known yet")
	}
	return n.only, nil
}

// follow tells the agent and the mesh of every change until ctx ends. Until the
// store has been read the kernel stays as it is; where the store does not answer,
// what was known last counts.
func (n *nets) follow(ctx context.Context, self cluster.NodeID, peers func(ctx context.Context, own netip.Addr, others []mesh.Peer)) error {
	var turn sync.Mutex
	read := false // what is known is the store's own
	use := func(all []cluster.NodeNet, fresh bool) {
		turn.Lock()
		defer turn.Unlock()
		if read && !fresh {
			return
		}
		read = fresh
		own, at, others := split(all, self)
		n.mu.Lock()
		n.pools, n.had, n.known = own.Blocks, slices.Collect(maps.Values(own.Networks)), true
		n.only = !slices.ContainsFunc(all, func(x cluster.NodeNet) bool { return x.Node != self })
		n.mu.Unlock()
		peers(ctx, at, others)
	}
	patience := time.AfterFunc(storePatience, func() {
		if all, err := n.last(); err == nil {
			use(all, false)
		} else {
			n.log.Error("cannot read where the nodes' containers were; waiting for the store", "error", err)
		}
	})
	defer patience.Stop()
	select {
	case <-n.mirror.Ready():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for {
		changed := n.mirror.Changed()
		var all []cluster.NodeNet
		n.mirror.Read(func(v store.View) { all = store.NodeNets(v) })
		use(all, true)
		if err := n.keep(all); err != nil {
			n.log.Error("cannot keep on disk where the nodes' containers are", "error", err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		}
	}
}

func (n *nets) keep(all []cluster.NodeNet) error {
	b, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return atomicfile.Write(n.path, b)
}

// last is what was kept, nothing on a node that never read its store.
func (n *nets) last() (all []cluster.NodeNet, err error) {
	b, err := os.ReadFile(n.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return all, json.Unmarshal(b, &all)
}

// split tells a node's own part, and the address that the others know it by, from how it
// reaches the others. One that has no address yet is none that can be reached.
func split(all []cluster.NodeNet, self cluster.NodeID) (own cluster.NodeNet, at netip.Addr, others []mesh.Peer) {
	for _, x := range all {
		a, _ := netip.ParseAddr(x.Address) // what is none the mesh tells of
		switch {
		case x.Node == self:
			own, at = x, a
		case x.Address != "":
			others = append(others, mesh.Peer{Node: x.Node, Address: a, Blocks: x.Blocks, Networks: x.Networks, Away: x.Away})
		}
	}
	return own, at, others
}
