package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/compose"
)

func (a *app) deployCommand() *cobra.Command {
	var src sourceFlags
	var noBuild, noCache, pull bool
	var w waitFlags
	var expect int
	var note string
	c := &cobra.Command{
		Use: "deploy [APP]", Aliases: []string{"up"}, Short: "Make an app what its Compose file says, and wait until it is healthy",
		Long: `Reads the Compose file, builds what it says how to build, and changes the app
into what the file describes: services are made, updated one after the other,
and removed when they left the file. Volumes and secrets are never removed.

It waits until every service is healthy. When an update fails its health check,
the service goes back to the version before by itself, and this command ends
with exit code 1, the reason and the failed task's last log lines. It does not
wait for services that wait (depends_on) for one that has failed.`,
		Example: "  fairlead deploy\n  fairlead deploy -f compose.yaml -f compose.prod.yaml\n  TAG=1.5 fairlead deploy shop",
		Args:    rangeArgs(0, 1, ""), ValidArgsFunction: a.completeApps(),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if err := w.check(); err != nil {
				return err
			}
			if noBuild && (noCache || pull) {
				return usagef("--no-cache and --pull say how to build, which --no-build leaves out")
			}
			cl, r, err := a.prepare(ctx, src, args)
			if err != nil {
				return err
			}
			meant := func() v1.Bundle {
				b := bundle(r)
				if b.Note = note; cmd.Flags().Changed("expect") {
					b.Expect = &expect
				}
				return b
			}
			switch {
			case noBuild:
				err = keepImages(ctx, cl, r)
			case len(r.Builds) > 0:
				// What would be refused is refused before minutes go into building it.
				if err = checkBuilds(r); err == nil {
					_, err = cl.Plan(ctx, r.App, meant())
				}
				if err == nil {
					err = a.build(ctx, cl, r, noCache, pull)
				}
			}
			if err != nil {
				return err
			}
			res, err := cl.Deploy(ctx, r.App, meant())
			if err != nil {
				return err
			}
			return a.finish(ctx, cl, res, &w)
		},
	}
	src.register(c)
	w.register(c)
	f := c.Flags()
	f.IntVar(&expect, "expect", 0, "refuse unless this `release` is the current one (0: the app must be new)")
	f.BoolVar(&noBuild, "no-build", false, "keep the images that were built before")
	f.BoolVar(&noCache, "no-cache", false, "build without the builder's cache")
	f.BoolVar(&pull, "pull", false, "ask the registry for newer base images when building")
	f.StringVar(&note, "note", "", "what history shows beside this release")
	return c
}

// prepare connects and reads the Compose files.
func (a *app) prepare(ctx context.Context, src sourceFlags, args []string) (*client.Client, *compose.Result, error) {
	cl, err := a.client()
	if err != nil {
		return nil, nil, err
	}
	info, away := cl.Server(ctx)
	r, err := a.load(ctx, src, args, info) // what is wrong with the files is said without a server too
	if err == nil {
		err = away
	}
	return cl, r, err
}

// keepImages takes, for services that run what is built, the images of the last build.
func keepImages(ctx context.Context, cl *client.Client, r *compose.Result) error {
	for _, b := range r.Builds {
		now, err := cl.Service(ctx, cluster.ServiceID{App: r.App, Name: b.Service})
		if cluster.KindOf(err) == cluster.KindNotFound {
			continue
		}
		if err != nil {
			return err
		}
		for _, name := range runs(r, b) {
			spec := r.Services[name]
			spec.Task.Image, spec.Task.ImageID = now.Spec.Task.Image, now.Spec.Task.ImageID
			r.Services[name] = spec
		}
	}
	return nil
}

// finish says what a change did and waits until it is done.
func (a *app) finish(ctx context.Context, cl *client.Client, res v1.DeployResult, w *waitFlags) error {
	if a.human() {
		switch {
		case res.Changed:
			a.note("%s: release %d", res.App, res.Release)
		case res.NotMade > 0:
			a.note("release %d is not made; %s stays at release %d, as it is (`fairlead rollback %s RELEASE` goes to any)", res.NotMade, res.App, res.Release, res.App)
		default:
			a.note("%s is as asked: release %d, nothing to change", res.App, res.Release)
		}
		for _, w := range res.Plan.Warnings {
			a.note("warning: %s", w)
		}
		for _, w := range res.Plan.Waits {
			a.note("warning: %s", w)
		}
	}
	if w.detach {
		if !a.human() {
			return a.print(res, nil)
		}
		return nil
	}
	return a.wait(ctx, cl, res.App, res.Release, w.timeout*time.Duration(1+len(res.Plan.Hooks))) // each hook has as long
}

// wait shows progress until the release is healthy, has failed, or time is up.
func (a *app) wait(ctx context.Context, cl *client.Client, name cluster.AppName, release int, timeout time.Duration) error {
	wctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	show := newProgress(a)
	var last v1.Progress
	var troubled []v1.ServiceProgress
	quiet := silence{a: a}
	broken := func(err error) {
		show.end()
		quiet.outlasts(err)
	}
	err := cl.Watch(wctx, name, release, broken, func(p v1.Progress) error {
		quiet.heard()
		if p.Failed && len(p.Services) == 0 && len(p.Hooks) == 0 {
			p.Hooks = last.Hooks // of an app that was removed again
		}
		if troubles(p.Services) != "" {
			troubled = p.Services
		}
		last = p
		show.update(p)
		return nil
	})
	show.end()
	switch {
	case ctx.Err() != nil:
		return &exitError{code: codeFailed, err: fmt.Errorf("stopped waiting; the change goes on: `fairlead status %s`", name)}
	case errors.Is(wctx.Err(), context.DeadlineExceeded) && quiet.why != nil:
		return quiet.late("how "+string(name)+" is", timeout, "`fairlead status "+string(name)+"`")
	case errors.Is(wctx.Err(), context.DeadlineExceeded) && !last.Done:
		return &exitError{code: codeTimeout, err: fmt.Errorf("%s is not healthy after %s; the change goes on: `fairlead status %s`, `fairlead explain %s`%s", name, timeout, name, name, troubles(last.Services))}
	case cluster.KindOf(err) == cluster.KindNotFound && len(last.Services)+len(last.Hooks) > 0:
		return failedf("%s is not there any more: it was removed while no server answered%s", name, troubles(troubled))
	case err != nil:
		return err
	}
	if !a.human() {
		if err := a.print(last, nil); err != nil {
			return err
		}
	}
	if last.Failed && len(last.Services) == 0 {
		last.Services = troubled // of services that were removed again
	}
	return verdict(name, last)
}

func (a *app) planCommand() *cobra.Command {
	var src sourceFlags
	var pkg installFlags
	var exitCode, build bool
	var ofFiles, ofPackage []string // the flags of each
	var files []string              // of -f and --values, as they were written
	c := &cobra.Command{
		Use: "plan [APP [CHART]]", Short: "Show what a deploy would change, and what becomes public",
		Long: `Reads the Compose file, asks the server what a deploy would do, and prints it.
Nothing is changed. Services that are built keep their present images in the
plan, unless --build builds them. With CHART it is what upgrade --install of that
package would do; -f, --set and the like then give values.

Lines that begin with ! name what would wait as the cluster is now, and for
what: memory that others have reserved, a node that is drained, a port in use.
An update starts a new task before it stops the old one, so it needs room for
one more, unless the file says update_config: {order: stop-first}.`,
		Example: "  fairlead plan\n  fairlead plan -f compose.yaml --exit-code   # 10 when there are changes\n  fairlead plan shop ./shop --set replicas=3",
		Args:    rangeArgs(0, 2, ""), ValidArgsFunction: a.completeAppThenFiles(),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if len(args) == 2 {
				if n := changed(cmd, ofFiles); n != "" {
					return usagef("--%s is for Compose files, not for a package", n)
				}
				var err error
				if pkg.values.files, err = valueFiles(files); err != nil {
					return err
				}
				return a.planPackage(ctx, args, &pkg, exitCode)
			}
			if n := changed(cmd, ofPackage); n != "" {
				return usagef("--%s is for a package: fairlead plan APP CHART --%s …", n, n)
			}
			cl, r, err := a.prepare(ctx, src, args)
			if err != nil {
				return err
			}
			if build {
				if err = checkBuilds(r); err == nil {
					err = a.build(ctx, cl, r, false, false)
				}
			} else {
				err = keepImages(ctx, cl, r)
			}
			if err != nil {
				return err
			}
			p, err := cl.Plan(ctx, r.App, bundle(r))
			if err != nil {
				return err
			}
			return a.planned(p, r, exitCode)
		},
	}
	src.register(c)
	c.Flags().BoolVar(&build, "build", false, "build images first, to see whether they changed")
	known := map[string]bool{"file": true} // a package's values, too
	ofFiles = newFlags(c, known)
	pkg.registerPlan(c)
	ofPackage = newFlags(c, known)
	noteValues(c, &files, "file", "values")
	c.Flags().BoolVar(&exitCode, "exit-code", false, "exit with 10 when there are changes")
	return c
}

// newFlags are the flags of c that are not known yet; they are then.
func newFlags(c *cobra.Command, known map[string]bool) (names []string) {
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if !known[f.Name] {
			known[f.Name] = true
			names = append(names, f.Name)
		}
	})
	return names
}

// changed is the first of the flags that was given, "" when none was.
func changed(c *cobra.Command, names []string) string {
	i := slices.IndexFunc(names, c.Flags().Changed)
	if i < 0 {
		return ""
	}
	return names[i]
}

// planned prints a plan, and ends with another code when it changes something.
func (a *app) planned(p v1.Plan, r *compose.Result, exitCode bool) error {
	if err := a.printPlan(p, r); err != nil {
		return err
	}
	if exitCode && !p.Empty() {
		return &exitError{code: codeChanges}
	}
	return nil
}

func (a *app) printPlan(p v1.Plan, r *compose.Result) error {
	if !a.human() {
		return a.print(p, nil)
	}
	for _, w := range p.Warnings {
		a.note("warning: %s", w)
	}
	writePlan(a.out, p, r)
	return nil
}

func writePlan(w io.Writer, p v1.Plan, r *compose.Result) {
	out := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }
	if p.Empty() {
		out("%s: nothing to change (release %d)", p.App, p.Release)
	} else {
		out("%s: release %d → %d", p.App, p.Release, p.Next)
	}
	sign := map[string]string{v1.ActionCreate: "+", v1.ActionRemove: "-", v1.ActionGenerate: "+"}
	for _, c := range p.Changes {
		s := sign[c.Action]
		if s == "" {
			s = "~"
		}
		line := fmt.Sprintf("  %s %s %s", s, c.Object, c.Name)
		if c.Action != v1.ActionCreate && c.Action != v1.ActionUpdate {
			line += " (" + c.Action + ")"
		}
		if c.Replaces {
			line += ": its tasks are replaced"
		}
		if c.Reason != "" {
			line += ": " + c.Reason
		}
		out("%s", line)
		if c.Action == v1.ActionUpdate {
			for _, f := range c.Fields {
				out("      %s: %s → %s", f.Path, orNone(f.Old), orNone(f.New))
			}
		}
	}
	for _, b := range r.Builds {
		out("  · %s is built from %s", b.Service, b.Context)
	}
	for _, e := range p.Exposed {
		suffix := ""
		if e.New {
			suffix = "  (new)"
		}
		out("  %s%s", e, suffix)
	}
	for _, e := range p.Closed {
		out("  closed: %s", e)
	}
	for _, h := range p.Hooks {
		out("  · %s hook %s runs: %s", h.Event, h.Hook, h.Image)
	}
	for _, w := range p.Waits {
		out("  ! %s", w)
	}
}

func orNone(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}
