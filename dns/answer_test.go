package dns

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"pgregory.net/rapid"

	"github.com/fairlead/fairlead/cluster"
)

var addrs = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

const (
	front  cluster.NetworkName = "shop_front"
	back   cluster.NetworkName = "shop_back"
	shared cluster.NetworkName = "proxy"
)

var (
	services = netip.MustParsePrefix("10.212.0.0/16")
	networks = []Network{
		{Name: front, Subnet: netip.MustParsePrefix("10.213.1.0/24"), Gateway: ip("10.213.1.1")},
		{Name: back, Subnet: netip.MustParsePrefix("10.213.2.0/24"), Gateway: ip("10.213.2.1"), Internal: true},
		{Name: shared, Subnet: netip.MustParsePrefix("10.213.3.0/24"), Gateway: ip("10.213.3.1")},
	}
)

func on(pairs ...any) map[cluster.NetworkName]string {
	m := map[cluster.NetworkName]string{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i].(cluster.NetworkName)] = pairs[i+1].(string)
	}
	return m
}

func testZone() *Zone {
	id := func(app, name string) cluster.ServiceID {
		return cluster.ServiceID{App: cluster.AppName(app), Name: cluster.ServiceName(name)}
	}
	return NewZone(services, []cluster.Endpoints{
		{
			ServiceID: id("shop", "Web"), Address: "10.212.0.1", Aliases: []string{"www"}, Networks: []cluster.NetworkName{front, shared},
			Tasks: []cluster.Endpoint{
				{Slot: 2, Addresses: on(front, "10.213.1.12", shared, "10.213.3.12")},
				{Slot: 1, Addresses: on(front, "10.213.1.11", shared, "10.213.3.11")},
			},
		},
		{ServiceID: id("shop", "db"), Address: "10.212.0.2", Networks: []cluster.NetworkName{back}, Tasks: []cluster.Endpoint{{Slot: 1, Addresses: on(back, "10.213.2.21")}}},
		{ServiceID: id("shop", "rr"), Mode: "dnsrr", Networks: []cluster.NetworkName{front}, Tasks: []cluster.Endpoint{
			{Slot: 1, Addresses: on(front, "10.213.1.31")}, {Slot: 2, Addresses: on(front, "10.213.1.32")},
		}},
		{ServiceID: id("shop", "empty"), Address: "10.212.0.4", Networks: []cluster.NetworkName{front}},
		{ServiceID: id("blog", "web"), Address: "10.212.0.5", Networks: []cluster.NetworkName{shared}, Tasks: []cluster.Endpoint{{Slot: 1, Addresses: on(shared, "10.213.3.51")}}},
		{ServiceID: id("blog", "post"), Address: "10.212.0.6", Networks: []cluster.NetworkName{shared}},
	}, networks)
}

func TestAnswer(t *testing.T) {
	z := testZone()
	inFront := Client{Addr: ip("10.213.1.50"), Via: front, App: "shop", Networks: []cluster.NetworkName{front}}
	inBoth := Client{Addr: ip("10.213.1.51"), Via: front, App: "shop", Networks: []cluster.NetworkName{front, back}}
	shopShared := Client{Addr: ip("10.213.3.50"), Via: shared, App: "shop", Networks: []cluster.NetworkName{shared}}
	blogShared := Client{Addr: ip("10.213.3.51"), Via: shared, App: "blog", Networks: []cluster.NetworkName{shared}}
	viaShared := Client{Addr: ip("10.213.3.52"), Via: shared, App: "shop", Networks: []cluster.NetworkName{front, shared}}
	third := Client{Addr: ip("10.213.3.99"), Via: shared, App: "third", Networks: []cluster.NetworkName{shared}}
	a := func(s ...string) Result {
		r := Result{}
		for _, x := range s {
			r.Addrs = append(r.Addrs, ip(x))
		}
		return r
	}
	unknown, forward := Result{Verdict: Unknown}, Result{Verdict: Forward}
	for _, c := range []struct {
		name   string
		client Client
		q      string
		typ    uint16
		want   Result
	}{
		{"a service", inFront, "web", dns.TypeA, a("10.212.0.1")},
		{"in any case, with the last dot", inFront, "wEb.", dns.TypeA, a("10.212.0.1")},
		{"an alias", inFront, "www", dns.TypeA, a("10.212.0.1")},
		{"with its app", inFront, "web.shop", dns.TypeA, a("10.212.0.1")},
		{"an alias with its app", inFront, "www.shop", dns.TypeA, a("10.212.0.1")},
		{"Swarm's name", inFront, "shop_web", dns.TypeA, a("10.212.0.1")},
		{"its tasks, by slot", inFront, "tasks.web", dns.TypeA, a("10.213.1.11", "10.213.1.12")},
		{"its tasks, as seen on the other network", shopShared, "tasks.web", dns.TypeA, a("10.213.3.11", "10.213.3.12")},
		{"its tasks on the network it asked through", viaShared, "tasks.web", dns.TypeA, a("10.213.3.11", "10.213.3.12")},
		{"its tasks with the app", inFront, "tasks.web.shop", dns.TypeA, a("10.213.1.11", "10.213.1.12")},
		{"Swarm's name of its tasks", inFront, "tasks.shop_web", dns.TypeA, a("10.213.1.11", "10.213.1.12")},
		{"a slot", inFront, "web.2", dns.TypeA, a("10.213.1.12")},
		{"a slot with the app", inFront, "web.2.shop", dns.TypeA, a("10.213.1.12")},
		{"a slot that is not there is no name of the outside either", inFront, "web.3", dns.TypeA, unknown},
		{"dnsrr", inFront, "rr", dns.TypeA, a("10.213.1.31", "10.213.1.32")},
		{"no ready task: the address stays", inFront, "empty", dns.TypeA, a("10.212.0.4")},
		{"no ready task: no tasks", inFront, "tasks.empty", dns.TypeA, Result{}},
		{"no IPv6, but the name is there", inFront, "web", dns.TypeAAAA, Result{}},
		{"no other type either", inFront, "web", dns.TypeSRV, Result{}},
		{"a service of another network", inFront, "db", dns.TypeA, unknown},
		{"the same in full looks like any name", inFront, "db.shop", dns.TypeA, forward},
		{"a container on two networks sees both", inBoth, "db", dns.TypeA, a("10.212.0.2")},
		{"and the tasks of the one it did not ask through", inBoth, "tasks.db", dns.TypeA, a("10.213.2.21")},
		{"one's own app wins", shopShared, "web", dns.TypeA, a("10.212.0.1")},
		{"for each", blogShared, "web", dns.TypeA, a("10.212.0.5")},
		{"the other app's by its full name", blogShared, "web.shop", dns.TypeA, a("10.212.0.1")},
		{"the other app's when there is no own one", shopShared, "post", dns.TypeA, a("10.212.0.6")},
		{"who is of neither app is told both", third, "web", dns.TypeA, a("10.212.0.5", "10.212.0.1")},
		{"a single label is never asked outside", inFront, "localhost", dns.TypeA, unknown},
		{"nor a name under tasks", inFront, "tasks.google", dns.TypeA, unknown},
		{"nor one under tasks with an app", inFront, "tasks.nobody.shop", dns.TypeA, unknown},
		{"a host of the world that is called tasks", inFront, "tasks.googleapis.com", dns.TypeA, Result{Verdict: Forward}},
		{"everything else is", inFront, "example.com", dns.TypeA, forward},
		{"the root is", inFront, ".", dns.TypeNS, forward},
		{"a service address backwards", inFront, "1.0.212.10.in-addr.arpa", dns.TypePTR, Result{Names: []string{"web.shop"}}},
		{"a task's address backwards", inFront, "12.1.213.10.in-addr.arpa", dns.TypePTR, Result{Names: []string{"web.2.shop"}}},
		{"of a network one is not on", inFront, "2.0.212.10.in-addr.arpa", dns.TypePTR, unknown},
		{"ours, but nothing", inFront, "9.9.212.10.in-addr.arpa", dns.TypePTR, unknown},
		{"not ours", inFront, "8.8.8.8.in-addr.arpa", dns.TypePTR, forward},
	} {
		t.Run(c.name, func(t *testing.T) {
			if d := cmp.Diff(c.want, Answer(z, c.client, Question{c.q, c.typ}), addrs); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestAliasOfOneNetwork: it is answered on that network only, as with Docker, and
// so are the tasks under it; the others are known on all.
func TestAliasOfOneNetwork(t *testing.T) {
	e := cluster.Endpoints{
		ServiceID: cluster.ServiceID{App: "shop", Name: "web"}, Address: "10.212.0.1", Networks: []cluster.NetworkName{back, front},
		Aliases: []string{"both", "www"}, AliasNetworks: map[string][]cluster.NetworkName{"www": {front}},
		Tasks: []cluster.Endpoint{{Slot: 1, Addresses: on(front, "10.213.1.11", back, "10.213.2.11")}},
	}
	const vip, inFront, inBack = "10.212.0.1", "10.213.1.11", "10.213.2.11"
	for _, c := range []struct {
		on   []cluster.NetworkName // the first is asked through
		q    string
		want string
	}{
		{[]cluster.NetworkName{front}, "www", vip},
		{[]cluster.NetworkName{front}, "tasks.www", inFront},
		{[]cluster.NetworkName{back}, "www", ""},
		{[]cluster.NetworkName{back}, "tasks.www", ""},
		{[]cluster.NetworkName{back}, "www.1.shop", ""},
		{[]cluster.NetworkName{back}, "both", vip},
		{[]cluster.NetworkName{back}, "tasks.both", inBack},
		{[]cluster.NetworkName{back}, "web", vip},
		{[]cluster.NetworkName{back, front}, "www", vip},
		{[]cluster.NetworkName{back, front}, "tasks.www", inFront},
		{[]cluster.NetworkName{back, front}, "tasks.web", inBack},
	} {
		got := ""
		for _, a := range Answer(NewZone(services, []cluster.Endpoints{e}, networks), Client{App: "shop", Via: c.on[0], Networks: c.on}, Question{c.q, dns.TypeA}).Addrs {
			got += a.String()
		}
		if got != c.want {
			t.Errorf("%s on %v: %q, want %q", c.q, c.on, got, c.want)
		}
	}
}

// TestNoAnswerAcrossNetworks: whatever is asked, no client hears an address of a
// service with which it shares no network, nor a task's address on a network
// that it is not on; and the order of the endpoints does not matter.
func TestNoAnswerAcrossNetworks(t *testing.T) {
	nets := []cluster.NetworkName{"n0", "n1", "n2"}
	rapid.Check(t, func(t *rapid.T) {
		var eps []cluster.Endpoints
		for s := range rapid.IntRange(1, 6).Draw(t, "services") {
			e := cluster.Endpoints{
				ServiceID: cluster.ServiceID{
					App:  cluster.AppName(rapid.SampledFrom([]string{"a", "b"}).Draw(t, "app")),
					Name: cluster.ServiceName(fmt.Sprintf("s%d", s%3)),
				},
				Address:  fmt.Sprintf("10.212.0.%d", s+1),
				Networks: rapid.SliceOfNDistinct(rapid.SampledFrom(nets), 0, 3, rapid.ID).Draw(t, "on"),
			}
			if rapid.Bool().Draw(t, "dnsrr") {
				e.Mode, e.Address = "dnsrr", ""
			}
			for slot := range rapid.IntRange(0, 3).Draw(t, "tasks") {
				x := cluster.Endpoint{Slot: slot + 1, Addresses: map[cluster.NetworkName]string{}}
				for _, n := range e.Networks {
					x.Addresses[n] = fmt.Sprintf("10.213.%d.%d", slices.Index(nets, n), 10*s+slot+2)
				}
				e.Tasks = append(e.Tasks, x)
			}
			eps = append(eps, e)
		}
		c := Client{App: "a", Networks: rapid.SliceOfNDistinct(rapid.SampledFrom(nets), 1, 3, rapid.ID).Draw(t, "client")}
		c.Via = c.Networks[0]
		may := map[netip.Addr]bool{}
		for _, e := range eps {
			for _, n := range e.Networks {
				if !slices.Contains(c.Networks, n) {
					continue
				}
				if e.Address != "" {
					may[ip(e.Address)] = true
				}
				for _, x := range e.Tasks {
					may[ip(x.Addresses[n])] = true
				}
			}
		}
		z := NewZone(services, eps, nil)
		slices.Reverse(eps)
		again := NewZone(services, eps, nil)
		for name := range z.names {
			q := Question{name, dns.TypeA}
			r := Answer(z, c, q)
			for _, a := range r.Addrs {
				if !may[a] {
					t.Fatalf("%s: %s must not be told", name, a)
				}
			}
			other := Answer(again, c, q)
			slices.SortFunc(r.Addrs, netip.Addr.Compare)
			slices.SortFunc(other.Addrs, netip.Addr.Compare)
			if d := cmp.Diff(r, other, addrs); d != "" {
				t.Fatalf("%s depends on the order of the endpoints: %s", name, d)
			}
		}
	})
}

// Nobody is asked who should not be: for no client a name of the cluster's, for one
// without a way out or with servers of its own no name at all.
func TestNothingIsForwardedThatShouldNot(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var nets []Network
		wayOut := false
		c := Client{App: "a", OwnServers: rapid.Bool().Draw(t, "own servers")}
		for i := range rapid.IntRange(1, 3).Draw(t, "networks") {
			n := Network{
				Name: cluster.NetworkName(fmt.Sprint("n", i)), Subnet: netip.MustParsePrefix(fmt.Sprintf("10.213.%d.0/24", i)),
				Internal: rapid.Bool().Draw(t, "internal"),
			}
			nets = append(nets, n)
			if i == 0 || rapid.Bool().Draw(t, "on it") {
				c.Networks = append(c.Networks, n.Name)
				wayOut = wayOut || !n.Internal
			}
		}
		c.Via = c.Networks[0]
		z := NewZone(services, []cluster.Endpoints{{
			ServiceID: cluster.ServiceID{App: "a", Name: "web"}, Address: "10.212.0.1", Networks: []cluster.NetworkName{"n0"},
		}}, nets)
		q := Question{
			Name: rapid.SampledFrom([]string{
				"web", "web.a", "a_web", "tasks.web", "tasks.nothere", "web.2", "nothere", "1.0.212.10.in-addr.arpa", "9.0.213.10.in-addr.arpa",
				"example.com", "8.8.8.8.in-addr.arpa",
			}).Draw(t, "name"),
			Type: rapid.SampledFrom([]uint16{dns.TypeA, dns.TypeAAAA, dns.TypePTR}).Draw(t, "type"),
		}
		outside := q.Name == "example.com" || q.Name == "8.8.8.8.in-addr.arpa"
		got := Answer(z, c, q).Verdict
		if want := outside && wayOut && !c.OwnServers; want != (got == Forward) {
			t.Fatalf("%v asks %v, %+v: verdict %d", c, q, nets, got)
		}
		if want := c.OwnServers && (outside || q.Name == "nothere"); want != (got == Elsewhere) {
			t.Fatalf("%v asks %v, %+v: verdict %d", c, q, nets, got)
		}
	})
}
