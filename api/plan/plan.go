package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/proxyconf"
)

// State is what a deploy is decided on, read at one store revision.
type State struct {
	App      *cluster.App // nil when there is none
	Services map[cluster.ServiceName]cluster.Service
	Scales   map[cluster.ServiceName]cluster.Scale
	Rollouts map[cluster.ServiceName]cluster.Rollout
	Secrets  map[string]cluster.SecretRecord
	Configs  map[string]bool // "name@hash" of those stored
	Users    map[string]bool // IDs of user lists, stored or about to be
	// Same names the secrets whose stored value equals the bundle's.
	Same map[string]bool
	// Unreadable says, by secret, why its place in Vault has no value.
	Unreadable map[string]string
	// LastRelease is the highest number in the app's history; a deploy that was
	// cut short may have left one above App.Release.
	LastRelease int
	// Package is what the current release came from; nil: a Compose file.
	Package *cluster.Package
	// Hooks are those of the current release's package, and Broke is how that release
	// failed, where it did for one of them; else nil.
	Hooks       []cluster.Hook
	Broke       *cluster.Made
	Others      []cluster.Service // of other apps
	OtherScales map[cluster.ServiceID]cluster.Scale
	Nodes       []cluster.Node
	Entry       EntryPoints
}

// EntryPoints are the ports that the gateways' own HTTP entry points listen on.
type EntryPoints struct {
	Web, WebSecure, Internal int
}

// Input is what is asked for.
type Input struct {
	App    cluster.AppName
	Bundle v1.Bundle
	// Restart names the services whose tasks are replaced though nothing changed.
	Restart []cluster.ServiceName
	// Package is what the release will come from, its text stored or about to be.
	Package *cluster.Package
	// Action is what hooks stand around; "" is a change that they do not.
	Action cluster.HookAction
	// Number is the release that this makes, when it is there already; 0: the next.
	Number int
	// Origin is where the bundle comes from, when a delivery brings it.
	Origin *cluster.Origin
	// Edits are the changes by hand since its document was deployed.
	Edits []string
	// Exact takes the bundle's generations as they are, for a release of the past.
	Exact bool
}

// NewSecret is a secret to write: Value, Generate characters, a place in Vault, or the
// value that it had at an earlier version.
type NewSecret struct {
	Name     string
	Version  int
	Generate int
	Value    v1.Plain
	Vault    string
	Of       int
}

// Result is a plan with the values that make it so.
type Result struct {
	Plan v1.Plan
	// Services to write, sorted by name; Removed services to delete.
	Services []cluster.Service
	Removed  []cluster.ServiceName
	// Scales to write and to delete.
	Scales   []cluster.Scale
	Unscaled []cluster.ServiceName
	Secrets  []NewSecret
	Configs  []cluster.Config
	// Rendered is every service of the app after the deploy: the release.
	Rendered map[cluster.ServiceName]cluster.ServiceSpec
	Hooks    []cluster.Hook // with it
	// Claims: routes or ports are taken that the app did not have, so that
	// another app's deploy must not happen at the same time.
	Claims bool
}

// Changed reports whether there is anything to write.
func (r Result) Changed() bool { return !r.Plan.Empty() || len(r.Services) > 0 }

// maxReplicas bounds a typing error, not a cluster.
const maxReplicas = 10000

// Make plans. A refusal is a v1.Invalid with all that is wrong.
func Make(s State, in Input) (Result, error) {
	c := &checker{state: s, in: in}
	if err := c.check(); err != nil {
		return Result{}, err
	}
	r := Result{
		Plan: v1.Plan{
			App: in.App, Next: s.LastRelease + 1, Changes: []v1.Change{},
			Exposed: []v1.Exposed{}, Closed: []v1.Exposed{}, Warnings: append([]v1.Detail{}, c.warnings...), Waits: []cluster.Wait{},
		},
		Rendered: map[cluster.ServiceName]cluster.ServiceSpec{},
	}
	if s.App != nil {
		r.Plan.Release = s.App.Release
		r.Plan.Next = max(r.Plan.Next, s.App.Release+1)
	}
	if in.Number > 0 {
		r.Plan.Next = in.Number
	}
	r.packaged(s.App != nil, s.Package, in.Package)
	versions := r.secrets(s, in)
	hashes := r.configs(s, in)
	for _, name := range slices.Sorted(maps.Keys(in.Bundle.Services)) {
		spec := resolve(in.Bundle.Services[name], versions, hashes)
		r.service(s, in, name, spec)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Services)) {
		if _, kept := in.Bundle.Services[name]; kept {
			continue
		}
		r.Removed = append(r.Removed, name)
		r.Plan.Changes = append(r.Plan.Changes, v1.Change{
			Action: v1.ActionRemove, Object: v1.ObjectService, Name: string(name),
			Reason: "it is no longer in the file; its volumes and secrets stay",
		})
	}
	for _, name := range slices.Sorted(maps.Keys(s.Scales)) {
		if _, kept := r.Rendered[name]; !kept || r.Rendered[name].Mode == cluster.Global {
			r.Unscaled = append(r.Unscaled, name)
		}
	}
	r.exposure(s, in)
	r.hooks(s, in, versions, hashes)
	r.externals(s, in)
	return r, nil
}

// hooks resolves the package's hooks, and says which run.
func (r *Result) hooks(s State, in Input, versions map[string]int, hashes map[string]string) {
	for _, h := range in.Bundle.Hooks {
		h.Spec = resolve(h.Spec, versions, hashes)
		r.Hooks = append(r.Hooks, h)
	}
	if in.Action == cluster.HookUpgrade && s.Broke != nil && s.App != nil && s.Package != nil {
		why := fmt.Sprintf("with its hook %s", s.Broke.Hook)
		if s.Broke.Hook == "" {
			why = "before its hooks had run"
		}
		r.change(v1.Change{
			Action: v1.ActionRetry, Object: v1.ObjectPackage, Name: s.Package.String(),
			Reason: fmt.Sprintf("release %d failed %s; it is tried again", s.App.Release, why),
		})
	}
	if in.Action == "" || in.Bundle.NoHooks || r.Plan.Empty() {
		return
	}
	for _, e := range []cluster.HookEvent{in.Action.Before(), in.Action.After()} {
		for _, h := range cluster.HooksAt(r.Hooks, e) {
			r.Plan.Hooks = append(r.Plan.Hooks, v1.PlannedHook{Hook: h.Service, Event: e, Image: h.Spec.Task.Image})
		}
	}
}

func (r *Result) configs(s State, in Input) map[string]string {
	hashes := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(in.Bundle.Configs)) {
		content := in.Bundle.Configs[name]
		h := ConfigHash(content)
		hashes[name] = h
		if !s.Configs[name+"@"+h] {
			r.Configs = append(r.Configs, cluster.Config{App: in.App, Name: name, Content: content, Hash: h})
			action := v1.ActionCreate
			for k := range s.Configs {
				if strings.HasPrefix(k, name+"@") {
					action = v1.ActionUpdate
				}
			}
			r.change(v1.Change{Action: action, Object: v1.ObjectConfig, Name: name})
		}
	}
	return hashes
}

// ConfigHash is the first 16 hex digits of the SHA-256 of a config's content.
func ConfigHash(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:8])
}

// packaged notes that an app comes from another package, or from other values: that
// is a release of its own, also where it changes no service.
func (r *Result) packaged(exists bool, old, now *cluster.Package) {
	switch {
	case now == nil && old != nil:
		r.change(v1.Change{Action: v1.ActionRemove, Object: v1.ObjectPackage, Name: old.String(), Reason: "the app comes from a Compose file now"})
	case now == nil || (old != nil && samePackage(*old, *now)):
	case old == nil:
		c := v1.Change{Action: v1.ActionCreate, Object: v1.ObjectPackage, Name: now.String()}
		if exists {
			c.Reason = "the app came from a Compose file before"
		}
		r.change(c)
	default:
		c := v1.Change{Action: v1.ActionUpdate, Object: v1.ObjectPackage, Name: now.String()}
		for _, f := range []v1.FieldChange{
			{Path: "chart", Old: old.Chart, New: now.Chart},
			{Path: "version", Old: old.Version, New: now.Version},
			{Path: "app_version", Old: old.AppVersion, New: now.AppVersion},
			{Path: "from", Old: old.From, New: now.From},
		} {
			if f.Old != f.New {
				c.Fields = append(c.Fields, f)
			}
		}
		if old.Text != now.Text {
			c.Reason = "other values, notes or documents"
		}
		r.change(c)
	}
}

// samePackage: what it was rendered from may differ, also as nobody noted that before.
func samePackage(a, b cluster.Package) bool {
	a.Input = b.Input
	return a == b
}

func (r *Result) change(c v1.Change) { r.Plan.Changes = append(r.Plan.Changes, c) }

func (r *Result) warn(src cluster.Source, field, format string, args ...any) {
	r.Plan.Warnings = append(r.Plan.Warnings, v1.Detail{
		Message: fmt.Sprintf(format, args...), Field: field, File: src.File, Line: src.Line,
	})
}

// resolve pins what a spec refers to by name. It copies what it changes.
func resolve(spec cluster.ServiceSpec, versions map[string]int, hashes map[string]string) cluster.ServiceSpec {
	if spec.Mode == "" {
		spec.Mode = cluster.Replicated
	}
	t := &spec.Task
	t.Secrets = slices.Clone(t.Secrets)
	for i := range t.Secrets {
		t.Secrets[i].Version = fmt.Sprint(versions[t.Secrets[i].Name])
	}
	t.Configs = slices.Clone(t.Configs)
	for i := range t.Configs {
		if h, ok := hashes[t.Configs[i].Name]; ok {
			t.Configs[i].Version = h
		}
	}
	// Where a port stands in the file is no part of what makes a container: a
	// comment added above it must not replace tasks.
	t.NodePorts = slices.Clone(t.NodePorts)
	for i := range t.NodePorts {
		p := t.NodePorts[i]
		if !slices.ContainsFunc(spec.Ports, func(o cluster.PublishedPort) bool { return samePort(o, p) }) {
			p.Mode = "node"
			spec.Ports = append(slices.Clone(spec.Ports), p)
		}
		t.NodePorts[i].Source = cluster.Source{}
	}
	return spec
}

func samePort(a, b cluster.PublishedPort) bool {
	return a.Published == b.Published && a.Target == b.Target && a.Protocol == b.Protocol && a.HostIP == b.HostIP && a.Mode == "node"
}

// service plans one service of the bundle.
func (r *Result) service(s State, in Input, name cluster.ServiceName, spec cluster.ServiceSpec) {
	old, exists := s.Services[name]
	action, reason := v1.ActionCreate, ""
	if exists {
		action = v1.ActionUpdate
		if !in.Exact {
			spec.Task.Generation = old.Spec.Task.Generation
		}
		switch ro := s.Rollouts[name]; {
		case slices.Contains(in.Restart, name):
			spec.Task.Generation++
			reason = "a restart was asked for"
		case ro.Target == old.Version && Failed(ro.State) && spec.Task.Hash() == old.Version:
			spec.Task.Generation++
			action, reason = v1.ActionRetry, "the last rollout of this version failed; it is tried again"
		}
	} else if !in.Exact {
		spec.Task.Generation = 0
	}
	r.Rendered[name] = spec
	now := cluster.Service{
		ServiceID: cluster.ServiceID{App: in.App, Name: name},
		Version:   spec.Task.Hash(), Release: r.Plan.Next, Spec: spec,
		Unrouted: exists && proxyconf.Routed(old.Spec) && !proxyconf.Routed(spec),
	}
	if exists {
		now.Before = before(old, now, s.Rollouts[name].Stable)
		leave(&now, old, s.Rollouts[name].Stable)
	}
	fields := Diff(old.Spec, spec)
	switch {
	case !exists:
		r.Services = append(r.Services, now)
		r.change(v1.Change{Action: action, Object: v1.ObjectService, Name: string(name), Reason: spec.Task.Image, Source: spec.Source})
	case len(fields) > 0:
		r.Services = append(r.Services, now)
		ch := v1.Change{Action: action, Object: v1.ObjectService, Name: string(name), Fields: fields, Source: spec.Source, Reason: reason}
		if ch.Replaces = now.Version != old.Version; ch.Replaces && reason == "" {
			ch.Reason = because(fields)
		}
		r.change(ch)
	case !sameSources(old.Spec, spec):
		now.Release = old.Release // the lines moved; nothing that runs did
		r.Services = append(r.Services, now)
	}
	r.scale(s, in, name, spec)
}

// before are the ports of the tasks that may serve beside those of now: of the version
// that is wanted at present, and of the last one that completed.
func before(old, now cluster.Service, stable *cluster.TaskSpec) map[string]map[string]int {
	versions := []string{old.Version}
	if stable != nil {
		versions = append(versions, stable.Hash())
	}
	was, is := old.Spec.GatewayPorts(), now.Spec.GatewayPorts()
	var out map[string]map[string]int
	for _, v := range versions {
		if v == now.Version {
			continue
		}
		for way, port := range is {
			p, there := old.Before[v][way]
			if !there {
				p, there = was[way]
			}
			if !there || p == port {
				continue
			}
			if out == nil {
				out = map[string]map[string]int{}
			}
			if out[v] == nil {
				out[v] = map[string]int{}
			}
			out[v][way] = p
		}
	}
	return out
}

// leave notes the routes and published ports that now has no more, of versions whose
// tasks may serve beside it.
func leave(now *cluster.Service, old cluster.Service, stable *cluster.TaskSpec) {
	completed := stable != nil && stable.Hash() == old.Version
	if old.Version == now.Version && (completed || stable == nil) {
		return // it is the same tasks, and they are not to be reached there
	}
	routes, ports := old.Spec.Routes, old.Spec.Ports
	if !completed { // what served before it may still
		routes, ports = slices.Concat(routes, old.Left), slices.Concat(ports, old.LeftPorts)
	}
	ports = slices.DeleteFunc(slices.Clone(ports), func(p cluster.PublishedPort) bool { return p.Mode != "gateway" })
	now.Left = without(routes, now.Spec.Routes, cluster.Route.Way)
	now.LeftPorts = without(ports, now.Spec.Ports, cluster.PublishedPort.EntryPoint)
}

// without are the elements of list that have has none of the same key of; the first of each.
func without[T any](list, have []T, key func(T) string) (out []T) {
	seen := map[string]bool{}
	for _, x := range have {
		seen[key(x)] = true
	}
	for _, x := range list {
		if k := key(x); !seen[k] {
			seen[k] = true
			out = append(out, x)
		}
	}
	return out
}

// Failed reports whether a rollout ended without its version serving.
func Failed(st cluster.RolloutState) bool {
	return st == cluster.RolloutRolledBack || st == cluster.RolloutFailed || st == cluster.RolloutPaused
}

// because says in short why tasks are replaced.
func because(fields []v1.FieldChange) string {
	var paths []string
	for _, f := range fields {
		if p, ok := strings.CutPrefix(f.Path, "task."); ok {
			paths = append(paths, p)
		}
	}
	const show = 3
	if len(paths) > show {
		return fmt.Sprintf("%s and %d more changed", strings.Join(paths[:show], ", "), len(paths)-show)
	}
	return strings.Join(paths, ", ") + " changed"
}

// scale plans the live count: a person's or the autoscaler's decision outlives a deploy.
func (r *Result) scale(s State, in Input, name cluster.ServiceName, spec cluster.ServiceSpec) {
	if spec.Mode == cluster.Global {
		return
	}
	old, exists := s.Scales[name]
	want := Scale(in.App, name, spec, old, exists)
	if exists && old.Owner == cluster.OwnerPerson && spec.Autoscale == nil && old.Replicas != spec.Replicas {
		r.warn(spec.Source, "services."+string(name)+".replicas",
			"%s keeps the count of %d that a person asked for, not the file's %d; `fairlead scale %s=auto` gives it back to the file",
			name, old.Replicas, spec.Replicas, name)
	}
	if exists && want.Replicas == old.Replicas && want.Owner == old.Owner {
		return
	}
	r.Scales = append(r.Scales, want)
	if !exists {
		return // part of creating the service
	}
	r.change(v1.Change{
		Action: v1.ActionScale, Object: v1.ObjectService, Name: string(name), Reason: want.Reason, Source: spec.Source,
		Fields: []v1.FieldChange{
			{Path: "owner", Old: old.Owner, New: want.Owner},
			{Path: "replicas", Old: fmt.Sprint(old.Replicas), New: fmt.Sprint(want.Replicas)},
		},
	})
}

// Scale is the live count that a service has after its spec was written.
func Scale(app cluster.AppName, name cluster.ServiceName, spec cluster.ServiceSpec, old cluster.Scale, exists bool) cluster.Scale {
	out := cluster.Scale{
		ServiceID: cluster.ServiceID{App: app, Name: name},
		Replicas:  spec.Replicas, Owner: cluster.OwnerRelease, Reason: "the file says so",
	}
	if a := spec.Autoscale; a != nil {
		out.Owner, out.Reason = cluster.OwnerAutoscaler, fmt.Sprintf("autoscaled between %d and %d", a.Min, a.Max)
		if exists && (old.Owner == cluster.OwnerAutoscaler || old.Owner == cluster.OwnerPerson) {
			out.Replicas, out.Owner, out.Reason = old.Replicas, old.Owner, old.Reason
		} else if exists {
			out.Replicas = old.Replicas // from here the autoscaler decides; what runs now is the best first guess
		}
		if n := min(max(out.Replicas, a.Min), a.Max); n != out.Replicas {
			out.Replicas, out.Reason = n, fmt.Sprintf("kept between %d and %d", a.Min, a.Max)
		}
		return out
	}
	if exists && old.Owner == cluster.OwnerPerson {
		return cluster.Scale{ServiceID: out.ServiceID, Replicas: old.Replicas, Owner: cluster.OwnerPerson, Reason: old.Reason}
	}
	return out
}
