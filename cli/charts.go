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
	var strict, quiet bool
	c := &cobra.Command{
		Use: "lint CHART...", Short: "Say what is wrong with packages", Args: rangeArgs(1, -1, "the package"), ValidArgsFunction: completeFiles,
		Long: `Renders each package with its own values, and those given, and reads the result as
an installation would. Exit code 2 when it would be refused. What required or a schema
asks for may be missing, unless --strict says that all values are there.`,
		Example: "  fairlead chart lint ./shop\n  fairlead chart lint ./shop -f prod.yaml --strict\n  fairlead chart lint charts/shop charts/blog",
		RunE: func(cmd *cobra.Command, args []string) error {
			given, err := v.read(a)
			if err != nil {
				return err
			}
			return a.lint(cmd.Context(), args, given, strict, quiet)
		},
	}
	v.register(c)
	c.Flags().BoolVar(&strict, "strict", false, "values that templates or a schema require must be there")
	c.Flags().BoolVar(&quiet, "quiet", false, "print errors and warnings alone")
	meansNothing(c.Flags(), "debug", "with-subcharts") // parts are read with the whole
	return c
}

// lint says what is wrong with packages; of several each finding says in which.
func (a *app) lint(ctx context.Context, refs []string, given chart.Values, strict, quiet bool) error {
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
			if quiet && f.Severity == chart.FindInfo {
				continue
			}
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
	if quiet && a.human() && len(list) == 0 {
		return nil
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
	for _, name := range chart.Varying(ctx, r, req, got) {
		a.note("warning: %s: %s", printable(name), chart.Varies)
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
	var update bool
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
				if update {
					if err := a.updateDependencies(cmd.Context(), dir); err != nil {
						return err
					}
				}
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
	f.BoolVarP(&update, "dependency-update", "u", false, "fetch what Chart.yaml names into charts/ first, as \"chart dependency update\" does")
	meansNothing(f, "debug")
	_ = c.MarkFlagDirname("destination")
	return c
}

// updateDependencies fetches what a package's directory depends on; nothing for one that
// depends on nothing.
func (a *app) updateDependencies(ctx context.Context, dir string) error {
	files, err := chart.Read(dir)
	if err != nil {
		return err
	}
	deps, err := chart.Dependencies(files)
	if err != nil || len(deps) == 0 {
		return err
	}
	r, err := a.repositories()
	if err != nil {
		return err
	}
	return r.UpdateDependencies(ctx, dir, false, chart.Transfer{})
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
