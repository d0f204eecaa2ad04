package plan

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/proxyconf"
)

// checker gathers all that is wrong with an input.
type checker struct {
	state    State
	in       Input
	wrong    v1.Invalid
	warnings []v1.Detail

	service cluster.ServiceName // the one being checked
	source  cluster.Source
}

const (
	maxServices = 500
	maxGenerate = 4096
)

func (c *checker) check() error {
	if err := cluster.ValidAppName(c.in.App); err != nil {
		c.bad("app", "%s", err)
	}
	b := c.in.Bundle
	switch n := len(b.Services); {
	case n == 0:
		c.bad("services", "there is no service in it; to remove the app, use `fairlead rm %s`", c.in.App)
	case n > maxServices:
		c.bad("services", "%d services: at most %d", n, maxServices)
	}
	if e := b.Expect; e != nil {
		now := 0
		if c.state.App != nil {
			now = c.state.App.Release
		}
		if now != *e {
			return cluster.Conflictf("app %s is at release %d, not %d: someone else changed it; look at `fairlead history %s`", c.in.App, now, *e, c.in.App)
		}
	}
	c.checkFiles(b)
	for _, name := range slices.Sorted(maps.Keys(b.Services)) {
		c.service, c.source = name, b.Services[name].Source
		c.checkService(b.Services[name])
	}
	c.checkHooks(b)
	c.service, c.source = "", cluster.Source{}
	c.checkCycles(b)
	c.checkClaims(b)
	c.checkNodePorts()
	for _, name := range c.in.Restart {
		if _, ok := b.Services[name]; !ok {
			return cluster.NotFoundf("app %s has no service %q; it has %s", c.in.App, name, names(b.Services))
		}
	}
	if len(c.wrong) > 0 {
		return c.wrong
	}
	return nil
}

// checkHooks checks each hook as what it becomes: a task.
func (c *checker) checkHooks(b v1.Bundle) {
	seen := map[cluster.ServiceName]bool{}
	for _, h := range b.Hooks {
		c.service, c.source = h.Service, h.Spec.Source
		c.badErr("", cluster.ValidServiceName(h.Service))
		_, now := c.state.Services[h.Service]
		_, next := b.Services[h.Service]
		switch {
		case seen[h.Service], next:
			c.bad("", "%s is there twice: a hook has a name of its own", h.Service)
		case now:
			c.bad("", "the hook %s has the name of a service that the app has now, and would run beside it: name it otherwise", h.Service)
		}
		seen[h.Service] = true
		for _, e := range h.Events {
			if !slices.Contains(cluster.HookEvents(), e) {
				c.bad("hook.on", "%q is no point of a change", short(string(e)))
			}
		}
		for _, p := range h.Delete {
			if !slices.Contains(cluster.HookPolicies(), p) {
				c.bad("hook.delete", "%q is no policy", short(string(p)))
			}
		}
		if len(h.Events) == 0 || len(h.Spec.Routes) > 0 || len(h.Spec.Ports) > 0 || len(h.Spec.DependsOn) > 0 || h.Spec.Mode == cluster.Global || h.Spec.Autoscale != nil {
			c.bad("hook", "a hook runs at some point of a change, once, as one task that nothing reaches from outside")
		}
		c.oneOf("restart.condition", h.Spec.Restart.Condition, "none", "none", "on-failure")
		c.checkTask(h.Spec.Task)
		c.checkFit(h.Spec)
	}
	if b.Timeout < 0 {
		c.service = ""
		c.bad("timeout", "a timeout of %s: give a time such as 5m", b.Timeout)
	}
}

func names(services map[cluster.ServiceName]cluster.ServiceSpec) string {
	var words []string
	for _, n := range slices.Sorted(maps.Keys(services)) {
		words = append(words, string(n))
	}
	return strings.Join(words, ", ")
}

// bad notes what is wrong with a field of the current service, or of the bundle.
func (c *checker) bad(field, format string, args ...any) { c.badAt(c.source, field, format, args...) }

func (c *checker) badAt(src cluster.Source, field, format string, args ...any) {
	if c.service != "" {
		field = strings.TrimSuffix("services."+string(c.service)+"."+field, ".")
	}
	if src.File == "" {
		src = c.source
	}
	c.wrong = append(c.wrong, v1.Detail{Message: fmt.Sprintf(format, args...), Field: field, File: src.File, Line: src.Line})
}

func (c *checker) badErr(field string, err error) {
	if err != nil {
		c.bad(field, "%s", err)
	}
}

func (c *checker) checkFiles(b v1.Bundle) {
	for _, name := range slices.Sorted(maps.Keys(b.Configs)) {
		c.badErr("configs", cluster.ValidName("config", name))
		if n := len(b.Configs[name]); n > v1.MaxConfig {
			c.bad("configs."+name, "config %s is %d bytes: at most %d", name, n, v1.MaxConfig)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b.Secrets)) {
		d := b.Secrets[name]
		if err := cluster.ValidName("secret", name); err != nil {
			c.badAt(d.Source, "secrets", "%s", err)
		}
		if len(d.Value) > v1.MaxSecret {
			c.badAt(d.Source, "secrets."+name, "secret %s is %d bytes: at most %d", name, len(d.Value), v1.MaxSecret)
		}
		if d.Generate < 0 || d.Generate > maxGenerate {
			c.badAt(d.Source, "secrets."+name, "generate %d: use 1 to %d characters", d.Generate, maxGenerate)
		}
		if len(d.Value) > 0 && (d.Generate > 0 || d.External) {
			c.badAt(d.Source, "secrets."+name, "secret %s has a value and is also external or generated: choose one", name)
		}
		if d.Vault != "" {
			if len(d.Value) > 0 || d.Generate > 0 {
				c.badAt(d.Source, "secrets."+name, "secret %s is in Vault and also has a value or is generated: choose one", name)
			} else if why := c.state.Unreadable[name]; why != "" {
				c.badAt(d.Source, "secrets."+name, "%s", why)
			}
		}
	}
}

func (c *checker) checkService(s cluster.ServiceSpec) {
	c.badErr("", cluster.ValidServiceName(c.service))
	switch s.Mode {
	case "", cluster.Replicated, cluster.Global:
	default:
		c.bad("mode", "mode %q: use replicated or global", s.Mode)
	}
	if s.Replicas < 0 || s.Replicas > maxReplicas {
		c.bad("replicas", "replicas %d: use 0 to %d", s.Replicas, maxReplicas)
	}
	c.oneOf("endpoint_mode", s.EndpointMode, "", "vip", "dnsrr")
	c.oneOf("restart.condition", s.Restart.Condition, "", "any", "on-failure", "none")
	c.checkUpdate("update", s.Update)
	c.checkUpdate("rollback", s.Rollback)
	c.checkTask(s.Task)
	c.checkFit(s)
	c.checkAutoscale(s)
	c.checkRoutes(s.Routes)
	c.checkPorts("ports", s.Ports)
	c.checkPorts("task.node_ports", s.Task.NodePorts)
	for i, con := range s.Placement.Constraints {
		if !constraintRE.MatchString(con) {
			c.bad(fmt.Sprintf("placement.constraints[%d]", i), "constraint %q: write node.labels.NAME==VALUE or !=, or node.id, node.hostname, node.role, node.platform.os, node.platform.arch, engine.labels.NAME", con)
		}
	}
	if s.Placement.MaxPerNode < 0 {
		c.bad("placement.max_per_node", "max_per_node %d is negative", s.Placement.MaxPerNode)
	}
	for i, d := range s.DependsOn {
		field := fmt.Sprintf("depends_on[%d]", i)
		if _, ok := c.in.Bundle.Services[d.Service]; !ok && !d.Optional {
			c.bad(field, "%s depends on %s, which is no service of the app", c.service, d.Service)
		}
		c.oneOf(field, d.Condition, "", "service_started", "service_healthy", "service_completed_successfully")
	}
}

var constraintRE = regexp.MustCompile(`^\s*(node\.(id|hostname|role|ip|platform\.(os|arch)|labels\.[^\s=!]+)|engine\.labels\.[^\s=!]+)\s*(==|!=)\s*\S.*$`)

func (c *checker) oneOf(field, got string, allowed ...string) {
	if !slices.Contains(allowed, got) {
		c.bad(field, "%q: use %s", got, strings.Join(allowed[1:], ", "))
	}
}

func (c *checker) checkUpdate(field string, u cluster.UpdatePolicy) {
	if u.Parallelism < 0 || u.Delay < 0 || u.Monitor < 0 {
		c.bad(field, "parallelism, delay and monitor cannot be negative")
	}
	if u.MaxFailureRatio < 0 || u.MaxFailureRatio > 1 {
		c.bad(field+".max_failure_ratio", "max_failure_ratio %v: use 0 to 1", u.MaxFailureRatio)
	}
	c.oneOf(field+".failure_action", u.FailureAction, "", "rollback", "pause", "continue")
	c.oneOf(field+".order", u.Order, "", "start-first", "stop-first")
}

// checkFit refuses what no node could ever run.
func (c *checker) checkFit(s cluster.ServiceSpec) {
	r := s.Task.Resources
	if r.ReserveCPU < 0 || r.ReserveMemory < 0 || r.LimitCPU < 0 || r.LimitMemory < 0 {
		c.bad("task.resources", "resources cannot be negative")
		return
	}
	if r.LimitCPU > 0 && r.ReserveCPU > r.LimitCPU {
		c.bad("task.resources.reserve_cpu", "%s reserves %s CPU but is limited to %s", c.service, cores(r.ReserveCPU), cores(r.LimitCPU))
	}
	if r.LimitMemory > 0 && r.ReserveMemory > r.LimitMemory {
		c.bad("task.resources.reserve_memory", "%s reserves %s of memory but is limited to %s", c.service, mib(r.ReserveMemory), mib(r.LimitMemory))
	}
	if r.LimitMemory > 0 && r.LimitMemory < 6<<20 {
		c.bad("task.resources.limit_memory", "a memory limit of %s: Docker takes 6 MiB at least", mib(r.LimitMemory))
	}
	if len(c.state.Nodes) == 0 {
		return
	}
	var most cluster.NodeInfo
	for _, n := range c.state.Nodes {
		if n.Info.CPU >= r.ReserveCPU && n.Info.Memory >= r.ReserveMemory {
			return
		}
		if n.Info.CPU > most.CPU || (n.Info.CPU == most.CPU && n.Info.Memory > most.Memory) {
			most = n.Info
		}
	}
	c.bad("task.resources", "impossible resources: a task of %s reserves %s CPU and %s of memory, and no node has that much (the largest, %s, has %s CPU and %s); lower deploy.resources.reservations",
		c.service, cores(r.ReserveCPU), mib(r.ReserveMemory), most.ID, cores(most.CPU), mib(most.Memory))
}

func cores(milli int64) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.3f", float64(milli)/1000), "0"), ".")
}

func mib(n int64) string { return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20)) }

func (c *checker) checkAutoscale(s cluster.ServiceSpec) {
	a := s.Autoscale
	if a == nil {
		return
	}
	switch {
	case s.Mode == cluster.Global:
		c.bad("autoscale", "%s runs once on each node (global): it cannot be autoscaled", c.service)
	case a.Min < 1 || a.Max < a.Min || a.Max > maxReplicas:
		c.bad("autoscale", "autoscale between %d and %d: min is at least 1, max at least min and at most %d", a.Min, a.Max, maxReplicas)
	case a.CPUPercent < 0 || a.MemoryPercent < 0 || a.CPUPercent+a.MemoryPercent == 0:
		c.bad("autoscale", "autoscale needs a target: cpu or memory, in percent of the reservation")
	}
	if a.CPUPercent > 0 && s.Task.Resources.ReserveCPU == 0 {
		c.bad("autoscale.cpu_percent", "cpu: %d%% is of the reservation, and %s reserves no CPU: set deploy.resources.reservations.cpus", a.CPUPercent, c.service)
	}
	if a.MemoryPercent > 0 && s.Task.Resources.ReserveMemory == 0 {
		c.bad("autoscale.memory_percent", "memory: %d%% is of the reservation, and %s reserves no memory: set deploy.resources.reservations.memory", a.MemoryPercent, c.service)
	}
}

// checkCycles refuses services that wait for each other.
func (c *checker) checkCycles(b v1.Bundle) {
	const (
		entered = 1
		left    = 2
	)
	mark := map[cluster.ServiceName]int{}
	var visit func(n cluster.ServiceName, way []cluster.ServiceName) error
	visit = func(n cluster.ServiceName, way []cluster.ServiceName) error {
		way = append(way, n)
		if mark[n] == entered {
			words := make([]string, 0, len(way))
			for _, w := range way[slices.Index(way, n):] {
				words = append(words, string(w))
			}
			return errors.New(strings.Join(words, " → "))
		}
		if mark[n] == left {
			return nil
		}
		mark[n] = entered
		for _, d := range b.Services[n].DependsOn {
			if err := visit(d.Service, way); err != nil {
				return err
			}
		}
		mark[n] = left
		return nil
	}
	for _, n := range slices.Sorted(maps.Keys(b.Services)) {
		if err := visit(n, nil); err != nil {
			c.badAt(b.Services[n].Source, "depends_on", "services wait for each other: %s", err)
			return
		}
	}
}

// checkClaims refuses what the gateways would: routes and ports that another
// service has, and what Traefik does not take.
func (c *checker) checkClaims(b v1.Bundle) {
	reserved := map[int]string{c.state.Entry.Web: "web", c.state.Entry.WebSecure: "websecure", c.state.Entry.Internal: "internal"}
	delete(reserved, 0)
	want := make([]cluster.Service, 0, len(b.Services))
	for _, name := range slices.Sorted(maps.Keys(b.Services)) {
		want = append(want, cluster.Service{ServiceID: cluster.ServiceID{App: c.in.App, Name: name}, Spec: b.Services[name]})
	}
	refused := proxyconf.Check(c.state.Others, want, reserved)
	for _, svc := range want {
		what := map[string]string{}
		for _, cl := range claims(svc) {
			what[cl.field] = cl.what
		}
		for _, r := range refused[svc.ServiceID] {
			field := fmt.Sprintf("services.%s.%s", svc.Name, r.Field)
			if c.told(field) {
				continue
			}
			src := orElse(r.Source, svc.Spec.Source)
			switch t := r.Taken; {
			case t != nil:
				c.badAt(src, field, "%s wants %s, which %s already has%s; choose another one, or remove that", svc.ServiceID, what[r.Field], t.ServiceID, place(t.Source))
			case strings.HasPrefix(r.Field, "routes"):
				c.badAt(src, field, "%s: %s", short(r.What), r.Reason)
			default:
				c.badAt(src, field, "%s", r.Reason) // it names the port
			}
		}
	}
}

// told reports whether something is said of a field already, or of a part of it.
func (c *checker) told(field string) bool {
	return slices.ContainsFunc(c.wrong, func(d v1.Detail) bool {
		return d.Field == field || strings.HasPrefix(d.Field, field+".")
	})
}

func orElse(a, b cluster.Source) cluster.Source {
	if a.File != "" {
		return a
	}
	return b
}

func place(s cluster.Source) string {
	if s.File == "" {
		return ""
	}
	return fmt.Sprintf(" (%s:%d)", s.File, s.Line)
}
