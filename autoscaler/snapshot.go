package autoscaler

import (
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// Snapshot is all that Plan looks at, read at one store revision.
type Snapshot struct {
	Now time.Time
	// Period is the time between two looks at a service; 0 means 15s.
	Period time.Duration

	Services []cluster.Service
	Scales   []cluster.Scale
	Rollouts []cluster.Rollout
	Tasks    []cluster.Task
	Statuses []cluster.Status
	// Samples are fresh: who gathers them leaves old ones out, by its own clock.
	Samples []cluster.Sample
	States  []State
}

// State is what the autoscaler remembers of a service.
type State struct {
	cluster.ServiceID
	// Created is the service's: another one means that it was removed and made again.
	Created cluster.StoreRev `json:"created,omitempty"`
	// Checked is when it was last looked at.
	Checked time.Time `json:"checked"`
	// Replicas is the count that was last seen or set; another one was set by somebody else.
	Replicas int `json:"replicas"`
	// Recommended are recommendations that may still decide within a window, oldest first.
	Recommended []Recommendation `json:"recommended,omitempty"`
	// Changes are the last changes of the count, for the limit on how fast it grows.
	Changes []Change `json:"changes,omitempty"`
	// Metrics are what was last measured.
	Metrics []Metric `json:"metrics,omitempty"`
	// Message says why the count is what it is.
	Message string `json:"message"`
	// Blocked says that no count could be recommended.
	Blocked bool `json:"blocked,omitempty"`

	Rev cluster.StoreRev `json:"-"`
}

// Recommendation is what the metrics asked for at a time.
type Recommendation struct {
	At       time.Time `json:"at"`
	Replicas int       `json:"replicas"`
}

// Change is by how much the count was changed at a time.
type Change struct {
	At time.Time `json:"at"`
	By int       `json:"by"`
}

// Metric is the utilisation of a resource, in percent of the reservation.
type Metric struct {
	Name    string `json:"name"` // "cpu", "memory"
	Percent int    `json:"percent"`
	Target  int    `json:"target"`
	// Replicas is what it asks for.
	Replicas int    `json:"replicas,omitempty"`
	Error    string `json:"error,omitempty"` // why it cannot be told
}

// Action is one thing to write. The set is closed.
//
//sumtype:decl
type Action interface{ action() }

// SetScale changes a service's count. Scale, State and Decision belong into one
// transaction; the Rev of each is the one that it replaces.
type SetScale struct {
	Scale      cluster.Scale
	State      State
	Decision   cluster.Decision
	ServiceRev cluster.StoreRev // of the service whose bounds decided
}

// SaveState writes what was seen where the count stays.
type SaveState struct {
	State      State
	Decision   *cluster.Decision // nil: what is on record still tells it
	ServiceRev cluster.StoreRev
	ScaleRev   cluster.StoreRev
}

// Forget removes the state and the decision of a service that is not scaled any more.
type Forget struct{ State State }

func (SetScale) action()  {}
func (SaveState) action() {}
func (Forget) action()    {}
