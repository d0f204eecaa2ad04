package plan

import (
	"fmt"
	"maps"
	"slices"

	"github.com/fairlead/fairlead/cluster"
)

// externals warns of networks and volumes that nobody is known to have: external
// ones that no app declares, and none uses yet. Only each node's Docker knows more.
func (r *Result) externals(s State, in Input) {
	known := map[string]bool{}
	know := func(t cluster.TaskSpec, all bool) {
		for _, n := range t.Networks {
			known["network "+string(n.Name)] = known["network "+string(n.Name)] || all || !n.External
		}
		for _, m := range t.Mounts {
			known["volume "+m.Source] = known["volume "+m.Source] || all || (m.Type == cluster.MountVolume && !m.External)
		}
	}
	for _, svc := range s.Services {
		know(svc.Spec.Task, true)
	}
	for _, svc := range s.Others {
		know(svc.Spec.Task, true)
	}
	for _, spec := range in.Bundle.Services {
		know(spec.Task, false)
	}
	warn := func(name cluster.ServiceName, spec cluster.ServiceSpec) {
		field := "services." + string(name)
		for _, n := range spec.Task.Networks {
			if what := "network " + string(n.Name); n.External && !known[what] {
				known[what] = true // once is enough
				r.warn(spec.Source, field+".networks", "%s is external, and no app declares it: unless the task's node has one of its own (docker network create %s) the task fails; without external:, and with this name:, it is made on all nodes", what, n.Name)
			}
		}
		for _, m := range spec.Task.Mounts {
			if what := "volume " + m.Source; m.Type == cluster.MountVolume && m.External && !known[what] {
				known[what] = true
				where := "unless the node has it"
				if len(s.Nodes) > 1 {
					where = fmt.Sprintf("on each of the %d nodes that does not have it; a constraint (node.hostname==…) keeps it where it is", len(s.Nodes))
				}
				r.warn(spec.Source, field+".volumes", "%s is external, and no app uses it yet: the task fails %s (docker volume create %s)", what, where, m.Source)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(in.Bundle.Services)) {
		warn(name, in.Bundle.Services[name])
	}
	for _, h := range in.Bundle.Hooks {
		warn(h.Service, h.Spec)
	}
}
