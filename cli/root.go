package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/fairlead/fairlead/chart"
)

// Version is set when a release is linked.
var Version = "dev" //nolint:gochecknoglobals // the linker sets it

// app is what all commands share: streams, global flags, and where the server is.
type app struct {
	in        io.Reader
	out, errw io.Writer
	now       func() time.Time
	dir       string
	templates chart.Engine

	output  string
	appFlag string
	// bareLogs leaves out whose line it is.
	bareLogs bool
	conn     connFlags
	// saidStale: it was said that what is shown may be old.
	saidStale atomic.Bool
	took      current // where the app of this command came from, when its arguments name none
}

// Streams are the program's standard streams and its clock; tests give their own.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	Now      func() time.Time
	// Templates renders packages; nil: a process of this program's own does, as it
	// must where nobody knows what the templates are.
	Templates chart.Engine
}

// Main runs the command line, with more commands beside its own, and returns the exit code.
func Main(ctx context.Context, args []string, s Streams, more ...*cobra.Command) int {
	// Libraries that have a logger of their own print to standard error what is said
	// here anyway, with its place: compose-go of old words, go-archive of a tar that
	// nobody reads to its end.
	logrus.SetOutput(io.Discard)
	root := New(s, more...) //nolint:contextcheck // commands get theirs from ExecuteContext
	root.SetArgs(args)
	if slices.Contains(args, cobra.ShellCompRequestCmd) {
		plainUsages(root)
	}
	err := root.ExecuteContext(ctx)
	if err != nil && err.Error() != "" {
		_, _ = fmt.Fprintln(s.Err, "error:", printable(advised(err).Error()))
	}
	return Code(err)
}

// New makes the root command.
func New(s Streams, more ...*cobra.Command) *cobra.Command {
	a := &app{in: s.In, out: s.Out, errw: s.Err, now: s.Now, dir: ".", templates: s.Templates}
	root := &cobra.Command{
		Use:   "fairlead",
		Short: "Run containers on Docker hosts: deploy, route, scale, update",
		Long: `Fairlead runs apps described by Compose files on one or many Docker hosts.

  fairlead plan      what a deploy would change, and what becomes public
  fairlead deploy    make it so, and wait until it is healthy
  fairlead ps        what runs where

Which app: the one that an argument names, else -p, else, in a directory with a
Compose file or below it, the one of COMPOSE_PROJECT_NAME (also in .env), else the
one its name: says, else the directory's own name. Where none is named, ls, ps, service ls, secret ls and exposure show all apps, status and explain
outside of such a directory the cluster. A command that then changes the app here
says which one it took, and from where. ADDRESS is APP/SERVICE or APP/SERVICE.SLOT
(shop/web.2), or without APP/ a service of the app here or of -p (web.2);
shop_web.2 is understood.

Exit codes: 0 done · 1 tried, and failed · 2 wrong input, nothing was changed ·
3 the server cannot be reached, or refuses you · 4 no such thing · 5 timed out
waiting, the change goes on · 6 this machine was removed from its cluster. exec
ends with its command's code, plan --exit-code with 10 when there are changes.`,
		Version:           Version,
		SilenceUsage:      true,
		SilenceErrors:     true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.checkFlags(cmd) },
	}
	root.SetIn(s.In)
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	root.SetFlagErrorFunc(flagError)
	f := root.PersistentFlags()
	f.StringVarP(&a.output, "output", "o", formatTable, "output: table, wide, json or yaml")
	f.StringVarP(&a.appFlag, "app", "p", "", "the app, where no argument names one (default: the one here; lists show all)")
	a.conn.register(f)
	_ = root.RegisterFlagCompletionFunc("app", a.completeApps())
	_ = root.RegisterFlagCompletionFunc("context", completeContexts)
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(
		[]string{formatTable, formatWide, formatJSON, formatYAML}, cobra.ShellCompDirectiveNoFileComp))

	root.AddGroup(
		&cobra.Group{ID: "apps", Title: "Apps:"},
		&cobra.Group{ID: "inside", Title: "Into containers:"},
		&cobra.Group{ID: "packages", Title: "Packages:"},
		&cobra.Group{ID: "delivery", Title: "Continuous delivery:"},
		&cobra.Group{ID: "things", Title: "What apps use:"},
		&cobra.Group{ID: "cluster", Title: "The cluster and this machine:"},
	)
	a.addCommands(root)
	a.addServerCommands(more)
	root.AddCommand(more...)
	root.SetHelpCommand(helpCommand())
	root.SetHelpCommandGroupID("cluster")
	root.SetCompletionCommandGroupID("cluster")
	root.InitDefaultCompletionCmd()
	completionExamples(root)
	root.InitDefaultHelpCmd()
	strict(root)
	return root
}

// plainUsages takes out of flags' texts the backticks that name a flag's value:
// help puts them to use, a shell that completes shows them.
func plainUsages(c *cobra.Command) {
	plain := func(f *pflag.Flag) { f.Usage = strings.ReplaceAll(f.Usage, "`", "") }
	c.LocalFlags().VisitAll(plain)
	for _, sub := range c.Commands() {
		plainUsages(sub)
	}
}

// completionExamples gives cobra's own command what every other has.
func completionExamples(root *cobra.Command) {
	for _, c := range root.Commands() {
		if c.Name() != "completion" {
			continue
		}
		c.Example = "  fairlead completion bash   # `fairlead completion bash --help` says where it goes"
		for _, shell := range c.Commands() {
			shell.Example = "  fairlead completion " + shell.Name()
		}
	}
}

// checkFlags checks the flags that all commands have: -p is refused where nothing is of
// an app.
func (a *app) checkFlags(cmd *cobra.Command) error {
	switch a.output {
	case formatTable, formatWide, formatJSON, formatYAML:
	default:
		return usagef("-o %s: use table, wide, json or yaml", a.output)
	}
	top := cmd
	for top.HasParent() && top.Parent().HasParent() {
		top = top.Parent()
	}
	if f := cmd.Flag("app"); f != nil && f.Changed && (top.GroupID == "cluster" || top.Name() == "cert") {
		return usagef("%s is not about one app: leave out -p", cmd.CommandPath())
	}
	return nil
}

// terminal reports whether output goes to a person's terminal.
func (a *app) terminal() bool {
	f, ok := a.errw.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// columns is how wide the terminal is, 0 where none is.
func (a *app) columns() int {
	if f, ok := a.errw.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil {
			return w
		}
	}
	return 0
}

// human reports whether the command prints for people, not for programs.
func (a *app) human() bool { return a.output == formatTable || a.output == formatWide }

// note tells people something beside the result; programs read only the result.
func (a *app) note(format string, args ...any) {
	_, _ = fmt.Fprintf(a.errw, format+"\n", args...)
}
