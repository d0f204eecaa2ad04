package compose

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/go-units"

	"github.com/fairlead/fairlead/cluster"
)

// maxInlined bounds the files of bind mounts that become configs, together.
const maxInlined = 1 << 20

// place is a mount's own item in the file.
func (c *converter) mountAt(name, target string) (*node, cluster.Source) {
	return c.idx.item(func(n *node) bool { return mountTarget(n) == target }, "services", name, "volumes")
}

// mountTarget is the path in the container of an item of volumes, or "".
func mountTarget(n *node) string {
	if t := n.get("target"); t != nil {
		return path.Clean(t.value)
	}
	if n.kind != scalarNode {
		return ""
	}
	vol, err := parseVolume(n.value)
	if err != nil {
		return ""
	}
	return path.Clean(vol.Target)
}

func (c *converter) mounts(name string, s types.ServiceConfig, t *cluster.TaskSpec) {
	seen := map[string]cluster.Source{}
	where := dotted("services", name, "volumes")
	for _, v := range s.Volumes {
		item, at := c.mountAt(name, v.Target)
		if first, dup := seen[v.Target]; dup {
			c.refuse(at, where, fmt.Sprintf("%s is mounted twice (first on line %d)", quote(v.Target), first.Line), "")
			continue
		}
		seen[v.Target] = at
		c.mountOptions(name, item, at)
		if bad := badPath(v.Target); bad != "" {
			c.refuse(at, where, "the target "+quote(v.Target)+" "+bad, "write an absolute path in the container")
			continue
		}
		switch v.Type {
		case types.VolumeTypeVolume:
			if m, fine := c.volume(name, v, at); fine {
				t.Mounts = append(t.Mounts, m)
			}
		case types.VolumeTypeTmpfs:
			m := cluster.Mount{Type: cluster.MountTmpfs, Target: v.Target, ReadOnly: v.ReadOnly}
			if v.Tmpfs != nil {
				m.TmpfsSize = int64(v.Tmpfs.Size)
			}
			if mode := item.get("tmpfs").get("mode"); mode != nil {
				m.TmpfsMode, _, _ = mode.fileMode() // checked already
			}
			t.Mounts = append(t.Mounts, m)
		case types.VolumeTypeBind:
			c.bind(name, v, bindPlace{item, at}, t)
		default:
			c.refuse(at, where, "mounts of type "+v.Type+" are not supported", "use a volume")
		}
	}
	for _, spec := range s.Tmpfs {
		m, err := tmpfs(spec)
		_, at := c.idx.item(func(n *node) bool { return n.value == spec }, "services", name, "tmpfs")
		if err != nil {
			c.refuse(at, dotted("services", name, "tmpfs"), err.Error(), "")
			continue
		}
		if first, dup := seen[m.Target]; dup {
			c.refuse(at, dotted("services", name, "tmpfs"), fmt.Sprintf("%s is mounted twice (first on line %d)", quote(m.Target), first.Line), "")
			continue
		}
		seen[m.Target] = at
		t.Mounts = append(t.Mounts, m)
	}
}

// mountOptions looks at the options of a mount's short form, "a:/b:ro,z", which
// compose-go drops in silence where it does not know them. The long form's are keys.
func (c *converter) mountOptions(name string, item *node, at cluster.Source) {
	if item == nil || item.kind != scalarNode {
		return
	}
	parts := strings.SplitN(item.value, ":", 3)
	if len(parts) < 3 {
		return
	}
	where := dotted("services", name, "volumes")
	for o := range strings.SplitSeq(parts[2], ",") {
		switch o {
		case "ro", "rw", "nocopy", types.PropagationRPrivate: // the last is Docker's default
		case types.SELinuxShared, types.SELinuxPrivate:
			c.warn(at, where, "the option "+o+" is ignored", "files are not relabelled")
		case "cached", "delegated", "consistent", "default":
			c.warn(at, where, "the option "+o+" is ignored", "of no effect on Linux")
		case types.PropagationPrivate, types.PropagationRShared, types.PropagationShared, types.PropagationRSlave, types.PropagationSlave:
			c.refuse(at, where, "the option "+o+" is not supported", "mounts are private")
		default:
			c.refuse(at, where, "there is no option "+quote(o), didYouMean(o, []string{"ro", "rw", "nocopy"}))
		}
	}
}

// badPath says what is wrong with a path in a container.
func badPath(p string) string {
	switch {
	case !strings.HasPrefix(p, "/"):
		return "is not absolute"
	case path.Clean(p) == "/":
		return "is the whole file system"
	case len(p) > 1024:
		return "is too long"
	case strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return "holds control characters"
	}
	return ""
}

func (c *converter) volume(name string, v types.ServiceVolumeConfig, at cluster.Source) (cluster.Mount, bool) {
	m := cluster.Mount{Type: cluster.MountVolume, Target: v.Target, ReadOnly: v.ReadOnly}
	if v.Volume != nil {
		m.NoCopy = v.Volume.NoCopy
	}
	if v.Source == "" {
		return m, true
	}
	def, declared := c.p.Volumes[v.Source]
	if !declared {
		if !c.complainedAbout("volumes." + v.Source) {
			names := make([]string, 0, len(c.p.Volumes))
			for n := range c.p.Volumes {
				names = append(names, n)
			}
			c.refuse(at, dotted("services", name, "volumes"), "there is no volume "+quote(v.Source), undeclared("volumes", v.Source, names))
		}
		return m, false
	}
	m.Source = def.Name
	if m.Source == "" {
		m.Source = string(c.app) + "_" + v.Source
	}
	if err := cluster.ValidName("volume", m.Source); err != nil {
		c.refuse(c.idx.at("volumes", v.Source, "name"), dotted("volumes", v.Source), shortened(err.Error()), "")
		return m, false
	}
	m.External = bool(def.External)
	if def.Driver != "local" {
		m.Driver = def.Driver
	}
	if len(def.DriverOpts) > 0 {
		m.DriverOpts = maps.Clone(map[string]string(def.DriverOpts))
	}
	return m, c.boundVolume(v.Source, m)
}

// boundVolume decides about a volume that is a directory of a machine, "o: bind",
// as bind does about a mount of one. Docker does not make such a directory.
func (c *converter) boundVolume(key string, m cluster.Mount) bool {
	device := m.DriverOpts["device"]
	full := []string{"volumes", key, "driver_opts", "device"}
	n, d := c.idx.find(full...)
	isBind := func(o string) bool { return o == "bind" || o == "rbind" }
	if m.Driver != "" || n == nil || device == "" || (strings.HasPrefix(n.value, "/") && !ofHere(n)) || !slices.ContainsFunc(strings.Split(m.DriverOpts["o"], ","), isBind) {
		return true
	}
	at, where := c.idx.at(full...), dotted(full...)
	switch {
	case c.packaged():
		c.refuse(at, where, quote(n.value)+" is a path of the machine that installs the package", "leave driver_opts out to keep data in a volume, and bring files with configs: and content:")
		return false
	case c.fetched(n.value, device):
		c.refuse(at, where, quote(n.value)+" is a directory of the source, which no node has",
			"leave driver_opts out to keep data in a volume, bring files with configs:, or write an absolute path that the nodes have")
		return false
	case !c.o.SingleNode:
		c.refuse(at, where, quote(n.value)+" is a path of this machine, which other nodes do not have",
			"leave driver_opts out to keep data in a volume, bring files with configs:, code with build:, or write an absolute path that the nodes have")
		return false
	}
	if !path.IsAbs(device) { // compose-go resolves it beside "driver: local" and "o: bind" alone
		device = filepath.Join(d.dir, device)
		m.DriverOpts["device"] = device
	}
	if _, err := os.Stat(device); err != nil {
		c.refuse(at, where, quote(device)+" is not there", "make it, or leave driver_opts out")
		return false
	}
	c.warn(at, where, quote(device)+" is a path of this machine: this works while there is one node", "leave driver_opts out to keep data in a volume")
	return true
}

// fetched reports whether a path, as written and as resolved, is one of the source.
func (c *converter) fetched(raw, abs string) bool {
	return c.o.Tree != "" && (!path.IsAbs(raw) || abs == c.o.Tree || strings.HasPrefix(abs, c.o.Tree+"/"))
}

var tmpfsRE = regexp.MustCompile(`^[^:]+(:[^:]*)?$`)

// tmpfs reads "/path:size=64m,mode=1777".
func tmpfs(spec string) (cluster.Mount, error) {
	target, opts, _ := strings.Cut(spec, ":")
	m := cluster.Mount{Type: cluster.MountTmpfs, Target: path.Clean(target)}
	if bad := badPath(target); bad != "" {
		return m, fmt.Errorf("the target %s %s", quote(target), bad)
	}
	if !tmpfsRE.MatchString(spec) {
		return m, fmt.Errorf("%s is not a path and its options; write for example /run:size=64m,mode=1777", quote(spec))
	}
	for o := range strings.SplitSeq(opts, ",") {
		k, v, _ := strings.Cut(o, "=")
		switch k {
		case "", "rw", "noexec", "nosuid", "nodev": // Docker's defaults
		case "ro":
			m.ReadOnly = true
		case "size":
			n, err := units.RAMInBytes(v)
			if err != nil || n < 0 {
				return m, fmt.Errorf("%s is not a size", quote(v))
			}
			m.TmpfsSize = n
		case "mode":
			n, err := strconv.ParseUint(v, 8, 12)
			if err != nil {
				return m, fmt.Errorf("%s is not a mode such as 1777", quote(v))
			}
			m.TmpfsMode = int(n)
		default:
			return m, fmt.Errorf("the option %s is not supported", quote(k))
		}
	}
	return m, nil
}

// bindPlace is a bind mount as written.
type bindPlace struct {
	item *node
	at   cluster.Source
}

// source is what has the source; nil: nothing does.
func (b bindPlace) source() *node {
	if s := b.item.get("source"); s != nil {
		return s
	}
	return b.item
}

// raw is the source as written, after interpolation.
func (b bindPlace) raw() string {
	s := b.source()
	if s == nil {
		return ""
	}
	if s != b.item {
		return s.value
	}
	source, _, _ := strings.Cut(s.value, ":")
	return source
}

var hereRE = regexp.MustCompile(`^\$\{?(PWD|HOME)\b`)

// ofHere reports whether a path begins where the command was run or at home: such
// paths are of this machine as ./ and ~ are, absolute though they read then.
func ofHere(n *node) bool { return n != nil && hereRE.MatchString(n.raw) }

// bind decides about a directory or file of a machine: relative ones belong to
// where the Compose file is, not to the node.
func (c *converter) bind(name string, v types.ServiceVolumeConfig, b bindPlace, t *cluster.TaskSpec) {
	where := dotted("services", name, "volumes")
	if isSocket(v.Source) {
		if proxyName(c.p.Services[name]) == "" {
			c.warn(b.at, where, "the Docker socket gives full access to the node, and shows that node alone", "")
		} // else socket refuses it
	}
	if strings.ContainsFunc(v.Source, func(r rune) bool { return r < ' ' || r == 0x7f }) || len(v.Source) > 4096 {
		c.refuse(b.at, where, "the source is too long or holds control characters", "")
		return
	}
	m := cluster.Mount{Type: cluster.MountBind, Source: v.Source, Target: v.Target, ReadOnly: v.ReadOnly}
	m.NoCreate = v.Bind != nil && !bool(v.Bind.CreateHostPath)
	m.Create = !m.NoCreate && b.item.get("bind").get("create_host_path") != nil // said, not by default
	if raw := b.raw(); strings.HasPrefix(raw, "/") && !ofHere(b.source()) {
		if !isSocket(v.Source) {
			text := quote(v.Source) + " is a path of whatever node the task runs on"
			if !c.o.SingleNode && !m.Create {
				text += ", and the task fails where it is not there"
			}
			c.warn(b.at, where, text, "use a volume for data, configs: for files")
		}
		t.Mounts = append(t.Mounts, m)
		return
	}
	if c.packaged() {
		c.refuse(b.at, where, quote(b.raw())+" is a path of the machine that installs the package", "bring files with configs: and content:, and keep data in a volume")
		return
	}
	fetched := c.fetched(b.raw(), v.Source)
	if fetched && strings.HasPrefix(b.raw(), "~") {
		c.refuse(b.at, where, quote(b.raw())+" is a path of a home directory, which a source does not have", "use a named volume, configs: for files, or write an absolute path that the nodes have")
		return
	}
	info, err := os.Stat(v.Source)
	isFile := err == nil && info.Mode().IsRegular()
	if isFile && v.ReadOnly {
		if c.inline(name, v, b, t) {
			return
		}
	}
	if fetched && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)) {
		c.refuse(b.at, where, quote(b.raw())+" is not in the source", "correct the path, or use a named volume for data")
		return
	}
	const bring = "append :ro to have the file brought along, or use configs:, or a volume for data"
	if fetched || !c.o.SingleNode {
		what, advice := "a path of this machine, which other nodes do not have", "bring files with configs:, code with build:, and keep data in a volume"
		switch {
		case fetched && isFile:
			what, advice = "a file of the source, which no node has", bring
		case fetched:
			what, advice = "a directory of the source, which no node has", "use a named volume, or configs: for files"
		case isFile:
			advice = bring
		}
		c.refuse(b.at, where, quote(b.raw())+" is "+what, advice)
		return
	}
	note := fmt.Sprintf("%s is a path of this machine: this works while there is one node", quote(v.Source))
	if err != nil {
		note += "; it is not there, and will be an empty directory"
		if m.NoCreate {
			c.refuse(b.at, where, quote(v.Source)+" is not there", "make it, or leave create_host_path out")
			return
		}
	}
	c.warn(b.at, where, note, "use configs: for files, build: for code, a volume for data")
	t.Mounts = append(t.Mounts, m)
}

// inline turns a read-only file into a config. Where it cannot, it refuses it,
// or on a single node returns false: there the file can be mounted instead.
func (c *converter) inline(name string, v types.ServiceVolumeConfig, b bindPlace, t *cluster.TaskSpec) bool {
	content, err := readLimited(v.Source, maxInlined)
	if err != nil {
		return c.notInlined(name, b, "cannot be brought along: "+sizeCause(err, maxInlined))
	}
	cfg := c.config(fileName(c.show(v.Source)), content)
	if _, known := c.configs[cfg.Name]; !known {
		if c.inlined += int64(len(content)); c.inlined > maxInlined {
			return c.notInlined(name, b, "makes more than 1 MB of files to bring along")
		}
	}
	c.configs[cfg.Name] = cfg
	mode := 0o444
	if info, err := os.Stat(v.Source); err == nil && info.Mode()&0o111 != 0 {
		mode = 0o555
	}
	t.Configs = append(t.Configs, cluster.FileRef{Name: cfg.Name, Version: cfg.Hash, Target: v.Target, Mode: mode})
	return true
}

func (c *converter) notInlined(name string, b bindPlace, why string) bool {
	if c.o.SingleNode && c.o.Tree == "" {
		return false
	}
	c.refuse(b.at, dotted("services", name, "volumes"), quote(b.raw())+" "+why, "use build: or a volume")
	return true
}

// config makes a config of a content.
func (c *converter) config(name string, content []byte) cluster.Config {
	sum := sha256.Sum256(content)
	return cluster.Config{App: c.app, Name: name, Content: content, Hash: hex.EncodeToString(sum[:8])}
}

// fileName names the config of a bind-mounted file: readable, and one per path.
func fileName(p string) string {
	sum := sha256.Sum256([]byte(p))
	base := strings.Map(func(r rune) rune {
		if r == '.' || r == '-' || r == '_' || (r >= '0' && r <= '9') || (r >= 'a' && r <= 'z') || (r >= 'A' && r <= 'Z') {
			return r
		}
		return '-'
	}, filepath.Base(p))
	return "file-" + hex.EncodeToString(sum[:4]) + "-" + base[:min(len(base), 60)]
}

func isSocket(p string) bool {
	return p == "/var/run/docker.sock" || p == "/run/docker.sock"
}

// proxies are images that read the Docker socket to route to containers.
var proxies = map[string]string{
	"traefik": "Traefik", "nginxproxy/nginx-proxy": "nginx-proxy", "jwilder/nginx-proxy": "nginx-proxy", "jwilder/docker-gen": "nginx-proxy",
	"nginxproxy/docker-gen": "nginx-proxy", "nginxproxy/acme-companion": "nginx-proxy's companion", "jrcs/letsencrypt-nginx-proxy-companion": "nginx-proxy's companion",
	"lucaslorentz/caddy-docker-proxy": "caddy-docker-proxy", "dockercloud/haproxy": "HAProxy", "steveltn/https-portal": "https-portal",
}

// proxyName is what proxy a service is, or "".
func proxyName(s types.ServiceConfig) string {
	ref := s.Image
	if i := strings.LastIndex(ref, "@"); i >= 0 {
		ref = ref[:i]
	}
	if i := strings.LastIndex(ref, ":"); i > strings.LastIndex(ref, "/") {
		ref = ref[:i]
	}
	for _, prefix := range []string{"docker.io/", "ghcr.io/", "index.docker.io/", "quay.io/", "library/"} {
		ref = strings.TrimPrefix(ref, prefix)
	}
	if p, is := proxies[ref]; is {
		return p
	}
	if path.Base(ref) == "traefik" {
		return "Traefik"
	}
	return ""
}

// socket refuses proxies that would route by the Docker socket.
func (c *converter) socket(name string, s types.ServiceConfig) {
	proxy := proxyName(s)
	if proxy == "" {
		return
	}
	for _, v := range s.Volumes {
		if v.Type != types.VolumeTypeBind || !isSocket(v.Source) {
			continue
		}
		_, at := c.mountAt(name, v.Target)
		c.refuse(at, dotted("services", name, "volumes"), proxy+" reading the Docker socket: the gateways do this already",
			"remove the service "+name+"; routes of the other services come from x-fairlead.routes, ports or their traefik labels")
	}
}
