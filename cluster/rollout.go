package cluster

import (
	"fmt"
	"slices"
	"time"
)

// RolloutState says where the rollout of a service stands.
type RolloutState string

// States of a rollout.
const (
	RolloutRunning     RolloutState = "running"
	RolloutComplete    RolloutState = "complete"
	RolloutRollingBack RolloutState = "rolling_back"
	RolloutRolledBack  RolloutState = "rolled_back" // the target failed; Stable serves
	RolloutPaused      RolloutState = "paused"      // the target failed, or the way back from it; failure_action: pause
	RolloutFailed      RolloutState = "failed"      // the target failed and there is no earlier version
)

// Rollout is the rollout loop's memory of a service. Writer: rollout.
type Rollout struct {
	ServiceID
	// Target is the version being rolled out, or last rolled out; Release its release.
	Target  string       `json:"target"`
	Release int          `json:"release"`
	State   RolloutState `json:"state"`
	Started time.Time    `json:"started"`
	Ended   time.Time    `json:"ended,omitzero"`
	// Stable is the last version that completed, kept to go back to.
	Stable        *TaskSpec `json:"stable,omitempty"`
	StableRelease int       `json:"stable_release,omitempty"`
	// Failures counts failed tasks of the target in this rollout.
	Failures int `json:"failures,omitempty"`
	// Message says what it waits for or why it failed.
	Message string `json:"message,omitempty"`
	// Blocked: while it runs, it waits for a service that has failed, or waits so itself.
	Blocked bool `json:"blocked,omitempty"`
	// Tail holds the failed task's last log lines.
	Tail []string `json:"tail,omitempty"`
	// NextTask numbers the tasks made since the service was created.
	NextTask int64 `json:"next_task"`
	// FirstTask is the number of the first task that belongs to this rollout (or
	// to the way back from it): failures of earlier ones are none of its own.
	FirstTask int64 `json:"first_task,omitempty"`
	// Settled is since when nothing has been in progress, by the clock of who
	// planned; the delay between batches and the monitor period count from it.
	Settled time.Time `json:"settled,omitzero"`
	// Created is the service's: another one means that the service was removed
	// and made again.
	Created StoreRev `json:"created,omitempty"`

	Rev StoreRev `json:"-"`
}

// Release is one immutable version of an app. Writer: API.
type Release struct {
	App     AppName   `json:"app"`
	Number  int       `json:"number"`
	Created time.Time `json:"created"`
	By      string    `json:"by,omitempty"`
	Note    string    `json:"note,omitempty"` // "deploy", "rollback to 3", "update web=…"
	// Source is the rendered, interpolated Compose document; secrets are references.
	// That of a package is in its text.
	Source   string                      `json:"source,omitempty"`
	Package  *Package                    `json:"package,omitempty"`
	Origin   *Origin                     `json:"origin,omitempty"`
	Services map[ServiceName]ServiceSpec `json:"services"`
	// Hooks are the package's, which run around changes.
	Hooks []Hook `json:"hooks,omitempty"`
	// Edits are the changes by hand since its document was deployed, the last KeptEdits of
	// them: "update web=…". What runs is not what the document says.
	Edits []string `json:"edits,omitempty"`
	// Tries is how often a delivery has made this one: each try that fails takes the place of
	// the one before, the first of which was at First. 0: once.
	Tries int       `json:"tries,omitempty"`
	First time.Time `json:"first,omitzero"`
}

// KeptReleases is how many releases of an app are kept, with what became of them;
// KeptComplete how many of those that became complete are, however many failed since.
const (
	KeptReleases = 50
	KeptComplete = 3
	KeptEdits    = 10
)

// LastComplete are the numbers of the releases of an app that became complete last.
func LastComplete(a App, outcomes []ReleaseOutcome) []int {
	var out []int
	for _, o := range outcomes {
		if o.App == a.Name && o.Created == a.Created && o.State == "complete" {
			out = append(out, o.Number)
		}
	}
	slices.Sort(out)
	return out[max(0, len(out)-KeptComplete):]
}

// ReleaseOutcome is what became of a release. Writer: rollout.
type ReleaseOutcome struct {
	App     AppName   `json:"app"`
	Number  int       `json:"number"`
	State   string    `json:"state"` // "running", "complete", "failed"
	Message string    `json:"message,omitempty"`
	Ended   time.Time `json:"ended,omitzero"`
	// Settled: its services are complete. It is so itself once its hooks are, too.
	Settled bool `json:"settled,omitempty"`
	// Created is the app's: another one means that the app was removed and made again.
	Created StoreRev `json:"created,omitempty"`

	// Released: an old release is kept, and what became of it is with it.
	Released bool     `json:"-"`
	Rev      StoreRev `json:"-"`
}

// App is what the API keeps about an app besides its services. Writer: API.
type App struct {
	Name    AppName `json:"name"`
	Release int     `json:"release"` // the current one
	Domain  string  `json:"domain,omitempty"`
	// Uninstalled: its services were removed, and its history kept.
	Uninstalled bool `json:"uninstalled,omitempty"`
	// SecretVersions holds the last version of secrets that were removed, so that
	// one that is set again never repeats a version.
	SecretVersions map[string]int `json:"secret_versions,omitempty"`

	// Created is the store revision at which the app first appeared, and Rev that
	// of this value; both are filled when reading.
	Created StoreRev `json:"-"`
	Rev     StoreRev `json:"-"`
}

// Decision is why a loop did, or did not do, something; what explain prints.
// Writer: the loop named in Loop, in its own bucket.
type Decision struct {
	Loop    string `json:"loop"`
	Object  string `json:"object"`         // "app/service.slot", "app/service"
	Task    TaskID `json:"task,omitempty"` // that it is about, where it is about one
	Verdict string `json:"verdict"`        // "placed on n1", "unplaced", "scaled 2 to 5"
	Reason  string `json:"reason,omitempty"`
	// Refusals counts nodes by the filter that refused them, with an example each.
	Refusals []Refusal `json:"refusals,omitempty"`
	At       time.Time `json:"at"`
}

// Refusal is one filter's verdict over the nodes it refused.
type Refusal struct {
	Filter   string   `json:"filter"`
	Nodes    int      `json:"nodes"`
	Examples []string `json:"examples,omitempty"` // "n1: needs 2 CPU, 0.5 free"
}

// Wait is a service that would not get all its tasks, were an app changed so.
type Wait struct {
	ServiceID
	Wanted  int `json:"wanted"`
	Waiting int `json:"waiting"` // of those wanted
	// Beside: it needs room beside the task that it replaces, which serves until then.
	Beside bool `json:"beside,omitempty"`
	// Reason and Refusals are the scheduler's, of the first task that waits.
	Reason   string    `json:"reason"`
	Refusals []Refusal `json:"refusals,omitempty"`
}

// String is the line that plan prints.
func (w Wait) String() string {
	s := fmt.Sprintf("%d of %d replicas of %s", w.Waiting, w.Wanted, w.Name)
	if w.Wanted == 1 {
		s = "the one replica of " + string(w.Name)
	}
	s += " would wait: " + w.Reason
	if w.Beside {
		s += "; the task before it stops only when the new one is ready: that takes room for one more, or update_config: {order: stop-first}"
	}
	return s
}
