package compose

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/proxyconf"
)

// portAt finds the item of ports: that brought a port.
func (c *converter) portAt(name string, p types.ServicePortConfig) cluster.Source {
	long := map[string]string{
		"target": strconv.Itoa(int(p.Target)), "published": p.Published, "host_ip": p.HostIP,
		"protocol": cmp.Or(p.Protocol, "tcp"), "mode": cmp.Or(p.Mode, "ingress"),
	}
	_, at := c.idx.item(func(n *node) bool {
		if n.kind == mapNode {
			for key, want := range long {
				have := map[string]string{"protocol": "tcp", "mode": "ingress"}[key]
				if v := n.get(key); v != nil && v.value != "" {
					have = v.value
				}
				if have != want {
					return false
				}
			}
			return true
		}
		list, err := parsePort(n.value)
		return err == nil && slices.ContainsFunc(list, func(x types.ServicePortConfig) bool {
			return x.Target == p.Target && x.Published == p.Published && x.Protocol == p.Protocol && x.HostIP == p.HostIP
		})
	}, "services", name, "ports")
	return at
}

// portsTwice refuses a port that one list gives in two modes: compose-go keeps the last
// of them and says nothing. A file that changes another's is what files are merged for.
func (c *converter) portsTwice(name string) {
	path := []string{"services", name, "ports"}
	type given struct {
		mode string
		line int
	}
	seen := map[string]given{}
	for _, it := range c.idx.items(func(*doc, *node) bool { return false }, path...) {
		for _, p := range portsOf(it.n) {
			mode := cmp.Or(p.Mode, "ingress")
			key := fmt.Sprint(it.d.abs, " ", cmp.Or(p.HostIP, "0.0.0.0"), " ", p.Published, " ", p.Target, " ", cmp.Or(p.Protocol, "tcp"))
			if first, ok := seen[key]; ok && first.mode != mode {
				c.refuse(cluster.Source{File: it.d.file, Line: it.n.line}, dotted(path...),
					fmt.Sprintf("port %s is given in line %d already, with mode %s", p.Published, first.line, first.mode), "keep one of them")
			}
			seen[key] = given{mode, it.n.line}
		}
	}
}

// portsOf are the ports of one item as written, short or long.
func portsOf(n *node) []types.ServicePortConfig {
	if n.kind != mapNode {
		list, _ := parsePort(n.value) // one that is wrong is refused by itself
		return list
	}
	text := func(key string) string {
		if v := n.get(key); v != nil {
			return v.value
		}
		return ""
	}
	target, _ := strconv.ParseUint(text("target"), 10, 32)
	return []types.ServicePortConfig{{
		Target: uint32(target), Published: text("published"), HostIP: text("host_ip"), Protocol: text("protocol"), Mode: text("mode"),
	}}
}

func parsePort(s string) (list []types.ServicePortConfig, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	return types.ParsePortConfig(s)
}

// expose reads expose: and ports:.
func (c *converter) expose(name string, s types.ServiceConfig, spec *cluster.ServiceSpec) {
	exposed := map[int]bool{}
	for _, e := range s.Expose {
		first, last, fine := portRange(e)
		if !fine {
			_, at := c.idx.item(func(n *node) bool { return n.value == e }, "services", name, "expose")
			c.refuse(at, dotted("services", name, "expose"), quote(e)+" is not a port, or a range of at most 100", "write numbers from 1 to 65535")
			continue
		}
		if strings.HasSuffix(e, "/udp") {
			continue // reachable as all ports are, and never what a route leads to
		}
		for p := first; p <= last; p++ {
			exposed[p] = true
		}
	}
	c.portsTwice(name)
	for _, p := range s.Ports {
		if p.Target > 0 && p.Target <= 65535 && p.Protocol != "udp" {
			exposed[int(p.Target)] = true
		}
		c.port(name, p, spec)
	}
	for p := range exposed {
		spec.Task.Expose = append(spec.Task.Expose, p)
	}
	slices.Sort(spec.Task.Expose)
}

// portRange reads "80", "80/tcp" or "80-90".
func portRange(s string) (first, last int, ok bool) {
	s, proto, _ := strings.Cut(s, "/")
	if proto != "" && proto != "tcp" && proto != "udp" {
		return 0, 0, false
	}
	from, to, ranged := strings.Cut(s, "-")
	if !ranged {
		to = from
	}
	first, err1 := strconv.Atoi(from)
	last, err2 := strconv.Atoi(to)
	return first, last, err1 == nil && err2 == nil && first > 0 && first <= last && last <= 65535 && last-first < maxPortRange
}

func (c *converter) port(name string, p types.ServicePortConfig, spec *cluster.ServiceSpec) {
	at, where := c.portAt(name, p), dotted("services", name, "ports")
	address := "" // as far as nobody wants it more public than it is written
	if p.HostIP != "" {
		address = p.HostIP + ":"
		if strings.Contains(p.HostIP, ":") {
			address = "[" + p.HostIP + "]:"
		}
	}
	switch {
	case spec.Task.NetworkMode == "host":
		c.warn(at, where, "ignored: with network_mode host the program's own ports are the node's", "")
		return
	case spec.Task.NetworkMode == "none":
		c.refuse(at, where, "network_mode none has no ports", "")
		return
	case p.Target < 1 || p.Target > 65535:
		c.refuse(at, where, "there is no target port from 1 to 65535", "")
		return
	case p.Protocol != "" && p.Protocol != "tcp" && p.Protocol != "udp":
		c.refuse(at, where, "the protocol "+quote(p.Protocol)+" is not supported", "write tcp or udp")
		return
	case p.Published == "" || p.Published == "0":
		c.warn(at, where, fmt.Sprintf("no fixed port is given: %d is reachable from inside only", p.Target), fmt.Sprintf("write \"%s%d:%d\" to publish it, or expose: to say so", address, p.Target, p.Target))
		return
	}
	published, last, fine := portRange(p.Published)
	if !fine || published != last {
		c.refuse(at, where, quote(p.Published)+" is not one port from 1 to 65535", "name one port for each target")
		return
	}
	out := cluster.PublishedPort{Published: published, Target: int(p.Target), Protocol: p.Protocol, Mode: "gateway", Source: at}
	if out.Protocol == "" {
		out.Protocol = "tcp"
	}
	if p.HostIP != "" {
		ip, err := netip.ParseAddr(strings.Trim(p.HostIP, "[]"))
		if err != nil {
			c.refuse(at, where, quote(p.HostIP)+" is not an IP address", "")
			return
		}
		if !ip.IsUnspecified() {
			out.Mode, out.HostIP = "node", ip.String()
			if !ip.IsLoopback() && !c.o.SingleNode {
				c.warn(at, where, "only the node that has the address "+out.HostIP+" can run this", "restrict it with deploy.placement.constraints")
			}
		}
	}
	switch p.Mode {
	case "", "ingress":
	case "host":
		out.Mode = "node"
	default:
		c.refuse(at, where, quote(p.Mode)+" is not a mode", "write ingress or host")
		return
	}
	c.publish(name, out, spec)
}

// publish makes a route of the gateways' HTTP ports, and a published port of others.
func (c *converter) publish(name string, p cluster.PublishedPort, spec *cluster.ServiceSpec) {
	where := dotted("services", name, "ports")
	web := p.Protocol == "tcp" && (p.Published == c.o.HTTPPort || p.Published == c.o.HTTPSPort)
	if p.Mode == "node" {
		if web && c.o.SingleNode {
			c.refuse(p.Source, where, fmt.Sprintf("port %d of this node is the gateway's", p.Published), "leave out mode: host and the address: the gateway routes the port to the service")
			return
		}
		spec.Ports = append(spec.Ports, p)
		p.Source = cluster.Source{} // a task must not be replaced because its line moved
		spec.Task.NodePorts = append(spec.Task.NodePorts, p)
		return
	}
	if !web {
		spec.Ports = append(spec.Ports, p)
		return
	}
	r := cluster.Route{Port: p.Target, Source: p.Source, EntryPoints: []string{"web"}}
	if p.Published == c.o.HTTPSPort {
		r.EntryPoints, r.TLS = []string{"websecure"}, true
		if p.Target == 443 {
			r.Scheme = "https"
			c.warn(p.Source, where, "the gateway ends TLS, and speaks HTTPS to the service, whose certificate it does not check", "better publish the service's plain HTTP port")
		}
	}
	c.addRoute(name, where, r, spec)
}

// collisions refuses two services of the file that want one port or route.
func (c *converter) collisions(names []string) {
	type claim struct {
		service string
		at      cluster.Source
	}
	ports := map[string]map[string]claim{}
	for _, n := range names {
		s := c.res.Services[cluster.ServiceName(n)]
		for _, p := range s.Ports {
			if p.Mode == "node" && !c.o.SingleNode {
				continue // another node may have it free: the scheduler knows
			}
			key := fmt.Sprintf("%d/%s", p.Published, p.Protocol)
			for _, ip := range slices.Sorted(maps.Keys(ports[key])) {
				if first := ports[key][ip]; ip == "" || p.HostIP == "" || ip == p.HostIP { // "" is every address
					c.refuse(p.Source, dotted("services", n, "ports"), fmt.Sprintf("port %s is taken by %s (%s:%d)", key, first.service, first.at.File, first.at.Line), "publish another port")
					break
				}
			}
			if ports[key] == nil {
				ports[key] = map[string]claim{}
			}
			ports[key][p.HostIP] = claim{n, p.Source}
		}
	}
	c.routesRefused(names)
}

// routesRefused refuses the routes that gateways would, those that another of the
// file has among them.
func (c *converter) routesRefused(names []string) {
	var services []cluster.Service
	for _, n := range names {
		svc := cluster.Service{ServiceID: cluster.ServiceID{App: c.app, Name: cluster.ServiceName(n)}}
		for _, r := range c.res.Services[svc.Name].Routes {
			// Users reach gateways by another way.
			r.Middlewares = slices.DeleteFunc(slices.Clone(r.Middlewares), func(m cluster.Middleware) bool {
				_, is, _ := cluster.AuthOf(m)
				return is
			})
			svc.Spec.Routes = append(svc.Spec.Routes, r)
		}
		services = append(services, svc)
	}
	for _, o := range proxyconf.OutrankedOf(services) {
		at := o.Route.Source
		c.warn(at, c.origin[claimed{string(o.Service.Name), at}], fmt.Sprintf(
			"the priority %d does not put this router before that of %s (%s:%d)", o.Route.Priority, o.By.Name, o.Winner.Source.File, o.Winner.Source.Line),
			"a rule with Host goes before one with HostRegexp, that before one without a host, whatever their priorities: give this one a host")
	}
	refused := proxyconf.Check(nil, services, nil)
	for _, svc := range services {
		for _, r := range refused[svc.ServiceID] {
			where := c.origin[claimed{string(svc.Name), r.Source}]
			t := r.Taken
			if t == nil {
				c.refuse(r.Source, where, r.Reason, "")
				continue
			}
			advice := "choose another host or path"
			if strings.Contains(where, ".traefik.") {
				advice = "choose another host or path, or give one of them a priority"
			}
			c.refuse(r.Source, where, fmt.Sprintf("the %s is taken by %s (%s:%d)", r.What, t.Name, t.Source.File, t.Source.Line), advice)
		}
	}
}
