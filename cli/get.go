package cli

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/compose"
)

// part is something that a release of a package was made of, or made.
type part struct {
	name, short string
	of          func(v1.PackageDetail) string
	// print prints it alone for programs.
	print func(*app, v1.PackageDetail) error
}

func parts() []part {
	values := func(p v1.PackageDetail) string { return p.Values }
	manifest := func(p v1.PackageDetail) string { return p.Manifest }
	return []part{
		{"values", "Show the values that were given", values, func(a *app, p v1.PackageDetail) error { return a.printDocument(orEmpty(p.Values)) }},
		{"manifest", "Show the Compose document that the package made", manifest, func(a *app, p v1.PackageDetail) error { return a.printDocument(p.Manifest) }},
		{"notes", "Show what the package has to say", func(p v1.PackageDetail) string { return printable(p.Notes) }, func(a *app, p v1.PackageDetail) error { return a.print(p.Notes, nil) }},
		{"all", "Show values, document and notes", allOf, func(a *app, p v1.PackageDetail) error { return a.print(p, nil) }},
	}
}

func (a *app) getCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "get", Short: "Show what an app was installed with",
		Long: `Shows the values, the Compose document or the notes of a release of a package; with
-o json or -o yaml that alone, a file for -f, and with "get all" everything in one.`,
		Example: "  fairlead get values shop\n  fairlead get values shop -o yaml >values.yaml\n  fairlead get manifest shop --release 3",
	}
	for _, part := range parts() {
		var release int
		var merged bool
		sub := &cobra.Command{
			Use: part.name + " NAME", Short: part.short, Args: oneArg("the app"), ValidArgsFunction: a.completeApps(), Example: "  fairlead get " + part.name + " shop",
			RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
				if cmd.Flags().Changed("release") && release < 1 {
					return usagef("--release %d: releases count from 1", release)
				}
				p, err := cl.Package(cmd.Context(), cluster.AppName(args[0]), release)
				if err != nil {
					return err
				}
				if merged {
					return notMerged(p)
				}
				return a.printPart(p, part)
			}),
		}
		sub.Flags().IntVar(&release, "release", 0, "of this release; default: the current one")
		sub.Flags().IntVar(&release, "revision", 0, "the same as --release, as Helm has it")
		if part.name == "values" {
			sub.Flags().BoolVarP(&merged, "all", "a", false, "Helm's; refused: the package's own values are not kept")
			hide(sub.Flags(), "all")
		}
		hide(sub.Flags(), "revision")
		c.AddCommand(sub)
	}
	return c
}

// notMerged says where the values are that a package has itself: a release keeps those alone
// that were given.
func notMerged(p v1.PackageDetail) error {
	from := p.From
	if from == "" {
		from = "CHART"
	}
	return usagef("--all: a release keeps the values that were given, not those that its package has itself: `fairlead chart show values %s` prints these (the release is of version %s), and `fairlead get values %s` what was given above them", from, p.Version, p.App)
}

func (a *app) printPart(p v1.PackageDetail, part part) (err error) {
	if p.Manifest, err = compose.Written(p.Manifest); err != nil {
		return failedf("%s: %w", p.App, err)
	}
	if p.Values, err = chart.PlainValues(p.Values); err != nil {
		return failedf("%s: %w", p.App, err)
	}
	text := part.of(p)
	if text == "" && a.human() {
		a.note("no %s", part.name)
	}
	if len(p.Edits) > 0 && part.name != "notes" && (a.human() || part.name != "all") { // all has them itself
		a.note("changed by hand since, which this does not show: %s", oneLine(strings.Join(p.Edits, "; ")))
	}
	if !a.human() {
		return part.print(a, p)
	}
	_, err = fmt.Fprint(a.out, terminated(text))
	return err
}

// printDocument prints YAML as it is, or as JSON.
func (a *app) printDocument(text string) error {
	if a.output == formatYAML {
		_, err := fmt.Fprint(a.out, terminated(text))
		return err
	}
	b, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		return failedf("it cannot be read: %w", err)
	}
	return a.print(json.RawMessage(b), nil)
}

func orEmpty(values string) string {
	if values == "" {
		return "{}"
	}
	return values
}

// allOf are the parts below each other, named as Helm names them.
func allOf(p v1.PackageDetail) string {
	var out strings.Builder
	_, _ = fmt.Fprintf(&out, "PACKAGE: %s %s\nRELEASE: %d\n", p.Chart, p.Version, p.Release)
	for _, part := range [][2]string{{"VALUES", p.Values}, {"MANIFEST", p.Manifest}, {"NOTES", printable(p.Notes)}} {
		if text := strings.TrimRight(part[1], "\n"); text != "" {
			_, _ = fmt.Fprintf(&out, "%s:\n%s\n", part[0], text)
		}
	}
	return out.String()
}
