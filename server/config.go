package server

import (
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/gateway"
	"github.com/fairlead/fairlead/secrets/vault"
)

// What a server has that is told nothing else.
const (
	defaultDataDir = "/var/lib/fairlead"
	defaultRunDir  = "/run/fairlead"
	defaultDomain  = "localhost"

	defaultPool, defaultServiceRange      = "10.213.0.0/16", "10.212.0.0/16"
	defaultImageGCHigh, defaultImageGCLow = 85, 80

	defaultAutoscalePeriod = cluster.Duration(15 * time.Second)
)

// Config is how a server runs. The zero value of a field takes the default named there.
type Config struct {
	DataDir   string // /var/lib/fairlead: etcd, keys, the agent's assignment
	RunDir    string // /run/fairlead: sockets, and what must never be on disk
	Node      string // this node's name; the one that it began with, at first the host name
	Advertise string // the address that other machines reach; chosen when it runs
	Listen    string // the API's TLS address; :7420. "none" serves the local socket alone
	Domain    string // default host of routes is <service>.<app>.<domain>; localhost

	HTTPPort, HTTPSPort, InternalPort int // of the gateway; 80, 443, 8088

	TrustedProxies []string // ranges of proxies in front of the gateway, whose X-Forwarded headers are kept

	Join string // the API of servers to join, host:port, separated by commas

	EtcdEndpoints                []string // an external etcd; empty starts the embedded one
	EtcdCA, EtcdCert, EtcdKey    string   // files, for an external etcd with TLS
	EtcdClientPort, EtcdPeerPort int      // of the embedded etcd; 7421, 7422
	EtcdQuota                    string   // of the embedded etcd's database, 16MiB to 8GiB; 4GiB
	NoAgent, NoGateway           bool
	Vault                        vault.Config     // an external Vault; without an address there is none
	Docker                       string           // the engine's address; DOCKER_HOST, else the usual socket
	Traefik                      string           // the Traefik program; found when empty
	Pool, ServiceRange           string           // 10.213.0.0/16 for containers, 10.212.0.0/16 for service addresses
	AutoscalePeriod              cluster.Duration // 15s
	SocketGroup                  string           // group that may use the local socket beside root; fairlead
	ImageGCHigh, ImageGCLow      int              // percent of the disk; the flags' 85 and 80. High 0: no image is removed

	quota    int64 // EtcdQuota in bytes
	trusted  []netip.Prefix
	chosen   bool // Advertise was not given
	hostName bool // Node was not given: it is the host name

	LogLevel string // info
	Version  string
	Log      hclog.Logger
}

// SetDefaults fills in what is not set.
func (c *Config) SetDefaults() error {
	set := func(s *string, def string) {
		if *s == "" {
			*s = def
		}
	}
	port := func(p *int, def int) {
		if *p == 0 {
			*p = def
		}
	}
	set(&c.DataDir, defaultDataDir)
	set(&c.RunDir, defaultRunDir)
	set(&c.Listen, ":7420")
	set(&c.Domain, defaultDomain)
	set(&c.Pool, defaultPool)
	set(&c.ServiceRange, defaultServiceRange)
	set(&c.SocketGroup, "fairlead")
	set(&c.EtcdQuota, "4GiB")
	set(&c.Version, "dev")
	if c.AutoscalePeriod == 0 {
		c.AutoscalePeriod = defaultAutoscalePeriod
	}
	port(&c.HTTPPort, 80)
	port(&c.HTTPSPort, 443)
	port(&c.InternalPort, 8088)
	port(&c.EtcdClientPort, 7421)
	port(&c.EtcdPeerPort, 7422)
	if c.Log == nil {
		c.Log = hclog.NewNullLogger()
	}
	if c.Node == "" {
		host, err := os.Hostname()
		if err != nil {
			return err
		}
		c.Node, c.hostName = normalNode(host), true
	}
	return c.validate()
}

func (c *Config) validate() error {
	if err := cluster.ValidName("node", c.Node); err != nil {
		return err
	}
	if a, _ := netip.ParseAddr(c.Advertise); c.Advertise != "" && (!a.Is4() || a.IsUnspecified() || a.IsMulticast()) {
		return cluster.Invalidf("--advertise %q: give an IPv4 address that other machines reach; containers on different nodes reach each other by IPv4 alone", c.Advertise)
	}
	for flag, s := range map[string]string{"--pool": c.Pool, "--service-range": c.ServiceRange} {
		p, err := netip.ParsePrefix(s)
		if err != nil || !p.Addr().Is4() || p.Bits() > 20 {
			return cluster.Invalidf("%s %q: give an IPv4 range of at least /20, such as 10.213.0.0/16", flag, s)
		}
	}
	if err := c.readProxies(); err != nil {
		return err
	}
	if err := c.validateImageGC(); err != nil {
		return err
	}
	ports := map[int]string{}
	for flag, p := range map[string]int{
		"--http-port": c.HTTPPort, "--https-port": c.HTTPSPort, "--internal-port": c.InternalPort,
		"--etcd-client-port": c.EtcdClientPort, "--etcd-peer-port": c.EtcdPeerPort,
	} {
		if p < 1 || p > 65535 {
			return cluster.Invalidf("%s %d: ports are 1 to 65535", flag, p)
		}
		if !c.NoGateway && p >= gateway.DefaultPrivateFrom && p <= gateway.DefaultPrivateTo {
			return cluster.Invalidf("%s %d: Traefik itself listens on ports %d to %d; give one outside them", flag, p, gateway.DefaultPrivateFrom, gateway.DefaultPrivateTo)
		}
		if other := ports[p]; other != "" {
			return cluster.Invalidf("%s and %s are both %d", min(flag, other), max(flag, other), p)
		}
		ports[p] = flag
	}
	quota, err := units.RAMInBytes(c.EtcdQuota)
	if err != nil || quota < 16<<20 || quota > 8<<30 {
		return cluster.Invalidf("--etcd-quota %q: give a size from 16MiB to 8GiB", c.EtcdQuota)
	}
	c.quota = quota
	if (c.EtcdCert == "") != (c.EtcdKey == "") {
		return cluster.Invalidf("--etcd-cert and --etcd-key go together")
	}
	if c.Vault.Address == "" && (c.Vault != vault.Config{}) {
		return cluster.Invalidf("the flags --vault-… need --vault, the address of the Vault")
	}
	if c.Vault.Address != "" {
		return c.Vault.Validate()
	}
	return nil
}

// Socket is the local API socket.
func (c *Config) Socket() string { return filepath.Join(c.RunDir, "fairlead.sock") }

var notName = regexp.MustCompile(`[^a-z0-9.-]+`)

func normalNode(host string) string {
	return strings.Trim(notName.ReplaceAllString(strings.ToLower(host), "-"), "-.")
}

// readProxies reads the ranges of proxies that are trusted; an address is a range of one.
func (c *Config) readProxies() error {
	c.trusted = nil
	for _, s := range c.TrustedProxies {
		p, err := netip.ParsePrefix(s)
		if a, aerr := netip.ParseAddr(s); err != nil && aerr == nil && a.Zone() == "" {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return cluster.Invalidf("--trusted-proxies %q: give addresses or ranges, such as 192.0.2.10 or 10.1.0.0/16, separated by commas", s)
		}
		c.trusted = append(c.trusted, p.Masked())
	}
	return nil
}

func (c *Config) validateImageGC() error {
	switch {
	case c.ImageGCHigh == 0:
		return nil
	case c.ImageGCHigh < 2 || c.ImageGCHigh > 99:
		return cluster.Invalidf("--image-gc-high %d: give a percentage of the disk, 2 to 99, or 0 to remove no images", c.ImageGCHigh)
	case c.ImageGCLow < 1 || c.ImageGCLow >= c.ImageGCHigh:
		return cluster.Invalidf("--image-gc-low %d: give a percentage below --image-gc-high, which is %d", c.ImageGCLow, c.ImageGCHigh)
	}
	return nil
}
