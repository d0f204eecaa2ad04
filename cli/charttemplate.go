package cli

import (
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/cluster"
)

// templateFlags are those of chart template.
type templateFlags struct {
	values   valueFlags
	can      capabilityFlags
	from     fetchFlags
	only     []string
	upgrade  bool
	notes    bool
	allNotes bool
	noSchema bool
	noHooks  bool
	noTests  bool
	crds     bool
	dir      string
}

func (f *templateFlags) register(c *cobra.Command) {
	f.values.register(c)
	f.can.register(c)
	f.from.register(c)
	f.from.registerDependencies(c)
	s := c.Flags()
	s.StringArrayVarP(&f.only, "show-only", "s", nil, "only this `template`, as templates/app.yaml, or charts/db/templates/app.yaml of a part")
	s.BoolVar(&f.noSchema, "skip-schema-validation", false, skipSchemaUsage)
	s.BoolVar(&f.upgrade, "is-upgrade", false, "let .Release.IsUpgrade be true")
	s.BoolVar(&f.notes, "notes", false, "print the notes too, as a comment")
	s.BoolVar(&f.allNotes, "render-subchart-notes", false, partsNotesUsage)
	s.BoolVar(&f.noHooks, "no-hooks", false, "leave out the services that are hooks")
	s.BoolVar(&f.noTests, "skip-tests", false, "leave out the services that are tests")
	s.BoolVar(&f.crds, "include-crds", false, "Helm's; refused where there are some")
	s.StringVar(&f.dir, "output-dir", "", "Helm's; refused")
	hide(s, "include-crds", "output-dir")
	meansNothing(s, "debug")
}

const partsNotesUsage = "have the notes of the package's parts too, below its own"

func (a *app) chartTemplate() *cobra.Command {
	var f templateFlags
	c := &cobra.Command{
		Use: "template [NAME] CHART", Short: "Print the Compose documents that a package makes", Args: rangeArgs(1, 2, "the package"), ValidArgsFunction: completeFiles,
		Long: `Renders the package on this machine and prints what its templates make, unchecked
(` + "`fairlead chart lint`" + ` and ` + "`fairlead plan NAME CHART`" + ` check) but for things of two parts that
would become one. NAME is .Release.Name. No cluster is asked: lookup finds nothing.`,
		Example: "  fairlead chart template demo ./shop --set replicas=2\n  fairlead chart template ./shop -s templates/app.yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.template(cmd.Context(), args, &f)
		},
	}
	f.register(c)
	return c
}

func (a *app) template(ctx context.Context, args []string, f *templateFlags) error {
	release := chart.Release{Name: "release-name", Revision: 1, Upgrade: f.upgrade}
	if len(args) == 2 {
		release.Name = args[0]
		if err := cluster.ValidAppName(cluster.AppName(args[0])); err != nil {
			return err
		}
	}
	ref := args[len(args)-1]
	if f.dir != "" {
		return usagef("--output-dir %s: no files are written: `fairlead chart template %s >compose.yaml` makes one of all, -s TEMPLATE prints one alone", f.dir, ref)
	}
	got, _, err := a.render(ctx, ref, f.from, &f.values, chart.Request{Release: release, APIVersions: f.can.apis, KubeVersion: f.can.kube, SkipSchema: f.noSchema})
	if err != nil {
		return err
	}
	if f.crds && len(got.CRDs) > 0 {
		return usagef("--include-crds: %s has what Kubernetes is taught, which nothing here could take; leave it out", path.Dir(got.CRDs[0]))
	}
	if err := got.Clashes(); err != nil && len(f.only) == 0 { // deployed, it would lose things in silence
		return usagef("%w\n-s TEMPLATE prints one all the same", err)
	}
	if f.noHooks || f.noTests {
		if err := got.WithoutHooks(!f.noHooks); err != nil {
			return err
		}
	}
	if !a.human() {
		return a.print(got, nil)
	}
	text := got.Text(f.only...)
	if text == "" && len(f.only) > 0 {
		return usagef("no template %s makes anything; they are %s", strings.Join(f.only, ", "), strings.Join(got.Documents(), ", "))
	}
	if _, err = fmt.Fprint(a.out, text); err == nil && f.notes {
		_, err = fmt.Fprintf(a.out, "---\n# Notes:\n%s\n", commented(notesOf(got, f.allNotes)))
	}
	return err
}

// notesOf are a package's notes, or those of its parts too.
func notesOf(r *chart.Rendered, parts bool) string {
	if parts {
		return r.AllNotes()
	}
	return r.Notes()
}

func commented(s string) string {
	return "# " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n# ")
}
