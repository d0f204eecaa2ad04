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
	var keep, purge, yes, detach, missing bool
	var description string
	var hooks hookFlags
	var helm helmFlags
	c := &cobra.Command{
		Use: "uninstall NAME...", Short: "Remove apps that came from packages; their volumes and secrets stay", Args: rangeArgs(1, -1, "the app"), ValidArgsFunction: a.completeApps(),
		Long:    "Removes each app and waits until its tasks are gone, unless told otherwise. With --keep-history, `fairlead rollback`\nbrings it back. It ends with the first that cannot be removed.",
		Example: "  fairlead uninstall shop\n  fairlead uninstall shop blog\n  fairlead uninstall shop --keep-history\n  fairlead uninstall shop --ignore-not-found --detach",
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			if err := helm.check("`fairlead status NAME` says what there is of an app; volumes and secrets stay"); err != nil {
				return err
			}
			if description != "" {
				a.note("--description: a removal is not described; it is not kept")
			}
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
			removed := []v1.RemoveResult{}
			for _, name := range args {
				res, err := cl.Remove(cmd.Context(), cluster.AppName(name), how)
				switch {
				case missing && cluster.KindOf(err) == cluster.KindNotFound:
					a.note("there is no app %s", name)
					continue
				case err == nil && !detach && helm.waits:
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
	f.BoolVarP(&detach, "detach", "d", false, "do not wait until its tasks are gone")
	f.BoolVar(&missing, "ignore-not-found", false, "pass over apps that are not there")
	hooks.register(c)
	helm.register(c, "debug")
	f.StringVar(&helm.cascade, "cascade", "", "Helm's; background and foreground mean the same here")
	f.StringVar(&description, "description", "", "Helm's; a removal has none")
	hide(f, "cascade", "description")
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
		if len(list) == 0 {
			t.empty = "nothing was there to remove"
		}
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
