package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/cluster"
)

// retire takes a running task out of service: drained first when it may be
// receiving requests, stopped at once when it never was.
func (v *service) retire(t *task, reason string) {
	if t.Desire != cluster.DesireRun {
		return
	}
	if !t.ready() && t.status.ReadySince.IsZero() && !v.published.Has(t.ID) {
		v.stop(t, reason)
		return
	}
	t.Desire, t.Since, t.Reason, t.moved = cluster.DesireDrain, v.Now, reason, true
	v.emit(Drain{t.Task})
}

// drain moves a draining task on: it is stopped when nobody that lives still
// sends it anything new, or when the bound has passed.
func (v *service) drain(t *task) {
	listed := v.published.Has(t.ID)
	var late []string
	if !listed {
		rev := t.Withdrawn
		if rev == 0 {
			rev = v.published.Rev
		}
		late = v.lagging(rev)
		if len(late) == 0 {
			v.stop(t, t.Reason)
			return
		}
	}
	bound := cmp.Or(v.DrainBound, drainBound)
	if v.passed(t.Since, bound) {
		if listed {
			late = []string{"the registry"}
		}
		v.explain("stopped without all acknowledgements",
			fmt.Sprintf("%s was stopped %s after it was withdrawn, though %s did not say that nothing new is sent to it",
				v.address(t), bound, strings.Join(late, ", ")))
		v.stop(t, t.Reason)
		return
	}
	if !listed && t.Withdrawn == 0 {
		// Later changes of the endpoints must not move the mark that is waited for.
		t.Withdrawn, t.moved = v.published.Rev, true
		v.emit(Withdraw{t.Task})
	}
}

// lagging names the live nodes and gateways that do not serve rev yet.
func (v *service) lagging(rev cluster.StoreRev) []string {
	if rev == 0 {
		return nil // nothing was ever published
	}
	var out []string
	for _, n := range v.Nodes {
		if !n.Alive {
			continue
		}
		ack, acks := v.agents[n.ID]
		if (acks || n.HasRole("agent")) && ack < rev {
			out = append(out, "node "+string(n.ID))
		}
		if !v.routed() {
			continue
		}
		ack, acks = v.gateways[n.ID]
		if (acks || n.HasRole("gateway")) && ack < rev {
			out = append(out, "gateway "+string(n.ID))
		}
	}
	slices.Sort(out)
	return out
}

// routed reports whether gateways send requests to the service.
func (v *service) routed() bool {
	return len(v.spec.Spec.Routes) > 0 ||
		slices.ContainsFunc(v.spec.Spec.Ports, func(p cluster.PublishedPort) bool { return p.Mode == "gateway" })
}
