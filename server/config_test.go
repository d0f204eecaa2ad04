package server

import (
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/fairlead/fairlead/cluster"
)

// What cannot work is refused before anything is started.
func TestConfigIsRefused(t *testing.T) {
	good := Config{Node: "n1", Advertise: "10.0.0.1"}
	if err := good.SetDefaults(); err != nil {
		t.Fatal(err)
	}
	const advice = ": give an IPv4 address that other machines reach; containers on different nodes reach each other by IPv4 alone"
	for name, spoil := range map[string]func(*Config){
		"--advertise \"n1\"" + advice:           func(c *Config) { c.Advertise = "n1" },
		"--advertise \"fd00::1\"" + advice:      func(c *Config) { c.Advertise = "fd00::1" },
		"--advertise \"fe80::1%eth0\"" + advice: func(c *Config) { c.Advertise = "fe80::1%eth0" },
		"--advertise \"0.0.0.0\"" + advice:      func(c *Config) { c.Advertise = "0.0.0.0" },
		"--pool \"10.213.0.0/24\": give an IPv4 range of at least /20, such as 10.213.0.0/16":                              func(c *Config) { c.Pool = "10.213.0.0/24" },
		"--http-port 70000: ports are 1 to 65535":                                                                          func(c *Config) { c.HTTPPort = 70000 },
		"--http-port and --https-port are both 443":                                                                        func(c *Config) { c.HTTPPort = 443 },
		"--https-port 21076: Traefik itself listens on ports 21000 to 21999; give one outside them":                        func(c *Config) { c.HTTPSPort = 21076 },
		"--trusted-proxies \"proxy\": give addresses or ranges, such as 192.0.2.10 or 10.1.0.0/16, separated by commas":    func(c *Config) { c.TrustedProxies = []string{"10.0.0.0/8", "proxy"} },
		"--trusted-proxies \"10.0.0/8\": give addresses or ranges, such as 192.0.2.10 or 10.1.0.0/16, separated by commas": func(c *Config) { c.TrustedProxies = []string{"10.0.0/8"} },
		"--etcd-quota \"1KiB\": give a size from 16MiB to 8GiB":                                                            func(c *Config) { c.EtcdQuota = "1KiB" },
		"--etcd-cert and --etcd-key go together":                                                                           func(c *Config) { c.EtcdCert = "cert.pem" },
		"the flags --vault-… need --vault, the address of the Vault":                                                       func(c *Config) { c.Vault.TokenFile = "t" },
		"--image-gc-high 100: give a percentage of the disk, 2 to 99, or 0 to remove no images":                            func(c *Config) { c.ImageGCHigh = 100 },
		"--image-gc-low 85: give a percentage below --image-gc-high, which is 85":                                          func(c *Config) { c.ImageGCHigh, c.ImageGCLow = 85, 85 },
		"--image-gc-low 0: give a percentage below --image-gc-high, which is 85":                                           func(c *Config) { c.ImageGCHigh = 85 },
	} {
		c := good
		spoil(&c)
		if err := c.validate(); cluster.KindOf(err) != cluster.KindInvalid || err.Error() != name {
			t.Errorf("%v; want %s", err, name)
		}
	}
	without := good
	without.NoGateway, without.HTTPSPort = true, 21076
	if err := without.validate(); err != nil {
		t.Errorf("without a gateway: %v", err)
	}
}

func TestTrustedProxies(t *testing.T) {
	c := Config{Node: "n1", Advertise: "10.0.0.1", TrustedProxies: []string{"192.0.2.10", "10.1.2.3/16", "fd00::/8"}}
	if err := c.SetDefaults(); err != nil {
		t.Fatal(err)
	}
	m := local{Config: c}
	if got := fmt.Sprint(m.gatewayConfig().TrustedProxies); got != "[192.0.2.10/32 10.1.0.0/16 fd00::/8]" {
		t.Errorf("the gateway gets %s", got)
	}
}

// The flags say when images are removed where nothing is given, also in units of before.
func TestImagesAreRemovedUnlessThatIsTurnedOff(t *testing.T) {
	for args, want := range map[string][2]int{
		"": {85, 80}, "--image-gc-high=0": {0, 80}, "--image-gc-high=70 --image-gc-low=60": {70, 60},
	} {
		c := Config{Node: "n1"}
		known := pflag.NewFlagSet("agent", pflag.ContinueOnError)
		c.registerNode(known)
		if err := known.Parse(strings.Fields(args)); err != nil {
			t.Fatal(err)
		}
		if err := c.SetDefaults(); err != nil || c.ImageGCHigh != want[0] || c.ImageGCLow != want[1] {
			t.Errorf("%q: %d, %d, %v", args, c.ImageGCHigh, c.ImageGCLow, err)
		}
		if got := strings.Join(serverArgs(known, known), " "); got != args {
			t.Errorf("%q: a service runs with %q", args, got)
		}
	}
}
