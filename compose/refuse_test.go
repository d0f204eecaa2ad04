package compose

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/cluster"
)

// in puts keys into the service web, which starts on line 2.
func in(keys string) string { return "services:\n  web:\n    image: a\n" + indent(keys, 4) }

func indent(s string, n int) string {
	pad := strings.Repeat(" ", n)
	return pad + strings.ReplaceAll(strings.TrimSuffix(s, "\n"), "\n", "\n"+pad) + "\n"
}

// bad are refused files, with all that the user sees, one problem a line.
var bad = []struct{ what, file, want string }{
	{"broken YAML", "services:\n  web: [\n", "compose.yaml:2: not valid YAML: did not find expected node content; check the indentation and brackets of this line and the ones before"},
	{"a tab", "services:\n\tweb: {}\n", "compose.yaml:2: not valid YAML: found character that cannot start any token; indent with spaces, and quote values that start with @, ` or %"},
	{"empty", "", "compose.yaml:1: the file is empty; start with services:"},
	{"a list", "- a\n", "compose.yaml:1: a Compose file is a mapping, this is a list; start with services:"},
	{"no services", "name: x\n", "compose.yaml:1: services: no service to run; write services: with at least one service"},
	{"a key twice", in("image: b"), `compose.yaml:4: key "image" is there twice (first on line 3); keep one`},
	{"unknown top key", "service: {}\n" + in("tty: true"), "compose.yaml:1: service: unknown key; did you mean services?"},
	{"unknown key", "services:\n  web:\n    imagee: a\n", "compose.yaml:3: services.web.imagee: unknown key; did you mean image?"},
	{"unknown deep key", in("healthcheck:\n  test: [CMD, a]\n  intervall: 3s"), "compose.yaml:6: services.web.healthcheck.intervall: unknown key; did you mean interval?"},
	{"unknown key without likeness", in("zzzzzz: 1"), "compose.yaml:4: services.web.zzzzzz: unknown key"},
	{"unknown key in a list", in("ports:\n  - target: 80\n    publish: 90"), "compose.yaml:6: services.web.ports[0].publish: unknown key; did you mean published?"},
	{"two at once", in("expose: 80\nreplicas: 3"), "compose.yaml:4: services.web.expose: must be a list, this is the number 80\ncompose.yaml:5: services.web.replicas: unknown key"},
	{"x-fairlead misspelt", in("x-fairleed: {}"), "compose.yaml:4: services.web.x-fairleed: unknown key; did you mean x-fairlead?"},
	{"x-fairlead misplaced", in("deploy:\n  x-fairlead: {}"), "compose.yaml:5: services.web.deploy.x-fairlead: x-fairlead does not belong here; it goes at the top of the file, into a service, or into a secret"},
	{"services as a list", "services:\n  - web\n", "compose.yaml:1: services: must be a mapping, this is a list"},
	{"service as text", "services:\n  web: nginx\n", `compose.yaml:2: services.web: must be a mapping, this is the text "nginx"`},
	{"image as a list", "services:\n  web:\n    image: [a]\n", "compose.yaml:3: services.web.image: must be text, this is a list"},
	{"environment as text", in("environment: A=b"), `compose.yaml:4: services.web.environment: must be a mapping or a list, this is the text "A=b"`},
	{"no such duration", in("stop_grace_period: soon"), `compose.yaml:4: services.web.stop_grace_period: "soon" is not a duration; write for example 30s or 1m30s`},
	{"no such size", in("mem_limit: lots"), `compose.yaml:4: services.web.mem_limit: "lots" is not an amount of memory; write for example 64M or 1.5G`},
	{"extends nothing", in("extends: {service: ''}"), "compose.yaml:4: services.web.extends: it names no service; write extends: {service: NAME}, with file: where it is in another file"},
	{"includes nothing", in("tty: true") + "include:\n  - {project_directory: x}\n", "compose.yaml:6: include[0]: it names no file; write path: with the file to include"},
	{"no such anchor", "# *base\n" + in("<<: *bases # *base\ndeploy:\n  labels: {a: '*base'}\nhealthcheck: {<<: [*base]}"), "compose.yaml:5: not valid YAML: unknown anchor 'bases' referenced; write &bases at what it stands for, above and in the same file"},
	{"no such anchor in a list", "x-a: &a 1\n" + in("cap_add: [*a,*b]"), "compose.yaml:5: not valid YAML: unknown anchor 'b' referenced; write &b at what it stands for, above and in the same file"},
	{"relative working directory", in("working_dir: app"), `compose.yaml:4: services.web.working_dir: "app" is not an absolute path; write it from / on`},
	{"no such signal", in("stop_signal: SIGTREM"), `compose.yaml:4: services.web.stop_signal: "SIGTREM" is not a signal; write for example SIGTERM`},
	{"no such capability", in("cap_add: [ALL, CAP_NET_RAW]\ncap_drop:\n  - chown\n  - NET_ADMN\n  - XYZZY"), "compose.yaml:7: services.web.cap_drop: \"NET_ADMN\" is not a capability; did you mean NET_ADMIN?\ncompose.yaml:8: services.web.cap_drop: \"XYZZY\" is not a capability; write for example NET_ADMIN, or ALL"},
	{"no such limit", in("ulimits:\n  nofile: 100\n  files: 3"), `compose.yaml:6: services.web.ulimits.files: "files" is not a limit of the kernel's; write for example nofile or nproc`},
	{"the node's setting", in("sysctls: [net.core.somaxconn=1, kernel.msgmax=2, vm.swappiness=3]"), `compose.yaml:4: services.web.sysctls.vm.swappiness: this setting is the whole node's, not a container's; set it on the nodes (sysctl -w), and leave it out`},
	{"the node's network settings, with slashes", in("network_mode: host\nsysctls:\n  net/core/somaxconn: 1"), `compose.yaml:6: services.web.sysctls.net/core/somaxconn: with network_mode: host it is the node's setting; set it on the nodes (sysctl -w), and leave it out`},
	{"the node's network settings", in("network_mode: host\nsysctls:\n  net.core.somaxconn: 1"), `compose.yaml:6: services.web.sysctls.net.core.somaxconn: with network_mode: host it is the node's setting; set it on the nodes (sysctl -w), and leave it out`},
	{"fewer than none", in("deploy:\n  update_config: {parallelism: -1}"), `compose.yaml:5: services.web.deploy.update_config.parallelism: "-1" is not a whole number from 0`},
	{"retries below zero", in("healthcheck:\n  retries: -1"), `compose.yaml:5: services.web.healthcheck.retries: "-1" is not a whole number from 0`},
	{"host without an address", in("labels: {}\nextra_hosts: [here]"), `compose.yaml:5: services.web.extra_hosts: invalid additional host, missing IP: here`},
	{"no such number", in("deploy:\n  replicas: many"), `compose.yaml:5: services.web.deploy.replicas: "many" is not a whole number`},
	{"no such boolean", in("read_only: perhaps"), `compose.yaml:4: services.web.read_only: "perhaps" is neither true nor false`},
	{"negative replicas", in("scale: -1"), "compose.yaml:4: services.web.scale: -1 replicas: must be from 0 to 10000"},
	{"too many replicas", in("scale: 100000"), "compose.yaml:4: services.web.scale: 100000 replicas: must be from 0 to 10000"},
	{"no image", "services:\n  web:\n    tty: true\n", "compose.yaml:2: services.web: there is neither image: nor build:; name the image to run"},
	{"image reference", "services:\n  web:\n    image: Not An Image\n", `compose.yaml:3: services.web.image: "Not An Image" is not an image reference: invalid reference format: repository name (library/Not An Image) must be lowercase`},
	{"invalid interpolation", "services:\n  web:\n    image: a:${\n", `compose.yaml:3: services.web.image: invalid interpolation in "a:${"; write $$ for a plain $`},
	{"required variable", "services:\n  web:\n    image: a:${TAG:?which tag}\n", "compose.yaml:3: services.web.image: required variable TAG is missing a value: which tag; set it in the environment or in .env"},
	{"anchor in itself", "services: &a\n  web: *a\n", "compose.yaml:2: anchor *a contains itself"},
	{"unknown anchor", "services:\n  web: *nope\n", "compose.yaml:2: not valid YAML: unknown anchor 'nope' referenced; write &nope at what it stands for, above and in the same file"},
	{"pulled by the clock", in("pull_policy: every_12h"), `compose.yaml:4: services.web.pull_policy: "every_12h" is not supported: an image is looked for when a task is made, not by the clock; write always, missing or never`},
	{"pulled every day", in("pull_policy: daily"), `compose.yaml:4: services.web.pull_policy: "daily" is not supported: an image is looked for when a task is made, not by the clock; write always, missing or never`},
	{"pulled somehow", in("pull_policy: refresh"), `compose.yaml:4: services.web.pull_policy: "refresh" is not supported; write always, missing or never`},
	{"a link under another name", in("links: [db:database]") + "  db: {image: b}\n", "compose.yaml:4: services.web.links: a link under another name is not supported; give db the name: networks: {default: {aliases: [database]}}"},
	{"a link out of the app", in("external_links: [\"other:o\"]"), "compose.yaml:4: services.web.external_links: not supported; join a network that both apps name"},
	{"missing dependency", in("depends_on: [dp]"), `compose.yaml:4: services.web.depends_on.dp: there is no service "dp"`},
	{"misspelt dependency", in("depends_on: [wb]"), `compose.yaml:4: services.web.depends_on.wb: there is no service "wb"; did you mean web?`},
	{"circle", in("depends_on: [db]") + "  db:\n    image: b\n    depends_on:\n      web: {condition: service_started}\n", "compose.yaml:4: services.web.depends_on.db: services wait for each other: db → web → db; remove one of these dependencies"},
	{"its own dependency", in("depends_on: [web]"), "compose.yaml:4: services.web.depends_on.web: services wait for each other: web → web; remove one of these dependencies"},
	{"disabled by profile", in("depends_on: [db]") + "  db: {image: b, profiles: [x]}\n", "compose.yaml:4: services.web.depends_on.db: the service db belongs to a profile that is not chosen; choose it with --profile, or write required: false"},
	{"never healthy", in("depends_on: {db: {condition: service_healthy}}") + "  db: {image: b, healthcheck: {disable: true}}\n", "compose.yaml:4: services.web.depends_on.db: db has its health check disabled and can never be healthy; write condition: service_started"},
	{"never completes", in("depends_on: {db: {condition: service_completed_successfully}}") + "  db: {image: b, restart: always}\n", "compose.yaml:5: services.db.restart: another service waits until this one has completed, which restart: always never lets it; write restart: \"no\" or on-failure"},
	{"undeclared volume", in(`volumes: ["data:/data"]`), `compose.yaml:4: services.web.volumes: there is no volume "data"; declare it at the top of the file: volumes: {data: …}`},
	{"misspelt volume", in(`volumes: ["data:/data"]`) + "volumes: {dta: {}}\n", `compose.yaml:4: services.web.volumes: there is no volume "data"; did you mean dta?`},
	{"undeclared secret", in("secrets: [pw]"), `compose.yaml:4: services.web.secrets: there is no secret "pw"; declare it at the top of the file: secrets: {pw: …}`},
	{"undeclared config", in("configs: [c]"), `compose.yaml:4: services.web.configs: there is no config "c"; declare it at the top of the file: configs: {c: …}`},
	{"undeclared network", in("networks: [n]"), `compose.yaml:4: services.web.networks.n: there is no network "n"; declare it at the top of the file: networks: {n: …}`},
	{"undeclared secret_env", in("x-fairlead:\n  secret_env: {A: pw}"), `compose.yaml:5: services.web.x-fairlead.secret_env.A: there is no secret "pw"; declare it at the top of the file: secrets: {pw: …}`},
	{"secret without source", in("tty: true") + "secrets:\n  pw: {}\n", "compose.yaml:6: secrets.pw: one of file|environment must be set; write external: true for one that is in the store, or generated"},
	{"no place in Vault", in("tty: true") + "secrets:\n  pw:\n    external: true\n    x-fairlead: {vault: kv/shop}\n", `compose.yaml:8: secrets.pw.x-fairlead.vault: "kv/shop" is no place in Vault: write MOUNT/PATH#FIELD, as in kv/shop/db#password`},
	{"in Vault and generated", in("tty: true") + "secrets:\n  pw:\n    external: true\n    x-fairlead: {generate: 16, vault: kv/shop#x}\n", "compose.yaml:8: secrets.pw.x-fairlead.vault: its value is in Vault, and also generated or from a file or environment; keep one of them"},
	{"missing config file", in("configs: [c]") + "configs:\n  c: {file: c.txt}\n", "compose.yaml:6: configs.c.file: cannot read c.txt: it is not there"},
	{"missing env file", in("env_file: web.env"), "compose.yaml:4: services.web.env_file: cannot read web.env: it is not there"},
	{"missing include", "include: [x.yaml]\n" + in("tty: true"), "compose.yaml:1: include[0]: cannot read the file x.yaml: it is not there"},
	{"include of itself", "include: [compose.yaml]\n" + in("tty: true"), "compose.yaml:1: include[0]: include goes in a circle through compose.yaml"},
	{"remote include", "include:\n  - https://example.com/compose.yaml\n" + in("tty: true"), `compose.yaml:2: include[0]: "https://example.com/compose.yaml" is not a local file; fetch it first, and name the copy`},
	{"extends nothing", in("extends: base"), `compose.yaml:4: services.web.extends: there is no service "base" in compose.yaml`},
	{"extends in a circle", in("extends: b") + "  b: {extends: web}\n", "compose.yaml:5: services.b.extends: extends goes in a circle"},
	{"percentage of nothing", in("x-fairlead:\n  autoscale: {max: 3, cpu: 70%}"), `compose.yaml:5: services.web.x-fairlead.autoscale.cpu: a percentage of the reserved CPU, and none is reserved; write deploy: {resources: {reservations: {cpus: "0.25"}}}`},
	{"percentage of no memory", in("x-fairlead:\n  autoscale: {max: 3, memory: 70%}"), "compose.yaml:5: services.web.x-fairlead.autoscale.memory: a percentage of the reserved memory, and none is reserved; write deploy: {resources: {reservations: {memory: 64M}}}"},
	{"autoscale without target", in("x-fairlead:\n  autoscale: {min: 2, max: 3}"), "compose.yaml:5: services.web.x-fairlead.autoscale: there is no target; write cpu: 70% or memory: 80%"},
	{"autoscale without max", in("deploy: {resources: {reservations: {cpus: '1'}}}\nx-fairlead:\n  autoscale: {min: 2, cpu: 50}"), "compose.yaml:6: services.web.x-fairlead.autoscale: there is no max; write the most replicas there may be"},
	{"strange percentage", in("x-fairlead:\n  autoscale: {max: 3, cpu: half}"), `compose.yaml:5: services.web.x-fairlead.autoscale.cpu: "half" is not a percentage from 1% to 1000%`},
	{"unknown extension key", in("x-fairlead:\n  autoscale: {max: 3, cpus: 70%}"), "compose.yaml:5: services.web.x-fairlead.autoscale.cpus: unknown key; did you mean cpu?"},
	{"unknown route key", in("x-fairlead:\n  routes:\n    - {hosts: a}"), "compose.yaml:6: services.web.x-fairlead.routes[0].hosts: unknown key; did you mean host?"},
	{"extension of a wrong type", in("x-fairlead:\n  routes: shop.example.com"), `compose.yaml:5: services.web.x-fairlead.routes: must be a list, this is the text "shop.example.com"`},
	{"which port", in("expose: [80, 81]\nx-fairlead:\n  routes:\n    - host: a.example.com"), "compose.yaml:7: services.web.x-fairlead.routes: which port? The service web exposes 80, 81; add port: to the route"},
	{"which port, of a label", in("labels:\n  traefik.http.routers.r.rule: Host(`a.b`)"), "compose.yaml:5: services.web.labels.traefik.http.routers.r.rule: which port? The service exposes none; add the label traefik.http.services.web.loadbalancer.server.port, or expose: to the service web"},
	{"which port, of a label's service", in("expose: [80, 81]\nlabels:\n  traefik.http.routers.r.rule: Host(`a.b`)\n  traefik.http.services.S.loadbalancer.server.scheme: http"), "compose.yaml:6: services.web.labels.traefik.http.routers.r.rule: which port? The service web exposes 80, 81; add the label traefik.http.services.S.loadbalancer.server.port"},
	{"strange host", in("x-fairlead:\n  routes: [{host: 'http://a', port: 80}]"), `compose.yaml:5: services.web.x-fairlead.routes: "http://a" is not a host name; write for example shop.example.com, without a scheme or port`},
	{"rule in a host", in("x-fairlead:\n  routes: [{host: 'a`) || Host(`b', port: 80}]"), "compose.yaml:5: services.web.x-fairlead.routes: \"a`) || Host(`b\" is not a host name; write for example shop.example.com, without a scheme or port"},
	{"route twice", in("x-fairlead:\n  routes:\n    - {host: a.b, port: 1}\n    - {host: A.b., port: 2}"), "compose.yaml:7: services.web.x-fairlead.routes: the route a.b is taken by web (compose.yaml:6); choose another host or path"},
	{"two routes without a host", in(`ports: ["80:80"]`) + "  two:\n    image: b\n    ports: [80:81]\n", "compose.yaml:4: services.web.ports: the route * is taken by two (compose.yaml:7); choose another host or path"},
	{"one rule twice", in("expose: [80]\nlabels:\n  traefik.http.routers.a.rule: Host(`a.b`) || Host(`b.c`)\n  traefik.http.routers.b.rule: Host(`b.c`) || Host(`c.d`)"), "compose.yaml:7: services.web.labels.traefik.http.routers.b.rule: the route Host(`b.c`) || Host(`c.d`) is taken by web (compose.yaml:6); choose another host or path, or give one of them a priority"},
	{"matcher in strange letters", in("expose: [80]\nlabels:\n  traefik.http.routers.a.rule: hOsT(`a.b`) && Path(`/x`)"), "compose.yaml:6: services.web.labels.traefik.http.routers.a.rule: hOsT is not an HTTP matcher of Traefik 3"},
	{"address with a zone", in("expose: [80]\nlabels:\n  traefik.http.routers.a.rule: ClientIP(`fe80::1%eth0`)"), "compose.yaml:6: services.web.labels.traefik.http.routers.a.rule: \"fe80::1%eth0\" is neither an IP address nor a range such as 10.0.0.0/8"},
	{"middleware that gateways do not take", in("expose: [80]\nlabels:\n  traefik.http.routers.a.rule: Host(`a.b`)\n  traefik.http.routers.a.middlewares: m\n  traefik.http.middlewares.m.ratelimit.average: '-1'"), "compose.yaml:6: services.web.labels.traefik.http.routers.a.rule: middleware m: ratelimit/average: -1 is not between 0 and 9223372036854775807"},
	{"priority beyond all", in("expose: [80]\nlabels:\n  traefik.http.routers.a.rule: Host(`a.b`)\n  traefik.http.routers.a.priority: 100000001"), `compose.yaml:7: services.web.labels.traefik.http.routers.a.priority: "100000001" is not a priority from -100000000 to 100000000`},
	{"port twice", in(`ports: ["5432:5432", "5432:1"]`), "compose.yaml:4: services.web.ports: port 5432/tcp is taken by web (compose.yaml:4); publish another port"},
	{"unknown option of a mount", in("volumes:\n  - /a:/a\n  - /b:/b:roo"), `compose.yaml:6: services.web.volumes: there is no option "roo"; did you mean ro?`},
	{"propagation of a mount", in(`volumes: ["/a:/a:ro,rshared"]`), "compose.yaml:4: services.web.volumes: the option rshared is not supported; mounts are private"},
	{"strange spread", in("deploy:\n  placement:\n    preferences:\n      - spread: zone.a"), `compose.yaml:7: services.web.deploy.placement.preferences: "zone.a" is not an attribute of a node; write for example spread: node.labels.zone`},
	{"strange security option", in("security_opt:\n  - no-new-privileges\n  - systempaths=unconfined"), `compose.yaml:6: services.web.security_opt: "systempaths" is not supported; there are no-new-privileges, seccomp, apparmor and label`},
	{"strange privileges", in(`security_opt: ["no-new-privileges:maybe"]`), `compose.yaml:4: services.web.security_opt: "maybe" is neither true nor false`},
	{"security option without a value", in(`security_opt: [apparmor]`), `compose.yaml:4: services.web.security_opt: "apparmor" has no value; write for example seccomp=profile.json, apparmor=unconfined or label=disable`},
	{"no seccomp profile", in(`security_opt: ["seccomp:./p.json"]`), `compose.yaml:4: services.web.security_opt: cannot read the seccomp profile p.json: it is not there`},
	{"port range", in("ports:\n  - {target: 80, published: 8000-8010}"), `compose.yaml:5: services.web.ports: "8000-8010" is not one port from 1 to 65535; name one port for each target`},
	{"no such port", in(`ports: ["80:99999"]`), `compose.yaml:4: services.web.ports[0]: "80:99999" is not a port such as 8080:80 (invalid containerPort: 99999)`},
	{"no such protocol", in(`ports: [{target: 80, published: 90, protocol: sctp}]`), `compose.yaml:4: services.web.ports: the protocol "sctp" is not supported; write tcp or udp`},
	{"bind on many nodes", in("volumes: [./src:/src]"), `compose.yaml:4: services.web.volumes: "./src" is a path of this machine, which other nodes do not have; bring files with configs:, code with build:, and keep data in a volume`},
	{"target twice", in("volumes: [va:/x, vb:/x]") + "volumes: {va: {}, vb: {}}\n", "compose.yaml:4: services.web.volumes: \"/x\" is mounted twice (first on line 4)"},
	{"volume of one letter", in("volumes: ['v:/data']"), `compose.yaml:4: services.web.volumes[0]: "v:/data" reads as a drive of Windows, with docker compose too; give the volume a name of two letters or more`},
	{"relative target", in("volumes: ['data:data']"), `compose.yaml:4: services.web.volumes[0]: "data:data" has no absolute path in the container; write for example data:/data`},
	{"whole file system", in("volumes: ['va:/']") + "volumes: {va: {}}\n", `compose.yaml:4: services.web.volumes: the target "/" is the whole file system; write an absolute path in the container`},
	{"secret outside", in("secrets: [{source: pw, target: ../../etc/passwd}]") + "secrets: {pw: {external: true}}\n", `compose.yaml:4: services.web.secrets: the target "../../etc/passwd" leaves /run/secrets; write an absolute path`},
	{"pid", in("pid: host"), "compose.yaml:4: services.web.pid: not supported; every container has its own process namespace"},
	{"gpus", in("gpus: all"), "compose.yaml:4: services.web.gpus: not supported; GPUs come later"},
	{"network of another", in("network_mode: service:db") + "  db: {image: b}\n", `compose.yaml:4: services.web.network_mode: "service:db" is not supported; write none or host, or let the services meet on a network by their names`},
	{"macvlan", in("networks: [n]") + "networks:\n  n: {driver: macvlan}\n", `compose.yaml:6: networks.n.driver: "macvlan" is not supported; leave it out: networks reach all nodes`},
	{"constraint", in("deploy:\n  placement:\n    constraints:\n      - node.role==manager\n      - zone is a"), `compose.yaml:8: services.web.deploy.placement.constraints: "zone is a" is not a constraint; write for example node.labels.zone==a, node.hostname!=b or node.role==manager`},
	{"reservation above limit", in("deploy:\n  resources:\n    limits: {cpus: '1', memory: 64M}\n    reservations: {cpus: '2', memory: 128M}"), "compose.yaml:7: services.web.deploy.resources.reservations.cpus: the reservation is above the limit\ncompose.yaml:7: services.web.deploy.resources.reservations.memory: the reservation is above the limit"},
	{"impossible CPU", in("cpus: 1000000"), "compose.yaml:4: services.web.cpus: must be a number of processors from 0.001 to 100000"},
	{"impossible memory", in("mem_limit: 1M"), "compose.yaml:4: services.web.mem_limit: must be an amount of memory from 6M to 1024T"},
	{"restart policy", in("restart: sometimes"), `compose.yaml:4: services.web.restart: "sometimes" is not a restart policy; write no, always, on-failure or unless-stopped`},
	{"mode", in("deploy: {mode: replicated-job}"), `compose.yaml:4: services.web.deploy.mode: jobs come later; until then a service with restart: "no" runs once`},
	{"port in two modes", in("ports:\n  - {target: 5432, published: 5432}\n  - {target: 5432, published: 5432, mode: host}"), "compose.yaml:6: services.web.ports: port 5432 is given in line 5 already, with mode ingress; keep one of them"},
	{"port in two modes, short and long", in("ports:\n  - {target: 80, published: '1000', mode: host}\n  - '1000:80'\n  - '1000:80/udp'"), "compose.yaml:6: services.web.ports: port 1000 is given in line 5 already, with mode host; keep one of them"},
	{"failure action", in("deploy:\n  update_config: {failure_action: explode}"), `compose.yaml:5: services.web.deploy.update_config.failure_action: "explode" is not known; write continue or pause or rollback`},
	{"hostname template", in("hostname: '{{.Node.Labels}}'"), `compose.yaml:4: services.web.hostname: "{{.Node.Labels}}" is not a template that is filled; use {{.Node.Hostname}}, {{.Node.ID}}, {{.Service.Name}}, {{.Task.Name}}, {{.Task.Slot}} or {{.Task.ID}}`},
	{"label of ours", in("labels: {io.fairlead.task: x}"), "compose.yaml:4: services.web.labels.io.fairlead.task: this label is set by Fairlead; choose another name"},
	{"names that differ in case", in("tty: true") + "  Web: {image: b}\n", "compose.yaml:5: services.Web: differs from web (line 2) only in case; names do not distinguish it"},
	{"hostile service name", "services:\n  ../../etc: {image: a}\n", `compose.yaml:2: services.../../etc: service name "../../etc": use 1 to 63 letters, digits, _ and -, starting with a letter or digit`},
	{"hostile volume name", in("volumes: [va:/x]") + "volumes:\n  va: {name: ../../etc}\n", `compose.yaml:6: volumes.va: volume name "../../etc": use 1 to 100 letters, digits, _, . and -, starting with a letter or digit`},
	{"socket", "services:\n  lb:\n    image: traefik:v3\n    volumes: ['/var/run/docker.sock:/var/run/docker.sock:ro']\n", "compose.yaml:4: services.lb.volumes: Traefik reading the Docker socket: the gateways do this already; remove the service lb; routes of the other services come from x-fairlead.routes, ports or their traefik labels"},
}

func TestRefused(t *testing.T) {
	for _, c := range bad {
		t.Run(c.what, func(t *testing.T) {
			_, err := Load(t.Context(), Options{Files: []string{write(t, c.file)}})
			got := fmt.Sprint(err)
			if d := cmp.Diff(strings.Split(c.want, "\n"), strings.Split(got, "\n")); d != "" {
				t.Errorf("(-want +got)\n%s\nfile:\n%s", d, c.file)
			}
			var p *Problems
			if !errors.As(err, &p) || cluster.KindOf(err) != cluster.KindInvalid {
				t.Errorf("%T of kind %s", err, cluster.KindOf(err))
			}
		})
	}
}

// What is large or strange is refused before it costs anything.
func TestBounds(t *testing.T) {
	bomb := "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
	for i := 1; i < 10; i++ {
		bomb += fmt.Sprintf("a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10), ", "))
	}
	long := strings.Repeat("x", 900)
	for _, c := range []struct{ what, file, want string }{
		{"10 MB", in("tty: true") + "# " + strings.Repeat("x", 10<<20) + "\n", "compose.yaml: the file has 10485807 bytes; at most 2097152 are read"},
		{"a bomb of anchors", bomb, "compose.yaml:6: more than 200000 values once anchors are expanded"},
		{"deep nesting", "x-a: " + strings.Repeat("[", 500) + strings.Repeat("]", 500) + "\n", "compose.yaml:1: nested deeper than 64 levels"},
		{"a long name", "services:\n  " + long + ": {image: a}\n", "compose.yaml:2: services." + long[:60] + "…: service name \"xxx"},
		{"control characters", "services:\n  \"w\\x1b[31mb\": {image: a}\n", "compose.yaml:2: services.w\uFFFD[31mb: service name \"w\\x1b[31mb\": use"},
		{"a NUL in a command", "services:\n  web: {image: a, environment: {A: \"x\\0y\"}}\n", "compose.yaml:2: services.web.environment.A: \"A\" cannot be a variable"},
	} {
		_, err := Load(t.Context(), Options{Files: []string{write(t, c.file)}})
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: %.300v\nwant %s", c.what, err, c.want)
			continue
		}
		if len(err.Error()) > 2000 || strings.ContainsAny(err.Error(), "\x1b\x00") {
			t.Errorf("%s: the message is too long or unsafe for a terminal: %q", c.what, err)
		}
	}
}

func TestNoFile(t *testing.T) {
	_, err := Load(t.Context(), Options{Dir: t.TempDir()})
	if cluster.KindOf(err) != cluster.KindNotFound {
		t.Errorf("%v", err)
	}
	_, err = Load(t.Context(), Options{Files: []string{filepath.Join(t.TempDir(), "nope.yaml")}})
	if err == nil || !strings.Contains(err.Error(), "it is not there") {
		t.Errorf("%v", err)
	}
	_, err = Load(t.Context(), Options{Files: []string{t.TempDir()}})
	if err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("%v", err)
	}
}

func TestSignalsThatDockerTakes(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"TERM", "SIGTERM", "HUP", "SIGUSR1", "9", "64", "RTMIN", "SIGRTMIN+3", "RTMAX-14", "WINCH"} {
		if !knownSignal(s) {
			t.Errorf("%s is refused", s)
		}
	}
	for _, s := range []string{"", "0", "65", "-1", "SIG", "SIGSIGTERM", "RTMIN+16", "RTMAX-15", "TERMINATE"} {
		if knownSignal(s) {
			t.Errorf("%s is taken", s)
		}
	}
}
