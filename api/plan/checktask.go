package plan

import (
	"fmt"
	"maps"
	"net"
	"path"
	"regexp"
	"slices"
	"strings"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

var imageRE = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._/:@+-]*$`)

func (c *checker) checkTask(t cluster.TaskSpec) {
	switch {
	case t.Image == "":
		c.bad("task.image", "%s has no image", c.service)
	case len(t.Image) > 512 || !imageRE.MatchString(t.Image):
		c.bad("task.image", "image %q is no image reference (registry/name:tag)", short(t.Image))
	}
	c.oneOf("task.pull_policy", t.PullPolicy, "", "missing", "always", "never")
	c.oneOf("task.network_mode", t.NetworkMode, "", "none", "host")
	for _, k := range slices.Sorted(maps.Keys(t.Env)) {
		if k == "" || strings.ContainsAny(k, "=\x00") || strings.ContainsRune(t.Env[k], 0) {
			c.bad("task.env", "environment variable %q: a name has no =, and neither name nor value a NUL", short(k))
		}
	}
	if t.StopGrace < 0 || t.ShmSize < 0 {
		c.bad("task", "stop_grace and shm_size cannot be negative")
	}
	for i, n := range t.Networks {
		c.badErr(fmt.Sprintf("task.networks[%d]", i), cluster.ValidName("network", string(n.Name)))
	}
	c.checkHealth(t.Health)
	c.checkMounts(t)
	c.checkPayload(t)
	for _, name := range slices.Sorted(maps.Keys(t.SecretEnv)) {
		n := t.SecretEnv[name]
		if name == "" || strings.ContainsAny(name, "=\x00") {
			c.bad("task.secret_env", "secret_env %q is no name of an environment variable", short(name))
		}
		if !slices.ContainsFunc(t.Secrets, func(f cluster.FileRef) bool { return f.Name == n }) {
			c.bad("task.secret_env."+name, "secret_env %s takes the secret %s, which is not among the service's secrets", name, n)
		}
	}
	for _, p := range t.Expose {
		if p < 1 || p > 65535 {
			c.bad("task.expose", "port %d: use 1 to 65535", p)
		}
	}
}

func (c *checker) checkHealth(h *cluster.Health) {
	if h == nil {
		return
	}
	n := 0
	for _, set := range []bool{len(h.Test) > 0, h.HTTPPath != "" || h.HTTPPort != 0, h.TCPPort != 0} {
		if set {
			n++
		}
	}
	// None of them: the image's own check, with other times.
	if n > 1 {
		c.bad("task.health", "a health check is one of a test, an HTTP path with a port, and a TCP port, not several")
	}
	if h.HTTPPath != "" && (h.HTTPPort < 1 || h.HTTPPort > 65535) {
		c.bad("task.health.http_port", "an HTTP health check needs a port from 1 to 65535")
	}
	if h.Interval < 0 || h.Timeout < 0 || h.Retries < 0 || h.StartPeriod < 0 || h.StartInterval < 0 {
		c.bad("task.health", "times and retries of a health check cannot be negative")
	}
}

// checkPayload refuses what would never reach a node: secrets and configs travel
// together, encrypted, through the store.
func (c *checker) checkPayload(t cluster.TaskSpec) {
	size := 0
	seen := map[string]bool{}
	add := func(kind, name string, content []byte) {
		if k := kind + name; !seen[k] {
			seen[k] = true
			size += len(name) + len(content)
		}
	}
	for _, f := range t.Configs {
		add("config/", f.Name, c.in.Bundle.Configs[f.Name])
	}
	for _, f := range t.Secrets {
		add("secret/", f.Name, c.in.Bundle.Secrets[f.Name].Value)
	}
	if size > cluster.MaxPayload {
		c.bad("task.configs", "the configs and secrets of %s are %d bytes together: at most %d reach a task; put large files into the image or a volume", c.service, size, cluster.MaxPayload)
	}
}

// checkMounts checks everything that appears at a path in the container.
func (c *checker) checkMounts(t cluster.TaskSpec) {
	at := map[string]bool{}
	target := func(field, p string) {
		switch {
		case !path.IsAbs(p) || strings.ContainsRune(p, 0):
			c.bad(field, "%q: the path in the container must be absolute", short(p))
		case path.Clean(p) == "/":
			c.bad(field, "nothing can be mounted at /")
		case at[path.Clean(p)]:
			c.bad(field, "two things are mounted at %s", p)
		}
		at[path.Clean(p)] = true
	}
	for i, m := range t.Mounts {
		field := fmt.Sprintf("task.mounts[%d]", i)
		c.oneOf(field+".type", m.Type, cluster.MountVolume, cluster.MountVolume, cluster.MountBind, cluster.MountTmpfs)
		if m.Type == cluster.MountVolume && m.Source != "" {
			c.badErr(field, cluster.ValidName("volume", m.Source))
		}
		if m.Type == cluster.MountBind && !path.IsAbs(m.Source) {
			c.bad(field, "bind mount of %q: an absolute path on the node is needed", short(m.Source))
		}
		target(field, m.Target)
	}
	for i, f := range t.Secrets {
		field := fmt.Sprintf("task.secrets[%d]", i)
		if _, declared := c.in.Bundle.Secrets[f.Name]; !declared {
			c.bad(field, "%s uses the secret %s, which the file does not declare", c.service, short(f.Name))
		}
		target(field, f.Target)
	}
	for i, f := range t.Configs {
		field := fmt.Sprintf("task.configs[%d]", i)
		_, given := c.in.Bundle.Configs[f.Name]
		if !given && (f.Version == "" || !c.state.Configs[f.Name+"@"+f.Version]) {
			c.bad(field, "%s uses the config %s, which the file does not declare", c.service, short(f.Name))
		}
		target(field, f.Target)
	}
}

var pathRE = regexp.MustCompile("^/[^\\s`\"\\\\?#\\x00-\\x1f\\x7f]*$")

func (c *checker) checkRoutes(routes []cluster.Route) {
	for i, r := range routes {
		field := fmt.Sprintf("routes[%d]", i)
		if r.Port < 1 || r.Port > 65535 {
			c.badAt(r.Source, field+".port", "route to port %d: name the container's port, 1 to 65535", r.Port)
		}
		if r.Rule != "" {
			if r.Host != "" || r.Path != "" {
				c.badAt(r.Source, field, "a route is a rule, or a host and a path")
			}
			if len(r.Rule) > 4096 || strings.ContainsAny(r.Rule, "\x00\n\r") {
				c.badAt(r.Source, field+".rule", "the rule is too long or holds a line break")
			}
		}
		if r.Host != "" && !cluster.ValidHost(strings.TrimSuffix(r.Host, ".")) {
			c.badAt(r.Source, field+".host", "route host %q: write a host name such as shop.example.com, without scheme, port or wildcard", short(r.Host))
		}
		if r.Path != "" && (len(r.Path) > 2048 || !pathRE.MatchString(r.Path)) {
			c.badAt(r.Source, field+".path", "route path %q: it starts with / and holds no space, quote, ? or #", short(r.Path))
		}
		for _, m := range r.Middlewares {
			c.checkUsers(field, r.Source, m)
		}
		c.oneOf(field+".scheme", r.Scheme, "", "http", "https", "h2c")
		for _, e := range r.EntryPoints {
			c.oneOf(field+".entry_points", e, "", "web", "websecure")
		}
	}
}

// checkUsers refuses a middleware that asks for a user where its list is wrong,
// or not sealed by now: in clear it must not reach the store.
func (c *checker) checkUsers(field string, src cluster.Source, m cluster.Middleware) {
	if m.Sealed != "" {
		if !c.state.Users[m.Sealed] || len(m.Options) > 0 {
			c.badAt(src, field, "middleware %s: there is no user list %q in app %s: write its users", short(m.Name), short(m.Sealed), c.in.App)
		}
		return
	}
	_, is, err := cluster.AuthOf(m)
	if is && err == nil {
		err = cluster.Invalidf("its users are not sealed")
	}
	if err != nil {
		c.badAt(src, field, "middleware %s: %s", short(m.Name), err)
	}
}

func (c *checker) checkPorts(field string, ports []cluster.PublishedPort) {
	for i, p := range ports {
		f := fmt.Sprintf("%s[%d]", field, i)
		if p.Target < 1 || p.Target > 65535 || p.Published < 0 || p.Published > 65535 || (p.Published == 0 && p.Mode != "node") {
			c.badAt(p.Source, f, "port %d:%d: use 1 to 65535", p.Published, p.Target)
		}
		if !slices.Contains([]string{"tcp", "udp"}, p.Protocol) {
			c.badAt(p.Source, f, "protocol %q: use tcp or udp", p.Protocol)
		}
		if !slices.Contains([]string{"gateway", "node"}, p.Mode) {
			c.badAt(p.Source, f, "port mode %q: use gateway or node", p.Mode)
		}
		if p.HostIP != "" && (p.Mode != "node" || net.ParseIP(p.HostIP) == nil) {
			c.badAt(p.Source, f, "host address %q: an IP, for a port on the task's own node", short(p.HostIP))
		}
	}
}

// short keeps hostile input from filling a terminal.
func short(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// References makes the declarations that the services' own references imply, for
// releases that are made again from stored specs.
func References(services map[cluster.ServiceName]cluster.ServiceSpec, hooks []cluster.Hook) map[string]v1.SecretDecl {
	out := map[string]v1.SecretDecl{}
	add := func(s cluster.ServiceSpec) {
		for _, f := range s.Task.Secrets {
			out[f.Name] = v1.SecretDecl{External: true}
		}
	}
	for _, s := range services {
		add(s)
	}
	for _, h := range hooks {
		add(h.Spec)
	}
	return out
}
