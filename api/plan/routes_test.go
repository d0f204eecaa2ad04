package plan_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/fairlead/fairlead/api/plan"
	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/proxyconf"
)

// TestRoutesAsInTraefik: within an app the priority decides between routes that
// overlap; what another app has is taken, and what gateways refuse is refused
// with its place.
func TestRoutesAsInTraefik(t *testing.T) {
	const both = "Host(`e.test`) || Host(`www.e.test`)"
	for name, c := range map[string]struct {
		a, b  cluster.Route // of one app
		other cluster.Route // of another one
		want  string        // of b, "" when it is taken
	}{
		"a part, with a priority":       {a: cluster.Route{Rule: both}, b: cluster.Route{Host: "www.e.test", Priority: 100}},
		"a part, by length":             {a: cluster.Route{Rule: both}, b: cluster.Route{Host: "www.e.test"}},
		"one rule, two priorities":      {a: cluster.Route{Rule: both, Priority: 10}, b: cluster.Route{Rule: both, Priority: 20}},
		"below none":                    {a: cluster.Route{Rule: both}, b: cluster.Route{Rule: both, Priority: -1}},
		"one host, written longer":      {a: cluster.Route{Host: "a.x"}, b: cluster.Route{Rule: "Host(`a.x`) && PathPrefix(`/`)"}},
		"one rule, one priority":        {a: cluster.Route{Rule: both, Priority: 10}, b: cluster.Route{Rule: both, Priority: 10}, want: "shop/web wants the rule " + both + ", which shop/web already has (f.yaml:3)"},
		"a part with the same priority": {a: cluster.Route{Rule: both, Priority: 10}, b: cluster.Route{Host: "WWW.e.test.", Priority: 10}, want: "shop/web wants the route www.e.test/, which shop/web already has (f.yaml:3)"},
		"a part, same length":           {a: cluster.Route{Rule: both}, b: cluster.Route{Rule: "Host(`www.e.test`) || Host(`f.test`)"}, want: "which shop/web already has (f.yaml:3)"},
		"another app's part":            {other: cluster.Route{Rule: both}, b: cluster.Route{Host: "www.e.test", Priority: 100}, want: "which blog/www already has (f.yaml:1)"},
		"another app's, written longer": {other: cluster.Route{Host: "a.x"}, b: cluster.Route{Rule: "Host(`a.x`) && PathPrefix(`/`)", Priority: 7}, want: "which blog/www already has (f.yaml:1)"},
		"strange letters":               {b: cluster.Route{Rule: "hOsT(`a`) && Path(`/x`)"}, want: "hOsT is not an HTTP matcher"},
		"address with a zone":           {b: cluster.Route{Rule: "ClientIP(`fe80::1%eth0`)"}, want: "neither an IP address nor a range"},
		"priority beyond all":           {b: cluster.Route{Host: "a", Priority: cluster.MaxPriority + 1}, want: "the priority 100000001 is not between"},
		"option of a middleware":        {b: cluster.Route{Host: "a", Middlewares: []cluster.Middleware{{Name: "m", Options: map[string]string{"compress": "false"}}}}, want: "middleware m: compress:"},
	} {
		t.Run(name, func(t *testing.T) {
			var state plan.State
			if c.other.Host+c.other.Rule != "" {
				c.other.Port, c.other.Source = 80, cluster.Source{File: "f.yaml", Line: 1}
				state.Others = []cluster.Service{{ServiceID: cluster.ServiceID{App: "blog", Name: "www"}, Spec: cluster.ServiceSpec{Routes: []cluster.Route{c.other}}}}
			}
			web := spec("web")
			if c.a.Host+c.a.Rule != "" {
				c.a.Port, c.a.Source = 80, cluster.Source{File: "f.yaml", Line: 3}
				web.Routes = []cluster.Route{c.a}
			}
			c.b.Port, c.b.Source = 80, cluster.Source{File: "f.yaml", Line: 5}
			web.Routes = append(web.Routes, c.b)
			_, err := plan.Make(state, input(services{"web": web}))
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wrong, _ := errors.AsType[v1.Invalid](err)
			if len(wrong) != 1 || wrong[0].Line != 5 || wrong[0].File != "f.yaml" || !strings.Contains(wrong[0].Message, c.want) {
				t.Errorf("%v\nwant line 5: %s", err, c.want)
			}
		})
	}
}

func drawRoute(t *rapid.T) cluster.Route {
	r := cluster.Route{
		Port: rapid.SampledFrom([]int{80, 80, 80, 80, 0}).Draw(t, "port"), TLS: rapid.Bool().Draw(t, "tls"),
		Internal: rapid.IntRange(0, 5).Draw(t, "internal") == 0,
		Priority: rapid.SampledFrom([]int{0, 0, 10, 20, -3, cluster.MaxPriority, cluster.MaxPriority + 1}).Draw(t, "priority"),
	}
	host := rapid.SampledFrom([]string{"", "a.x", "A.x.", "b.x", "c.x"})
	path := rapid.SampledFrom([]string{"", "/", "/p", "/p/"})
	if rapid.Bool().Draw(t, "plain") {
		r.Host, r.Path = host.Draw(t, "host"), path.Draw(t, "path")
		return r
	}
	matcher := rapid.Custom(func(t *rapid.T) string {
		return rapid.SampledFrom([]string{
			"Host(`a.x`)", "Host(`B.x`)", `host("c.x")`, "hOsT(`a.x`)", "PathPrefix(`/`)", "Path(`/p`)", "PathPrefix(`/p/`)",
			"Method(`get`)", "!Host(`b.x`)", "ClientIP(`fe80::1%eth0`)", "ClientIP(`::1`)", "HostRegexp(`.+`)",
		}).Draw(t, "matcher")
	})
	r.Rule = matcher.Draw(t, "rule")
	for range rapid.IntRange(0, 2).Draw(t, "more") {
		r.Rule += rapid.SampledFrom([]string{" && ", " || "}).Draw(t, "operator") + matcher.Draw(t, "rule")
	}
	if rapid.IntRange(0, 3).Draw(t, "middleware") == 0 {
		value := rapid.SampledFrom([]string{"true", "false", "1"}).Draw(t, "value")
		r.Middlewares = []cluster.Middleware{{Name: "m", Options: map[string]string{"compress": value}}}
	}
	return r
}

// TestAcceptedIsRendered: what a plan takes, gateways get, all of it; what it
// refuses, they would refuse some of, unless the app is the older one: then it
// would be the other app that loses.
func TestAcceptedIsRendered(t *testing.T) {
	var yes, no int
	rapid.Check(t, func(t *rapid.T) {
		app := func(name cluster.AppName) (plan.Input, []cluster.Service) {
			in, list := plan.Input{App: name, Bundle: v1.Bundle{Services: services{}}}, []cluster.Service(nil)
			for i := range rapid.IntRange(1, 2).Draw(t, "services") {
				s := spec("x")
				for range rapid.IntRange(0, 3).Draw(t, "routes") {
					s.Routes = append(s.Routes, drawRoute(t))
				}
				n := cluster.ServiceName(fmt.Sprint("s", i))
				in.Bundle.Services[n] = s
				list = append(list, cluster.Service{
					ServiceID: cluster.ServiceID{App: name, Name: n}, Spec: s, Created: cluster.StoreRev(rapid.IntRange(1, 9).Draw(t, "created")),
				})
			}
			return in, list
		}
		var state plan.State
		for _, name := range []cluster.AppName{"m", "a", "z"}[:rapid.IntRange(1, 3).Draw(t, "apps")] {
			in, list := app(name)
			_, err := plan.Make(state, in)
			all := append(list, state.Others...)
			if refused := notRendered(all); (err == nil) != (refused == "") {
				t.Fatalf("plan: %v\nnot rendered: %s", err, refused)
			}
			if err == nil {
				state.Others = all
				yes++
			} else {
				no++
			}
		}
	})
	if yes < 20 || no < 20 {
		t.Errorf("%d accepted, %d refused: the test tells little", yes, no)
	}
}

// notRendered says what of services Traefik would not get.
func notRendered(list []cluster.Service) string {
	want, got, why := 0, 0, ""
	for _, svc := range list {
		want += len(svc.Spec.Routes)
	}
	for _, a := range proxyconf.Plan(proxyconf.Snapshot{Services: list}) {
		switch a := a.(type) {
		case proxyconf.Write:
			if strings.HasPrefix(a.Key, "traefik/http/routers/") && strings.HasSuffix(a.Key, "/rule") && !strings.HasSuffix(a.Key, "-tls/rule") {
				got++
			}
		case proxyconf.Refuse:
			why += a.Reason()
		case proxyconf.Accept:
		}
	}
	if why == "" && got != want {
		why = fmt.Sprintf("%d routers of %d", got, want)
	}
	return why
}
