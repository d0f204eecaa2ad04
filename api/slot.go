package api

import (
	"fmt"
	"slices"
	"strings"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

// ofSlot says of one slot what runs in it, where and why there, how often it was
// started, and what went wrong last.
func (m *model) ofSlot(svc cluster.Service, slot int) []string {
	var in []cluster.Task // newest first
	for _, t := range slices.Backward(m.ofService[svc.ServiceID]) {
		if t.Slot == slot {
			in = append(in, t)
		}
	}
	var out []string
	for i, t := range in {
		if ts := m.task(t); i == 0 || !ts.Ended() {
			out = append(out, m.ofTask(t, ts)...)
		}
	}
	for i, t := range in {
		ts := m.task(t)
		if cluster.TaskState(ts.State) != cluster.StateFailed {
			continue
		}
		if i > 0 { // the first has been said
			out = append(out, fmt.Sprintf("the last one that failed here: %s, at %s: %s", where(ts), t.Outcome.At.UTC().Format("2006-01-02 15:04:05 UTC"), ts.Reason))
			out = append(out, lastLine(ts)...)
		}
		break
	}
	return out
}

// ofTask says how a task is, first in a line.
func (m *model) ofTask(t cluster.Task, ts v1.TaskStatus) []string {
	state := ts.State
	switch {
	case ts.Ready:
		state += " and ready"
	case cluster.TaskState(ts.State) == cluster.StateRunning:
		state += ", not ready"
	}
	if t.Desire == cluster.DesireDrain && !ts.Ended() {
		state += ", draining"
	}
	line := fmt.Sprintf("%s: %s", where(ts), state)
	if ts.Reason != "" {
		line += ": " + ts.Reason
	}
	of := ""
	if !ts.Current {
		of = ", not the current one"
	}
	out := []string{line, fmt.Sprintf("it is of release %d%s, from image %s", ts.Release, of, ts.Image)}
	if why := m.whyThere(t, ts.Node); why != "" {
		out = append(out, why)
	}
	if ts.Restarts > 0 {
		again := fmt.Sprintf("its container was started again %s", times(ts.Restarts))
		if ts.ExitCode != 0 {
			again += fmt.Sprintf(", the last time after exit code %d", ts.ExitCode)
		}
		out = append(out, again)
	}
	switch {
	case t.Attempt == 1:
		out = append(out, "the task before it in this slot failed")
	case t.Attempt > 1:
		out = append(out, fmt.Sprintf("the %d tasks before it in this slot failed", t.Attempt))
	}
	if !ts.Ready {
		out = append(out, lastLine(ts)...)
	}
	return out
}

func where(ts v1.TaskStatus) string {
	if ts.Node == "" {
		return string(ts.ID)
	}
	return fmt.Sprintf("%s on %s", ts.ID, ts.Node)
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// lastLine is the last that a container wrote that is kept.
func lastLine(ts v1.TaskStatus) []string {
	if len(ts.LogTail) == 0 {
		return nil
	}
	return []string{"its last line: " + ts.LogTail[len(ts.LogTail)-1]}
}

// whyThere says what chose a task's node: what the placement says, or as far as
// that can still be told.
func (m *model) whyThere(t cluster.Task, n cluster.NodeID) string {
	svc := m.byID[t.ServiceID]
	said := ""
	if p := m.placements[t.ID]; p.Node == n {
		said = p.Why
	}
	switch place := svc.Spec.Placement; {
	case n == "":
		return ""
	case t.Node != "":
		return fmt.Sprintf("it is on %s because the service has a task on each node (mode: global)", n)
	case len(m.nodes) == 1 && said == "":
		return fmt.Sprintf("it is on %s because there is no other node", n)
	default:
		var held []string
		for _, v := range t.Spec.Mounts {
			if v.Type == cluster.MountVolume && v.Source != "" && m.hadBefore(t, n) {
				held = append(held, v.Source)
			}
		}
		why := ""
		if len(held) > 0 {
			why = "; the slot's earlier task had its volume there: " + strings.Join(held, ", ")
		}
		if len(place.Constraints) > 0 {
			why += "; it had to fulfil " + strings.Join(place.Constraints, ", ")
		}
		if said != "" {
			return fmt.Sprintf("%s was %s%s", n, said, why)
		}
		order := "fewest tasks of the service, then most room"
		if len(place.Spread) > 0 {
			order = "spread over " + strings.Join(place.Spread, ", ") + ", then " + order
		}
		return fmt.Sprintf("%s was the best of the nodes that could take it (%s)%s", n, order, why)
	}
}

// hadBefore reports whether an earlier task of a slot ran on a node.
func (m *model) hadBefore(t cluster.Task, n cluster.NodeID) bool {
	return slices.ContainsFunc(m.ofService[t.ServiceID], func(x cluster.Task) bool {
		return x.Slot == t.Slot && x.N < t.N && x.Outcome != nil && x.Outcome.Node == n
	})
}
