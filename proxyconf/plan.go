package proxyconf

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/fairlead/fairlead/cluster"
)

// Root is the root key of Traefik's etcd provider: no prefix, no leading slash.
const Root = "traefik"

// MarkerService is the Traefik service that carries the revision marker, and
// MarkerKey the key of its one server, whose URL is MarkerURL.
const (
	MarkerService = "fairlead-revision"
	MarkerKey     = Root + "/http/services/" + MarkerService + "/loadBalancer/servers/0/url"
	markerPrefix  = "http://fairlead.invalid/"
)

// MarkerURL returns the server URL that carries rev. Nothing ever calls it.
func MarkerURL(rev cluster.StoreRev) string {
	return markerPrefix + strconv.FormatInt(int64(rev), 10)
}

// ParseMarker reads the revision out of a marker's server URL.
func ParseMarker(url string) (cluster.StoreRev, bool) {
	num, ok := strings.CutPrefix(url, markerPrefix)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(num, 10, 64)
	return cluster.StoreRev(n), err == nil && n >= 0
}

// Snapshot is all that Plan looks at. Services and endpoints stand at Rev.
type Snapshot struct {
	Rev       cluster.StoreRev
	Services  []cluster.Service
	Endpoints []cluster.Endpoints
	// Current is the tree below Root as the store has it, Root itself included.
	Current map[string]string
	// Reserved are the ports that the gateways' own entry points take, with the
	// entry point's name: nothing else can be published there.
	Reserved map[int]string
	// Recorded is what was last recorded of each service's refusals (Refuse.Reason).
	Recorded map[cluster.ServiceID]string
}

// Action is one thing to write, or one refusal.
//
//sumtype:decl
type Action interface{ action() }

// Write puts or deletes one key. Consecutive writes of one Object belong together.
type Write struct {
	Object string // "http/routers/shop_web-0"
	Key    string
	Value  string
	Delete bool
}

// Refuse says what of a service is not served, and why.
type Refuse struct {
	Service  cluster.ServiceID
	Refusals []Refusal
}

// Accept says that nothing of a service is refused any more.
type Accept struct{ Service cluster.ServiceID }

func (Write) action()  {}
func (Refuse) action() {}
func (Accept) action() {}

// Refusal is one thing that a user declared and that is not served.
type Refusal struct {
	What   string // "route shop.example.com", "port 5432/tcp"
	Reason string
	Source cluster.Source
	Field  string  // "routes[0]", "ports[1]", of the service
	Taken  *Holder // who has it, when that is the reason
}

func (r Refusal) String() string {
	at := ""
	if r.Source.File != "" {
		at = fmt.Sprintf(" (%s:%d)", r.Source.File, r.Source.Line)
	}
	return r.What + at + ": " + r.Reason
}

// Reason returns all refusals as text, one a line.
func (r Refuse) Reason() string {
	lines := make([]string, 0, len(r.Refusals))
	for _, x := range r.Refusals {
		lines = append(lines, x.String())
	}
	return strings.Join(lines, "\n")
}

// Plan returns the refusals that are not recorded yet, then the writes in an
// order that is safe at every step.
func Plan(s Snapshot) []Action {
	want := map[string]map[string]string{} // object → key → value
	out := records(render(s, want), s.Recorded)
	writes := diff(want, s.Current)
	if m, ok := marker(s, len(writes) > 0); ok {
		writes = append(writes, m)
	}
	for _, w := range writes {
		out = append(out, w)
	}
	return out
}

// records compares the refusals with what is recorded of them.
func records(refused map[cluster.ServiceID][]Refusal, recorded map[cluster.ServiceID]string) []Action {
	var out []Action
	for _, id := range slices.SortedFunc(maps.Keys(refused), cluster.ServiceID.Compare) {
		r := Refuse{Service: id, Refusals: refused[id]}
		if old, ok := recorded[id]; !ok || old != r.Reason() {
			out = append(out, r)
		}
	}
	for _, id := range slices.SortedFunc(maps.Keys(recorded), cluster.ServiceID.Compare) {
		if refused[id] == nil {
			out = append(out, Accept{Service: id})
		}
	}
	return out
}

// marker returns the write of the revision marker, when it must be written: with
// every change of the tree, and when a routed service or its endpoints have a
// newer revision, even one that changes nothing here: who declared it waits for the
// gateways to have seen it. So does who took all routes away, of which the gateways
// may have had none, or whose tasks came after the last of what led to those before.
func marker(s Snapshot, changes bool) (Write, bool) {
	written, exists := ParseMarker(s.Current[MarkerKey])
	routed := map[cluster.ServiceID]bool{}
	var need cluster.StoreRev
	for _, svc := range s.Services {
		if routed[svc.ServiceID] = Routed(svc.Spec) || svc.Unrouted; routed[svc.ServiceID] {
			need = max(need, svc.Rev)
		}
	}
	for _, e := range s.Endpoints {
		if routed[e.ServiceID] {
			need = max(need, e.Rev)
		}
	}
	// A marker ahead of the snapshot comes from a store that was put back to an
	// older state: left there, gateways would acknowledge what they never saw.
	if exists && !changes && need <= written && written <= s.Rev {
		return Write{}, false
	}
	return Write{Object: "http/services/" + MarkerService, Key: MarkerKey, Value: MarkerURL(s.Rev)}, true
}

// Routed reports whether gateways serve the service, that is, whether a task of
// it may stop only when every gateway has acknowledged its endpoints.
func Routed(spec cluster.ServiceSpec) bool {
	return len(spec.Routes) > 0 || slices.ContainsFunc(spec.Ports, func(p cluster.PublishedPort) bool { return p.Mode == modeGateway })
}

const modeGateway = "gateway"

// splitKey returns the section ("http/routers") and the object's name of a key below Root.
func splitKey(key string) (section, name string) {
	parts := strings.SplitN(strings.TrimPrefix(key, Root+"/"), "/", 4)
	if len(parts) < 3 {
		return "", ""
	}
	return parts[0] + "/" + parts[1], parts[2]
}

// phases of a change that does not fit one transaction.
const (
	phaseRoot      = iota // the root key and the seed: before anything else
	phaseAdd              // what routers refer to
	phaseRoute            // routers, new and changed
	phaseUnroute          // routers that go
	phaseRemove           // what only they referred to
	numberOfPhases = iota
)

// diff returns the writes that turn current into want, marker aside.
func diff(want map[string]map[string]string, current map[string]string) []Write {
	have := map[string]map[string]string{}
	for k, v := range current {
		if k == MarkerKey {
			continue
		}
		obj := objectOf(k)
		if have[obj] == nil {
			have[obj] = map[string]string{}
		}
		have[obj][k] = v
	}
	var phased [numberOfPhases][]Write
	for _, obj := range slices.Sorted(maps.Keys(want)) {
		ws := diffObject(obj, want[obj], have[obj])
		phase := phaseAdd
		switch {
		case obj == objectRoot || obj == objectSeed:
			phase = phaseRoot
		case isRouter(obj):
			phase = phaseRoute
		}
		phased[phase] = append(phased[phase], ws...)
	}
	for _, obj := range slices.Sorted(maps.Keys(have)) {
		if want[obj] != nil {
			continue
		}
		phase := phaseRemove
		if isRouter(obj) {
			phase = phaseUnroute
		}
		phased[phase] = append(phased[phase], diffObject(obj, nil, have[obj])...)
	}
	return slices.Concat(phased[:]...)
}

func isRouter(obj string) bool {
	section, _, _ := strings.Cut(strings.TrimPrefix(obj, "http/"), "/")
	return section == "routers" || strings.HasPrefix(obj, "tcp/routers/") || strings.HasPrefix(obj, "udp/routers/")
}

// objectOf names the object that a key belongs to. A key outside Traefik's
// vocabulary is an object of its own, and so is removed.
func objectOf(key string) string {
	if key == Root {
		return objectRoot
	}
	section, name := splitKey(key)
	if name == "" {
		return key
	}
	return section + "/" + name
}

func diffObject(obj string, want, have map[string]string) []Write {
	var out []Write
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if v, ok := have[k]; !ok || v != want[k] {
			out = append(out, Write{Object: obj, Key: k, Value: want[k]})
		}
	}
	for _, k := range slices.Sorted(maps.Keys(have)) {
		if _, ok := want[k]; !ok {
			out = append(out, Write{Object: obj, Key: k, Delete: true})
		}
	}
	return out
}

// Batches cuts writes into transactions of at most size, in order. Writes of one
// object stay together unless there are more than size of them.
func Batches(writes []Write, size int) [][]Write {
	var out [][]Write
	var cur []Write
	for len(writes) > 0 {
		n := 1
		for n < len(writes) && writes[n].Object == writes[0].Object {
			n++
		}
		if len(cur) > 0 && len(cur)+n > size {
			out, cur = append(out, cur), nil
		}
		n = min(n, size)
		cur = append(cur, writes[:n]...)
		writes = writes[n:]
	}
	if len(cur) > 0 {
		out = append(out, cur)
	}
	return out
}
