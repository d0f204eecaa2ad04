package cli

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// strict makes commands that only hold others refuse what they do not have,
// where cobra prints help and reports success, and keeps commands that take no
// files from offering those that are here.
func strict(c *cobra.Command) {
	for _, sub := range c.Commands() {
		strict(sub)
	}
	if c.ValidArgsFunction == nil && len(c.ValidArgs) == 0 {
		c.ValidArgsFunction = cobra.NoFileCompletions
	}
	if !c.HasSubCommands() || c.Runnable() {
		return
	}
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return unknownCommand(c, args[0])
	}
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
}

// helpCommand is cobra's, but for what it says of commands that are not there.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND...]", Short: "Show how a command is used",
		Example: "  fairlead help deploy\n  fairlead help secret set",
		ValidArgsFunction: func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			of, rest, err := c.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var names []string
			for _, sub := range of.Commands() {
				names = append(names, cobra.CompletionWithDesc(sub.Name(), sub.Short))
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			of, rest, err := c.Root().Find(args)
			if err != nil {
				return err
			}
			if len(rest) > 0 {
				return unknownCommand(of, rest[0])
			}
			of.InitDefaultHelpFlag()
			return of.Help()
		},
	}
}

func unknownCommand(c *cobra.Command, name string) error {
	if chart, _, err := c.Find([]string{"chart", name}); err == nil && !c.HasParent() && chart.Parent() != c {
		return usagef("%s has no command %q; packages have: `%s`", c.CommandPath(), name, chart.CommandPath())
	}
	c.SuggestionsMinimumDistance = max(c.SuggestionsMinimumDistance, 2)
	if near := c.SuggestionsFor(name); len(near) > 0 {
		return usagef("%s has no command %q; did you mean %s?", c.CommandPath(), name, strings.Join(near, " or "))
	}
	return usagef("%s has no command %q; `%s --help` lists those there are", c.CommandPath(), name, c.CommandPath())
}

// flagError adds to a complaint about a flag what would help.
func flagError(c *cobra.Command, err error) error {
	unknown, ok := errors.AsType[*pflag.NotExistError](err)
	if !ok {
		return usagef("%w; see `%s --help`", err, c.CommandPath())
	}
	given := unknown.GetSpecifiedName()
	if given == "n" || given == "namespace" { // Helm's; install and upgrade know the name that is meant
		return usagef("%w: an app has no namespace, its name is its address; `fairlead ls` shows them all", err)
	}
	if advice := helmOnly[given]; advice != "" && c.Flags().Lookup("namespace") != nil {
		return usagef("%w: %s", err, advice)
	}
	best, least := "", 3
	c.Flags().VisitAll(func(f *pflag.Flag) {
		d := distance(given, f.Name)
		if len(given) > 1 && strings.HasPrefix(f.Name, given) {
			d = 0
		}
		if d < least && d < len(given) && !f.Hidden {
			best, least = f.Name, d
		}
	})
	if best != "" {
		return usagef("%w; did you mean --%s?", err, best)
	}
	return usagef("%w; `%s --help` lists those there are", err, c.CommandPath())
}

// distance is how many letters must change to make b of a.
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	row := make([]int, len(y)+1)
	for j := range row {
		row[j] = j
	}
	for i := range x {
		corner := row[0]
		row[0] = i + 1
		for j := range y {
			cost := corner
			if x[i] != y[j] {
				cost = 1 + min(corner, row[j], row[j+1])
			}
			corner, row[j+1] = row[j+1], cost
		}
	}
	return row[len(y)]
}

// advised adds to the error of a server that cannot be reached what to do about it.
func advised(err error) error {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return fmt.Errorf("%w\na cluster signs its own certificate: add it again with --ca and the fingerprint that `fairlead system status` prints on the server", err)
	}
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op != "dial" {
		return err
	}
	advice := "check the address, and that a server runs there"
	switch {
	case op.Net == "unix" && errors.Is(err, syscall.EACCES):
		advice = "only root and members of the group fairlead may use it: try sudo"
	case op.Net == "unix" && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)):
		path := ""
		if op.Addr != nil {
			path = op.Addr.String()
		}
		_, err := os.Stat(demoSocket)
		advice = noServer(path, os.Getenv("FAIRLEAD_SOCKET"), err == nil)
	}
	return fmt.Errorf("%w\n%s", err, advice)
}

// demoSocket is where the server of `make demo` listens, as scripts/demo has it.
const demoSocket = "/run/fairlead-demo/fairlead.sock"

// noServer says what to do when nobody listens on a socket: env is what the
// environment names, demo whether the demo's server is there.
func noServer(path, env string, demo bool) string {
	advice := "no server runs on this machine; start one with `sudo fairlead system install`, or choose a cluster elsewhere with `fairlead context`"
	switch {
	case env != "" && path == env:
		advice = "FAIRLEAD_SOCKET is set to this socket, and no server listens there; start that server, or `unset FAIRLEAD_SOCKET` to talk to the one installed on this machine or to the current context"
	case path != defaultSocket:
		advice = "no server listens there; start one with `sudo fairlead system install`, or choose a cluster elsewhere with `fairlead context`"
	}
	if demo && env == "" && path != demoSocket {
		advice += "\nthe demo has a server on this machine: `export FAIRLEAD_SOCKET=" + demoSocket + "` to talk to it"
	}
	return advice
}

// printable keeps what an error quotes from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if (r < ' ' && r != '\n' && r != '\t') || (r >= 0x7f && r < 0xa0) {
			return '\uFFFD'
		}
		return r
	}, s)
}
