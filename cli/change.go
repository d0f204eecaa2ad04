package cli

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
)

// waitFlags are those of every command that starts a rollout.
type waitFlags struct {
	detach  bool
	timeout time.Duration
}

// check is called before anything is changed.
func (w *waitFlags) check() error {
	if w.timeout <= 0 {
		return usagef("--timeout %s: give a time such as 5m; --detach does not wait at all", w.timeout)
	}
	return nil
}

func (w *waitFlags) register(c *cobra.Command) {
	c.Flags().BoolVarP(&w.detach, "detach", "d", false, "do not wait")
	c.Flags().DurationVar(&w.timeout, "timeout", 10*time.Minute, "how long to wait; the change goes on after it")
}

func (a *app) rmCommand() *cobra.Command {
	var purge, yes bool
	var hooks hookFlags
	c := &cobra.Command{
		Use: "rm [APP]", Aliases: []string{"down"}, Short: "Remove an app; its volumes and secrets stay",
		Long: `Removes the app and waits until its tasks are gone. At a terminal it asks when
neither an argument nor -p names the app, and always with --purge-secrets.`,
		Example:           "  fairlead rm shop\n  fairlead rm shop --purge-secrets --yes",
		Args:              rangeArgs(0, 1, "the app"),
		ValidArgsFunction: a.completeApps(),
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			name, err := a.appArg(args)
			if err != nil {
				return err
			}
			a.sayTook()
			if !yes && (purge || (a.took.from != "" && a.terminal())) {
				question := fmt.Sprintf("Remove app %s?", name)
				if purge {
					question = fmt.Sprintf("Remove app %s and its secrets?", name)
				}
				if err := a.ask(cmd.Context(), question); err != nil {
					return err
				}
			}
			res, err := cl.Remove(cmd.Context(), name, v1.RemoveOptions{PurgeSecrets: purge, NoHooks: hooks.none, Timeout: hooks.timeout})
			if err != nil {
				return err
			}
			if err := a.waitGone(cmd, cl, res); err != nil {
				return err
			}
			return a.printRemoved(res)
		}),
	}
	c.Flags().BoolVar(&purge, "purge-secrets", false, "remove its secrets too")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	hooks.register(c)
	return c
}

// hookFlags are those of commands around which hooks of a package run.
type hookFlags struct {
	none    bool
	timeout time.Duration
}

func (h *hookFlags) register(c *cobra.Command) {
	c.Flags().BoolVar(&h.none, "no-hooks", false, "run none of the package's hooks")
	c.Flags().DurationVar(&h.timeout, "timeout", 10*time.Minute, "how long each of the package's hooks may take")
}

// waitGone waits until no task of the app is left, and its hooks have run.
func (a *app) waitGone(cmd *cobra.Command, cl *client.Client, res v1.RemoveResult) error {
	name := res.App
	const look = 200 * time.Millisecond
	const most = 10 * time.Minute // without a word
	ctx, quiet := cmd.Context(), silence{a: a}
	going := leaving{app: name, hooks: res.Pending}
	for ; ctx.Err() == nil; pause(ctx, look) {
		gone, err := going.gone(ctx, cl)
		switch {
		case ctx.Err() != nil:
		case quiet.outlasts(err):
			if a.now().Sub(quiet.since) > most {
				return quiet.late("whether "+string(name)+" is removed", most, "`fairlead ls`")
			}
			continue
		case gone, err != nil:
			return err
		}
		quiet.heard()
	}
	return failedf("stopped waiting; %s is still being removed", name)
}

// leaving is an app that is removed.
type leaving struct {
	app   cluster.AppName
	hooks bool // that it waits for
	other int  // how often in a row a server knew of another change
}

// gone reports whether it is.
func (l *leaving) gone(ctx context.Context, cl *client.Client) (bool, error) {
	if l.hooks {
		over, err := l.removed(ctx, cl)
		if err != nil {
			return false, err
		}
		l.hooks = !over
	}
	tasks, err := cl.Tasks(ctx, l.app, false)
	if cluster.KindOf(err) == cluster.KindNotFound {
		return true, nil
	}
	return err == nil && len(tasks) == 0 && !l.hooks, err
}

// removed reports whether a removal with hooks is over; an error is that one failed.
func (l *leaving) removed(ctx context.Context, cl *client.Client) (bool, error) {
	name := l.app
	d, err := cl.App(ctx, name)
	switch {
	case cluster.KindOf(err) == cluster.KindNotFound:
		return true, nil
	case err != nil:
		return false, err
	case d.Change == nil || d.Change.Action != cluster.HookDelete:
		if l.other++; l.other > otherwise {
			return false, failedf("another change of %s took the place of its removal", name)
		}
		return false, nil
	case d.Change.Stage != cluster.StageDone:
		l.other = 0
		return false, nil
	case !d.Change.Failed:
		return true, nil
	case d.State == "uninstalled":
		return true, failedf("%s is removed, but %s\n%sits history is kept: `fairlead uninstall %s` forgets it", name, d.Change.Message, hookTail(d.Change.Runs), name)
	}
	return true, failedf("%s is not removed: %s\n%s--no-hooks removes it without its hooks", name, d.Change.Message, hookTail(d.Change.Runs))
}

func (a *app) scaleCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "scale SERVICE=COUNT...", Short: "Set how many tasks services have",
		Long: `Sets counts by hand. "auto" gives a service back to its file or its autoscaler.
It does not wait, but says what no node has room for as the cluster is now.`,
		Example:           "  fairlead scale shop/web=5 shop/api=2\n  fairlead scale web=auto",
		Args:              rangeArgs(1, -1, "SERVICE=COUNT"),
		ValidArgsFunction: a.completeCounts(),
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			want, err := a.counts(args)
			if err != nil {
				return err
			}
			all, err := scale(cmd.Context(), cl, want)
			if err != nil {
				return err
			}
			for _, s := range all {
				if w := s.Waits; w != nil && a.human() {
					a.note("warning: %d of %s of %s cannot be placed now: %s; `fairlead explain %s` follows it", w.Waiting, count(w.Wanted, "task"), s, w.Reason, s)
				}
			}
			return a.print(all, func() *table {
				t := &table{columns: columns("SERVICE", "COUNT", "BY")}
				for _, s := range all {
					t.add(s.String(), fmt.Sprint(s.Replicas), s.Owner)
				}
				return t
			})
		}),
	}
	return c
}

type counts map[cluster.AppName]map[cluster.ServiceName]v1.ScaleTo

const maxReplicas = 10000

// counts reads SERVICE=COUNT of each argument.
func (a *app) counts(args []string) (counts, error) {
	out := counts{}
	for _, arg := range args {
		what, count, ok := strings.Cut(arg, "=")
		if !ok {
			return nil, usagef("%q: write SERVICE=COUNT, such as web=3", arg)
		}
		addr, err := a.address(what)
		if err != nil {
			return nil, err
		}
		if addr.Slot != 0 {
			return nil, usagef("%q: name a service, not one of its tasks", arg)
		}
		to := v1.ScaleTo{Auto: count == "auto"}
		if !to.Auto {
			if to.Replicas, err = strconv.Atoi(count); err != nil || to.Replicas < 0 || to.Replicas > maxReplicas {
				return nil, usagef("%q: %q is not a count; use a number from 0 to %d, or auto", arg, count, maxReplicas)
			}
		}
		if _, twice := out[addr.App][addr.Service]; twice {
			return nil, usagef("%s/%s has two counts: give one", addr.App, addr.Service)
		}
		if out[addr.App] == nil {
			out[addr.App] = map[cluster.ServiceName]v1.ScaleTo{}
		}
		out[addr.App][addr.Service] = to
	}
	return out, nil
}

// scale sets counts, an app at a time. What is not there is found before any is set.
func scale(ctx context.Context, cl *client.Client, want counts) ([]v1.Scaled, error) {
	apps := slices.Sorted(maps.Keys(want))
	if len(apps) > 1 {
		for _, app := range apps {
			for _, service := range slices.Sorted(maps.Keys(want[app])) {
				if _, err := cl.Service(ctx, cluster.ServiceID{App: app, Name: service}); err != nil {
					return nil, err
				}
			}
		}
	}
	all := []v1.Scaled{}
	for _, app := range apps {
		out, err := cl.Scale(ctx, app, v1.ScaleRequest{Services: want[app]})
		if err != nil {
			return nil, err
		}
		all = append(all, out...)
	}
	return all, nil
}

func (a *app) restartCommand() *cobra.Command {
	var w waitFlags
	c := &cobra.Command{
		Use: "restart [APP | SERVICE...]", Short: "Replace the tasks of services, one after the other",
		Example:           "  fairlead restart shop\n  fairlead restart web   # of the app here",
		Args:              rangeArgs(0, -1, ""),
		ValidArgsFunction: a.completeTargets(-1),
		RunE: a.changing(&w, func(args []string) (change, error) {
			return func(ctx context.Context, cl *client.Client) (v1.DeployResult, error) {
				name, services, err := a.appServices(ctx, cl, args)
				if err != nil {
					return v1.DeployResult{}, err
				}
				if len(services) == 0 {
					a.sayTook()
				}
				return cl.Restart(ctx, name, v1.RestartRequest{Services: services})
			}, nil
		}),
	}
	w.register(c)
	return c
}

// appServices reads "APP", "APP/SERVICE…" or, in an app's directory, "SERVICE…" or nothing.
func (a *app) appServices(ctx context.Context, cl *client.Client, args []string) (cluster.AppName, []cluster.ServiceName, error) {
	if len(args) == 0 {
		name, err := a.appArg(nil)
		return name, nil, err
	}
	var name cluster.AppName
	var services []cluster.ServiceName
	for _, arg := range args {
		addr, err := a.address(arg)
		if len(args) == 1 {
			addr, err = a.appOrAddress(ctx, cl, args)
		}
		switch {
		case err != nil:
			return "", nil, err
		case name != "" && name != addr.App:
			return "", nil, usagef("%s and %s are different apps: one at a time", name, addr.App)
		case addr.Slot != 0:
			return "", nil, usagef("%s: name a service, not one of its tasks", arg)
		}
		if name = addr.App; addr.Service != "" {
			services = append(services, addr.Service)
		}
	}
	return name, services, nil
}

var imageRef = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._/:@+-]*$`)

func validImage(ref string) bool { return len(ref) <= 512 && imageRef.MatchString(ref) }

func (a *app) updateCommand() *cobra.Command {
	var w waitFlags
	var images []string
	var note string
	c := &cobra.Command{
		Use: "update [APP] --image SERVICE=REF", Short: "Change the images of services",
		Example:           "  fairlead update shop --image web=registry.example.com/shop/web:1.5",
		Args:              rangeArgs(0, 1, "the app"),
		ValidArgsFunction: a.completeApps(),
		RunE: a.changing(&w, func(args []string) (change, error) {
			name, err := a.appArg(args)
			if err != nil {
				return nil, err
			}
			req := v1.UpdateRequest{Note: note}
			if req.Images, err = a.newImages(name, images); err != nil {
				return nil, err
			}
			return func(ctx context.Context, cl *client.Client) (v1.DeployResult, error) {
				a.sayTook()
				return cl.Update(ctx, name, req)
			}, nil
		}),
	}
	w.register(c)
	c.Flags().StringArrayVar(&images, "image", nil, "SERVICE=REF; repeat for several services")
	_ = c.RegisterFlagCompletionFunc("image", a.completeImages)
	c.Flags().StringVar(&note, "note", "", "what history shows beside this release")
	return c
}

// newImages reads SERVICE=REF of each --image.
func (a *app) newImages(name cluster.AppName, flags []string) (map[cluster.ServiceName]v1.ImageRef, error) {
	if len(flags) == 0 {
		return nil, usagef("nothing to update: give --image SERVICE=REF")
	}
	out := map[cluster.ServiceName]v1.ImageRef{}
	for _, i := range flags {
		service, ref, ok := strings.Cut(i, "=")
		if !ok || service == "" || ref == "" {
			return nil, usagef("--image %q: write SERVICE=REF, such as web=registry.example.com/shop/web:1.5", i)
		}
		if !validImage(ref) {
			return nil, usagef("--image %q: %q is no image reference (registry/name:tag)", i, ref)
		}
		at, err := cluster.ParseAddress(service, name)
		switch {
		case err != nil:
			return nil, usagef("--image %q: %w", i, err)
		case at.App != name || at.Slot != 0:
			return nil, usagef("--image %q: name a service of %s", i, name)
		}
		if _, twice := out[at.Service]; twice {
			return nil, usagef("--image %q: %s is given twice", i, at.Service)
		}
		out[at.Service] = v1.ImageRef{Ref: ref}
	}
	return out, nil
}

func (a *app) rollbackCommand() *cobra.Command {
	var w waitFlags
	var helm helmFlags
	var noHooks, recreate bool
	var most int
	c := &cobra.Command{
		Use: "rollback [APP] [RELEASE]", Short: "Go back to an earlier release",
		Long: `Makes a new release equal to an earlier one: the newest one that did not fail
and that differs from the current one, unless a number is given.`,
		Example:           "  fairlead rollback shop\n  fairlead rollback 3   # the app here",
		Args:              rangeArgs(0, 2, "the app"),
		ValidArgsFunction: a.completeApps(),
		RunE: a.changing(&w, func(args []string) (change, error) {
			if err := helm.check("`fairlead history APP` lists the releases, and `fairlead get manifest APP --release N`, of a package's, says what one was"); err != nil {
				return nil, err
			}
			if recreate {
				return nil, usagef("--recreate-pods: a rollback starts anew what differs; `fairlead restart APP` starts all tasks of an app anew")
			}
			if most != 0 {
				a.note(historyKept)
			}
			w.detach = w.detach || !helm.waits
			release := 0
			if n := len(args); n > 0 {
				if v, err := strconv.Atoi(args[n-1]); err == nil {
					if v < 1 {
						return nil, usagef("%d: releases count from 1", v)
					}
					release, args = v, args[:n-1]
				} else if n == 2 {
					return nil, usagef("%q is not a release's number", args[1])
				}
			}
			name, err := a.appArg(args)
			return func(ctx context.Context, cl *client.Client) (v1.DeployResult, error) {
				a.sayTook()
				return cl.RollbackWith(ctx, name, v1.RollbackRequest{Release: release, NoHooks: noHooks, Timeout: cluster.Duration(w.timeout)})
			}, err
		}),
	}
	f := c.Flags()
	f.BoolVar(&noHooks, "no-hooks", false, "run none of the package's hooks")
	w.register(c)
	helm.register(c, "cleanup-on-fail", "wait-for-jobs", "debug", "force")
	f.BoolVar(&recreate, "recreate-pods", false, "Helm's; refused")
	f.IntVar(&most, "history-max", 0, "Helm's; the last 50 are kept")
	hide(f, "recreate-pods", "history-max")
	return c
}

// tried says of a release that a delivery made several times how often, and since when.
func tried(r v1.ReleaseSummary, now time.Time) string {
	if r.Tries < 2 {
		return ""
	}
	return fmt.Sprintf(", tried %d times in %s", r.Tries, age(now, r.First))
}

func (a *app) historyCommand() *cobra.Command {
	var release, most int
	c := &cobra.Command{
		Use: "history [APP]", Short: "List an app's releases, or show one",
		Example:           "  fairlead history shop\n  fairlead history --release 3   # of the app here",
		Args:              rangeArgs(0, 1, "the app"),
		ValidArgsFunction: a.completeApps(),
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			if cmd.Flags().Changed("release") && release < 1 {
				return usagef("--release %d: releases count from 1", release)
			}
			if most < 0 {
				return usagef("--max %d: how many, or 0 for all", most)
			}
			name, err := a.appArg(args)
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("release") {
				d, err := cl.Release(cmd.Context(), name, release)
				if err != nil {
					return err
				}
				return a.whole(d, formatYAML)
			}
			list, err := cl.History(cmd.Context(), name)
			if err != nil {
				return err
			}
			if most > 0 { // the newest is the first
				list = list[:min(most, len(list))]
			}
			return a.print(list, func() *table {
				t := &table{columns: columns("RELEASE", "STATE", "AGE", "BY", "SERVICES", "+PACKAGE", "NOTE", "MESSAGE"), empty: "no releases"}
				for _, r := range list {
					n := fmt.Sprint(r.Number)
					if r.Current {
						n += " *"
					}
					t.add(n, r.State, age(a.now(), r.Created), r.By, fmt.Sprint(r.Services), r.Chart, r.Note+tried(r, a.now()), r.Message)
				}
				return t
			})
		}),
	}
	c.Flags().IntVar(&release, "release", 0, "show this release whole")
	c.Flags().IntVar(&most, "max", 0, "list the newest `N` alone; default: all that are kept")
	meansNothing(c.Flags(), "debug")
	return c
}
