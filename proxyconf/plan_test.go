package proxyconf

import (
	gocmp "cmp"
	"fmt"
	"maps"
	"math"
	"math/rand"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fairlead/fairlead/cluster"
)

func id(app, name string) cluster.ServiceID {
	return cluster.ServiceID{App: cluster.AppName(app), Name: cluster.ServiceName(name)}
}

func service(app, name string, created cluster.StoreRev, routes ...cluster.Route) cluster.Service {
	return cluster.Service{ServiceID: id(app, name), Created: created, Spec: cluster.ServiceSpec{Routes: routes}}
}

func endpoints(app, name string, rev cluster.StoreRev, ips ...string) cluster.Endpoints {
	e := cluster.Endpoints{ServiceID: id(app, name), Rev: rev, Networks: []cluster.NetworkName{"a", "b"}}
	for i, ip := range ips {
		e.Tasks = append(e.Tasks, cluster.Endpoint{Task: cluster.TaskID(ip), Slot: i + 1, Addresses: map[cluster.NetworkName]string{"b": ip}})
	}
	return e
}

// apply returns the tree after the writes, and the refusals.
func apply(current map[string]string, acts []Action) (map[string]string, []Refusal) {
	out := maps.Clone(current)
	if out == nil {
		out = map[string]string{}
	}
	var refused []Refusal
	for _, a := range acts {
		switch a := a.(type) {
		case Write:
			if a.Delete {
				delete(out, a.Key)
			} else {
				out[a.Key] = a.Value
			}
		case Refuse:
			refused = append(refused, a.Refusals...)
		case Accept:
		}
	}
	return out, refused
}

// below returns the pairs below a prefix, without it.
func below(tree map[string]string, prefix string) map[string]string {
	out := map[string]string{}
	for k, v := range tree {
		if rest, ok := strings.CutPrefix(k, Root+"/"+prefix); ok {
			out[rest] = v
		}
	}
	return out
}

func TestOneRoute(t *testing.T) {
	tree, refused := apply(nil, Plan(Snapshot{
		Rev: 12,
		Services: []cluster.Service{service("shop", "web", 3, cluster.Route{
			Host: "Shop.Example.com", Path: "/api/", Port: 8080, TLS: true,
			Middlewares: []cluster.Middleware{
				{Name: "auth", Sealed: "basicauth-0123456789abcdef"}, {Name: "Twice", Options: map[string]string{"Retry/Attempts": "2"}},
			},
		})},
		Endpoints: []cluster.Endpoints{endpoints("shop", "web", 9, "10.0.0.2", "10.0.0.3")},
	}))
	if len(refused) != 0 {
		t.Fatal(refused)
	}
	rule := "Host(`shop.example.com`) && (Path(`/api`) || PathPrefix(`/api/`))"
	priority := fmt.Sprint(2*classPriority + middlePriority + len("Host(`shop.example.com`) && PathPrefix(`/api`)"))
	for prefix, want := range map[string]map[string]string{
		"http/routers/": {
			"shop_web-0/rule": rule, "shop_web-0/service": "shop_web-8080", "shop_web-0/priority": priority, "shop_web-0/entryPoints/0": "web",
			"shop_web-0/middlewares/0": "fairlead-auth-basicauth-0123456789abcdef@file",
			"shop_web-0/middlewares/1": "shop_web-0-m1", "shop_web-0/middlewares/2": "fairlead-retry",
			"shop_web-0-tls/rule": rule, "shop_web-0-tls/service": "shop_web-8080", "shop_web-0-tls/priority": priority,
			"shop_web-0-tls/entryPoints/0": "websecure", "shop_web-0-tls/tls": "true",
			"shop_web-0-tls/middlewares/0": "fairlead-auth-basicauth-0123456789abcdef@file",
			"shop_web-0-tls/middlewares/1": "shop_web-0-m1", "shop_web-0-tls/middlewares/2": "fairlead-retry",
		},
		"http/services/": {
			"shop_web-8080/loadBalancer/passHostHeader":        "true",
			"shop_web-8080/loadBalancer/serversTransport":      "fairlead",
			"shop_web-8080/loadBalancer/servers/167772162/url": "http://10.0.0.2:8080",
			"shop_web-8080/loadBalancer/servers/167772163/url": "http://10.0.0.3:8080",
			"fairlead-revision/loadBalancer/servers/0/url":     "http://fairlead.invalid/12",
		},
		"http/middlewares/shop_web-0-m1/": {"retry/attempts": "2"},
	} {
		if diff := cmp.Diff(want, below(tree, prefix)); diff != "" {
			t.Errorf("%s: %s", prefix, diff)
		}
	}
}

func TestGlobalsPassTheCheck(t *testing.T) {
	want := map[string]map[string]string{}
	render(Snapshot{}, want)
	for _, name := range []string{
		objectRoot, objectSeed, "http/middlewares/" + retryName, "http/serversTransports/" + transport,
		"http/serversTransports/" + transportTLS, "tcp/serversTransports/" + transport,
	} {
		if len(want[name]) == 0 {
			t.Errorf("%q is missing: it did not pass its own check", name)
		}
	}
}

func TestNoEndpointKeepsTheRouter(t *testing.T) {
	tree, _ := apply(nil, Plan(Snapshot{Services: []cluster.Service{service("shop", "web", 3, cluster.Route{Host: "a.example.com", Port: 80})}}))
	if len(below(tree, "http/routers/shop_web-0/")) == 0 {
		t.Error("the router is gone: 404 instead of 503")
	}
	want := map[string]string{"passHostHeader": "true", "serversTransport": "fairlead"}
	if diff := cmp.Diff(want, below(tree, "http/services/shop_web-80/loadBalancer/")); diff != "" {
		t.Error(diff)
	}
}

func TestPorts(t *testing.T) {
	svc := service("shop", "db", 1)
	svc.Spec.Ports = []cluster.PublishedPort{
		{Published: 5432, Target: 15432, Protocol: "tcp", Mode: "gateway"},
		{Published: 5353, Target: 5353, Protocol: "udp", Mode: "gateway"},
		{Published: 80, Target: 1, Protocol: "tcp", Mode: "gateway"},
		{Published: 9, Target: 9, Protocol: "tcp", Mode: "node"},
		{Published: 0, Target: 9, Protocol: "tcp", Mode: "gateway"},
		{Published: 7, Target: 9, Protocol: "sctp", Mode: "gateway"},
		{Published: 53, Target: 53, Protocol: "udp", Mode: "gateway"},
		{Published: 53, Target: 53, Protocol: "tcp", Mode: "gateway"},
	}
	other := service("shop", "late", 2)
	other.Spec.Ports = svc.Spec.Ports[:1]
	s := Snapshot{
		Services: []cluster.Service{other, svc}, Reserved: map[int]string{80: "web"},
		Endpoints: []cluster.Endpoints{endpoints("shop", "db", 4, "10.0.0.2")},
	}
	tree, refused := apply(nil, Plan(s))
	for prefix, want := range map[string]map[string]string{
		"tcp/routers/":                   {"shop_db-tcp-5432/entryPoints/0": "tcp-5432", "shop_db-tcp-5432/rule": "HostSNI(`*`)", "shop_db-tcp-5432/service": "shop_db-tcp-5432"},
		"tcp/services/shop_db-tcp-5432/": {"loadBalancer/servers/167772162/address": "10.0.0.2:15432", "loadBalancer/serversTransport": "fairlead"},
		"udp/routers/":                   {"shop_db-udp-5353/entryPoints/0": "udp-5353", "shop_db-udp-5353/service": "shop_db-udp-5353"},
		"udp/services/shop_db-udp-5353/": {"loadBalancer/servers/167772162/address": "10.0.0.2:5353"},
	} {
		if diff := cmp.Diff(want, below(tree, prefix)); diff != "" {
			t.Errorf("%s: %s", prefix, diff)
		}
	}
	if len(refused) != 6 { // 80, 0, sctp, 53 twice, and the second claim of 5432
		t.Errorf("%d refusals: %v", len(refused), refused)
	}
	s.Endpoints = nil
	if tree, _ = apply(nil, Plan(s)); len(below(tree, "udp/")) != 0 || len(below(tree, "tcp/services/")) == 0 {
		t.Error("without endpoints TCP keeps its router, UDP has none")
	}
}

func TestTheOlderClaimWins(t *testing.T) {
	route := func(r cluster.Route) cluster.Route { r.Port = 80; return r }
	for name, c := range map[string]struct {
		a, b    cluster.Route
		refused bool
	}{
		"same host":                 {cluster.Route{Host: "x.example.com"}, cluster.Route{Host: "X.example.com."}, true},
		"same host and path":        {cluster.Route{Host: "x", Path: "/a"}, cluster.Route{Host: "x", Path: "/a/"}, true},
		"rule for the same host":    {cluster.Route{Host: "x"}, cluster.Route{Rule: "Host(\"X\") && PathPrefix(`/`)"}, true},
		"one of two hosts":          {cluster.Route{Host: "x"}, cluster.Route{Rule: "Host(`y`) || Host(`x`)"}, true},
		"other path":                {cluster.Route{Host: "x", Path: "/a"}, cluster.Route{Host: "x", Path: "/b"}, false},
		"host and host with path":   {cluster.Route{Host: "x"}, cluster.Route{Host: "x", Path: "/b"}, false},
		"public and internal":       {cluster.Route{Host: "x"}, cluster.Route{Host: "x", Internal: true}, false},
		"only one on websecure":     {cluster.Route{Host: "x", EntryPoints: []string{"web"}}, cluster.Route{Host: "x", EntryPoints: []string{"websecure"}}, false},
		"both on websecure":         {cluster.Route{Host: "x", TLS: true}, cluster.Route{Host: "x", EntryPoints: []string{"websecure"}}, true},
		"every host twice":          {cluster.Route{}, cluster.Route{Path: "/"}, true},
		"path as labels write it":   {cluster.Route{Host: "x", Path: "/a"}, cluster.Route{Rule: "Host(`x`) && PathPrefix(`/a`)"}, true},
		"and one of a wildcard":     {cluster.Route{Rule: "PathPrefix(`/a`) && HostRegexp(`^[^.]+\\.x$`)"}, cluster.Route{Host: "*.x", Path: "/a"}, true},
		"and of every host":         {cluster.Route{Path: "/a"}, cluster.Route{Rule: "PathPrefix(`/a`)"}, true},
		"a path that goes on":       {cluster.Route{Host: "x", Path: "/a"}, cluster.Route{Rule: "Host(`x`) && PathPrefix(`/ab`)"}, false},
		"rule with one more demand": {cluster.Route{Host: "x"}, cluster.Route{Rule: "Host(`x`) && Method(`POST`)"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			// The younger comes first by name, and first in the input.
			s := Snapshot{Services: []cluster.Service{service("a", "young", 9, route(c.b)), service("b", "old", 5, route(c.a))}}
			_, refused := apply(nil, Plan(s))
			if got := len(refused) == 1; got != c.refused {
				t.Fatalf("refused: %v", refused)
			}
			if c.refused && !strings.Contains(refused[0].Reason, "b/old") {
				t.Errorf("the refusal does not name the owner: %v", refused[0])
			}
		})
	}
}

// TestAppsOwnRoutesMayOverlap: what is a clash between two apps is none within one
// as long as the priorities differ, the user's or the lengths of the rules.
func TestAppsOwnRoutesMayOverlap(t *testing.T) {
	const both = "Host(`x`) || Host(`y`)"
	for name, c := range map[string]struct {
		a, b    cluster.Route
		refused bool
	}{
		"a part above":          {cluster.Route{Rule: both}, cluster.Route{Host: "y", Priority: 100}, false},
		"a part by length":      {cluster.Route{Rule: both}, cluster.Route{Host: "y"}, false},
		"a part as high":        {cluster.Route{Rule: both}, cluster.Route{Host: "y", Priority: len(both)}, true},
		"all, above":            {cluster.Route{Host: "x"}, cluster.Route{Host: "x", Priority: 100}, false},
		"all, as high":          {cluster.Route{Host: "x"}, cluster.Route{Host: "X."}, true},
		"other priority, class": {cluster.Route{Rule: "Path(`/a`)", Priority: 7}, cluster.Route{Rule: "Path(`/a`) || Host(`x`)", Priority: 7}, true},
		"other entry point":     {cluster.Route{Host: "x", EntryPoints: []string{"web"}}, cluster.Route{Host: "x", EntryPoints: []string{"websecure"}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			c.a.Port, c.b.Port = 80, 80
			for _, s := range [][]cluster.Service{
				{service("a", "b", 1, c.a, c.b)}, {service("a", "b", 1, c.a), service("a", "c", 2, c.b)},
			} {
				_, refused := apply(nil, Plan(Snapshot{Services: s}))
				if got := len(refused) == 1 && refused[0].Taken != nil; got != c.refused || len(refused) > 1 {
					t.Errorf("refused: %v", refused)
				}
			}
			other := service("b", "b", 1, c.b)
			refused := Check([]cluster.Service{other}, []cluster.Service{service("a", "b", 0, c.a)}, nil)
			if got := len(refused[id("a", "b")]) == 1 && refused[id("b", "b")] == nil; got != (name != "other entry point") {
				t.Errorf("of two apps the one that comes later is refused, though it is older: %v", refused)
			}
		})
	}
}

// TestPrioritiesKeepTheirOrder: over all that a user may write, and never across classes.
func TestPrioritiesKeepTheirOrder(t *testing.T) {
	rules := [...]string{classAny: "Path(`/`)", classPattern: "HostRegexp(`.`)", classHost: "Host(`x`)"}
	draw := func(t *rapid.T) (class, priority, traefik int) {
		class = rapid.IntRange(classAny, classHost).Draw(t, "class")
		priority = rapid.OneOf(
			rapid.IntRange(-cluster.MaxPriority, cluster.MaxPriority), rapid.SampledFrom([]int{-cluster.MaxPriority, -1, 1, 9999, 10000, 50000, 100000, cluster.MaxPriority}),
		).Filter(func(n int) bool { return n != 0 }).Draw(t, "priority")
		tree, refused := apply(nil, Plan(Snapshot{Services: []cluster.Service{service("a", "b", 1, cluster.Route{Rule: rules[class], Priority: priority, Port: 80})}}))
		if _, err := fmt.Sscan(tree[Root+"/http/routers/a_b-0/priority"], &traefik); err != nil || len(refused) > 0 {
			t.Fatal(err, refused)
		}
		if traefik < 1 || traefik > math.MaxInt32-1000 {
			t.Fatalf("Traefik takes no %d everywhere", traefik)
		}
		return class, priority, traefik
	}
	rapid.Check(t, func(t *rapid.T) {
		c1, p1, t1 := draw(t)
		c2, p2, t2 := draw(t)
		if want := gocmp.Or(gocmp.Compare(c1, c2), gocmp.Compare(p1, p2)); gocmp.Compare(t1, t2) != want {
			t.Fatalf("class %d priority %d is %d, class %d priority %d is %d", c1, p1, t1, c2, p2, t2)
		}
	})
	for _, r := range []cluster.Route{{Host: "x", Port: 80}, {Rule: "Path(`/" + strings.Repeat("a", maxRule-10) + "`)", Port: 80}} {
		_, rule, err := ruleOf(r)
		if n, err2 := priorityOf(r, r.Rule, rule.class); err != nil || err2 != nil || n-rule.class*classPriority-middlePriority > maxRule {
			t.Errorf("the length of a rule leaves its band: %d %v %v", n, err, err2)
		}
	}
	if err := Check(nil, []cluster.Service{service("a", "b", 1, cluster.Route{Host: "x", Port: 80, Priority: -cluster.MaxPriority - 1})}, nil)[id("a", "b")]; len(err) != 1 {
		t.Errorf("a priority beyond all: %v", err)
	}
}

func TestSpecificBeatsGeneral(t *testing.T) {
	// Each is more specific than the next; a user's priority changes nothing across classes.
	order := []cluster.Route{
		{Host: "shop.example.com", Path: "/api/v1"},
		{Host: "shop.example.com", Path: "/api"},
		{Host: "shop.example.com"},
		{Host: "*.example.com", Priority: 1 << 20},
		{Rule: "HostRegexp(`.+`)"},
		{Path: "/.well-known/a/very/long/path/that/goes/on", Priority: 9999},
		{Path: "/a"},
		{},
	}
	last := 1 << 30
	for i, r := range order {
		r.Port = 80
		tree, refused := apply(nil, Plan(Snapshot{Services: []cluster.Service{service("a", "b", 1, r)}}))
		var p int
		if _, err := fmt.Sscan(tree[Root+"/http/routers/a_b-0/priority"], &p); err != nil || len(refused) > 0 {
			t.Fatal(err, refused)
		}
		if p >= last {
			t.Errorf("route %d has priority %d, the more specific one before it %d", i, p, last)
		}
		last = p
	}
}

func TestNamesNeverMeet(t *testing.T) {
	seen := map[string]cluster.ServiceID{}
	for _, s := range []cluster.ServiceID{
		id("a", "b-c"), id("a-b", "c"), id("a", "web"), id("a", "Web"), id("a", "WEB"), id("a", "web-0"), id("a", "b_c"),
		id("a", "web_x"), id("a", objectName(id("a", "Web"))[2:]), id("1", "2"),
	} {
		name := strings.ToLower(objectName(s))
		if other, dup := seen[name]; dup {
			t.Errorf("%s and %s are both %q", s, other, name)
		}
		seen[name] = s
		if err := objectRef(name); err != nil {
			t.Error(err)
		}
	}
}

func TestMarker(t *testing.T) {
	web := service("shop", "web", 1, cluster.Route{Host: "x", Port: 80})
	quiet := service("shop", "quiet", 1)
	s := Snapshot{Rev: 10, Services: []cluster.Service{web, quiet}, Endpoints: []cluster.Endpoints{endpoints("shop", "web", 8, "10.0.0.1")}}
	step := func(what string, want cluster.StoreRev, writes int) {
		t.Helper()
		acts := Plan(s)
		s.Current, _ = apply(s.Current, acts)
		got, ok := ParseMarker(s.Current[MarkerKey])
		if !ok || got != want || (writes >= 0 && len(acts) != writes) {
			t.Errorf("%s: marker %d, want %d; %d actions, want %d", what, got, want, len(acts), writes)
		}
	}
	step("first", 10, -1)
	step("nothing new", 10, 0)
	s.Rev = 20
	step("time passes", 10, 0)
	s.Endpoints = append(s.Endpoints, endpoints("shop", "quiet", 19, "10.0.0.9"))
	step("a service without routes", 10, 0)
	s.Rev, s.Endpoints[0].Rev = 30, 25 // written anew, the same addresses
	step("a revision without a difference", 30, 1)
	s.Rev, s.Services[0].Rev, s.Services[1].Rev = 35, 34, 33
	step("declared anew, the same routes", 35, 1)
	step("acknowledged by that", 35, 0)
	s.Rev, s.Services[1].Rev = 36, 36
	step("a service without routes declared anew", 35, 0)
	s.Rev, s.Endpoints[0].Rev, s.Services[0].Spec.Routes = 40, 39, nil
	step("routes lost together with an endpoint", 40, -1)
	step("nothing left to do", 40, 0)
	s.Rev, s.Services[1].Rev, s.Services[1].Unrouted = 42, 41, true
	step("routes lost that were never served", 42, 1)
	step("acknowledged by that too", 42, 0)
	s.Rev, s.Endpoints[1].Rev = 44, 43
	step("its tasks came after what led to those before", 44, 1)
	s.Rev, s.Services[1].Unrouted, s.Endpoints[1].Rev = 46, false, 45
	step("declared anew, its endpoints are nobody's here", 44, 0)
	s.Rev = 38
	step("a store put back to an older state", 38, 1)
}

func TestRefusalsAreRecordedOnce(t *testing.T) {
	s := Snapshot{Services: []cluster.Service{service("shop", "web", 1, cluster.Route{Host: "a b", Port: 80, Source: cluster.Source{File: "compose.yaml", Line: 12}})}}
	var r Refuse
	for _, a := range Plan(s) {
		if x, ok := a.(Refuse); ok {
			r = x
		}
	}
	if !strings.Contains(r.Reason(), "compose.yaml:12") {
		t.Errorf("the reason names no place: %q", r.Reason())
	}
	s.Recorded = map[cluster.ServiceID]string{id("shop", "web"): r.Reason()}
	for _, a := range Plan(s) {
		if _, again := a.(Refuse); again {
			t.Error("recorded a second time")
		}
	}
	s.Services[0].Spec.Routes[0].Host = "ok"
	if acts := Plan(s); !slices.Contains(acts, Action(Accept{id("shop", "web")})) {
		t.Errorf("not taken back: %v", acts)
	}
}

func drawSnapshot(t *rapid.T, rev cluster.StoreRev) Snapshot {
	s := Snapshot{Rev: rev, Reserved: map[int]string{80: "web", 443: "websecure"}}
	pick := func(label string, of ...string) string { return rapid.SampledFrom(of).Draw(t, label) }
	for i := range rapid.IntRange(0, 12).Draw(t, "services") {
		svc := service(pick("app", "a", "a-b"), fmt.Sprintf("%s%d", pick("name", "web", "Web", "b-c"), i), cluster.StoreRev(rapid.IntRange(1, 3).Draw(t, "created")))
		svc.Rev, svc.Unrouted = cluster.StoreRev(rapid.IntRange(1, int(rev)).Draw(t, "declared")), rapid.IntRange(0, 3).Draw(t, "unrouted") == 0
		for range rapid.IntRange(0, 3).Draw(t, "routes") {
			r := cluster.Route{
				Host: pick("host", "", "x.example.com", "y.example.com", "*.example.com", "bad host", "z`x"),
				Path: pick("path", "", "/", "/a", "/a/b", "no-slash", "/`"), Port: rapid.SampledFrom([]int{80, 8080, 0}).Draw(t, "port"),
				Rule: pick("rule", "", "", "Host(`x.example.com`) || Path(`/b`)", "Host(", "!Host(`q`)", rapid.StringN(0, 12, -1).Draw(t, "text")),
				TLS:  rapid.Bool().Draw(t, "tls"), Internal: rapid.Bool().Draw(t, "internal"), Priority: rapid.IntRange(-1, 20000).Draw(t, "priority"),
				Scheme: pick("scheme", "", "http", "https", "h2c", "ftp"),
			}
			if rapid.Bool().Draw(t, "middleware") {
				r.Middlewares = []cluster.Middleware{{Name: "m", Options: map[string]string{
					pick("option", "compress", "ratelimit/average", "headers/customrequestheaders/X-A", "chain/middlewares", "no/such", rapid.StringN(0, 8, -1).Draw(t, "key")): pick("value", "true", "7", "x,y", rapid.StringN(0, 8, -1).Draw(t, "val")),
				}}}
			}
			svc.Spec.Routes = append(svc.Spec.Routes, r)
		}
		if len(svc.Spec.Routes) > 0 && rapid.Bool().Draw(t, "moved") {
			svc.Before = map[string]map[string]int{"v1": {svc.Spec.Routes[0].Way(): rapid.SampledFrom([]int{0, 80, 9000}).Draw(t, "port before")}}
			svc.Left = []cluster.Route{{Host: pick("host left", "x.example.com", "left.example.com", "bad host"), Port: 80}}
			svc.LeftPorts = []cluster.PublishedPort{{Published: rapid.SampledFrom([]int{0, 80, 5432}).Draw(t, "port left"), Target: 1, Protocol: "tcp", Mode: "gateway"}}
		}
		for range rapid.IntRange(0, 2).Draw(t, "ports") {
			svc.Spec.Ports = append(svc.Spec.Ports, cluster.PublishedPort{
				Published: rapid.SampledFrom([]int{80, 5432, 53}).Draw(t, "published"), Target: 5432, Protocol: pick("proto", "tcp", "udp"), Mode: pick("mode", "gateway", "node"),
			})
		}
		s.Services = append(s.Services, svc)
		if rapid.IntRange(0, 3).Draw(t, "served") > 0 {
			var ips []string
			for j := range rapid.IntRange(0, 130).Draw(t, "tasks") {
				ips = append(ips, pick("ip", "10.0.%d.%d", "10.0.%d.%d", "fd00::%d:%d"))
				ips[j] = fmt.Sprintf(ips[j], i, j)
			}
			s.Endpoints = append(s.Endpoints, endpoints(string(svc.App), string(svc.Name), cluster.StoreRev(rapid.IntRange(1, int(rev)).Draw(t, "rev")), ips...))
		}
	}
	return s
}

func TestPlanLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSnapshot(t, 50)
		if rapid.Bool().Draw(t, "garbage") {
			s.Current = map[string]string{"traefik/http/rooters/x/y": "z", "traefik/http/routers/old-0/rule": "Host(`old`)", "traefik/x": "y"}
		}
		s.Current = converge(t, s)
		// Revisions move on without a difference.
		s.Rev, s.Endpoints = 60, slices.Clone(s.Endpoints)
		for i := range s.Endpoints {
			if rapid.Bool().Draw(t, "rewritten") {
				s.Endpoints[i].Rev = cluster.StoreRev(rapid.IntRange(51, 60).Draw(t, "rev"))
			}
		}
		s.Current = converge(t, s)
		next := drawSnapshot(t, 90)
		next.Current = s.Current
		tree := converge(t, next)
		for k := range tree {
			if k != Root && !strings.HasPrefix(k, Root+"/http/") && !strings.HasPrefix(k, Root+"/tcp/") && !strings.HasPrefix(k, Root+"/udp/") {
				t.Fatalf("garbage was left: %s", k)
			}
		}
	})
}

// converge applies a plan batch by batch, dying after some of them, and holds at
// every step what Traefik needs.
func converge(t *rapid.T, s Snapshot) map[string]string {
	acts := Plan(s)
	shuffled := s
	shuffled.Services, shuffled.Endpoints = slices.Clone(s.Services), slices.Clone(s.Endpoints)
	r := rand.New(rand.NewSource(rapid.Int64().Draw(t, "shuffle")))
	r.Shuffle(len(s.Services), func(i, j int) {
		shuffled.Services[i], shuffled.Services[j] = shuffled.Services[j], shuffled.Services[i]
	})
	r.Shuffle(len(s.Endpoints), func(i, j int) {
		shuffled.Endpoints[i], shuffled.Endpoints[j] = shuffled.Endpoints[j], shuffled.Endpoints[i]
	})
	if !reflect.DeepEqual(acts, Plan(shuffled)) {
		t.Fatal("the order of the input matters")
	}
	size := rapid.SampledFrom([]int{7, 99}).Draw(t, "size")
	start, _ := ParseMarker(s.Current[MarkerKey])
	checked := map[string]map[string]string{}
	clean := s.Current == nil || s.Current["traefik/x"] == ""
	for range 1000 {
		var writes []Write
		for _, a := range Plan(s) {
			if w, ok := a.(Write); ok {
				writes = append(writes, w)
			}
		}
		if len(writes) == 0 {
			break
		}
		batches := Batches(writes, size)
		done := rapid.IntRange(1, len(batches)).Draw(t, "batches before the crash")
		for i, b := range batches[:done] {
			if len(b) > size {
				t.Fatalf("a batch of %d", len(b))
			}
			var as []Action
			for _, w := range b {
				as = append(as, w)
			}
			s.Current, _ = apply(s.Current, as)
			if clean {
				sound(t, s.Current, checked)
			}
			if m, _ := ParseMarker(s.Current[MarkerKey]); i < len(batches)-1 && m != start {
				t.Fatalf("the marker moved from %d to %d before the last batch", start, m)
			}
		}
		start, _ = ParseMarker(s.Current[MarkerKey])
	}
	sound(t, s.Current, checked)
	m, _ := ParseMarker(s.Current[MarkerKey])
	for _, svc := range s.Services {
		if (Routed(svc.Spec) || svc.Unrouted) && m < svc.Rev {
			t.Fatalf("marker %d is behind the declaration of %s at %d", m, svc.ServiceID, svc.Rev)
		}
		for _, e := range s.Endpoints {
			if svc.ServiceID == e.ServiceID && (Routed(svc.Spec) || svc.Unrouted) && m < e.Rev {
				t.Fatalf("marker %d is behind %s at %d", m, e.ServiceID, e.Rev)
			}
		}
	}
	if m > s.Rev {
		t.Fatalf("marker %d is ahead of the snapshot at %d", m, s.Rev)
	}
	return s.Current
}

// sound holds that every pair passes the vocabulary, every router's service and
// middlewares exist, and no two names are equal but for case. An object that is as it was
// when it was checked is not checked again.
func sound(t *rapid.T, tree map[string]string, checked map[string]map[string]string) {
	objects := map[string]map[string]string{}
	lower := map[string]string{}
	for k, v := range tree {
		if k == Root {
			continue
		}
		section, name := splitKey(k)
		obj := section + "/" + name
		if other, ok := lower[strings.ToLower(obj)]; ok && other != obj {
			t.Fatalf("%s and %s differ by case alone", obj, other)
		}
		lower[strings.ToLower(obj)] = obj
		if objects[obj] == nil {
			objects[obj] = map[string]string{}
		}
		objects[obj][strings.TrimPrefix(k, Root+"/"+obj+"/")] = v
	}
	for obj, pairs := range objects {
		section, name := splitKey(Root + "/" + obj + "/x")
		if !maps.Equal(checked[obj], pairs) {
			if err := schema(section).checkObject(section, name, pairs); err != nil {
				t.Fatalf("%s: %v", obj, err)
			}
			checked[obj] = pairs
		}
		proto, kind, _ := strings.Cut(section, "/")
		if kind != "routers" {
			continue
		}
		if pairs["service"] == "" {
			continue // a router whose pairs are still coming
		}
		if objects[proto+"/services/"+pairs["service"]] == nil {
			t.Fatalf("%s refers to the missing service %s", obj, pairs["service"])
		}
		for k, m := range pairs {
			if strings.HasPrefix(k, "middlewares/") && objects["http/middlewares/"+m] == nil {
				t.Fatalf("%s refers to the missing middleware %s", obj, m)
			}
		}
	}
}

// Tasks of the version before are reached where they listen, until they are gone.
func TestPortsOfTheVersionBefore(t *testing.T) {
	web := service("shop", "web", 1, cluster.Route{Host: "a", Port: 90}, cluster.Route{Host: "b", Port: 90})
	web.Spec.Ports = []cluster.PublishedPort{{Published: 5432, Target: 2, Protocol: "tcp", Mode: "gateway"}}
	web.Version = "new"
	web.Before = map[string]map[string]int{"old": {web.Spec.Routes[0].Way(): 80, "tcp-5432": 1}, "older": {web.Spec.Routes[0].Way(): 70}}
	e := endpoints("shop", "web", 2, "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4")
	for i, v := range []string{"new", "old", "older", ""} {
		e.Tasks[i].Version = v
	}
	tree, refused := apply(nil, Plan(Snapshot{Rev: 3, Services: []cluster.Service{web}, Endpoints: []cluster.Endpoints{e}}))
	if len(refused) > 0 {
		t.Fatal(refused)
	}
	servers := func(router, section, last string) (out []string) {
		name := tree["traefik/"+section+"/routers/"+router+"/service"]
		for k, v := range tree {
			if strings.HasPrefix(k, "traefik/"+section+"/services/"+name+"/loadBalancer/servers/") && strings.HasSuffix(k, last) {
				out = append(out, v)
			}
		}
		slices.Sort(out)
		return out
	}
	for _, c := range []struct {
		router, section, last string
		want                  []string
	}{
		{"shop_web-0", "http", "/url", []string{"http://10.0.0.1:90", "http://10.0.0.2:80", "http://10.0.0.3:70", "http://10.0.0.4:90"}},
		{"shop_web-1", "http", "/url", []string{"http://10.0.0.1:90", "http://10.0.0.2:90", "http://10.0.0.3:90", "http://10.0.0.4:90"}},
		{"shop_web-tcp-5432", "tcp", "/address", []string{"10.0.0.1:2", "10.0.0.2:1", "10.0.0.3:2", "10.0.0.4:2"}},
	} {
		if d := cmp.Diff(c.want, servers(c.router, c.section, c.last)); d != "" {
			t.Errorf("%s: %s", c.router, d)
		}
	}
}

// A task serves at the gateways also when the service has left its networks.
func TestNetworksOfTheVersionBefore(t *testing.T) {
	e := endpoints("shop", "web", 2, "10.0.0.1", "10.0.0.2")
	e.Tasks[1].Addresses = map[cluster.NetworkName]string{"left": "10.9.0.2", "left too": "10.9.1.2"}
	tree, _ := apply(nil, Plan(Snapshot{Rev: 3, Services: []cluster.Service{service("shop", "web", 1, cluster.Route{Host: "a", Port: 80})}, Endpoints: []cluster.Endpoints{e}}))
	var got []string
	for k, v := range tree {
		if strings.Contains(k, "/shop_web-80/loadBalancer/servers/") {
			got = append(got, v)
		}
	}
	slices.Sort(got)
	if d := cmp.Diff([]string{"http://10.0.0.1:80", "http://10.9.0.2:80"}, got); d != "" {
		t.Error(d)
	}
}

// Tasks of the version before are reached on its routes, until they are gone; who declares
// one of those has it.
func TestRoutesOfTheVersionBefore(t *testing.T) {
	web := service("shop", "web", 1, cluster.Route{Host: "new", Port: 80})
	web.Version = "new"
	web.Left = []cluster.Route{{Host: "old", Port: 80}, {Host: "taken", Port: 80}}
	other := service("blog", "web", 5, cluster.Route{Host: "taken", Port: 80})
	e := endpoints("shop", "web", 2, "10.0.0.1", "10.0.0.2")
	e.Tasks[0].Version, e.Tasks[1].Version = "new", "old"
	servers := func(e cluster.Endpoints, router string) (out []string) {
		t.Helper()
		tree, refused := apply(nil, Plan(Snapshot{Rev: 6, Services: []cluster.Service{web, other}, Endpoints: []cluster.Endpoints{e}}))
		if len(refused) > 0 {
			t.Errorf("refused: %v", refused)
		}
		name := tree["traefik/http/routers/"+router+"/service"]
		for k, v := range tree {
			if name != "" && strings.HasPrefix(k, "traefik/http/services/"+name+"/loadBalancer/servers/") {
				out = append(out, v)
			}
		}
		slices.Sort(out)
		return out
	}
	all, gone, back := e, e, e
	gone.Tasks, back.Tasks = e.Tasks[:1], e.Tasks[1:]
	for _, c := range []struct {
		what   string
		e      cluster.Endpoints
		router string
		want   []string
	}{
		{"its own", all, "shop_web-0", []string{"http://10.0.0.1:80", "http://10.0.0.2:80"}},
		{"that of before", all, "shop_web-left0", []string{"http://10.0.0.2:80"}},
		{"one that another service has", all, "shop_web-left1", nil},
		{"that of before, once it is replaced", gone, "shop_web-left0", nil},
		{"that of before, after it went back", back, "shop_web-left0", []string{"http://10.0.0.2:80"}},
	} {
		if d := cmp.Diff(c.want, servers(c.e, c.router)); d != "" {
			t.Errorf("%s: %s", c.what, d)
		}
	}
}

// The same of published ports.
func TestPublishedPortsOfTheVersionBefore(t *testing.T) {
	port := func(n int) cluster.PublishedPort {
		return cluster.PublishedPort{Published: n, Target: 80, Protocol: "tcp", Mode: "gateway"}
	}
	web, other := service("shop", "web", 1), service("blog", "web", 5)
	web.Version = "new"
	web.Spec.Ports, web.LeftPorts = []cluster.PublishedPort{port(1001)}, []cluster.PublishedPort{port(1000), port(1002)}
	other.Spec.Ports = []cluster.PublishedPort{port(1002)}
	e := endpoints("shop", "web", 2, "10.0.0.1", "10.0.0.2")
	e.Tasks[0].Version, e.Tasks[1].Version = "new", "old"
	for _, c := range []struct {
		what  string
		tasks []cluster.Endpoint
		want  map[string][]string
	}{
		{"during the update", e.Tasks, map[string][]string{"tcp-1001": {"10.0.0.1:80", "10.0.0.2:80"}, "tcp-1000": {"10.0.0.2:80"}}},
		{"after it", e.Tasks[:1], map[string][]string{"tcp-1001": {"10.0.0.1:80"}}},
		{"after it went back", e.Tasks[1:], map[string][]string{"tcp-1001": {"10.0.0.2:80"}, "tcp-1000": {"10.0.0.2:80"}}},
	} {
		e := e
		e.Tasks = c.tasks
		tree, refused := apply(nil, Plan(Snapshot{Rev: 6, Services: []cluster.Service{web, other}, Endpoints: []cluster.Endpoints{e}}))
		if len(refused) > 0 {
			t.Errorf("%s: refused: %v", c.what, refused)
		}
		got := map[string][]string{}
		for k, v := range tree {
			if rest, ok := strings.CutPrefix(k, "traefik/tcp/services/shop_web-"); ok && strings.HasSuffix(rest, "/address") {
				entry, _, _ := strings.Cut(rest, "/")
				got[entry] = append(got[entry], v)
				slices.Sort(got[entry])
			}
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: %s", c.what, d)
		}
	}
}
