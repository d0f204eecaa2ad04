package scheduler

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/cluster"
)

// filter says of nodes whether they may take a task, and why not.
type filter interface {
	// set prepares the filter for a task, and reports whether it has a say.
	set(q *query) bool
	check(n *node) bool
	// explain says in one phrase why check refused the nodes, and gives the detail
	// of the first few.
	explain(refused []*node) (phrase string, examples []string)
}

// query is the task to place, with all that filters ask about.
type query struct {
	*pending
	group *group
	place placement
	// holders are the only nodes that have its volumes; nil is any.
	holders map[cluster.NodeID]bool
	// away reports whether a node is not there, or does not answer.
	away func(cluster.NodeID) bool
}

const examples = 3

// named pairs a filter with its name in refusals.
type named struct {
	name string
	filter
}

// static returns the filters whose verdict no placement changes.
func static() []named {
	return []named{{"ready", ready{}}, {"platform", &platform{}}, {"constraints", &constraints{}}}
}

// dynamic returns the filters whose verdict depends on what runs where.
func dynamic() []named {
	return []named{
		{"volume", &volume{}},
		{"ports", &ports{}},
		{"max_per_node", &perNode{}},
		{"resources", &resources{}},
	}
}

// detail makes the examples of an explanation.
func detail(refused []*node, say func(*node) string) []string {
	out := make([]string, 0, examples)
	for _, n := range refused[:min(len(refused), examples)] {
		out = append(out, string(n.ID)+": "+say(n))
	}
	return out
}

func nodes(n int) string {
	if n == 1 {
		return "1 node"
	}
	return fmt.Sprintf("%d nodes", n)
}

type ready struct{}

func (ready) set(*query) bool    { return true }
func (ready) check(n *node) bool { return n.Schedulable() }
func (ready) explain(refused []*node) (string, []string) {
	count := map[string]int{}
	for _, n := range refused {
		count[unready(n)]++
	}
	var parts []string
	for _, why := range []string{"down", "without a Docker engine that answers", "paused", "drained"} {
		if c := count[why]; c > 0 {
			parts = append(parts, fmt.Sprintf("%s %s", nodes(c), why))
		}
	}
	return strings.Join(parts, "; "), detail(refused, unready)
}

func unready(n *node) string {
	switch {
	case !n.Alive:
		return "down"
	case n.Info.EngineAway:
		return "without a Docker engine that answers"
	case n.Availability == cluster.Pause:
		return "paused"
	}
	return "drained"
}

type platform struct{ want, os, arch string }

func (f *platform) set(q *query) bool {
	f.want = q.Spec.Platform
	f.os, f.arch, _ = strings.Cut(f.want, "/")
	if f.arch == "" && f.os != "linux" && f.os != "windows" {
		f.os, f.arch = "", f.os // "amd64" alone
	}
	f.arch, _, _ = strings.Cut(f.arch, "/") // without the variant: engines choose it
	f.arch = cluster.NormalArch(f.arch)
	return f.want != ""
}

func (f *platform) check(n *node) bool {
	return (f.os == "" || strings.EqualFold(f.os, n.Info.OS)) && (f.arch == "" || f.arch == cluster.NormalArch(n.Info.Arch))
}

func (f *platform) explain(refused []*node) (string, []string) {
	return fmt.Sprintf("platform %s not available on %s", f.want, nodes(len(refused))),
		detail(refused, func(n *node) string { return n.Info.OS + "/" + cluster.NormalArch(n.Info.Arch) })
}

type constraints struct{ all []cluster.Constraint }

func (f *constraints) set(q *query) bool {
	f.all = q.place.constraints
	return len(f.all) > 0
}

func (f *constraints) check(n *node) bool { return f.failed(n) < 0 }

func (f *constraints) failed(n *node) int {
	return slices.IndexFunc(f.all, func(c cluster.Constraint) bool { return !c.Holds(n.Node) })
}

func (f *constraints) explain(refused []*node) (string, []string) {
	return "scheduling constraints not satisfied on " + nodes(len(refused)),
		detail(refused, func(n *node) string {
			c := f.all[f.failed(n)]
			have := n.Attribute(c.Key)
			if have == "" {
				have = "none"
			}
			return fmt.Sprintf("%s, has %s", c.Text, have)
		})
}

type volume struct {
	holders map[cluster.NodeID]bool
	away    func(cluster.NodeID) bool
	names   []string
}

func (f *volume) set(q *query) bool {
	f.holders, f.away = q.holders, q.away
	f.names = nil
	if f.holders != nil {
		f.names = q.Spec.LocalVolumes()
	}
	return f.holders != nil
}
func (f *volume) check(n *node) bool { return f.holders[n.ID] }
func (f *volume) explain(refused []*node) (string, []string) {
	at, lost := make([]string, 0, len(f.holders)), "lost "
	for n := range f.holders {
		at = append(at, string(n))
		if !f.away(n) {
			lost = ""
		}
	}
	slices.Sort(at)
	return fmt.Sprintf("volume %s is on %snode %s, not on %s",
		strings.Join(f.names, ", "), lost, strings.Join(at[:min(len(at), examples)], ", "), nodes(len(refused))), nil
}

type ports struct{ want []cluster.PublishedPort }

func (f *ports) set(q *query) bool {
	f.want = q.Spec.NodePorts
	return len(f.want) > 0
}

func (f *ports) check(n *node) bool { return f.taken(n) == "" }

func (f *ports) taken(n *node) string {
	for _, x := range f.want {
		for _, ip := range n.ports[portOf(x)] {
			if cluster.OverlapIP(ip, x.HostIP) {
				return fmt.Sprintf("%d/%s", x.Published, portOf(x).protocol)
			}
		}
	}
	return ""
}

func (f *ports) explain(refused []*node) (string, []string) {
	return "host-mode port already in use on " + nodes(len(refused)),
		detail(refused, func(n *node) string { return f.taken(n) + " in use" })
}

type perNode struct{ group *group }

func (f *perNode) set(q *query) bool {
	f.group = q.group
	return q.place.max > 0
}
func (f *perNode) check(n *node) bool { return int(f.group.all[n.index]) < f.group.place.max }
func (f *perNode) explain(refused []*node) (string, []string) {
	return fmt.Sprintf("max_per_node %d reached on %s", f.group.place.max, nodes(len(refused))),
		detail(refused, func(n *node) string { return fmt.Sprintf("has %d", f.group.all[n.index]) })
}

type resources struct{ cpu, memory int64 }

func (f *resources) set(q *query) bool {
	f.cpu, f.memory = q.Spec.Resources.ReserveCPU, q.Spec.Resources.ReserveMemory
	return f.cpu > 0 || f.memory > 0
}

// check compares by what is free, so that no sum can overflow.
func (f *resources) check(n *node) bool {
	return (f.cpu <= 0 || f.cpu <= n.Info.CPU-n.cpu) && (f.memory <= 0 || f.memory <= n.Info.Memory-n.memory)
}

func (f *resources) explain(refused []*node) (string, []string) {
	return "insufficient resources on " + nodes(len(refused)), detail(refused, func(n *node) string {
		var parts []string
		if f.cpu > n.Info.CPU-n.cpu {
			parts = append(parts, fmt.Sprintf("needs %s CPU, %s free", cores(f.cpu), cores(max(0, n.Info.CPU-n.cpu))))
		}
		if f.memory > n.Info.Memory-n.memory {
			parts = append(parts, fmt.Sprintf("needs %s of memory, %s free", size(f.memory), size(max(0, n.Info.Memory-n.memory))))
		}
		return strings.Join(parts, "; ")
	})
}

// cores writes thousandths of a core as cores.
func cores(m int64) string {
	return strings.TrimRight(strings.TrimRight(fmt.Sprintf("%.3f", float64(m)/1000), "0"), ".")
}

// size writes bytes with the unit that Compose files use.
func size(b int64) string {
	for _, u := range []struct {
		name string
		of   int64
	}{{"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}} {
		if b >= u.of {
			return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(b)/float64(u.of)), ".0") + u.name
		}
	}
	return fmt.Sprintf("%dB", b)
}
