package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
)

func (a *app) nodeCommand() *cobra.Command {
	c := &cobra.Command{Use: "node", Short: "Look at nodes, label and drain them, let machines join", Example: "  fairlead node ls\n  fairlead node drain n2"}
	c.AddCommand(a.nodeList(), a.nodeInspect(), a.nodeLabel(), a.nodeInvite(), a.nodeRemove(),
		a.nodeAvailability("pause", cluster.Pause, "Give a node no new tasks"),
		a.nodeDrain(),
		a.nodeAvailability("activate", cluster.Active, "Let a node take tasks again"))
	return c
}

func nodeTable(list []v1.NodeSummary) *table {
	t := &table{
		columns: columns("NODE", "ALIVE", "AVAILABILITY", "ROLES", "TASKS", "CPU", "MEMORY", "ADDRESS", "+ENGINE", "+VERSION", "+OS", "LABELS"),
		empty:   "no nodes",
	}
	for _, n := range list {
		var labels []string
		for k, v := range n.Labels {
			labels = append(labels, k+"="+v)
		}
		avail := n.Availability
		if avail == "" {
			avail = cluster.Active
		}
		alive := yesNo(n.Alive)
		if n.Alive && n.EngineAway {
			alive = "no engine"
		}
		t.add(string(n.ID), alive, string(avail), strings.Join(n.Roles, ","), fmt.Sprint(n.Tasks),
			fmt.Sprintf("%.2f/%.2f", float64(n.ReservedCPU)/1000, float64(n.CPU)/1000),
			fmt.Sprintf("%s/%s", size(n.ReservedMemory), size(n.Memory)), n.Address, n.Engine, n.Version, n.OS+"/"+n.Arch, strings.Join(labels, " "))
	}
	return t
}

func (a *app) nodeList() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List nodes, with what is reserved of them", Args: noArgs, Example: "  fairlead node ls -o wide",
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, _ []string) error {
			list, err := cl.Nodes(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(list, func() *table { return nodeTable(list) })
		}),
	}
}

func (a *app) nodeInspect() *cobra.Command {
	return &cobra.Command{
		Use: "inspect NODE", Short: "Print all that is known of a node", Args: oneArg("the node's name"),
		Example: "  fairlead node inspect n1", ValidArgsFunction: a.completeNodes(),
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			n, err := cl.Node(cmd.Context(), cluster.NodeID(args[0]))
			if err != nil {
				return err
			}
			return a.whole(n, formatJSON)
		}),
	}
}

func (a *app) nodeLabel() *cobra.Command {
	return &cobra.Command{
		Use: "label NODE KEY=VALUE|KEY-...", Short: "Set labels of a node, or remove them with KEY-",
		Example: "  fairlead node label n1 zone=a disk-", Args: rangeArgs(2, -1, "NODE and KEY=VALUE"), ValidArgsFunction: a.completeNodes(),
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			ch := v1.NodeChange{Labels: map[string]string{}}
			for _, l := range args[1:] {
				k, v, ok := strings.Cut(l, "=")
				switch {
				case ok && k != "":
					ch.Labels[k] = v
				case !ok && strings.HasSuffix(l, "-") && len(l) > 1:
					ch.Unset = append(ch.Unset, strings.TrimSuffix(l, "-"))
				default:
					return usagef("%q: write KEY=VALUE, or KEY- to remove it", l)
				}
			}
			return a.changeNode(cmd, cl, args[0], ch)
		}),
	}
}

func (a *app) nodeInvite() *cobra.Command {
	var in v1.Invite
	c := &cobra.Command{
		Use: "invite", Short: "Print the line that makes another machine a node", Args: noArgs,
		Long: `Makes a join token and prints the line to run on the other machine. The token ends
after --ttl or --uses nodes; ` + "`fairlead token ls`" + ` shows it, and ` + "`fairlead token rm`" + ` takes it
back. It names the cluster's certificate authority, so the new node trusts nobody else.`,
		Example: "  fairlead node invite\n  fairlead node invite --ttl 24h --uses 5",
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, _ []string) error {
			return a.invite(cmd, cl, in)
		}),
	}
	c.Flags().TextVar(&in.TTL, "ttl", cluster.Duration(time.Hour), "how long the token is good for")
	c.Flags().IntVar(&in.Uses, "uses", 1, "how many machines may join with it")
	return c
}

func (a *app) nodeRemove() *cobra.Command {
	var o v1.NodeRemoveOptions
	c := &cobra.Command{
		Use: "rm NODE", Short: "Refuse a node from now on, and forget it", Args: oneArg("the node's name"),
		Long: `The node's certificate is refused at once, and its tasks are replaced on other
nodes. What it runs goes on there until it is stopped on that machine.

Tasks with a local volume wait for the node that has it: they are never started
with an empty one elsewhere unless --lose-volumes gives up the volumes of this
node, now or after it was removed.`,
		Example: "  fairlead node rm n2\n  fairlead node rm n2 --force\n  fairlead node rm n2 --lose-volumes", ValidArgsFunction: a.completeNodes(),
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			return cl.RemoveNode(cmd.Context(), cluster.NodeID(args[0]), o)
		}),
	}
	c.Flags().BoolVar(&o.Force, "force", false, "also when the node is alive")
	c.Flags().BoolVar(&o.LoseVolumes, "lose-volumes", false, "start tasks that have volumes there anew elsewhere, with empty ones")
	return c
}

func (a *app) nodeAvailability(use string, to cluster.Availability, short string) *cobra.Command {
	return &cobra.Command{
		Use: use + " NODE", Short: short, Args: oneArg("the node's name"),
		Example: "  fairlead node " + use + " n1", ValidArgsFunction: a.completeNodes(),
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			return a.changeNode(cmd, cl, args[0], v1.NodeChange{Availability: to})
		}),
	}
}

func (a *app) changeNode(cmd *cobra.Command, cl *client.Client, id string, ch v1.NodeChange) error {
	n, err := cl.ChangeNode(cmd.Context(), cluster.NodeID(id), ch)
	if err != nil {
		return err
	}
	return a.print(n, func() *table { return nodeTable([]v1.NodeSummary{n}) })
}
