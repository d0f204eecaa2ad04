package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// TaskSpec is everything that makes a container. Two tasks with equal specs are
// interchangeable. New fields must be omitted when zero, else every running
// task would be replaced by an upgrade.
type TaskSpec struct {
	// Image is a reference; ImageID, when known, pins what the reference meant.
	Image      string            `json:"image"`
	ImageID    string            `json:"image_id,omitempty"`
	PullPolicy string            `json:"pull_policy,omitempty"` // "missing" (default), "always", "never"
	Platform   string            `json:"platform,omitempty"`
	Command    []string          `json:"command,omitempty"`   // replaces CMD; nil keeps the image's
	Entrypoint []string          `json:"entrypoint,omitzero"` // replaces ENTRYPOINT; nil keeps the image's, an empty list takes it away
	Env        map[string]string `json:"env,omitempty"`
	// SecretEnv maps a variable to the name of a secret in Secrets; the init sets it.
	SecretEnv  map[string]string `json:"secret_env,omitempty"`
	WorkingDir string            `json:"working_dir,omitempty"`
	User       string            `json:"user,omitempty"`
	GroupAdd   []string          `json:"group_add,omitempty"`
	Hostname   string            `json:"hostname,omitempty"` // may hold Swarm's templates ({{.Node.Hostname}})
	Aliases    []string          `json:"aliases,omitempty"`  // further names inside the app (container_name, network aliases)
	Labels     map[string]string `json:"labels,omitempty"`   // container labels

	Health      *Health         `json:"health,omitempty"`
	Networks    []NetworkRef    `json:"networks,omitempty"`
	NetworkMode string          `json:"network_mode,omitempty"` // "", "none", "host"
	Expose      []int           `json:"expose,omitempty"`       // container ports named by the file
	NodePorts   []PublishedPort `json:"node_ports,omitempty"`   // ports published by the task's own node
	Mounts      []Mount         `json:"mounts,omitempty"`
	Secrets     []FileRef       `json:"secrets,omitempty"`
	Configs     []FileRef       `json:"configs,omitempty"`
	Resources   Resources       `json:"resources,omitzero"`

	StopSignal  string            `json:"stop_signal,omitempty"`
	StopGrace   Duration          `json:"stop_grace,omitempty"` // 0 means 10s
	ReadOnly    bool              `json:"read_only,omitempty"`
	Privileged  bool              `json:"privileged,omitempty"`
	CapAdd      []string          `json:"cap_add,omitempty"`
	CapDrop     []string          `json:"cap_drop,omitempty"`
	SecurityOpt []string          `json:"security_opt,omitempty"`
	Sysctls     map[string]string `json:"sysctls,omitempty"`
	Ulimits     []Ulimit          `json:"ulimits,omitempty"`
	Devices     []string          `json:"devices,omitempty"` // "host:container:rwm"
	ShmSize     int64             `json:"shm_size,omitempty"`
	Init        bool              `json:"init,omitempty"`
	StdinOpen   bool              `json:"stdin_open,omitempty"`
	TTY         bool              `json:"tty,omitempty"`
	LogDriver   string            `json:"log_driver,omitempty"`
	LogOpts     map[string]string `json:"log_opts,omitempty"`
	ExtraHosts  []string          `json:"extra_hosts,omitempty"` // "name:ip"
	DNS         []string          `json:"dns,omitempty"`
	DNSSearch   []string          `json:"dns_search,omitempty"`
	DNSOptions  []string          `json:"dns_options,omitempty"`
	// Generation changes when a restart was asked for, and with it the hash.
	Generation int `json:"generation,omitempty"`
}

// Hash names the spec: the first 12 hex digits of the SHA-256 of its JSON.
func (t TaskSpec) Hash() string {
	b, err := json.Marshal(t)
	if err != nil {
		panic(fmt.Sprintf("task spec does not marshal: %v", err)) // only plain data: cannot happen
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:6])
}

// NeedsPayload reports whether the task must wait for a Sealed.
func (t TaskSpec) NeedsPayload() bool { return len(t.Secrets)+len(t.Configs) > 0 }

// LocalVolumes names the volumes whose data stays on the task's node.
func (t TaskSpec) LocalVolumes() []string {
	var out []string
	for _, m := range t.Mounts {
		if m.isVolume() && m.local() {
			out = append(out, m.Source)
		}
	}
	return out
}

// HasLocalVolume reports whether the task keeps data on its node.
func (t TaskSpec) HasLocalVolume() bool {
	return slices.ContainsFunc(t.Mounts, func(m Mount) bool { return m.isVolume() && m.local() })
}

// HasVolume reports whether the task keeps data in a volume, on its node or elsewhere.
func (t TaskSpec) HasVolume() bool { return slices.ContainsFunc(t.Mounts, Mount.isVolume) }

// SortedEnv returns the environment as sorted "K=V".
func (t TaskSpec) SortedEnv() []string {
	out := make([]string, 0, len(t.Env))
	for _, k := range slices.Sorted(maps.Keys(t.Env)) {
		out = append(out, k+"="+t.Env[k])
	}
	return out
}

// NetworkRef attaches a task to a network.
type NetworkRef struct {
	Name     NetworkName `json:"name"`
	Aliases  []string    `json:"aliases,omitempty"`
	Internal bool        `json:"internal,omitempty"` // no way out of the network
	External bool        `json:"external,omitempty"` // of another app, or Docker's own on the node
}

// Types of mounts.
const (
	MountVolume = "volume" // Source is the full volume name; "" is an anonymous volume of the task
	MountBind   = "bind"   // Source is an absolute path on the node
	MountTmpfs  = "tmpfs"
)

// Mount is a file system in a container.
type Mount struct {
	Type       string            `json:"type"`
	Source     string            `json:"source,omitempty"`
	Target     string            `json:"target"`
	ReadOnly   bool              `json:"read_only,omitempty"`
	External   bool              `json:"external,omitempty"` // the volume must exist
	NoCopy     bool              `json:"no_copy,omitempty"`
	Driver     string            `json:"driver,omitempty"`
	DriverOpts map[string]string `json:"driver_opts,omitempty"`
	TmpfsSize  int64             `json:"tmpfs_size,omitempty"`
	TmpfsMode  int               `json:"tmpfs_mode,omitempty"`
	NoCreate   bool              `json:"no_create,omitempty"` // of a bind: what is not on the node is not made
	Create     bool              `json:"create,omitempty"`    // of a bind: it is made, also where other nodes may have it
}

// isVolume reports whether m is a volume that has a name.
func (m Mount) isVolume() bool { return m.Type == MountVolume && m.Source != "" }

// local reports whether a volume lives on the node that made it: Docker's local
// driver can mount network file systems too.
func (m Mount) local() bool {
	if m.Driver != "" && m.Driver != "local" {
		return false
	}
	switch strings.ToLower(m.DriverOpts["type"]) {
	case "nfs", "nfs3", "nfs4", "cifs", "smb3", "smbfs", "ceph", "glusterfs", "9p":
		return false
	}
	return true
}

// VolumePlaces is where slots of a service had local volumes that no task speaks of any
// more: slots scaled away, and those of a service that was removed. Their volumes stay, and
// whoever fills such a slot again goes there. Key volumes/<app>/<service>. Writer: rollout.
type VolumePlaces struct {
	ServiceID
	Slots map[int]VolumePlace `json:"slots"`
	Rev   StoreRev            `json:"-"`
}

// VolumePlace is where the task of a slot that was forgotten last had its volumes.
type VolumePlace struct {
	Node    NodeID   `json:"node"`
	Volumes []string `json:"volumes"`
	Ended   StoreRev `json:"ended"` // when that task ended: the last one counts
}

// FileRef mounts a secret or config as a file.
type FileRef struct {
	Name string `json:"name"` // of the app's secret or config
	// Version pins the secret's version ("3") or the config's hash, so that a change rolls out.
	Version string `json:"version,omitempty"`
	Target  string `json:"target"` // absolute path in the container
	UID     string `json:"uid,omitempty"`
	GID     string `json:"gid,omitempty"`
	Mode    int    `json:"mode,omitempty"` // 0 means 0444
}

// Resources of a task.
type Resources struct {
	ReserveCPU    int64 `json:"reserve_cpu,omitempty"`    // thousandths of a core
	ReserveMemory int64 `json:"reserve_memory,omitempty"` // bytes
	LimitCPU      int64 `json:"limit_cpu,omitempty"`
	LimitMemory   int64 `json:"limit_memory,omitempty"`
	LimitPids     int64 `json:"limit_pids,omitempty"`
}

// Ulimit is one resource limit of a container.
type Ulimit struct {
	Name string `json:"name"`
	Soft int64  `json:"soft"`
	Hard int64  `json:"hard"`
}

// Health says how a task proves that it works. Exactly one of Test, HTTP and TCP is set.
type Health struct {
	Test          []string `json:"test,omitempty"` // Docker's: ["CMD", …], ["CMD-SHELL", …], ["NONE"]
	HTTPPath      string   `json:"http_path,omitempty"`
	HTTPPort      int      `json:"http_port,omitempty"`
	TCPPort       int      `json:"tcp_port,omitempty"`
	Interval      Duration `json:"interval,omitempty"` // 0 means 10s (Docker's 30s only for Test)
	Timeout       Duration `json:"timeout,omitempty"`  // 0 means Docker's 30s for Test, else 3s
	Retries       int      `json:"retries,omitempty"`  // 0 means 3
	StartPeriod   Duration `json:"start_period,omitempty"`
	StartInterval Duration `json:"start_interval,omitempty"`
}
