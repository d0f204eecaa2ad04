package cli

import (
	"context"

	"github.com/spf13/cobra"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
)

// body is what a command does.
type body = func(*cobra.Command, []string) error

// withClient is the body of a command that talks to the server.
func (a *app) withClient(f func(cmd *cobra.Command, cl *client.Client, args []string) error) body {
	return func(cmd *cobra.Command, args []string) error {
		cl, err := a.client()
		if err != nil {
			return err
		}
		return a.lost(f(cmd, cl, args))
	}
}

// listing is the body of a command that lists things of one app, or of all.
func listing[T any](a *app, get func(*client.Client, context.Context, cluster.AppName) ([]T, error), show func([]T) *table) body {
	return a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
		name, err := a.filter(args)
		if err != nil {
			return err
		}
		list, err := get(cl, cmd.Context(), name)
		if err == nil {
			err = exists(cmd.Context(), cl, name, len(list))
		}
		if err != nil {
			return err
		}
		return a.print(list, func() *table { return show(list) })
	})
}

// change asks the server to change an app.
type change = func(context.Context, *client.Client) (v1.DeployResult, error)

// changing is the body of a command that changes an app and waits for it. What is
// wrong with the arguments is found before the server is asked.
func (a *app) changing(w *waitFlags, read func(args []string) (change, error)) body {
	return func(cmd *cobra.Command, args []string) error {
		do, err := read(args)
		if err == nil {
			err = w.check()
		}
		if err != nil {
			return err
		}
		cl, err := a.client()
		if err != nil {
			return err
		}
		res, err := do(cmd.Context(), cl)
		if err != nil {
			return a.lost(err)
		}
		return a.finish(cmd.Context(), cl, res, w)
	}
}
