package cluster

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strings"
	"time"
)

// Desire is what should become of a task. It only moves forward.
type Desire string

// Desires, in their order.
const (
	DesireRun   Desire = "run"
	DesireDrain Desire = "drain" // keeps running, gets no new connections
	DesireStop  Desire = "stop"
)

// Task is one attempt to fill a slot of a service. It is never restarted under
// the same name by the control plane, only replaced; its node's agent may start
// its container again after a crash (status counts that). Writer: rollout.
type Task struct {
	ID TaskID `json:"id"`
	ServiceID
	Slot    int       `json:"slot"`
	Version string    `json:"version"` // TaskSpec.Hash
	Release int       `json:"release"`
	Spec    TaskSpec  `json:"spec"`
	Desire  Desire    `json:"desire"`
	Reason  string    `json:"reason,omitempty"` // why it drains or stops
	Created time.Time `json:"created"`
	// Since is when Desire last changed.
	Since time.Time `json:"since"`
	// Node, when set, is where a global service's task must run.
	Node NodeID `json:"node,omitempty"`
	// N numbers the tasks of a service in the order they were made: newer tasks have greater ones.
	N int64 `json:"n,omitempty"`
	// Attempt counts the tasks before this one that failed in its slot one after
	// the other; the back-off doubles with it.
	Attempt int `json:"attempt,omitempty"`
	// Withdrawn, of a draining task, is the revision of the service's endpoints
	// that no longer held it; who has acknowledged it sends nothing new.
	Withdrawn StoreRev `json:"withdrawn,omitempty"`
	// Hook is the point of a change that it runs at; "" is a task of a service. Its
	// writer is then hooks, and it keeps its place, and its log, until its policy removes it.
	Hook HookEvent `json:"hook,omitempty"`
	// Outcome is copied from the last status once the task has ended.
	Outcome *Outcome `json:"outcome,omitempty"`

	Rev StoreRev `json:"-"`
}

// Outcome is how a task ended.
type Outcome struct {
	State    TaskState `json:"state"` // StateComplete, StateFailed, StateStopped, StateLost
	ExitCode int       `json:"exit_code,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	LogTail  []string  `json:"log_tail,omitempty"` // last lines, of failed and completed tasks only
	Node     NodeID    `json:"node,omitempty"`
	At       time.Time `json:"at"`
	Restarts int       `json:"restarts,omitempty"` // of its container
}

const taskSuffix = 10 // characters of a task's ID after its slot

// NewTaskID names the n-th task of a service made since the service was created
// at store revision created. Equal input gives equal names, so that a planner
// needs no randomness. The salt is what no node knows: one that knew the name of a
// task to come could speak of it first.
func NewTaskID(s ServiceID, slot int, created StoreRev, n int64, salt string) TaskID {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s.%d.%d.%d.%s", s, slot, created, n, salt))
	id := strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:]))[:taskSuffix]
	return TaskID(fmt.Sprintf("%s_%s.%d.%s", s.App, s.Name, slot, id))
}

// NodePlacement is the scheduler's decision that a task runs on a node. All but
// Desire is immutable: Desire follows the task's. Writer: scheduler.
type NodePlacement struct {
	Task TaskID `json:"task"`
	Node NodeID `json:"node"`
	ServiceID
	Slot    int           `json:"slot"`
	Version string        `json:"version"`
	Release int           `json:"release"`
	Spec    TaskSpec      `json:"spec"`
	Restart RestartPolicy `json:"restart,omitzero"`
	Desire  Desire        `json:"desire"`
	// Foreign are the external networks of Spec that no app has declared: the node
	// makes none of them, someone else must have.
	Foreign []NetworkName `json:"foreign,omitempty"`
	// Why says what decided for the node, for explain; at most 180 bytes.
	Why string `json:"why,omitempty"`

	Rev StoreRev `json:"-"`
}

// TaskState is what an agent observes of a task. It moves forward, except that
// Running may go back to Starting when the container is started again.
type TaskState string

// States, in their order.
const (
	StateAccepted TaskState = "accepted" // the agent knows of it
	StateWaiting  TaskState = "waiting"  // for a secret or a config; Reason says which
	StatePulling  TaskState = "pulling"
	StateStarting TaskState = "starting" // container created or started, not yet ready; or backing off after a crash
	StateRunning  TaskState = "running"  // Ready says whether it passes its health check
	StateStopping TaskState = "stopping"
	StateComplete TaskState = "complete" // ended by itself with exit code 0
	StateFailed   TaskState = "failed"   // ended otherwise, and will not be started again
	StateStopped  TaskState = "stopped"  // ended because it was told to
	StateLost     TaskState = "lost"     // its node went away; set in an Outcome only
)

// ProcessEnded is the Reason of a task whose process has just ended by itself, while
// its agent does not know yet what that makes of it, or says so in a moment.
const ProcessEnded = "its process ended"

// Terminal reports whether the task has ended for good.
func (s TaskState) Terminal() bool {
	return s == StateComplete || s == StateFailed || s == StateStopped || s == StateLost
}

// Status is what an agent observes of a task. Writer: the node's agent.
type Status struct {
	Task TaskID `json:"task"`
	Node NodeID `json:"node"`
	ServiceID
	Slot    int       `json:"slot"`
	Version string    `json:"version"`
	State   TaskState `json:"state"`
	// Ready: running, and healthy where a health check is declared.
	Ready      bool      `json:"ready"`
	ReadySince time.Time `json:"ready_since,omitzero"`
	Container  string    `json:"container,omitempty"` // Docker's ID
	ImageID    string    `json:"image_id,omitempty"`  // that the container was made from
	// ImageDigest is what the image was pulled by, "repository@sha256:…"; "" where it was
	// built or loaded on its node, or came from another one, and of agents that did not say.
	ImageDigest string                 `json:"image_digest,omitempty"`
	Addresses   map[NetworkName]string `json:"addresses,omitempty"` // IP by network
	Restarts    int                    `json:"restarts,omitempty"`
	ExitCode    int                    `json:"exit_code,omitempty"`
	Reason      string                 `json:"reason,omitempty"` // why waiting, failed, not ready
	LogTail     []string               `json:"log_tail,omitempty"`
	Started     time.Time              `json:"started,omitzero"`
	At          time.Time              `json:"at"`

	Rev StoreRev `json:"-"`
}

// Bounds of what is copied from a status into records, several of which hold the words of
// several tasks. An agent's own are smaller.
const (
	maxReason = 8 << 10
	maxTail   = 16 << 10
)

// Brief is the status with no more words than records have room for.
func (s Status) Brief() Status {
	if len(s.Reason) > maxReason {
		s.Reason = strings.ToValidUTF8(s.Reason[:maxReason], "") + "…"
	}
	from, size := len(s.LogTail), 0
	for from > 0 && size+len(s.LogTail[from-1]) <= maxTail {
		from--
		size += len(s.LogTail[from]) + 1
	}
	s.LogTail = s.LogTail[from:]
	return s
}
