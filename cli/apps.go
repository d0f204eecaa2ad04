package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
)

func (a *app) lsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List apps", Args: noArgs, Example: "  fairlead ls\n  fairlead ls -o wide   # with packages and deliveries\n  fairlead ls -o json",
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, _ []string) error {
			apps, err := cl.Apps(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(apps, func() *table {
				t := &table{
					columns: columns("APP", "RELEASE", "STATE", "SERVICES", "READY", "AGE", "+PACKAGE", "+DELIVERY", "URLS"),
					empty:   "no apps: `fairlead deploy` in the directory of a compose.yaml makes one",
				}
				for _, x := range apps {
					state, follows := deliveredState(x)
					t.add(string(x.Name), fmt.Sprint(x.Release), state, fmt.Sprint(x.Services),
						fmt.Sprintf("%d/%d", x.Ready, x.Wanted), age(a.now(), x.Created), x.Chart, follows, strings.Join(x.URLs, " "))
				}
				return t
			})
		}),
	}
}

// deliveredState is an app's state with what is wrong with its delivery, and which that is.
func deliveredState(x v1.AppSummary) (state, follows string) {
	if x.Delivery == nil {
		return x.State, ""
	}
	d := *x.Delivery
	d.Message = ""
	if d.Wrong() {
		return x.State + ", delivery " + d.Phase, d.String()
	}
	return x.State, d.String()
}

func (a *app) psCommand() *cobra.Command {
	var all bool
	none := "no tasks"
	c := &cobra.Command{
		Use: "ps [APP]", Short: "List tasks: what runs where, and why something does not",
		Example:           "  fairlead ps\n  fairlead ps shop -o wide\n  fairlead ps --all   # with tasks that have ended",
		Args:              rangeArgs(0, 1, ""),
		ValidArgsFunction: a.completeApps(),
		RunE: listing(a, func(cl *client.Client, ctx context.Context, name cluster.AppName) ([]v1.TaskStatus, error) {
			list, err := cl.Tasks(ctx, name, all)
			if err == nil && len(list) == 0 && !all && a.human() {
				none, err = noTasks(ctx, cl, name)
			}
			return list, err
		}, func(list []v1.TaskStatus) *table { return a.taskTable(list, none) }),
	}
	c.Flags().BoolVarP(&all, "all", "a", false, "show ended tasks too")
	return c
}

// noTasks says that none run, and how to see those that ended.
func noTasks(ctx context.Context, cl *client.Client, name cluster.AppName) (string, error) {
	ended, err := cl.Tasks(ctx, name, true)
	if err != nil || len(ended) == 0 {
		return "no tasks", err
	}
	command := "fairlead ps -a"
	if name != "" {
		command = fmt.Sprintf("fairlead ps %s -a", name)
	}
	return fmt.Sprintf("no tasks run; `%s` shows those that ended", command), nil
}

// taskTable shows tasks, or with none of them the sentence in their place.
func (a *app) taskTable(tasks []v1.TaskStatus, none string) *table {
	t := &table{
		columns: columns("TASK", "STATE", "READY", "NODE", "AGE", "RESTARTS", "IMAGE", "+ID", "+RELEASE", "+ADDRESSES", "+DIGEST", "REASON"),
		empty:   none,
	}
	for _, x := range tasks {
		since := x.Started
		if since.IsZero() {
			since = x.Created
		}
		state := x.State
		if x.Desire == cluster.DesireDrain && !x.Ended() {
			state += " (draining)"
		}
		reason := x.Reason
		if x.Hook != "" {
			reason = strings.TrimSuffix(fmt.Sprintf("%s hook: %s", x.Hook, x.Reason), ": ")
		}
		var addrs []string
		for _, ip := range x.Addresses {
			addrs = append(addrs, ip)
		}
		t.add(x.Address, state, yesNo(x.Ready), string(x.Node), age(a.now(), since), fmt.Sprint(x.Restarts),
			x.Image, string(x.ID), fmt.Sprint(x.Release), strings.Join(addrs, ","), x.ImageDigest, reason)
	}
	return t
}

func (a *app) statusCommand() *cobra.Command {
	var whole bool
	c := &cobra.Command{
		Use: "status [APP]", Short: "Show how an app, or the whole cluster, is doing",
		Example:           "  fairlead status             # the app here, else the cluster\n  fairlead status shop\n  fairlead status --cluster   # also in an app's directory",
		Args:              rangeArgs(0, 1, ""),
		ValidArgsFunction: a.completeApps(),
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			var name cluster.AppName
			var err error
			switch {
			case whole && (len(args) > 0 || a.appFlag != ""):
				return usagef("--cluster shows the cluster: leave the app out")
			case whole:
			case len(args) > 0:
				name, err = appNamed(args[0])
			default:
				name, err = a.currentApp()
			}
			if err != nil {
				return err
			}
			if name == "" {
				st, err := cl.Status(cmd.Context())
				if err != nil {
					return err
				}
				return a.print(st, func() *table { return clusterTable(st) })
			}
			d, err := cl.App(cmd.Context(), name)
			if err != nil {
				return err
			}
			if a.human() {
				a.appHead(d)
			}
			return a.print(d, func() *table { return serviceTable(d.Each, false) })
		}),
	}
	c.Flags().BoolVar(&whole, "cluster", false, "show the cluster, not the app here")
	return c
}

func clusterTable(st v1.ClusterStatus) *table {
	t := &table{columns: columns("WHAT", "VALUE")}
	t.add("version", st.Version)
	t.add("cluster", st.Cluster)
	t.add("nodes", fmt.Sprintf("%d of %d alive", st.NodesAlive, st.Nodes))
	t.add("apps", fmt.Sprint(st.Apps))
	t.add("services", fmt.Sprint(st.Services))
	t.add("tasks", fmt.Sprintf("%d of %d ready", st.Ready, st.Wanted))
	if st.Unplaced > 0 {
		t.add("unplaced", fmt.Sprint(st.Unplaced))
	}
	for _, g := range st.Gateways {
		text := fmt.Sprintf("%s serves route revision %d", g.Node, g.Route)
		if g.Error != "" {
			text += ": " + g.Error
		}
		t.add("gateway", text)
	}
	for _, al := range st.Alarms {
		t.add("alarm", al)
	}
	return t
}

func (a *app) appHead(d v1.AppDetail) {
	out := func(format string, args ...any) { _, _ = fmt.Fprintf(a.out, format+"\n", args...) }
	line := fmt.Sprintf("%s: release %d, %s, %d/%d ready", d.Name, d.Release, d.State, d.Ready, d.Wanted)
	if d.Chart != "" {
		line += ", package " + d.Chart
	}
	if d.By != "" {
		line += ", by " + d.By
	}
	if d.Note != "" {
		line += ", " + d.Note
	}
	out("%s", line)
	for _, p := range d.Problems {
		out("  ! %s", oneLine(p))
	}
	if f := d.Delivery; f != nil {
		mark := map[bool]string{true: "! "}[f.Wrong()]
		out("  %sdelivery %s", mark, oneLine(f.String()))
	}
	for _, e := range d.Exposed {
		out("  %s", e)
	}
	for _, s := range d.Each {
		if s.Owner == cluster.OwnerPerson {
			out("  %s is kept at %d by hand; `fairlead scale %s=auto` gives it back", s.Name, s.Wanted, s.ServiceID)
		}
	}
}

func (a *app) serviceCommand() *cobra.Command {
	c := &cobra.Command{Use: "service", Short: "Look at services", Example: "  fairlead service ls"}
	c.AddCommand(&cobra.Command{
		Use: "ls [APP]", Short: "List services", Example: "  fairlead service ls shop",
		Args: rangeArgs(0, 1, ""), ValidArgsFunction: a.completeApps(),
		RunE: listing(a, (*client.Client).Services, func(list []v1.ServiceSummary) *table { return serviceTable(list, true) }),
	})
	return c
}

func serviceTable(list []v1.ServiceSummary, full bool) *table {
	t := &table{
		columns: columns("SERVICE", "MODE", "READY", "UPDATED", "STATE", "IMAGE", "ADDRESS", "+VERSION", "+RELEASE", "+COUNT BY", "EXPOSED", "MESSAGE"),
		empty:   "no services",
	}
	for _, s := range list {
		name := string(s.Name)
		if full {
			name = s.String()
		}
		t.add(name, string(s.Mode), fmt.Sprintf("%d/%d", s.Ready, s.Wanted), fmt.Sprint(s.Updated),
			strings.ReplaceAll(s.State, "_", " "), s.Image, s.Address, s.Version, fmt.Sprint(s.Release), s.Owner,
			strings.Join(append(append([]string{}, s.URLs...), s.Ports...), " "), s.Message)
	}
	return t
}

func (a *app) inspectCommand() *cobra.Command {
	return &cobra.Command{
		Use: "inspect [APP | ADDRESS]", Short: "Print all that is known of an app, a service or a task",
		Long:              "Prints JSON, or YAML with -o yaml.",
		Example:           "  fairlead inspect shop/web\n  fairlead inspect shop/web.2 -o yaml\n  fairlead inspect   # the app here",
		Args:              rangeArgs(0, 1, ""),
		ValidArgsFunction: a.withTasks(1, a.completeTargets(1)),
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			v, err := a.lookUp(cmd.Context(), cl, args)
			if err != nil {
				return orNode(cmd.Context(), cl, args, err)
			}
			return a.whole(v, formatJSON)
		}),
	}
}

func (a *app) lookUp(ctx context.Context, cl *client.Client, args []string) (any, error) {
	addr, err := a.appOrAddress(ctx, cl, args)
	if err != nil {
		return nil, err
	}
	if addr.Service == "" {
		return cl.App(ctx, addr.App)
	}
	if addr.Slot == 0 {
		return cl.Service(ctx, cluster.ServiceID{App: addr.App, Name: addr.Service})
	}
	tasks, err := cl.Tasks(ctx, addr.App, true)
	if err != nil {
		return nil, err
	}
	var found *v1.TaskStatus
	for i, t := range tasks {
		if t.Name == addr.Service && t.Slot == addr.Slot && (found == nil || found.Ended() || t.Created.After(found.Created) && !t.Ended()) {
			found = &tasks[i]
		}
	}
	if found == nil {
		return nil, noSlot(addr)
	}
	return cl.Task(ctx, found.ID)
}

func (a *app) explainCommand() *cobra.Command {
	return &cobra.Command{
		Use: "explain [APP | ADDRESS]", Short: "Say why a service or task is as it is",
		Long: `Of a service: what stands in its way, who decided its count, and how far its
release is. Of one slot (web.2): what runs in it, where and why there, how often
it was started, and what went wrong last.`,
		Example:           "  fairlead explain shop/web\n  fairlead explain web.2   # that one task\n  fairlead explain   # the app here, else all",
		Args:              rangeArgs(0, 1, ""),
		ValidArgsFunction: a.withTasks(1, a.completeTargets(1)),
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			list, err := a.explanations(cmd.Context(), cl, args)
			if err != nil {
				return orNode(cmd.Context(), cl, args, err)
			}
			if !a.human() {
				return a.print(list, nil)
			}
			for _, e := range list {
				_, _ = fmt.Fprintln(a.out, e.Address)
				for _, s := range e.Summary {
					_, _ = fmt.Fprintln(a.out, "  "+oneLine(s))
				}
				for _, d := range e.Decisions {
					for _, r := range d.Refusals {
						_, _ = fmt.Fprintf(a.out, "    %s refused %s: %s\n", r.Filter, count(r.Nodes, "node"), strings.Join(r.Examples, "; "))
					}
				}
			}
			return nil
		}),
	}
}

// orNode is err, or where what was named is no app or service but a node, what tells of that.
func orNode(ctx context.Context, cl *client.Client, args []string, err error) error {
	if len(args) == 0 || (cluster.KindOf(err) != cluster.KindNotFound && Code(err) != codeUsage) {
		return err
	}
	nodes, away := cl.Nodes(ctx)
	if away != nil || !slices.ContainsFunc(nodes, func(n v1.NodeSummary) bool { return string(n.ID) == args[0] }) {
		return err
	}
	return cluster.NotFoundf("no app or service is called %[1]s, but a node is: `fairlead node inspect %[1]s` tells of it, `fairlead explain` of what waits for a node", args[0])
}

// explanations are those of an address, an app, or without either of all apps.
func (a *app) explanations(ctx context.Context, cl *client.Client, args []string) ([]v1.Explanation, error) {
	all := len(args) == 0
	if all {
		c, err := a.current()
		if err != nil {
			return nil, err
		}
		all = c.app == ""
	}
	if !all {
		addr, err := a.appOrAddress(ctx, cl, args)
		if err != nil {
			return nil, err
		}
		if err := slotExists(ctx, cl, addr); err != nil {
			return nil, err
		}
		return cl.Explain(ctx, addr)
	}
	apps, err := cl.Apps(ctx)
	if err != nil {
		return nil, err
	}
	out := []v1.Explanation{}
	for _, x := range apps {
		list, err := cl.Explain(ctx, cluster.Address{App: x.Name})
		if err != nil && cluster.KindOf(err) != cluster.KindNotFound { // it may just have gone
			return nil, err
		}
		out = append(out, list...)
	}
	return out, nil
}

func (a *app) exposureCommand() *cobra.Command {
	return &cobra.Command{
		Use: "exposure [APP]", Short: "List what is reachable from outside, and which line of which file made it so",
		Example:           "  fairlead exposure\n  fairlead exposure shop -o json",
		Args:              rangeArgs(0, 1, ""),
		ValidArgsFunction: a.completeApps(),
		RunE:              listing(a, (*client.Client).Exposure, exposureTable),
	}
}

func exposureTable(list []v1.Exposed) *table {
	t := &table{columns: columns("SCOPE", "ADDRESS", "SERVICE", "PORT", "WHERE", "+GATEWAYS", "BECAUSE OF"), empty: "nothing is reachable from outside"}
	for _, e := range list {
		from := ""
		if e.Source.File != "" {
			from = fmt.Sprintf("%s:%d", e.Source.File, e.Source.Line)
		}
		for _, place := range e.Places() {
			t.add(strings.ToUpper(e.Scope), place, fmt.Sprintf("%s/%s", e.App, e.Service), fmt.Sprint(e.Port), e.Where, strings.Join(e.Gateways, ", "), from)
		}
	}
	return t
}
