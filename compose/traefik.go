package compose

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/fairlead/fairlead/cluster"
)

// tLabel is one Traefik label of a service.
type tLabel struct {
	service string // the Compose service that carries it
	key     string
	value   string
	parts   []string // of key, after "traefik.http.routers" and the like and the object's name
	at      cluster.Source
	path    string
}

// traefikApp is what the labels of all services of the app say. Routers,
// services and middlewares are named within the app.
type traefikApp struct {
	routers     map[string]map[string]tLabel // by Compose service + "/" + router
	services    map[string]*tService         // by lower-case name
	middlewares map[string]*tMiddleware      // by lower-case name
	enabled     map[string]tLabel            // by Compose service: where routes were asked for
	own         map[string][]string          // names of services defined by a Compose service
	other       map[string]bool              // by Compose service: it has TCP or UDP labels
	said        map[string]bool              // objects refused by name already
	// routes that labels of one Compose service make for another
	routes map[string][]tRoute
}

type tRoute struct {
	by    string // Compose service whose label it is
	name  string // router
	route cluster.Route
	path  string
}

type tService struct {
	name, service string
	port          int
	scheme        string
	first         tLabel
}

type tMiddleware struct {
	name    string
	options map[string]string
	chain   []string
	first   tLabel
	bad     bool
}

// readTraefik reads the labels of all services, of labels: and deploy.labels.
func (c *converter) readTraefik(names []string) *traefikApp {
	t := &traefikApp{
		routers: map[string]map[string]tLabel{}, services: map[string]*tService{}, middlewares: map[string]*tMiddleware{},
		enabled: map[string]tLabel{}, own: map[string][]string{}, routes: map[string][]tRoute{},
		other: map[string]bool{}, said: map[string]bool{},
	}
	for _, n := range names {
		labels := c.traefikLabels(n)
		if off := slices.ContainsFunc(labels, func(l tLabel) bool {
			on, err := strconv.ParseBool(l.value)
			return strings.EqualFold(l.key, "traefik.enable") && err == nil && !on
		}); off {
			continue
		}
		for _, l := range labels {
			c.traefikLabel(t, l)
		}
	}
	for _, n := range names {
		c.traefikService(t, n)
	}
	return t
}

func (c *converter) traefikLabels(n string) []tLabel {
	var out []tLabel
	read := func(m map[string]string, place func(label string) cluster.Source, path ...string) {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if low := strings.ToLower(k); strings.HasPrefix(low, "traefik.") {
				full := append(slices.Clone(path), k)
				out = append(out, tLabel{service: n, key: k, value: strings.TrimSpace(m[k]), at: place(k), path: dotted(append([]string{"services", n}, full...)...)})
			}
		}
	}
	s := c.p.Services[n]
	read(s.Labels, func(k string) cluster.Source { return c.labelAt(n, k) }, "labels")
	if s.Deploy != nil {
		read(s.Deploy.Labels, func(k string) cluster.Source { return c.at(n, "deploy", "labels", k) }, "deploy", "labels")
	}
	// in the order of the file, so that the first of several is the one named
	slices.SortStableFunc(out, func(a, b tLabel) int { return a.at.Line - b.at.Line })
	return out
}

func (c *converter) traefikLabel(t *traefikApp, l tLabel) {
	parts := strings.Split(l.key, ".")
	word := func(i int) string {
		if i < len(parts) {
			return strings.ToLower(parts[i])
		}
		return ""
	}
	switch word(1) {
	case "enable":
		if on, err := strconv.ParseBool(l.value); err != nil || len(parts) != 2 {
			c.refuse(l.at, l.path, quote(l.value)+" is neither true nor false", "")
		} else if on {
			t.enabled[l.service] = l
		}
		return
	case "docker", "swarm":
		c.warn(l.at, l.path, "ignored", "gateways reach every network of the cluster")
		return
	case "tcp", "udp":
		t.other[l.service] = true
		c.otherLabel(t, l, strings.ToUpper(word(1)), strings.TrimSuffix(word(2), "s"), parts)
		return
	case "tls":
		c.refuse(l.at, l.path, "Traefik's TLS options are not supported yet", "certificates come from fairlead cert add")
		return
	case "http":
	default:
		c.refuse(l.at, l.path, "Traefik has no such label", didYouMean(word(1), []string{"enable", "http", "tcp", "udp", "docker"}))
		return
	}
	if len(parts) < 5 || parts[3] == "" || slices.Contains(parts, "") {
		c.refuse(l.at, l.path, "the label is incomplete", "write for example traefik.http.routers.NAME.rule")
		return
	}
	name := parts[3]
	if len(name) > 100 || !objectRE.MatchString(name) {
		c.refuse(l.at, l.path, quote(name)+" cannot be the name of something in Traefik", "use letters, digits, - and _")
		return
	}
	l.parts = parts[4:]
	switch word(2) {
	case "routers":
		c.routerLabel(t, l, name)
	case "services":
		c.serviceLabel(t, l, name)
	case "middlewares":
		c.middlewareLabel(t, l, name)
	default:
		c.refuse(l.at, l.path, "Traefik's HTTP "+word(2)+" are not supported yet", didYouMean(word(2), []string{"routers", "services", "middlewares"}))
	}
}

// otherLabel refuses TCP and UDP objects, each once and by name.
func (c *converter) otherLabel(t *traefikApp, l tLabel, proto, what string, parts []string) {
	name := ""
	if len(parts) > 3 {
		name = parts[3]
	}
	if key := l.service + "\x00" + proto + what + "\x00" + name; !t.said[key] {
		t.said[key] = true
		c.refuse(l.at, l.path, fmt.Sprintf("Traefik's %s %s %s is not supported yet", proto, what, name), "publish the port with ports:")
	}
}

var objectRE = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// certsField stands for the options of tls: they ask for TLS where tls itself says nothing.
const certsField = "tls."

func (c *converter) routerLabel(t *traefikApp, l tLabel, name string) {
	field := strings.ToLower(strings.Join(l.parts, "."))
	switch {
	case slices.Contains([]string{"rule", "entrypoints", "priority", "tls", "service", "middlewares"}, field):
	case field == "tls.certresolver" || strings.HasPrefix(field, "tls.domains"):
		if field == "tls.certresolver" {
			c.warn(l.at, l.path, "automatic certificates come later: the certificate that matches the host is served", "add one with fairlead cert add")
		} else {
			c.warn(l.at, l.path, "ignored", "the certificate that matches the host is served")
		}
		field = certsField
	case strings.HasPrefix(field, "observability."):
		c.warn(l.at, l.path, "ignored", "")
		return
	case field == "rulesyntax" && strings.EqualFold(l.value, "v3"):
		return
	default:
		c.refuse(l.at, l.path, "the router option "+quote(field)+" is not supported yet", didYouMean(field, []string{"rule", "entrypoints", "priority", "tls", "service", "middlewares"}))
		return
	}
	key := l.service + "/" + strings.ToLower(name)
	if t.routers[key] == nil {
		t.routers[key] = map[string]tLabel{}
	}
	if first, twice := t.routers[key][field]; twice && first.value != l.value && field != certsField {
		c.refuse(l.at, l.path, fmt.Sprintf("differs from line %d of %s", first.at.Line, first.at.File), "keep one of them")
	}
	t.routers[key][field] = l
}

func (c *converter) serviceLabel(t *traefikApp, l tLabel, name string) {
	low := strings.ToLower(name)
	s := t.services[low]
	if s == nil {
		s = &tService{name: name, service: l.service, first: l}
		t.services[low] = s
		t.own[l.service] = append(t.own[l.service], low)
	}
	if s.service != l.service {
		c.refuse(l.at, l.path, fmt.Sprintf("the service %s is defined by %s too (%s:%d)", quote(name), s.service, s.first.at.File, s.first.at.Line), "choose another name")
		return
	}
	switch field := strings.ToLower(strings.Join(l.parts, ".")); field {
	case "loadbalancer.server.port":
		p, err := strconv.Atoi(l.value)
		if err != nil || p < 1 || p > 65535 {
			c.refuse(l.at, l.path, quote(l.value)+" is not a port", "")
			return
		}
		s.port = p
	case "loadbalancer.server.scheme":
		if l.value != "http" && l.value != "https" && l.value != "h2c" {
			c.refuse(l.at, l.path, quote(l.value)+" is not a scheme", "write http, https or h2c")
			return
		}
		s.scheme = l.value
	case "loadbalancer.passhostheader":
		if on, err := strconv.ParseBool(l.value); err != nil || !on {
			c.refuse(l.at, l.path, "the host header is always passed", "")
		}
	default:
		c.refuse(l.at, l.path, "the service option "+quote(field)+" is not supported yet", "")
	}
}

func (c *converter) middlewareLabel(t *traefikApp, l tLabel, name string) {
	low := strings.ToLower(name)
	m := t.middlewares[low]
	if m == nil {
		m = &tMiddleware{name: name, options: map[string]string{}, first: l}
		t.middlewares[low] = m
	}
	if strings.EqualFold(l.parts[0], "chain") {
		if len(l.parts) != 2 || !strings.EqualFold(l.parts[1], "middlewares") || len(m.options) > 0 {
			c.refuse(l.at, l.path, "write chain.middlewares=a,b and nothing else", "")
			m.bad = true
			return
		}
		m.chain = strings.Split(l.value, ",")
		return
	}
	k, v, err := middlewareOption(l.parts, l.value)
	if err != nil {
		c.refuse(l.at, l.path, err.Error(), "")
		m.bad = true
		return
	}
	kind, _, _ := strings.Cut(k, "/")
	for other := range m.options {
		if o, _, _ := strings.Cut(other, "/"); o != kind || m.chain != nil {
			c.refuse(l.at, l.path, fmt.Sprintf("the middleware %s is %s already (%s:%d)", quote(name), o, m.first.at.File, m.first.at.Line), "give each its own name")
			m.bad = true
			return
		}
	}
	if old, twice := m.options[k]; twice && old != v {
		c.refuse(l.at, l.path, fmt.Sprintf("the middleware %s is defined twice (also %s:%d)", quote(name), m.first.at.File, m.first.at.Line), "choose another name")
		return
	}
	m.options[k] = v
}

// traefikService makes the routes of one service's labels.
func (c *converter) traefikService(t *traefikApp, n string) {
	var routers []string
	for k := range t.routers {
		if service, name, _ := strings.Cut(k, "/"); service == n {
			routers = append(routers, name)
		}
	}
	slices.Sort(routers)
	for _, r := range routers {
		c.traefikRouter(t, n, r, t.routers[n+"/"+r])
	}
	if len(routers) > 0 {
		return
	}
	// Without a router Traefik makes one, with a host of its own making.
	on, enabled := t.enabled[n]
	if len(t.own[n]) > 0 {
		on, enabled = t.services[t.own[n][0]].first, true
	}
	if enabled && !t.other[n] && !isProxyWithSocket(c, n) {
		c.traefikRouter(t, n, n, map[string]tLabel{"": on})
	}
}

func isProxyWithSocket(c *converter, n string) bool {
	return proxyName(c.p.Services[n]) != "" // its own labels are about itself; socket says what to do
}

func (c *converter) traefikRouter(t *traefikApp, n, name string, fields map[string]tLabel) {
	first := slices.MinFunc(slices.Collect(maps.Values(fields)), func(a, b tLabel) int { return a.at.Line - b.at.Line })
	r := cluster.Route{Source: first.at}
	if l, given := fields["rule"]; given {
		r.Source = l.at
		host, err := checkRule(l.value)
		if err != nil {
			c.refuse(l.at, l.path, err.Error(), "")
			return
		}
		if host != "" {
			r.Host = host
		} else {
			r.Rule = l.value
		}
	} else {
		r.Host = c.defaultHost(n)
	}
	c.routerOptions(&r, fields)
	fine := true
	if l, given := fields["middlewares"]; given {
		r.Middlewares, fine = c.traefikMiddlewares(t, l, l.value, 0)
	}
	s, service, known := c.routerService(t, n, fields, first)
	if !known || !fine {
		return
	}
	if s != nil {
		r.Port, r.Scheme = s.port, s.scheme
		if r.Scheme == "http" {
			r.Scheme = ""
		}
	}
	t.routes[service] = append(t.routes[service], tRoute{by: n, name: name, route: r, path: first.path})
}

func (c *converter) routerOptions(r *cluster.Route, fields map[string]tLabel) {
	if l, given := fields["priority"]; given {
		p, err := strconv.Atoi(l.value)
		if err != nil || p < -cluster.MaxPriority || p > cluster.MaxPriority {
			c.refuse(l.at, l.path, fmt.Sprintf("%s is not a priority from %d to %d", quote(l.value), -cluster.MaxPriority, cluster.MaxPriority), "")
			p = 0
		}
		r.Priority = p
	}
	_, r.TLS = fields[certsField]
	if l, given := fields["tls"]; given {
		on, err := strconv.ParseBool(l.value)
		if err != nil {
			c.refuse(l.at, l.path, quote(l.value)+" is neither true nor false", "")
		}
		r.TLS = on
	}
	l, given := fields["entrypoints"]
	if !given {
		if r.TLS {
			r.EntryPoints = []string{"websecure"} // a router with TLS answers HTTPS alone
		}
		return
	}
	asked := r.TLS
	for e := range strings.SplitSeq(l.value, ",") {
		switch e = strings.TrimSpace(e); e {
		case "web", "websecure":
			if !slices.Contains(r.EntryPoints, e) {
				r.EntryPoints = append(r.EntryPoints, e)
			}
			r.TLS = r.TLS || e == "websecure"
		default:
			c.refuse(l.at, l.path, "there is no entry point "+quote(e), "the gateways have web and websecure")
		}
	}
	if asked && slices.Contains(r.EntryPoints, "web") {
		c.warn(l.at, l.path, "web speaks HTTP: the router serves there without TLS, where one with tls would not answer in Traefik", "leave web out, or give it a router of its own that sends on to https")
	}
}

// routerService finds the service a router leads to, as Traefik infers it.
func (c *converter) routerService(t *traefikApp, n string, fields map[string]tLabel, first tLabel) (s *tService, service string, known bool) {
	l, given := fields["service"]
	if !given {
		switch own := t.own[n]; len(own) {
		case 0:
			return nil, n, true
		case 1:
			return t.services[own[0]], n, true
		default:
			c.refuse(first.at, first.path, fmt.Sprintf("which service? %s defines %s", n, strings.Join(own, ", ")), "add the label traefik.http.routers.NAME.service")
			return nil, "", false
		}
	}
	name, provider, scoped := strings.Cut(l.value, "@")
	if scoped && provider != "docker" && provider != "swarm" {
		advice := ""
		if provider == "internal" {
			advice = "Traefik's own API and dashboard are not served"
		}
		c.refuse(l.at, l.path, "the service "+quote(l.value)+" is not one of this app", advice)
		return nil, "", false
	}
	if s := t.services[strings.ToLower(name)]; s != nil {
		return s, s.service, true
	}
	// Traefik's Docker provider names a container's service after it.
	for _, cand := range []string{name, strings.TrimSuffix(name, "-"+string(c.app))} {
		if _, is := c.p.Services[cand]; is && len(t.own[cand]) == 0 {
			return nil, cand, true
		}
	}
	c.refuse(l.at, l.path, "there is no service "+quote(name)+" in this app's labels", didYouMean(name, slices.Sorted(maps.Keys(t.services))))
	return nil, "", false
}

// traefikMiddlewares resolves a router's list, chains included.
func (c *converter) traefikMiddlewares(t *traefikApp, l tLabel, list string, depth int) (out []cluster.Middleware, fine bool) {
	const deep = 5
	if depth > deep {
		c.refuse(l.at, l.path, "chains of middlewares in a circle, or too deep", "")
		return nil, false
	}
	fine = true
	for ref := range strings.SplitSeq(list, ",") {
		ref = strings.TrimSpace(ref)
		name, provider, scoped := strings.Cut(ref, "@")
		if scoped && provider != "docker" && provider != "swarm" {
			c.refuse(l.at, l.path, "the middleware "+quote(ref)+" is not one of this app", "define it with labels")
			fine = false
			continue
		}
		m := t.middlewares[strings.ToLower(name)]
		switch {
		case m == nil:
			c.refuse(l.at, l.path, "there is no middleware "+quote(name)+" in this app's labels", didYouMean(name, slices.Sorted(maps.Keys(t.middlewares))))
			fine = false
		case m.bad:
			fine = false
		case m.chain != nil:
			more, ok := c.traefikMiddlewares(t, m.first, strings.Join(m.chain, ","), depth+1)
			out, fine = append(out, more...), fine && ok
		default:
			out = append(out, cluster.Middleware{Name: m.name, Options: maps.Clone(m.options)})
		}
	}
	return out, fine
}

// traefikRoutes adds the routes that labels make for a service.
func (c *converter) traefikRoutes(name string, spec *cluster.ServiceSpec) {
	for _, r := range c.traefik.routes[name] {
		if r.route.Port == 0 {
			// The name of a label's service, where there is one: a second would make
			// the router ask which of them is meant.
			object := name
			if own := c.traefik.own[name]; len(own) > 0 {
				object = c.traefik.services[own[0]].name
			}
			advice := "add the label traefik.http.services." + object + ".loadbalancer.server.port"
			port, fine := c.onlyPort(name, r.route.Source, r.path, advice, spec)
			if !fine {
				continue
			}
			r.route.Port = port
		}
		c.addRoute(name, r.path, r.route, spec)
	}
}
