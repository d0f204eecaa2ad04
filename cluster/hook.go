package cluster

import (
	"cmp"
	"slices"
	"time"
)

// Hook is a service of a package that is none of the app: it runs once, as one
// task, at some point of a change.
type Hook struct {
	Service ServiceName `json:"service"`
	Spec    ServiceSpec `json:"spec"`
	Events  []HookEvent `json:"events"`
	Weight  int         `json:"weight,omitempty"` // the lowest runs first
	// Delete says when what is left of it is removed.
	Delete []HookPolicy `json:"delete,omitempty"`
}

// HookEvent is when a hook runs.
type HookEvent string

// The points of a change.
const (
	PreInstall   HookEvent = "pre-install"
	PostInstall  HookEvent = "post-install"
	PreUpgrade   HookEvent = "pre-upgrade"
	PostUpgrade  HookEvent = "post-upgrade"
	PreRollback  HookEvent = "pre-rollback"
	PostRollback HookEvent = "post-rollback"
	PreDelete    HookEvent = "pre-delete"
	PostDelete   HookEvent = "post-delete"
	TestEvent    HookEvent = "test"
)

// HookEvents are all points, in the order in which they are shown.
func HookEvents() []HookEvent {
	return []HookEvent{PreInstall, PostInstall, PreUpgrade, PostUpgrade, PreRollback, PostRollback, PreDelete, PostDelete, TestEvent}
}

// HookPolicy is when what is left of a hook is removed.
type HookPolicy string

// What to do about a hook's remains.
const (
	BeforeHookCreation HookPolicy = "before-hook-creation" // when it runs again; the default
	HookSucceeded      HookPolicy = "hook-succeeded"
	HookFailed         HookPolicy = "hook-failed"
)

// HookPolicies are all policies.
func HookPolicies() []HookPolicy { return []HookPolicy{BeforeHookCreation, HookSucceeded, HookFailed} }

// CompareHooks orders hooks as they run: by weight, then by name.
func CompareHooks(a, b Hook) int {
	return cmp.Or(cmp.Compare(a.Weight, b.Weight), cmp.Compare(a.Service, b.Service))
}

// HooksAt are the hooks of some points, in the order in which they run.
func HooksAt(hooks []Hook, events ...HookEvent) []Hook {
	var out []Hook
	for _, h := range hooks {
		if slices.ContainsFunc(events, func(e HookEvent) bool { return e != "" && slices.Contains(h.Events, e) }) {
			out = append(out, h)
		}
	}
	slices.SortFunc(out, CompareHooks)
	return out
}

// HookAction is what hooks stand around.
type HookAction string

// Actions.
const (
	HookInstall  HookAction = "install"
	HookUpgrade  HookAction = "upgrade"
	HookRollback HookAction = "rollback"
	HookDelete   HookAction = "delete"
	HookTest     HookAction = "test" // hooks alone
)

// Before is the point ahead of an action; for a test it is all there is.
func (a HookAction) Before() HookEvent {
	switch a {
	case HookInstall, HookUpgrade, HookRollback, HookDelete:
		return HookEvent("pre-" + a)
	case HookTest:
	}
	return TestEvent
}

// After is the point behind an action; "" is none.
func (a HookAction) After() HookEvent {
	switch a {
	case HookInstall, HookUpgrade, HookRollback, HookDelete:
		return HookEvent("post-" + a)
	case HookTest:
	}
	return ""
}

// PendingChange is a change of an app that is not made at once: hooks run before
// or after it, or it is to be taken back as a whole should it fail. There is one
// an app, the last. What it makes is in its release. Writer: API.
type PendingChange struct {
	App AppName `json:"app"`
	// ID tells it from every other change of the app.
	ID     int64      `json:"id"`
	Action HookAction `json:"action"`
	// Release is the one that it makes; of a removal or a test the one whose hooks run.
	Release int `json:"release"`
	// From is the release that is current without it.
	From int `json:"from,omitempty"`
	// Hooks are those that run in it.
	Hooks []Hook `json:"hooks,omitempty"`
	// Timeout is how long each hook may take, and with Atomic the services, too.
	Timeout Duration `json:"timeout,omitempty"`
	Atomic  bool     `json:"atomic,omitempty"` // undo all of it when some of it fails
	NoHooks bool     `json:"no_hooks,omitempty"`
	// KeepHistory and PurgeSecrets belong to a removal; of an installation the first
	// says that the app had a history before.
	KeepHistory  bool `json:"keep_history,omitempty"`
	PurgeSecrets bool `json:"purge_secrets,omitempty"`
	// Undoes is the release that failed, for Why, and that this takes back.
	Undoes int    `json:"undoes,omitempty"`
	Why    string `json:"why,omitempty"`
	// Refused is why it cannot be made any more: others took what it needs while its hooks
	// ran. Begun: services of it are written all the same.
	Refused string `json:"refused,omitempty"`
	Begun   bool   `json:"begun,omitempty"`
	// CalledOff is who ended it while hooks ran ahead of it: nothing of it is made.
	CalledOff string `json:"called_off,omitempty"`
	// Stays is why it cannot be taken back.
	Stays   string    `json:"stays,omitempty"`
	By      string    `json:"by,omitempty"`
	Created time.Time `json:"created"`

	Rev StoreRev `json:"-"`
}

// DefaultHookTimeout is how long a hook may take where nobody said.
const DefaultHookTimeout = 10 * time.Minute

// Patience is how long each hook may take.
func (c PendingChange) Patience() time.Duration {
	return cmp.Or(c.Timeout.D(), DefaultHookTimeout)
}

// HookStage is where a change stands.
type HookStage string

// Stages, in their order. Who acts in a stage is the loop of hooks, but for
// StageApply, StageFinish and StageUndo: there the API does.
const (
	StageBefore HookStage = "before" // hooks ahead of it run, or the tests
	StageApply  HookStage = "apply"  // it is written
	StageSettle HookStage = "settle" // until its services are healthy, or gone
	StageAfter  HookStage = "after"  // hooks behind it run
	StageFinish HookStage = "finish" // of a removal: what is left is removed
	StageUndo   HookStage = "undo"   // another change takes it back
	StageDone   HookStage = "done"
)

// Busy reports whether no deploy takes its place: hooks run, or it is being made.
func (c PendingChange) Busy(r ChangeRecord) bool {
	switch c.StageOf(r) {
	case StageBefore, StageAfter, StageApply, StageUndo, StageFinish:
		return c.Action != HookTest
	case StageSettle, StageDone:
	}
	return false
}

// ChangeRecord is the memory of the loop of hooks about an app's pending change.
// Writer: hooks.
type ChangeRecord struct {
	App     AppName    `json:"app"`
	Change  int64      `json:"change"` // PendingChange.ID
	Action  HookAction `json:"action"`
	Release int        `json:"release"`
	Stage   HookStage  `json:"stage"`
	Since   time.Time  `json:"since"` // of the stage
	Runs    []HookRun  `json:"runs,omitempty"`
	// Failed: it did not get where it should. Message says why.
	Failed  bool   `json:"failed,omitempty"`
	Message string `json:"message,omitempty"`
	// Behind: hooks run behind what it makes.
	Behind bool `json:"behind,omitempty"`
	// Earlier is what came of making the app's release where that was an earlier change's
	// and failed: tests, removals and upgrades that come to nothing leave it as it was.
	Earlier *Made `json:"earlier,omitempty"`
	// NextTask numbers the tasks of hooks made since the app was created.
	NextTask int64 `json:"next_task,omitempty"`
	// Created is the app's.
	Created StoreRev `json:"created,omitempty"`

	Rev StoreRev `json:"-"`
}

// HookRun is one run of a hook.
type HookRun struct {
	Hook    ServiceName `json:"hook"`
	Event   HookEvent   `json:"event"`
	Task    TaskID      `json:"task"`
	State   string      `json:"state"` // "running", "complete", "failed"
	Started time.Time   `json:"started"`
	Ended   time.Time   `json:"ended,omitzero"`
	Node    NodeID      `json:"node,omitempty"`
	Message string      `json:"message,omitempty"` // why it failed
	Tail    []string    `json:"tail,omitempty"`    // its last lines
}

// States of a run.
const (
	RunRunning  = "running"
	RunComplete = "complete"
	RunFailed   = "failed"
)

// Broke returns the run that failed.
func (r ChangeRecord) Broke() (HookRun, bool) {
	i := slices.IndexFunc(r.Runs, func(x HookRun) bool { return x.State == RunFailed })
	if i < 0 {
		return HookRun{}, false
	}
	return r.Runs[i], true
}

// StageOf is where a change stands, by the record of its app. Before the loop of
// hooks has seen it, it is at its beginning.
func (c PendingChange) StageOf(r ChangeRecord) HookStage {
	if r.Change != c.ID {
		return StageBefore
	}
	return r.Stage
}
