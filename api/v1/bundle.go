package v1

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// Bounds of a request.
const (
	MaxBundle  = 32 << 20 // bytes of a Bundle as JSON
	MaxRequest = 1 << 20  // bytes of any other JSON request
	MaxConfig  = 1 << 20  // bytes of one config's content
	MaxSecret  = 512 << 10
	MaxBuild   = 4 << 30 // bytes of a build context
	MaxCopy    = 64 << 30
)

// Bundle is an app as it should be: all its services, not a part of them. What
// left the bundle is removed (services) or kept (secrets, volumes).
type Bundle struct {
	Services map[cluster.ServiceName]cluster.ServiceSpec `json:"services"`
	// Configs are the contents of the configs that services mount, by name.
	Configs map[string][]byte     `json:"configs,omitempty"`
	Secrets map[string]SecretDecl `json:"secrets,omitempty"`
	// Rendered is the document the bundle was made from, interpolated; for history.
	Rendered string `json:"rendered,omitempty"`
	Note     string `json:"note,omitempty" maxLength:"500"`
	// Package is the chart that the services were rendered from, when they were.
	Package *Package `json:"package,omitempty"`
	// Hooks are services of the package that are none of the app: each runs once, at
	// some point of a change.
	Hooks   []cluster.Hook `json:"hooks,omitempty" maxItems:"100"`
	NoHooks bool           `json:"no_hooks,omitempty" doc:"run none of them"`
	// Atomic takes the whole change back when some of it fails, or is not healthy
	// after Timeout. It is for packages.
	Atomic  bool             `json:"atomic,omitempty"`
	Timeout cluster.Duration `json:"timeout,omitempty" doc:"how long each hook may take; default 10m"`
	// Expect, when set, is the release that must be the current one (0: the app
	// must not exist), so that two people cannot overwrite each other.
	Expect *int `json:"expect,omitempty" minimum:"0"`
}

// Package is a chart, with what the user gave to it and what it says.
type Package struct {
	Chart      string `json:"chart" minLength:"1" maxLength:"250"`
	Version    string `json:"version" minLength:"1" maxLength:"250"`
	AppVersion string `json:"app_version,omitempty" maxLength:"250"`
	From       string `json:"from,omitempty" maxLength:"2048" doc:"as whoever installed it named it"`
	Values     string `json:"values,omitempty" doc:"that the user gave, YAML; kept as they are"`
	Notes      string `json:"notes,omitempty"`
	Input      string `json:"input,omitempty" maxLength:"100" doc:"hash of what a delivery rendered it from"`
}

// PackageDetail is what a release was installed from.
type PackageDetail struct {
	App        cluster.AppName `json:"app"`
	Release    int             `json:"release"`
	Chart      string          `json:"chart"`
	Version    string          `json:"version"`
	AppVersion string          `json:"app_version,omitempty"`
	From       string          `json:"from,omitempty"`
	Values     string          `json:"values,omitempty"`
	Notes      string          `json:"notes,omitempty"`
	Manifest   string          `json:"manifest,omitempty"` // the merged Compose document
	Edits      []string        `json:"edits,omitempty" doc:"what was changed by hand since: what runs is not what the document says"`
}

// SecretDecl declares a secret that services use.
type SecretDecl struct {
	// External: it is set with `fairlead secret set`. A missing one keeps tasks waiting.
	External bool `json:"external,omitempty"`
	// Generate makes a value of so many characters once, when there is none.
	Generate int `json:"generate,omitempty" minimum:"0" maximum:"4096"`
	// Vault is where the value is, as MOUNT/PATH#FIELD.
	Vault string `json:"vault,omitempty" maxLength:"1024"`
	// Value sets the secret; an equal value makes no new version.
	Value  Plain          `json:"value,omitempty"`
	Source cluster.Source `json:"source,omitzero"`
}

// Plain is a secret value on its way to the server. It prints as "[secret]";
// its JSON (base64) holds the value.
type Plain []byte

// Format implements fmt.Formatter: every verb prints the same word.
func (Plain) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[secret]")) }

// Actions of a Change.
const (
	ActionCreate   = "create"
	ActionUpdate   = "update"
	ActionRemove   = "remove" // a service that left the bundle
	ActionScale    = "scale"
	ActionGenerate = "generate" // a secret's value
	ActionSet      = "set"      // a secret's value, from the bundle
	ActionRetry    = "retry"    // the last rollout of this very version failed
)

// Kinds of objects in a Change.
const (
	ObjectService = "service"
	ObjectConfig  = "config"
	ObjectSecret  = "secret"
	ObjectPackage = "package"
)

// Change is one thing that a deploy does.
type Change struct {
	Action string        `json:"action" enum:"create,update,remove,scale,generate,set,retry"`
	Object string        `json:"object" enum:"service,config,secret,package"`
	Name   string        `json:"name"`
	Fields []FieldChange `json:"fields,omitempty"`
	// Replaces: the service's tasks are replaced, because of Reason.
	Replaces bool           `json:"replaces,omitempty"`
	Reason   string         `json:"reason,omitempty"`
	Source   cluster.Source `json:"source,omitzero"`
}

// FieldChange is one field of a service that changes. Values of environment
// variables are not shown: people keep passwords there.
type FieldChange struct {
	Path string `json:"path"` // "task.image", "task.env.MODE", "update.parallelism"
	Old  string `json:"old,omitempty"`
	New  string `json:"new,omitempty"`
}

// Exposed is one thing that is reachable through a gateway or a node's own port.
type Exposed struct {
	App     cluster.AppName     `json:"app"`
	Service cluster.ServiceName `json:"service"`
	Kind    string              `json:"kind" enum:"http,tcp,udp,host"` // host: network_mode: host
	// Address is "shop.example.com/", ":5432", "127.0.0.1:5432" or a Traefik rule.
	Address string `json:"address"`
	// URL is where to fetch it, when it is HTTP and has a host.
	URL string `json:"url,omitempty"`
	// URLs are all of them, with "*" where every host is answered; Schemes are
	// what is spoken there, also where a rule takes the place of a host.
	URLs    []string `json:"urls,omitempty"`
	Schemes []string `json:"schemes,omitempty" doc:"http, https, or both"`
	// Redirects: who comes by HTTP is sent on to HTTPS.
	Redirects bool   `json:"redirects,omitempty"`
	Port      int    `json:"port"`                              // the container's
	Scope     string `json:"scope" enum:"public,internal,node"` // node: on the task's own node, loopback only
	Where     string `json:"where" enum:"gateway,node"`
	// Gateways are the nodes whose gateways serve it now, each as "n1 (10.0.0.1)"; in
	// a list of what is exposed, not in a plan.
	Gateways []string       `json:"gateways,omitempty"`
	TLS      bool           `json:"tls,omitempty"`
	New      bool           `json:"new,omitempty"` // in a Plan: not exposed before
	Source   cluster.Source `json:"source,omitzero"`
}

// Places are where it is reached, each in a word or two: "https://shop.example.com/", ":53/udp".
func (e Exposed) Places() []string {
	out := slices.Clone(e.URLs)
	if len(out) == 0 && e.Kind == "http" {
		for _, scheme := range e.Schemes {
			out = append(out, scheme+" "+e.Address) // a rule
		}
	}
	for i := range out {
		if e.Redirects && !strings.HasPrefix(out[i], "https") {
			out[i] += " (sent on to https)"
		}
	}
	switch {
	case len(out) > 0:
		return out
	case e.Kind == "udp":
		return []string{e.Address + "/udp"}
	}
	return []string{e.Address}
}

// String is the line that plan and status print: "PUBLIC :5432 → db (compose.yaml:12)".
func (e Exposed) String() string {
	word := map[string]string{"public": "PUBLIC", "internal": "INTERNAL", "node": "NODE"}[e.Scope]
	s := fmt.Sprintf("%s %s → %s", word, strings.Join(e.Places(), ", "), e.Service)
	if e.Source.File != "" {
		s += fmt.Sprintf(" (%s:%d)", e.Source.File, e.Source.Line)
	}
	return s
}

// Plan is what a deploy would do.
type Plan struct {
	App cluster.AppName `json:"app"`
	// Release is the current release (0: none), Next the one a deploy would make.
	Release  int       `json:"release"`
	Next     int       `json:"next"`
	Changes  []Change  `json:"changes"`
	Exposed  []Exposed `json:"exposed"` // all of the app after the deploy
	Closed   []Exposed `json:"closed"`  // no longer exposed
	Warnings []Detail  `json:"warnings"`
	// Hooks are those that run before and after it, in their order.
	Hooks []PlannedHook `json:"hooks,omitempty"`
	// Waits are the services that would not get all their tasks, as the cluster is now.
	Waits []cluster.Wait `json:"waits"`
}

// PlannedHook is a hook that a deploy would run.
type PlannedHook struct {
	Hook  cluster.ServiceName `json:"hook"`
	Event cluster.HookEvent   `json:"event"`
	Image string              `json:"image"`
}

// Empty reports whether a deploy would change nothing.
func (p Plan) Empty() bool { return len(p.Changes) == 0 }

// DeployResult says what a change of an app did.
type DeployResult struct {
	App     cluster.AppName `json:"app"`
	Release int             `json:"release"`
	// Changed is false when everything already was as asked.
	Changed bool `json:"changed"`
	Plan    Plan `json:"plan"`
	// NotMade is the release that a rollback goes back from where that never was the app's:
	// hooks ahead of it ran, and are ended, or failed.
	NotMade int `json:"not_made,omitempty"`
}

// UpdateRequest changes images of services.
type UpdateRequest struct {
	Images map[cluster.ServiceName]ImageRef `json:"images" minProperties:"1"`
	Note   string                           `json:"note,omitempty" maxLength:"500"`
}

// ImageRef names an image; ID, when known, pins what the reference meant.
type ImageRef struct {
	Ref string `json:"ref" minLength:"1" maxLength:"512"`
	ID  string `json:"id,omitempty" maxLength:"128"`
}

// RestartRequest replaces the tasks of services; none named means all of the app.
type RestartRequest struct {
	Services []cluster.ServiceName `json:"services,omitempty"`
	Note     string                `json:"note,omitempty" maxLength:"500"`
}

// RollbackRequest goes back to a release; 0 means the one before the current one.
type RollbackRequest struct {
	Release int              `json:"release,omitempty" minimum:"0"`
	NoHooks bool             `json:"no_hooks,omitempty" doc:"run no hook of that release's package"`
	Timeout cluster.Duration `json:"timeout,omitempty" doc:"how long each hook may take; default 10m"`
}

// TestRequest runs the tests of an app's package.
type TestRequest struct {
	Names   []cluster.ServiceName `json:"names,omitempty" doc:"of these hooks alone"`
	Timeout cluster.Duration      `json:"timeout,omitempty" doc:"how long each may take; default 10m"`
}

// HookProgress is how far a change is for which hooks run.
type HookProgress struct {
	Action  cluster.HookAction `json:"action" enum:"install,upgrade,rollback,delete,test"`
	Release int                `json:"release"`
	Stage   cluster.HookStage  `json:"stage" enum:"before,apply,settle,after,finish,undo,done"`
	Failed  bool               `json:"failed,omitempty"`
	Message string             `json:"message,omitempty"`
	Runs    []cluster.HookRun  `json:"runs,omitempty"`
	// Undoes is the release that failed and that this takes back.
	Undoes int `json:"undoes,omitempty"`
	// ID tells it from other changes of the app.
	ID int64 `json:"id"`
}

// ScaleRequest sets counts of services.
type ScaleRequest struct {
	Services map[cluster.ServiceName]ScaleTo `json:"services" minProperties:"1"`
}

// ScaleTo is a count, or Auto: back to what the file or the autoscaler says.
type ScaleTo struct {
	Replicas int  `json:"replicas,omitempty" minimum:"0" maximum:"10000"`
	Auto     bool `json:"auto,omitempty"`
}

// Scaled is a count that was set.
type Scaled struct {
	cluster.Scale
	// Waits: as the cluster is now, some of the tasks have no place.
	Waits *cluster.Wait `json:"waits,omitempty"`
}

// RemoveOptions say what goes with an app; volumes are never removed.
type RemoveOptions struct {
	PurgeSecrets bool
	KeepHistory  bool          // a rollback brings the app back
	NoHooks      bool          // run no hook of the package
	Timeout      time.Duration // of each hook; 0: the server's
}

// RemoveResult says what a removal removed and kept.
type RemoveResult struct {
	App         cluster.AppName       `json:"app"`
	Services    []cluster.ServiceName `json:"services"`
	KeptSecrets []string              `json:"kept_secrets,omitempty"`
	KeptVolumes []string              `json:"kept_volumes,omitempty"`
	// Pending: it is not done yet, hooks run around it.
	Pending bool `json:"pending,omitempty"`
}

// ReleaseSummary is one line of an app's history.
type ReleaseSummary struct {
	Number  int       `json:"number"`
	Current bool      `json:"current,omitempty"`
	Created time.Time `json:"created"`
	By      string    `json:"by,omitempty"`
	Note    string    `json:"note,omitempty"`
	Chart   string    `json:"chart,omitempty" doc:"the package it came from, and its version"`
	// Origin is the commit that a delivery brought.
	Origin   *cluster.Origin `json:"origin,omitempty"`
	Services int             `json:"services"`
	// Tries is how often a delivery made this release, whose tries before are none of their
	// own; the first was at First.
	Tries int       `json:"tries,omitempty"`
	First time.Time `json:"first,omitzero"`
	// State is "running", "complete", "failed", or "" when nothing is known.
	State   string    `json:"state,omitempty"`
	Message string    `json:"message,omitempty"`
	Ended   time.Time `json:"ended,omitzero"`
}

// ReleaseDetail is a release with what it was made of.
type ReleaseDetail struct {
	ReleaseSummary
	App    cluster.AppName `json:"app"`
	Source string          `json:"source,omitempty"`
	// SourceOf is the release that Source was deployed with, when that was an
	// earlier one: updates, restarts and secrets change no file. Rendered is what ran.
	SourceOf int                                         `json:"source_of,omitempty"`
	Rendered map[cluster.ServiceName]cluster.ServiceSpec `json:"rendered"`
}

// raw keeps a value's JSON as it is in the store.
type raw = json.RawMessage
