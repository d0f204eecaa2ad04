package gateway

import (
	"net/netip"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// Entry points that every gateway has. Published ports add "tcp-5432" and "udp-53".
const (
	EntryWeb       = "web"
	EntryWebSecure = "websecure"
	EntryInternal  = "internal"
)

// Defaults of a Config.
const (
	DefaultWeb       = 80
	DefaultWebSecure = 443
	DefaultInternal  = 8088

	DefaultPrivateFrom = 21000
	DefaultPrivateTo   = 21999
)

// Config says how a node's gateway runs.
type Config struct {
	// Cluster is the cluster's ID; it names the nftables table.
	Cluster string
	Node    cluster.NodeID
	// DataDir keeps what must survive a reboot; RunDir is on tmpfs. The gateway
	// uses the directory "gateway" of each.
	DataDir, RunDir string
	// Traefik is the program to run; "" looks on PATH, then in the user's cache.
	Traefik string

	// Web, WebSecure and Internal are the public ports of the entry points; 0
	// means 80, 443 and 8088, a negative number leaves the entry point out.
	Web, WebSecure, Internal int
	// InternalFrom are the sources that reach the internal entry point besides
	// this machine itself; empty means 10.213.0.0/16, the containers' range.
	InternalFrom []netip.Prefix
	// PrivateFrom and PrivateTo bound the ports that Traefik itself listens on; 0
	// means 21000 and 21999.
	PrivateFrom, PrivateTo int

	// KeepAliveMaxTime is how long a client may keep a connection between requests (0
	// means 30s); a replaced Traefik is kept until its connections are gone. Grace is
	// how long requests may take where it is ended before (0 means 10s).
	KeepAliveMaxTime, Grace time.Duration
	// ReadTimeout bounds the reading of one request with its body; 0 means 24h. What is
	// shorter cuts uploads over slow links and streams of gRPC, and hinders nobody who
	// wants to have many connections open: a minute is enough to open them anew.
	ReadTimeout time.Duration
	// TrustedProxies are the sources whose X-Forwarded headers are believed.
	TrustedProxies []netip.Prefix
	// AccessLog is a file for Traefik's access log; "" means none.
	AccessLog string

	// Now is the clock; nil is not allowed.
	Now func() time.Time
}

var clusterRE = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$`)

// WithDefaults returns c with zero values replaced by what they mean.
func (c Config) WithDefaults() Config {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	wait := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	def(&c.Web, DefaultWeb)
	def(&c.WebSecure, DefaultWebSecure)
	def(&c.Internal, DefaultInternal)
	def(&c.PrivateFrom, DefaultPrivateFrom)
	def(&c.PrivateTo, DefaultPrivateTo)
	wait(&c.KeepAliveMaxTime, 30*time.Second)
	wait(&c.Grace, 10*time.Second)
	wait(&c.ReadTimeout, 24*time.Hour)
	if len(c.InternalFrom) == 0 {
		c.InternalFrom = []netip.Prefix{netip.MustParsePrefix("10.213.0.0/16")}
	}
	return c
}

// Validate says what is wrong with c after WithDefaults.
func (c Config) Validate() error {
	switch {
	case !clusterRE.MatchString(c.Cluster):
		return cluster.Invalidf("gateway: the cluster ID %q is not 1 to 64 letters, digits, _, . and -", c.Cluster)
	case c.Node == "":
		return cluster.Invalidf("gateway: the node has no name")
	case !filepath.IsAbs(c.DataDir) || !filepath.IsAbs(c.RunDir):
		return cluster.Invalidf("gateway: the data directory %q and the run directory %q must be absolute paths", c.DataDir, c.RunDir)
	case c.Now == nil:
		return cluster.Invalidf("gateway: no clock")
	case c.KeepAliveMaxTime < 0 || c.Grace < 0 || c.ReadTimeout < 0:
		return cluster.Invalidf("gateway: a duration is negative")
	case c.PrivateFrom < 1024 || c.PrivateTo > 65535 || c.PrivateTo-c.PrivateFrom < 31:
		return cluster.Invalidf("gateway: the private ports %d to %d are not a range of at least 32 above 1023", c.PrivateFrom, c.PrivateTo)
	}
	seen := map[int]string{}
	for name, port := range c.fixed() {
		if port > 65535 {
			return cluster.Invalidf("gateway: port %d of entry point %s is above 65535", port, name)
		}
		if port >= c.PrivateFrom && port <= c.PrivateTo {
			return cluster.Invalidf("gateway: port %d of entry point %s is among the private ports %d to %d", port, name, c.PrivateFrom, c.PrivateTo)
		}
		if other, dup := seen[port]; dup {
			return cluster.Invalidf("gateway: entry points %s and %s have the same port %d", other, name, port)
		}
		seen[port] = name
	}
	if len(seen) == 0 {
		return cluster.Invalidf("gateway: every entry point is left out")
	}
	return nil
}

// Reserved returns the public ports of the fixed entry points, by port.
func (c Config) Reserved() map[int]string {
	out := map[int]string{}
	for name, port := range c.WithDefaults().fixed() {
		out[port] = name
	}
	return out
}

// fixed returns the public ports of the entry points that are always there.
func (c Config) fixed() map[string]int {
	out := map[string]int{}
	for name, port := range map[string]int{EntryWeb: c.Web, EntryWebSecure: c.WebSecure, EntryInternal: c.Internal} {
		if port > 0 {
			out[name] = port
		}
	}
	return out
}

var publishedRE = regexp.MustCompile(`^(tcp|udp)-([0-9]{1,5})$`)

// published returns the protocol and the public port of an entry point such as "tcp-5432".
func published(entry string) (proto string, port int, ok bool) {
	m := publishedRE.FindStringSubmatch(entry)
	if m == nil {
		return "", 0, false
	}
	port, err := strconv.Atoi(m[2])
	return m[1], port, err == nil && port > 0 && port <= 65535
}

// public returns the protocol and public port of any entry point.
func (c Config) public(entry string) (proto string, port int) {
	if p, ok := c.fixed()[entry]; ok {
		return "tcp", p
	}
	proto, port, _ = published(entry)
	return proto, port
}

func (c Config) tableName() string { return "fairlead-gw-" + c.Cluster }
func (c Config) dataDir() string   { return filepath.Join(c.DataDir, "gateway") }
func (c Config) runDir() string    { return filepath.Join(c.RunDir, "gateway") }
func (c Config) dynamicDir() string {
	return filepath.Join(c.runDir(), "dynamic")
}
