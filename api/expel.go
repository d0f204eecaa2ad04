package api

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

type removeNodeInput struct {
	NodePath
	Force       bool `query:"force" doc:"also when the node is alive"`
	LoseVolumes bool `query:"lose_volumes" doc:"tasks with volumes there start anew elsewhere, with empty ones"`
}

func (s *Server) removeNode(ctx context.Context, in *removeNodeInput) (nothing, error) {
	id := cluster.NodeID(in.Node)
	n, there := s.read("").nodes[id]
	spec, known := s.nodeSpec(id)
	// What a node says of itself is not asked: one that joined is no server.
	server := spec.V.Key == "" && (id == s.Node || s.isServer(id))
	switch {
	case !there && !known && in.LoseVolumes && len(s.heldVolumes(id)) > 0:
		// It was removed before; its volumes were still waited for.
	case !there && !known:
		return nothing{}, s.expelUnknown(ctx, id)
	case n.Alive && server:
		return nothing{}, cluster.Invalidf("node %s is a server that runs: first `fairlead server rm %s`, and stop it there (`fairlead system uninstall`)", id, id)
	case n.Alive && !in.Force:
		return nothing{}, cluster.Invalidf("node %s is alive: `fairlead node drain %s`, then stop its agent there (`fairlead system uninstall`); or --force, and its tasks are replaced on other nodes", id, id)
	}
	if spec.V.Key != "" {
		if err := s.noAdmission(); err != nil {
			return nothing{}, err
		}
	}
	if err := s.forgetNode(ctx, id, spec.V.Key, in.LoseVolumes); err != nil {
		return nothing{}, err
	}
	if _, err := s.expel(ctx, id); err != nil {
		return nothing{}, fmt.Errorf("node %s is removed, but not all of it is gone yet; `fairlead node rm %s` again: %w", id, id, err)
	}
	s.Log.Info("removed a node", "node", id, "forced", in.Force, "volumes_lost", in.LoseVolumes, "by", who(ctx))
	return nothing{}, nil
}

// expelUnknown ends the removal of a node of which there is no record: somebody may have
// begun it.
func (s *Server) expelUnknown(ctx context.Context, id cluster.NodeID) error {
	found, err := s.expel(ctx, id)
	switch {
	case err != nil:
		return err
	case !found:
		return noNode(string(id))
	}
	s.Log.Info("removed what was left of a node", "node", id, "by", who(ctx))
	return nil
}

// expel closes the store to a node whose record is gone, and then forgets what the node
// said. It reports whether there was something to do.
func (s *Server) expel(ctx context.Context, id cluster.NodeID) (found bool, err error) {
	if s.Admission != nil {
		if found, err = s.Admission.Expel(ctx, id); err != nil {
			return found, err
		}
	}
	err = s.decide(ctx, func(ctx context.Context) error {
		if _, rev, err := s.record(ctx, id); err != nil || rev > 0 {
			return err // a machine has joined under its name
		}
		steps, err := s.said(ctx, id)
		if err != nil {
			return err
		}
		found = found || len(steps) > 0
		return s.commit(ctx, []store.Cond{{Key: store.NodeSpecKey(id)}}, steps)
	})
	return found, err
}

// record reads a node's record from the store itself; its revision is 0 when there is none.
func (s *Server) record(ctx context.Context, id cluster.NodeID) (spec cluster.NodeSpec, rev int64, err error) {
	e, err := s.Store.Get(ctx, store.NodeSpecKey(id))
	if cluster.KindOf(err) == cluster.KindNotFound {
		return spec, 0, nil
	}
	if err == nil {
		err = json.Unmarshal(e.Value, &spec)
	}
	return spec, e.Rev, err
}

// forgetNode removes the record of a node, which has this key: from then on it is none,
// whatever it says.
func (s *Server) forgetNode(ctx context.Context, id cluster.NodeID, key string, loseVolumes bool) error {
	return s.decide(ctx, func(ctx context.Context) error {
		spec, rev, err := s.record(ctx, id)
		if err != nil {
			return err
		}
		if rev > 0 && spec.Key != key {
			return cluster.Conflictf("another machine has joined as node %s meanwhile; `fairlead node ls` shows it", id)
		}
		note := map[string]any{}
		if loseVolumes {
			note[store.NodeLostKey(id)] = cluster.LostVolumes{Node: id, At: s.Now().UTC(), By: who(ctx)}
		}
		if key != "" {
			note[store.NodeRemovedKey(id)] = cluster.RemovedNode{Node: id, At: s.Now().UTC(), By: who(ctx)}
		}
		var steps []step
		for _, k := range slices.Sorted(maps.Keys(note)) {
			st, err := put(k, note[k], s.rev(k))
			if err != nil {
				return err
			}
			steps = append(steps, st)
		}
		if rev > 0 {
			steps = append(steps, remove(store.NodeSpecKey(id), rev))
		}
		return s.commit(ctx, []store.Cond{{Key: store.NodeSpecKey(id), Rev: rev}}, steps)
	})
}

// said removes what a node said of itself, as the store has it.
func (s *Server) said(ctx context.Context, id cluster.NodeID) (steps []step, err error) {
	said, _, err := s.Store.List(ctx, store.StatusPrefix(id))
	if err != nil {
		return nil, err
	}
	for _, k := range []string{store.NodeInfoKey(id), store.AliveKey(id), store.AgentAckKey(id), store.GatewayAckKey(id)} {
		e, err := s.Store.Get(ctx, k)
		if cluster.KindOf(err) == cluster.KindNotFound {
			continue
		}
		if err != nil {
			return nil, err
		}
		said = append(said, e)
	}
	for _, e := range said {
		steps = append(steps, remove(e.Key, e.Rev))
	}
	return steps, nil
}

// heldVolumes names the volumes that tasks had on a node.
func (s *Server) heldVolumes(id cluster.NodeID) []string {
	held := map[string]bool{}
	hold := func(names []string) {
		for _, n := range names {
			held[n] = true
		}
	}
	s.Mirror.Read(func(v store.View) {
		for _, p := range store.Placements(v) {
			if p.Node == id {
				hold(p.Spec.LocalVolumes())
			}
		}
		for _, t := range store.Tasks(v) {
			if t.Outcome != nil && t.Outcome.Node == id {
				hold(t.Spec.LocalVolumes())
			}
		}
		for _, p := range store.VolumePlaces(v) {
			for _, x := range p.Slots {
				if x.Node == id {
					hold(x.Volumes)
				}
			}
		}
	})
	return slices.Sorted(maps.Keys(held))
}

// hasHeld refuses a machine under the name of a node that was removed, whose volumes are
// waited for, unless it has them all, or they were given up: the tasks that wait would start
// there, with empty ones. has is nil where the machine does not say.
func (s *Server) hasHeld(id cluster.NodeID, has []string) error {
	var lost bool
	s.Mirror.Read(func(v store.View) { lost = slices.Contains(store.LostVolumes(v), id) })
	missing := slices.DeleteFunc(s.heldVolumes(id), func(name string) bool { return slices.Contains(has, name) })
	if lost || len(missing) == 0 {
		return nil
	}
	why := "which this machine does not have"
	if has == nil {
		why = "and this machine does not say which it has (its engine does not answer, or its Fairlead is older than the server's)"
	}
	return cluster.Invalidf("tasks wait for volumes of node %s, which was removed (%s), %s: they would start here with empty ones. If those volumes are lost, first `fairlead node rm %s --lose-volumes`; else join under another name with --node, and the volumes are waited for", id, some(missing), why, id)
}
