package compose

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/distribution/reference"

	"github.com/fairlead/fairlead/cluster"
)

const maxReplicas = 10_000

func directory(d string) bool {
	s, err := os.Stat(d) //nolint:gosec // whether a directory of the user is there; nothing is opened
	return err == nil && s.IsDir()
}

func (c *converter) imageTag(name, tag string) {
	if _, err := reference.ParseNormalizedNamed(tag); err != nil {
		c.no(fmt.Sprintf("%s is not an image reference: %v", quote(tag), err), "", name, "build", "tags")
	}
}

func (c *converter) deploy(name string, s types.ServiceConfig, spec *cluster.ServiceSpec) {
	c.replicas(name, s, spec)
	d := s.Deploy
	if d == nil {
		return
	}
	switch d.Mode {
	case "", "replicated":
	case "global":
		spec.Mode = cluster.Global
		if d.Replicas != nil || s.Scale != nil {
			c.no("a global service has one task on each node", "leave replicas out", name, "deploy", "replicas")
		}
		spec.Replicas = 0
	case "replicated-job", "global-job":
		c.no("jobs come later", "until then a service with restart: \"no\" runs once", name, "deploy", "mode")
	default:
		c.no(quote(d.Mode)+" is not a mode", "write replicated or global", name, "deploy", "mode")
	}
	switch d.EndpointMode {
	case "", "vip":
	case "dnsrr":
		spec.EndpointMode = "dnsrr"
	default:
		c.no(quote(d.EndpointMode)+" is not an endpoint mode", "write vip or dnsrr", name, "deploy", "endpoint_mode")
	}
	c.placement(name, d.Placement, spec)
	c.restartPolicy(name, d.RestartPolicy, spec)
	spec.Update = c.update(name, "update_config", d.UpdateConfig)
	spec.Rollback = c.update(name, "rollback_config", d.RollbackConfig)
}

func (c *converter) replicas(name string, s types.ServiceConfig, spec *cluster.ServiceSpec) {
	spec.Replicas = 1
	path := []string{"scale"}
	if s.Deploy != nil && s.Deploy.Replicas != nil {
		spec.Replicas, path = *s.Deploy.Replicas, []string{"deploy", "replicas"}
		if s.Scale != nil && *s.Scale != spec.Replicas {
			c.no("differs from deploy.replicas", "keep one of them", name, "scale")
		}
	} else if s.Scale != nil {
		spec.Replicas = *s.Scale
	}
	if spec.Replicas < 0 || spec.Replicas > maxReplicas {
		c.no(fmt.Sprintf("%d replicas: must be from 0 to %d", spec.Replicas, maxReplicas), "", name, path...)
	}
}

var constraintRE = regexp.MustCompile(`^\s*(node\.(?:id|hostname|role|ip|platform\.(?:os|arch)|labels\.[A-Za-z0-9_./-]+)|engine\.labels\.[A-Za-z0-9_./-]+)\s*(==|!=)\s*(\S(?:.*\S)?)\s*$`)

func (c *converter) placement(name string, p types.Placement, spec *cluster.ServiceSpec) {
	for _, con := range p.Constraints {
		m := constraintRE.FindStringSubmatch(con)
		if m == nil {
			full := []string{"services", name, "deploy", "placement", "constraints"}
			_, at := c.idx.item(func(n *node) bool { return n.value == con }, full...)
			c.refuse(at, dotted(full...), quote(con)+" is not a constraint", "write for example node.labels.zone==a, node.hostname!=b or node.role==manager")
			continue
		}
		spec.Placement.Constraints = append(spec.Placement.Constraints, m[1]+m[2]+m[3])
	}
	for _, pref := range p.Preferences {
		attribute, err := cluster.ParseAttribute(strings.TrimSpace(pref.Spread))
		if err != nil {
			full := []string{"services", name, "deploy", "placement", "preferences"}
			_, at := c.idx.item(func(n *node) bool { s := n.get("spread"); return s != nil && s.value == pref.Spread }, full...)
			c.refuse(at, dotted(full...), quote(pref.Spread)+" is not an attribute of a node", "write for example spread: node.labels.zone")
			continue
		}
		spec.Placement.Spread = append(spec.Placement.Spread, attribute)
	}
	if p.MaxReplicas > maxReplicas {
		c.no("too large", "", name, "deploy", "placement", "max_replicas_per_node")
	}
	spec.Placement.MaxPerNode = int(min(p.MaxReplicas, maxReplicas))
}

func (c *converter) restartPolicy(name string, r *types.RestartPolicy, spec *cluster.ServiceSpec) {
	if r == nil {
		return
	}
	out := cluster.RestartPolicy{Condition: r.Condition}
	path := []string{"deploy", "restart_policy"}
	switch r.Condition {
	case "", "any", "on-failure", "none":
	default:
		c.no(quote(r.Condition)+" is not a condition", "write any, on-failure or none", name, append(path, "condition")...)
	}
	if c.oneshot[name] && (r.Condition == "" || r.Condition == "any") {
		c.no("another service waits until this one has completed, which this condition never lets it", "write none or on-failure", name, append(path, "condition")...)
	}
	if r.Delay != nil {
		out.Delay = cluster.Duration(*r.Delay)
		c.positive(out.Delay, name, append(path, "delay")...)
	}
	if r.Window != nil {
		out.Window = cluster.Duration(*r.Window)
		c.positive(out.Window, name, append(path, "window")...)
	}
	if r.MaxAttempts != nil {
		out.MaxAttempts = int(min(*r.MaxAttempts, math.MaxInt32))
	}
	if was := spec.Restart; was.Condition != "" && (was.Condition != cmp.Or(out.Condition, "any") || was.MaxAttempts != out.MaxAttempts) {
		c.say("deploy.restart_policy says otherwise, and counts", "keep one of them", name, "restart")
	}
	spec.Restart = out
}

func (c *converter) update(name, section string, u *types.UpdateConfig) cluster.UpdatePolicy {
	if u == nil {
		return cluster.UpdatePolicy{}
	}
	path := func(key string) []string { return []string{"deploy", section, key} }
	out := cluster.UpdatePolicy{
		Delay: cluster.Duration(u.Delay), FailureAction: u.FailureAction, Monitor: cluster.Duration(u.Monitor),
		MaxFailureRatio: math.Round(float64(u.MaxFailureRatio)*1e4) / 1e4, Order: u.Order,
	}
	c.positive(out.Delay, name, path("delay")...)
	c.positive(out.Monitor, name, path("monitor")...)
	switch {
	case u.Parallelism == nil:
	case *u.Parallelism == 0: // Swarm's way to say all at once, however many there will be
		out.Parallelism = maxReplicas
	default:
		out.Parallelism = int(min(*u.Parallelism, maxReplicas))
	}
	actions := []string{"continue", "pause", "rollback"}
	if section == "rollback_config" {
		actions = actions[:2]
	}
	c.oneOf(u.FailureAction, actions, name, path("failure_action")...)
	c.oneOf(u.Order, []string{"start-first", "stop-first"}, name, path("order")...)
	if u.MaxFailureRatio < 0 || u.MaxFailureRatio > 1 || u.MaxFailureRatio != u.MaxFailureRatio {
		c.no("must be from 0 to 1", "", name, path("max_failure_ratio")...)
	}
	return out
}

func (c *converter) oneOf(v string, allowed []string, name string, path ...string) {
	if v == "" {
		return
	}
	if slices.Contains(allowed, v) {
		return
	}
	c.no(quote(v)+" is not known", "write "+strings.Join(allowed, " or "), name, path...)
}

func (c *converter) resources(name string, s types.ServiceConfig, t *cluster.TaskSpec) {
	r := &t.Resources
	limits, reserve := &types.Resource{}, &types.Resource{}
	if s.Deploy != nil {
		if s.Deploy.Resources.Limits != nil {
			limits = s.Deploy.Resources.Limits
		}
		if s.Deploy.Resources.Reservations != nil {
			reserve = s.Deploy.Resources.Reservations
		}
	}
	in := []string{"deploy", "resources"}
	r.LimitCPU = c.cpus(float64(limits.NanoCPUs), name, append(in, "limits", "cpus")...)
	r.ReserveCPU = c.cpus(float64(reserve.NanoCPUs), name, append(in, "reservations", "cpus")...)
	r.LimitMemory = c.bytes(int64(limits.MemoryBytes), name, append(in, "limits", "memory")...)
	r.ReserveMemory = c.bytes(int64(reserve.MemoryBytes), name, append(in, "reservations", "memory")...)
	r.LimitPids = limits.Pids
	c.old(&r.LimitCPU, c.cpus(float64(s.CPUS), name, "cpus"), "deploy.resources.limits.cpus", name, "cpus")
	if s.CPUQuota > 0 {
		period := s.CPUPeriod
		if period <= 0 {
			period = 100_000 // Docker's default, in microseconds
		}
		if s.CPUQuota*1000 < period {
			c.no("is less than a thousandth of a processor", "", name, "cpu_quota")
		}
		c.old(&r.LimitCPU, s.CPUQuota*1000/period, "deploy.resources.limits.cpus", name, "cpu_quota")
	} else if s.CPUPeriod != 0 {
		c.say("does nothing without cpu_quota", "leave it out, or write cpus:", name, "cpu_period")
	}
	c.old(&r.LimitMemory, c.bytes(int64(s.MemLimit), name, "mem_limit"), "deploy.resources.limits.memory", name, "mem_limit")
	c.old(&r.ReserveMemory, c.bytes(int64(s.MemReservation), name, "mem_reservation"), "deploy.resources.reservations.memory", name, "mem_reservation")
	c.old(&r.LimitPids, s.PidsLimit, "deploy.resources.limits.pids", name, "pids_limit")
	if r.LimitCPU > 0 && r.ReserveCPU > r.LimitCPU {
		c.no("the reservation is above the limit", "", name, append(in, "reservations", "cpus")...)
	}
	if r.LimitMemory > 0 && r.ReserveMemory > r.LimitMemory {
		c.no("the reservation is above the limit", "", name, append(in, "reservations", "memory")...)
	}
}

// old takes a value from a key of before deploy.
func (c *converter) old(to *int64, v int64, twin, name, key string) {
	if v == 0 {
		return
	}
	if *to != 0 && *to != v {
		c.no("differs from "+twin, "keep one of them", name, key)
	}
	*to = v
}

// cpus converts cores to thousandths.
func (c *converter) cpus(v float64, name string, path ...string) int64 {
	if v < 0 || v > 100_000 || v != v || (v > 0 && v < 0.001) {
		c.no("must be a number of processors from 0.001 to 100000", "", name, path...)
		return 0
	}
	return int64(math.Round(v * 1000))
}

// bytes checks an amount of memory: Docker starts no container below 6 MB.
func (c *converter) bytes(v int64, name string, path ...string) int64 {
	if v < 0 || v > 1<<50 || (v > 0 && v < 6<<20 && strings.Contains(path[len(path)-1]+strings.Join(path, "."), "limit")) {
		c.no("must be an amount of memory from 6M to 1024T", "", name, path...)
		return 0
	}
	return v
}

func (c *converter) autoscale(name string, spec *cluster.ServiceSpec) {
	x := c.ext[name]
	if x == nil || x.Autoscale == nil {
		return
	}
	if c.complainedAbout(dotted("services", name, "x-fairlead", "autoscale")) {
		return
	}
	a, r := x.Autoscale, spec.Task.Resources
	path := func(key string) []string { return []string{"x-fairlead", "autoscale", key} }
	out := &cluster.Autoscale{Min: a.Min, Max: a.Max, CPUPercent: int(a.CPU), MemoryPercent: int(a.Memory), UpWindow: cluster.Duration(a.UpWindow), DownWindow: cluster.Duration(a.DownWindow)}
	if out.Min == 0 {
		out.Min = 1
	}
	switch {
	case spec.Mode == cluster.Global:
		c.no("a global service has one task on each node", "", name, "x-fairlead", "autoscale")
	case out.Max == 0:
		c.no("there is no max", "write the most replicas there may be", name, "x-fairlead", "autoscale")
	case out.Max < out.Min:
		c.no(fmt.Sprintf("max %d is below min %d", out.Max, out.Min), "", name, path("max")...)
	case out.CPUPercent == 0 && out.MemoryPercent == 0:
		c.no("there is no target", "write cpu: 70% or memory: 80%", name, "x-fairlead", "autoscale")
	}
	if out.CPUPercent > 0 && r.ReserveCPU == 0 {
		c.no("a percentage of the reserved CPU, and none is reserved", "write deploy: {resources: {reservations: {cpus: \"0.25\"}}}", name, path("cpu")...)
	}
	if out.MemoryPercent > 0 && r.ReserveMemory == 0 {
		c.no("a percentage of the reserved memory, and none is reserved", "write deploy: {resources: {reservations: {memory: 64M}}}", name, path("memory")...)
	}
	n, _ := c.idx.find("services", name, "deploy", "replicas")
	m, _ := c.idx.find("services", name, "scale")
	switch {
	case n == nil && m == nil:
		spec.Replicas = out.Min
	case spec.Replicas < out.Min || spec.Replicas > out.Max:
		c.say(fmt.Sprintf("a count of %d is outside of autoscale, which keeps %d to %d", spec.Replicas, out.Min, out.Max), "", name, "x-fairlead", "autoscale")
		spec.Replicas = max(out.Min, min(out.Max, spec.Replicas))
	}
	spec.Autoscale = out
}
