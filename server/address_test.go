package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/store"
)

func link(address, name string) uplink {
	u := uplink{link: name}
	u.address, _ = netip.ParseAddr(address)
	u.bridge = strings.HasPrefix(name, "br") || strings.HasPrefix(name, "docker") || strings.HasPrefix(name, "fl")
	return u
}

func TestAddressOfANode(t *testing.T) {
	t.Parallel()
	var (
		eth0   = link("10.0.0.7", "eth0")
		wlan0  = link("192.168.1.7", "wlan0")
		docker = link("172.17.0.1", "docker0")
		user   = link("172.18.0.1", "br-0123456789ab")
		ours   = link("10.213.0.1", "flabcdefg234")
		lan    = link("10.0.0.9", "br0") // a bridge that an uplink is on
		lo     = link("127.0.0.1", "lo")
	)
	for _, c := range []struct {
		name         string
		ways         waysOut
		now          string
		node, server string
	}{
		{"nothing", waysOut{}, "", "", ""},
		{"before there is an address: bridges of containers alone", waysOut{all: []uplink{docker, user, ours}}, "", "", ""},
		{"and the servers are behind such a bridge", waysOut{servers: []uplink{docker}, all: []uplink{docker}}, "", "", ""},
		{"an address, and no way to a server", waysOut{route: wlan0, all: []uplink{docker, wlan0}}, "", "", "192.168.1.7"},
		{"a way to a server that is not the default route", waysOut{servers: []uplink{eth0}, route: wlan0, all: []uplink{docker, wlan0, eth0}}, "", "10.0.0.7", "10.0.0.7"},
		{"a first server", waysOut{route: wlan0, all: []uplink{docker, eth0, wlan0}}, "", "", "192.168.1.7"},
		{"no default route: a bridge comes last", waysOut{all: []uplink{docker, lan, wlan0}}, "", "", "192.168.1.7"},
		{"a bridge that is no engine's", waysOut{all: []uplink{docker, lan}}, "", "", "10.0.0.9"},
		{"a default route by a bridge of an engine", waysOut{route: docker, all: []uplink{docker, lan}}, "", "", "10.0.0.9"},
		{"a server is reached by IPv6, by which no container is", waysOut{servers: []uplink{link("fd00::7", "eth0")}, all: []uplink{eth0}}, "", "", "10.0.0.7"},
		{"the servers are on this machine", waysOut{servers: []uplink{lo}, route: eth0, all: []uplink{eth0}}, "", "10.0.0.7", "10.0.0.7"},
		{"one of the servers is on this machine", waysOut{servers: []uplink{lo, eth0}, route: wlan0, all: []uplink{eth0, wlan0}}, "", "10.0.0.7", "10.0.0.7"},
		{"another uplink takes over, and the address stays", waysOut{servers: []uplink{wlan0}, route: wlan0, all: []uplink{eth0, wlan0}}, "10.0.0.7", "192.168.1.7", "10.0.0.7"},
		{"another lease", waysOut{servers: []uplink{link("10.0.0.8", "eth0")}, route: link("10.0.0.8", "eth0"), all: []uplink{link("10.0.0.8", "eth0")}}, "10.0.0.7", "10.0.0.8", "10.0.0.8"},
		{"it was a container bridge's", waysOut{servers: []uplink{eth0}, route: eth0, all: []uplink{docker, eth0}}, "172.17.0.1", "10.0.0.7", "10.0.0.7"},
	} {
		now, _ := netip.ParseAddr(c.now)
		text := func(a netip.Addr) string {
			if !a.IsValid() {
				return ""
			}
			return a.String()
		}
		if node, server := text(c.ways.nodeAddress(now)), text(c.ways.serverAddress(now)); node != c.node || server != c.server {
			t.Errorf("%s: node %q, server %q; want %q and %q", c.name, node, server, c.node, c.server)
		}
	}
}

func TestTheKernelIsAskedForTheWaysOut(t *testing.T) {
	t.Parallel()
	w, err := lookOut([]string{"127.0.0.1:7420", "name.invalid:7420", "127.0.0.2:7420"})
	if err != nil {
		t.Fatal(err)
	}
	if len(w.servers) != 2 || !w.servers[0].address.IsLoopback() || w.servers[0].link != "lo" {
		t.Errorf("towards servers here: %+v", w.servers)
	}
	for _, u := range w.all {
		if !u.address.IsValid() || u.address.IsLoopback() || u.link == "" {
			t.Errorf("%+v is a way out", u)
		}
	}
}

func TestAnAddressIsChosenOnceAndOnlyIfNoneIsGiven(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := hclog.New(&hclog.LoggerOptions{Output: &out})
	found := netip.MustParseAddr("10.0.0.7")
	for _, c := range []struct {
		given string
		find  netip.Addr
		node  bool
		want  string
		says  bool
	}{
		{"10.9.9.9", found, true, "10.9.9.9", false},
		{"", found, true, "10.0.0.7", false},
		{"", found, false, "10.0.0.7", false},
		{"", netip.Addr{}, true, "", true},
		{"", netip.Addr{}, false, "127.0.0.1", true},
	} {
		out.Reset()
		cfg := Config{Advertise: c.given, Log: log}
		cfg.settleAddress(func(netip.Addr) netip.Addr { return c.find }, c.node)
		if cfg.Advertise != c.want || cfg.chosen != (c.given == "") || strings.Contains(out.String(), "--advertise") != c.says {
			t.Errorf("%+v: %q, chosen %v: %s", c, cfg.Advertise, cfg.chosen, out.String())
		}
	}
}

func TestAServerThatMovedBeginsAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ends := []error{errors.Join(errMoved, nil), fmt.Errorf("ended: %w", errMoved), errors.Join(store.ErrPutBack, nil), errors.New("etcd died")}
		runs := 0
		run := func() error { runs++; return ends[runs-1] }
		if err := whileMoved(ctx, run); runs != 4 || err == nil || err.Error() != "etcd died" {
			t.Errorf("%d runs: %v", runs, err)
		}
		cancel()
		runs = 0
		if err := whileMoved(ctx, run); runs != 1 || err != nil {
			t.Errorf("told to end: %d runs, %v", runs, err)
		}
	})
}

// What changes is told, what comes back within two looks is not, and what was given is
// never looked at.
func TestAChangedAddressIsNoticed(t *testing.T) {
	for _, c := range []struct {
		name  string
		start string
		looks string // what is found: one a look
		moved []string
		fails bool
	}{
		{"a node that begins without", "", "- - 10.0.0.7 10.0.0.7", []string{" 10.0.0.7"}, false},
		{"another lease", "10.0.0.7", "10.0.0.7 10.0.0.8 10.0.0.8 10.0.0.8", []string{"10.0.0.7 10.0.0.8"}, false},
		{"a lease that ends and comes back", "10.0.0.7", "10.0.0.7 - 10.0.0.9 10.0.0.7 - -", nil, false},
		{"back and forth", "10.0.0.7", "10.0.0.8 10.0.0.8 10.0.0.7 10.0.0.7", []string{"10.0.0.7 10.0.0.8", "10.0.0.8 10.0.0.7"}, false},
		{"a server begins again", "127.0.0.1", "10.0.0.8 10.0.0.8 10.0.0.9 10.0.0.9", []string{"127.0.0.1 10.0.0.8"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				looks := strings.Fields(c.looks)
				var mu sync.Mutex
				var moved []string
				cfg := Config{Advertise: c.start, chosen: true, Log: hclog.NewNullLogger()}
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() {
					done <- cfg.watchAddress(ctx, func(netip.Addr) netip.Addr {
						mu.Lock()
						defer mu.Unlock()
						a, _ := netip.ParseAddr(looks[0])
						if len(looks) > 1 {
							looks = looks[1:]
						}
						return a
					}, func(from, to string) error {
						mu.Lock()
						defer mu.Unlock()
						moved = append(moved, from+" "+to)
						if c.fails {
							return errMoved
						}
						return nil
					})
				}()
				time.Sleep(10 * addressEvery)
				cancel()
				err := <-done
				mu.Lock()
				defer mu.Unlock()
				if !slices.Equal(moved, c.moved) || errors.Is(err, errMoved) != c.fails {
					t.Errorf("moved %q; want %q (%v)", moved, c.moved, err)
				}
			})
		})
	}
	given := Config{Advertise: "10.9.9.9"}
	if err := given.watchAddress(t.Context(), func(netip.Addr) netip.Addr { t.Error("looked at"); return netip.Addr{} }, nil); err != nil {
		t.Error(err)
	}
}
