package cli

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
)

// completion offers words for the argument that is being typed.
type completion = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective)

// offer makes a completion of what the server knows, for the first most arguments
// (-1: for all). Where no server answers there is nothing to offer.
func (a *app) offer(most int, names func(ctx context.Context, cl *client.Client) ([]string, error)) completion {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if most >= 0 && len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		cl, err := a.client()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		found, err := names(cmd.Context(), cl)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return found, cobra.ShellCompDirectiveNoFileComp
	}
}

// named lists the names of things.
func named[T any](list []T, err error, name func(T) string) ([]string, error) {
	var out []string
	for _, x := range list {
		out = append(out, name(x))
	}
	return out, err
}

func (a *app) completeApps() completion {
	return a.offer(1, func(ctx context.Context, cl *client.Client) ([]string, error) {
		list, err := cl.Apps(ctx)
		return named(list, err, func(x v1.AppSummary) string { return string(x.Name) })
	})
}

// completeServices offers the addresses of services: the first, or all of them.
func (a *app) completeServices(most int) completion {
	return a.offer(most, func(ctx context.Context, cl *client.Client) ([]string, error) {
		list, err := cl.Services(ctx, cluster.AppName(a.appFlag))
		names, err := named(list, err, func(x v1.ServiceSummary) string { return x.String() })
		return a.short(names), err
	})
}

// short adds to addresses what those of the app here are written as: "web" for "shop/web".
func (a *app) short(names []string) []string {
	here, err := a.current()
	if err != nil || here.app == "" {
		return names // a key pressed must not print errors
	}
	var out []string
	for _, n := range names {
		if plain, its := strings.CutPrefix(n, string(here.app)+"/"); its {
			out = append(out, plain)
		}
	}
	return append(out, names...)
}

// withTasks offers tasks too once a slot is begun: "shop/web.".
func (a *app) withTasks(most int, rest completion) completion {
	tasks := a.offer(most, func(ctx context.Context, cl *client.Client) ([]string, error) {
		list, err := cl.Tasks(ctx, cluster.AppName(a.appFlag), false)
		names, err := named(list, err, func(x v1.TaskStatus) string { return x.Address })
		return a.short(names), err
	})
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if strings.Contains(typed, ".") {
			return tasks(cmd, args, typed)
		}
		return rest(cmd, args, typed)
	}
}

// completeTargets offers apps beside services, where a command takes either.
func (a *app) completeTargets(most int) completion {
	apps, services := a.completeApps(), a.completeServices(most)
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		whole, _ := apps(cmd, args, typed)
		parts, d := services(cmd, args, typed)
		return append(whole, parts...), d
	}
}

func (a *app) completeNodes() completion {
	return a.offer(1, func(ctx context.Context, cl *client.Client) ([]string, error) {
		list, err := cl.Nodes(ctx)
		return named(list, err, func(x v1.NodeSummary) string { return string(x.ID) })
	})
}

func (a *app) completeSecrets() completion {
	return a.offer(1, func(ctx context.Context, cl *client.Client) ([]string, error) {
		list, err := cl.Secrets(ctx, cluster.AppName(a.appFlag))
		names, err := named(list, err, func(x v1.SecretSummary) string { return x.String() })
		return a.short(names), err
	})
}

func (a *app) completeCerts() completion {
	return a.offer(1, func(ctx context.Context, cl *client.Client) ([]string, error) {
		list, err := cl.Certs(ctx)
		return named(list, err, func(x v1.CertSummary) string { return x.Name })
	})
}

func (a *app) completeTokens() completion {
	return a.offer(1, func(ctx context.Context, cl *client.Client) ([]string, error) {
		list, err := cl.Tokens(ctx)
		return named(list, err, func(x cluster.Token) string { return x.Name })
	})
}

// completeCounts offers services with the sign that a count follows.
func (a *app) completeCounts() completion {
	services := a.completeServices(-1)
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		names, d := services(cmd, args, typed)
		for i := range names {
			names[i] += "="
		}
		return names, d | cobra.ShellCompDirectiveNoSpace
	}
}

// completeImages offers the services of the app that is updated.
func (a *app) completeImages(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	names, d := a.offer(-1, func(ctx context.Context, cl *client.Client) ([]string, error) {
		app, err := a.appArg(args)
		if err != nil {
			return nil, err
		}
		list, err := cl.Services(ctx, app)
		return named(list, err, func(x v1.ServiceSummary) string { return string(x.Name) + "=" })
	})(cmd, args, typed)
	return names, d | cobra.ShellCompDirectiveNoSpace
}

// completeCopy offers containers beside the files here.
func (a *app) completeCopy() completion {
	services := a.withTasks(-1, a.completeServices(-1))
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		names, _ := services(cmd, args, typed)
		for i := range names {
			names[i] += ":"
		}
		return names, cobra.ShellCompDirectiveNoSpace // and files
	}
}

func completeContexts(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	known, err := loadContexts()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return slices.Sorted(maps.Keys(known.Known)), cobra.ShellCompDirectiveNoFileComp
}

// completeFiles leaves it to the shell: a package may be a directory or a file.
func completeFiles(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveDefault
}
