package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
)

// contexts is the client's own file: the clusters it knows, and the chosen one.
type contexts struct {
	Current string              `json:"current,omitempty"`
	Known   map[string]endpoint `json:"contexts"`
}

// endpoint is how one cluster is reached: by its local socket, or by URL and token.
type endpoint struct {
	Socket string `json:"socket,omitempty"`
	URL    string `json:"url,omitempty"`
	Token  string `json:"token,omitempty"`
	// CA is the fingerprint of the cluster's certificate authority (hex SHA-256),
	// which the client insists on.
	CA string `json:"ca,omitempty"`
	// Servers are all of the cluster's servers, host:port, as one of them said last:
	// any of them answers, when the authority is pinned.
	Servers []string `json:"servers,omitempty"`

	name string // of the context; "" when it is none
}

const defaultSocket = "/run/fairlead/fairlead.sock"

// connFlags choose the server. Order: one of --socket, --url and --context, then
// FAIRLEAD_SOCKET, FAIRLEAD_URL, FAIRLEAD_CONTEXT, the current context, the local
// socket.
type connFlags struct {
	socket, url, context string
}

func (c *connFlags) register(f *pflag.FlagSet) {
	f.StringVar(&c.context, "context", "", "`name` of the cluster to talk to, as context ls shows it (or FAIRLEAD_CONTEXT)")
	f.StringVar(&c.socket, "socket", "", "local socket of the server, default "+defaultSocket+" (or FAIRLEAD_SOCKET)")
	f.StringVar(&c.url, "url", "", "URL of the server (or FAIRLEAD_URL); its token comes from FAIRLEAD_TOKEN, its CA's fingerprint from FAIRLEAD_CA")
}

func (e endpoint) options() client.Options {
	o := client.Options{Socket: e.Socket, URL: e.URL, Token: e.Token, Fingerprint: e.CA, Others: e.Servers}
	if e.name != "" && e.CA != "" {
		o.Learn = e.learn
	}
	return o
}

// learn keeps where the cluster's servers are. What cannot be kept is learnt again.
func (e endpoint) learn(servers []string) {
	if slices.Equal(servers, e.Servers) {
		return
	}
	known, err := loadContexts()
	if err != nil {
		return
	}
	now, ok := known.Known[e.name]
	if !ok || now.URL != e.URL || slices.Equal(now.Servers, servers) {
		return
	}
	now.Servers = servers
	known.Known[e.name] = now
	_ = known.save()
}

// endpoint resolves the flags.
func (c *connFlags) endpoint() (endpoint, error) {
	from, given := *c, 0
	for _, s := range []string{c.socket, c.url, c.context} {
		if s != "" {
			given++
		}
	}
	switch {
	case given > 1:
		return endpoint{}, usagef("give one of --socket, --url and --context")
	case given == 0:
		from = connFlags{os.Getenv("FAIRLEAD_SOCKET"), os.Getenv("FAIRLEAD_URL"), os.Getenv("FAIRLEAD_CONTEXT")}
	}
	switch {
	case from.socket != "":
		return endpoint{Socket: from.socket}, nil
	case from.url != "":
		return endpoint{URL: from.url, Token: os.Getenv("FAIRLEAD_TOKEN"), CA: os.Getenv("FAIRLEAD_CA")}, nil
	}
	known, err := loadContexts()
	if err != nil {
		return endpoint{}, err
	}
	name := from.context
	if name == "" {
		name = known.Current
	}
	if name == "" {
		return endpoint{Socket: defaultSocket}, nil
	}
	e, ok := known.Known[name]
	if !ok {
		return endpoint{}, cluster.NotFoundf("no context %q: `fairlead context ls` lists them, `fairlead context add` makes one", name)
	}
	e.name = name
	return e, nil
}

// overridden says which variable chooses the server whatever context is current.
func overridden() string {
	for _, name := range []string{"FAIRLEAD_SOCKET", "FAIRLEAD_URL", "FAIRLEAD_CONTEXT"} {
		if v := os.Getenv(name); v != "" {
			return name + " is set: commands here talk to " + v + ", whichever context is current"
		}
	}
	return ""
}

// noteOverridden tells people that the current context is not what is used.
func (a *app) noteOverridden() {
	if s := overridden(); s != "" && a.human() {
		a.note("%s", s)
	}
}

func contextsFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "fairlead", "contexts.json"), nil
}

func loadContexts() (contexts, error) {
	c := contexts{Known: map[string]endpoint{}}
	path, err := contextsFile()
	if err != nil {
		return c, nil //nolint:nilerr // without a home there are no contexts; the local socket still works
	}
	b, err := os.ReadFile(path) //nolint:gosec // the user's own configuration
	if errors.Is(err, os.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, cluster.Invalidf("%s: %w; mend or remove it", path, err)
	}
	if c.Known == nil {
		c.Known = map[string]endpoint{}
	}
	return c, nil
}

// save replaces the file in one step; it holds tokens, so only its owner reads it.
func (c contexts) save() error {
	path, err := contextsFile()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func (a *app) contextCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "context", Short: "Choose the cluster that commands talk to", GroupID: "cluster",
		Example: "  fairlead context add prod --server https://203.0.113.5:7420 --token-stdin\n  fairlead context use prod",
	}
	c.AddCommand(a.contextAdd(), a.contextUse(), a.contextList(), a.contextRemove())
	return c
}

// contextRow is a context as it is shown: without its token.
type contextRow struct {
	Name    string `json:"name"`
	Current bool   `json:"current"`
	Server  string `json:"server"`
	// Servers are all that the cluster said it has.
	Servers []string `json:"servers,omitempty"`
}

func (a *app) contextAdd() *cobra.Command {
	var n newContext
	var tokenStdin bool
	c := &cobra.Command{
		Use: "add NAME", Short: "Remember a cluster", Args: oneArg("the context's name"),
		Long: `Asks the server once, and remembers how it is reached when it answers. The first
context is the current one, later ones with --use.`,
		Example: "  fairlead context add prod --server https://203.0.113.5:7420 --ca 3f9a… --token-stdin <token\n" +
			"  fairlead context add here --local /run/fairlead/fairlead.sock",
		RunE: func(cmd *cobra.Command, args []string) error {
			n.name = args[0]
			for _, f := range [][2]string{{"url", "--server URL"}, {"socket", "--local SOCKET"}} {
				if cmd.Flags().Changed(f[0]) { // of all commands: taken, and of no use here
					return usagef("--%s is which server one command asks; the one to remember is given with %s", f[0], f[1])
				}
			}
			if (n.Socket == "") == (n.URL == "") {
				return usagef("give either --server URL or --local SOCKET")
			}
			if err := cluster.ValidName("context", n.name); err != nil {
				return err
			}
			if tokenStdin {
				b, err := readLine(a.in)
				if err != nil {
					return usagef("read the token from standard input: %w", err)
				}
				n.Token = b
			}
			return a.addContext(cmd.Context(), n)
		},
	}
	c.Flags().StringVar(&n.URL, "server", "", "URL of the cluster's API, https://ADDRESS:7420")
	c.Flags().StringVar(&n.Socket, "local", "", "local socket of a server on this machine")
	c.Flags().StringVar(&n.CA, "ca", "", "`fingerprint` of the cluster's certificate authority, as fairlead system status prints it")
	c.Flags().BoolVar(&tokenStdin, "token-stdin", false, "read the token from standard input")
	c.Flags().BoolVar(&n.use, "use", false, "use it from now on")
	c.Flags().BoolVar(&n.replace, "replace", false, "also when there is another context of this name")
	c.Flags().BoolVar(&n.unchecked, "no-check", false, "also when the server does not answer")
	return c
}

// newContext is a context to be added.
type newContext struct {
	endpoint
	name                    string
	use, replace, unchecked bool
}

func (a *app) addContext(ctx context.Context, n newContext) error {
	known, err := loadContexts()
	if err != nil {
		return err
	}
	if old, is := known.Known[n.name]; is && !n.replace && !old.same(n.endpoint) {
		return usagef("there is a context %q, of %s: --replace puts this one in its place", n.name, old.URL+old.Socket)
	}
	if err := n.check(ctx); err != nil {
		return err
	}
	known.Known[n.name] = n.endpoint
	if n.use || known.Current == "" {
		known.Current = n.name
	}
	if err := known.save(); err != nil {
		return err
	}
	row := contextRow{n.name, known.Current == n.name, n.URL + n.Socket, n.Servers}
	if !a.human() {
		return a.print(row, nil)
	}
	defer a.noteOverridden()
	text := "it is the current one"
	if !row.Current {
		text = "`fairlead context use " + n.name + "` makes it the current one"
	}
	_, err = fmt.Fprintf(a.out, "added context %s, of %s; %s\n", n.name, row.Server, text)
	return err
}

// same reports whether two contexts lead to one cluster, and with one token.
func (e endpoint) same(o endpoint) bool {
	return e.Socket == o.Socket && e.URL == o.URL && e.Token == o.Token && e.CA == o.CA
}

// check asks the server once, unless that is not wanted.
func (n *newContext) check(ctx context.Context) error {
	o := n.options()
	o.Timeout = 10 * time.Second
	if n.CA != "" {
		o.Learn = func(servers []string) { n.Servers = servers }
	}
	cl, err := client.New(o)
	if err != nil || n.unchecked {
		return err
	}
	defer cl.Close()
	_, err = cl.Server(ctx)
	switch {
	case err == nil:
		return nil
	case cluster.KindOf(err) == cluster.KindForbidden && n.Token == "":
		err = &exitError{code: codeUnreachable, err: fmt.Errorf("%s wants a token: `fairlead token create NAME` on the server makes one, --token-stdin takes it", cl.Where())}
	case cluster.KindOf(err) == cluster.KindForbidden:
		err = &exitError{code: codeUnreachable, err: fmt.Errorf("%s refuses the token: `fairlead token create NAME` on the server makes another", cl.Where())}
	}
	return fmt.Errorf("context %s is not added (--no-check adds it anyway): %w", n.name, err)
}

func (a *app) contextUse() *cobra.Command {
	return &cobra.Command{
		Use: "use NAME", Short: "Talk to this cluster from now on", Args: oneArg("the context's name"),
		Example:           "  fairlead context use prod",
		ValidArgsFunction: completeContexts,
		RunE: func(cmd *cobra.Command, args []string) error {
			defer a.noteOverridden()
			return changeContext(func(known *contexts, name string) { known.Current = name })(cmd, args)
		},
	}
}

func (a *app) contextRemove() *cobra.Command {
	return &cobra.Command{
		Use: "rm NAME", Short: "Forget a cluster", Args: oneArg("the context's name"),
		Example:           "  fairlead context rm prod",
		ValidArgsFunction: completeContexts,
		RunE: changeContext(func(known *contexts, name string) {
			delete(known.Known, name)
			if known.Current == name {
				known.Current = ""
			}
		}),
	}
}

// changeContext is the body of a command about a context that must be there.
func changeContext(change func(known *contexts, name string)) body {
	return func(_ *cobra.Command, args []string) error {
		known, err := loadContexts()
		if err != nil {
			return err
		}
		if _, ok := known.Known[args[0]]; !ok {
			return cluster.NotFoundf("no context %q: `fairlead context ls` lists them", args[0])
		}
		change(&known, args[0])
		return known.save()
	}
}

func (a *app) contextList() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List the clusters that are known", Args: noArgs,
		Example: "  fairlead context ls",
		RunE: func(*cobra.Command, []string) error {
			known, err := loadContexts()
			if err != nil {
				return err
			}
			rows := []contextRow{}
			for name, e := range known.Known {
				rows = append(rows, contextRow{name, name == known.Current, e.URL + e.Socket, e.Servers})
			}
			slices.SortFunc(rows, func(x, y contextRow) int { return compareStrings(x.Name, y.Name) })
			defer a.noteOverridden()
			return a.print(rows, func() *table {
				t := &table{columns: columns("NAME", "CURRENT", "SERVER", "+SERVERS"), empty: "no contexts: commands talk to " + defaultSocket}
				if overridden() != "" {
					t.empty = "no contexts"
				}
				for _, r := range rows {
					t.add(r.Name, yesNo(r.Current), r.Server, strings.Join(r.Servers, ","))
				}
				return t
			})
		},
	}
}
