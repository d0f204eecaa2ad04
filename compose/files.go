package compose

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/fairlead/fairlead/cluster"
)

const (
	maxSecret = 500 << 10 // bytes, as in Swarm
	maxConfig = 1 << 20   // bytes; etcd takes 1.5 MB in a request
)

// secretName is a secret's name in the store.
func (c *converter) secretName(key string) string {
	if s := c.p.Secrets[key]; bool(s.External) && s.Name != "" {
		return s.Name
	}
	return key
}

// ownName warns of a name: that names nothing: what is not external is called by its key.
func (c *converter) ownName(section, key string, external bool) {
	if n, _ := c.idx.find(section, key, "name"); n != nil && !n.empty() && !external {
		c.warn(c.idx.at(section, key, "name"), dotted(section, key, "name"), "ignored: what is not external is called by its key, "+key, "leave it out")
	}
}

// secretDecls reads the secrets section.
func (c *converter) secretDecls() {
	for _, key := range slices.Sorted(maps.Keys(c.p.Secrets)) {
		s := c.p.Secrets[key]
		at, where := c.idx.at("secrets", key), dotted("secrets", key)
		d := SecretDecl{Name: c.secretName(key), External: bool(s.External), Source: at}
		if err := cluster.ValidName("secret", d.Name); err != nil {
			c.refuse(at, where, shortened(err.Error()), "")
			continue
		}
		c.ownName("secrets", key, bool(s.External))
		if x := c.secretExtension(key); x != nil {
			d.Generate, d.Vault = x.Generate, x.Vault
		}
		switch {
		case d.Vault != "":
			c.vaultSecret(d, key)
			d.External = true
		case bool(s.External):
			if d.Generate == 0 && (s.File != "" || s.Environment != "") {
				c.refuse(at, where, "an external secret has no file or environment", "remove external:, or the source")
			}
		case d.Generate > 0 && s.File == "" && s.Environment == "":
			d.External = true // nothing but the store will ever have it
		case s.File != "" && s.Environment != "":
			c.refuse(at, where, "file and environment exclude each other", "keep one of them")
		case s.File != "":
			c.secretFile(&d, key, s.File)
		case s.Environment != "":
			v, set := c.variable("secrets", key, s.Environment)
			d.Value, d.HasValue = cluster.NewSecret([]byte(v)), v != ""
			if v == "" {
				what := map[bool]string{true: " is empty", false: " is not set"}[set]
				c.warn(c.idx.at("secrets", key, "environment"), where, "the variable "+s.Environment+what+"; tasks wait until the secret is there", c.setSecret(d.Name))
			}
		default:
			if !c.complainedAbout(where) {
				c.refuse(at, where, "there is neither file, environment nor external", "write external: true, and "+c.setSecret(d.Name))
			}
		}
		c.res.Secrets = append(c.res.Secrets, d)
	}
	slices.SortFunc(c.res.Secrets, func(a, b SecretDecl) int { return strings.Compare(a.Name, b.Name) })
	for i := 1; i < len(c.res.Secrets); i++ {
		if a, b := c.res.Secrets[i-1], c.res.Secrets[i]; a.Name == b.Name {
			c.refuse(b.Source, dotted("secrets", b.Name), fmt.Sprintf("two secrets are named %s (also %s:%d)", quote(b.Name), a.Source.File, a.Source.Line), "")
		}
	}
}

// variable is the value of the variable that a secret or config names, in the
// environment of the file that says so: an included one has its own env files.
func (c *converter) variable(section, key, name string) (string, bool) {
	env := c.env
	if _, d := c.idx.find(section, key, "environment"); d != nil {
		env = d.env
	}
	v, set := env[name]
	return v, set
}

// vaultSecret checks a secret that is in Vault.
func (c *converter) vaultSecret(d SecretDecl, key string) {
	s := c.p.Secrets[key]
	at, where := c.idx.at("secrets", key, "x-fairlead", "vault"), dotted("secrets", key, "x-fairlead", "vault")
	if _, err := cluster.ParseVaultRef(d.Vault); err != nil {
		c.refuse(at, where, shortened(err.Error()), "")
	}
	if d.Generate > 0 || s.File != "" || s.Environment != "" {
		c.refuse(at, where, "its value is in Vault, and also generated or from a file or environment", "keep one of them")
	}
}

func (c *converter) setSecret(name string) string {
	return fmt.Sprintf("set it with: fairlead secret set %s/%s", c.app, name)
}

// secretFile reads a secret's value. A missing file is no refusal: the store
// may have the value already, and who deploys need not.
func (c *converter) secretFile(d *SecretDecl, key, file string) {
	at, where := c.idx.at("secrets", key, "file"), dotted("secrets", key, "file")
	b, err := c.secretContent(file)
	switch {
	case errors.Is(err, os.ErrNotExist):
		c.warn(at, where, "the file "+c.show(file)+" is not there; tasks wait until the secret is", c.setSecret(d.Name))
	case err != nil:
		c.refuse(at, where, fmt.Sprintf("cannot read %s: %s", c.show(file), sizeCause(err, maxSecret)), "")
	case len(b) == 0:
		c.warn(at, where, "the file "+c.show(file)+" is empty; tasks wait until the secret is there", c.setSecret(d.Name))
	default:
		d.Value, d.HasValue = cluster.NewSecret(b), true
	}
}

// sizeCause words a file error for files other than Compose files.
func sizeCause(err error, most int64) string {
	if _, ok := errors.AsType[*syntaxError](err); ok {
		return fmt.Sprintf("it has more than %d bytes", most)
	}
	return cause(err)
}

// configDecls reads the configs section.
func (c *converter) configDecls() {
	for _, key := range slices.Sorted(maps.Keys(c.p.Configs)) {
		s := c.p.Configs[key]
		at, where := c.idx.at("configs", key), dotted("configs", key)
		c.ownName("configs", key, bool(s.External))
		var content []byte
		switch {
		case bool(s.External): // the table of keys has refused it
			continue
		case s.File != "":
			b, err := readLimited(s.File, maxConfig)
			if err != nil {
				c.refuse(c.idx.at("configs", key, "file"), where+".file", fmt.Sprintf("cannot read %s: %s", c.show(s.File), sizeCause(err, maxConfig)), "")
				continue
			}
			content = b
		case s.Environment != "":
			v, set := c.variable("configs", key, s.Environment)
			if !set {
				c.refuse(c.idx.at("configs", key, "environment"), where+".environment", "the variable "+s.Environment+" is not set", "")
				continue
			}
			content = []byte(v)
		default:
			if n, _ := c.idx.find("configs", key, "content"); n == nil {
				if !c.complainedAbout(where) {
					c.refuse(at, where, "there is neither file, content nor environment", "")
				}
				continue
			}
			content = []byte(s.Content)
		}
		if len(content) > maxConfig {
			c.refuse(at, where, fmt.Sprintf("more than %d bytes", maxConfig), "put it into the image or a volume")
			continue
		}
		c.configs[key] = c.config(key, content)
	}
}

// usedConfigs are the configs that a service or a hook has, by name. One that none has goes
// with the next release, so it would be missed, and made, at each comparison.
func (c *converter) usedConfigs() []cluster.Config {
	var out []cluster.Config
	use := func(s cluster.ServiceSpec) {
		for _, f := range s.Task.Configs {
			if cfg, there := c.configs[f.Name]; there {
				out = append(out, cfg)
			}
		}
	}
	for _, s := range c.res.Services {
		use(s)
	}
	for _, h := range c.res.Hooks {
		use(h.Spec)
	}
	slices.SortFunc(out, func(a, b cluster.Config) int { return strings.Compare(a.Name, b.Name) })
	return slices.CompactFunc(out, func(a, b cluster.Config) bool { return a.Name == b.Name })
}

// files mounts the service's secrets and configs.
func (c *converter) files(name string, s types.ServiceConfig, t *cluster.TaskSpec) {
	for _, r := range s.Secrets {
		def, declared := c.p.Secrets[r.Source]
		if !declared {
			c.missing(name, "secrets", r.Source, slices.Collect(maps.Keys(c.p.Secrets)))
			continue
		}
		_ = def
		ref := c.fileRef(name, "secrets", types.FileReferenceConfig(r), "/run/secrets")
		ref.Name = c.secretName(r.Source)
		t.Secrets = append(t.Secrets, ref)
	}
	for _, k := range slices.Sorted(maps.Keys(t.SecretEnv)) {
		n := t.SecretEnv[k]
		if !slices.ContainsFunc(t.Secrets, func(f cluster.FileRef) bool { return f.Name == n }) {
			t.Secrets = append(t.Secrets, cluster.FileRef{Name: n, Target: "/run/secrets/" + n})
		}
	}
	inlined := t.Configs // bind mounts came first
	t.Configs = nil
	for _, r := range s.Configs {
		cfg, there := c.configs[r.Source]
		if _, declared := c.p.Configs[r.Source]; !declared {
			c.missing(name, "configs", r.Source, slices.Collect(maps.Keys(c.p.Configs)))
			continue
		}
		ref := c.fileRef(name, "configs", types.FileReferenceConfig(r), "/")
		ref.Name = r.Source
		if there {
			ref.Version = cfg.Hash
		}
		t.Configs = append(t.Configs, ref)
	}
	t.Configs = append(t.Configs, inlined...)
	c.sameTarget(name, t)
}

func (c *converter) missing(name, section, source string, names []string) {
	if c.complainedAbout(section + "." + source) {
		return
	}
	full := []string{"services", name, section, source}
	c.refuse(c.idx.at(full...), dotted("services", name, section), "there is no "+strings.TrimSuffix(section, "s")+" "+quote(source), undeclared(section, source, names))
}

func (c *converter) fileRef(name, section string, r types.FileReferenceConfig, dir string) cluster.FileRef {
	ref := cluster.FileRef{UID: r.UID, GID: r.GID, Target: r.Target}
	if ref.Target == "" {
		ref.Target = r.Source
	}
	at := c.at(name, section, r.Source)
	if !strings.HasPrefix(ref.Target, "/") {
		ref.Target = path.Join(dir, ref.Target)
		if !strings.HasPrefix(ref.Target, dir) {
			c.refuse(at, dotted("services", name, section), fmt.Sprintf("the target %s leaves %s", quote(r.Target), dir), "write an absolute path")
		}
	}
	if bad := badPath(ref.Target); bad != "" {
		c.refuse(at, dotted("services", name, section), fmt.Sprintf("the target %s %s", quote(ref.Target), bad), "")
	}
	ref.Target = path.Clean(ref.Target)
	if r.Mode != nil {
		ref.Mode = int(*r.Mode)
		// A number, as YAML reads it: what it means is told by how it is written.
		item, _ := c.idx.item(func(n *node) bool {
			target := n.get("target")
			return listKey(n) == r.Source && n.get("mode") != nil && (target == nil || target.value == r.Target)
		}, "services", name, section)
		if n := item.get("mode"); n != nil {
			ref.Mode, _, _ = n.fileMode() // checked already
		}
	}
	for _, id := range []string{ref.UID, ref.GID} {
		if strings.Trim(id, "0123456789") != "" || len(id) > 10 {
			c.refuse(at, dotted("services", name, section), quote(id)+" is not a numeric uid or gid", "")
		}
	}
	return ref
}

// sameTarget refuses two files, or a file and a mount, at one path.
func (c *converter) sameTarget(name string, t *cluster.TaskSpec) {
	seen := map[string]string{}
	for _, m := range t.Mounts {
		seen[m.Target] = "volumes"
	}
	check := func(section string, refs []cluster.FileRef) {
		for _, r := range refs {
			if other, dup := seen[r.Target]; dup {
				c.refuse(c.at(name, section, r.Name), dotted("services", name, section), fmt.Sprintf("%s is already the target of something in %s", quote(r.Target), other), "write another target:")
			}
			seen[r.Target] = section
		}
	}
	check("secrets", t.Secrets)
	check("configs", t.Configs)
}
