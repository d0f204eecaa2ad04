package rollout

import (
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// Snapshot is all that Plan looks at, read at one store revision.
type Snapshot struct {
	Now time.Time
	Rev cluster.StoreRev

	Apps       []cluster.App
	Services   []cluster.Service
	Scales     []cluster.Scale
	Tasks      []cluster.Task
	Placements []cluster.NodePlacement
	Statuses   []cluster.Status
	Rollouts   []cluster.Rollout
	Endpoints  []cluster.Endpoints
	Outcomes   []cluster.ReleaseOutcome
	// Changes are where changes with hooks stand.
	Changes []cluster.ChangeRecord
	// Nodes, with Since filled: it says since when a node has been gone.
	Nodes []cluster.Node
	// Lost are nodes that were removed with their volumes.
	Lost []cluster.NodeID
	// Kept is where volumes are that no task speaks of.
	Kept        []cluster.VolumePlaces
	AgentAcks   []cluster.AgentAck
	GatewayAcks []cluster.GatewayAck
	// Unplaced says of tasks why the scheduler found no node for them.
	Unplaced map[cluster.TaskID]string
	// Unready is what Look notes: a task is not late before it was seen for as long.
	Unready map[cluster.TaskID]time.Time

	// Salt goes into the names of the tasks that are made: secret, and any will do, as
	// no two tasks of a service have one number.
	Salt string
	// LostAfter is how long a node is gone before its tasks are replaced; 0 is never.
	LostAfter time.Duration
	// DrainBound is how long a lagging node or gateway is waited for; 0 means 10s.
	DrainBound time.Duration
}

// Action is one thing to write. Tasks and records in actions are what to store;
// their Rev is the revision that they replace, 0 when they are new.
//
//sumtype:decl
type Action interface{ action() }

// Create makes a task.
type Create struct{ Task cluster.Task }

// Drain takes a task out of the endpoints; it keeps running.
type Drain struct{ Task cluster.Task }

// Withdraw notes the endpoints' revision that no longer holds a draining task.
type Withdraw struct{ Task cluster.Task }

// Stop ends a task.
type Stop struct{ Task cluster.Task }

// Record notes how a task ended.
type Record struct{ Task cluster.Task }

// Rewind takes times of a task back to now that lie ahead.
type Rewind struct{ Task cluster.Task }

// Delete forgets an ended task.
type Delete struct{ Task cluster.Task }

// Save writes where a service's rollout stands.
type Save struct{ Rollout cluster.Rollout }

// Keep notes where the volumes of tasks are that are forgotten.
type Keep struct{ Places cluster.VolumePlaces }

// Forget removes the record of a service that is gone with all its tasks.
type Forget struct{ Rollout cluster.Rollout }

// Settle writes what became of a release.
type Settle struct{ Outcome cluster.ReleaseOutcome }

// Unsettle removes the outcome of a release of an app that is gone.
type Unsettle struct{ Outcome cluster.ReleaseOutcome }

// Explain puts a decision on record.
type Explain struct {
	Service  cluster.ServiceID
	Decision cluster.Decision
}

func (Create) action()   {}
func (Drain) action()    {}
func (Withdraw) action() {}
func (Stop) action()     {}
func (Record) action()   {}
func (Rewind) action()   {}
func (Delete) action()   {}
func (Save) action()     {}
func (Keep) action()     {}
func (Forget) action()   {}
func (Settle) action()   {}
func (Unsettle) action() {}
func (Explain) action()  {}
