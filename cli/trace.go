package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
)

func (a *app) traceCommand() *cobra.Command {
	return &cobra.Command{
		Use: "trace SERVICE", Short: "From a service's containers back to image, release, commit and author", Args: oneArg("the service"),
		Example: "  fairlead trace shop/web\n  fairlead trace shop/web -o json", ValidArgsFunction: a.completeServices(1),
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			addr, err := a.address(args[0])
			if err != nil {
				return err
			}
			tr, err := cl.Trace(cmd.Context(), cluster.ServiceID{App: addr.App, Name: addr.Service})
			if err != nil {
				return err
			}
			tr.Tasks = slices.DeleteFunc(tr.Tasks, func(t v1.TaskStatus) bool { return addr.Slot > 0 && t.Slot != addr.Slot })
			return a.print(tr, func() *table { return a.traced(tr) })
		}),
	}
}

func (a *app) traced(tr v1.Trace) *table {
	t := &table{columns: columns("WHAT", "VALUE")}
	add := func(what, value string) {
		if value != "" {
			t.add(what, oneLine(value))
		}
	}
	for _, x := range tr.Tasks {
		add("task", fmt.Sprintf("%s on %s: %s", x.ID, orNone(string(x.Node)), x.State))
		add("  container", x.Container)
		add("  image", x.Image)
		add("  digest", digestOf(x))
		for _, r := range tr.Earlier {
			if slices.Contains(r.Of, x.ID) {
				a.madeBy(r.TracedRelease, func(what, value string) { add("  "+what, value) })
			}
		}
	}
	add("service", tr.String())
	a.madeBy(tr.TracedRelease, add)
	if tr.Origin != nil {
		if a := appliedSince(tr); a != nil {
			add("since then", commitLine(*a)+", which changed nothing")
		}
	}
	if d := tr.Delivery; d != nil && tr.Origin == nil {
		add("delivery", fmt.Sprintf("%s, which did not make this release", d.Name))
	}
	return t
}

// madeBy says where a release comes from.
func (a *app) madeBy(m v1.TracedRelease, add func(what, value string)) {
	r := m.Release
	if r.Created.IsZero() {
		add("release", fmt.Sprintf("%d, which is not kept any more", r.Number))
		return
	}
	add("release", fmt.Sprintf("%d, %s ago by %s: %s", r.Number, age(a.now(), r.Created), orNone(r.By), r.Note))
	if r.State == string(cluster.RolloutFailed) {
		add("failed", r.Message)
	}
	add("package", strings.TrimSpace(r.Chart+" "+m.From))
	if o := m.Origin; o != nil {
		add("source", strings.TrimSpace(o.URL+" "+o.Ref))
		add("revision", o.Revision)
		add("commit", o.Subject)
		add("author", o.Author)
		for _, c := range o.Images {
			add("image policy", strings.TrimSpace(c.Policy+" → "+c.Repository+":"+c.Tag+" "+c.Digest))
		}
		add("delivery", string(o.Delivery))
	}
}

// digestOf is by what a task's image was pulled, or, where no registry said a digest, what
// its engine calls it.
func digestOf(x v1.TaskStatus) string {
	switch {
	case x.ImageDigest != "":
		return x.ImageDigest
	case x.ImageID != "":
		return fmt.Sprintf("none of a registry; on %s it has the image ID %s", orNone(string(x.Node)), x.ImageID)
	}
	return ""
}

// appliedSince is the newer revision that the delivery has found to be the same as the
// release that is there.
func appliedSince(tr v1.Trace) *cluster.Origin {
	d := tr.Delivery
	if d == nil || d.Name != tr.Origin.Delivery || d.State.Phase != cluster.PhaseReady {
		return nil
	}
	a := d.State.Applied
	if a == nil || a.Release != tr.Release.Number || a.Origin.Revision == tr.Origin.Revision {
		return nil
	}
	return &a.Origin
}
