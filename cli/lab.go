package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/lab"
)

// labFlags say which lab is meant.
type labFlags struct{ name, root string }

func (l *labFlags) dir() lab.Dir { return lab.DirOf(l.root, l.name) }

func (a *app) labCommand() *cobra.Command {
	l := &labFlags{}
	c := &cobra.Command{
		Use: "lab", Short: "Run a cluster of real nodes on this one machine",
		Long: `A lab is a cluster on one Linux machine, to try things, to teach and to test: each
node has a network, a Docker engine and a Fairlead of its own, and a cable to the
lab's switch. Nothing of the machine itself is changed: its own Docker, firewall,
routes and links stay as they are, and ` + "`fairlead lab down`" + ` leaves nothing behind.
Needs root. docs/lab.md goes through all of it.`,
		Example: "  sudo fairlead lab up --nodes 3\n  sudo fairlead lab status\n  sudo fairlead lab down",
	}
	f := c.PersistentFlags()
	f.StringVar(&l.name, "name", lab.DefaultName, "the lab's name: there may be several")
	f.StringVar(&l.root, "dir", lab.DefaultRoot, "directory, on a disk, of what labs keep")
	_ = c.RegisterFlagCompletionFunc("name", l.completeLabs)
	c.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if err := a.checkFlags(cmd); err != nil { // of the root command, which this replaces
			return err
		}
		root, err := filepath.Abs(l.root) // the lab's own processes are elsewhere
		if err != nil {
			return err
		}
		l.root = root
		return lab.ValidName(l.name)
	}
	c.AddCommand(a.labUp(l), a.labStatus(l), a.labLoad(l), a.labExec(l), a.labShell(l),
		a.labChange(l, lab.OpKill, "kill NODE", "Cut a node's power, or kill its engine or Fairlead",
			"NODE is a node: all that runs on it ends at once, its disk stays. NODE/docker and\nNODE/fairlead are the two programs that it keeps running: a killed one stays away\nuntil it is started again.",
			"  sudo fairlead lab kill n2\n  sudo fairlead lab kill n2/docker"),
		a.labChange(l, lab.OpStart, "start NODE", "Give a node its power again, or start its engine or Fairlead", "",
			"  sudo fairlead lab start n2\n  sudo fairlead lab start n2/docker"),
		a.labLink(l, lab.OpCut, "cut", "Cut a node's link, or the one between two nodes"),
		a.labLink(l, lab.OpHeal, "heal", "Mend a link that was cut"),
		a.labSlow(l),
		a.labSnapshot(l, lab.OpSnapshot, "snapshot", "Keep a copy of all nodes' disks"),
		a.labSnapshot(l, lab.OpRestore, "restore", "Give all nodes the disks of a snapshot"),
		a.labDown(l), labRack(), labMachine())
	return c
}

func (a *app) labUp(l *labFlags) *cobra.Command {
	spec := lab.Spec{}
	traefik, limit := "", time.Duration(0)
	c := &cobra.Command{
		Use: "up", Short: "Make a lab, or start one again, and wait until it is ready", Args: noArgs,
		Long: `Makes a lab and waits until all its nodes are in the cluster and its gateway serves.
One that is there is left as it is; one that does not run, after a restart of this
machine say, starts with what its nodes have on disk. A lab that was interrupted while
it was made is taken down, or can be.`,
		Example: "  sudo fairlead lab up --nodes 3\n  sudo fairlead lab up --name two --nodes 2 --engine current",
		RunE: func(cmd *cobra.Command, _ []string) error {
			want := spec
			want.Name = l.name
			if have, err := lab.Read(l.dir()); err == nil { // what is not asked for stays
				want = have.Spec
				for flag, set := range map[string]func(){
					"nodes": func() { want.Nodes = spec.Nodes }, "servers": func() { want.Servers = spec.Servers },
					"gateways": func() { want.Gateways = spec.Gateways }, "engine": func() { want.Engine = spec.Engine },
					"domain": func() { want.Domain = spec.Domain }, "log-level": func() { want.LogLevel = spec.LogLevel },
				} {
					if cmd.Flags().Changed(flag) {
						set()
					}
				}
			}
			st, err := lab.Find(cmd.Context(), l.root, want, traefik)
			if err != nil {
				return err
			}
			s, err := lab.Up(cmd.Context(), l.root, st, limit, a.errw)
			if err != nil {
				return err
			}
			if a.human() {
				return a.labReach(s)
			}
			return a.print(s, nil)
		},
	}
	f := c.Flags()
	f.IntVar(&spec.Nodes, "nodes", 3, "how many nodes")
	f.IntVar(&spec.Servers, "servers", 1, "how many of them run a control plane")
	f.IntVar(&spec.Gateways, "gateways", 1, "how many of them run a gateway; 0 needs no Traefik")
	f.StringVar(&spec.Engine, "engine", lab.EngineDistro, "Docker of the nodes: distro (this machine's dockerd), current (the one of make engine), or a directory with dockerd and runc")
	f.StringVar(&spec.Domain, "domain", "localhost", "routes without a host get <service>.<app>.<domain>")
	f.StringVar(&spec.LogLevel, "log-level", "info", "of Fairlead on the nodes: trace, debug, info, warn or error")
	f.StringVar(&traefik, "traefik", "", "the Traefik v3 program (default: the one on PATH, else the cached one)")
	f.DurationVar(&limit, "timeout", 2*time.Minute, "how long to wait; the lab goes on coming up afterwards")
	_ = c.RegisterFlagCompletionFunc("engine", cobra.FixedCompletions([]string{lab.EngineDistro, lab.EngineCurrent}, cobra.ShellCompDirectiveFilterDirs))
	return c
}

// labReach says how a lab is reached from this machine.
func (a *app) labReach(s lab.Status) error {
	var b strings.Builder
	flag := ""
	if s.Name != "lab" {
		flag = "--name " + s.Name + " "
	}
	fmt.Fprintf(&b, "lab %s is ready: %s\n\n", s.Name, count(len(s.Nodes), "node"))
	fmt.Fprintf(&b, "  export FAIRLEAD_SOCKET=%s    # fairlead talks to it from here\n", s.Socket)
	for _, n := range s.Nodes {
		if n.Socket != "" && n.Socket != s.Socket {
			fmt.Fprintf(&b, "  %-50s    # FAIRLEAD_SOCKET of %s, when %s is away\n", n.Socket, n.Name, s.Nodes[0].Name)
		}
	}
	for _, n := range s.Nodes {
		for _, u := range n.URLs {
			fmt.Fprintf(&b, "  %-50s    # the gateway of %s\n", u, n.Name)
		}
	}
	for _, n := range s.Nodes[:1] {
		fmt.Fprintf(&b, "  docker -H %s ps    # the engine of %s\n", n.DockerHost, n.Name)
	}
	fmt.Fprintf(&b, "  fairlead lab %sshell n1    # a shell on a node\n", flag)
	_, err := fmt.Fprint(a.out, b.String())
	return err
}

func (a *app) labStatus(l *labFlags) *cobra.Command {
	var limit time.Duration
	c := &cobra.Command{
		Use: "status", Short: "Show a lab, or all of them, node by node", Args: noArgs,
		Example: "  sudo fairlead lab status\n  sudo fairlead lab status --name two -o json\n  sudo fairlead lab status --wait 1m",
		RunE: func(cmd *cobra.Command, _ []string) error {
			names := []string{l.name}
			if !cmd.Flags().Changed("name") {
				var err error
				if names, err = lab.List(l.root); err != nil {
					return err
				}
			}
			list, unready := []lab.Status{}, error(nil)
			for _, name := range names {
				d := lab.DirOf(l.root, name)
				var waited error
				if limit > 0 {
					_, waited = lab.Await(cmd.Context(), d, limit, a.errw)
				}
				if waited != nil && (cmd.Flags().Changed("name") || cmd.Context().Err() != nil) {
					return waited
				}
				s, err := lab.Look(cmd.Context(), d)
				if cluster.KindOf(err) == cluster.KindNotFound && !cmd.Flags().Changed("name") {
					continue // taken down meanwhile
				}
				if err != nil {
					return err
				}
				list = append(list, s)
				if s.Doubt != "" {
					a.note("lab %s: %s", name, s.Doubt)
				}
				switch {
				case waited != nil: // the others are waited for and shown, then it is said
					unready = errors.Join(unready, fmt.Errorf("lab %s: %w", name, waited))
				case len(s.Nodes) == 0:
					a.note("lab %s: %s", name, s.Trouble)
				}
			}
			if cmd.Flags().Changed("name") && !a.human() {
				return a.print(list[0], nil)
			}
			return errors.Join(a.print(list, func() *table { return labTable(list) }), unready)
		},
	}
	c.Flags().DurationVar(&limit, "wait", 0, "wait so long for it to be ready")
	return c
}

func labTable(list []lab.Status) *table {
	t := &table{
		columns: columns("LAB", "NODE", "ADDRESS", "ROLES", "POWER", "DOCKER", "FAIRLEAD", "LINK", "+DOCKER HOST", "+SOCKET", "+LOGS"),
		empty:   "no labs: `fairlead lab up` makes one",
	}
	for _, s := range list {
		switch {
		case s.HalfMade:
			t.add(s.Name, "half-made", "", "", "", "", "", "", "", "", s.Dir)
		case len(s.Nodes) == 0:
			t.add(s.Name, "damaged", "", "", "", "", "", "", "", "", s.Dir)
		}
		for _, n := range s.Nodes {
			roles := []string{"agent"}
			if n.Server {
				roles = []string{"server", "agent"}
			}
			if n.Gateway {
				roles = append(roles, "gateway")
			}
			power := "on"
			if !n.Power {
				power = "off"
			}
			t.add(s.Name, n.Name, n.Address.String(), strings.Join(roles, ","), power, unitWord(n, lab.UnitDocker, n.Docker, "answers"),
				unitWord(n, lab.UnitFairlead, n.Alive, "alive"), linkWord(s, n), n.DockerHost, n.Socket, n.Logs)
		}
	}
	return t
}

// linkWord is how a node's link is: cut, slow, or as it should be.
func linkWord(s lab.Status, n lab.NodeStatus) string {
	word := s.Link(n.Name)
	switch {
	case n.Slow == nil:
		return word
	case word == "ok":
		return n.Slow.String()
	}
	return word + ", " + n.Slow.String()
}

// unitWord is how a program that a node keeps running is: well, there at least, or not.
func unitWord(n lab.NodeStatus, unit string, good bool, well string) string {
	switch {
	case good:
		return well
	case unit == lab.UnitFairlead && n.Unknown && n.Runs(unit):
		return "unknown"
	case n.Runs(unit):
		return "runs"
	case n.Stopped.Has(unit):
		return "killed"
	}
	return "away"
}

func (a *app) labLoad(l *labFlags) *cobra.Command {
	var nodes []string
	c := &cobra.Command{
		Use: "load IMAGE", Short: "Copy an image of this machine's Docker to the nodes", Args: oneArg("an image of this machine's Docker"),
		Example: "  sudo fairlead lab load shop:dev\n  sudo fairlead lab load shop:dev --node n1",
		RunE: func(cmd *cobra.Command, args []string) error {
			loaded, err := lab.LoadImage(cmd.Context(), l.dir(), args[0], nodes)
			if err != nil {
				return err
			}
			return a.print(map[string]any{"image": args[0], "nodes": loaded}, func() *table {
				t := &table{columns: columns("IMAGE", "NODE")}
				for _, n := range loaded {
					t.add(args[0], n)
				}
				return t
			})
		},
	}
	c.Flags().StringSliceVar(&nodes, "node", nil, "these nodes alone; else all that have power")
	_ = c.RegisterFlagCompletionFunc("node", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return l.nodes(), cobra.ShellCompDirectiveNoFileComp
	})
	return c
}

func (a *app) labExec(l *labFlags) *cobra.Command {
	c := &cobra.Command{
		Use: "exec NODE -- COMMAND [ARG...]", Short: "Run a command on a node, as root",
		Long:    "Runs a command of this machine on a node: in its network, with its processes, its /run\nand its Docker. Exits with the command's exit code.",
		Example: "  sudo fairlead lab exec n2 -- docker ps\n  sudo fairlead lab exec n1 -- ip route",
		Args:    rangeArgs(2, -1, "NODE and COMMAND"), ValidArgsFunction: l.completeNode,
		RunE: func(_ *cobra.Command, args []string) error {
			rest := args[1:]
			if rest[0] == "--" {
				rest = rest[1:]
			}
			if len(rest) == 0 {
				return usagef("COMMAND is missing: fairlead lab exec NODE -- COMMAND")
			}
			return lab.Enter(l.root, l.name, args[0], rest, os.Environ())
		},
	}
	c.Flags().SetInterspersed(false)
	return c
}

func (a *app) labShell(l *labFlags) *cobra.Command {
	return &cobra.Command{
		Use: "shell NODE", Short: "Open a shell on a node, as root", Args: oneArg("NODE"),
		Example: "  sudo fairlead lab shell n2", ValidArgsFunction: l.completeNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			shell := os.Getenv("SHELL")
			if shell == "" {
				shell = "/bin/sh"
			}
			var at lab.Streams
			at.In, _ = a.in.(*os.File)
			at.Out, _ = a.out.(*os.File)
			at.Err, _ = a.errw.(*os.File)
			code, err := lab.Shell(cmd.Context(), l.root, l.name, args[0], shell, at)
			if err == nil && code != 0 {
				err = &exitError{code: code}
			}
			return err
		},
	}
}

// labChange is a command about a node's power.
func (a *app) labChange(l *labFlags, op lab.Op, use, short, long, example string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: long, Example: example, Args: oneArg("NODE, or NODE/docker or NODE/fairlead"),
		ValidArgsFunction: l.completeNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.askLab(cmd, l, lab.Request{Op: op, Target: args[0]})
		},
	}
}

func (a *app) labLink(l *labFlags, op lab.Op, name, short string) *cobra.Command {
	oneWay := false
	c := &cobra.Command{
		Use: name + " NODE[:NODE]", Short: short, Args: oneArg("NODE or NODE:NODE"),
		Long: "NODE is a node's link to all others and to this machine, NODE:NODE the one between two\n" +
			"nodes. With --one-way it is what the first sends to the second; :NODE is then what a\nnode receives.",
		Example:           "  sudo fairlead lab " + name + " n2\n  sudo fairlead lab " + name + " n1:n2 --one-way",
		ValidArgsFunction: l.completeNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.askLab(cmd, l, lab.Request{Op: op, Target: args[0], OneWay: oneWay})
		},
	}
	c.Flags().BoolVar(&oneWay, "one-way", false, "one direction alone: from the first to the second")
	return c
}

func (a *app) labSlow(l *labFlags) *cobra.Command {
	rate, loss, delay, off := "", "", time.Duration(0), false
	c := &cobra.Command{
		Use: "slow NODE", Short: "Make a node's link slow, late or lossy, in both directions", Args: oneArg("NODE"),
		Example:           "  sudo fairlead lab slow n2 --rate 10mbit\n  sudo fairlead lab slow n2 --delay 50ms --loss 1%\n  sudo fairlead lab slow n2 --off",
		ValidArgsFunction: l.completeNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := lab.ParsePace(rate, delay, loss)
			if err != nil {
				return err
			}
			if off == (p != lab.Pace{}) {
				return usagef("say how slow with --rate, --delay and --loss, or end it with --off")
			}
			return a.askLab(cmd, l, lab.Request{Op: lab.OpSlow, Target: args[0], Pace: p})
		},
	}
	f := c.Flags()
	f.StringVar(&rate, "rate", "", "most bits a second in each direction, such as 10mbit")
	f.DurationVar(&delay, "delay", 0, "what each packet takes longer, in each direction")
	f.StringVar(&loss, "loss", "", "share of the packets that is lost in each direction, such as 1%")
	f.BoolVar(&off, "off", false, "as fast as it goes again")
	return c
}

func (a *app) labSnapshot(l *labFlags, op lab.Op, name, short string) *cobra.Command {
	return &cobra.Command{
		Use: name + " SNAPSHOT", Short: short, Args: oneArg("the snapshot's name"),
		Long:    "The nodes are shut down for it, and started again: `fairlead lab status --wait 1m` waits\nuntil they are back.",
		Example: "  sudo fairlead lab " + name + " before",
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if s, err := lab.Look(cmd.Context(), l.dir()); err == nil && len(args) == 0 && op == lab.OpRestore {
				return s.Snapshots, cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cluster.ValidName("snapshot", args[0]); err != nil {
				return err
			}
			return a.askLab(cmd, l, lab.Request{Op: op, Snapshot: args[0]})
		},
	}
}

// askLab asks a lab to do something, and prints what it looks like afterwards for programs.
func (a *app) askLab(cmd *cobra.Command, l *labFlags, r lab.Request) error {
	if _, err := lab.Read(l.dir()); err != nil {
		return err
	}
	s, err := lab.Ask(cmd.Context(), l.dir(), r)
	if err != nil || a.human() {
		return err
	}
	return a.print(s, nil)
}

func (a *app) labDown(l *labFlags) *cobra.Command {
	all := false
	c := &cobra.Command{
		Use: "down", Short: "End a lab and remove all that it had", Args: noArgs,
		Example: "  sudo fairlead lab down\n  sudo fairlead lab down --name two\n  sudo fairlead lab down --all",
		RunE: func(cmd *cobra.Command, _ []string) error {
			names := []string{l.name}
			if all {
				var err error
				if names, err = lab.List(l.root); err != nil {
					return err
				}
			}
			removed := []string{}
			for _, name := range names {
				found, err := lab.Down(cmd.Context(), l.root, name)
				if err != nil {
					return err
				}
				if found {
					removed = append(removed, name)
				}
			}
			if all {
				if err := lab.Sweep(cmd.Context(), l.root); err != nil {
					return err
				}
			}
			return a.print(map[string]any{"removed": removed}, func() *table {
				t := &table{columns: columns("REMOVED"), empty: "there was no lab to remove"}
				for _, n := range removed {
					t.add(n)
				}
				return t
			})
		},
	}
	c.Flags().BoolVar(&all, "all", false, "all labs")
	return c
}

// labRack and labMachine are what a lab starts of itself.
func labRack() *cobra.Command {
	return &cobra.Command{
		Use: "rack DIR", Hidden: true, Args: oneArg("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error { return lab.RunRack(cmd.Context(), lab.Dir(args[0])) },
	}
}

func labMachine() *cobra.Command {
	return &cobra.Command{
		Use: "machine DIR NODE", Hidden: true, Args: rangeArgs(2, 2, "DIR and NODE"),
		RunE: func(*cobra.Command, []string) error { return lab.RunMachine() },
	}
}

func (l *labFlags) completeLabs(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	names, err := lab.List(l.root)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (l *labFlags) nodes() []string {
	st, err := lab.Read(l.dir())
	if err != nil {
		return nil
	}
	var out []string
	for _, m := range st.Spec.Machines() {
		out = append(out, m.Name)
	}
	return out
}

func (l *labFlags) completeNode(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return l.nodes(), cobra.ShellCompDirectiveNoFileComp
}
