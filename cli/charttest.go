package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
)

func (a *app) chartTest() *cobra.Command {
	var logs bool
	var filter []string
	var timeout time.Duration
	c := &cobra.Command{
		Use: "test NAME", Short: "Run the tests of an installed package", Args: oneArg("the app"), ValidArgsFunction: a.completeApps(),
		Long: `Runs the package's services that are hooks of test, one after the other, and waits
for each; the first that fails ends them. They are those of the release that is
current, wherever its package came from.`,
		Example: "  fairlead chart test shop\n  fairlead chart test shop --logs --filter name=smoke",
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			name := cluster.AppName(args[0])
			if err := cluster.ValidAppName(name); err != nil {
				return err
			}
			if timeout <= 0 {
				return usagef("--timeout %s: give a time such as 5m", timeout)
			}
			req := v1.TestRequest{Timeout: cluster.Duration(timeout)}
			for _, f := range filter {
				test, ok := strings.CutPrefix(f, "name=")
				if !ok || test == "" {
					return usagef("--filter %q: write name=TEST", f)
				}
				req.Names = append(req.Names, cluster.ServiceName(test))
			}
			p, err := cl.Test(cmd.Context(), name, req)
			if err != nil {
				return err
			}
			if p, err = awaitTests(cmd.Context(), cl, name, p); err != nil {
				return err
			}
			return a.tested(cmd.Context(), cl, name, p, logs)
		}),
	}
	f := c.Flags()
	f.BoolVar(&logs, "logs", false, "print what the tests wrote")
	f.StringSliceVar(&filter, "filter", nil, "name=`TEST`: run this one alone; repeat for more")
	f.DurationVar(&timeout, "timeout", 10*time.Minute, "how long each test may take")
	return c
}

// awaitTests waits until tests are over. A server that ends meanwhile changes nothing
// about them.
func awaitTests(ctx context.Context, cl *client.Client, name cluster.AppName, p v1.HookProgress) (v1.HookProgress, error) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for id := p.ID; p.Stage != cluster.StageDone; {
		select {
		case <-ctx.Done():
			return p, failedf("stopped waiting; the tests go on: `fairlead status %s`", name)
		case <-tick.C:
		}
		d, err := cl.App(ctx, name)
		switch {
		case cluster.KindOf(err) == cluster.KindTransient:
			continue
		case err != nil:
			return p, err
		case d.Change == nil || d.Change.ID != id:
			return p, failedf("another change of %s ended its tests", name)
		}
		p = *d.Change
	}
	return p, nil
}

func (a *app) tested(ctx context.Context, cl *client.Client, name cluster.AppName, p v1.HookProgress, logs bool) error {
	if len(p.Runs) == 0 && a.human() {
		a.note("%s has no tests: no service of its package has x-fairlead: {hook: {on: [test]}}", name)
		return nil
	}
	if err := a.print(p, func() *table {
		t := &table{columns: columns("TEST", "STATE", "TIME", "NODE", "MESSAGE")}
		for _, r := range p.Runs {
			t.add(string(r.Hook), r.State, r.Ended.Sub(r.Started).Round(100*time.Millisecond).String(), string(r.Node), r.Message)
		}
		return t
	}); err != nil {
		return err
	}
	if logs && a.human() {
		for _, r := range p.Runs {
			if err := a.testLog(ctx, cl, name, r); err != nil {
				return err
			}
		}
	}
	if p.Failed {
		tail := ""
		if !logs {
			tail = strings.TrimRight("\n"+hookTail(p.Runs), "\n")
		}
		return failedf("%s%s", p.Message, tail)
	}
	return nil
}

// testLog prints what a test wrote: its log or, where its policy has removed that,
// its last lines.
func (a *app) testLog(ctx context.Context, cl *client.Client, name cluster.AppName, r cluster.HookRun) error {
	if _, err := fmt.Fprintf(a.out, "\n%s:\n", r.Hook); err != nil {
		return err
	}
	lines := 0
	say := func(text string) error {
		lines++
		_, err := fmt.Fprintln(a.out, oneLine(strings.TrimRight(text, "\n")))
		return err
	}
	err := cl.Logs(ctx, cluster.Address{App: name}, client.LogQuery{LogOptions: cluster.LogOptions{Tail: -1}, Task: r.Task}, func(l cluster.LogLine) error {
		return say(l.Text)
	})
	if err != nil && cluster.KindOf(err) != cluster.KindNotFound {
		return err
	}
	if lines == 0 {
		for _, l := range r.Tail {
			if err := say(l); err != nil {
				return err
			}
		}
	}
	return nil
}
