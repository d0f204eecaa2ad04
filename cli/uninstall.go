package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
)

func (a *app) uninstallCommand() *cobra.Command {
	var keep, purge, yes bool
	var hooks hookFlags
	c := &cobra.Command{
		Use: "uninstall NAME...", Short: "Remove apps that came from packages; their volumes and secrets stay", Args: rangeArgs(1, -1, "the app"), ValidArgsFunction: a.completeApps(),
		Long:    "Removes each app and waits until its tasks are gone. With --keep-history, `fairlead rollback`\nbrings it back. It ends with the first that cannot be removed.",
		Example: "  fairlead uninstall shop\n  fairlead uninstall shop blog\n  fairlead uninstall shop --keep-history",
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			for _, name := range args {
				if err := cluster.ValidAppName(cluster.AppName(name)); err != nil {
					return err
				}
			}
			if purge && keep {
				return usagef("--purge-secrets and --keep-history exclude each other: without its secrets the app cannot come back")
			}
			if purge && !yes {
				question := fmt.Sprintf("Remove app %s and its secrets?", args[0])
				if len(args) > 1 {
					question = fmt.Sprintf("Remove apps %s and their secrets?", strings.Join(args, ", "))
				}
				if err := a.ask(cmd.Context(), question); err != nil {
					return err
				}
			}
			how := v1.RemoveOptions{PurgeSecrets: purge, KeepHistory: keep, NoHooks: hooks.none, Timeout: hooks.timeout}
			var removed []v1.RemoveResult
			for _, name := range args {
				res, err := cl.Remove(cmd.Context(), cluster.AppName(name), how)
				if err == nil {
					err = a.waitGone(cmd, cl, res)
				}
				if err != nil {
					return a.stoppedAt(name, removed, args, err)
				}
				removed = append(removed, res)
			}
			return a.printRemoved(removed...)
		}),
	}
	f := c.Flags()
	f.BoolVar(&keep, "keep-history", false, "keep its releases, so that a rollback brings it back")
	f.BoolVar(&purge, "purge-secrets", false, "remove its secrets too")
	f.BoolVarP(&yes, "yes", "y", false, "do not ask")
	hooks.register(c)
	return c
}

// stoppedAt says of several apps which are removed, where one of them could not be.
func (a *app) stoppedAt(name string, removed []v1.RemoveResult, all []string, err error) error {
	if len(removed) > 0 {
		if perr := a.printRemoved(removed...); perr != nil {
			return perr
		}
	}
	if len(all) > 1 {
		return fmt.Errorf("%s: %w", name, err)
	}
	return err
}

// printRemoved prints one as itself, and several as a list.
func (a *app) printRemoved(list ...v1.RemoveResult) error {
	var whole any = list
	if len(list) == 1 {
		whole = list[0]
	}
	return a.print(whole, func() *table {
		t := &table{columns: columns("WHAT", "NAME")}
		for _, res := range list {
			for _, s := range res.Services {
				t.add("removed service", string(s))
			}
			for _, s := range res.KeptSecrets {
				t.add("kept secret", s)
			}
			for _, v := range res.KeptVolumes {
				t.add("kept volume", v)
			}
		}
		return t
	})
}
