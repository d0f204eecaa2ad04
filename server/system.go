package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/atomicfile"
	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/gateway"
	"github.com/fairlead/fairlead/names"
)

func systemCommand(version string) *cobra.Command {
	c := &cobra.Command{
		Use: "system", Short: "Install, remove and look at Fairlead on this machine", GroupID: "cluster",
		Example: "  sudo fairlead system install --domain apps.example.com\n  fairlead system status",
	}
	c.AddCommand(installCommand(version), uninstallCommand(), statusCommand())
	return c
}

func installCommand(version string) *cobra.Command {
	cfg := Config{Version: version}
	tokenFile, isGateway, asServer := "", false, false
	c := &cobra.Command{
		Use: "install", Short: "Run Fairlead as a service of this machine: a server, or a node of one",
		Long: `Installs this program as ` + programPath + ` and runs "fairlead server" with the
given flags: as a systemd unit where there is systemd, else in the background.
With --join this machine becomes a node of another one's cluster instead, and runs
"fairlead agent", with --gateway one that serves every route; the token comes as
that command reads it. With --server too it becomes one more server of that cluster.
Doing it again upgrades the program and changes the flags; containers and
Traefik keep running meanwhile.`,
		Example: "  sudo fairlead system install --domain localhost\n  echo flj_… | sudo fairlead system install --join 10.0.0.1:7420\n  echo flj_… | sudo fairlead system install --join 10.0.0.1:7420 --gateway\n  echo flj_… | sudo fairlead system install --join 10.0.0.1:7420 --server",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := requireRoot("system install"); err != nil {
				return err
			}
			given := cfg
			args, err := serviceArgs(cmd.Flags(), &given, asServer, isGateway)
			if err != nil {
				return err
			}
			format, progress := output(cmd)
			st, err := install(cmd.Context(), given, args, func() (string, error) { return joinToken(cmd, tokenFile) }, progress)
			if err != nil || format == "" {
				return err
			}
			return printDocument(cmd.OutOrStdout(), format, st)
		},
	}
	cfg.register(c.Flags())
	c.Flags().BoolVar(&asServer, "server", false, "with --join: become one more server of that cluster")
	c.Flags().BoolVar(&isGateway, "gateway", false, "with --join: run a gateway on this node too")
	c.Flags().StringVar(&cfg.Join, "join", "", "become a node, or server, of the cluster whose server's API is at this `address:port`")
	c.Flags().StringVar(&tokenFile, "token-file", "", "file with the join token (default: FAIRLEAD_JOIN_TOKEN, else standard input)")
	return c
}

// serviceArgs are the command line of the service that an install is asked for: the program's
// command, and those of the flags that are that command's. It completes cfg for that.
func serviceArgs(given *pflag.FlagSet, cfg *Config, asServer, isGateway bool) ([]string, error) {
	if asServer && cfg.Join == "" {
		return nil, cluster.Invalidf("--server goes with --join: without it this machine becomes the first server of a cluster")
	}
	if asServer && isJoined(cfg.DataDir) {
		return nil, errOfNode(cfg.DataDir)
	}
	if isGateway && (asServer || cfg.Join == "" && !isJoined(cfg.DataDir)) {
		return nil, cluster.Invalidf("--gateway is for a node that joins (--join); a server runs a gateway unless --no-gateway is given")
	}
	role, known := "server", pflag.NewFlagSet("service", pflag.ContinueOnError)
	if cfg.Join != "" && !asServer || isJoined(cfg.DataDir) {
		role = "agent"
		new(Config).registerNode(known)
		cfg.Listen, cfg.NoGateway = "none", !isGateway
		if isGateway {
			new(Config).registerGateway(known)
			known.Bool("gateway", true, "")
		}
		if err := onlyNodeFlags(given, known); err != nil {
			return nil, err
		}
	} else {
		new(Config).register(known)
	}
	if err := cfg.SetDefaults(); err != nil {
		return nil, err
	}
	return append([]string{role}, serverArgs(given, known)...), nil
}

// onlyNodeFlags refuses flags that mean nothing on a node without a server.
func onlyNodeFlags(given, known *pflag.FlagSet) error {
	server := new(pflag.FlagSet)
	new(Config).register(server)
	var wrong []string
	given.Visit(func(f *pflag.Flag) {
		if server.Lookup(f.Name) != nil && known.Lookup(f.Name) == nil {
			wrong = append(wrong, "--"+f.Name)
		}
	})
	if len(wrong) > 0 {
		return cluster.Invalidf("%s: for servers; this machine becomes, or is, a node of another one's cluster: leave it out, or give it to the server", strings.Join(wrong, ", "))
	}
	return nil
}

// install makes a service of this machine; args are its role and flags. It returns
// what the server, or node, says of itself once it serves; out is told of each step.
func install(ctx context.Context, cfg Config, args []string, token func() (string, error), out io.Writer) (map[string]any, error) {
	before, err := installed()
	if err == nil {
		err = mayInstall(before, cfg)
	}
	if err != nil {
		return nil, err
	}
	traefik, err := preflight(ctx, cfg)
	if err != nil {
		return nil, err
	}
	// Before anything is installed: what is refused is said here.
	switch {
	case args[0] == "agent":
		err = joinNow(ctx, cfg, token)
	case cfg.Join != "":
		err = joinServersNow(ctx, cfg, token)
	}
	if err != nil {
		return nil, err
	}
	if err := installPrograms(traefik, out); err != nil {
		return nil, err
	}
	// The group that may use the local socket; it may be there already.
	_ = exec.CommandContext(ctx, "groupadd", "--system", "--force", cfg.SocketGroup).Run() //nolint:gosec // root names the group
	s := service{file: plainUnit, cfg: cfg}
	if systemd() {
		s.file = unitFile
	}
	if err := s.write(args); err != nil {
		return nil, err
	}
	began := time.Now()       //nolint:forbidigo // compared with what another process says
	var ended <-chan struct{} // nil: systemd starts it again and again
	if systemd() {
		for _, a := range [][]string{{"daemon-reload"}, {"enable", unitName}, {"restart", unitName}} {
			if b, err := exec.CommandContext(ctx, "systemctl", a...).CombinedOutput(); err != nil { //nolint:gosec // the three calls above
				return nil, fmt.Errorf("systemctl %s: %w: %s", strings.Join(a, " "), err, b)
			}
		}
	} else if ended, err = startDetached(ctx, cfg, args); err != nil {
		return nil, err
	}
	patience := time.Minute
	if cfg.Join != "" {
		patience = 5 * time.Minute // it may have to wait for other servers that join
	}
	st, err := waitReady(ctx, cfg.Socket(), patience, ended)
	if errors.Is(err, errServerEnded) {
		err = fmt.Errorf("%w: %s", err, lastLine(filepath.Join(cfg.DataDir, "server.log")))
	}
	if err != nil {
		return nil, fmt.Errorf("%w; its log: %s", err, s.log())
	}
	if args[0] == "agent" {
		_, _ = fmt.Fprintf(out, "fairlead %s runs node %s of the cluster of %s\n", st["version"], st["node"], st["servers"])
		return st, nil
	}
	_, _ = fmt.Fprintf(out, "fairlead %s serves on %s\n", st["version"], cfg.Socket())
	printInvitation(ctx, cfg, out)
	if cfg.RunDir != defaultRunDir {
		_, _ = fmt.Fprintf(out, "commands find it with: fairlead context add here --local %s\n", cfg.Socket())
	}
	if cfg.NoGateway {
		return st, nil
	}
	if problem := waitGateway(ctx, cfg.Socket(), began, gatewayTime); problem != "" {
		return nil, fmt.Errorf("it is installed, but its gateway does not work: %s; it tries again by itself, `fairlead status` says whether it got there, and its log is: %s", problem, s.log())
	}
	return st, nil
}

// gatewayTime is how long an install waits for the gateway: Traefik starts in one
// or two seconds, and a port may be in use for a moment.
const gatewayTime = 15 * time.Second

// installPrograms puts Fairlead, and a Traefik that a service would not find,
// where they stay.
func installPrograms(traefik string, out io.Writer) error {
	if err := keepTraefik(gateway.LibDir, traefik, out); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil || self == programPath {
		return err
	}
	if err := copyProgram(self, programPath); err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, "installed", programPath)
	return err
}

// printInvitation prints the line that makes another machine a node.
func printInvitation(ctx context.Context, cfg Config, out io.Writer) {
	cl, err := client.New(client.Options{Socket: cfg.Socket()})
	if err != nil {
		return
	}
	defer cl.Close()
	inv, err := cl.Invite(ctx, v1.Invite{})
	if err != nil {
		return // no machine can join this cluster: `fairlead node invite` says why
	}
	_, _ = fmt.Fprintf(out, "to add a machine, run this there within the hour (`fairlead node invite` prints it anew):\n  %s\n", inv.Line())
}

// copyProgram replaces to in one step, as it may be running, and is what starts after a
// loss of power.
func copyProgram(from, to string) error {
	src, err := os.Open(from) //nolint:gosec // the program itself
	if err != nil {
		return err
	}
	defer src.Close() //nolint:errcheck // only read
	return atomicfile.Copy(to, src, 0o755)
}

// startDetached runs the server in a session of its own, where no init system would.
// ended is closed when it ends, while this command is there to see it.
func startDetached(ctx context.Context, cfg Config, args []string) (ended <-chan struct{}, err error) {
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, err
	}
	if pid := runningPID(cfg); pid != 0 {
		if err := stopPID(ctx, pid); err != nil {
			return nil, err
		}
	}
	log, err := os.OpenFile(filepath.Join(cfg.DataDir, "server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()                         //nolint:errcheck // the child has it
	cmd := exec.Command(programPath, args...) //nolint:gosec,noctx // it outlives this command
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	keepDescriptors()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		_ = cmd.Wait()
	}()
	return over, nil
}

// keepDescriptors keeps what this process was given besides its three streams
// from the processes that it starts and that outlive it: a lock that a script
// holds would stay taken by them.
func keepDescriptors() { _ = unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC) }

// lastLine is the last thing that a log says.
func lastLine(path string) string {
	b, err := os.ReadFile(path) //nolint:gosec // the server's own log
	if err != nil {
		return err.Error()
	}
	b = bytes.TrimRight(b, "\n")
	return string(b[bytes.LastIndexByte(b, '\n')+1:])
}

// runningPID is the server process that holds the data directory, 0 when none does.
func runningPID(cfg Config) int {
	f, err := os.Open(filepath.Join(cfg.DataDir, "server.pid"))
	if err != nil {
		return 0
	}
	defer f.Close() //nolint:errcheck // only read
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); err == nil {
		return 0 // nobody holds it
	}
	var pid int
	if _, err := fmt.Fscan(f, &pid); err != nil || pid <= 1 {
		return 0
	}
	return pid
}

func stopPID(ctx context.Context, pid int) error {
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop the running server %d: %w", pid, err)
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for syscall.Kill(pid, 0) == nil {
		select {
		case <-ctx.Done():
			return cluster.Transientf("the running server %d does not stop", pid)
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

func statusCommand() *cobra.Command {
	var run string
	c := &cobra.Command{
		Use: "status", Short: "Say whether the server on this machine answers",
		Example: "  fairlead system status",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := installed()
			if err != nil {
				return err
			}
			socket := os.Getenv("FAIRLEAD_SOCKET")
			if socket == "" || run != "" {
				t := choose(s, Config{RunDir: run})
				socket = t.Socket()
			}
			pid := names.Running(filepath.Join(filepath.Dir(socket), "names"))
			st, err := askStatus(cmd.Context(), socket)
			if err != nil {
				return noAnswer(s, socket, pid, err)
			}
			if pid != 0 {
				st["names_pid"] = pid
			}
			if format, _ := output(cmd); format != "" {
				return printDocument(cmd.OutOrStdout(), format, st)
			}
			return printStatus(cmd.OutOrStdout(), st)
		},
	}
	c.Flags().Var((*absolute)(&run), "run-dir", "the server's run directory (default: that of this machine's service, else "+defaultRunDir+")")
	return c
}

// noAnswer says what is known of a server that does not answer.
func noAnswer(s *service, socket string, names int, err error) error {
	if names != 0 {
		err = fmt.Errorf("%w; what runs goes on, and process %d answers names to it", err, names)
	}
	if s == nil || s.cfg.Socket() != socket {
		return cluster.Transientf("no server answers on %s: %w", socket, err)
	}
	return cluster.Transientf("this machine's service (%s) does not answer on %s: %v; its log: %s", s.file, socket, err, s.log())
}
