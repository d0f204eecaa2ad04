package agent

import (
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// Step is the next thing to do for a task.
//
//sumtype:decl
type Step interface{ step() }

// Wait does nothing until Until, or until something is observed when that is zero.
type Wait struct{ Until time.Time }

// Pull fetches the image.
type Pull struct{}

// Create makes the container, and before it its files, networks and volumes.
type Create struct{}

// Start starts the container. Again says that it crashed, which counts.
type Start struct{ Again bool }

// Signal sends a signal to the container. Because is set when it is stopped for
// failing its health check.
type Signal struct{ Signal, Because string }

// Remove removes the container.
type Remove struct{}

// End records how the task ended; nothing but removal follows.
type End struct {
	State    cluster.TaskState
	ExitCode int
	Reason   string
}

// Forget drops everything about a task that is placed here no more.
type Forget struct{}

func (Wait) step()   {}
func (Pull) step()   {}
func (Create) step() {}
func (Start) step()  {}
func (Signal) step() {}
func (Remove) step() {}
func (End) step()    {}
func (Forget) step() {}
