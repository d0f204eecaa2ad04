package plan

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

// Exposures lists what services are reachable by from outside their networks:
// sorted by app, service, kind, address.
func Exposures(services []cluster.Service, entry EntryPoints) []v1.Exposed {
	out := []v1.Exposed{}
	for _, s := range services {
		for _, rt := range s.Spec.Routes {
			out = append(out, exposedRoute(s.ServiceID, rt, entry))
		}
		for _, p := range s.Spec.Ports {
			out = append(out, exposedPort(s.ServiceID, p))
		}
		if s.Spec.Task.NetworkMode == "host" {
			out = append(out, v1.Exposed{
				App: s.App, Service: s.Name, Kind: "host", Scope: "public", Where: "node",
				Address: "every port it listens on", Source: s.Spec.Source,
			})
		}
	}
	slices.SortStableFunc(out, func(a, b v1.Exposed) int {
		if c := (cluster.ServiceID{App: a.App, Name: a.Service}).Compare(cluster.ServiceID{App: b.App, Name: b.Service}); c != 0 {
			return c
		}
		return strings.Compare(a.Kind+" "+a.Address, b.Kind+" "+b.Address)
	})
	return out
}

func exposedRoute(id cluster.ServiceID, rt cluster.Route, ports EntryPoints) v1.Exposed {
	e := v1.Exposed{
		App: id.App, Service: id.Name, Kind: "http", Port: rt.Port, Scope: "public", Where: "gateway",
		TLS: rt.TLS, Source: rt.Source, Address: rt.Rule,
	}
	if rt.Internal {
		e.Scope = "internal"
	}
	at := entries(rt)
	e.Schemes = schemes(at)
	e.Redirects = slices.Contains(e.Schemes, "http") && slices.ContainsFunc(rt.Middlewares, toHTTPS)
	if rt.Rule != "" {
		return e
	}
	path := rt.Path
	if path == "" {
		path = "/"
	}
	host := rt.Host
	if host == "" {
		host = "*"
	}
	e.Address = host + path
	for _, entry := range at {
		scheme, port, usual := "http", ports.Web, 80
		switch entry {
		case "internal":
			port = ports.Internal
		case "websecure":
			scheme, port, usual = "https", ports.WebSecure, 443
		}
		e.URLs = append(e.URLs, scheme+"://"+host+suffix(port, usual)+path)
	}
	if rt.Host != "" {
		e.URL = e.URLs[len(e.URLs)-1] // the one with TLS, where there is one
	}
	return e
}

// schemes are those of entry points.
func schemes(entries []string) []string {
	var out []string
	for _, e := range entries {
		scheme := "http"
		if e == "websecure" {
			scheme = "https"
		}
		out = append(out, scheme)
	}
	return slices.Compact(out)
}

// toHTTPS reports whether a middleware sends those who come by HTTP on to HTTPS.
func toHTTPS(m cluster.Middleware) bool {
	for k, v := range m.Options {
		if strings.EqualFold(k, "redirectscheme/scheme") {
			return v == "https"
		}
	}
	return false
}

func suffix(port, usual int) string {
	if port == 0 || port == usual {
		return ""
	}
	return ":" + strconv.Itoa(port)
}

func exposedPort(id cluster.ServiceID, p cluster.PublishedPort) v1.Exposed {
	e := v1.Exposed{
		App: id.App, Service: id.Name, Kind: p.Protocol, Port: p.Target, Scope: "public", Where: p.Mode,
		Source: p.Source, Address: ":" + strconv.Itoa(p.Published),
	}
	if e.Kind == "" {
		e.Kind = "tcp"
	}
	if p.HostIP != "" {
		e.Address = net.JoinHostPort(p.HostIP, strconv.Itoa(p.Published))
	}
	if !p.Public() {
		e.Scope = "node"
	}
	return e
}

// entries are the entry points that a route answers on.
func entries(rt cluster.Route) []string {
	switch {
	case rt.Internal:
		return []string{"internal"}
	case len(rt.EntryPoints) > 0:
		return slices.Compact(slices.Sorted(slices.Values(rt.EntryPoints)))
	case rt.TLS:
		return []string{"web", "websecure"}
	}
	return []string{"web"}
}

// exposure fills in what is exposed after the deploy, what is new and what closes.
func (r *Result) exposure(s State, in Input) {
	var now, old []cluster.Service
	for name, spec := range r.Rendered {
		now = append(now, cluster.Service{ServiceID: cluster.ServiceID{App: in.App, Name: name}, Spec: spec})
	}
	for _, svc := range s.Services {
		old = append(old, svc)
	}
	before := map[string]v1.Exposed{}
	for _, e := range Exposures(old, s.Entry) {
		before[exposedKey(e)] = e
	}
	for _, e := range Exposures(now, s.Entry) {
		k := exposedKey(e)
		_, had := before[k]
		e.New = !had
		delete(before, k)
		r.Plan.Exposed = append(r.Plan.Exposed, e)
	}
	for _, k := range slices.Sorted(maps.Keys(before)) {
		r.Plan.Closed = append(r.Plan.Closed, before[k])
	}
	had := map[string]bool{}
	for _, svc := range old {
		for _, k := range claimKeys(svc) {
			had[k] = true
		}
	}
	for _, svc := range now {
		for _, k := range claimKeys(svc) {
			r.Claims = r.Claims || !had[k]
		}
	}
}

// claimKeys names what a service takes of what others may take.
func claimKeys(s cluster.Service) []string {
	var out []string
	for _, c := range claims(s) {
		out = append(out, c.key)
	}
	for _, p := range s.Spec.Task.NodePorts {
		out = append(out, fmt.Sprintf("node port %d %s %v", p.Published, p.Protocol, s.Spec.Placement.Constraints))
	}
	return out
}

func exposedKey(e v1.Exposed) string {
	return fmt.Sprintf("%s %s %s %s %d %s %v", e.Service, e.Kind, e.Scope, e.Address, e.Port, e.Where, e.Schemes)
}

// claim is something that one service in the cluster can have. Which of them
// clash, proxyconf knows; the key only tells what is new.
type claim struct {
	key   string
	what  string
	field string // of the service
}

// claims lists what a service takes for itself.
func claims(s cluster.Service) []claim {
	var out []claim
	for i, rt := range s.Spec.Routes {
		host, path := strings.ToLower(strings.TrimSuffix(rt.Host, ".")), strings.TrimRight(rt.Path, "/")
		match, what := fmt.Sprintf("%s %s", host, path), fmt.Sprintf("the route %s%s/", host, path)
		switch {
		case rt.Rule != "":
			match, what = "rule "+rt.Rule, "the rule "+rt.Rule
		case host == "":
			what = fmt.Sprintf("every host at %s/ (a route without a host)", path)
		}
		for _, e := range entries(rt) {
			out = append(out, claim{key: fmt.Sprintf("%s %s %d", e, match, rt.Priority), what: what, field: fmt.Sprintf("routes[%d]", i)})
		}
	}
	for i, p := range s.Spec.Ports {
		if p.Mode != "gateway" {
			continue
		}
		out = append(out, claim{
			key: fmt.Sprintf("port %d %s", p.Published, p.Protocol), what: fmt.Sprintf("port %d/%s of the gateways", p.Published, p.Protocol),
			field: fmt.Sprintf("ports[%d]", i),
		})
	}
	return out
}
