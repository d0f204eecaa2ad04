package scheduler

import (
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// Snapshot is all that Plan looks at, read at one store revision.
type Snapshot struct {
	Now time.Time
	Rev cluster.StoreRev

	Nodes      []cluster.Node
	Services   []cluster.Service
	Tasks      []cluster.Task
	Placements []cluster.NodePlacement
	Statuses   []cluster.Status
	// Notes are the stored reasons of tasks that were not placed.
	Notes []Note

	// Lost are nodes that were removed with their volumes.
	Lost []cluster.NodeID
	// Kept is where volumes are that no task speaks of.
	Kept []cluster.VolumePlaces

	// Turn is the revision of the scheduler's last write; every write compares it.
	Turn cluster.StoreRev
}

// Note is the stored reason why a task is not placed.
type Note struct {
	Object string // "app/service.slot"
	Task   cluster.TaskID
	Reason string
	Rev    cluster.StoreRev
}

// Action is one thing to write. The set is closed.
//
//sumtype:decl
type Action interface{ action() }

// Place puts a task on a node.
type Place struct {
	Placement cluster.NodePlacement
	TaskRev   cluster.StoreRev // of the task that was placed
	NodeRev   cluster.StoreRev // of the node's spec that allowed it; 0: it has none
}

// SetDesire copies a task's desire into its placement.
type SetDesire struct {
	Placement cluster.NodePlacement // with the new desire; Rev is the one it replaces
	TaskRev   cluster.StoreRev      // 0: the task is gone
}

// Remove forgets a placement that has ended.
type Remove struct {
	Placement cluster.NodePlacement
	TaskRev   cluster.StoreRev // 0: the task is gone
	Reason    string
}

// Unplaced says why a task that should run has no node.
type Unplaced struct {
	Task     cluster.TaskID
	Service  cluster.ServiceID
	Slot     int
	Reason   string
	Refusals []cluster.Refusal

	TaskRev cluster.StoreRev
	// NoteRev is the revision of the stored note on the slot, 0 when there is
	// none; Noted says that it tells this already.
	NoteRev cluster.StoreRev
	Noted   bool
}

// Forget removes the note on a slot whose task is placed or gone.
type Forget struct{ Note Note }

func (Place) action()     {}
func (SetDesire) action() {}
func (Remove) action()    {}
func (Unplaced) action()  {}
func (Forget) action()    {}

// Object names the slot of a task as decisions do: "app/service.slot".
func Object(s cluster.ServiceID, slot int) string {
	return cluster.Address{App: s.App, Service: s.Name, Slot: slot}.String()
}
