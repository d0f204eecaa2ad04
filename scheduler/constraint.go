package scheduler

import (
	"strings"

	"github.com/fairlead/fairlead/cluster"
)

// placement is a service's Placement, parsed.
type placement struct {
	constraints []cluster.Constraint
	spread      []string
	max         int
}

func parsePlacement(p cluster.Placement) (placement, error) {
	out := placement{max: p.MaxPerNode}
	for _, text := range p.Constraints {
		c, err := cluster.ParseConstraint(text)
		if err != nil {
			return out, err
		}
		out.constraints = append(out.constraints, c)
	}
	for _, key := range p.Spread {
		k, err := cluster.ParseAttribute(strings.TrimSpace(key))
		if err != nil {
			return out, cluster.Invalidf("spread preference: %w", err)
		}
		out.spread = append(out.spread, k)
	}
	return out, nil
}
