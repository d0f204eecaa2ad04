package proxyconf

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"math/big"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/fairlead/fairlead/cluster"
)

// Names of objects that do not belong to a service.
const (
	objectRoot   = "" // the root key itself
	objectSeed   = "http/middlewares/fairlead-seed"
	retryName    = "fairlead-retry"
	transport    = "fairlead"
	transportTLS = "fairlead-tls"

	entryWeb      = "web"
	entrySecure   = "websecure"
	entryInternal = "internal"
)

// How requests reach servers. A task that is killed refuses connections, or
// leaves them hanging once its network is gone, until its endpoint is withdrawn.
// A request that met it is sent to the next server as long as its headers are not
// written. Others ask at the same time, so which server is the next one is as good
// as drawn: with two of three servers gone, one request in 200,000 meets none alive.
//
// The gateway spares them the wait for a hanging dial: it has such a server refuse the
// next ones (gateway/hanging.go). Traefik's passive health check would too, but takes an
// answer of 500 or above for a failure as well: a few requests for one broken page, of
// whomever, and every page would be 503.
const (
	retryAttempts = "30"
	dialTimeout   = "1s"
	// Idle connections hold up the end of a draining task: keep them briefly.
	idleTimeout    = "1s"
	idlePerHost    = "200"
	tcpDialTimeout = "3s"
)

// namesPort is held on no gateway: names are answered there, on the bridges' addresses.
const namesPort = 53

// Priorities as Traefik gets them: each class of rules has a band of its own, in
// which what users may write lies around the middle. All of them are above 0,
// which Traefik takes for none, and fit the int of a 32-bit Traefik.
const (
	classPriority  = 300_000_000 // between two classes of rules
	middlePriority = classPriority / 2
)

type renderer struct {
	want      map[string]map[string]string
	refused   map[cluster.ServiceID][]Refusal
	endpoints map[cluster.ServiceID]cluster.Endpoints
	claims    map[string][]Holder // by entry point and what is claimed there
	reserved  map[int]string
	words     map[string]vocabulary // by section
}

func newRenderer(want map[string]map[string]string, reserved map[int]string) *renderer {
	return &renderer{
		want: want, refused: map[cluster.ServiceID][]Refusal{}, endpoints: map[cluster.ServiceID]cluster.Endpoints{},
		claims: map[string][]Holder{}, reserved: reserved, words: map[string]vocabulary{},
	}
}

// render fills want and returns what was refused.
func render(s Snapshot, want map[string]map[string]string) map[cluster.ServiceID][]Refusal {
	r := newRenderer(want, s.Reserved)
	for _, e := range s.Endpoints {
		r.endpoints[e.ServiceID] = e
	}
	r.globals()
	r.services(s.Services)
	return r.refused
}

// services renders services, the oldest first.
func (r *renderer) services(list []cluster.Service) {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b cluster.Service) int {
		return cmp.Or(cmp.Compare(a.Created, b.Created), a.Compare(b.ServiceID))
	})
	for _, svc := range list {
		r.service(svc)
	}
	for _, svc := range list { // what is declared comes first
		r.left(svc)
	}
}

// left renders the routes and ports that tasks of earlier versions still answer on. One
// that somebody else has by now is his.
func (r *renderer) left(svc cluster.Service) {
	e := r.endpoints[svc.ServiceID].Earlier(svc.Version)
	if len(e.Tasks) == 0 {
		return
	}
	for i, route := range svc.Left {
		_ = r.route(svc, "left"+strconv.Itoa(i), route, e)
	}
	for _, p := range svc.LeftPorts {
		_ = r.port(svc, p, e)
	}
}

// globals are the objects that are always there. The seed keeps the tree from
// ever being empty of configuration: Traefik then keeps what it had.
func (r *renderer) globals() {
	r.want[objectRoot] = map[string]string{Root: "fairlead"}
	// What is put here is constant, and a test holds that all of it passes the check.
	_ = r.put("http/middlewares", "fairlead-seed", map[string]string{"stripPrefix/prefixes/0": "/fairlead-seed"})
	_ = r.put("http/middlewares", retryName, map[string]string{"retry/attempts": retryAttempts})
	_ = r.put("http/serversTransports", transport, map[string]string{
		"forwardingTimeouts/dialTimeout": dialTimeout, "forwardingTimeouts/idleConnTimeout": idleTimeout, "maxIdleConnsPerHost": idlePerHost,
	})
	// A server inside the cluster is called by its address, for which no
	// certificate can be right: encrypted, not verified, as the user asked with
	// scheme https.
	_ = r.put("http/serversTransports", transportTLS, map[string]string{
		"forwardingTimeouts/dialTimeout": dialTimeout, "forwardingTimeouts/idleConnTimeout": idleTimeout, "maxIdleConnsPerHost": idlePerHost,
		"insecureSkipVerify": "true",
	})
	_ = r.put("tcp/serversTransports", transport, map[string]string{"dialTimeout": tcpDialTimeout})
}

// put checks an object and adds it.
func (r *renderer) put(section, name string, pairs map[string]string) error {
	if err := r.vocabulary(section).checkObject(section, name, pairs); err != nil {
		return err
	}
	full := make(map[string]string, len(pairs))
	for k, v := range pairs {
		full[Root+"/"+section+"/"+name+"/"+k] = v
	}
	r.want[section+"/"+name] = full
	return nil
}

func (r *renderer) vocabulary(section string) vocabulary {
	if r.words[section] == nil {
		r.words[section] = schema(section)
	}
	return r.words[section]
}

func (r *renderer) refuse(svc cluster.Service, what Refusal, err error) {
	what.Reason = err.Error()
	if t, ok := errors.AsType[takenError](err); ok {
		what.Taken = &t.by
	}
	r.refused[svc.ServiceID] = append(r.refused[svc.ServiceID], what)
}

func (r *renderer) service(svc cluster.Service) {
	for i, route := range svc.Spec.Routes {
		if err := r.route(svc, strconv.Itoa(i), route, r.endpoints[svc.ServiceID]); err != nil {
			r.refuse(svc, Refusal{What: describeRoute(route), Field: fmt.Sprintf("routes[%d]", i), Source: route.Source}, err)
		}
	}
	for i, p := range svc.Spec.Ports {
		if p.Mode != modeGateway {
			continue
		}
		if err := r.port(svc, p, r.endpoints[svc.ServiceID]); err != nil {
			r.refuse(svc, Refusal{What: fmt.Sprintf("port %d/%s", p.Published, p.Protocol), Field: fmt.Sprintf("ports[%d]", i), Source: p.Source}, err)
		}
	}
}

func describeRoute(route cluster.Route) string {
	if route.Rule != "" {
		return "route " + route.Rule
	}
	host := route.Host
	if host == "" {
		host = "*"
	}
	return "route " + host + route.Path
}

// route renders one route to endpoints: nothing of it is added unless all of it is sound.
func (r *renderer) route(svc cluster.Service, name string, route cluster.Route, e cluster.Endpoints) error {
	text, rule, err := ruleOf(route)
	if err != nil {
		return err
	}
	if route.Port < 1 || route.Port > 65535 {
		return fmt.Errorf("the container's port %d is not between 1 and 65535", route.Port)
	}
	scheme := cmp.Or(route.Scheme, "http")
	if err := oneOf("http", "https", "h2c")(scheme); err != nil {
		return fmt.Errorf("scheme %w", err)
	}
	entries, err := entriesOf(route)
	if err != nil {
		return err
	}
	mws := make([]map[string]string, len(route.Middlewares))
	for i, m := range route.Middlewares {
		if m.Sealed != "" {
			continue
		}
		pairs, err := checkMiddleware(r.vocabulary("http/middlewares"), m)
		if err != nil {
			return fmt.Errorf("middleware %s: %w", m.Name, err)
		}
		mws[i] = pairs
	}
	priority, err := priorityOf(route, text, rule.class)
	if err != nil {
		return err
	}
	claims := routeClaims(route, text, rule)
	own := Holder{ServiceID: svc.ServiceID, Source: route.Source, Priority: priority}
	for _, entry := range entries {
		for _, c := range claims {
			if err := r.free(entry+" "+c, own, "this host and path"); err != nil {
				return err
			}
		}
	}

	base := objectName(svc.ServiceID) + "-" + name
	ports := portsOf(svc, route.Way(), route.Port)
	service := objectName(svc.ServiceID) + "-" + strconv.Itoa(route.Port)
	if len(ports) > 1 || len(e.Tasks) != len(r.endpoints[svc.ServiceID].Tasks) {
		service += "x" + name // its servers are not those of another route to the port
	}
	if scheme != "http" {
		service += "-" + scheme
	}
	chain := make([]string, 0, len(mws)+1)
	for j, pairs := range mws {
		if id := route.Middlewares[j].Sealed; id != "" {
			chain = append(chain, cluster.UserListName(id)+providerFile)
			continue
		}
		name := base + "-m" + strconv.Itoa(j)
		if err := r.put("http/middlewares", name, pairs); err != nil {
			return err
		}
		chain = append(chain, name)
	}
	chain = append(chain, retryName)
	if err := r.httpService(service, scheme, ports, e); err != nil {
		return err
	}
	if err := r.routers(base, entries, map[string]string{
		"rule": text, "service": service, "priority": strconv.Itoa(priority),
	}, chain); err != nil {
		return err
	}
	for _, entry := range entries {
		for _, c := range claims {
			r.claims[entry+" "+c] = append(r.claims[entry+" "+c], own)
		}
	}
	return nil
}

// routers adds one router for the entry points without TLS and one for those with it.
func (r *renderer) routers(base string, entries []string, pairs map[string]string, chain []string) error {
	for i, m := range chain {
		pairs["middlewares/"+strconv.Itoa(i)] = m
	}
	for _, secure := range []bool{false, true} {
		name, own := base, maps.Clone(pairs)
		if secure {
			name += "-tls"
			own["tls"] = "true"
		}
		n := 0
		for _, e := range entries {
			if (e == entrySecure) == secure {
				own["entryPoints/"+strconv.Itoa(n)] = e
				n++
			}
		}
		if n == 0 {
			continue
		}
		if err := r.put("http/routers", name, own); err != nil {
			return err
		}
	}
	return nil
}

func (r *renderer) httpService(name, scheme string, ports map[string]int, e cluster.Endpoints) error {
	pairs := map[string]string{
		"loadBalancer/passHostHeader":   "true",
		"loadBalancer/serversTransport": transport,
	}
	if scheme == "https" {
		pairs["loadBalancer/serversTransport"] = transportTLS
	}
	for index, hostPort := range serversOf(e, ports) {
		pairs["loadBalancer/servers/"+index+"/url"] = scheme + "://" + hostPort
	}
	return r.put("http/services", name, pairs)
}

// port renders a TCP or UDP port published on the gateways, to endpoints.
func (r *renderer) port(svc cluster.Service, p cluster.PublishedPort, e cluster.Endpoints) error {
	proto := cmp.Or(p.Protocol, "tcp")
	if proto != "tcp" && proto != "udp" {
		return fmt.Errorf("the protocol %q is neither tcp nor udp", p.Protocol)
	}
	if p.Published < 1 || p.Published > 65535 || p.Target < 1 || p.Target > 65535 {
		return fmt.Errorf("the ports %d:%d are not between 1 and 65535", p.Published, p.Target)
	}
	if name, taken := r.reserved[p.Published]; taken && proto == "tcp" {
		return fmt.Errorf("port %d is the gateways' entry point %s: declare a route, or publish another port", p.Published, name)
	}
	if p.Published == namesPort {
		return fmt.Errorf("port %d of every node is where containers ask for names: publish another port", p.Published)
	}
	entry := p.EntryPoint()
	own := Holder{ServiceID: svc.ServiceID, Source: p.Source}
	if err := r.free(entry, own, "this port"); err != nil {
		return err
	}
	r.claims[entry] = append(r.claims[entry], own)
	name := objectName(svc.ServiceID) + "-" + entry
	pairs := map[string]string{}
	for index, hostPort := range serversOf(e, portsOf(svc, entry, p.Target)) {
		pairs["loadBalancer/servers/"+index+"/address"] = hostPort
	}
	router := map[string]string{"entryPoints/0": entry, "service": name}
	if proto == "tcp" {
		pairs["loadBalancer/serversTransport"] = transport
		router["rule"] = "HostSNI(`*`)"
	} else if len(pairs) == 0 {
		// Traefik has no way to write a UDP service without servers; without its
		// router the entry point answers nobody, which is the same.
		return nil
	}
	if err := r.put(proto+"/services", name, pairs); err != nil {
		return err
	}
	return r.put(proto+"/routers", name, router)
}

// portsOf are the ports that a route or published port leads to: of tasks of some
// versions, and with "" of all others.
func portsOf(svc cluster.Service, way string, port int) map[string]int {
	out := map[string]int{"": port}
	for v, ways := range svc.Before {
		if p, moved := ways[way]; moved && v != "" && p > 0 && p <= 65535 {
			out[v] = p
		}
	}
	return out
}

// serversOf returns host:port of each endpoint that has an address, by a number
// that stays the endpoint's own: a list whose elements moved up when one goes
// would rewrite all of them.
func serversOf(e cluster.Endpoints, ports map[string]int) map[string]string {
	out := make(map[string]string, len(e.Tasks))
	for _, t := range e.Tasks {
		host := t.Host
		for _, n := range e.Networks {
			host = cmp.Or(host, t.Addresses[n])
		}
		// A task of an earlier version may be on none of the networks of this one.
		for _, n := range slices.Sorted(maps.Keys(t.Addresses)) {
			host = cmp.Or(host, t.Addresses[n])
		}
		a, err := netip.ParseAddr(host)
		if err != nil || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
			continue
		}
		port, own := ports[t.Version]
		if !own {
			port = ports[""]
		}
		out[new(big.Int).SetBytes(a.AsSlice()).String()] = net.JoinHostPort(a.String(), strconv.Itoa(port))
	}
	return out
}

var plainNameRE = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]*$`)

// objectName is the first part of the names of a service's objects. An app's
// name holds no underscore, so two services never share it. Traefik reads names
// without regard to case: one with capitals is told apart by a hash.
func objectName(id cluster.ServiceID) string {
	name := string(id.Name)
	if !plainNameRE.MatchString(name) || strings.Contains(name, "_x") {
		h := fnv.New64a()
		_, _ = h.Write([]byte(name))
		name = strings.ToLower(name) + "_x" + strconv.FormatUint(h.Sum64(), 16)
	}
	return string(id.App) + "_" + name
}

// entriesOf returns the entry points of a route, sorted.
func entriesOf(route cluster.Route) ([]string, error) {
	if route.Internal {
		return []string{entryInternal}, nil
	}
	if len(route.EntryPoints) == 0 {
		if route.TLS {
			return []string{entryWeb, entrySecure}, nil
		}
		return []string{entryWeb}, nil
	}
	out := slices.Clone(route.EntryPoints)
	for _, e := range out {
		if e != entryWeb && e != entrySecure {
			return nil, fmt.Errorf("there is no entry point %q: there are web and websecure, and internal: true for inside", e)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// ruleOf returns the rule of a route, and what it says.
func ruleOf(route cluster.Route) (string, parsed, error) {
	text := route.Rule
	if text == "" {
		var err error
		if text, err = plainRule(route.Host, route.Path); err != nil {
			return "", parsed{}, err
		}
	}
	rule, err := parseRule(text)
	return text, rule, err
}

// plainRule writes the rule for a host and a path prefix. The prefix ends at a
// slash: /api serves /api and /api/v1, not /apiary.
func plainRule(host, prefix string) (string, error) {
	var parts []string
	if host != "" {
		name, wildcard := strings.CutPrefix(strings.TrimSuffix(strings.ToLower(host), "."), "*.")
		if _, err := netip.ParseAddr(name); (err != nil || wildcard) && !cluster.ValidHost(name) {
			return "", fmt.Errorf("the host %q is not a host name such as shop.example.com", host)
		}
		if wildcard {
			parts = append(parts, "HostRegexp(`^[^.]+\\."+regexp.QuoteMeta(name)+"$`)")
		} else {
			parts = append(parts, "Host(`"+name+"`)")
		}
	}
	if p := strings.TrimRight(prefix, "/"); p != "" {
		if !strings.HasPrefix(p, "/") || strings.ContainsAny(p, "`?#") || len(p) > 1024 || plainText(p) != nil {
			return "", fmt.Errorf("the path %q is not a path such as /api", prefix)
		}
		parts = append(parts, "(Path(`"+p+"`) || PathPrefix(`"+p+"/`))")
	}
	if len(parts) == 0 {
		return "PathPrefix(`/`)", nil
	}
	return strings.Join(parts, " && "), nil
}

// priorityOf is the priority that Traefik gets. Within a class it is the user's
// number, else the length of the rule as in Traefik, counted for a plain route as
// if it were written the short way, so that plain routes and rules of labels
// compare.
func priorityOf(route cluster.Route, text string, class int) (int, error) {
	n := len(text)
	switch {
	case route.Priority < -cluster.MaxPriority || route.Priority > cluster.MaxPriority:
		return 0, fmt.Errorf("the priority %d is not between %d and %d", route.Priority, -cluster.MaxPriority, cluster.MaxPriority)
	case route.Priority != 0:
		n = route.Priority
	case route.Rule == "":
		n = len("Host(``)") + len(strings.TrimSuffix(route.Host, "."))
		if p := strings.TrimRight(route.Path, "/"); p != "" {
			n += len(" && PathPrefix(``)") + len(p)
		}
	}
	return class*classPriority + middlePriority + n, nil
}
