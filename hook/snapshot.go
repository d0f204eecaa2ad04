package hook

import (
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// Snapshot is all that Plan looks at, read at one store revision.
type Snapshot struct {
	Now time.Time

	Apps    []cluster.App
	Changes []cluster.PendingChange
	Records []cluster.ChangeRecord
	// Tasks are those of every service and hook.
	Tasks      []cluster.Task
	Placements []cluster.NodePlacement
	Statuses   []cluster.Status
	Rollouts   []cluster.Rollout
	Outcomes   []cluster.ReleaseOutcome
	Nodes      []cluster.Node
	// Salt goes into the names of the tasks that are made, as in rollout.Snapshot.
	Salt string
}

// Action is one thing to write. Tasks and records in actions are what to store;
// their Rev is the revision that they replace, 0 when they are new.
//
//sumtype:decl
type Action interface{ action() }

// Save writes where a change stands.
type Save struct{ Record cluster.ChangeRecord }

// Forget removes the record of an app that is gone.
type Forget struct{ Record cluster.ChangeRecord }

// Create makes the task of a hook. It belongs to the Save ahead of it.
type Create struct{ Task cluster.Task }

// Stop ends the task of a hook.
type Stop struct{ Task cluster.Task }

// Delete forgets the task of a hook: its container goes.
type Delete struct{ Task cluster.Task }

func (Save) action()   {}
func (Forget) action() {}
func (Create) action() {}
func (Stop) action()   {}
func (Delete) action() {}
