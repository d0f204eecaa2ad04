package compose

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/distribution/reference"

	"github.com/fairlead/fairlead/cluster"
)

// converter turns compose-go's merged project into cluster types. What is wrong
// is reported, and conversion goes on, so that all is reported.
type converter struct {
	*load
	p       *types.Project
	res     *Result
	ext     map[string]*serviceExtension // x-fairlead by service
	configs map[string]cluster.Config    // by name
	inlined int64                        // bytes of bind mounts that became configs
	oneshot map[string]bool              // services that another one wants completed
	traefik *traefikApp
	origin  map[claimed]string // path of the key that made a route
}

// claimed is a route of a service, by its place.
type claimed struct {
	service string
	at      cluster.Source
}

func newConverter(l *load, p *types.Project) *converter {
	return &converter{
		load: l, p: p,
		res:     &Result{App: l.app, Domain: l.o.Domain, Services: map[cluster.ServiceName]cluster.ServiceSpec{}},
		ext:     map[string]*serviceExtension{},
		configs: map[string]cluster.Config{},
		oneshot: map[string]bool{},
		origin:  map[claimed]string{},
	}
}

func (c *converter) convert() *Result {
	names := slices.Sorted(maps.Keys(c.p.Services))
	if len(names) == 0 && !c.complainedAbout("services") {
		at, advice := c.idx.at("services"), "write services: with at least one service"
		if len(c.p.DisabledServices) > 0 {
			advice = "all services belong to profiles: choose one with --profile"
		}
		c.refuse(at, "services", "no service to run", advice)
	}
	c.profiles()
	c.appExtension()
	c.secretDecls()
	c.configDecls()
	for _, n := range names {
		c.ext[n] = c.serviceExtension(n)
		for dep, d := range c.p.Services[n].DependsOn {
			if d.Condition == types.ServiceConditionCompletedSuccessfully {
				c.oneshot[dep] = true
			}
		}
	}
	c.traefik = c.readTraefik(names)
	for _, n := range names {
		spec := c.service(n, c.p.Services[n])
		if c.isHook(n) {
			c.hook(n, *c.ext[n].Hook, spec)
			continue
		}
		c.res.Services[cluster.ServiceName(n)] = spec
	}
	c.sortHooks(names)
	c.cycles(names)
	c.containerNames(names)
	c.collisions(names)
	c.res.Configs = c.usedConfigs()
	c.render()
	return c.res
}

// profiles warns of those that were asked for and that no service has.
func (c *converter) profiles() {
	known := map[string]bool{}
	for _, all := range []types.Services{c.p.Services, c.p.DisabledServices} {
		for _, s := range all {
			for _, p := range s.Profiles {
				known[p] = true
			}
		}
	}
	if c.packaged() {
		for _, name := range slices.Sorted(maps.Keys(c.p.DisabledServices)) {
			c.say("left out: nobody can choose the profile of a package's service", "switch it by a value: {{ if .Values.… }}", name, "profiles")
		}
	}
	for _, p := range c.chosen {
		if !known[p] && p != "*" {
			c.warn(cluster.Source{File: c.show(c.load.files[0])}, "profiles", "no service has the profile "+quote(p), didYouMean(p, slices.Sorted(maps.Keys(known))))
		}
	}
}

// at is the place of a key of a service.
func (c *converter) at(service string, path ...string) cluster.Source {
	return c.idx.at(append([]string{"services", service}, path...)...)
}

// no refuses a key of a service.
func (c *converter) no(message, advice, service string, path ...string) {
	full := append([]string{"services", service}, path...)
	c.refuse(c.idx.at(full...), dotted(full...), message, advice)
}

// say warns of a key of a service.
func (c *converter) say(message, advice, service string, path ...string) {
	full := append([]string{"services", service}, path...)
	c.warn(c.idx.at(full...), dotted(full...), message, advice)
}

func (c *converter) service(name string, s types.ServiceConfig) cluster.ServiceSpec {
	spec := cluster.ServiceSpec{Mode: cluster.Replicated, Source: c.at(name)}
	t := &spec.Task
	c.image(name, s, t)
	c.process(name, s, t)
	c.environment(name, s, t)
	c.labels(name, s, &spec)
	c.security(name, s, t)
	c.io(name, s, t)
	t.Health = c.health(name, s)
	c.networks(name, s, t)
	c.mounts(name, s, t)
	c.files(name, s, t)
	c.dependencies(name, s, &spec)
	c.restart(name, s, &spec)
	c.deploy(name, s, &spec)
	c.resources(name, s, t)
	c.autoscale(name, &spec)
	c.expose(name, s, &spec)
	c.routes(name, &spec)
	c.socket(name, s)
	return spec
}

func (c *converter) image(name string, s types.ServiceConfig, t *cluster.TaskSpec) {
	t.Image = s.Image
	if c.o.NoBuild && s.Build != nil && s.Image != "" {
		c.say("nothing is built here: "+quote(s.Image)+" is what was built elsewhere", "", name, "build")
		if s.Build = nil; s.PullPolicy == types.PullPolicyBuild {
			s.PullPolicy = ""
		}
	}
	if s.Build != nil {
		if t.Image == "" {
			t.Image = "fairlead/" + strings.ToLower(string(c.app)+"-"+name)
			t.PullPolicy = "never" // no registry has it
		}
		c.build(name, s, t.Image)
	}
	if t.Image == "" {
		if !c.complainedAbout("services." + name + ".") {
			c.no("there is neither image: nor build:", "name the image to run", name)
		}
		return
	}
	if _, err := reference.ParseNormalizedNamed(t.Image); err != nil {
		c.no(fmt.Sprintf("%s is not an image reference: %v", quote(t.Image), err), "", name, "image")
	}
	switch s.PullPolicy {
	case "", types.PullPolicyMissing, types.PullPolicyIfNotPresent:
	case types.PullPolicyAlways:
		if s.Build != nil { // no registry need have what is built
			c.say("the image is built, and is not pulled", "remove build:, or pull_policy:", name, "pull_policy")
		} else {
			t.PullPolicy = s.PullPolicy
		}
	case types.PullPolicyNever:
		t.PullPolicy = s.PullPolicy
	case types.PullPolicyBuild:
		if s.Build == nil {
			c.no("there is nothing to build", "write build:, or pull_policy: missing", name, "pull_policy")
		}
	default:
		why := " is not supported"
		if p := s.PullPolicy; p == "daily" || p == "weekly" || strings.HasPrefix(p, "every_") {
			why += ": an image is looked for when a task is made, not by the clock"
		}
		c.no(quote(s.PullPolicy)+why, "write always, missing or never", name, "pull_policy")
	}
	t.Platform = s.Platform
	if s.Platform != "" && !platformRE.MatchString(s.Platform) {
		c.no(quote(s.Platform)+" is not a platform of a node", "nodes run Linux: write for example linux/amd64, or leave it out", name, "platform")
	}
}

var platformRE = regexp.MustCompile(`^linux(/[a-z0-9]+){0,2}$`)

// complainedAbout reports whether something below a path was refused already.
func (c *converter) complainedAbout(prefix string) bool {
	return slices.ContainsFunc(c.refused, func(p Problem) bool { return strings.HasPrefix(p.Path, prefix) })
}

func (c *converter) process(name string, s types.ServiceConfig, t *cluster.TaskSpec) {
	t.Command, t.Entrypoint = s.Command, s.Entrypoint
	t.WorkingDir, t.User, t.GroupAdd = s.WorkingDir, s.User, s.GroupAdd
	t.Hostname = s.Hostname
	c.hostname(name, s.Hostname)
	if s.ContainerName != "" {
		t.Aliases = append(t.Aliases, s.ContainerName)
	}
	t.StopSignal = strings.ToUpper(s.StopSignal) // Docker takes both
	c.ofKernel(name, s)
	if s.StopGracePeriod != nil {
		t.StopGrace = cluster.Duration(*s.StopGracePeriod)
		c.positive(t.StopGrace, name, "stop_grace_period")
		if t.StopGrace == 0 { // at once: zero would mean the default
			t.StopGrace = cluster.Duration(time.Millisecond)
		}
	}
	t.Init = s.Init != nil && *s.Init
	t.StdinOpen, t.TTY = s.StdinOpen, s.Tty
}

func (c *converter) positive(d cluster.Duration, name string, path ...string) {
	if d < 0 {
		c.no("a duration below zero", "", name, path...)
	}
}

var (
	templateRE = regexp.MustCompile(`\{\{[^}]*\}?\}?`)
	ownRE      = regexp.MustCompile(`^\{\{-?\s*\.(Service|Node|Task)\.`)
	knownRE    = regexp.MustCompile(`^\{\{\s*\.(Service\.(ID|Name)|Node\.(ID|Hostname)|Task\.(ID|Name|Slot))\s*\}\}$`)
	hostRE     = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$`)
)

// validName reports whether a name can be asked for in DNS.
func validName(n string) bool { return len(n) <= 253 && hostRE.MatchString(n) }

func (c *converter) hostname(name, h string) {
	if h == "" {
		return
	}
	for _, m := range templateRE.FindAllString(h, -1) {
		if !knownRE.MatchString(m) {
			c.no(quote(m)+" is not a template that is filled", "use {{.Node.Hostname}}, {{.Node.ID}}, {{.Service.Name}}, {{.Task.Name}}, {{.Task.Slot}} or {{.Task.ID}}", name, "hostname")
			return
		}
	}
	if plain := templateRE.ReplaceAllString(h, "x"); !validName(plain) {
		c.no(quote(h)+" is not a host name", "", name, "hostname")
	}
}

func (c *converter) environment(name string, s types.ServiceConfig, t *cluster.TaskSpec) {
	env := c.resolveEnv(name, s)
	for _, k := range slices.Sorted(maps.Keys(env)) {
		v := env[k]
		switch {
		case v == nil:
			continue // "NAME" alone, and nowhere set: as in Compose, not in the container
		case k == "" || strings.ContainsAny(k, "=\x00") || strings.ContainsRune(*v, 0):
			c.no(fmt.Sprintf("%s cannot be a variable", quote(k)), "", name, "environment", k)
			continue
		}
		for _, m := range templateRE.FindAllString(*v, -1) {
			if ownRE.MatchString(m) && !knownRE.MatchString(m) { // programs have templates of their own
				c.say(quote(m)+" is filled when a task starts, which fails where the node does not know it",
					"use {{.Node.Hostname}}, {{.Node.ID}}, {{.Service.Name}}, {{.Task.Name}}, {{.Task.Slot}} or {{.Task.ID}}", name, "environment", k)
			}
		}
		if t.Env == nil {
			t.Env = map[string]string{}
		}
		t.Env[k] = *v
	}
	x := c.ext[name]
	if x == nil || len(x.SecretEnv) == 0 {
		return
	}
	t.SecretEnv = map[string]string{}
	for _, k := range slices.Sorted(maps.Keys(x.SecretEnv)) {
		path := []string{"x-fairlead", "secret_env", k}
		if _, twice := t.Env[k]; twice {
			c.no(k+" is also in environment", "keep one of them", name, path...)
			continue
		}
		if k == "" || strings.ContainsAny(k, "=\x00") {
			c.no(fmt.Sprintf("%s cannot be a variable", quote(k)), "", name, path...)
			continue
		}
		if _, declared := c.p.Secrets[x.SecretEnv[k]]; !declared {
			c.no("there is no secret "+quote(x.SecretEnv[k]), undeclared("secrets", x.SecretEnv[k], slices.Collect(maps.Keys(c.p.Secrets))), name, path...)
			continue
		}
		t.SecretEnv[k] = c.secretName(x.SecretEnv[k])
	}
}

// undeclared advises on a name that a section of the file lacks.
func undeclared(section, name string, names []string) string {
	slices.Sort(names)
	if a := didYouMean(name, names); a != "" {
		return a
	}
	return fmt.Sprintf("declare it at the top of the file: %s: {%s: …}", section, name)
}

func (c *converter) resolveEnv(name string, s types.ServiceConfig) types.MappingWithEquals {
	where, fine := dotted("services", name, "env_file"), true
	no := func(f types.EnvFile, message, advice string) {
		c.refuse(c.envFileAt(name, f.Path), where, message, advice)
		fine = false
	}
	for _, f := range s.EnvFiles {
		_, err := readLimited(f.Path, maxFileSize)
		switch {
		case f.Path == "" && bool(f.Required):
			no(f, "the path is empty", "")
		case err != nil && (bool(f.Required) || there(f.Path)):
			no(f, fmt.Sprintf("cannot read %s: %s", c.show(f.Path), cause(err)), "")
		case f.Format != "" && f.Format != "raw":
			no(f, "unknown format "+quote(f.Format), "write raw, or leave it out")
		}
	}
	if !fine {
		return s.Environment
	}
	known := maps.Clone(map[string]string(s.Environment.ToMapping()))
	maps.Copy(known, c.p.Environment)
	for _, f := range s.EnvFiles {
		if f.Format == "" {
			c.warnUnsetIn(f.Path, where, known)
		}
	}
	one := types.Project{Environment: c.p.Environment, Services: types.Services{name: s}}
	done, err := resolved(one)
	if err != nil {
		msg, at := err.Error(), c.at(name, "env_file")
		for _, f := range s.EnvFiles {
			if f.Path != "" && strings.Contains(msg, f.Path+":") {
				at = c.envFileAt(name, f.Path)
				msg = strings.ReplaceAll(msg, f.Path, c.show(f.Path))
			}
		}
		c.refuse(at, where, msg, "")
		return s.Environment
	}
	return done.Services[name].Environment
}

// envFileAt is the place of the item that names an env file.
func (c *converter) envFileAt(name, abs string) cluster.Source {
	full := []string{"services", name, "env_file"}
	for _, v := range c.idx.views(full) {
		_, n, depth := walk(v.d.root, v.path(full))
		if depth < len(full) {
			continue
		}
		items := []*node{n}
		if n.kind == listNode {
			items = n.items
		}
		for _, it := range slices.Backward(items) { // of one that is named twice the last counts
			file := it.value
			if p := it.get("path"); p != nil {
				file = p.value
			}
			home := strings.HasPrefix(file, "~/") && strings.HasSuffix(abs, file[1:])
			if file == abs || home || (file != "" && filepath.Join(v.d.dir, file) == abs) {
				return cluster.Source{File: v.d.file, Line: it.line}
			}
		}
	}
	return c.idx.at(full...)
}

func there(f string) bool {
	_, err := os.Stat(f)
	return err == nil
}

// resolved reads env files and label files; a panic of the library is an error.
func resolved(p types.Project) (out *types.Project, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("cannot be read: %v", r)
		}
	}()
	return p.WithServicesEnvironmentResolved(true)
}

// labelAt is the place of a label: in the file, or in the label file that has it last.
func (c *converter) labelAt(name, label string) cluster.Source {
	if n, _ := c.idx.find("services", name, "labels", label); n == nil {
		for _, file := range slices.Backward(c.p.Services[name].LabelFiles) {
			content, err := readLimited(file, maxFileSize)
			if err != nil {
				continue // refused already
			}
			for i, line := range slices.Backward(strings.Split(string(content), "\n")) {
				if m := assigns.FindStringSubmatch(line); m != nil && m[1] == label {
					return cluster.Source{File: c.show(file), Line: i + 1}
				}
			}
		}
	}
	return c.at(name, "labels", label)
}

func (c *converter) labels(name string, s types.ServiceConfig, spec *cluster.ServiceSpec) {
	for _, file := range s.LabelFiles {
		c.warnUnsetIn(file, dotted("services", name, "label_file"), s.Labels)
	}
	at := func(k string) (cluster.Source, string) {
		return c.labelAt(name, k), dotted("services", name, "labels", k)
	}
	for _, k := range slices.Sorted(maps.Keys(s.Labels)) {
		low := strings.ToLower(k)
		switch {
		case strings.HasPrefix(low, "traefik."):
			continue // a route, not a property of the container: it must not replace tasks
		case strings.HasPrefix(low, "io.fairlead."), strings.HasPrefix(low, "com.docker.stack."), strings.HasPrefix(low, "com.docker.swarm."):
			place, path := at(k)
			c.refuse(place, path, "this label is set by Fairlead", "choose another name")
			continue
		case strings.HasPrefix(low, "com.docker.compose."):
			place, path := at(k)
			c.warn(place, path, "ignored", "this label would make docker compose take the container for its own")
			continue
		}
		if spec.Task.Labels == nil {
			spec.Task.Labels = map[string]string{}
		}
		spec.Task.Labels[k] = s.Labels[k]
	}
	if s.Deploy != nil && len(s.Deploy.Labels) > 0 {
		spec.Labels = maps.Clone(map[string]string(s.Deploy.Labels))
	}
}

func (c *converter) containerNames(names []string) {
	seen := map[string]string{}
	for _, n := range names {
		cn := c.p.Services[n].ContainerName
		if cn == "" {
			continue
		}
		if !validName(cn) {
			c.no(quote(cn)+" cannot be a name in DNS", "", n, "container_name")
		}
		if first, dup := seen[cn]; dup {
			at := c.at(first, "container_name")
			c.no(fmt.Sprintf("%s is also the container_name of %s (%s:%d)", quote(cn), first, at.File, at.Line), "", n, "container_name")
		}
		if _, is := c.p.Services[cn]; is && cn != n {
			c.no(fmt.Sprintf("%s is the name of another service", quote(cn)), "", n, "container_name")
		}
		seen[cn] = n
	}
}
