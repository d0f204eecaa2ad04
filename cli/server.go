package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
)

// addServerCommands puts the commands about the cluster's servers below the one
// that runs a server, where that is among more.
func (a *app) addServerCommands(more []*cobra.Command) {
	for _, c := range more {
		if c.Name() == "server" {
			c.AddCommand(a.serverList(), a.serverInvite(), a.serverRemove())
		}
	}
}

func (a *app) serverList() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List servers, and whether the store of each answers", Args: noArgs, Example: "  fairlead server ls",
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, _ []string) error {
			list, err := cl.Servers(cmd.Context())
			if err != nil {
				return err
			}
			if a.human() {
				a.serversNote(list)
			}
			return a.print(list, func() *table { return serverTable(list) })
		}),
	}
}

// serversNote says what losing servers would mean now.
func (a *app) serversNote(list []v1.ServerSummary) {
	voters, answering := 0, 0
	for _, s := range list {
		if s.Standing == v1.StandingVoter {
			voters++
			if s.Answers {
				answering++
			}
		}
	}
	switch spare := answering - (voters/2 + 1); {
	case voters == 0: // an external etcd: what it stands is its operator's to know
	case voters == 1:
		a.note("one server: while it is away nothing can be changed; three stand the loss of any one")
	case spare <= 0:
		a.note("%d of %d servers answer: with one more away nothing can be changed", answering, voters)
	}
}

func serverTable(list []v1.ServerSummary) *table {
	t := &table{columns: columns("SERVER", "STANDING", "ANSWERS", "LEADS", "STORE", "ADDRESS", "+VERSION", "PROBLEM"), empty: "no servers"}
	for _, s := range list {
		store := size(s.Size)
		if s.Standing == v1.StandingClient || s.Standing == v1.StandingNone {
			store = "-"
		}
		t.add(string(s.Node), string(s.Standing), yesNo(s.Answers), yesNo(s.Leader), store, s.API, s.Version, oneLine(s.Problem))
	}
	return t
}

func (a *app) serverInvite() *cobra.Command {
	in := v1.Invite{Server: true}
	c := &cobra.Command{
		Use: "invite", Short: "Print the line that makes another machine a server", Args: noArgs,
		Long: `Makes a join token for servers and prints the line to run on the other machine. A
server is given the keys of the cluster's authority and of its secrets: whoever has
the token before it ends has the cluster. It goes to that machine encrypted to it, over
TLS of the cluster's authority alone, which the token names.`,
		Example: "  fairlead server invite\n  fairlead server invite --ttl 10m --uses 2",
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, _ []string) error {
			return a.invite(cmd, cl, in)
		}),
	}
	c.Flags().TextVar(&in.TTL, "ttl", cluster.Duration(time.Hour), "how long the token is good for")
	c.Flags().IntVar(&in.Uses, "uses", 1, "how many machines may join with it")
	return c
}

// invite makes a join token and prints the line that uses it.
func (a *app) invite(cmd *cobra.Command, cl *client.Client, in v1.Invite) error {
	switch { // the API takes these as not given
	case in.TTL.D() <= 0:
		return cluster.Invalidf("--ttl %s: a token is good for a while: a minute to 30 days", in.TTL)
	case in.Uses <= 0:
		return cluster.Invalidf("--uses %d: one machine at least may join with a token", in.Uses)
	}
	inv, err := cl.Invite(cmd.Context(), in)
	if err != nil {
		return err
	}
	if !a.human() {
		return a.print(inv, nil)
	}
	nodes := "one machine"
	if inv.Uses > 1 {
		nodes = fmt.Sprintf("%d machines", inv.Uses)
	}
	a.note("run this on the other machine, where this program is; it is good for %s, until %s:", nodes, inv.Expires.Local().Format("2006-01-02 15:04"))
	_, err = fmt.Fprintln(a.out, inv.Line())
	return err
}

func (a *app) serverRemove() *cobra.Command {
	force := false
	c := &cobra.Command{
		Use: "rm SERVER", Short: "Take a server out of the cluster", Args: oneArg("the server's name"),
		Long: `Takes a server out of the store. It ends there; its containers run on until it is
removed (` + "`fairlead system uninstall --purge`" + `), and its node is forgotten with
` + "`fairlead node rm`" + `. Refused where those that are left and answer would be no majority:
nothing could be changed any more; and where it runs containers, as nobody would look
after them: ` + "`fairlead node drain`" + ` moves them away first. It had the cluster's keys: this
does not take them back from that machine.`,
		Example: "  fairlead node drain n3\n  fairlead server rm n3", ValidArgsFunction: a.completeServers(),
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			return cl.RemoveServer(cmd.Context(), cluster.NodeID(args[0]), force)
		}),
	}
	c.Flags().BoolVar(&force, "force", false, "also when it runs containers: they run on there, and are replaced elsewhere")
	return c
}

func (a *app) completeServers() completion {
	return a.offer(1, func(ctx context.Context, cl *client.Client) ([]string, error) {
		list, err := cl.Servers(ctx)
		return named(list, err, func(x v1.ServerSummary) string { return string(x.Node) })
	})
}
