package cli

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
)

func (a *app) nodeDrain() *cobra.Command {
	var w waitFlags
	c := &cobra.Command{
		Use: "drain NODE", Short: "Move a node's tasks away, start-first, and wait until they are gone", Args: oneArg("the node's name"),
		Long: `The node takes no new tasks, and those that it has move: each is stopped when
another one is ready elsewhere. Tasks of global services are stopped. It waits
until the node has none left, and shows how far it is.

A task stays, and serves, whose volumes are on the node, or that no other node
can take: this command then says which and why, and ends with exit code 1.

The node stays drained until fairlead node activate, also when this command is
interrupted or its time is up.`,
		Example: "  fairlead node drain n2\n  fairlead node drain n2 --timeout 30m\n  fairlead node drain n2 -d", ValidArgsFunction: a.completeNodes(),
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			if err := w.check(); err != nil {
				return err
			}
			ch := v1.NodeChange{Availability: cluster.Drain}
			if w.detach {
				return a.changeNode(cmd, cl, args[0], ch)
			}
			ctx, id := cmd.Context(), cluster.NodeID(args[0])
			switch _, err := cl.ChangeNode(ctx, id, ch); {
			case ctx.Err() != nil:
				return failedf("stopped before a server had answered: `fairlead node ls` shows whether %s is drained", id)
			case err != nil:
				return err
			}
			return a.drained(ctx, cl, id, w.timeout)
		}),
	}
	w.register(c)
	return c
}

// drained shows progress until nothing is on the node that leaves it, or time is up,
// and tells what stays.
func (a *app) drained(ctx context.Context, cl *client.Client, id cluster.NodeID, timeout time.Duration) error {
	wctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	n, err := a.followDrain(wctx, cl, id)
	switch {
	case ctx.Err() != nil:
		return failedf("stopped waiting; %s stays drained and its tasks go on moving: `fairlead node inspect %s`, and `fairlead node activate %s` ends it", id, id, id)
	case err != nil && wctx.Err() == nil:
		return err
	case n.ID == "": // no server said anything in all the time
		return &exitError{code: codeTimeout, err: fmt.Errorf("%s is drained, and no server says how far it is after %s: %w", id, timeout, err)}
	}
	if perr := a.print(n, func() *table { return nodeTable([]v1.NodeSummary{n.NodeSummary}) }); perr != nil {
		return perr
	}
	return stays(n, err != nil, timeout)
}

// otherwise is how often a server may say that the node is not drained, or the app not removed,
// before that is so: one that has just fallen in behind the others may say what was.
const otherwise = 8

// followDrain asks until what is left on the node stays there. The error says why it
// ended before; what was known last is returned with it.
func (a *app) followDrain(ctx context.Context, cl *client.Client, id cluster.NodeID) (last v1.NodeDetail, err error) {
	show := newProgress(a)
	defer show.end()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	seen := moves{}
	for active := 0; ; {
		n, err := cl.Node(ctx, id)
		switch {
		case ctx.Err() != nil:
			return last, cmp.Or(err, context.Cause(ctx))
		case err == nil && n.Availability != cluster.Drain:
			if active++; active > otherwise {
				return last, failedf("%s is not drained any more: it was made %s meanwhile", id, n.Availability)
			}
		case err == nil:
			active, last = 0, n
			show.show(seen.rows(n.Leaving))
			if !slices.ContainsFunc(n.Leaving, func(l v1.Leaving) bool { return l.State != v1.LeavingHeld }) {
				return last, nil
			}
		case cluster.KindOf(err) != cluster.KindTransient: // such as a server that restarts
			return last, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return last, context.Cause(ctx)
		}
	}
}

// moves are the tasks that were seen on a node that is drained, by service.
type moves map[cluster.ServiceID]map[cluster.TaskID]bool

// rows say how many of each service's tasks are gone, and how the others do.
func (m moves) rows(now []v1.Leaving) []row {
	left := map[cluster.ServiceID][]v1.Leaving{}
	for _, l := range now {
		if m[l.ServiceID] == nil {
			m[l.ServiceID] = map[cluster.TaskID]bool{}
		}
		m[l.ServiceID][l.Task] = true
		left[l.ServiceID] = append(left[l.ServiceID], l)
	}
	var out []row
	for _, id := range slices.SortedFunc(maps.Keys(m), cluster.ServiceID.Compare) {
		all, still := len(m[id]), left[id]
		text := []string{fmt.Sprintf("%d of %d gone", all-len(still), all)}
		words := map[string]int{}
		why := ""
		for _, l := range still {
			words[way(l)]++
			if why == "" && l.Reason != "" && l.State != v1.LeavingStarts {
				why = ": " + oneLine(l.Reason)
			}
		}
		for _, w := range slices.Sorted(maps.Keys(words)) {
			text = append(text, fmt.Sprintf("%d %s", words[w], w))
		}
		out = append(out, row{id.String(), id.String(), strings.Join(text, ", ") + why})
	}
	return out
}

func way(l v1.Leaving) string {
	switch l.State {
	case v1.LeavingStarts:
		if l.To != "" {
			return "starting on " + string(l.To)
		}
		return "starting"
	case v1.LeavingStops:
		return "stopping"
	case v1.LeavingHeld:
		return "held here"
	case v1.LeavingNowhere:
		return "with nowhere to go"
	case v1.LeavingWaits:
	}
	return "waiting"
}

// stays is nil when nothing is left on the node, else the error that says what, why,
// and what can be done.
func stays(n v1.NodeDetail, late bool, timeout time.Duration) error {
	if len(n.Leaving) == 0 {
		return nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s is drained, but not empty", n.ID)
	if late {
		fmt.Fprintf(&b, " after %s", timeout)
	}
	held := false
	for _, l := range n.Leaving {
		fmt.Fprintf(&b, "\n  %s: %s", l.Address, standsStill(l))
		held = held || l.State == v1.LeavingHeld
	}
	if late {
		fmt.Fprintf(&b, "\nWhat can move goes on moving: `fairlead node drain %s` waits again, `fairlead node activate %s` ends it", n.ID, n.ID)
	}
	if held {
		fmt.Fprintf(&b, "\nA task with volumes runs there, and waits for the node while that is off; once it is off, "+
			"`fairlead node rm %s --lose-volumes` starts it elsewhere, with empty ones", n.ID)
	}
	return failedf("%s", b.String())
}

func standsStill(l v1.Leaving) string {
	text := map[v1.LeavingState]string{
		v1.LeavingHeld: "stays", v1.LeavingNowhere: "has nowhere to go", v1.LeavingWaits: "waits for its turn",
		v1.LeavingStarts: "another one is not ready", v1.LeavingStops: "is stopping",
	}[l.State]
	if l.To != "" {
		text += fmt.Sprintf(" (on %s)", l.To)
	}
	if l.Reason != "" {
		text += ": " + oneLine(l.Reason)
	}
	return text
}
