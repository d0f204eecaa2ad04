package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/gateway"
	"github.com/fairlead/fairlead/store/embedded"
)

func uninstallCommand() *cobra.Command {
	var cfg Config
	var yes, purge, force bool
	c := &cobra.Command{
		Use: "uninstall", Short: "Stop the server and remove it from this machine",
		Long: `Stops the server and removes its unit and program. Containers, volumes and data
stay unless --purge is given, which removes everything of this cluster on this
machine: its containers, networks, volumes, Traefik, firewall rules and data.

One of several servers is first taken out of the cluster, with ` + "`fairlead server rm`" + `
on another one: as long as its vote is counted, the others may be no majority
without it, and nothing can be changed any more. That is asked while it runs;
--force goes on all the same.

It is about this machine's service, wherever that has its directories; with
another --data-dir, about the server there, which was started by hand: the
service and the program then stay.`,
		Example: "  sudo fairlead system uninstall\n  sudo fairlead system uninstall --purge --yes",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := requireRoot("system uninstall"); err != nil {
				return err
			}
			s, err := installed()
			if err != nil {
				return err
			}
			t := choose(s, cfg)
			if err = t.SetDefaults(); err == nil && purge {
				err = errors.Join(removable(t.DataDir, "--data-dir", "server.pid", "pki", "server.log"), removable(t.RunDir, "--run-dir", "server.lock"))
			}
			if err != nil {
				return err
			}
			if !force {
				if err := mayLeave(cmd.Context(), t.Config); err != nil {
					return err
				}
			}
			if purge && !yes {
				if err := confirm(cmd, "This removes every container, volume and all data of the cluster of "+t.DataDir+" on this machine. Type yes to go on: "); err != nil {
					return err
				}
			}
			format, progress := output(cmd)
			if err := uninstall(cmd.Context(), t, s, purge, progress); err != nil || format == "" {
				return err
			}
			return printDocument(cmd.OutOrStdout(), format, map[string]any{"data_dir": t.DataDir, "run_dir": t.RunDir, "service": t.service != nil, "purged": purge})
		},
	}
	c.Flags().Var((*absolute)(&cfg.DataDir), "data-dir", "the server's data directory (default: that of this machine's service, else "+defaultDataDir+")")
	c.Flags().Var((*absolute)(&cfg.RunDir), "run-dir", "the server's run directory (default: that of this machine's service, else "+defaultRunDir+")")
	c.Flags().StringVar(&cfg.Docker, "docker", "", "the Docker engine's address")
	c.Flags().BoolVar(&purge, "purge", false, "remove containers, volumes and data too")
	c.Flags().BoolVar(&force, "force", false, "also one of several servers whose vote the others still count")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}

func confirm(cmd *cobra.Command, question string) error {
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return cluster.Invalidf("nobody is there to confirm: add --yes")
	}
	_, _ = fmt.Fprint(cmd.ErrOrStderr(), question)
	answer := make(chan string, 1)
	go func() { // cannot be interrupted
		var a string
		_, _ = fmt.Fscanln(in, &a)
		answer <- a
	}()
	select {
	case a := <-answer:
		if a == "yes" {
			return nil
		}
	case <-cmd.Context().Done():
	}
	return cluster.Invalidf("not confirmed: nothing was changed")
}

func uninstall(ctx context.Context, t target, s *service, purge bool, out io.Writer) error {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(out, format+"\n", args...) }
	if _, err := os.Stat(t.DataDir); errors.Is(err, os.ErrNotExist) && t.service == nil {
		say("no server was here: there is no %s", t.DataDir)
	}
	if t.service != nil {
		if t.service.file == unitFile {
			_ = exec.CommandContext(ctx, "systemctl", "disable", "--now", unitName).Run()
		}
		if err := os.Remove(t.service.file); err != nil {
			return err
		}
		if t.service.file == unitFile {
			_ = exec.CommandContext(ctx, "systemctl", "daemon-reload").Run()
			say("removed %s", t.service.file)
		}
	}
	if pid := runningPID(t.Config); pid != 0 {
		if err := stopPID(ctx, pid); err != nil {
			return err
		}
		say("stopped the server")
	}
	if purge {
		if err := removeEverything(ctx, t.Config, out); err != nil {
			return err
		}
	}
	if t.service == nil && s != nil {
		say("this machine's service (%s) runs the server of %s: it stays, and so does %s", s.file, s.cfg.DataDir, programPath)
		return nil
	}
	if t.service == nil && t.DataDir != defaultDataDir {
		return nil // a server run by hand
	}
	if purge {
		if err := os.RemoveAll(gateway.LibDir); err != nil {
			return err
		}
	}
	if err := os.Remove(programPath); err == nil {
		say("removed %s", programPath)
	}
	return nil
}

// counted asks a server that runs who the servers are, as the store has them.
// *client.Client does.
type counted interface {
	Status(ctx context.Context) (v1.ClusterStatus, error)
	Servers(ctx context.Context) ([]v1.ServerSummary, error)
}

// leaveWait is how long a server has to say who the servers are: one that was taken out
// just now still ends, and one that starts has not read its store.
const leaveWait = 20 * time.Second

// mayLeave refuses to stop for good a server whose vote the others count. One that does
// not run is not asked, nor one without a store of its own.
func mayLeave(ctx context.Context, cfg Config) error {
	if !embedded.HasData(cfg.etcdDir()) {
		return nil
	}
	cl, err := client.New(client.Options{Socket: cfg.Socket(), Timeout: leaveWait / 2})
	if err != nil {
		return err
	}
	defer cl.Close()
	return votesNot(ctx, cl)
}

// votesNot is nil when the server that is asked does not run, or the others do not count
// on its vote.
func votesNot(ctx context.Context, s counted) error {
	wait, cancel := context.WithTimeout(ctx, leaveWait)
	defer cancel()
	for {
		var list []v1.ServerSummary
		st, err := s.Status(wait)
		if err == nil {
			list, err = s.Servers(wait)
		}
		if err == nil {
			return notCounted(list, st.Node)
		}
		_, answered := errors.AsType[*client.Error](err)
		switch {
		case !answered && wait.Err() == nil, cluster.KindOf(err) == cluster.KindInvalid: // none can join one that does not listen
			return nil
		}
		select {
		case <-wait.Done():
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return cluster.Invalidf("this server runs, and cannot say whether others count its vote, for then they may be no majority without it: %w; wait until it can, or --force", err)
		case <-time.After(time.Second):
		}
	}
}

// notCounted refuses when self votes among others.
func notCounted(list []v1.ServerSummary, self cluster.NodeID) error {
	votes, others := false, 0
	for _, s := range list {
		switch {
		case s.Standing != v1.StandingVoter:
		case s.Node == self:
			votes = true
		default:
			others++
		}
	}
	if !votes || others == 0 {
		return nil
	}
	return cluster.Invalidf("%s is one of %d servers, and the others count its vote: first `fairlead server rm %s` on another server, or they may be no majority without it, and nothing can be changed any more; --force to go on all the same",
		self, others+1, self)
}
