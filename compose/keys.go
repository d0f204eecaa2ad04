package compose

import (
	"slices"
	"strings"
)

type use uint8

const (
	honoured use = iota
	warned       // said, and left out: what runs is the same
	refused      // leaving it out would change what runs
)

func (u use) String() string { return [...]string{"honoured", "warned", "refused"}[u] }

// rule says what becomes of one key. In path, * is any name and [] any list item.
type rule struct {
	path string
	use  use
	note string // for warned and refused: why, and what to do instead
	free bool   // the user's own names below it
	// usual is the value that asks for nothing, where false and 0 are not: "true".
	usual string
}

// asks reports whether a value wants anything of the key's.
func (r rule) asks(n *node) bool {
	if r.usual != "" && n.kind == scalarNode && n.value != "" {
		return !strings.EqualFold(n.value, r.usual)
	}
	return !n.empty()
}

// rules is the table of every key of the Compose specification. docs/compose.md
// shows it; a test compares both, and compares it with compose-go's schema.
func rules() []rule {
	return slices.Concat(topRules(), containerRules(), containerRules2(), serviceRules(), deployRules(), buildRules())
}

func ok(paths ...string) []rule {
	out := make([]rule, len(paths))
	for i, p := range paths {
		out[i] = rule{path: p}
		if s, is := strings.CutSuffix(p, "{}"); is {
			out[i] = rule{path: s, free: true}
		}
	}
	return out
}

func topRules() []rule {
	return slices.Concat(ok(
		"name", "services", "services.*", "include", "include[].path", "include[].env_file", "include[].project_directory",
		"x-fairlead{}",
		"networks", "networks.*", "networks.*.name", "networks.*.external", "networks.*.external.name", "networks.*.internal",
		"volumes", "volumes.*", "volumes.*.name", "volumes.*.driver", "volumes.*.driver_opts{}", "volumes.*.external", "volumes.*.external.name",
		"secrets", "secrets.*", "secrets.*.name", "secrets.*.file", "secrets.*.environment", "secrets.*.external", "secrets.*.external.name", "secrets.*.x-fairlead{}",
		"configs", "configs.*", "configs.*.name", "configs.*.file", "configs.*.environment", "configs.*.content",
	), []rule{
		{path: "version", use: warned, note: "obsolete in Compose; remove it"},
		{path: "services.*.deploy.mode", note: "replicated or global; jobs come later"},
		{path: "networks.*.driver", note: "bridge and overlay both mean a network of the cluster; others are refused"},
		{path: "networks.*.driver_opts", use: warned, free: true, note: "networks are made by Fairlead, with options of its own"},
		{path: "networks.*.ipam", use: warned, free: true, note: "addresses come from the cluster's own range"},
		{path: "networks.*.attachable", use: warned, note: "containers of other tools cannot join"},
		{path: "networks.*.labels", use: warned, free: true, note: "networks carry Fairlead's labels only"},
		{path: "networks.*.enable_ipv4", use: warned, usual: "true", note: "networks have IPv4"},
		{path: "networks.*.enable_ipv6", use: refused, note: "networks have IPv4 only"},
		{path: "volumes.*.labels", use: warned, free: true, note: "volumes carry Fairlead's labels only"},
		{path: "secrets.*.labels", use: warned, free: true, note: "secrets carry no labels"},
		{path: "secrets.*.driver", use: refused, note: "set the value with fairlead secret set, and write external: true"},
		{path: "secrets.*.driver_opts", use: refused, free: true, note: "set the value with fairlead secret set, and write external: true"},
		{path: "secrets.*.template_driver", use: refused, note: "templates in secrets are not filled"},
		{path: "configs.*.external", use: refused, note: "configs belong to the app: write file: or content:"},
		{path: "configs.*.labels", use: warned, free: true, note: "configs carry no labels"},
		{path: "configs.*.template_driver", use: refused, note: "templates in configs are not filled"},
		{path: "models", use: refused, free: true, note: "language models come as services or not at all"},
		{path: "jobs", use: refused, free: true, note: "jobs come later; until then a service with restart: \"no\" runs once"},
	})
}

// containerRules are the container's keys that are honoured.
func containerRules() []rule {
	return ok(
		"services.*.image", "services.*.command", "services.*.entrypoint", "services.*.environment{}",
		"services.*.env_file", "services.*.env_file[].path", "services.*.env_file[].required", "services.*.env_file[].format",
		"services.*.working_dir", "services.*.user", "services.*.group_add", "services.*.hostname", "services.*.platform",
		"services.*.labels{}", "services.*.label_file", "services.*.pull_policy",
		"services.*.volumes", "services.*.volumes[].type", "services.*.volumes[].source", "services.*.volumes[].target",
		"services.*.volumes[].read_only", "services.*.volumes[].bind", "services.*.volumes[].bind.create_host_path",
		"services.*.volumes[].volume", "services.*.volumes[].volume.nocopy",
		"services.*.volumes[].tmpfs", "services.*.volumes[].tmpfs.size", "services.*.volumes[].tmpfs.mode",
		"services.*.networks", "services.*.networks.*", "services.*.networks.*.aliases", "services.*.networks.*.priority",
		"services.*.network_mode",
		"services.*.secrets", "services.*.secrets[].source", "services.*.secrets[].target", "services.*.secrets[].uid", "services.*.secrets[].gid", "services.*.secrets[].mode",
		"services.*.configs", "services.*.configs[].source", "services.*.configs[].target", "services.*.configs[].uid", "services.*.configs[].gid", "services.*.configs[].mode",
		"services.*.stop_signal", "services.*.stop_grace_period", "services.*.read_only", "services.*.privileged",
		"services.*.cap_add", "services.*.cap_drop", "services.*.security_opt", "services.*.sysctls{}", "services.*.ulimits{}",
		"services.*.devices", "services.*.devices[].source", "services.*.devices[].target", "services.*.devices[].permissions",
		"services.*.shm_size", "services.*.tmpfs", "services.*.init",
		"services.*.logging", "services.*.logging.driver", "services.*.logging.options{}",
		"services.*.extra_hosts{}", "services.*.dns_search", "services.*.dns_opt",
		"services.*.cpus", "services.*.cpu_quota", "services.*.cpu_period", "services.*.mem_limit", "services.*.mem_reservation", "services.*.pids_limit",
	)
}

// containerRules2 are the container's keys that are not.
func containerRules2() []rule {
	warn := func(path, note string) rule { return rule{path: "services.*." + path, use: warned, note: note} }
	no := func(path, note string) rule { return rule{path: "services.*." + path, use: refused, note: note} }
	out := []rule{
		{path: "services.*.dns", note: "asked for what is not the cluster's, from inside the container, in this order; the first two, as Docker's resolver asks three and the node's is one"},
		warn("annotations", "not set; labels are"), warn("blkio_config", "weights of disk access are not set"),
		warn("cpu_count", "for Windows containers only"), warn("cpu_percent", "for Windows containers only"),
		warn("cpu_shares", "not set; deploy.resources.reservations.cpus is what the scheduler reads"),
		{path: "services.*.mem_swappiness", use: warned, usual: "-1", note: "not set"},
		warn("memswap_limit", "not set; the memory limit is"), warn("oom_score_adj", "not set"),
		warn("pull_refresh_after", "images are not refreshed by themselves"),
		warn("volumes[].consistency", "of no effect on Linux"), warn("volumes[].bind.selinux", "files are not relabelled"),
		warn("volumes[].volume.labels", "volumes carry Fairlead's labels only"),
		warn("networks.*.gw_priority", "the network with the highest priority is the way out"),
		warn("networks.*.interface_name", "interfaces are eth0, eth1 and so on"),
		warn("networks.*.driver_opts", "networks are made by Fairlead, with options of its own"),
		no("cgroup", "containers get a group of their own"), no("cgroup_parent", "containers get a group of their own"),
		no("cpu_rt_period", "real-time scheduling is not available"), no("cpu_rt_runtime", "real-time scheduling is not available"),
		no("cpuset", "processors are not pinned; use deploy.resources.limits.cpus"),
		no("credential_spec", "nodes run Linux"), no("isolation", "nodes run Linux"),
		no("device_cgroup_rules", "name the devices with devices:"),
		no("domainname", "put the full name in hostname:"),
		no("gpus", "GPUs come later"), no("ipc", "every container has its own IPC namespace; use shm_size for its size"),
		no("mac_address", "MAC addresses are not fixed"), no("models", "language models come as services or not at all"),
		no("oom_kill_disable", "set deploy.resources.limits.memory instead"),
		no("pid", "every container has its own process namespace"),
		no("runtime", "containers run in the node's default runtime"),
		no("storage_opt", "use a volume"),
		{path: "services.*.umask", use: refused, usual: "none", note: "set it in the image's entrypoint"},
		no("use_api_socket", "containers do not get the Docker API"), no("userns_mode", "set it in the Docker daemon of the node"),
		no("uts", "every container has its own host name"),
		no("volumes_from", "name the volumes in both services"),
		no("volumes[].bind.propagation", "mounts are private"), no("volumes[].bind.recursive", "mounts are recursive"),
		no("volumes[].volume.subpath", "mount the whole volume"), no("volumes[].image", "mount a volume, or build the files into the image"),
		no("networks.*.ipv4_address", "addresses come from the cluster's own range; use the service's name"),
		no("networks.*.ipv6_address", "networks have IPv4 only; use the service's name"),
		no("networks.*.link_local_ips", "addresses come from the cluster's own range; use the service's name"),
		no("networks.*.mac_address", "MAC addresses are not fixed"),
		{path: "services.*.networks.*.use_service_name_alias", use: refused, usual: "true", note: "a service always has its name"},
	}
	for i := range out {
		out[i].free = true
	}
	return out
}

func serviceRules() []rule {
	return slices.Concat(ok(
		"services.*.x-fairlead{}", "services.*.profiles", "services.*.restart", "services.*.scale", "services.*.container_name",
		"services.*.extends", "services.*.extends.service", "services.*.extends.file", "services.*.links",
		"services.*.depends_on", "services.*.depends_on.*", "services.*.depends_on.*.condition", "services.*.depends_on.*.required",
		"services.*.expose", "services.*.stdin_open", "services.*.tty",
		"services.*.healthcheck", "services.*.healthcheck.test", "services.*.healthcheck.disable", "services.*.healthcheck.interval",
		"services.*.healthcheck.timeout", "services.*.healthcheck.retries", "services.*.healthcheck.start_period", "services.*.healthcheck.start_interval",
		"services.*.ports", "services.*.ports[].target", "services.*.ports[].published", "services.*.ports[].protocol",
		"services.*.ports[].host_ip", "services.*.ports[].mode",
	), []rule{
		{path: "services.*.ports[].name", use: warned, note: "only a remark"},
		{path: "services.*.ports[].app_protocol", use: warned, note: "only a remark"},
		{path: "services.*.depends_on.*.restart", use: warned, note: "a service is not restarted because another one was"},
		{path: "services.*.attach", use: warned, note: "use fairlead logs"},
		{path: "services.*.develop", use: warned, free: true, note: "files are not watched; deploy again"},
		{path: "services.*.external_links", use: refused, note: "join a network that both apps name"},
		{path: "services.*.provider", use: refused, free: true, note: "providers do not run on a cluster"},
		{path: "services.*.pre_start", use: refused, free: true, note: "use a service with restart: \"no\" and depends_on: {condition: service_completed_successfully}"},
		{path: "services.*.post_start", use: refused, free: true, note: "start it from the image's entrypoint"},
		{path: "services.*.pre_stop", use: refused, free: true, note: "handle stop_signal in the program"},
	})
}

func deployRules() []rule {
	return slices.Concat(ok(
		"services.*.deploy", "services.*.deploy.endpoint_mode", "services.*.deploy.replicas", "services.*.deploy.labels{}",
		"services.*.deploy.resources", "services.*.deploy.resources.limits", "services.*.deploy.resources.limits.cpus",
		"services.*.deploy.resources.limits.memory", "services.*.deploy.resources.limits.pids",
		"services.*.deploy.resources.reservations", "services.*.deploy.resources.reservations.cpus", "services.*.deploy.resources.reservations.memory",
		"services.*.deploy.restart_policy", "services.*.deploy.restart_policy.condition", "services.*.deploy.restart_policy.delay",
		"services.*.deploy.restart_policy.max_attempts", "services.*.deploy.restart_policy.window",
		"services.*.deploy.placement", "services.*.deploy.placement.constraints", "services.*.deploy.placement.preferences",
		"services.*.deploy.placement.preferences[].spread", "services.*.deploy.placement.max_replicas_per_node",
	), updateRules("update_config", ".failure_action"), updateRules("rollback_config"), []rule{
		{path: "services.*.deploy.rollback_config.failure_action", use: honoured, note: "without it tasks that fail on the way back are tried again before others are touched"},
		{path: "services.*.deploy.resources.reservations.devices", use: refused, free: true, note: "GPUs and devices come later"},
		{path: "services.*.deploy.resources.reservations.generic_resources", use: refused, free: true, note: "use placement.constraints with a node label"},
	})
}

func updateRules(section string, more ...string) []rule {
	var paths []string
	for _, k := range append([]string{"", ".parallelism", ".delay", ".monitor", ".max_failure_ratio", ".order"}, more...) {
		paths = append(paths, "services.*.deploy."+section+k)
	}
	return ok(paths...)
}

func buildRules() []rule {
	const b = "services.*.build"
	return slices.Concat(ok(
		b, b+".context", b+".dockerfile", b+".dockerfile_inline", b+".args{}", b+".labels{}", b+".target", b+".tags",
		b+".platforms", b+".no_cache", b+".pull", b+".cache_from", b+".extra_hosts{}", b+".network", b+".shm_size",
	), []rule{
		{path: b + ".cache_to", use: warned, note: "the builder's own cache is used"},
		{path: b + ".no_cache_filter", use: warned, note: "use no_cache"},
		{path: b + ".isolation", use: warned, note: "for Windows only"},
		{path: b + ".provenance", use: warned, note: "not recorded"},
		{path: b + ".sbom", use: warned, note: "not recorded"},
		{path: b + ".ulimits", use: warned, free: true, note: "builds run with the builder's limits"},
		{path: b + ".additional_contexts", use: refused, free: true, note: "put what the build needs below its context"},
		{path: b + ".entitlements", use: refused, note: "builds run without privileges"},
		{path: b + ".privileged", use: refused, note: "builds run without privileges"},
		{path: b + ".secrets", use: refused, free: true, note: "build the image elsewhere, and name it with image:"},
		{path: b + ".ssh", use: refused, free: true, note: "build the image elsewhere, and name it with image:"},
	})
}

// keyNode is the table as a tree.
type keyNode struct {
	rule     rule
	typ      byte // of valueTypes
	children map[string]*keyNode
}

func (k *keyNode) child(step string) *keyNode {
	if c := k.children[step]; c != nil {
		return c
	}
	return k.children["*"]
}

// names lists what may stand below k.
func (k *keyNode) names() []string {
	var out []string
	for n := range k.children {
		if n != "*" && n != "[]" {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

func keyTree() *keyNode {
	root := &keyNode{children: map[string]*keyNode{}}
	for _, r := range rules() {
		k := root
		for _, step := range keySteps(r.path) {
			c := k.children[step]
			if c == nil {
				c = &keyNode{children: map[string]*keyNode{}}
				k.children[step] = c
			}
			k = c
		}
		k.rule = r
	}
	for path, typ := range valueTypes() {
		k := root
		for _, step := range keySteps(path) {
			if k.children[step] == nil {
				k.children[step] = &keyNode{children: map[string]*keyNode{}}
			}
			k = k.children[step]
		}
		k.typ = typ
	}
	return root
}

// keySteps splits a path of the table: "a.b[].c" is a, b, [] and c.
func keySteps(path string) []string {
	return strings.Split(strings.ReplaceAll(path, "[]", ".[]"), ".")
}

// didYouMean proposes the nearest of the names, or says nothing.
func didYouMean(got string, names []string) string {
	best, most := "", max(1, len(got)/3)+1
	for _, n := range names {
		if d := distance(strings.ToLower(got), strings.ToLower(n), most); d < most {
			best, most = n, d
		}
	}
	if best == "" {
		return ""
	}
	return "did you mean " + best + "?"
}

// distance is the number of edits (a swap of neighbours is one) between short
// texts; at least most when it is not below.
func distance(a, b string, most int) int {
	if len(a)-len(b) >= most || len(b)-len(a) >= most || len(a) > 64 {
		return most
	}
	before, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
		before, prev, cur = prev, cur, before
	}
	return prev[len(b)]
}
