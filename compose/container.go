package compose

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/fairlead/fairlead/cluster"
)

func (c *converter) security(name string, s types.ServiceConfig, t *cluster.TaskSpec) {
	t.ReadOnly, t.Privileged = s.ReadOnly, s.Privileged
	t.CapAdd, t.CapDrop = s.CapAdd, s.CapDrop
	for _, o := range s.SecurityOpt {
		if o, fine := c.securityOption(name, o); fine {
			t.SecurityOpt = append(t.SecurityOpt, o)
		}
	}
	if s.Privileged {
		c.say("the container has full access to its node", "prefer cap_add and devices", name, "privileged")
	}
	if len(s.Sysctls) > 0 {
		t.Sysctls = maps.Clone(map[string]string(s.Sysctls))
	}
	for _, k := range slices.Sorted(maps.Keys(s.Ulimits)) {
		u := s.Ulimits[k]
		if u == nil {
			continue
		}
		l := cluster.Ulimit{Name: k, Soft: int64(u.Soft), Hard: int64(u.Hard)}
		if u.Single != 0 {
			l.Soft, l.Hard = int64(u.Single), int64(u.Single)
		}
		if l.Hard >= 0 && l.Soft > l.Hard {
			c.no("the soft limit is above the hard one", "", name, "ulimits", k)
		}
		t.Ulimits = append(t.Ulimits, l)
	}
	for _, d := range s.Devices {
		perm := d.Permissions
		if perm == "" {
			perm = "rwm"
		}
		target := d.Target
		if target == "" {
			target = d.Source
		}
		if !strings.HasPrefix(d.Source, "/") || !strings.HasPrefix(target, "/") || strings.Trim(perm, "rwm") != "" {
			c.no(fmt.Sprintf("%s is not a device of a node", quote(d.Source)), "write /dev/x:/dev/x:rwm", name, "devices")
			continue
		}
		t.Devices = append(t.Devices, d.Source+":"+target+":"+perm)
		if !c.o.SingleNode {
			c.say("every node that runs this service must have the device "+d.Source, "restrict it with deploy.placement.constraints", name, "devices")
		}
	}
}

// maxProfile bounds a seccomp profile; Docker's own has some 12 kB.
const maxProfile = 256 << 10

// securityOption checks one of security_opt, and brings along the profile that
// "seccomp:profile.json" names: the engine wants its content, and has no file of ours.
func (c *converter) securityOption(name, opt string) (string, bool) {
	full := []string{"services", name, "security_opt"}
	_, at := c.idx.item(func(n *node) bool { return n.value == opt }, full...)
	no := func(message, advice string) (string, bool) {
		c.refuse(at, dotted(full...), message, advice)
		return "", false
	}
	k, v, given := strings.Cut(opt, "=")
	if !given {
		k, v, given = strings.Cut(opt, ":") // the older way to write it
	}
	switch k {
	case "no-new-privileges":
		if _, err := strconv.ParseBool(v); given && err != nil {
			return no(quote(v)+" is neither true nor false", "")
		}
		return opt, true
	case "label", "apparmor", "seccomp":
		if v == "" {
			return no(quote(opt)+" has no value", "write for example seccomp=profile.json, apparmor=unconfined or label=disable")
		}
	default:
		return no(quote(k)+" is not supported", "there are no-new-privileges, seccomp, apparmor and label")
	}
	if k != "seccomp" || v == "unconfined" || v == "builtin" {
		return opt, true
	}
	file := v
	if !path.IsAbs(file) {
		file = path.Join(c.o.Dir, file)
	}
	content, err := readLimited(file, maxProfile)
	if err != nil {
		return no("cannot read the seccomp profile "+c.show(file)+": "+sizeCause(err, maxProfile), "")
	}
	var profile bytes.Buffer
	if err := json.Compact(&profile, content); err != nil {
		return no("the seccomp profile "+c.show(file)+" is not JSON: "+err.Error(), "")
	}
	return "seccomp=" + profile.String(), true
}

func (c *converter) io(name string, s types.ServiceConfig, t *cluster.TaskSpec) {
	t.ShmSize = int64(s.ShmSize)
	if s.Logging != nil {
		t.LogDriver = s.Logging.Driver
		if len(s.Logging.Options) > 0 {
			t.LogOpts = maps.Clone(map[string]string(s.Logging.Options))
		}
		switch t.LogDriver {
		case "", "json-file", "local", "journald":
		default:
			c.say("fairlead logs cannot read what this driver takes away", "", name, "logging", "driver")
		}
	}
	for _, h := range slices.Sorted(maps.Keys(s.ExtraHosts)) {
		for _, ip := range s.ExtraHosts[h] {
			ip = strings.Trim(ip, "[]")
			if _, err := netip.ParseAddr(ip); err != nil && ip != "host-gateway" {
				c.no(fmt.Sprintf("%s is not an IP address", quote(ip)), "", name, "extra_hosts", h)
				continue
			}
			t.ExtraHosts = append(t.ExtraHosts, h+":"+ip)
		}
	}
	for _, d := range s.DNS {
		if _, err := netip.ParseAddr(d); err != nil {
			c.no(fmt.Sprintf("%s is not an IP address", quote(d)), "", name, "dns")
		}
	}
	if len(s.DNS) > 2 && s.NetworkMode == "" {
		c.say("Docker's resolver asks three servers, of which one is the node's: only "+s.DNS[0]+" and "+s.DNS[1]+" are asked", "", name, "dns")
	}
	t.DNS, t.DNSSearch, t.DNSOptions = s.DNS, s.DNSSearch, s.DNSOpts
}

func (c *converter) health(name string, s types.ServiceConfig) *cluster.Health {
	x := c.ext[name]
	h := s.HealthCheck
	if x != nil && x.Health != nil {
		if h != nil && !unchecked(h) && len(h.Test) > 0 {
			c.no("there is a healthcheck as well", "keep one of them", name, "x-fairlead", "health")
		}
		return c.probe(name, x.Health)
	}
	if h == nil {
		return nil
	}
	if h.Disable {
		return &cluster.Health{Test: []string{"NONE"}}
	}
	out := &cluster.Health{Test: h.Test}
	if len(h.Test) > 0 {
		switch {
		case h.Test[0] != "CMD" && h.Test[0] != "CMD-SHELL" && h.Test[0] != "NONE":
			c.no("the first word is CMD, CMD-SHELL or NONE, this is "+quote(h.Test[0]), "write test: [CMD, …], or one line of text for a shell", name, "healthcheck", "test")
		case h.Test[0] != "NONE" && (len(h.Test) < 2 || h.Test[1] == ""):
			c.no("there is no command", "", name, "healthcheck", "test")
		}
	}
	set := func(to *cluster.Duration, d *types.Duration, key string) {
		if d != nil {
			*to = cluster.Duration(*d)
			c.positive(*to, name, "healthcheck", key)
		}
	}
	set(&out.Interval, h.Interval, "interval")
	set(&out.Timeout, h.Timeout, "timeout")
	set(&out.StartPeriod, h.StartPeriod, "start_period")
	set(&out.StartInterval, h.StartInterval, "start_interval")
	if h.Retries != nil {
		if *h.Retries > 1000 {
			c.no("more than 1000 retries", "", name, "healthcheck", "retries")
		}
		out.Retries = int(min(*h.Retries, 1000))
	}
	if len(h.Test) == 0 && out.Interval+out.Timeout+out.StartPeriod+out.StartInterval == 0 && out.Retries == 0 {
		return nil
	}
	return out
}

func (c *converter) networks(name string, s types.ServiceConfig, t *cluster.TaskSpec) {
	switch s.NetworkMode {
	case "", "bridge", "default":
		if s.NetworkMode != "" {
			c.say("the app's own network is used", "leave it out", name, "network_mode")
		}
	case "none", "host":
		t.NetworkMode = s.NetworkMode
		if t.NetworkMode == "host" {
			c.say("public: every port that the program listens on is open on its node", "leave it out, and publish what is meant to be with ports:", name, "network_mode")
		}
		if n, _ := c.idx.find("services", name, "networks"); n != nil && !n.empty() {
			c.no("network_mode and networks exclude each other", "keep one of them", name, "network_mode")
		}
		return
	default:
		c.no(quote(s.NetworkMode)+" is not supported", "write none or host, or let the services meet on a network by their names", name, "network_mode")
		return
	}
	names := s.NetworksByPriority()
	if len(names) == 0 {
		names = []string{"default"}
	}
	for _, n := range names {
		def, declared := c.p.Networks[n]
		if !declared && n != "default" {
			c.no("there is no network "+quote(n), undeclared("networks", n, slices.Collect(maps.Keys(c.p.Networks))), name, "networks", n)
			continue
		}
		ref := cluster.NetworkRef{Name: c.networkName(n, def), Internal: def.Internal, External: bool(def.External)}
		if conf := s.Networks[n]; conf != nil {
			ref.Aliases = conf.Aliases
			for _, a := range conf.Aliases {
				if !validName(a) {
					c.no(quote(a)+" cannot be a name in DNS", "", name, "networks", n, "aliases")
				}
			}
		}
		t.Networks = append(t.Networks, ref)
	}
}

// networkName is the full name of a network of the file.
func (c *converter) networkName(key string, def types.NetworkConfig) cluster.NetworkName {
	full := def.Name
	if full == "" {
		full = string(c.app) + "_" + key
	}
	if err := cluster.ValidName("network", full); err != nil {
		c.refuse(c.idx.at("networks", key, "name"), dotted("networks", key, "name"), shortened(err.Error()), "")
	}
	if bool(def.External) && (full == "host" || full == "none" || full == "bridge") {
		c.refuse(c.idx.at("networks", key), dotted("networks", key), "Docker's own network "+full+" is not the cluster's", "write network_mode: host or none in the service, or leave it out")
	}
	switch def.Driver {
	case "", "bridge", "overlay", "default":
	default:
		c.refuse(c.idx.at("networks", key, "driver"), dotted("networks", key, "driver"), quote(def.Driver)+" is not supported", "leave it out: networks reach all nodes")
	}
	return cluster.NetworkName(full)
}

func (c *converter) dependencies(name string, s types.ServiceConfig, spec *cluster.ServiceSpec) {
	for _, dep := range slices.Sorted(maps.Keys(s.DependsOn)) {
		d := s.DependsOn[dep]
		path := []string{"depends_on", dep}
		if n, _ := c.idx.find("services", name, "depends_on", dep); n == nil {
			path = []string{"links"}
		}
		target, there := c.p.Services[dep]
		if !there {
			_, disabled := c.p.DisabledServices[dep]
			switch {
			case !d.Required:
				c.say("there is no service "+dep+" now; it is not waited for", "", name, path...)
			case disabled:
				c.no("the service "+dep+" belongs to a profile that is not chosen", "choose it with --profile, or write required: false", name, path...)
			case !c.complainedAbout("services." + dep):
				c.no("there is no service "+quote(dep), didYouMean(dep, slices.Sorted(maps.Keys(c.p.Services))), name, path...)
			}
			continue
		}
		cond := d.Condition
		if cond == "" {
			cond = types.ServiceConditionStarted
		}
		if cond == types.ServiceConditionHealthy && unchecked(target.HealthCheck) && (c.ext[dep] == nil || c.ext[dep].Health == nil) {
			c.no(dep+" has its health check disabled and can never be healthy", "write condition: service_started", name, path...)
		}
		spec.DependsOn = append(spec.DependsOn, cluster.Dependency{Service: cluster.ServiceName(dep), Condition: cond, Optional: !d.Required})
	}
	for _, link := range s.Links {
		if target, alias, found := strings.Cut(link, ":"); found && alias != target {
			c.no("a link under another name is not supported", fmt.Sprintf("give %s the name: networks: {default: {aliases: [%s]}}", target, alias), name, "links")
		}
	}
}

// unchecked reports whether a health check is switched off, in either way.
func unchecked(h *types.HealthCheckConfig) bool {
	return h != nil && (h.Disable || (len(h.Test) > 0 && h.Test[0] == "NONE"))
}

// cycles refuses services that wait for each other.
func (c *converter) cycles(names []string) {
	const (
		open = 1
		done = 2
	)
	state := map[string]int{}
	var stack []string
	var visit func(n string)
	visit = func(n string) {
		state[n] = open
		stack = append(stack, n)
		for _, d := range c.res.Services[cluster.ServiceName(n)].DependsOn {
			dep := string(d.Service)
			switch state[dep] {
			case open:
				loop := append(slices.Clone(stack[slices.Index(stack, dep):]), dep)
				c.no("services wait for each other: "+strings.Join(loop, " → "), "remove one of these dependencies", n, "depends_on", dep)
			case 0:
				visit(dep)
			}
		}
		stack = stack[:len(stack)-1]
		state[n] = done
	}
	for _, n := range names {
		if state[n] == 0 {
			visit(n)
		}
	}
}

func (c *converter) restart(name string, s types.ServiceConfig, spec *cluster.ServiceSpec) {
	r := &spec.Restart
	policy, attempts, counted := strings.Cut(s.Restart, ":")
	if counted && policy != types.RestartPolicyOnFailure {
		policy = s.Restart // there is none of that name
	}
	switch policy {
	case "":
		if c.oneshot[name] && (s.Deploy == nil || s.Deploy.RestartPolicy == nil) {
			r.Condition = "none" // it is wanted to complete; to run it again would undo that
		}
	case types.RestartPolicyAlways, types.RestartPolicyUnlessStopped:
		r.Condition = "any"
	case types.RestartPolicyNo:
		r.Condition = "none"
	case types.RestartPolicyOnFailure:
		r.Condition = "on-failure"
		if counted {
			n, err := strconv.ParseUint(attempts, 10, 31)
			if r.MaxAttempts = int(n); err != nil {
				c.no(quote(attempts)+" is not a number of attempts", "write on-failure:3", name, "restart")
			}
		}
	default:
		c.no(quote(s.Restart)+" is not a restart policy", "write no, always, on-failure or unless-stopped", name, "restart")
	}
	if c.oneshot[name] && r.Condition == "any" {
		c.no("another service waits until this one has completed, which restart: "+s.Restart+" never lets it", "write restart: \"no\" or on-failure", name, "restart")
	}
}

// build records how to make the service's image.
func (c *converter) build(name string, s types.ServiceConfig, image string) {
	b := s.Build
	at := c.at(name, "build")
	out := Build{
		Service: cluster.ServiceName(name), Image: image, Context: b.Context, DockerfileInline: b.DockerfileInline,
		Target: b.Target, Tags: b.Tags, CacheFrom: b.CacheFrom, Network: b.Network, ShmSize: int64(b.ShmSize),
		NoCache: b.NoCache, Pull: b.Pull, Source: at, Platform: s.Platform,
	}
	if len(b.Args) > 0 {
		out.Args = map[string]*string(b.Args.Resolve(c.p.Environment.Resolve))
	}
	if len(b.Labels) > 0 {
		out.Labels = maps.Clone(map[string]string(b.Labels))
	}
	for _, h := range slices.Sorted(maps.Keys(b.ExtraHosts)) {
		for _, ip := range b.ExtraHosts[h] {
			out.ExtraHosts = append(out.ExtraHosts, h+":"+ip)
		}
	}
	switch {
	case len(b.Platforms) == 1:
		out.Platform = b.Platforms[0]
	case len(b.Platforms) > 1:
		c.no("an image is built for one platform", "name one, or build the image elsewhere and name it with image:", name, "build", "platforms")
	}
	switch {
	case remoteRE.MatchString(b.Context) || strings.HasSuffix(b.Context, ".git"):
		c.no(quote(b.Context)+" is not a local directory", "fetch it first, and name the copy", name, "build", "context")
	case !directory(b.Context):
		c.warn(c.at(name, "build", "context"), dotted("services", name, "build"), "the directory "+c.show(b.Context)+" is not there: the image cannot be built here", "")
	}
	if b.DockerfileInline == "" {
		out.Dockerfile = b.Dockerfile
		if out.Dockerfile != "" && !path.IsAbs(out.Dockerfile) {
			out.Dockerfile = path.Join(b.Context, out.Dockerfile)
		}
	} else if n, _ := c.idx.find("services", name, "build", "dockerfile"); n != nil && !n.empty() {
		c.no("dockerfile and dockerfile_inline exclude each other", "keep one of them", name, "build", "dockerfile_inline")
	}
	for _, tag := range b.Tags {
		c.imageTag(name, tag)
	}
	if s.Image != "" && !strings.Contains(s.Image, "@") && !slices.Contains(out.Tags, s.Image) {
		out.Tags = append(slices.Clone(out.Tags), s.Image) // as docker compose names it
	}
	c.res.Builds = append(c.res.Builds, out)
}
