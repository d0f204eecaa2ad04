package compose

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/fairlead/fairlead/cluster"
)

// routes adds the routes of x-fairlead and of Traefik's labels.
func (c *converter) routes(name string, spec *cluster.ServiceSpec) {
	if x := c.ext[name]; x != nil {
		for i, r := range x.Routes {
			c.route(name, i, r, spec)
		}
	}
	c.traefikRoutes(name, spec)
	if len(spec.Routes) > 0 && spec.Task.NetworkMode == "none" {
		c.refuse(spec.Routes[0].Source, dotted("services", name, "network_mode"), "a service with network_mode none cannot be routed to", "")
	}
}

func (c *converter) route(name string, i int, r routeExtension, spec *cluster.ServiceSpec) {
	at, where := c.routeAt(name, i), dotted("services", name, "x-fairlead", "routes")
	if c.complainedAbout(fmt.Sprintf("%s[%d]", where, i)) {
		return
	}
	host := strings.ToLower(strings.TrimSuffix(r.Host, "."))
	switch {
	case host == "":
		host = c.defaultHost(name)
	case host == "*":
		host = ""
	case !validHost(strings.TrimPrefix(host, "*.")):
		c.refuse(at, where, quote(r.Host)+" is not a host name", "write for example shop.example.com, without a scheme or port")
		return
	}
	path := r.Path
	if path == "/" {
		path = ""
	}
	if bad := badRoutePath(path); bad != "" {
		c.refuse(at, where, "the path "+quote(path)+" "+bad, "")
		return
	}
	port := r.Port
	if port == 0 {
		var fine bool
		if port, fine = c.onlyPort(name, at, where, "add port: to the route", spec); !fine {
			return
		}
	}
	if r.Internal && r.TLS {
		c.warn(at, where, "tls is ignored: the internal entry point speaks HTTP", "leave it out, or internal:")
		r.TLS = false
	}
	c.addRoute(name, where, cluster.Route{Host: host, Path: path, Port: port, Internal: r.Internal, TLS: r.TLS, Source: at}, spec)
}

// addRoute adds a route, and remembers the key that made it.
func (c *converter) addRoute(name, path string, r cluster.Route, spec *cluster.ServiceSpec) {
	spec.Routes = append(spec.Routes, r)
	c.origin[claimed{name, r.Source}] = path
}

// routeAt is the place of the i-th route.
func (c *converter) routeAt(name string, i int) cluster.Source {
	full := []string{"services", name, "x-fairlead", "routes"}
	items := c.idx.items(func(d *doc, n *node) bool {
		return n.bad && c.failed() && slices.Contains(c.load.files, d.abs) // compose-go got the files without it
	}, full...)
	if i < len(items) {
		return cluster.Source{File: items[i].d.file, Line: items[i].n.line}
	}
	return c.idx.at(full...)
}

func (c *converter) defaultHost(name string) string {
	return strings.ToLower(strings.ReplaceAll(name, "_", "-") + "." + string(c.app) + "." + c.res.Domain)
}

// onlyPort is the port of a route that names none; advice says where it is named.
func (c *converter) onlyPort(name string, at cluster.Source, where, advice string, spec *cluster.ServiceSpec) (int, bool) {
	switch e := spec.Task.Expose; len(e) {
	case 1:
		return e[0], true
	case 0:
		c.refuse(at, where, "which port? The service exposes none", advice+", or expose: to the service "+name)
	default:
		var list []string
		for _, p := range e {
			list = append(list, strconv.Itoa(p))
		}
		c.refuse(at, where, fmt.Sprintf("which port? The service %s exposes %s", name, strings.Join(list, ", ")), advice)
	}
	return 0, false
}

// badRoutePath says what is wrong with a path prefix.
func badRoutePath(p string) string {
	switch {
	case p == "":
	case !strings.HasPrefix(p, "/"):
		return "does not start with /"
	case strings.ContainsAny(p, "`\\?#") || strings.ContainsFunc(p, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return "holds characters that a path cannot"
	case len(p) > 1024:
		return "is too long"
	}
	return ""
}
