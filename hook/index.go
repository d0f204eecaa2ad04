package hook

import (
	"cmp"
	"slices"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

type planner struct {
	Snapshot
	apps     map[cluster.AppName]cluster.App
	changes  map[cluster.AppName]cluster.PendingChange
	records  map[cluster.AppName]cluster.ChangeRecord
	hooks    map[cluster.AppName][]cluster.Task // newest last
	services map[cluster.AppName]int            // tasks and records of services
	outcomes map[cluster.AppName]map[int]cluster.ReleaseOutcome
	placed   map[cluster.TaskID]cluster.NodeID
	statuses map[cluster.TaskID]cluster.Status
	nodes    map[cluster.NodeID]cluster.Node

	out  []Action
	wake time.Time
}

func index(s Snapshot) *planner {
	p := &planner{
		Snapshot: s,
		apps:     map[cluster.AppName]cluster.App{}, changes: map[cluster.AppName]cluster.PendingChange{},
		records: map[cluster.AppName]cluster.ChangeRecord{}, hooks: map[cluster.AppName][]cluster.Task{},
		services: map[cluster.AppName]int{}, outcomes: map[cluster.AppName]map[int]cluster.ReleaseOutcome{},
		placed: map[cluster.TaskID]cluster.NodeID{}, statuses: map[cluster.TaskID]cluster.Status{}, nodes: map[cluster.NodeID]cluster.Node{},
	}
	for _, x := range s.Apps {
		p.apps[x.Name] = x
	}
	for _, x := range s.Changes {
		p.changes[x.App] = x
	}
	for _, x := range s.Records {
		p.records[x.App] = x
	}
	for _, x := range s.Tasks {
		if x.Hook == "" {
			p.services[x.App]++
			continue
		}
		p.hooks[x.App] = append(p.hooks[x.App], x)
	}
	for _, ts := range p.hooks {
		slices.SortFunc(ts, func(a, b cluster.Task) int { return cmp.Or(cmp.Compare(a.N, b.N), cmp.Compare(a.ID, b.ID)) })
	}
	for _, x := range s.Rollouts {
		p.services[x.App]++
	}
	for _, x := range s.Outcomes {
		if p.outcomes[x.App] == nil {
			p.outcomes[x.App] = map[int]cluster.ReleaseOutcome{}
		}
		p.outcomes[x.App][x.Number] = x
	}
	for _, x := range s.Nodes {
		p.nodes[x.ID] = x
	}
	for i := range s.Placements {
		p.placed[s.Placements[i].Task] = s.Placements[i].Node
	}
	for _, x := range s.Statuses {
		// The node that a task is placed on speaks for it, and no other: what any node
		// says of a task that has none yet would count as its end.
		if n, ok := p.placed[x.Task]; ok && n == x.Node {
			p.statuses[x.Task] = x.Brief()
		}
	}
	return p
}
