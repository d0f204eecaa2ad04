package compose

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/fairlead/fairlead/cluster"
)

// packageDir is where the files of a package are said to be. Nothing is there: no
// path that one of them names leads to a file of this machine.
const packageDir = "/fairlead-package"

// packaged reports whether the main files are a package's.
func (l *load) packaged() bool { return l.o.Packaged != nil }

// takePackaged makes the list of main files.
func (l *load) takePackaged() {
	l.o.Dir, l.o.Env, l.o.EnvFiles, l.env = packageDir, nil, nil, map[string]string{}
	if l.app = l.o.App; l.app == "" {
		l.app = "app"
	}
	for _, d := range l.o.Packaged {
		abs := path.Join(packageDir, path.Clean("/"+filepath.ToSlash(d.Name)))
		l.files = append(l.files, abs)
		l.contents[abs] = d.Content
	}
}

// content reads a file, of which there are none but its own in a package.
func (l *load) content(r request) ([]byte, error) {
	switch {
	case l.packaged():
	case r.by.File == "" && filepath.Base(r.abs) == "-" && l.o.Stdin != nil:
		return readAll(l.o.Stdin, maxFileSize)
	default:
		return readLimited(r.abs, maxFileSize)
	}
	b := l.contents[r.abs]
	if len(b) > maxFileSize {
		return nil, tooLarge(int64(len(b)))
	}
	return b, nil
}

// withoutEmpty is a file without its empty documents, which templates leave behind
// and compose-go takes for a mistake.
func withoutEmpty(content []byte) []byte {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	some, kept := false, false
	for dec := yaml.NewDecoder(bytes.NewReader(content)); ; {
		var y yaml.Node
		if err := decode(dec, &y); err != nil {
			break // its end: what is no YAML was refused before
		}
		if len(y.Content) == 0 || y.Content[0].ShortTag() == "!!null" {
			some = true
			continue
		}
		kept = true
		if err := enc.Encode(&y); err != nil {
			return content
		}
	}
	if !kept { // all of a template may be switched off; compose-go reads no nothing
		return []byte("{}\n")
	}
	if err := enc.Close(); err != nil || !some {
		return content // lines in errors stay what they are
	}
	return b.Bytes()
}

// secretFiles reports whether a key may name one of Options.SecretFiles.
func (l *load) secretFiles(path []string) bool {
	return l.o.SecretFiles != nil && len(path) == 3 && path[0] == "secrets" && path[2] == "file"
}

// secretContent reads what file: of a secret names.
func (l *load) secretContent(file string) ([]byte, error) {
	if !l.packaged() {
		return readLimited(file, maxSecret)
	}
	name, in := strings.CutPrefix(file, packageDir+"/")
	b, there := l.o.SecretFiles[name]
	switch {
	case !in || !there:
		return nil, os.ErrNotExist
	case len(b) > maxSecret:
		return nil, tooLarge(int64(len(b)))
	}
	return b, nil
}

// outside is what to do instead of a key that reads from the machine on which a
// Compose file is, or "" where a package may have it.
func outside(path []string) string {
	p := slices.Clone(path)
	if len(p) > 1 {
		p[1] = "*"
	}
	switch dotted(p...) {
	case "include", "services.*.extends.file":
		return "put what it holds into the package's templates"
	case "services.*.env_file", "services.*.label_file":
		return "write its lines here, from the values"
	case "services.*.build":
		return "name an image: that a registry has, or `fairlead image push` brought"
	case "configs.*.file", "configs.*.environment":
		return "write content: with {{ .Files.Get \"…\" }} or from the values"
	case "secrets.*.file", "secrets.*.environment":
		return "write external: true, and x-fairlead: {generate: 32} to have it made up"
	}
	return ""
}

func strs[T ~string](list ...T) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = string(s)
	}
	return out
}

// hook takes a service out of the app. Outside of a package nothing runs it: what a package
// made, read as a file, is the app that it was, without its hooks.
func (c *converter) hook(name string, x hookExtension, spec cluster.ServiceSpec) {
	h := cluster.Hook{Service: cluster.ServiceName(name), Spec: spec, Weight: x.Weight}
	known := func(key string, got, names []string) bool {
		for _, s := range got {
			if slices.Contains(names, s) {
				continue
			}
			advice := didYouMean(s, names)
			if advice == "" {
				advice = "write one of " + strings.Join(names, ", ")
			}
			c.no(quote(s)+" is none", advice, name, "x-fairlead", "hook", key)
			return false
		}
		return true
	}
	if !known("on", x.On, strs(cluster.HookEvents()...)) || !known("delete", x.Delete, strs(cluster.HookPolicies()...)) {
		return
	}
	for _, e := range x.On {
		h.Events = append(h.Events, cluster.HookEvent(e))
	}
	for _, p := range x.Delete {
		h.Delete = append(h.Delete, cluster.HookPolicy(p))
	}
	if h.Delete == nil {
		h.Delete = []cluster.HookPolicy{cluster.BeforeHookCreation}
	}
	switch {
	case c.complainedAbout(dotted("services", name, "x-fairlead", "hook", "on")):
	case len(h.Events) == 0:
		c.no("it names no point of a change", "write for example on: [pre-upgrade]", name, "x-fairlead", "hook")
	case len(spec.Routes) > 0 || len(spec.Ports) > 0:
		c.no("a hook runs once and is not reached from outside", "remove its routes and ports", name, "x-fairlead", "hook")
	case spec.Mode == cluster.Global || spec.Autoscale != nil:
		c.no("a hook runs once, as one task", "remove deploy.mode and x-fairlead.autoscale", name, "x-fairlead", "hook")
	case spec.Restart.Condition == "any":
		c.no("a hook is awaited until it ends, and a restart policy never lets it", "leave restart: out, or write on-failure:3", name, "x-fairlead", "hook")
	}
	if h.Spec.Restart.Condition == "" {
		h.Spec.Restart.Condition = "none"
	}
	if c.packaged() {
		c.res.Hooks = append(c.res.Hooks, h)
		return
	}
	c.res.Builds = slices.DeleteFunc(c.res.Builds, func(b Build) bool { return b.Service == h.Service })
	c.say("the service is left out, nothing runs it: hooks are run of packages alone", "install the package (`fairlead chart create` makes one), or leave the hook out to have a service", name, "x-fairlead", "hook")
}

func (c *converter) isHook(service string) bool {
	return c.ext[service] != nil && c.ext[service].Hook != nil
}

// sortHooks puts hooks in the order in which they run, and refuses services that
// wait for one: when they start it is over, or has not been.
func (c *converter) sortHooks(names []string) {
	slices.SortFunc(c.res.Hooks, cluster.CompareHooks)
	is := map[string]bool{}
	for _, n := range names {
		is[n] = c.isHook(n)
	}
	if len(names) > 0 && len(c.res.Services) == 0 && !slices.ContainsFunc(names, func(n string) bool { return !is[n] }) {
		c.refuse(c.idx.at("services"), "services", "all services are hooks", "there must be one at least that stays")
	}
	for _, n := range names {
		for dep := range c.p.Services[n].DependsOn {
			switch {
			case is[dep]:
				c.no(fmt.Sprintf("%s is a hook, which nothing waits for", dep), "hooks of a point all end well before the app changes, or after it has; weight: orders them", n, "depends_on", dep)
			case is[n]:
				c.no("a hook waits for no service", "choose its point with on:, and its place among hooks with weight:", n, "depends_on", dep)
			}
		}
	}
}
