package server

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/mesh"
	"github.com/fairlead/fairlead/pki"
)

func onLink(prefix, link string) hostRoute {
	return hostRoute{to: netip.MustParsePrefix(prefix), link: link}
}

func byGateway(prefix, via, link string) hostRoute {
	r := onLink(prefix, link)
	r.via = netip.MustParseAddr(via)
	return r
}

// What Fairlead made, before a restart too, and the ways to everywhere are no networks
// of the machine; all else is, other people's bridges among it.
func TestHostNets(t *testing.T) {
	address := onLink("10.213.9.7/24", "eth0")
	address.address = true
	bridge := onLink("10.213.0.1/24", "flabcdefg234") // an agent's
	bridge.address = true
	peer := byGateway("10.213.4.0/22", "10.0.0.2", "eth0")
	peer.protocol = mesh.RouteProtocol
	several := onLink("10.60.0.0/16", "")
	got := hostNets([]hostRoute{
		bridge, onLink("10.213.0.0/24", "flabcdefg234"), peer,
		byGateway("0.0.0.0/0", "10.0.0.1", "eth0"), byGateway("0.0.0.0/1", "10.8.0.1", "tun0"), byGateway("8.0.0.0/7", "10.8.0.1", "tun0"), onLink("0.0.0.0/0", "ppp0"),
		onLink("10.213.9.0/24", "eth0"), address,
		onLink("172.17.0.0/16", "docker0"), onLink("10.213.64.0/24", "br-0123456789ab"),
		byGateway("10.0.0.0/8", "10.8.0.1", "tun0"), several, onLink("10.50.0.0/16", "flannel.1"),
	})
	want := []cluster.HostNet{
		{Prefix: netip.MustParsePrefix("10.0.0.0/8"), By: "routed by 10.8.0.1 on tun0"},
		{Prefix: netip.MustParsePrefix("10.50.0.0/16"), By: "on interface flannel.1"},
		{Prefix: netip.MustParsePrefix("10.60.0.0/16"), By: "a route"},
		{Prefix: netip.MustParsePrefix("10.213.9.0/24"), By: "on interface eth0"},
		{Prefix: netip.MustParsePrefix("10.213.64.0/24"), By: "on interface br-0123456789ab"},
		{Prefix: netip.MustParsePrefix("172.17.0.0/16"), By: "on interface docker0"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v\nwant %v", got, want)
	}
}

func TestThisMachinesRoutesAreRead(t *testing.T) {
	all, err := hostRoutes()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(all, func(r hostRoute) bool {
		return r.address && r.link == "lo" && r.to.Contains(netip.MustParseAddr("127.0.0.1"))
	}) {
		t.Errorf("no loopback among %v", all)
	}
}

// The ranges are compared where they are chosen: a server that runs is not taken down.
func TestRangesThatOverlapAreRefusedWhereTheyAreChosen(t *testing.T) {
	host := func() []cluster.HostNet {
		return []cluster.HostNet{{Prefix: netip.MustParsePrefix("10.213.7.0/24"), By: "on interface eth1"}}
	}
	fresh := func() Config {
		return Config{DataDir: t.TempDir(), Pool: "10.213.0.0/16", ServiceRange: "10.212.0.0/16", Log: hclog.NewNullLogger()}
	}
	refused := func(name string, c Config, says ...string) {
		t.Helper()
		err := c.chooseRanges(host)
		if cluster.KindOf(err) != cluster.KindInvalid {
			t.Errorf("%s: %v", name, err)
			return
		}
		for _, s := range says {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%s: %v; want %q", name, err, s)
			}
		}
		if left, err := os.ReadDir(c.DataDir); name == "the first start" && (err != nil || len(left) > 0) {
			t.Errorf("%s: %v, %v are left", name, err, left)
		}
	}
	taken := func(name string, c Config) {
		t.Helper()
		if err := c.chooseRanges(host); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := fresh()
	refused("the first start", c, "10.213.0.0/16 (--pool)", "10.213.7.0/24", "on interface eth1", "--pool 10.211.0.0/16")
	both := c
	both.ServiceRange = "10.213.64.0/20"
	refused("one in the other", both, "--pool 10.213.0.0/16 and --service-range 10.213.64.0/20 overlap")
	elsewhere := c
	elsewhere.Pool = "10.50.0.0/16"
	taken("other ranges", elsewhere)

	if err := elsewhere.keepRanges(); err != nil {
		t.Fatal(err)
	}
	refused("other ranges than before", c, "eth1")
	if err := c.keepRanges(); err != nil {
		t.Fatal(err)
	}
	taken("the same ranges as before", c)

	joins := fresh()
	joins.Join = "10.0.0.1:7420"
	taken("one that joins", joins)
	joined := fresh()
	if err := (settings{}).write(joined.DataDir); err != nil {
		t.Fatal(err)
	}
	taken("one that has joined", joined)
	older := fresh()
	if _, err := pki.Open(filepath.Join(older.DataDir, "pki"), pki.Host{Node: "n1", Hosts: []string{"10.0.0.1"}}, time.Now); err != nil {
		t.Fatal(err)
	}
	taken("one from before ranges were kept", older)
}

// A member is told on, and goes on: when a network comes, and when it has gone.
func TestAMembersOverlapIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Config{Pool: "10.213.0.0/16", ServiceRange: "10.212.0.0/16", Log: hclog.NewNullLogger()}
		var mu sync.Mutex // the race detector knows nothing of fake time
		var nets []cluster.HostNet
		var said []string
		comes := func(all ...cluster.HostNet) {
			mu.Lock()
			nets = all
			mu.Unlock()
			time.Sleep(overlapEvery)
			synctest.Wait()
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- c.watchOverlap(ctx, func() []cluster.HostNet {
				mu.Lock()
				defer mu.Unlock()
				return nets
			}, func(text string) { said = append(said, text) })
		}()
		synctest.Wait()
		comes(cluster.HostNet{Prefix: netip.MustParsePrefix("10.212.0.0/24"), By: "on interface wg0"})
		comes()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		want := []string{"", "10.212.0.0/16 (--service-range) overlaps with 10.212.0.0/24, which is on interface wg0", ""}
		if !slices.Equal(said, want) {
			t.Errorf("said %q", said)
		}
	})
}
