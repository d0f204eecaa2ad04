package cli

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
)

func (a *app) secretCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "secret", Short: "Passwords and keys, sealed in the store",
		Example: "  fairlead secret set shop/db-password\n  fairlead secret ls shop",
	}
	c.AddCommand(a.secretSet(), a.secretList(), a.secretInspect(), a.secretRemove())
	return c
}

// secretRef reads APP/NAME or, in an app's directory, NAME.
func (a *app) secretRef(s string) (cluster.SecretRef, error) {
	app, name, ok := strings.Cut(s, "/")
	if !ok {
		current, err := a.currentApp()
		if err != nil {
			return cluster.SecretRef{}, err
		}
		if current == "" {
			return cluster.SecretRef{}, usagef("%q names no app: write APP/%s, or run this in the app's directory", s, s)
		}
		app, name = string(current), s
	}
	if err := cluster.ValidAppName(cluster.AppName(app)); err != nil {
		return cluster.SecretRef{}, err
	}
	return cluster.SecretRef{App: cluster.AppName(app), Name: name}, cluster.ValidName("secret", name)
}

func (a *app) secretSet() *cobra.Command {
	var generate int
	var vault string
	c := &cobra.Command{
		Use: "set [APP/]NAME", Short: "Set a secret, from standard input or a prompt",
		Long: `Sets a secret and rolls the new value out to the services that use it. The
value comes from standard input (its last line end is dropped) or, at a
terminal, from a prompt that does not show it. It is never an argument: those
are seen by every process of the machine.

With --vault the value stays in the Vault that the servers are set up with (server
--vault), and is read there when a task is made. After a change of the value in
Vault, the same command rolls it out.`,
		Example: "  fairlead secret set shop/db-password <password.txt\n  fairlead secret set shop/session-key --generate 64\n  fairlead secret set shop/db-password --vault kv/shop/db#password",
		Args:    oneArg("[APP/]NAME"), ValidArgsFunction: a.completeSecrets(),
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			ref, err := a.secretRef(args[0])
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("generate") && (generate < 1 || generate > maxGenerate) {
				return usagef("--generate %d: use 1 to %d characters", generate, maxGenerate)
			}
			set := v1.SecretSet{Generate: generate, Vault: vault}
			if generate == 0 && vault == "" {
				if set.Value, err = a.readSecret(cmd.Context(), ref.String()); err != nil {
					return err
				}
			}
			res, err := cl.SetSecret(cmd.Context(), ref, set)
			if err != nil {
				return err
			}
			return a.print(res, func() *table {
				t := secretTable([]v1.SecretSummary{res.SecretSummary})
				if res.Release > 0 {
					a.note("release %d rolls it out to %s", res.Release, joinNames(res.Services))
				}
				return t
			})
		}),
	}
	c.Flags().IntVar(&generate, "generate", 0, "make a value of so many characters")
	c.Flags().StringVar(&vault, "vault", "", "the value is in Vault, at `MOUNT/PATH#FIELD`")
	c.MarkFlagsMutuallyExclusive("generate", "vault")
	return c
}

// maxGenerate is the most characters that the API makes.
const maxGenerate = 4096

func secretTable(list []v1.SecretSummary) *table {
	t := &table{columns: columns("SECRET", "VERSION", "PROVIDER", "CREATED", "BY", "USED BY"), empty: "no secrets"}
	for _, s := range list {
		version, created := fmt.Sprint(s.Version), s.Created.Format("2006-01-02 15:04")
		if s.Missing {
			version, created = "missing", ""
		}
		provider := s.Provider
		if s.Ref != "" {
			provider += " " + s.Ref
		}
		t.add(s.String(), version, provider, created, s.By, joinNames(s.Services))
	}
	return t
}

func joinNames[T ~string](list []T) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = string(s)
	}
	return strings.Join(out, ", ")
}

func (a *app) secretList() *cobra.Command {
	return &cobra.Command{
		Use: "ls [APP]", Short: "List secrets, without their values", Args: rangeArgs(0, 1, ""),
		Example:           "  fairlead secret ls shop",
		ValidArgsFunction: a.completeApps(), RunE: listing(a, (*client.Client).Secrets, secretTable),
	}
}

func (a *app) secretInspect() *cobra.Command {
	return &cobra.Command{
		Use: "inspect [APP/]NAME", Short: "Show a secret, without its value", Args: oneArg("[APP/]NAME"), ValidArgsFunction: a.completeSecrets(),
		Example: "  fairlead secret inspect shop/db-password -o yaml",
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			ref, err := a.secretRef(args[0])
			if err != nil {
				return err
			}
			s, err := cl.Secret(cmd.Context(), ref)
			if err != nil {
				return err
			}
			return a.print(s, func() *table { return secretTable([]v1.SecretSummary{s}) })
		}),
	}
}

func (a *app) secretRemove() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use: "rm [APP/]NAME", Short: "Remove a secret", Args: oneArg("[APP/]NAME"), ValidArgsFunction: a.completeSecrets(),
		Example: "  fairlead secret rm shop/old-key",
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			ref, err := a.secretRef(args[0])
			if err != nil {
				return err
			}
			return cl.RemoveSecret(cmd.Context(), ref, force)
		}),
	}
	c.Flags().BoolVar(&force, "force", false, "remove it although services use it")
	return c
}

func (a *app) certCommand() *cobra.Command {
	c := &cobra.Command{Use: "cert", Short: "Certificates that the gateways serve", Example: "  fairlead cert add shop --cert chain.pem --key key.pem"}
	c.AddCommand(a.certAdd(), a.certList(), a.certRemove())
	return c
}

func (a *app) certAdd() *cobra.Command {
	var chain, key string
	c := &cobra.Command{
		Use: "add NAME --cert CHAIN --key KEY", Short: "Add a certificate, or replace one", Args: oneArg("the certificate's name"),
		Long:    "Adds a certificate chain and its key (PEM). The key is sealed in the store; every gateway serves\nit for the hosts it names.",
		Example: "  fairlead cert add shop --cert fullchain.pem --key privkey.pem",
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			if chain == "" || key == "" {
				return usagef("a certificate needs --cert FILE and --key FILE. Usage: %s", cmd.UseLine())
			}
			in := v1.CertAdd{}
			b, err := os.ReadFile(chain) //nolint:gosec // the user's own file
			if err != nil {
				return usagef("--cert: %w", err)
			}
			in.Chain = string(b)
			if in.Key, err = os.ReadFile(key); err != nil { //nolint:gosec // the user's own file
				return usagef("--key: %w", err)
			}
			s, err := cl.AddCert(cmd.Context(), args[0], in)
			if err != nil {
				return err
			}
			return a.print(s, func() *table { return certTable([]v1.CertSummary{s}) })
		}),
	}
	c.Flags().StringVar(&chain, "cert", "", "file with the certificate chain, PEM")
	c.Flags().StringVar(&key, "key", "", "file with the private key, PEM")
	c.ValidArgsFunction = a.completeCerts()
	return c
}

func certTable(list []v1.CertSummary) *table {
	t := &table{columns: columns("CERTIFICATE", "HOSTS", "ISSUER", "EXPIRES", "WARNING"), empty: "no certificates"}
	for _, c := range list {
		t.add(c.Name, strings.Join(c.Hosts, " "), c.Issuer, c.NotAfter.Format("2006-01-02"), c.Warning)
	}
	return t
}

func (a *app) certList() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List certificates, without their keys", Args: noArgs, Example: "  fairlead cert ls",
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, _ []string) error {
			list, err := cl.Certs(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(list, func() *table { return certTable(list) })
		}),
	}
}

func (a *app) certRemove() *cobra.Command {
	return &cobra.Command{
		Use: "rm NAME", Short: "Remove a certificate", Args: oneArg("the certificate's name"), Example: "  fairlead cert rm shop",
		ValidArgsFunction: a.completeCerts(),
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			return cl.RemoveCert(cmd.Context(), args[0])
		}),
	}
}

func (a *app) imageCommand() *cobra.Command {
	c := &cobra.Command{Use: "image", Short: "Images on the nodes, and logins of registries", Example: "  fairlead image ls\n  fairlead image push shop/web:1.5\n  fairlead image login registry.example.com -u ci"}
	c.AddCommand(a.imageList(), a.imagePush(), a.imageLogin(), a.imageLogout())
	return c
}

func (a *app) imageList() *cobra.Command {
	var node string
	c := &cobra.Command{
		Use: "ls", Short: "List the images on the nodes", Args: noArgs, Example: "  fairlead image ls --node n1\n  fairlead image ls -p shop   # those that the app uses",
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, _ []string) error {
			list, err := cl.Images(cmd.Context(), cluster.NodeID(node))
			if err == nil && a.appFlag != "" {
				list = slices.DeleteFunc(list, func(i v1.NodeImage) bool {
					return !slices.ContainsFunc(i.Used, func(by string) bool { return strings.HasPrefix(by, a.appFlag+"/") })
				})
				err = exists(cmd.Context(), cl, cluster.AppName(a.appFlag), len(list))
			}
			if err != nil {
				return err
			}
			return a.print(list, func() *table {
				t := &table{columns: columns("IMAGE", "ID", "SIZE", "AGE", "NODE", "USED BY"), empty: "no images"}
				for _, i := range list {
					id := strings.TrimPrefix(i.ID, "sha256:")
					t.add(strings.Join(i.Tags, " "), id[:min(12, len(id))], size(i.Size), age(a.now(), i.Created), string(i.Node), strings.Join(i.Used, " "))
				}
				return t
			})
		}),
	}
	c.Flags().StringVar(&node, "node", "", "only this node")
	_ = c.RegisterFlagCompletionFunc("node", a.completeNodes())
	return c
}

func (a *app) imageLogin() *cobra.Command {
	var user string
	c := &cobra.Command{
		Use: "login HOST", Short: "Give the cluster credentials of an image registry", Args: oneArg("the registry's host"),
		Long:    "The password comes from standard input or a prompt. It is sealed in the store, and used by\nnodes when they pull.",
		Example: "  fairlead image login registry.example.com -u ci <token.txt",
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			if user == "" {
				return usagef("whose password? Give --username. Usage: %s", cmd.UseLine())
			}
			pw, err := a.readSecret(cmd.Context(), "password of "+user+"@"+args[0])
			if err != nil {
				return err
			}
			s, err := cl.Login(cmd.Context(), v1.RegistryLogin{Host: args[0], Username: user, Password: pw})
			if err != nil {
				return err
			}
			return a.print(s, func() *table {
				t := &table{columns: columns("REGISTRY", "USER")}
				t.add(s.Host, s.Username)
				return t
			})
		}),
	}
	c.Flags().StringVarP(&user, "username", "u", "", "user name at the registry")
	c.Flags().Bool("password-stdin", false, "as docker login has it; standard input is read in any case where it is no terminal")
	return c
}

func (a *app) imageLogout() *cobra.Command {
	return &cobra.Command{
		Use: "logout HOST", Short: "Forget the credentials of a registry", Args: oneArg("the registry's host"),
		Example: "  fairlead image logout registry.example.com",
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			return cl.Logout(cmd.Context(), args[0])
		}),
	}
}
