package secrets

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// Snapshot is what the broker decides on.
type Snapshot struct {
	Now        time.Time
	Placements []cluster.NodePlacement
	Records    []Record
	Configs    []Config
	Nodes      []Recipient
	Sealed     []Entry
	Notes      []Note
	// Held are tasks whose secrets could not be resolved a moment ago.
	Held map[cluster.TaskID]Hold
}

// Record is a secret as the store keeps it.
type Record struct {
	cluster.SecretRecord
	Rev cluster.StoreRev
}

// Config is a configuration file.
type Config struct {
	cluster.Config
	Rev cluster.StoreRev
}

// Recipient is a node and the public key it opens payloads with.
type Recipient struct {
	Node cluster.NodeID
	Key  string
	Rev  cluster.StoreRev
}

// Entry is a payload that was written, and the key it is encrypted to.
type Entry struct {
	Node cluster.NodeID
	Task cluster.TaskID
	Key  string
	Rev  cluster.StoreRev
}

// Hold keeps the broker from trying a task again before Until, unless one of
// its secrets was written after Rev.
type Hold struct {
	Until time.Time
	Rev   cluster.StoreRev
}

// Action is what the broker does.
//
//sumtype:decl
type Action interface{ action() }

// Seal resolves what a task needs and writes it, encrypted to its node.
type Seal struct {
	Placement cluster.NodePlacement
	To        Recipient
	Records   []Record         // by name
	Configs   []Config         // by name
	Rev       cluster.StoreRev // of the entry it replaces; 0: none
}

// Drop deletes the payload of a task that is not placed any more.
type Drop struct{ Entry Entry }

// Note tells users what a service waits for.
type Note struct {
	Service cluster.ServiceID
	Reason  string
	Rev     cluster.StoreRev // of the note it replaces; 0: none
}

// Forget deletes a note that is not true any more.
type Forget struct{ Note Note }

func (Seal) action()   {}
func (Drop) action()   {}
func (Note) action()   {}
func (Forget) action() {}

type taskKey struct {
	node cluster.NodeID
	task cluster.TaskID
}

type configKey struct {
	app        cluster.AppName
	name, hash string
}

// Plan decides which payloads to write and delete. A payload is written once for
// a placement, and again only when its node has a new public key: a new version
// of a secret reaches tasks that are made for it, never one that runs.
func Plan(s Snapshot) []Action {
	records := map[cluster.SecretRef]Record{}
	for _, r := range s.Records {
		records[r.SecretRef] = r
	}
	configs := map[configKey]Config{}
	for _, c := range s.Configs {
		configs[configKey{c.App, c.Name, c.Hash}] = c
	}
	nodes := map[cluster.NodeID]Recipient{}
	for _, n := range s.Nodes {
		nodes[n.Node] = n
	}
	entries := map[taskKey]Entry{}
	for _, e := range s.Sealed {
		entries[taskKey{e.Node, e.Task}] = e
	}

	var acts []Action
	placed := map[taskKey]bool{}
	waits := map[cluster.ServiceID]map[string]bool{} // reasons; an empty set: something is under way
	placements := slices.SortedFunc(slices.Values(s.Placements), func(a, b cluster.NodePlacement) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Task, b.Task))
	})
	for _, p := range placements {
		k := taskKey{p.Node, p.Task}
		placed[k] = p.Spec.NeedsPayload()
		to := nodes[p.Node]
		e, have := entries[k]
		if !placed[k] || p.Desire == cluster.DesireStop || have && (e.Key == to.Key || to.Key == "") {
			continue
		}
		if waits[p.ServiceID] == nil {
			waits[p.ServiceID] = map[string]bool{}
		}
		seal := Seal{Placement: p, To: to, Rev: e.Rev}
		reasons := seal.fill(records, configs)
		if to.Key == "" {
			reasons = append(reasons, fmt.Sprintf("node %s to publish its key", p.Node))
		}
		for _, r := range reasons {
			waits[p.ServiceID][r] = true
		}
		if len(reasons) == 0 && !s.held(seal) {
			acts = append(acts, seal)
		}
	}
	for _, e := range slices.SortedFunc(slices.Values(s.Sealed), func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Task, b.Task))
	}) {
		if !placed[taskKey{e.Node, e.Task}] {
			acts = append(acts, Drop{e})
		}
	}
	return append(acts, notes(s.Notes, waits)...)
}

// fill collects what the task needs and returns what is missing.
func (s *Seal) fill(records map[cluster.SecretRef]Record, configs map[configKey]Config) (missing []string) {
	p := s.Placement
	names := map[string]int{} // with their versions; 0 is the newest
	for _, name := range p.Spec.SecretEnv {
		names[name] = 0
	}
	for _, f := range p.Spec.Secrets {
		n, err := strconv.Atoi(f.Version)
		if err != nil {
			n = 0
		}
		names[f.Name] = n
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		ref := cluster.SecretRef{App: p.App, Name: name}
		if r, ok := records[ref]; ok {
			// A task of an earlier version has the value that it was made for, while that is kept.
			if then, kept := r.At(names[name]); kept {
				r.SecretRecord = then
			}
			s.Records = append(s.Records, r)
		} else {
			missing = append(missing, fmt.Sprintf("secret %s (fairlead secret set %s)", ref, ref))
		}
	}
	seen := map[string]bool{}
	for _, f := range slices.SortedFunc(slices.Values(p.Spec.Configs), func(a, b cluster.FileRef) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version))
	}) {
		if seen[f.Name] {
			continue
		}
		seen[f.Name] = true
		if c, ok := configs[configKey{p.App, f.Name, f.Version}]; ok {
			s.Configs = append(s.Configs, c)
		} else {
			missing = append(missing, fmt.Sprintf("config %s/%s in version %s (deploy the app again)", p.App, f.Name, f.Version))
		}
	}
	return missing
}

// Newest is the newest revision among the secrets that the task needs.
func (s Seal) Newest() cluster.StoreRev {
	var rev cluster.StoreRev
	for _, r := range s.Records {
		rev = max(rev, r.Rev)
	}
	return rev
}

func (s Snapshot) held(a Seal) bool {
	h, ok := s.Held[a.Placement.Task]
	return ok && s.Now.Before(h.Until) && a.Newest() <= h.Rev
}

// notes writes what each service waits for, and deletes what is over. A service
// whose payload is under way keeps the note it has until it is written.
func notes(have []Note, waits map[cluster.ServiceID]map[string]bool) []Action {
	var acts []Action
	known := map[cluster.ServiceID]Note{}
	for _, n := range slices.SortedFunc(slices.Values(have), func(a, b Note) int { return a.Service.Compare(b.Service) }) {
		known[n.Service] = n
		if _, waiting := waits[n.Service]; !waiting {
			acts = append(acts, Forget{n})
		}
	}
	for _, id := range slices.SortedFunc(maps.Keys(waits), cluster.ServiceID.Compare) {
		if len(waits[id]) == 0 {
			continue
		}
		reason := "waits for " + strings.Join(slices.Sorted(maps.Keys(waits[id])), ", ")
		if old := known[id]; old.Reason != reason {
			acts = append(acts, Note{Service: id, Reason: reason, Rev: old.Rev})
		}
	}
	return acts
}
