package plan_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fairlead/fairlead/api/plan"
	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

type services = map[cluster.ServiceName]cluster.ServiceSpec

func spec(image string, change ...func(*cluster.ServiceSpec)) cluster.ServiceSpec {
	s := cluster.ServiceSpec{Mode: cluster.Replicated, Replicas: 1, Task: cluster.TaskSpec{Image: image}}
	s.Source = cluster.Source{File: "compose.yaml", Line: 2}
	for _, f := range change {
		f(&s)
	}
	return s
}

func input(s services) plan.Input {
	return plan.Input{App: "shop", Bundle: v1.Bundle{Services: s}}
}

// apply writes a result into a state, as the store would hold it.
func apply(t interface{ Fatal(...any) }, s plan.State, r plan.Result) plan.State {
	out := s
	out.Services, out.Scales = maps.Clone(s.Services), maps.Clone(s.Scales)
	out.Secrets, out.Configs = maps.Clone(s.Secrets), maps.Clone(s.Configs)
	if out.Services == nil {
		out.Services = map[cluster.ServiceName]cluster.Service{}
		out.Scales = map[cluster.ServiceName]cluster.Scale{}
		out.Secrets, out.Configs = map[string]cluster.SecretRecord{}, map[string]bool{}
	}
	out.Same = map[string]bool{}
	maps.Copy(out.Same, s.Same)
	for _, svc := range r.Services {
		b, err := json.Marshal(svc)
		if err != nil {
			t.Fatal(err)
		}
		var back cluster.Service
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		out.Services[svc.Name] = back
	}
	for _, n := range r.Removed {
		delete(out.Services, n)
	}
	for _, sc := range r.Scales {
		out.Scales[sc.Name] = sc
	}
	for _, n := range r.Unscaled {
		delete(out.Scales, n)
	}
	for _, sec := range r.Secrets {
		out.Secrets[sec.Name] = cluster.SecretRecord{Version: sec.Version}
		out.Same[sec.Name] = sec.Generate == 0
	}
	for _, c := range r.Configs {
		out.Configs[c.Name+"@"+c.Hash] = true
	}
	if !r.Plan.Empty() {
		app := cluster.App{Name: r.Plan.App}
		if s.App != nil {
			app = *s.App
		}
		app.Release = r.Plan.Next
		out.App = &app
		out.LastRelease = r.Plan.Next
	}
	return out
}

func must(t *testing.T, s plan.State, in plan.Input) plan.Result {
	t.Helper()
	r, err := plan.Make(s, in)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// lines says changes in short.
func lines(p v1.Plan) []string {
	out := []string{}
	for _, c := range p.Changes {
		l := c.Action + " " + c.Object + " " + c.Name
		if c.Replaces {
			l += " (replaces: " + c.Reason + ")"
		}
		out = append(out, l)
	}
	return out
}

func TestChanges(t *testing.T) {
	web := spec("web:1")
	base := func(t *testing.T, s services) plan.State {
		t.Helper()
		return apply(t, plan.State{}, must(t, plan.State{}, input(s)))
	}
	for name, c := range map[string]struct {
		before services
		state  func(*plan.State)
		after  services
		in     func(*plan.Input)
		want   []string
	}{
		"nothing": {before: services{"web": web}, after: services{"web": web}, want: []string{}},
		"first":   {after: services{"web": web, "api": web}, want: []string{"create service api", "create service web"}},
		"image": {
			before: services{"web": web}, after: services{"web": spec("web:2")},
			want: []string{"update service web (replaces: image changed)"},
		},
		"policy only": {
			before: services{"web": web}, after: services{"web": spec("web:1", func(s *cluster.ServiceSpec) { s.Update.Parallelism = 3 })},
			want: []string{"update service web"},
		},
		"count": {
			before: services{"web": web}, after: services{"web": spec("web:1", func(s *cluster.ServiceSpec) { s.Replicas = 4 })},
			want: []string{"update service web", "scale service web"},
		},
		"left": {before: services{"web": web, "api": web}, after: services{"web": web}, want: []string{"remove service api"}},
		"lines moved": {
			before: services{"web": web},
			after:  services{"web": spec("web:1", func(s *cluster.ServiceSpec) { s.Source.Line = 9 })}, want: []string{},
		},
		"restart": {
			before: services{"web": web}, after: services{"web": web},
			in:   func(in *plan.Input) { in.Restart = []cluster.ServiceName{"web"} },
			want: []string{"update service web (replaces: a restart was asked for)"},
		},
		"restarted before": {
			before: services{"web": web}, after: services{"web": web},
			state: func(s *plan.State) {
				svc := s.Services["web"]
				svc.Spec.Task.Generation = 3
				svc.Version = svc.Spec.Task.Hash()
				s.Services["web"] = svc
			},
			want: []string{},
		},
		"failed before": {
			before: services{"web": web}, after: services{"web": web},
			state: func(s *plan.State) {
				s.Rollouts = map[cluster.ServiceName]cluster.Rollout{"web": {Target: s.Services["web"].Version, State: cluster.RolloutRolledBack}}
			},
			want: []string{"retry service web (replaces: the last rollout of this version failed; it is tried again)"},
		},
		"another version failed before": {
			before: services{"web": web}, after: services{"web": web},
			state: func(s *plan.State) {
				s.Rollouts = map[cluster.ServiceName]cluster.Rollout{"web": {Target: "other", State: cluster.RolloutFailed}}
			},
			want: []string{},
		},
		"to global": {
			before: services{"web": web}, after: services{"web": spec("web:1", func(s *cluster.ServiceSpec) { s.Mode = cluster.Global })},
			want: []string{"update service web"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var s plan.State
			if c.before != nil {
				s = base(t, c.before)
			}
			if c.state != nil {
				c.state(&s)
			}
			in := input(c.after)
			if c.in != nil {
				c.in(&in)
			}
			r := must(t, s, in)
			if diff := cmp.Diff(c.want, lines(r.Plan)); diff != "" {
				t.Error(diff)
			}
			if c.in != nil {
				return // a restart is meant to repeat
			}
			again := must(t, apply(t, s, r), in)
			if again.Changed() || !again.Plan.Empty() || len(again.Scales)+len(again.Unscaled) > 0 {
				t.Errorf("planning what was applied gives %v", lines(again.Plan))
			}
		})
	}
}

func TestSecretsAndConfigs(t *testing.T) {
	s := spec("web:1", func(s *cluster.ServiceSpec) {
		s.Task.Secrets = []cluster.FileRef{{Name: "made", Target: "/run/secrets/made"}, {Name: "theirs", Target: "/run/secrets/theirs"}, {Name: "given", Target: "/run/secrets/given"}}
		s.Task.Configs = []cluster.FileRef{{Name: "conf", Target: "/etc/conf"}}
	})
	in := input(services{"web": s})
	in.Bundle.Configs = map[string][]byte{"conf": []byte("one")}
	in.Bundle.Secrets = map[string]v1.SecretDecl{"made": {External: true, Generate: 32}, "theirs": {External: true}, "given": {Value: v1.Plain("x")}}
	state := plan.State{App: &cluster.App{Name: "shop", SecretVersions: map[string]int{"theirs": 4}}}
	r := must(t, state, in)
	if diff := cmp.Diff([]string{"set secret given", "generate secret made", "create config conf", "create service web"}, lines(r.Plan)); diff != "" {
		t.Error(diff)
	}
	refs := r.Rendered["web"].Task.Secrets
	// A secret that was removed in version 4 comes again as version 5: tasks that
	// already refer to it need no change when it is set.
	if got := refs[0].Version + refs[1].Version + refs[2].Version; got != "151" {
		t.Errorf("versions %s", got)
	}
	if len(r.Plan.Warnings) != 1 || !strings.Contains(r.Plan.Warnings[0].Message, "fairlead secret set shop/theirs") {
		t.Errorf("warnings %v", r.Plan.Warnings)
	}
	if s.Task.Secrets[0].Version != "" {
		t.Error("the input was changed")
	}

	next := apply(t, state, r)
	in.Bundle.Configs["conf"] = []byte("two")
	in.Bundle.Secrets["given"] = v1.SecretDecl{Value: v1.Plain("y")}
	next.Same["given"] = false
	r = must(t, next, in)
	want := []string{"set secret given", "update config conf", "update service web (replaces: configs[0].version, secrets[2].version changed)"}
	if diff := cmp.Diff(want, lines(r.Plan)); diff != "" {
		t.Error(diff)
	}
}

// TestExternals: what is external is warned of where nobody is known to have it,
// once, at its service's line.
func TestExternals(t *testing.T) {
	src := cluster.Source{File: "compose.yaml", Line: 3}
	uses := func(external bool) func(*cluster.ServiceSpec) {
		return func(s *cluster.ServiceSpec) {
			s.Source = src
			s.Task.Networks = []cluster.NetworkRef{{Name: "proxy", External: external}, {Name: "shop_default"}}
			s.Task.Mounts = []cluster.Mount{{Type: cluster.MountVolume, Source: "media", Target: "/m", External: external}, {Type: cluster.MountVolume, Source: "shop_data", Target: "/d"}}
		}
	}
	both := services{"api": spec("api", uses(true)), "web": spec("web", uses(true))}
	other := func(external bool) []cluster.Service {
		return []cluster.Service{{ServiceID: cluster.ServiceID{App: "edge", Name: "x"}, Spec: spec("x", uses(external))}}
	}
	for name, c := range map[string]struct {
		state plan.State
		file  services
		want  int
	}{
		"nobody has them":    {plan.State{}, both, 2},
		"another declares":   {plan.State{Others: other(false)}, both, 0},
		"another uses":       {plan.State{Others: other(true)}, both, 0},
		"the app itself has": {plan.State{}, services{"api": spec("api", uses(true)), "web": spec("web", uses(false))}, 0},
		"used before": {plan.State{App: &cluster.App{Name: "shop"}, Services: map[cluster.ServiceName]cluster.Service{
			"old": {ServiceID: cluster.ServiceID{App: "shop", Name: "old"}, Spec: spec("o", uses(true))},
		}}, both, 0},
	} {
		t.Run(name, func(t *testing.T) {
			got := must(t, c.state, input(c.file)).Plan.Warnings
			if len(got) != c.want {
				t.Fatalf("%v", got)
			}
			if c.want > 0 && (!strings.HasPrefix(got[0].String(), "compose.yaml:3: network proxy is external") || !strings.HasPrefix(got[1].String(), "compose.yaml:3: volume media is external")) {
				t.Errorf("%q", got)
			}
		})
	}
	r := must(t, plan.State{Nodes: []cluster.Node{{}, {}}}, input(both))
	if !strings.Contains(r.Plan.Warnings[1].Message, "on each of the 2 nodes that does not have it") {
		t.Errorf("%q", r.Plan.Warnings)
	}
}

func TestScale(t *testing.T) {
	auto := func(lo, hi int) func(*cluster.ServiceSpec) {
		return func(s *cluster.ServiceSpec) {
			s.Autoscale = &cluster.Autoscale{Min: lo, Max: hi, CPUPercent: 70}
			s.Task.Resources.ReserveCPU = 100
		}
	}
	for name, c := range map[string]struct {
		spec     cluster.ServiceSpec
		old      cluster.Scale
		exists   bool
		replicas int
		owner    string
	}{
		"new":                     {spec("a"), cluster.Scale{}, false, 1, "release"},
		"new autoscaled":          {spec("a", auto(2, 5)), cluster.Scale{}, false, 2, "autoscaler"},
		"person":                  {spec("a"), cluster.Scale{Replicas: 7, Owner: "person"}, true, 7, "person"},
		"file again":              {spec("a"), cluster.Scale{Replicas: 7, Owner: "release"}, true, 1, "release"},
		"autoscaler decides":      {spec("a", auto(2, 5)), cluster.Scale{Replicas: 4, Owner: "autoscaler"}, true, 4, "autoscaler"},
		"bounds moved":            {spec("a", auto(2, 3)), cluster.Scale{Replicas: 4, Owner: "autoscaler"}, true, 3, "autoscaler"},
		"person out of bounds":    {spec("a", auto(2, 3)), cluster.Scale{Replicas: 9, Owner: "person"}, true, 3, "person"},
		"autoscaling begins":      {spec("a", auto(2, 9)), cluster.Scale{Replicas: 6, Owner: "release"}, true, 6, "autoscaler"},
		"autoscaling was removed": {spec("a"), cluster.Scale{Replicas: 4, Owner: "autoscaler"}, true, 1, "release"},
	} {
		t.Run(name, func(t *testing.T) {
			got := plan.Scale("shop", "web", c.spec, c.old, c.exists)
			if got.Replicas != c.replicas || got.Owner != c.owner {
				t.Errorf("%d by %s, want %d by %s", got.Replicas, got.Owner, c.replicas, c.owner)
			}
		})
	}
}

func TestExposure(t *testing.T) {
	src := cluster.Source{File: "compose.yaml", Line: 12}
	s := services{
		"db": spec("db", func(s *cluster.ServiceSpec) {
			s.Ports = []cluster.PublishedPort{
				{Published: 5432, Target: 5432, Protocol: "tcp", Mode: "gateway", Source: src},
				{Published: 5353, Target: 53, Protocol: "udp", Mode: "gateway", Source: src},
			}
			s.Task.NodePorts = []cluster.PublishedPort{{Published: 9000, Target: 9, Protocol: "tcp", Mode: "node", HostIP: "127.0.0.1", Source: src}}
		}),
		"probe": spec("probe", func(s *cluster.ServiceSpec) { s.Task.NetworkMode, s.Source = "host", src }),
		"web": spec("web", func(s *cluster.ServiceSpec) {
			s.Routes = []cluster.Route{
				{Host: "shop.test", Port: 80, Source: src},
				{Host: "admin.test", Path: "/x", Port: 80, Internal: true, Source: src},
				{Host: "safe.test", Port: 80, TLS: true, Source: src},
				{Host: "tls.test", Port: 80, TLS: true, EntryPoints: []string{"websecure"}, Source: src},
				{Host: "old.test", Port: 80, Middlewares: []cluster.Middleware{{Name: "m", Options: map[string]string{"redirectscheme/scheme": "https"}}}, Source: src},
				{Port: 80, Source: src},
				{Rule: "Path(`/y`)", Port: 80, TLS: true, Source: src},
			}
		}),
	}
	state := plan.State{Entry: plan.EntryPoints{Web: 8000, WebSecure: 443, Internal: 8080}}
	r := must(t, state, input(s))
	var got []string
	for _, e := range r.Plan.Exposed {
		got = append(got, e.String()+" "+e.URL)
		if !e.New {
			t.Errorf("%s is new", e)
		}
	}
	want := []string{
		"NODE 127.0.0.1:9000 → db (compose.yaml:12) ",
		"PUBLIC :5432 → db (compose.yaml:12) ",
		"PUBLIC :5353/udp → db (compose.yaml:12) ",
		"PUBLIC every port it listens on → probe (compose.yaml:12) ",
		"PUBLIC http://*:8000/ → web (compose.yaml:12) ",
		"PUBLIC http Path(`/y`), https Path(`/y`) → web (compose.yaml:12) ",
		"INTERNAL http://admin.test:8080/x → web (compose.yaml:12) http://admin.test:8080/x",
		"PUBLIC http://old.test:8000/ (sent on to https) → web (compose.yaml:12) http://old.test:8000/",
		"PUBLIC http://safe.test:8000/, https://safe.test/ → web (compose.yaml:12) https://safe.test/",
		"PUBLIC http://shop.test:8000/ → web (compose.yaml:12) http://shop.test:8000/",
		"PUBLIC https://tls.test/ → web (compose.yaml:12) https://tls.test/",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if !r.Claims {
		t.Error("new routes must be claimed")
	}
	if src := r.Rendered["db"].Task.NodePorts[0].Source; src != (cluster.Source{}) {
		t.Errorf("a node port's place %v is part of what makes a container", src)
	}
	next := apply(t, state, r)
	next.Entry = state.Entry
	delete(s, "db")
	r = must(t, next, input(s))
	if len(r.Plan.Closed) != 3 || r.Claims || r.Plan.Exposed[0].New {
		t.Errorf("closed %v, claims %v", r.Plan.Closed, r.Claims)
	}
}

// TestNodePortClash: two services that must both have a port of one node are told
// of before anything changes. Where one has another node to go to, the scheduler
// sees to it; and what clashes already hinders no deploy.
func TestNodePortClash(t *testing.T) {
	node := func(id cluster.NodeID, zone string) cluster.Node {
		return cluster.Node{NodeSpec: cluster.NodeSpec{ID: id, Labels: map[string]string{"zone": zone}}, Info: cluster.NodeInfo{ID: id, CPU: 2000, Memory: 4 << 30}}
	}
	one, two := []cluster.Node{node("n1", "a")}, []cluster.Node{node("n1", "a"), node("n2", "b")}
	wants := func(line int, ip string, change ...func(*cluster.ServiceSpec)) cluster.ServiceSpec {
		p := cluster.PublishedPort{Published: 5432, Target: 5432, Protocol: "tcp", Mode: "node", HostIP: ip, Source: cluster.Source{File: "f.yaml", Line: line}}
		return spec("a", append(change, func(s *cluster.ServiceSpec) {
			s.Ports, p.Source = []cluster.PublishedPort{p}, cluster.Source{}
			s.Task.NodePorts = []cluster.PublishedPort{p}
		})...)
	}
	in := func(zone string) func(*cluster.ServiceSpec) {
		return func(s *cluster.ServiceSpec) { s.Placement.Constraints = []string{"node.labels.zone==" + zone} }
	}
	global := func(s *cluster.ServiceSpec) { s.Mode, s.Replicas = cluster.Global, 0 }
	job := func(s *cluster.ServiceSpec) { s.Restart.Condition = "none" }
	udp := wants(9, "")
	udp.Task.NodePorts[0].Protocol, udp.Ports[0].Protocol = "udp", "udp"
	const clash = "f.yaml:9: shop/web wants port 5432/tcp of node n1, which blog/db already has (f.yaml:5); choose another one, or remove that"
	blog := func(s cluster.ServiceSpec) cluster.Service {
		return cluster.Service{ServiceID: cluster.ServiceID{App: "blog", Name: "db"}, Spec: s}
	}
	for name, c := range map[string]struct {
		nodes  []cluster.Node
		other  cluster.ServiceSpec
		count  int // of the other, when it is not 1
		mine   services
		before services // of the app
		want   string
	}{
		"one node":                       {nodes: one, other: wants(5, ""), mine: services{"web": wants(9, "")}, want: clash},
		"all addresses and one":          {nodes: one, other: wants(5, "127.0.0.1"), mine: services{"web": wants(9, "0.0.0.0")}, want: clash},
		"two addresses":                  {nodes: one, other: wants(5, "127.0.0.1"), mine: services{"web": wants(9, "192.0.2.1")}},
		"another protocol":               {nodes: one, other: wants(5, ""), mine: services{"web": udp}},
		"two nodes":                      {nodes: two, other: wants(5, ""), mine: services{"web": wants(9, "")}},
		"two nodes, one left":            {nodes: two, other: wants(5, "", in("a")), mine: services{"web": wants(9, "", in("a"))}, want: clash},
		"one each":                       {nodes: two, other: wants(5, "", in("b")), mine: services{"web": wants(9, "", in("a"))}},
		"on every node, and on one":      {nodes: two, other: wants(5, "", global), mine: services{"web": wants(9, "", in("a"))}, want: clash},
		"both on every node, once told":  {nodes: two, other: wants(5, "", global), mine: services{"web": wants(9, "", global)}, want: clash},
		"the other is scaled to nothing": {nodes: one, other: wants(5, ""), count: -1, mine: services{"web": wants(9, "")}},
		"the other ends by itself":       {nodes: one, other: wants(5, "", job), mine: services{"web": wants(9, "")}},
		"two services of the app": {
			nodes: one, other: spec("a"), mine: services{"db": wants(5, ""), "web": wants(9, "")},
			want: strings.Replace(clash, "blog", "shop", 1),
		},
		"it stood so before":      {nodes: one, other: wants(5, ""), before: services{"web": wants(9, "")}, mine: services{"web": wants(19, "")}},
		"it stood there but once": {nodes: two, other: wants(5, "", in("a")), before: services{"web": wants(9, "", in("b"))}, mine: services{"web": wants(9, "", in("a"))}, want: clash},
	} {
		t.Run(name, func(t *testing.T) {
			other := blog(c.other)
			state := plan.State{Others: []cluster.Service{other}, Nodes: c.nodes, Services: map[cluster.ServiceName]cluster.Service{}}
			if c.count < 0 {
				state.OtherScales = map[cluster.ServiceID]cluster.Scale{other.ServiceID: {ServiceID: other.ServiceID}}
			}
			for n, s := range c.before {
				state.Services[n] = cluster.Service{ServiceID: cluster.ServiceID{App: "shop", Name: n}, Spec: s}
			}
			got := ""
			if _, err := plan.Make(state, input(c.mine)); err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	at := func(line int) cluster.Source { return cluster.Source{File: "f.yaml", Line: line} }
	taken := cluster.Service{ServiceID: cluster.ServiceID{App: "blog", Name: "www"}, Spec: cluster.ServiceSpec{
		Routes: []cluster.Route{{Host: "Shop.Test", Path: "/", Port: 1, Source: at(5)}},
		Ports:  []cluster.PublishedPort{{Published: 5432, Target: 1, Protocol: "tcp", Mode: "gateway"}},
	}}
	state := plan.State{
		Others: []cluster.Service{taken}, Entry: plan.EntryPoints{Web: 80, WebSecure: 443},
		Nodes: []cluster.Node{{Info: cluster.NodeInfo{ID: "n1", CPU: 2000, Memory: 4 << 30}}},
	}
	for name, c := range map[string]struct {
		change func(*cluster.ServiceSpec)
		line   int
		want   string
	}{
		"no image":         {func(s *cluster.ServiceSpec) { s.Task.Image = "" }, 2, "has no image"},
		"hostile image":    {func(s *cluster.ServiceSpec) { s.Task.Image = "-v /:/host" }, 2, "no image reference"},
		"route taken":      {func(s *cluster.ServiceSpec) { s.Routes = []cluster.Route{{Host: "shop.test", Port: 1, Source: at(9)}} }, 9, "which blog/www already has (f.yaml:5)"},
		"same route twice": {func(s *cluster.ServiceSpec) { s.Routes = []cluster.Route{{Port: 1}, {Port: 2, Source: at(4)}} }, 4, "already has"},
		"hostile host": {func(s *cluster.ServiceSpec) {
			s.Routes = []cluster.Route{{Host: "a`) || Host(`b", Port: 1, Source: at(3)}}
		}, 3, "route host"},
		"hostile path":   {func(s *cluster.ServiceSpec) { s.Routes = []cluster.Route{{Path: "/a`b", Port: 1, Source: at(3)}} }, 3, "route path"},
		"route, no port": {func(s *cluster.ServiceSpec) { s.Routes = []cluster.Route{{Host: "a.test", Source: at(3)}} }, 3, "container's port"},
		"port taken": {func(s *cluster.ServiceSpec) {
			s.Ports = []cluster.PublishedPort{{Published: 5432, Target: 1, Protocol: "tcp", Mode: "gateway", Source: at(3)}}
		}, 3, "blog/www already has"},
		"entry point": {func(s *cluster.ServiceSpec) {
			s.Ports = []cluster.PublishedPort{{Published: 80, Target: 1, Protocol: "tcp", Mode: "gateway", Source: at(3)}}
		}, 3, "port 80 is the gateways' entry point web"},
		"port of names": {func(s *cluster.ServiceSpec) {
			s.Ports = []cluster.PublishedPort{{Published: 53, Target: 1, Protocol: "udp", Mode: "gateway", Source: at(3)}}
		}, 3, "port 53 of every node is where containers ask for names: publish another port"},
		"too large":       {func(s *cluster.ServiceSpec) { s.Task.Resources.ReserveCPU = 64000 }, 2, "impossible resources: a task of web reserves 64 CPU and 0 MiB of memory, and no node has that much (the largest, n1, has 2 CPU and 4096 MiB)"},
		"more than limit": {func(s *cluster.ServiceSpec) { s.Task.Resources = cluster.Resources{ReserveCPU: 500, LimitCPU: 200} }, 2, "reserves 0.5 CPU but is limited to 0.2"},
		"no reservation":  {func(s *cluster.ServiceSpec) { s.Autoscale = &cluster.Autoscale{Min: 1, Max: 2, CPUPercent: 70} }, 2, "reserves no CPU"},
		"bounds": {func(s *cluster.ServiceSpec) {
			s.Autoscale = &cluster.Autoscale{Min: 3, Max: 2, CPUPercent: 70}
			s.Task.Resources.ReserveCPU = 1
		}, 2, "autoscale between 3 and 2"},
		"unknown secret":  {func(s *cluster.ServiceSpec) { s.Task.Secrets = []cluster.FileRef{{Name: "x", Target: "/x"}} }, 2, "does not declare"},
		"unknown config":  {func(s *cluster.ServiceSpec) { s.Task.Configs = []cluster.FileRef{{Name: "x", Target: "/x"}} }, 2, "does not declare"},
		"secret env":      {func(s *cluster.ServiceSpec) { s.Task.SecretEnv = map[string]string{"PW": "x"} }, 2, "not among the service's secrets"},
		"unknown service": {func(s *cluster.ServiceSpec) { s.DependsOn = []cluster.Dependency{{Service: "db"}} }, 2, "no service of the app"},
		"itself":          {func(s *cluster.ServiceSpec) { s.DependsOn = []cluster.Dependency{{Service: "web"}} }, 2, "web → web"},
		"two mounts": {func(s *cluster.ServiceSpec) {
			s.Task.Mounts = []cluster.Mount{{Type: "volume", Source: "a", Target: "/d"}, {Type: "tmpfs", Target: "/d/"}}
		}, 2, "two things are mounted at"},
		"volume traversal": {func(s *cluster.ServiceSpec) {
			s.Task.Mounts = []cluster.Mount{{Type: "volume", Source: "../../etc", Target: "/d"}}
		}, 2, "volume name"},
		"constraint":     {func(s *cluster.ServiceSpec) { s.Placement.Constraints = []string{"node.labels.zone=a"} }, 2, "constraint"},
		"replicas":       {func(s *cluster.ServiceSpec) { s.Replicas = -1 }, 2, "replicas -1"},
		"mode":           {func(s *cluster.ServiceSpec) { s.Mode = "sometimes" }, 2, "use replicated or global"},
		"environment":    {func(s *cluster.ServiceSpec) { s.Task.Env = map[string]string{"A=B": ""} }, 2, "environment variable"},
		"health":         {func(s *cluster.ServiceSpec) { s.Task.Health = &cluster.Health{TCPPort: 1, HTTPPath: "/", HTTPPort: 1} }, 2, "not several"},
		"failure action": {func(s *cluster.ServiceSpec) { s.Update.FailureAction = "panic" }, 2, "use rollback, pause, continue"},
		"host of a gateway": {func(s *cluster.ServiceSpec) {
			s.Ports = []cluster.PublishedPort{{Published: 1, Target: 1, Protocol: "tcp", Mode: "gateway", HostIP: "1.2.3.4", Source: at(3)}}
		}, 3, "host address"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := plan.Make(state, input(services{"web": spec("web:1", c.change)}))
			wrong, ok := errors.AsType[v1.Invalid](err)
			if !ok || cluster.KindOf(err) != cluster.KindInvalid {
				t.Fatalf("%v", err)
			}
			if !slices.ContainsFunc(wrong, func(d v1.Detail) bool { return d.Line == c.line && strings.Contains(d.Message, c.want) }) {
				t.Errorf("%v\nwant line %d: %s", err, c.line, c.want)
			}
		})
	}
	t.Run("cycle", func(t *testing.T) {
		a := spec("a", func(s *cluster.ServiceSpec) { s.DependsOn = []cluster.Dependency{{Service: "b"}} })
		b := spec("b", func(s *cluster.ServiceSpec) { s.DependsOn = []cluster.Dependency{{Service: "a"}} })
		if _, err := plan.Make(state, input(services{"a": a, "b": b})); err == nil || !strings.Contains(err.Error(), "a → b → a") {
			t.Errorf("%v", err)
		}
	})
	t.Run("nothing in it", func(t *testing.T) {
		if _, err := plan.Make(state, input(nil)); err == nil || !strings.Contains(err.Error(), "fairlead rm shop") {
			t.Errorf("%v", err)
		}
	})
	t.Run("someone else was here", func(t *testing.T) {
		in, n := input(services{"web": spec("web")}), 3
		in.Bundle.Expect = &n
		if _, err := plan.Make(state, in); cluster.KindOf(err) != cluster.KindConflict {
			t.Errorf("%v", err)
		}
	})
}

// TestWhatCannotBeDelivered: secrets and configs travel together, so their sum counts, each once.
func TestWhatCannotBeDelivered(t *testing.T) {
	web := spec("web", func(s *cluster.ServiceSpec) {
		s.Task.Configs = []cluster.FileRef{{Name: "a", Target: "/a"}, {Name: "a", Target: "/a2"}, {Name: "b", Target: "/b"}}
		s.Task.Secrets = []cluster.FileRef{{Name: "s", Target: "/s"}}
	})
	in := input(services{"web": web})
	in.Bundle.Configs = map[string][]byte{"a": make([]byte, 500_000), "b": make([]byte, 400_000-3)}
	in.Bundle.Secrets = map[string]v1.SecretDecl{"s": {Value: make([]byte, 100_000)}}
	if _, err := plan.Make(plan.State{}, in); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	in.Bundle.Configs["b"] = append(in.Bundle.Configs["b"], 0)
	_, err := plan.Make(plan.State{}, in)
	if wrong, _ := errors.AsType[v1.Invalid](err); len(wrong) != 1 || wrong[0].Line != 2 || !strings.Contains(wrong[0].Message, "1000001 bytes together: at most 1000000") {
		t.Errorf("beyond it: %v", err)
	}
}

// TestHealthOfTheImageRetuned: a health check without a test is the image's own, with other times.
func TestHealthOfTheImageRetuned(t *testing.T) {
	web := spec("web", func(s *cluster.ServiceSpec) { s.Task.Health = &cluster.Health{Retries: 9} })
	if _, err := plan.Make(plan.State{}, input(services{"web": web})); err != nil {
		t.Error(err)
	}
}

// TestPublishedWebPorts: 80 and 443 of one service are two entry points, not one route twice.
func TestPublishedWebPorts(t *testing.T) {
	both := spec("web", func(s *cluster.ServiceSpec) {
		s.Routes = []cluster.Route{
			{Port: 80, EntryPoints: []string{"web"}},
			{Port: 80, EntryPoints: []string{"websecure"}, TLS: true},
		}
	})
	state := plan.State{}
	r := must(t, state, input(services{"web": both}))
	state.Others = []cluster.Service{{ServiceID: cluster.ServiceID{App: "blog", Name: "www"}, Spec: r.Rendered["web"]}}
	_, err := plan.Make(state, input(services{"web": spec("web", func(s *cluster.ServiceSpec) { s.Routes = []cluster.Route{{Port: 1, TLS: true}} })}))
	if wrong, ok := errors.AsType[v1.Invalid](err); !ok || len(wrong) != 1 {
		t.Errorf("one complaint: %v", err)
	}
}

func TestDiffHidesValuesThatMayBeSecret(t *testing.T) {
	a := spec("a", func(s *cluster.ServiceSpec) { s.Task.Env = map[string]string{"PASSWORD": "hunter1"} })
	b := spec("a", func(s *cluster.ServiceSpec) {
		s.Task.Env = map[string]string{"PASSWORD": "hunter2"}
		s.Routes = []cluster.Route{{Host: "h", Port: 1, Middlewares: []cluster.Middleware{{Name: "m", Options: map[string]string{"basicauth/users": "ann:hunter3"}}}}}
	})
	text := fmt.Sprint(plan.Diff(a, b))
	if strings.Contains(text, "hunter") || !strings.Contains(text, "task.env.PASSWORD") {
		t.Error(text)
	}
}

// TestLaws: planning what was applied is empty; the releases of a history are
// numbered upwards; what a plan removes comes back with a rollback.
func TestLaws(t *testing.T) {
	names := []string{"a", "b", "c", "d"}
	gen := rapid.Custom(func(t *rapid.T) plan.Input {
		in := input(services{})
		in.Bundle.Configs, in.Bundle.Secrets = map[string][]byte{}, map[string]v1.SecretDecl{}
		for _, n := range rapid.SliceOfNDistinct(rapid.SampledFrom(names), 1, 4, rapid.ID[string]).Draw(t, "services") {
			s := spec(rapid.SampledFrom([]string{"x:1", "x:2"}).Draw(t, "image"))
			s.Replicas = rapid.IntRange(0, 5).Draw(t, "replicas")
			if rapid.Bool().Draw(t, "env") {
				s.Task.Env = map[string]string{"K": rapid.SampledFrom([]string{"", "v"}).Draw(t, "value")}
			}
			if rapid.Bool().Draw(t, "global") {
				s.Mode = cluster.Global
			} else if rapid.Bool().Draw(t, "auto") {
				s.Task.Resources.ReserveCPU = 100
				lo := rapid.IntRange(1, 3).Draw(t, "min")
				s.Autoscale = &cluster.Autoscale{Min: lo, Max: lo + rapid.IntRange(0, 3).Draw(t, "more"), CPUPercent: 50}
			}
			if rapid.Bool().Draw(t, "secret") {
				s.Task.Secrets = []cluster.FileRef{{Name: "s-" + n, Target: "/s"}}
				in.Bundle.Secrets["s-"+n] = rapid.SampledFrom([]v1.SecretDecl{{External: true}, {Generate: 8}, {Value: v1.Plain("v")}}).Draw(t, "declaration")
			}
			if rapid.Bool().Draw(t, "config") {
				s.Task.Configs = []cluster.FileRef{{Name: "c-" + n, Target: "/c"}}
				in.Bundle.Configs["c-"+n] = []byte(rapid.SampledFrom([]string{"1", "2"}).Draw(t, "content"))
			}
			if rapid.Bool().Draw(t, "route") {
				s.Routes = []cluster.Route{{Host: n + ".test", Port: 80}}
			}
			s.Task.NodePorts = rapid.SampledFrom([][]cluster.PublishedPort{nil, {{Published: 9, Target: 9, Protocol: "tcp", Mode: "node"}}}).Draw(t, "port")
			in.Bundle.Services[cluster.ServiceName(n)] = s
		}
		return in
	})
	rapid.Check(t, func(t *rapid.T) {
		var s plan.State
		var first services
		for i := range rapid.IntRange(1, 5).Draw(t, "deploys") {
			in := gen.Draw(t, "bundle")
			r, err := plan.Make(s, in)
			if err != nil {
				t.Fatal(err)
			}
			if s.App != nil && !r.Plan.Empty() && r.Plan.Next <= s.App.Release {
				t.Fatalf("release %d after %d", r.Plan.Next, s.App.Release)
			}
			next := apply(t, s, r)
			if len(next.Services) != len(in.Bundle.Services) {
				t.Fatalf("%d services of %d", len(next.Services), len(in.Bundle.Services))
			}
			for n, svc := range next.Services {
				if svc.Version != svc.Spec.Task.Hash() {
					t.Fatalf("%s: version %s is not its task's", n, svc.Version)
				}
				_, scaled := next.Scales[n]
				if scaled == (svc.Spec.Mode == cluster.Global) {
					t.Fatalf("%s: mode %s, scaled %v", n, svc.Spec.Mode, scaled)
				}
			}
			for n := range next.Scales {
				if _, ok := next.Services[n]; !ok {
					t.Fatalf("%s has a count and is no service", n)
				}
			}
			again, err := plan.Make(next, in)
			if err != nil {
				t.Fatal(err)
			}
			if again.Changed() {
				t.Fatalf("again: %v, %d services", lines(again.Plan), len(again.Services))
			}
			s = next
			if i == 0 {
				first = r.Rendered
			}
		}
		back := plan.Input{App: "shop", Exact: true, Bundle: v1.Bundle{Services: first, Secrets: plan.References(first, nil)}}
		r, err := plan.Make(s, back)
		if err != nil {
			t.Fatal(err)
		}
		s = apply(t, s, r)
		for n := range first {
			if s.Services[n].Spec.Task.Image != first[n].Task.Image {
				t.Fatalf("%s did not come back", n)
			}
		}
	})
}

// What serves beside a new version keeps its routes: of what was wanted, and of what completed.
func TestRoutesOfTheVersionsBefore(t *testing.T) {
	spec := func(image string, hosts ...string) cluster.ServiceSpec {
		sp := cluster.ServiceSpec{Task: cluster.TaskSpec{Image: image}}
		for _, h := range hosts {
			sp.Routes = append(sp.Routes, cluster.Route{Host: h, Port: 80})
			// Each with a port of its own, which must be kept just so.
			sp.Ports = append(sp.Ports, cluster.PublishedPort{Published: int(h[0]), Target: 80, Protocol: "tcp", Mode: "gateway"},
				cluster.PublishedPort{Published: int(h[0]), Target: 80, Protocol: "udp", Mode: "node"})
		}
		return sp
	}
	var s plan.State
	deploy := func(sp cluster.ServiceSpec, completes bool) (hosts []string) {
		t.Helper()
		r, err := plan.Make(s, input(services{"web": sp}))
		if err != nil {
			t.Fatal(err)
		}
		rollouts := s.Rollouts
		s = apply(t, s, r)
		if s.Rollouts = rollouts; completes {
			task := s.Services["web"].Spec.Task
			s.Rollouts = map[cluster.ServiceName]cluster.Rollout{"web": {Target: task.Hash(), State: cluster.RolloutComplete, Stable: &task}}
		}
		var ports []string
		for _, p := range s.Services["web"].LeftPorts {
			ports = append(ports, string(rune(p.Published)))
		}
		for _, r := range s.Services["web"].Left {
			hosts = append(hosts, r.Host)
		}
		if d := cmp.Diff(hosts, ports); d != "" {
			t.Errorf("ports are kept otherwise than routes: %s", d)
		}
		return hosts
	}
	for _, c := range []struct {
		what      string
		spec      cluster.ServiceSpec
		completes bool
		want      []string
	}{
		{"the first", spec("web:1", "a", "b"), true, nil},
		{"a bad one that moves", spec("web:2", "b", "c"), false, []string{"a"}},
		{"another bad one", spec("web:3", "d"), false, []string{"b", "c", "a"}},
		{"a good one", spec("web:4", "a"), true, []string{"d", "b", "c"}},
		{"a route alone", spec("web:4", "e"), true, nil},
		{"without routes", spec("web:5"), true, []string{"e"}},
	} {
		if d := cmp.Diff(c.want, deploy(c.spec, c.completes)); d != "" {
			t.Errorf("%s (-want +got)\n%s", c.what, d)
		}
	}
}

// What serves beside a new version keeps its ports: what was wanted, and what completed.
func TestPortsOfTheVersionsBefore(t *testing.T) {
	spec := func(image string, port int) cluster.ServiceSpec {
		return cluster.ServiceSpec{
			Task:   cluster.TaskSpec{Image: image},
			Routes: []cluster.Route{{Host: "a", Port: port}, {Host: "b", Port: 1}},
			Ports:  []cluster.PublishedPort{{Published: 5432, Target: port, Protocol: "tcp", Mode: "gateway"}},
		}
	}
	var s plan.State
	deploy := func(sp cluster.ServiceSpec, completes bool) cluster.Service {
		t.Helper()
		r, err := plan.Make(s, input(services{"web": sp}))
		if err != nil {
			t.Fatal(err)
		}
		rollouts := s.Rollouts
		s = apply(t, s, r)
		if s.Rollouts = rollouts; completes {
			task := s.Services["web"].Spec.Task
			s.Rollouts = map[cluster.ServiceName]cluster.Rollout{"web": {Target: task.Hash(), State: cluster.RolloutComplete, Stable: &task}}
		}
		return s.Services["web"]
	}
	way := cluster.Route{Host: "a"}.Way()
	ports := func(n int) map[string]int { return map[string]int{way: n, "tcp-5432": n} }
	one := deploy(spec("web:1", 80), true)
	two := deploy(spec("web:2", 90), false)
	three := deploy(spec("web:3", 100), false)
	four := deploy(spec("web:4", 80), false)
	moved := deploy(spec("web:4", 81), true)
	five := deploy(spec("web:5", 81), true)
	for _, c := range []struct {
		what string
		got  cluster.Service
		want map[string]map[string]int
	}{
		{"the first", one, nil},
		{"another port", two, map[string]map[string]int{one.Version: ports(80)}},
		{"a third, and the second never completed", three, map[string]map[string]int{one.Version: ports(80), two.Version: ports(90)}},
		{"the port of the first again", four, map[string]map[string]int{three.Version: ports(100)}},
		{"a route alone", moved, map[string]map[string]int{one.Version: ports(80)}},
		{"the same port", five, nil},
	} {
		if d := cmp.Diff(c.want, c.got.Before); d != "" {
			t.Errorf("%s (-want +got)\n%s", c.what, d)
		}
	}
}
