package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/compose"
)

func (a *app) deliveryTable(list []v1.DeliveryStatus) *table {
	t := &table{columns: columns("DELIVERY", "APP", "STATE", "REVISION", "RELEASE", "CHECKED", "+IMAGES", "+SOURCE", "MESSAGE"), empty: "no deliveries"}
	for _, d := range list {
		revision, release := "", ""
		if ap := d.State.At(); ap != nil {
			revision, release = strings.TrimSpace(ap.Origin.Ref+" "+cluster.ShortRevision(ap.Origin.Revision)), fmt.Sprint(ap.Release)
		}
		t.add(string(d.Name), string(d.App), d.Phase(), revision, release, age(a.now(), d.State.Checked), chosenImages(d.State.Images), d.Source.URL, oneLine(d.State.Says()))
	}
	return t
}

func (a *app) deliveryGet() *cobra.Command {
	return &cobra.Command{
		Use: "get [NAME]", Aliases: []string{"ls"}, Short: "List deliveries, and where they stand", Args: rangeArgs(0, 1, ""),
		Example: "  fairlead delivery get\n  fairlead delivery get shop -o json", ValidArgsFunction: a.completeDeliveries(),
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			if len(args) == 1 {
				d, err := cl.Delivery(cmd.Context(), cluster.DeliveryName(args[0]))
				if err != nil {
					return err
				}
				return a.print(d, func() *table { return a.deliveryTable([]v1.DeliveryStatus{d}) })
			}
			list, err := cl.Deliveries(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(list, func() *table { return a.deliveryTable(list) })
		}),
	}
}

func (a *app) deliveryDescribe() *cobra.Command {
	return &cobra.Command{
		Use: "describe NAME", Short: "Show all that is known about a delivery", Args: oneArg("the delivery"),
		Example: "  fairlead delivery describe shop", ValidArgsFunction: a.completeDeliveries(),
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			d, err := cl.Delivery(cmd.Context(), cluster.DeliveryName(args[0]))
			if err != nil {
				return err
			}
			return a.print(d, func() *table { return a.described(d) })
		}),
	}
}

func (a *app) described(d v1.DeliveryStatus) *table {
	t := &table{columns: columns("WHAT", "VALUE")}
	add := func(what, value string) {
		if value != "" {
			t.add(what, oneLine(value))
		}
	}
	full, st := d.Filled(), d.State
	add("delivery", string(d.Name))
	add("app", string(d.App))
	add("state", d.Phase())
	add("message", st.Says())
	add("source", strings.TrimSpace(d.Source.Kind+" "+d.Source.URL+" "+d.Source.Chart))
	for _, w := range [][2]string{{"branch", d.Source.Branch}, {"tag", d.Source.Tag}, {"versions", d.Source.Semver}, {"of tags", d.Source.TagPrefix}, {"commit", d.Source.Commit}, {"digest", d.Source.Digest}, {"path", d.Path}, {"package", d.Package}, {"decrypted with", d.Decrypt}} {
		add(w[0], w[1])
	}
	add("files", strings.Join(slices.Concat(d.Compose, d.EnvFiles, d.Values), ", "))
	add("policy", fmt.Sprintf("every %s; on failure %s; drift: %s; deadline %s", full.Interval, full.OnFailure, full.Drift, full.Timeout))
	add("depends on", joinNames(d.DependsOn))
	if st.Seen != nil {
		add("newest", commitLine(*st.Seen))
	}
	if st.Applied != nil {
		add("deployed", fmt.Sprintf("%s, release %d", commitLine(st.Applied.Origin), st.Applied.Release))
	}
	if st.Good != nil {
		add("last good", fmt.Sprintf("%s, release %d", commitLine(st.Good.Origin), st.Good.Release))
	}
	if st.Varies {
		add("rendering", "the package's templates draw at random, and make something else each time: what they made first stays until its files or values change")
	}
	a.describeImages(d, add)
	for _, x := range st.Drift {
		add("drift", x)
	}
	add("checked", age(a.now(), st.Checked))
	if !d.Suspend && !st.Next.IsZero() {
		add("next look", st.Next.UTC().Format(time.RFC3339))
	}
	if st.Failures > 0 {
		add("failures", fmt.Sprint(st.Failures))
	}
	add("not notified", st.NotifyErr)
	if d.Webhook != "" {
		add("webhook", "/v1/hooks/"+string(d.Name)+", signed with secret "+d.Webhook)
	}
	add("by", d.By)
	return t
}

func (a *app) deliveryDiff() *cobra.Command {
	var exitCode bool
	c := &cobra.Command{
		Use: "diff NAME", Short: "Show what the source has now would change", Args: oneArg("the delivery"),
		Long:    "Fetches the source and compares the app with it. Nothing is changed.",
		Example: "  fairlead delivery diff shop\n  fairlead delivery diff shop --exit-code   # 10 when there are changes", ValidArgsFunction: a.completeDeliveries(),
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			d, err := cl.DeliveryDiff(cmd.Context(), cluster.DeliveryName(args[0]))
			if err != nil {
				return err
			}
			if a.human() {
				a.note("%s %s: %s", d.Origin.Ref, cluster.ShortRevision(d.Origin.Revision), d.Origin.Subject)
				for _, w := range d.Warnings {
					a.note("warning: %s", w)
				}
				a.noteImages(d)
				err = a.printPlan(d.Plan, &compose.Result{})
			} else {
				err = a.print(d, nil)
			}
			if err == nil && exitCode && !d.Plan.Empty() {
				err = &exitError{code: codeChanges}
			}
			return err
		}),
	}
	c.Flags().BoolVar(&exitCode, "exit-code", false, "exit with 10 when there are changes")
	return c
}

func (a *app) deliveryHistory() *cobra.Command {
	return &cobra.Command{
		Use: "history NAME", Short: "List what happened to a delivery, the newest first", Args: oneArg("the delivery"),
		Example: "  fairlead delivery history shop", ValidArgsFunction: a.completeDeliveries(),
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			d, err := cl.Delivery(cmd.Context(), cluster.DeliveryName(args[0]))
			if err != nil {
				return err
			}
			list := append([]cluster.DeliveryEvent{}, d.State.History...)
			slices.Reverse(list)
			return a.print(list, func() *table {
				t := &table{columns: columns("AGE", "EVENT", "REVISION", "+IMAGES", "RELEASE", "AUTHOR", "SUBJECT", "MESSAGE"), empty: "nothing happened yet"}
				for _, e := range list {
					release := ""
					if e.Release > 0 {
						release = fmt.Sprint(e.Release)
					}
					t.add(age(a.now(), e.At), e.Event, cluster.ShortRevision(e.Revision), e.Images, release, e.Author, e.Subject, oneLine(e.Message))
				}
				return t
			})
		}),
	}
}

// commitLine is a revision as a person knows it.
func commitLine(o cluster.Origin) string {
	s := strings.TrimSpace(o.Ref + " " + cluster.ShortRevision(o.Revision))
	if o.Subject != "" {
		s += " “" + o.Subject + "” by " + o.Author
	}
	if len(o.Images) > 0 {
		s += " with " + cluster.Choices(o.Images)
	}
	return s
}
