package cli

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/delivery/work"
)

// repositories are kept beside the contexts.
func (a *app) repositories() (chart.Repositories, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return chart.Repositories{}, usagef("where are settings kept? %w", err)
	}
	return chart.Repositories{Dir: filepath.Join(dir, "fairlead", "charts")}, nil
}

// transferFlags say how a server of packages is spoken to.
type transferFlags struct {
	user, ca            string
	insecure, plainHTTP bool
}

func (t *transferFlags) register(c *cobra.Command) {
	f := c.Flags()
	f.StringVarP(&t.user, "username", "u", "", "user name; the password comes from standard input or a prompt")
	f.StringVar(&t.ca, "ca-file", "", "`file` of certificates to trust, PEM")
	f.BoolVar(&t.insecure, "insecure-skip-tls-verify", false, "accept any certificate")
	f.BoolVar(&t.plainHTTP, "plain-http", false, "speak to a registry without TLS")
}

func (t *transferFlags) read(ctx context.Context, a *app, where string) (chart.Transfer, error) {
	out := chart.Transfer{Username: t.user, CAFile: t.ca, Insecure: t.insecure, PlainHTTP: t.plainHTTP}
	if t.user == "" {
		return out, nil
	}
	pw, err := a.readSecret(ctx, "password of "+t.user+" at "+where)
	out.Password = string(pw)
	return out, err
}

// transfer is where packages are kept here, and how the server is spoken to.
func (t *transferFlags) transfer(ctx context.Context, a *app, where string) (chart.Repositories, chart.Transfer, error) {
	r, err := a.repositories()
	if err != nil {
		return r, chart.Transfer{}, err
	}
	how, err := t.read(ctx, a, where)
	return r, how, err
}

// fetchFlags say which package is meant, where a reference leaves it open, and how it
// is fetched.
type fetchFlags struct {
	version      string
	repo         string
	devel        bool
	dependencies bool // of a directory, those that are missing are fetched
	verify       bool
	keyring      string
	transferFlags
}

func (f *fetchFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.version, "version", "", "`version` of the package, or a range such as ^1.2; default: the newest, and of Git its own branch")
	c.Flags().StringVar(&f.repo, "repo", "", "`URL` of the repository that has the package, which then is its name alone")
	c.Flags().BoolVar(&f.devel, "devel", false, "without --version, the newest may be a pre-release: --version '>0.0.0-0'")
	c.Flags().BoolVar(&f.verify, "verify", false, "refuse a package that none of the keys of --keyring signed")
	c.Flags().StringVar(&f.keyring, "keyring", "", "`file` of public keys (gpg --export), for --verify; default: ~/.gnupg/pubring.gpg, if there is one")
	f.transferFlags.register(c)
}

// registerDependencies registers what is for packages that are rendered.
func (f *fetchFlags) registerDependencies(c *cobra.Command) {
	c.Flags().BoolVar(&f.dependencies, "dependency-update", false, "fetch what is missing in charts/ of the package's directory first, as \"chart dependency update\" does; of one in Git as its Chart.lock says, if it has one")
}

// versions are those that are meant.
func (f *fetchFlags) versions() string {
	if f.version == "" && f.devel {
		return ">0.0.0-0"
	}
	return f.version
}

// transfer checks the flags.
func (f *fetchFlags) transfer(ctx context.Context, a *app, ref string) (chart.Repositories, chart.Transfer, error) {
	if f.keyring != "" && !f.verify {
		return chart.Repositories{}, chart.Transfer{}, usagef("--keyring %s: its keys are for --verify", f.keyring)
	}
	ring := f.keyring
	if f.verify && ring == "" {
		if ring = keyring("pubring.gpg"); ring == "" {
			return chart.Repositories{}, chart.Transfer{}, usagef("--verify: by which keys? --keyring FILE has them; `gpg --export NAME >FILE` writes one")
		}
	}
	r, t, err := f.transferFlags.transfer(ctx, a, ref)
	t.Keyring, t.Repo = ring, f.repo
	t.Signed = func(s chart.Signature) { a.note("%s: signed by %s, key %s", s.File, printable(s.By), s.Key) }
	return r, t, err
}

// keyring is the file of keys that Helm takes when none is named, if it is there: one of
// GnuPG before 2.1.
func keyring(name string) string {
	dir := os.Getenv("GNUPGHOME")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return ""
		}
		dir = filepath.Join(home, ".gnupg")
	}
	file := filepath.Join(dir, name)
	if _, err := os.Stat(file); err != nil { //nolint:gosec // where the user's GnuPG says
		return ""
	}
	return file
}

// fetch reads a package from where its reference says; at is that with what was chosen:
// a branch of Git is another one tomorrow.
func (a *app) fetch(ctx context.Context, ref string, from fetchFlags) (files []chart.File, at string, err error) {
	g, inGit, err := from.gitPackage(ref)
	if err != nil {
		return nil, "", err
	}
	if u, err := url.Parse(ref); err == nil && u.User != nil && !inGit {
		return nil, "", usagef("a password does not belong into the URL, which is kept with the release: --username NAME asks for it, or reads it from standard input")
	}
	r, t, err := from.transfer(ctx, a, ref)
	if err != nil {
		return nil, "", err
	}
	if inGit {
		var lacks *chart.Repositories
		if from.dependencies {
			lacks = &r
		}
		files, g, err = g.Fetch(ctx, from.version, t, lacks)
		return files, g.String(), err
	}
	if from.dependencies {
		if err := r.MissingDependencies(ctx, ref, t); err != nil {
			return nil, "", err
		}
	}
	files, err = r.Fetch(ctx, ref, from.versions(), t)
	if t.Repo != "" {
		ref = strings.TrimSuffix(t.Repo, "/") + "/" + ref
	}
	return files, ref, err
}

// gitPackage reads a reference to Git, where it is one and not the name of a file here, or in a
// repository.
func (f *fetchFlags) gitPackage(ref string) (g work.GitPackage, is bool, err error) {
	if _, err := os.Lstat(ref); err == nil || f.repo != "" {
		return g, false, nil
	}
	return work.ParseGit(ref)
}

// archive fetches a package as an archive; one in Git is packed.
func (a *app) archive(ctx context.Context, ref string, from fetchFlags) (name string, data []byte, err error) {
	_, inGit, err := from.gitPackage(ref)
	if err != nil {
		return "", nil, err
	}
	if inGit {
		files, _, err := a.fetch(ctx, ref, from)
		if err != nil {
			return "", nil, err
		}
		return chart.Pack(files)
	}
	r, t, err := from.transfer(ctx, a, ref)
	if err != nil {
		return "", nil, err
	}
	return r.Archive(ctx, ref, from.versions(), t)
}

func (a *app) chartPull() *cobra.Command {
	var from fetchFlags
	var into string
	var untar bool
	c := &cobra.Command{
		Use: "pull CHART", Short: "Fetch a package", Args: oneArg("the package"),
		Long: "Fetches the archive of a package, looks at all of it, and writes it, or with --untar what\n" +
			"is in it, to a directory.",
		Example: "  fairlead chart pull stable/shop --version ^1.2\n  fairlead chart pull oci://registry.example.com/charts/shop --untar -d packages",
		RunE: func(cmd *cobra.Command, args []string) error {
			name, data, err := a.archive(cmd.Context(), args[0], from)
			if err != nil {
				return err
			}
			to, err := writePackage(name, data, into, untar)
			if err != nil {
				return err
			}
			type pulled struct {
				File string `json:"file"`
				Size int64  `json:"size"`
			}
			return a.print(pulled{to, int64(len(data))}, func() *table {
				t := &table{columns: columns("FILE", "SIZE")}
				t.add(to, size(int64(len(data))))
				return t
			})
		},
	}
	from.register(c)
	c.Flags().StringVarP(&into, "destination", "d", ".", "`directory` to write to")
	c.Flags().BoolVar(&untar, "untar", false, "unpack it")
	_ = c.MarkFlagDirname("destination")
	return c
}

func writePackage(name string, data []byte, into string, untar bool) (string, error) {
	if err := os.MkdirAll(into, 0o750); err != nil {
		return "", usagef("--destination: %w", err)
	}
	if untar {
		files, err := chart.ReadArchive(name, bytes.NewReader(data))
		if err != nil {
			return "", err
		}
		return chart.Unpack(files, into)
	}
	to := filepath.Join(into, filepath.Base(name))
	if err := os.WriteFile(to, data, 0o644); err != nil { //nolint:gosec // a package is no secret
		return "", usagef("--destination: %w", err)
	}
	return to, nil
}

func (a *app) chartPush() *cobra.Command {
	var t transferFlags
	c := &cobra.Command{
		Use: "push ARCHIVE oci://REGISTRY/PATH", Short: "Bring a package into a registry", Args: rangeArgs(2, 2, "an archive and a registry"), ValidArgsFunction: completeFiles,
		Long: "Brings an archive that `chart package` made into a registry, as PATH/NAME:VERSION. A\n" +
			"signature beside it (ARCHIVE.prov) goes with it. Passwords are those that docker login keeps.",
		Example: "  fairlead chart push shop-1.2.0.tgz oci://registry.example.com/charts",
		RunE: func(cmd *cobra.Command, args []string) error {
			r, how, err := t.transfer(cmd.Context(), a, args[1])
			if err != nil {
				return err
			}
			p, err := r.Push(cmd.Context(), args[0], args[1], how)
			if err != nil {
				return err
			}
			return a.print(p, func() *table {
				t := &table{columns: columns("PACKAGE", "DIGEST", "SIZE")}
				t.add(p.Ref, p.Digest, size(p.Size))
				return t
			})
		},
	}
	t.register(c)
	return c
}

func (a *app) chartRepo() *cobra.Command {
	c := &cobra.Command{
		Use: "repo", Short: "Repositories that packages are fetched from",
		Long:    "Repositories with an index. Registries (oci://…) need no adding.",
		Example: "  fairlead chart repo add stable https://charts.example.com\n  fairlead chart repo ls",
	}
	c.AddCommand(a.repoAdd(), a.repoList(), a.repoUpdate(), a.repoRemove())
	return c
}

func (a *app) repoAdd() *cobra.Command {
	var t transferFlags
	var force bool
	c := &cobra.Command{
		Use: "add NAME URL", Short: "Add a repository, once its index was read", Args: rangeArgs(2, 2, "a name and a URL"),
		Example: "  fairlead chart repo add stable https://charts.example.com\n  fairlead chart repo add here file:///srv/packages",
		RunE: func(cmd *cobra.Command, args []string) error {
			r, how, err := t.transfer(cmd.Context(), a, args[1])
			if err != nil {
				return err
			}
			ca := how.CAFile
			if ca != "" {
				if ca, err = filepath.Abs(ca); err != nil {
					return usagef("--ca-file: %w", err)
				}
			}
			return r.Add(cmd.Context(), chart.Repository{Name: args[0], URL: args[1], Username: how.Username, Password: how.Password, CAFile: ca, Insecure: how.Insecure}, force)
		},
	}
	t.register(c)
	c.Flags().BoolVar(&force, "force-update", false, "replace one of the same name")
	return c
}

func (a *app) repoList() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List repositories", Args: noArgs, Example: "  fairlead chart repo ls -o json",
		RunE: func(*cobra.Command, []string) error {
			r, err := a.repositories()
			if err != nil {
				return err
			}
			list, err := r.List()
			if err != nil {
				return err
			}
			return a.print(list, func() *table {
				t := &table{columns: columns("NAME", "URL", "PACKAGES", "UPDATED", "+USER"), empty: "no repositories"}
				for _, x := range list {
					t.add(x.Name, x.URL, fmt.Sprint(x.Packages), age(a.now(), x.Updated), x.Username)
				}
				return t
			})
		},
	}
}

func (a *app) repoUpdate() *cobra.Command {
	c := &cobra.Command{
		Use: "update [NAME...]", Short: "Fetch the indexes of repositories, all when none is named", Example: "  fairlead chart repo update stable",
		Args: rangeArgs(0, -1, ""),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := a.repositories()
			if err != nil {
				return err
			}
			if len(args) == 0 {
				list, err := r.List()
				if err != nil {
					return err
				}
				for _, x := range list {
					args = append(args, x.Name)
				}
			}
			return a.updateRepositories(cmd.Context(), r, args)
		},
	}
	c.ValidArgsFunction = a.completeRepositories(-1)
	return c
}

// updateRepositories goes on past those that cannot be read, and names them.
func (a *app) updateRepositories(ctx context.Context, r chart.Repositories, names []string) error {
	var failed []string
	for _, name := range names {
		err := r.Update(ctx, name)
		if err == nil {
			continue
		}
		if len(names) == 1 || ctx.Err() != nil {
			return err
		}
		failed = append(failed, name)
		a.note("%s", err)
	}
	if failed != nil {
		return failedf("%d of %d repositories were not updated: %s", len(failed), len(names), strings.Join(failed, ", "))
	}
	return nil
}

func (a *app) repoRemove() *cobra.Command {
	c := &cobra.Command{
		Use: "rm NAME", Aliases: []string{"remove"}, Short: "Forget a repository", Args: oneArg("the repository's name"), Example: "  fairlead chart repo rm stable",
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := a.repositories()
			if err != nil {
				return err
			}
			return r.Remove(args[0])
		},
	}
	c.ValidArgsFunction = a.completeRepositories(1)
	return c
}

// completeRepositories offers the names of repositories, which no server knows.
func (a *app) completeRepositories(most int) completion {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		r, err := a.repositories()
		if err != nil || (most >= 0 && len(args) >= most) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		list, err := r.List()
		names, _ := named(list, err, func(x chart.Repository) string { return x.Name })
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

func (a *app) chartDependency() *cobra.Command {
	c := &cobra.Command{
		Use: "dependency", Short: "Packages that a package is made of", Aliases: []string{"dep"},
		Example: "  fairlead chart dependency update ./shop",
	}
	list := &cobra.Command{
		Use: "ls CHART", Aliases: []string{"list"}, Short: "List what a package depends on", Args: oneArg("the package"), ValidArgsFunction: completeFiles,
		Example: "  fairlead chart dependency ls ./shop",
		RunE: func(_ *cobra.Command, args []string) error {
			files, err := chart.Read(args[0])
			if err != nil {
				return err
			}
			deps, err := chart.Dependencies(files)
			if err != nil {
				return err
			}
			return a.print(deps, func() *table {
				t := &table{columns: columns("NAME", "VERSION", "REPOSITORY", "STATUS", "+ALIAS", "+CONDITION"), empty: args[0] + " depends on nothing"}
				for _, d := range deps {
					t.add(d.Name, d.Version, d.Repository, d.Status, d.Alias, d.Condition)
				}
				return t
			})
		},
	}
	c.AddCommand(list, a.fetchDependencies("update", "Fetch what Chart.yaml names, the newest that fit, into charts/", false),
		a.fetchDependencies("build", "Fetch what Chart.lock names into charts/", true))
	return c
}

func (a *app) fetchDependencies(use, short string, locked bool) *cobra.Command {
	var t transferFlags
	c := &cobra.Command{
		Use: use + " DIRECTORY", Short: short, Args: oneArg("the package's directory"), ValidArgsFunction: completeFiles,
		Example: "  fairlead chart dependency " + use + " ./shop",
		RunE: func(cmd *cobra.Command, args []string) error {
			r, how, err := t.transfer(cmd.Context(), a, args[0])
			if err != nil {
				return err
			}
			return r.UpdateDependencies(cmd.Context(), args[0], locked, how)
		},
	}
	t.register(c)
	return c
}
