package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/fairlead/fairlead/client"
)

func (a *app) tokenCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "token", Short: "Who may use the API from other machines",
		Example: "  fairlead token create ci\n  fairlead token ls",
	}
	c.AddCommand(&cobra.Command{
		Use: "create NAME", Short: "Make a token; it is shown this once", Args: oneArg("the token's name"),
		Long:    "Makes a token and prints it with the line that uses it on another machine. The cluster keeps only its hash.",
		Example: "  fairlead token create ci\n  fairlead token create ci -o json | jq -r .value",
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			t, err := cl.CreateToken(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if !a.human() {
				return a.print(t, nil)
			}
			_, err = fmt.Fprintln(a.out, t.Value)
			if line := t.Line(); line != "" {
				a.note("on another machine:\n  %s", line)
			} else {
				a.note("no other machine can use it yet: this server answers on its local socket alone (--listen none)")
			}
			return err
		}),
	}, &cobra.Command{
		Use: "ls", Short: "List tokens", Args: noArgs, Example: "  fairlead token ls",
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, _ []string) error {
			list, err := cl.Tokens(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(list, func() *table {
				t := &table{columns: columns("TOKEN", "FOR", "AGE", "BY"), empty: "no tokens: only this machine's root and group fairlead use the API"}
				for _, x := range list {
					use := "the API"
					if x.Join {
						as := "nodes"
						if x.Server {
							as = "servers"
						}
						use = fmt.Sprintf("%d to join as %s until %s", x.Uses, as, x.Expires.Local().Format("2006-01-02 15:04"))
					}
					t.add(x.Name, use, age(a.now(), x.Created), x.By)
				}
				return t
			})
		}),
	}, &cobra.Command{
		Use: "rm NAME", Short: "Refuse a token from now on", Args: oneArg("the token's name"), Example: "  fairlead token rm ci",
		ValidArgsFunction: a.completeTokens(),
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			return cl.RemoveToken(cmd.Context(), args[0])
		}),
	})
	return c
}
