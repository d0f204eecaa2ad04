package server

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/fairlead/fairlead/cluster"
)

// Commands returns the commands that run on a node itself: server, agent and system.
// The command line adds them to its own, so that it need not import this package.
func Commands(version string, now func() time.Time) []*cobra.Command {
	return []*cobra.Command{serverCommand(version, now), agentCommand(version, now), systemCommand(version)}
}

func serverCommand(version string, now func() time.Time) *cobra.Command {
	cfg := Config{Version: version}
	tokenFile := ""
	c := &cobra.Command{
		Use: "server", Short: "Run a server: control plane, agent and gateway in one; look at servers", GroupID: "cluster",
		Long: `Run a server in the foreground: control plane with embedded etcd, agent and gateway.

` + "`fairlead system install`" + ` runs it as a service of this machine.

With --join it becomes one more server of a cluster, the first time with a token that
` + "`fairlead server invite`" + ` prints there; the token comes from a file, from
FAIRLEAD_JOIN_TOKEN, or from standard input. Servers join one after the other. Three
stand the loss of any one; two stand none.`,
		Example: "  fairlead server --domain apps.example.com\n  echo flj_… | sudo fairlead server --join 10.0.0.1:7420\n  fairlead server --no-gateway --etcd-endpoints https://10.0.0.5:2379 --etcd-ca ca.pem --etcd-cert c.pem --etcd-key k.pem",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.Log = newLog(cmd.ErrOrStderr(), cfg.LogLevel)
			if err := cfg.SetDefaults(); err != nil {
				return err
			}
			return Run(cmd.Context(), cfg, func() (string, error) { return joinToken(cmd, tokenFile) }, now)
		},
	}
	cfg.register(c.Flags())
	c.Flags().StringVar(&cfg.Join, "join", "", "`address:port` of a server's API, to become one more server of its cluster")
	c.Flags().StringVar(&tokenFile, "token-file", "", "file with the join token (default: FAIRLEAD_JOIN_TOKEN, else standard input)")
	return c
}

func agentCommand(version string, now func() time.Time) *cobra.Command {
	cfg := Config{Version: version, Listen: "none"}
	tokenFile := ""
	isGateway := false
	c := &cobra.Command{
		Use: "agent", Short: "Run a node whose servers are elsewhere", GroupID: "cluster",
		Long: `Run a node in the foreground: it takes tasks, and its servers are other machines.

The first time it joins their cluster, with a token that ` + "`fairlead node invite`" + ` prints
there. The token comes from a file, from FAIRLEAD_JOIN_TOKEN, or from standard input,
never from the command line, which every user of the machine can read. It names the
cluster's certificate authority: nothing is told to another. After that the node has
a certificate of its own, and needs neither --join nor a token, unless it was off for
so long that the certificate ended, or all servers have moved.

With --gateway it runs Traefik too and serves every route; a node that joined
without one needs --join and a token once more for that.`,
		Example: "  echo flj_… | sudo fairlead agent --join 10.0.0.1:7420\n  echo flj_… | sudo fairlead agent --join 10.0.0.1:7420 --gateway\n  sudo fairlead agent --join 10.0.0.1:7420 --node edge-1 --token-file token",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.Log = newLog(cmd.ErrOrStderr(), cfg.LogLevel)
			cfg.NoGateway = !isGateway
			if err := cfg.SetDefaults(); err != nil {
				return err
			}
			return RunAgent(cmd.Context(), cfg, func() (string, error) { return joinToken(cmd, tokenFile) }, now)
		},
	}
	f := c.Flags()
	f.StringVar(&cfg.Join, "join", "", "`address:port` of a server's API; needed the first time")
	f.StringVar(&tokenFile, "token-file", "", "file with the join token (default: FAIRLEAD_JOIN_TOKEN, else standard input)")
	f.BoolVar(&isGateway, "gateway", false, "run a gateway here too")
	cfg.registerNode(f)
	cfg.registerGateway(f)
	return c
}

// joinToken reads the join token from where it is never seen by others.
func joinToken(cmd *cobra.Command, file string) (string, error) {
	if file != "" {
		b, err := os.ReadFile(file) //nolint:gosec // root names the file
		return string(b), err
	}
	if t := os.Getenv("FAIRLEAD_JOIN_TOKEN"); t != "" {
		return t, nil
	}
	if in, ok := cmd.InOrStdin().(*os.File); ok && term.IsTerminal(int(in.Fd())) {
		_, _ = fmt.Fprint(cmd.ErrOrStderr(), "Join token (`fairlead node invite` on a server prints one): ")
		b, err := term.ReadPassword(int(in.Fd()))
		_, _ = fmt.Fprintln(cmd.ErrOrStderr())
		return string(b), err
	}
	b, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 1<<10))
	return string(b), err
}

func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return cluster.Invalidf("unexpected %q. Usage: %s", args[0], c.UseLine())
	}
	return nil
}

// absolute is a flag's path, as it stays when the server runs elsewhere: as a
// service it does.
type absolute string

func (a *absolute) String() string { return string(*a) }
func (a *absolute) Type() string   { return "string" }
func (a *absolute) Set(s string) error {
	if s != "" {
		abs, err := filepath.Abs(s)
		if err != nil {
			return err
		}
		s = abs
	}
	*a = absolute(s)
	return nil
}

func newLog(out io.Writer, level string) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Name: "fairlead", Level: hclog.LevelFromString(level), Output: out})
}

// register makes the server's flags; their texts are the reference of Config.
func (c *Config) register(f *pflag.FlagSet) {
	c.registerNode(f)
	path := func(to *string, name, usage string) { f.Var((*absolute)(to), name, usage) }
	f.StringVar(&c.Listen, "listen", ":7420", "the API's TLS address; none serves the local socket alone")
	f.StringVar(&c.Domain, "domain", "localhost", "routes without a host get <service>.<app>.<domain>")
	c.registerGateway(f)
	f.StringSliceVar(&c.EtcdEndpoints, "etcd-endpoints", nil, "use this etcd instead of the embedded one")
	path(&c.EtcdCA, "etcd-ca", "certificate authority of the external etcd (file)")
	path(&c.EtcdCert, "etcd-cert", "client certificate for the external etcd (file)")
	path(&c.EtcdKey, "etcd-key", "key of the client certificate (file)")
	f.IntVar(&c.EtcdClientPort, "etcd-client-port", 7421, "client port of the embedded etcd")
	f.IntVar(&c.EtcdPeerPort, "etcd-peer-port", 7422, "peer port of the embedded etcd")
	f.StringVar(&c.EtcdQuota, "etcd-quota", "4GiB", "most that the embedded etcd's database may take, 16MiB to 8GiB")
	f.StringVar(&c.Vault.Address, "vault", "", "resolve secrets that are in this Vault, as https://vault.example.com:8200")
	path(&c.Vault.CACert, "vault-ca", "certificate authority of Vault (file; default: the system's)")
	path(&c.Vault.TokenFile, "vault-token-file", "file with a token for Vault; a renewable one is renewed")
	f.StringVar(&c.Vault.RoleID, "vault-role-id", "", "role ID of an AppRole, instead of a token")
	path(&c.Vault.SecretIDFile, "vault-secret-id-file", "file with the AppRole's secret ID")
	f.StringVar(&c.Vault.AppRole, "vault-approle", "", "where the AppRole method is mounted (default: approle)")
	f.StringVar(&c.Vault.Namespace, "vault-namespace", "", "namespace of Vault Enterprise")
	f.BoolVar(&c.NoAgent, "no-agent", false, "run no containers on this node")
	f.BoolVar(&c.NoGateway, "no-gateway", false, "run no gateway on this node")
	f.StringVar(&c.Pool, "pool", defaultPool, "address range of containers")
	f.StringVar(&c.ServiceRange, "service-range", defaultServiceRange, "range of service addresses, one a service")
	f.TextVar(&c.AutoscalePeriod, "autoscale-period", defaultAutoscalePeriod, "how often the autoscaler decides")
	f.StringVar(&c.SocketGroup, "socket-group", "fairlead", "group that may use the local socket beside root")
}

// registerNode makes the flags that every node has.
func (c *Config) registerNode(f *pflag.FlagSet) {
	c.DataDir, c.RunDir = defaultDataDir, defaultRunDir
	f.Var((*absolute)(&c.DataDir), "data-dir", "keys, the agent's assignment, on a server etcd's data")
	f.Var((*absolute)(&c.RunDir), "run-dir", "sockets and secrets in memory")
	f.StringVar(&c.Node, "node", "", "this node's name (default: the one that it began with, at first the host name)")
	f.StringVar(&c.Advertise, "advertise", "", "address that other machines reach (default: the one towards the servers, a first server's that of the default route; followed when it changes)")
	f.StringVar(&c.Docker, "docker", "", "the Docker engine's address (default: DOCKER_HOST, else the usual socket)")
	f.IntVar(&c.ImageGCHigh, "image-gc-high", defaultImageGCHigh, "remove unused images that came from a registry when Docker's disk is fuller than this, in percent; 0 removes none")
	f.IntVar(&c.ImageGCLow, "image-gc-low", defaultImageGCLow, "remove them until the disk is less full than this, in percent")
	f.StringVar(&c.LogLevel, "log-level", "info", "trace, debug, info, warn or error")
}

// registerGateway makes the flags of a node that runs a gateway.
func (c *Config) registerGateway(f *pflag.FlagSet) {
	f.IntVar(&c.HTTPPort, "http-port", 80, "public HTTP port of the gateway")
	f.IntVar(&c.HTTPSPort, "https-port", 443, "public HTTPS port of the gateway")
	f.IntVar(&c.InternalPort, "internal-port", 8088, "port of the gateway's internal entry point")
	f.StringSliceVar(&c.TrustedProxies, "trusted-proxies", nil, "addresses and ranges of proxies in front of the gateway, whose X-Forwarded headers are kept: `10.1.0.0/16`,…")
	f.StringVar(&c.Traefik, "traefik", "", "the Traefik v3 program (default: the one on PATH, else the cached one)")
}

// serverArgs are the flags of f that were set, to run the server again with them.
func serverArgs(f *pflag.FlagSet, known *pflag.FlagSet) []string {
	out := []string{}
	f.Visit(func(fl *pflag.Flag) {
		if known.Lookup(fl.Name) == nil {
			return
		}
		v := fl.Value.String()
		if s, ok := fl.Value.(pflag.SliceValue); ok {
			v = strings.Join(s.GetSlice(), ",")
		}
		if fl.Name == "traefik" && strings.Contains(v, "/") { // else it is one on PATH
			if abs, err := filepath.Abs(v); err == nil {
				v = abs
			}
		}
		out = append(out, "--"+fl.Name+"="+v)
	})
	return out
}

func requireRoot(what string) error {
	if os.Geteuid() != 0 {
		return cluster.Invalidf("%s needs root: run it with sudo", what)
	}
	return nil
}
