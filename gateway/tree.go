package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/fairlead/fairlead/atomicfile"
)

// tree is the node's copy of the cluster's Traefik tree. Its revisions are its
// own: they begin anew, far above any earlier ones, each time Fairlead starts.
type tree struct {
	mu      sync.Mutex
	items   map[string]item
	sorted  []string // keys in order; nil when it must be made again
	rev     int64
	floor   int64 // what was deleted at or before this is not known any more
	deleted []deletion
	marker  int64
	changed chan struct{}
}

type item struct {
	value       string
	mod, create int64
}

type deletion struct {
	key string
	rev int64
}

// Keys that a Traefik tree must have to be configuration at all.
const (
	treeRoot  = "traefik"
	seedKey   = treeRoot + "/http/middlewares/fairlead-seed/stripPrefix/prefixes/0"
	markerKey = treeRoot + "/http/services/" + markerService + "/loadBalancer/servers/0/url"

	markerService = "fairlead-revision"
	markerPrefix  = "http://fairlead.invalid/"

	maxDeletions = 10000
)

// newTree makes a tree whose revisions begin after base.
func newTree(base int64) *tree {
	t := &tree{items: map[string]item{}, rev: base, floor: base, changed: make(chan struct{})}
	t.seed()
	return t
}

// seed adds what keeps Traefik from taking the tree for empty, in which case it
// would keep routes that are gone, or wait long before it looks again.
func (t *tree) seed() {
	for k, v := range map[string]string{treeRoot: "fairlead", seedKey: "/fairlead-seed"} {
		if _, ok := t.items[k]; !ok {
			t.set(k, v)
		}
	}
}

// apply changes the tree. With whole, keys that are not in put go.
func (t *tree) apply(whole bool, put map[string][]byte, del []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.rev
	t.rev++
	for k, v := range put {
		if old, ok := t.items[k]; !ok || old.value != string(v) {
			t.set(k, string(v))
		}
	}
	if whole {
		for k := range t.items {
			if _, ok := put[k]; !ok && k != treeRoot && k != seedKey {
				t.remove(k)
			}
		}
	}
	for _, k := range del {
		if _, ok := t.items[k]; ok {
			t.remove(k)
		}
	}
	t.seed()
	if n := len(t.deleted) - maxDeletions; n > 0 {
		t.floor = t.deleted[n-1].rev
		t.deleted = slices.Delete(t.deleted, 0, n)
	}
	if !t.touched(before + 1) {
		t.rev = before // nothing changed
		return
	}
	t.marker = parseMarker(t.items[markerKey].value)
	close(t.changed)
	t.changed = make(chan struct{})
}

func (t *tree) touched(rev int64) bool {
	if n := len(t.deleted); n > 0 && t.deleted[n-1].rev == rev {
		return true
	}
	for _, it := range t.items {
		if it.mod == rev {
			return true
		}
	}
	return false
}

func (t *tree) set(k, v string) {
	old, ok := t.items[k]
	if !ok {
		old.create, t.sorted = t.rev, nil
	}
	t.items[k] = item{value: v, mod: t.rev, create: old.create}
}

func (t *tree) remove(k string) {
	delete(t.items, k)
	t.sorted = nil
	t.deleted = append(t.deleted, deletion{k, t.rev})
}

// now returns the tree's revision, and next a channel that closes at its next change.
func (t *tree) now() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.rev
}

func (t *tree) next() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed
}

// pair is one key as a reader sees it.
type pair struct {
	key string
	item
}

// read returns the pairs from key up to end (""is the key alone, "\x00" means no
// end), in key order, and the revision they stand at.
func (t *tree) read(key, end string) ([]pair, int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if end == "" {
		if it, ok := t.items[key]; ok {
			return []pair{{key, it}}, t.rev
		}
		return nil, t.rev
	}
	if t.sorted == nil {
		t.sorted = slices.Sorted(maps.Keys(t.items))
	}
	from := sort.SearchStrings(t.sorted, key)
	out := make([]pair, 0, len(t.sorted)-from)
	for _, k := range t.sorted[from:] {
		if !inRange(k, key, end) {
			break
		}
		out = append(out, pair{k, t.items[k]})
	}
	return out, t.rev
}

func inRange(k, key, end string) bool {
	if end == "" {
		return k == key
	}
	return k >= key && (end == "\x00" || k < end)
}

// change is one event for a watcher.
type change struct {
	pair
	gone bool
}

// since returns what changed between key and end from revision next on. When
// that is not known, because the watcher comes from before the last start, or
// from too long ago, it returns the first key as if it had changed: the watcher
// reads everything again.
func (t *tree) since(key, end string, next int64) (changes []change, rev int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if next <= t.floor || next > t.rev+1 {
		return []change{{pair: pair{treeRoot, item{t.items[treeRoot].value, t.rev, t.rev}}}}, t.rev
	}
	for k, it := range t.items {
		if it.mod >= next && inRange(k, key, end) {
			changes = append(changes, change{pair: pair{k, it}})
		}
	}
	for _, d := range t.deleted {
		if _, back := t.items[d.key]; d.rev >= next && !back && inRange(d.key, key, end) {
			changes = append(changes, change{pair{d.key, item{mod: d.rev}}, true})
		}
	}
	slices.SortFunc(changes, func(a, b change) int {
		if a.mod != b.mod {
			return int(a.mod - b.mod)
		}
		return strings.Compare(a.key, b.key)
	})
	return changes, t.rev
}

// wanted returns the revision that the marker carries, the entry points that
// published ports need, and a channel that closes at the next change.
func (t *tree) wanted() (marker int64, entries []string, changed <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	seen := map[string]bool{}
	for k, it := range t.items {
		rest, ok := strings.CutPrefix(k, treeRoot+"/tcp/routers/")
		if !ok {
			rest, ok = strings.CutPrefix(k, treeRoot+"/udp/routers/")
		}
		if _, field, _ := strings.Cut(rest, "/"); !ok || !strings.HasPrefix(strings.ToLower(field), "entrypoints") {
			continue
		}
		if _, _, ok := published(it.value); ok {
			seen[it.value] = true
		}
	}
	return t.marker, slices.Sorted(maps.Keys(seen)), t.changed
}

// empty reports whether the tree has nothing but its seed.
func (t *tree) empty() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.items) <= 2
}

// saved is the form of the tree on disk.
type saved struct {
	Version int               `json:"version"`
	Pairs   map[string]string `json:"pairs"`
}

func routesFile(dir string) string { return filepath.Join(dir, "routes.json") }

// save writes the tree, whole or not at all, if it carries that marker; false
// when it has moved on.
func (t *tree) save(dir string, marker int64) (bool, error) {
	t.mu.Lock()
	if t.marker != marker {
		t.mu.Unlock()
		return false, nil
	}
	s := saved{Version: 1, Pairs: make(map[string]string, len(t.items))}
	for k, it := range t.items {
		s.Pairs[k] = it.value
	}
	t.mu.Unlock()
	b, err := json.Marshal(s)
	if err != nil {
		return false, fmt.Errorf("keep routes: %w", err)
	}
	return true, atomicfile.Write(routesFile(dir), b)
}

// load reads what save wrote; no file is no error.
func (t *tree) load(dir string) error {
	b, err := os.ReadFile(routesFile(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the last routes: %w", err)
	}
	var s saved
	if err := json.Unmarshal(b, &s); err != nil || s.Version != 1 {
		return fmt.Errorf("read the last routes: %s is of version %d: %w", routesFile(dir), s.Version, err)
	}
	put := make(map[string][]byte, len(s.Pairs))
	for k, v := range s.Pairs {
		put[k] = []byte(v)
	}
	t.apply(true, put, nil)
	return nil
}

// servers returns the servers of each service that a request may be sent on to, and a
// channel that closes at the next change. One whose address is not IPv4, or a name, is
// the zero AddrPort. A TCP connection is not sent on: each server of such a service is
// one that has nobody beside it.
func (t *tree) servers() (map[string][]netip.AddrPort, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := map[string][]netip.AddrPort{}
	for k, it := range t.items {
		f := strings.Split(k, "/") // traefik/http/services/NAME/loadBalancer/servers/N/url
		if len(f) != 8 || f[2] != "services" || f[5] != "servers" {
			continue
		}
		name, hostPort := k, it.value
		if f[1] == "http" {
			u, err := url.Parse(it.value)
			if err != nil {
				u = &url.URL{}
			}
			name, hostPort = strings.Join(f[:4], "/"), u.Host
		}
		a, err := netip.ParseAddrPort(hostPort)
		if err != nil || !a.Addr().Is4() {
			a = netip.AddrPort{}
		}
		out[name] = append(out[name], a)
	}
	return out, t.changed
}
