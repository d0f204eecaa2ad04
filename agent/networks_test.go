package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/cluster"
)

// lister runs a function while the networks are being read.
type lister struct {
	Engine
	during func() error
}

func (l lister) Networks(context.Context) ([]docker.Network, error) { return nil, l.during() }

// A doubt that comes up while the networks are read is about what was read.
func TestADoubtDuringALoadStays(t *testing.T) {
	var n *netset
	var during func() error
	cfg := &Config{OnNetworks: func([]Network) {}}
	n = newNetset(cfg, func() map[cluster.NetworkName]bool { return nil })
	cfg.Engine = lister{during: func() error { return during() }}
	during = func() error { n.doubt(); return nil } //nolint:unparam // one of two; the other fails
	if err := n.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !n.doubted() {
		t.Error("a doubt that came during a load is lost")
	}
	during = func() error { return nil }
	n.doubt()
	if err := n.load(t.Context()); err != nil || n.doubted() {
		t.Errorf("a doubt is left after a load that began later: %v", err)
	}
	during = func() error { return errors.New("no") }
	n.doubt()
	if err := n.load(t.Context()); err == nil || !n.doubted() {
		t.Errorf("a load that failed settles a doubt: %v", err)
	}
	// Doubts come from other goroutines, without the lock of a load.
	done := make(chan struct{})
	during = func() error { return nil }
	go func() { n.doubt(); close(done) }()
	_ = n.load(t.Context())
	<-done
}

type listed struct {
	Engine
	list []docker.Network
}

func (l listed) Networks(context.Context) ([]docker.Network, error) { return l.list, nil }

// After a start, the networks of others are known as far as tasks are on them:
// names are answered there from the beginning.
func TestNetworksOfOthersAreKnownAfterAStart(t *testing.T) {
	subnet := func(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }
	ours := map[string]string{cluster.LabelCluster: "c1", cluster.LabelNode: "n1", docker.LabelNetwork: "shop_default"}
	var got []string
	cfg := &Config{ClusterID: "c1", Node: "n1", OnNetworks: func(nets []Network) {
		got = nil
		for _, x := range nets {
			got = append(got, fmt.Sprint(x.Name, " ", x.Subnet, " ", x.External))
		}
	}}
	cfg.Engine = listed{list: []docker.Network{
		{ID: "1", Name: "shop_default", Bridge: "b1", Subnets: subnet("10.1.0.0/24"), Labels: ours},
		{ID: "2", Name: "legacy", Bridge: "b2", Subnets: subnet("10.2.0.0/24")},
		{ID: "3", Name: "unused", Bridge: "b3", Subnets: subnet("10.3.0.0/24")},
		{ID: "4", Name: "another", Bridge: "b4", Subnets: subnet("10.4.0.0/24"), Labels: map[string]string{cluster.LabelCluster: "c2"}},
	}}
	n := newNetset(cfg, func() map[cluster.NetworkName]bool {
		return map[cluster.NetworkName]bool{"legacy": true, "another": true}
	})
	if err := n.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := []string{"legacy 10.2.0.0/24 true", "shop_default 10.1.0.0/24 false"}; !slices.Equal(got, want) {
		t.Errorf("announced %v, want %v", got, want)
	}
}

// Networks that no task has used for a moment give their addresses to one that needs
// some; those in use do not.
func TestUnusedNetworksMakeRoom(t *testing.T) {
	e := newFakeEngine()
	cfg := &Config{
		ClusterID: "c1", Node: "n1", Engine: e, Now: time.Now, OnNetworks: func([]Network) {},
		Pools: func() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("10.251.0.0/23")} },
	}
	used := map[cluster.NetworkName]bool{}
	n := newNetset(cfg, func() map[cluster.NetworkName]bool { return used })
	ensure := func(app cluster.AppName) error {
		p := &cluster.NodePlacement{ServiceID: cluster.ServiceID{App: app}}
		p.Spec.Networks = []cluster.NetworkRef{{Name: cluster.NetworkName(app + "_default")}}
		_, err := n.ensure(t.Context(), p)
		if err == nil {
			used[cluster.NetworkName(app+"_default")] = true
		}
		return err
	}
	for _, app := range []cluster.AppName{"a", "b"} {
		if err := ensure(app); err != nil {
			t.Fatal(err)
		}
	}
	inUse := func() map[cluster.NetworkName]bool { return used }
	if err := n.tidy(t.Context(), inUse); err != nil {
		t.Fatal(err)
	}
	if err := ensure("c"); cluster.KindOf(err) != cluster.KindTransient {
		t.Errorf("a third network where two fit: %v", err)
	}
	delete(used, "a_default")
	if err := n.tidy(t.Context(), inUse); err != nil {
		t.Fatal(err)
	}
	if err := ensure("c"); err != nil {
		t.Errorf("a's network has no task: %v", err)
	}
	var names []string
	for _, x := range e.nets {
		names = append(names, x.Name)
	}
	if want := []string{"b_default", "c_default"}; !slices.Equal(names, want) {
		t.Errorf("networks %v, want %v", names, want)
	}
}

// An external network that no app has declared is used when it is there, and never
// made; one that an app has declared is the cluster's.
func TestForeignNetworksAreNotMade(t *testing.T) {
	e := newFakeEngine()
	n := newNetset(&Config{
		ClusterID: "c1", Node: "n1", Engine: e, Now: time.Now, OnNetworks: func([]Network) {},
		Pools: func() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("10.251.0.0/23")} },
	}, func() map[cluster.NetworkName]bool { return nil })
	p := &cluster.NodePlacement{ServiceID: cluster.ServiceID{App: "shop"}, Foreign: []cluster.NetworkName{"proxy"}}
	p.Spec.Networks = []cluster.NetworkRef{{Name: "proxy", External: true}}
	_, err := n.ensure(t.Context(), p)
	if cluster.KindOf(err) != cluster.KindNotFound || !strings.Contains(err.Error(), "network proxy does not exist and is external") || len(e.nets) > 0 {
		t.Errorf("%v, and there is %v", err, e.nets)
	}
	p.Spec.Networks = []cluster.NetworkRef{{Name: "shared", External: true}}
	if got, err := n.ensure(t.Context(), p); err != nil || len(got) != 1 {
		t.Errorf("a declared one: %v, %v", got, err)
	}
	e.nets = append(e.nets, docker.Network{ID: "theirs", Name: "proxy"})
	p.Spec.Networks = []cluster.NetworkRef{{Name: "proxy", External: true}}
	if got, err := n.ensure(t.Context(), p); err != nil || len(got) != 1 || got[0].ID != "theirs" {
		t.Errorf("one that is there: %v, %v", got, err)
	}
}

// A node that was removed and joins again may have networks in addresses that another node
// has now. They are made anew, once no container uses them.
func TestStrayNetworksAreMadeAnew(t *testing.T) {
	e := newFakeEngine()
	own := netip.MustParsePrefix("10.251.4.0/22")
	var unknown error
	ours := map[string]string{cluster.LabelCluster: "c1", cluster.LabelNode: "n1", docker.LabelNetwork: "shop_default"}
	e.nets = []docker.Network{
		{ID: "stray", Name: "shop_default", Labels: ours, Subnets: []netip.Prefix{netip.MustParsePrefix("10.251.0.0/24"), netip.MustParsePrefix("fd00:1::/64")}},
		{ID: "theirs", Name: "proxy", Subnets: []netip.Prefix{netip.MustParsePrefix("172.20.0.0/16")}},
	}
	n := newNetset(&Config{
		ClusterID: "c1", Node: "n1", Engine: e, Now: time.Now, OnNetworks: func([]Network) {},
		Pools: func() []netip.Prefix { return []netip.Prefix{own} }, Holds: func(p netip.Prefix) (bool, error) { return own.Overlaps(p), unknown },
	}, func() map[cluster.NetworkName]bool { return map[cluster.NetworkName]bool{"proxy": true} })
	if err := n.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := &cluster.NodePlacement{ServiceID: cluster.ServiceID{App: "shop"}}
	p.Spec.Networks = []cluster.NetworkRef{{Name: "shop_default"}, {Name: "proxy", External: true}}
	e.inUse = map[string]bool{"stray": true}
	_, err := n.ensure(t.Context(), p)
	if cluster.KindOf(err) != cluster.KindTransient || !strings.Contains(err.Error(), "10.251.0.0/24") || !strings.Contains(err.Error(), "fairlead node drain n1") {
		t.Errorf("while a container uses it: %v", err)
	}
	e.inUse, unknown = nil, cluster.Transientf("not known")
	if _, err := n.ensure(t.Context(), p); !errors.Is(err, unknown) || len(e.nets) != 2 {
		t.Errorf("before it is known whose addresses they are: %v, %+v", err, e.nets)
	}
	unknown = nil
	for range 2 {
		got, err := n.ensure(t.Context(), p)
		if err != nil || len(got) != 2 || got[0].ID == "stray" || !own.Contains(got[0].Subnets[0].Addr()) || got[1].ID != "theirs" {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	if len(e.nets) != 2 {
		t.Errorf("there are %+v", e.nets)
	}
	// What an engine adds is none of the cluster's.
	for i := range e.nets {
		e.nets[i].Subnets = append(e.nets[i].Subnets, netip.MustParsePrefix("fd00:1::/64"))
	}
	e.inUse = map[string]bool{e.nets[0].ID: true, e.nets[1].ID: true}
	n.doubt()
	if got, err := n.ensure(t.Context(), p); err != nil || len(got) != 2 {
		t.Errorf("with IPv6 subnets: %+v, %v", got, err)
	}
}
