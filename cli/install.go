package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/compose"
)

// installFlags are those of install and upgrade.
type installFlags struct {
	values    valueFlags
	from      fetchFlags
	wait      waitFlags
	atomic    bool
	waits     bool
	noHooks   bool
	allNotes  bool
	note      string
	dryRun    string
	reuse     bool
	reset     bool
	install   bool // upgrade: of what is not there
	skipCheck bool
	skipCRDs  bool
}

func (i *installFlags) register(c *cobra.Command) {
	i.values.register(c)
	i.from.register(c)
	i.from.registerDependencies(c)
	i.wait.register(c)
	f := c.Flags()
	f.BoolVar(&i.atomic, "atomic", false, "undo all of it when a service does not become healthy in time, or a hook fails; the server does, whatever becomes of this command")
	f.BoolVar(&i.atomic, "rollback-on-failure", false, "the same as --atomic, as Helm 4 has it")
	f.BoolVar(&i.waits, "wait", true, "wait until it is healthy, which is what happens without it too; --wait=false is --detach")
	f.BoolVar(&i.noHooks, "no-hooks", false, "run none of the package's hooks")
	f.BoolVar(&i.skipCRDs, "skip-crds", false, skipCRDsUsage)
	f.BoolVar(&i.skipCheck, "skip-schema-validation", false, skipSchemaUsage)
	f.StringVar(&i.note, "note", "", "what history shows beside this release")
	f.StringVar(&i.note, "description", "", "the same as --note, as Helm has it")
	f.StringVar(&i.dryRun, "dry-run", "none", "show what would change, and change nothing; `how` is client or server, and both mean that")
	f.Lookup("dry-run").NoOptDefVal = "client"
	f.StringP("namespace", "n", "", "Helm's; an app has none: its name is its address")
	f.Int("history-max", 0, "Helm's; the last 50 are kept")
	f.BoolVar(&i.allNotes, "render-subchart-notes", false, partsNotesUsage)
	meansNothing(f, "create-namespace", "wait-for-jobs", "cleanup-on-fail", "debug", "disable-openapi-validation")
	hide(f, "description", "namespace", "rollback-on-failure", "history-max")
}

// check refuses what cannot be meant, before anything is fetched.
func (i *installFlags) check(c *cobra.Command, name string) error {
	if f := c.Flags().Lookup("namespace"); f.Changed {
		return usagef("-n %s: an app has no namespace, its name is its address; for another one, name it so: %s", f.Value, cluster.AppName(f.Value.String()+"-"+name))
	}
	switch i.dryRun {
	case "none", "client", "server":
	case "true": // as Helm 3 has them
		i.dryRun = "client"
	case "false":
		i.dryRun = "none"
	default:
		return usagef("--dry-run=%s: write client, server or none", i.dryRun)
	}
	i.wait.detach = i.wait.detach || !i.waits
	if i.atomic && i.wait.detach {
		return usagef("--atomic waits, and --detach, or --wait=false, does not: give one of them")
	}
	if i.reuse && i.reset {
		return usagef("--reuse-values and --reset-values exclude each other")
	}
	if err := cluster.ValidAppName(cluster.AppName(name)); err != nil {
		return err
	}
	return i.wait.check()
}

func (a *app) installCommand() *cobra.Command {
	var i installFlags
	c := &cobra.Command{
		Use: "install NAME CHART", Short: "Make an app of a package, and wait until it is healthy", Args: rangeArgs(2, 2, "a name and a package"), ValidArgsFunction: completeFiles,
		Long: `Renders the package on this machine, and makes the app NAME of what it says, as
deploy does with a Compose file. CHART is a directory, an archive, REPOSITORY/NAME,
a URL, oci://REGISTRY/PATH, or a directory in Git:
git+https://HOST/REPOSITORY//DIRECTORY?ref=BRANCH.

Values are kept with the release as they were given: a password does not belong
there. A package lets it be made up, and kept sealed (x-fairlead: {generate: 32}).`,
		Example: "  fairlead install shop ./shop --set host=shop.example.com\n  fairlead install shop oci://registry.example.com/charts/shop --version ^1.2 -f prod.yaml\n  fairlead install shop 'git+https://git.example.com/shop.git//charts/shop?ref=v1.2.0'",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.install(cmd, args, &i)
		},
	}
	i.register(c)
	return c
}

func (a *app) upgradeCommand() *cobra.Command {
	var i installFlags
	c := &cobra.Command{
		Use: "upgrade NAME CHART", Short: "Make an app what a package says now, and wait until it is healthy", Args: rangeArgs(2, 2, "an app and a package"),
		ValidArgsFunction: a.completeAppThenFiles(),
		Long: `Renders the package with the values given, and makes the app what it says: what
left the package is removed, volumes and secrets stay. What will change is shown
first; --dry-run, or fairlead plan NAME CHART, shows that alone. Where no value is given, those
of the release before are taken again; --reuse-values takes them below those given.

A service that does not become healthy goes back by itself; --atomic takes the whole
app back then.`,
		Example: "  fairlead upgrade shop ./shop --set replicas=3 --reuse-values\n  fairlead upgrade shop stable/shop --version 1.3.0 --install --atomic",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.upgrade(cmd, args, &i)
		},
	}
	i.register(c)
	f := c.Flags()
	f.BoolVarP(&i.install, "install", "i", false, "install it where the app is not there")
	f.BoolVar(&i.reuse, "reuse-values", false, "take the values of the release before, below those given")
	f.BoolVar(&i.reuse, "reset-then-reuse-values", false, "the same as --reuse-values: what was given is kept, without the package's own")
	f.BoolVar(&i.reset, "reset-values", false, "begin from the package's own values, also where none is given")
	hide(f, "reset-then-reuse-values")
	return c
}

const (
	historyKept     = "--history-max: the last 50 releases are kept, whatever it says"
	skipCRDsUsage   = "pass over what crds/ of the package has for Kubernetes; without it that is refused"
	skipSchemaUsage = "do not check the values against the package's schema"
)

// registerPlan registers what plan takes for a package: its -f is that of Compose files, and
// they are values in the order in which both were written.
func (i *installFlags) registerPlan(c *cobra.Command) {
	i.values.registerLong(c)
	i.from.register(c)
	i.from.registerDependencies(c)
	f := c.Flags()
	f.BoolVar(&i.noHooks, "no-hooks", false, "run none of the package's hooks")
	f.BoolVar(&i.allNotes, "render-subchart-notes", false, partsNotesUsage)
	f.BoolVar(&i.skipCRDs, "skip-crds", false, skipCRDsUsage)
	f.BoolVar(&i.skipCheck, "skip-schema-validation", false, skipSchemaUsage)
	f.BoolVar(&i.reuse, "reuse-values", false, "take the values of the release before, below those given")
	f.BoolVar(&i.reset, "reset-values", false, "begin from the package's own values, also where none is given")
}

// planPackage shows what an upgrade, or an installation, would change.
func (a *app) planPackage(ctx context.Context, args []string, i *installFlags, exitCode bool) error {
	name := cluster.AppName(args[0])
	if err := cluster.ValidAppName(name); err != nil {
		return err
	}
	if i.reuse && i.reset {
		return usagef("--reuse-values and --reset-values exclude each other")
	}
	cl, err := a.client()
	if err != nil {
		return err
	}
	now, err := appNow(ctx, cl, name)
	if err != nil {
		return err
	}
	p, err := a.fromPackage(ctx, cl, name, args[1], i, now)
	if err != nil {
		return err
	}
	plan, err := cl.Plan(ctx, name, p.bundle)
	if err != nil {
		return err
	}
	return a.planned(plan, p.project, exitCode)
}

// appNow is an app as it is; nil: it is not there.
func appNow(ctx context.Context, cl *client.Client, name cluster.AppName) (*v1.AppDetail, error) {
	d, err := cl.App(ctx, name)
	if cluster.KindOf(err) == cluster.KindNotFound {
		return nil, nil
	}
	return &d, err
}

// before checks what was asked for, and finds the app as it is.
func (a *app) before(cmd *cobra.Command, args []string, i *installFlags) (*client.Client, *v1.AppDetail, error) {
	if err := i.check(cmd, args[0]); err != nil {
		return nil, nil, err
	}
	cl, err := a.client()
	if err != nil {
		return nil, nil, err
	}
	if cmd.Flags().Changed("history-max") {
		a.note(historyKept)
	}
	now, err := appNow(cmd.Context(), cl, cluster.AppName(args[0]))
	return cl, now, err
}

func (a *app) install(cmd *cobra.Command, args []string, i *installFlags) error {
	name := cluster.AppName(args[0])
	cl, now, err := a.before(cmd, args, i)
	switch {
	case err != nil:
		return err
	case now != nil && now.State == "uninstalled":
		return usagef("%s was uninstalled, and its history kept: `fairlead rollback %s` brings it back, `fairlead upgrade %s %s --install` installs over it, `fairlead uninstall %s` forgets it", name, name, name, args[1], name)
	case now != nil && now.Release == 0 && now.State == "failed": // its hooks kept it from being installed
	case now != nil:
		return usagef("the app %s is there already: `fairlead upgrade %s %s` changes it", name, name, args[1])
	}
	return a.apply(cmd.Context(), cl, name, args[1], i, now)
}

func (a *app) upgrade(cmd *cobra.Command, args []string, i *installFlags) error {
	name := cluster.AppName(args[0])
	cl, now, err := a.before(cmd, args, i)
	if err != nil {
		return err
	}
	switch {
	case i.install:
	case now == nil:
		return cluster.NotFoundf("there is no app %s; --install makes it", name)
	case now.State == "uninstalled":
		return usagef("%s was uninstalled, and its history kept: --install installs over it, `fairlead rollback %s` brings it back", name, name)
	case now.Release == 0 && now.State == "failed":
		return usagef("%s was never installed: --install tries again", name)
	}
	return a.apply(cmd.Context(), cl, name, args[1], i, now)
}

// apply renders a package and makes an app what it says; now is the app before.
func (a *app) apply(ctx context.Context, cl *client.Client, name cluster.AppName, ref string, i *installFlags, now *v1.AppDetail) error {
	p, err := a.fromPackage(ctx, cl, name, ref, i, now)
	if err != nil {
		return err
	}
	dry := i.dryRun != "none"
	if dry || (now != nil && a.human()) {
		plan, err := cl.Plan(ctx, name, p.bundle)
		if err != nil {
			return err
		}
		if dry {
			return a.printPlan(plan, p.project)
		}
		if !plan.Empty() {
			writePlan(a.errw, plan, p.project) // its warnings come with what deploy answers
		}
	}
	res, err := cl.Deploy(ctx, name, p.bundle)
	if err != nil {
		return err
	}
	w := i.wait
	if i.atomic {
		w.timeout *= 2 // there, and back
	}
	err = a.finish(ctx, cl, res, &w)
	if err != nil && i.atomic && res.Changed {
		a.undone(ctx, cl, name)
	}
	if err == nil && a.human() && p.bundle.Package.Notes != "" {
		_, err = fmt.Fprintln(a.out, strings.TrimRight(printable(p.bundle.Package.Notes), "\n"))
	}
	return err
}

// undone says what the server did about a failed change that was to leave nothing.
func (a *app) undone(ctx context.Context, cl *client.Client, name cluster.AppName) {
	d, err := cl.App(context.WithoutCancel(ctx), name)
	switch {
	case cluster.KindOf(err) == cluster.KindNotFound, err == nil && d.State == "uninstalled":
		a.note("%s is removed again", name)
	case err == nil && d.Change != nil && d.Change.Undoes > 0 && !d.Change.Failed:
		to := strings.TrimPrefix(d.Note, "rollback to ")
		a.note("%s goes back to release %s", name, to)
	}
}

// packaged is a package as it would be deployed.
type packaged struct {
	project *compose.Result
	bundle  v1.Bundle
}

// fromPackage renders a package for this cluster.
func (a *app) fromPackage(ctx context.Context, cl *client.Client, name cluster.AppName, ref string, i *installFlags, now *v1.AppDetail) (packaged, error) {
	info, err := cl.Server(ctx)
	if err != nil {
		return packaged{}, err
	}
	req := chart.Request{Release: chart.Release{Name: string(name), Revision: 1}, SkipSchema: i.skipCheck, SkipCRDs: i.skipCRDs}
	var before []chart.File
	if now != nil {
		req.Release.Revision, req.Release.Upgrade = now.Next, now.State != "uninstalled" && now.Release > 0
		if now.State != "uninstalled" || i.reuse { // else it is installed as if it were new
			if before, err = a.valuesBefore(ctx, cl, name, i); err != nil {
				return packaged{}, err
			}
		}
	}
	got, at, err := a.render(ctx, ref, i.from, &i.values, req, before...)
	if err != nil {
		return packaged{}, err
	}
	project, err := got.Compose(ctx, name, compose.Options{Domain: info.Domain, SingleNode: info.Nodes <= 1, HTTPPort: info.Web, HTTPSPort: info.WebSecure})
	if err != nil {
		return packaged{}, problems(err, name, ref)
	}
	for _, w := range project.Warnings {
		a.note("warning: %s", w)
	}
	a.warnOfPasswords(got.Values, ofRelease(), project.Secrets)
	b := bundle(project)
	b.Note, b.Hooks, b.NoHooks, b.Atomic, b.Timeout = i.note, project.Hooks, i.noHooks, i.atomic, cluster.Duration(i.wait.timeout)
	b.Expect = new(int) // what was rendered is of the release before it
	if now != nil {
		*b.Expect = now.Release
	}
	b.Package = &v1.Package{Chart: got.Chart.Name, Version: got.Chart.Version, AppVersion: got.Chart.AppVersion, From: at, Values: given(got.Values), Notes: notesOf(got, i.allNotes)}
	return packaged{project, b}, nil
}

// given are the values that the user gave; none is nothing, not an empty mapping.
func given(values string) string {
	if strings.TrimSpace(values) == "{}" {
		return ""
	}
	return values
}

// valuesBefore are the values of the release before, where they are to be taken again:
// when it was asked for, and when no value is given. Those of a release that failed are not
// tried again: the newest that worked has them.
func (a *app) valuesBefore(ctx context.Context, cl *client.Client, name cluster.AppName, i *installFlags) ([]chart.File, error) {
	none := len(i.values.files) == 0 && i.values.given.Empty()
	if i.reset || (!i.reuse && !none) {
		return nil, nil
	}
	history, err := cl.History(ctx, name)
	if err != nil {
		return nil, err
	}
	failed, n := lastWorking(history)
	p, err := cl.Package(ctx, name, n)
	if cluster.KindOf(err) == cluster.KindNotFound {
		return nil, nil // it comes from a Compose file
	}
	if err != nil {
		return nil, err
	}
	if failed != 0 {
		a.note("release %d failed: the values of release %d are taken", failed, n)
	}
	return []chart.File{{Name: fmt.Sprintf("the values of release %d", p.Release), Data: []byte(p.Values)}}, nil
}

// lastWorking is the newest package that worked, where the current release has failed; 0
// where that has not, or none worked.
func lastWorking(history []v1.ReleaseSummary) (failed, worked int) {
	for _, r := range history {
		switch {
		case r.Current && r.State == string(cluster.RolloutFailed):
			failed = r.Number
		case r.State == string(cluster.RolloutComplete) && r.Chart != "":
			worked = max(worked, r.Number)
		}
	}
	if failed == 0 || worked == 0 {
		return 0, 0
	}
	return failed, worked
}

// problems says where the lines of refused documents are to be seen.
func problems(err error, name cluster.AppName, ref string) error {
	if _, ok := errors.AsType[*compose.Problems](err); ok {
		return usagef("%w\nlines are those of what the templates made: `fairlead chart template %s %s` shows it", err, name, ref)
	}
	return err
}

// completeAppThenFiles offers apps, then leaves it to the shell.
func (a *app) completeAppThenFiles() completion {
	apps := a.completeApps()
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return apps(cmd, args, typed)
		}
		return completeFiles(cmd, args, typed)
	}
}
