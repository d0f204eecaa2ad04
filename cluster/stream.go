package cluster

import "time"

// Labels that every container, network and volume made by Fairlead carries.
const (
	LabelCluster = "io.fairlead.cluster" // the cluster's ID: another cluster's objects are never touched
	LabelNode    = "io.fairlead.node"
	LabelTask    = "io.fairlead.task"
	LabelApp     = "io.fairlead.app"
	LabelService = "io.fairlead.service"
	LabelSlot    = "io.fairlead.slot"
	LabelVersion = "io.fairlead.version"

	// Labels that tools made for Swarm read.
	LabelStack        = "com.docker.stack.namespace"
	LabelSwarmService = "com.docker.swarm.service.name"
	LabelSwarmTask    = "com.docker.swarm.task.name"
)

// LogOptions selects what of a task's log is read.
type LogOptions struct {
	Follow     bool
	Timestamps bool
	Tail       int // last lines; negative means all
	Since      time.Time
}

// LogLine is one line of a task's log.
type LogLine struct {
	Task   TaskID    `json:"task"`
	Stream string    `json:"stream"` // "stdout", "stderr"
	Time   time.Time `json:"time"`
	Text   string    `json:"text"` // without the line feed
}

// ExecOptions is a command to run in a task's container.
type ExecOptions struct {
	Command    []string          `json:"command"`
	TTY        bool              `json:"tty,omitempty"`
	Stdin      bool              `json:"stdin,omitempty"`
	Env        map[string]string `json:"env,omitempty"`
	User       string            `json:"user,omitempty"`
	WorkingDir string            `json:"working_dir,omitempty"`
	Width      uint              `json:"width,omitempty"`
	Height     uint              `json:"height,omitempty"`
}

// Sample is what one container used over a short interval. CPU is in
// thousandths of a core, memory the working set in bytes (usage less inactive
// file cache, as Kubernetes counts it).
type Sample struct {
	// Node says so. It is set by who asks the nodes: none speaks in another's name.
	Node   NodeID    `json:"-"`
	Task   TaskID    `json:"task"`
	CPU    int64     `json:"cpu"`
	Memory int64     `json:"memory"`
	At     time.Time `json:"at"`
	Window Duration  `json:"window"` // the interval CPU was averaged over
}

// Image is an image on a node.
type Image struct {
	ID      string    `json:"id"`
	Tags    []string  `json:"tags"`
	Size    int64     `json:"size"` // bytes
	Created time.Time `json:"created"`
}

// ImageHave is what an engine already has of an image's layers.
type ImageHave struct {
	// Layers is how many it has from the lowest up, each above the same ones.
	Layers int `json:"layers,omitempty"`
	// Blobs are the digests of packed layers that it keeps: an engine with
	// containerd's image store needs these, and Layers is 0.
	Blobs []string `json:"blobs,omitempty"`
}

// None reports that everything must be sent.
func (h ImageHave) None() bool { return h.Layers == 0 && len(h.Blobs) == 0 }
