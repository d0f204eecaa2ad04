package cli

import (
	"cmp"
	"context"
	"slices"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
)

// departed are the tasks that still have something to say where no container
// has: in each slot of an address that has none now, the one that ended last,
// when it left a few lines behind.
func departed(tasks []v1.TaskStatus, at cluster.Address) []v1.TaskStatus {
	type place struct {
		service cluster.ServiceName
		slot    int
	}
	last := map[place]v1.TaskStatus{}
	lives := map[place]bool{}
	for _, t := range tasks {
		p := place{t.Name, t.Slot}
		switch old, known := last[p]; {
		case (at.Service != "" && t.Name != at.Service) || (at.Slot > 0 && t.Slot != at.Slot):
		case !t.Ended():
			lives[p] = lives[p] || t.Container != ""
		case !known || t.Created.After(old.Created):
			last[p] = t
		}
	}
	var out []v1.TaskStatus
	for p, t := range last {
		if !lives[p] && len(t.LogTail) > 0 {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b v1.TaskStatus) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Slot, b.Slot))
	})
	return out
}

// lastWords prints, of the tasks at an address whose container is gone, the lines
// that their status kept, and says so. Those in heard have been printed already.
// It returns whether there were any.
func (a *app) lastWords(ctx context.Context, cl *client.Client, at cluster.Address, o cluster.LogOptions, heard map[cluster.TaskID]bool) (bool, error) {
	if !o.Since.IsZero() || o.Tail == 0 {
		return false, nil // nobody kept when they were written
	}
	tasks, err := cl.Tasks(ctx, at.App, true)
	if err != nil {
		return false, err
	}
	said := false
	for _, t := range departed(tasks, at) {
		if heard[t.ID] {
			continue
		}
		said = true
		how := t.State
		if t.Reason != "" {
			how += ": " + oneLine(t.Reason)
		}
		a.note("the container of %s is gone (%s); these are its last lines:", t.Address, how)
		lines := t.LogTail
		if o.Tail > 0 {
			lines = lines[max(0, len(lines)-o.Tail):]
		}
		for _, l := range lines {
			if err := a.logLine(cluster.LogLine{Task: t.ID, Text: l}, o.Timestamps); err != nil {
				return said, err
			}
		}
	}
	return said, nil
}
