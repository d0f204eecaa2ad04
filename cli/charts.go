package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/cluster"
)

// RenderCommand is the hidden command that renders a chart's templates for another
// process of this program.
const RenderCommand = "chart-render"

func (a *app) renderCommand() *cobra.Command {
	return &cobra.Command{
		Use: RenderCommand, Short: "Render a chart that comes by standard input", Hidden: true, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return chart.Serve(cmd.Context(), a.in, a.out, os.Exit) },
	}
}

func (a *app) renderer() (chart.Engine, error) {
	if a.templates != nil {
		return a.templates, nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil, failedf("find this program: %w", err)
	}
	return chart.Renderer{Command: []string{self, RenderCommand}}, nil
}

func (a *app) chartCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "chart", Short: "Write, check and share packages",
		Long: `A package is a chart in Helm's format whose templates make Compose documents.
Installed (fairlead install), it is an app like any other. CHART is a directory, an
archive (.tgz), REPOSITORY/NAME of a repository that ` + "`chart repo add`" + ` named, the URL of
an archive, oci://REGISTRY/PATH, or a directory in Git:
git+https://HOST/REPOSITORY//DIRECTORY?ref=BRANCH.`,
		Example: "  fairlead chart create shop\n  fairlead chart lint ./shop\n  fairlead chart template demo ./shop --set replicas=2",
	}
	c.AddCommand(a.chartCreate(), a.chartLint(), a.chartTemplate(), a.chartPackage(), a.chartShow(),
		a.chartPull(), a.chartPush(), a.chartRepo(), a.chartDependency(), a.chartTest())
	return c
}

// valueFlags are the user's values, named as Helm names them.
type valueFlags struct {
	files []string
	given chart.Values
}

func (v *valueFlags) register(c *cobra.Command) {
	c.Flags().StringSliceVarP(&v.files, "values", "f", nil, valuesUsage)
	v.registerSets(c)
}

const valuesUsage = "`file` with values, YAML; repeat for more, or write commas, the last wins (- is standard input)"

// registerLong is register where -f means something else.
func (v *valueFlags) registerLong(c *cobra.Command) {
	c.Flags().StringSliceVar(&v.files, "values", nil, valuesUsage)
	v.registerSets(c)
}

func (v *valueFlags) registerSets(c *cobra.Command) {
	f := c.Flags()
	f.StringArrayVar(&v.given.Set, "set", nil, "`value`: KEY=VALUE, a.b=1,c={x,y}")
	f.StringArrayVar(&v.given.String, "set-string", nil, "`value` that stays text: KEY=VALUE")
	f.StringArrayVar(&v.given.File, "set-file", nil, "`value` read from a file: KEY=PATH")
	f.StringArrayVar(&v.given.JSON, "set-json", nil, "`value` as JSON: KEY=JSON, or a whole object")
	f.StringArrayVar(&v.given.Literal, "set-literal", nil, "`value` taken as it stands: KEY=TEXT")
	_ = c.MarkFlagFilename("values", "yaml", "yml")
}

// read returns the values, with the files that they name.
func (v *valueFlags) read(a *app) (chart.Values, error) {
	out := v.given
	err := out.ReadValues(v.files, a.in)
	if err == nil {
		_, err = out.Merge()
		if err != nil {
			err = cluster.Invalidf("%w", err)
		}
	}
	return out, err
}

// capabilityFlags are what templates are told of where they run.
type capabilityFlags struct {
	apis []string
	kube string
}

func (k *capabilityFlags) register(c *cobra.Command) {
	c.Flags().StringSliceVarP(&k.apis, "api-versions", "a", nil, "more of what .Capabilities.APIVersions has")
	c.Flags().StringVar(&k.kube, "kube-version", "", "what .Capabilities.KubeVersion is")
}

func (a *app) chartCreate() *cobra.Command {
	return &cobra.Command{
		Use: "create NAME", Short: "Make a package that can be installed at once", Args: oneArg("the package's name"),
		Long:    "Makes the directory NAME with a package of one web service, to be changed into yours.",
		Example: "  fairlead chart create shop\n  fairlead chart create packages/shop",
		RunE: func(_ *cobra.Command, args []string) error {
			dir, err := chart.Create(filepath.Dir(args[0]), filepath.Base(args[0]))
			if err != nil {
				return err
			}
			if !a.human() {
				return a.print(map[string]string{"directory": dir}, nil)
			}
			_, err = fmt.Fprintln(a.out, dir)
			a.note("next: `fairlead chart lint %s`, `fairlead chart template demo %s`", dir, dir)
			return err
		},
	}
}

func (a *app) chartLint() *cobra.Command {
	var v valueFlags
	var strict bool
	c := &cobra.Command{
		Use: "lint CHART...", Short: "Say what is wrong with packages", Args: rangeArgs(1, -1, "the package"), ValidArgsFunction: completeFiles,
		Long: `Renders each package with its own values, and those given, and reads the result as
an installation would. Exit code 2 when it would be refused. What required asks for
may be missing, unless --strict says that all values are there.`,
		Example: "  fairlead chart lint ./shop\n  fairlead chart lint ./shop -f prod.yaml --strict\n  fairlead chart lint charts/shop charts/blog",
		RunE: func(cmd *cobra.Command, args []string) error {
			given, err := v.read(a)
			if err != nil {
				return err
			}
			return a.lint(cmd.Context(), args, given, strict)
		},
	}
	v.register(c)
	c.Flags().BoolVar(&strict, "strict", false, "values that templates require must be there")
	return c
}

// lint says what is wrong with packages; of several each finding says in which.
func (a *app) lint(ctx context.Context, refs []string, given chart.Values, strict bool) error {
	r, err := a.renderer()
	if err != nil {
		return err
	}
	packages := make([][]chart.File, len(refs))
	for i, ref := range refs {
		if packages[i], err = chart.Read(ref); err != nil {
			return err
		}
	}
	list := []chart.Finding{}
	var refused []string
	for i, ref := range refs {
		found := chart.Lint(ctx, r, chart.Request{Files: packages[i], Values: given, Release: chart.Release{Name: "release-name", Revision: 1}}, strict)
		if chart.Failed(found) {
			refused = append(refused, ref)
		}
		for _, f := range found {
			if len(refs) > 1 {
				f.Where = strings.TrimSuffix(ref+": "+f.Where, ": ")
			}
			list = append(list, f)
		}
	}
	fine := refs[0] + " is fine"
	if len(refs) > 1 {
		fine = strings.Join(refs, ", ") + " are fine"
	}
	if err := a.print(list, func() *table {
		t := &table{columns: columns("SEVERITY", "WHERE", "WHAT"), empty: fine}
		for _, f := range list {
			t.add(f.Severity, f.Where, strings.ReplaceAll(f.Message, "\n", "; "))
		}
		return t
	}); err != nil {
		return err
	}
	switch len(refused) {
	case 0:
		return nil
	case 1:
		return usagef("%s cannot be installed as it is", refused[0])
	}
	return usagef("%s cannot be installed as they are", strings.Join(refused, ", "))
}

func (a *app) chartTemplate() *cobra.Command {
	var v valueFlags
	var k capabilityFlags
	var from fetchFlags
	var only []string
	var upgrade, notes, skipCheck bool
	c := &cobra.Command{
		Use: "template [NAME] CHART", Short: "Print the Compose documents that a package makes", Args: rangeArgs(1, 2, "the package"), ValidArgsFunction: completeFiles,
		Long: `Renders the package on this machine and prints what its templates make, unchecked
(` + "`fairlead chart lint`" + ` and ` + "`fairlead plan NAME CHART`" + ` check) but for things of two parts that
would become one. NAME is .Release.Name. No cluster is asked: lookup finds nothing.`,
		Example: "  fairlead chart template demo ./shop --set replicas=2\n  fairlead chart template ./shop -s templates/app.yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			release := chart.Release{Name: "release-name", Revision: 1, Upgrade: upgrade}
			if len(args) == 2 {
				release.Name = args[0]
				if err := cluster.ValidAppName(cluster.AppName(args[0])); err != nil {
					return err
				}
			}
			got, _, err := a.render(cmd.Context(), args[len(args)-1], from, &v, chart.Request{Release: release, APIVersions: k.apis, KubeVersion: k.kube, SkipSchema: skipCheck})
			if err != nil {
				return err
			}
			if err := got.Clashes(); err != nil && len(only) == 0 { // deployed, it would lose things in silence
				return usagef("%w\n-s TEMPLATE prints one all the same", err)
			}
			if !a.human() {
				return a.print(got, nil)
			}
			text := got.Text(only...)
			if text == "" && len(only) > 0 {
				return usagef("no template %s makes anything; they are %s", strings.Join(only, ", "), strings.Join(got.Documents(), ", "))
			}
			if _, err = fmt.Fprint(a.out, text); err == nil && notes {
				_, err = fmt.Fprintf(a.out, "---\n# Notes:\n%s\n", commented(got.Notes()))
			}
			return err
		},
	}
	v.register(c)
	k.register(c)
	from.register(c)
	from.registerDependencies(c)
	f := c.Flags()
	f.StringArrayVarP(&only, "show-only", "s", nil, "only this `template`, as templates/app.yaml")
	f.BoolVar(&skipCheck, "skip-schema-validation", false, skipSchemaUsage)
	f.BoolVar(&upgrade, "is-upgrade", false, "let .Release.IsUpgrade be true")
	f.BoolVar(&notes, "notes", false, "print the notes too, as a comment")
	return c
}

func commented(s string) string {
	return "# " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n# ")
}

// render fetches a package and renders it with the values given, above those before.
// It says what the templates warned of. At is where the package is, as fetch says it.
func (a *app) render(ctx context.Context, ref string, from fetchFlags, v *valueFlags, req chart.Request, before ...chart.File) (got *chart.Rendered, at string, _ error) {
	r, err := a.renderer()
	if err != nil {
		return nil, "", err
	}
	given, err := v.read(a)
	if err != nil {
		return nil, "", err
	}
	req.Values = given.Beside(before...)
	if req.Files, at, err = a.fetch(ctx, ref, from); err != nil {
		return nil, "", err
	}
	if got, err = r.Render(ctx, req); err != nil {
		return nil, "", shortened(ref, err)
	}
	for _, w := range got.Warnings {
		a.note("warning: %s", printable(w))
	}
	if got.Chart.Deprecated {
		a.note("warning: the package %s is deprecated", got.Chart.Name)
	}
	return got, at, nil
}

// shortened is an error of a package's, whose templates may call each other a thousand
// times before one fails: how it begins and ends says enough.
func shortened(ref string, err error) error {
	const most = 1200
	s := []rune(err.Error())
	if len(s) <= most {
		return fmt.Errorf("%s: %w", ref, err)
	}
	return &cluster.Error{Kind: cluster.KindOf(err), Err: fmt.Errorf("%s: %s … %s", ref, string(s[:most/2]), string(s[len(s)-most/2:]))}
}

func (a *app) chartPackage() *cobra.Command {
	var into, version, appVersion string
	var by signFlags
	c := &cobra.Command{
		Use: "package CHART...", Short: "Make archives of packages", Args: rangeArgs(1, -1, "a package"), ValidArgsFunction: completeFiles,
		Long: "Makes NAME-VERSION.tgz of each directory. The same files make the same archive, byte for byte.\n" +
			"With --sign, its signature is written beside it, as NAME-VERSION.tgz.prov: `chart push` takes it\n" +
			"along, and --verify asks for it.",
		Example: "  fairlead chart package ./shop\n  fairlead chart package ./shop --version 1.2.0 --app-version 4.5 -d dist\n" +
			"  gpg --export-secret-keys ann@example.com >ann.gpg\n  fairlead chart package ./shop --sign --keyring ann.gpg",
		RunE: func(cmd *cobra.Command, args []string) error {
			type packed struct {
				File      string `json:"file"`
				Size      int64  `json:"size"`
				Signature string `json:"signature,omitempty"`
			}
			signer, err := by.signer(cmd.Context(), a)
			if err != nil {
				return err
			}
			var all []packed
			for _, dir := range args {
				files, err := chart.Read(dir)
				if err != nil {
					return err
				}
				if files, err = chart.WithVersion(files, version, appVersion); err != nil {
					return err
				}
				name, b, err := chart.Pack(files)
				if err != nil {
					return fmt.Errorf("%s: %w", dir, err)
				}
				var prov []byte
				if signer != nil {
					if prov, err = signer.Sign(name, b, files); err != nil {
						return fmt.Errorf("sign %s: %w", name, err)
					}
				}
				p := packed{Size: int64(len(b))}
				if p.File, err = writePackage(name, b, into, false); err != nil {
					return err
				}
				if prov != nil {
					if p.Signature, err = writePackage(name+".prov", prov, into, false); err != nil {
						return err
					}
				}
				all = append(all, p)
			}
			return a.print(all, func() *table {
				t := &table{columns: columns("FILE", "SIZE", "SIGNATURE")}
				for _, p := range all {
					t.add(p.File, size(p.Size), p.Signature)
				}
				return t
			})
		},
	}
	f := c.Flags()
	by.register(c)
	f.StringVarP(&into, "destination", "d", ".", "`directory` for the archives")
	f.StringVar(&version, "version", "", "version of the package, instead of Chart.yaml's")
	f.StringVar(&appVersion, "app-version", "", "version of the program in it, instead of Chart.yaml's")
	_ = c.MarkFlagDirname("destination")
	return c
}

// signFlags say who signs a package.
type signFlags struct {
	sign                     bool
	owner, keyring, password string
}

func (f *signFlags) register(c *cobra.Command) {
	c.Flags().BoolVar(&f.sign, "sign", false, "sign the archives with a key of --keyring")
	c.Flags().StringVar(&f.owner, "key", "", "`name` of the key's owner, or a part of it, for --sign; default: the only one in --keyring")
	c.Flags().StringVar(&f.keyring, "keyring", "", "`file` of secret keys (gpg --export-secret-keys), for --sign; default: ~/.gnupg/secring.gpg, if there is one")
	c.Flags().StringVar(&f.password, "passphrase-file", "", "`file` with the key's passphrase in its first line, - for standard input; default: it is asked for")
}

// signer is nil when nothing is to be signed.
func (f *signFlags) signer(ctx context.Context, a *app) (*chart.Signer, error) {
	if !f.sign {
		for flag, value := range map[string]string{"key": f.owner, "keyring": f.keyring, "passphrase-file": f.password} {
			if value != "" {
				return nil, usagef("--%s %s: it is for --sign", flag, value)
			}
		}
		return nil, nil
	}
	ring := f.keyring
	if ring == "" {
		if ring = keyring("secring.gpg"); ring == "" {
			return nil, usagef("--sign: with which key? --keyring FILE has it; `gpg --export-secret-keys NAME >FILE` writes one")
		}
	}
	return chart.NewSigner(ring, f.owner, func(owner string) ([]byte, error) { return f.passphrase(ctx, a, owner) })
}

func (f *signFlags) passphrase(ctx context.Context, a *app, owner string) ([]byte, error) {
	in := a.in
	switch f.password {
	case "":
		t, ok := a.in.(*os.File)
		if !ok || !isTerminal(t) {
			return nil, usagef("the key of %s is locked: --passphrase-file FILE, or - for standard input, opens it", printable(owner))
		}
		return a.promptSecret(ctx, int(t.Fd()), "Passphrase of "+printable(owner), "nothing is signed")
	case "-":
	default:
		t, err := os.Open(f.password)
		if err != nil {
			return nil, usagef("--passphrase-file: %w", err)
		}
		defer func() { _ = t.Close() }() // only read
		in = t
	}
	line, err := readLine(in)
	if err != nil {
		return nil, usagef("--passphrase-file %s: %w", f.password, err)
	}
	line, _, _ = strings.Cut(line, "\n")
	return []byte(strings.TrimSuffix(line, "\r")), nil
}

func (a *app) chartShow() *cobra.Command {
	c := &cobra.Command{
		Use: "show", Short: "Show what is in a package",
		Example: "  fairlead chart show values ./shop\n  fairlead chart show readme oci://registry.example.com/charts/shop --version 1.2.0",
	}
	for _, part := range []struct{ name, short string }{
		{"chart", "Show a package's Chart.yaml"},
		{"values", "Show what can be set, with the defaults"},
		{"readme", "Show a package's README"},
		{"all", "Show a package's Chart.yaml, values and README"},
	} {
		var from fetchFlags
		sub := &cobra.Command{
			Use: part.name + " CHART", Short: part.short, Args: oneArg("the package"), ValidArgsFunction: completeFiles, Example: "  fairlead chart show " + part.name + " ./shop",
			RunE: func(cmd *cobra.Command, args []string) error {
				files, _, err := a.fetch(cmd.Context(), args[0], from)
				if err != nil {
					return err
				}
				return a.show(files, part.name)
			},
		}
		from.register(sub)
		c.AddCommand(sub)
	}
	return c
}

func (a *app) show(files []chart.File, part string) error {
	info, err := chart.Describe(files)
	if err != nil {
		return err
	}
	text := map[string]string{"chart": string(chart.Get(files, "Chart.yaml")), "values": string(chart.Get(files, "values.yaml"))}
	for _, f := range files {
		if strings.EqualFold(f.Name, "README.md") || (strings.EqualFold(f.Name, "README") && text["readme"] == "") {
			text["readme"] = string(f.Data)
		}
	}
	if !a.human() {
		return a.print(struct {
			chart.Info
			Values string `json:"values"`
			Readme string `json:"readme,omitempty"`
		}{info, text["values"], text["readme"]}, nil)
	}
	parts := []string{part}
	if part == "all" {
		parts = []string{"chart", "values", "readme"}
	}
	for i, p := range parts {
		if text[p] == "" && part != "all" {
			return cluster.NotFoundf("%s %s has no %s", info.Name, info.Version, p)
		}
		if i > 0 && text[p] != "" {
			_, _ = fmt.Fprintln(a.out, "---")
		}
		_, _ = fmt.Fprint(a.out, terminated(text[p]))
	}
	return nil
}

func terminated(s string) string {
	if s == "" || strings.HasSuffix(s, "\n") {
		return s
	}
	return s + "\n"
}
