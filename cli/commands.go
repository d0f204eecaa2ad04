package cli

import (
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead/fairlead/client"
)

func (a *app) addCommands(root *cobra.Command) {
	group := func(id string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = id
			root.AddCommand(c)
		}
	}
	group("apps", a.deployCommand(), a.planCommand(), a.rmCommand(), a.lsCommand(), a.psCommand(), a.statusCommand(),
		a.serviceCommand(), a.inspectCommand(), a.explainCommand(), a.scaleCommand(), a.restartCommand(),
		a.updateCommand(), a.rollbackCommand(), a.historyCommand(), a.exposureCommand())
	group("inside", a.logsCommand(), a.execCommand(), a.portForwardCommand(), a.cpCommand())
	group("packages", a.installCommand(), a.upgradeCommand(), a.uninstallCommand(), a.getCommand(), a.chartCommand())
	group("delivery", a.deliveryCommand(), a.traceCommand())
	root.AddCommand(a.renderCommand(), a.deliverCommand())
	group("things", a.secretCommand(), a.certCommand(), a.imageCommand())
	group("cluster", a.nodeCommand(), a.tokenCommand(), a.labCommand(), a.contextCommand(), a.versionCommand())
}

// client connects to the chosen server; nothing is sent yet.
func (a *app) client() (*client.Client, error) {
	e, err := a.conn.endpoint()
	if err != nil {
		return nil, err
	}
	o := e.options()
	o.Stale = a.sayStale
	return client.New(o)
}

// sayStale tells, once and beside what is printed, that it may be old.
func (a *app) sayStale(server string, since time.Duration) {
	if !a.saidStale.Swap(true) {
		a.note("server %s has not heard from a majority for %s: what follows may be old", server, span(since))
	}
}

func (a *app) versionCommand() *cobra.Command {
	type versions struct {
		Client string `json:"client"`
		Go     string `json:"go"`
		Server string `json:"server,omitempty"`
	}
	return &cobra.Command{
		Use: "version", Short: "Print the versions of this program and of the server", Args: noArgs,
		Example: "  fairlead version -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := versions{Client: Version, Go: runtime.Version()}
			if cl, err := a.client(); err == nil {
				if info, err := cl.Server(cmd.Context()); err == nil {
					v.Server = info.Version
				}
			}
			return a.print(v, func() *table {
				t := &table{columns: columns("PART", "VERSION")}
				t.add("client", v.Client)
				t.add("server", v.Server)
				t.add("go", v.Go)
				return t
			})
		},
	}
}
