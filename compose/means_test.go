package compose

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/cluster"
)

// Everything about a container that is honoured, at once.
func TestContainerKeys(t *testing.T) {
	r := load1(t, `name: shop
services:
  web:
    image: a
    command: ["-x", "y z"]
    entrypoint: /run me
    working_dir: /w
    user: "1000:1000"
    group_add: [audio, 44]
    hostname: "{{.Node.Hostname}}-web"
    container_name: shop-web
    platform: linux/arm64
    labels: [a=b, com.docker.compose.project=x]
    network_mode: none
    stop_signal: SIGINT
    stop_grace_period: 1m30s
    read_only: true
    cap_add: [NET_ADMIN]
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    sysctls: {net.core.somaxconn: 1024}
    ulimits: {nproc: 100, nofile: {soft: 1, hard: 2}}
    tmpfs: ["/tmp:size=64m,mode=1770"]
    init: true
    stdin_open: true
    tty: true
    logging: {driver: json-file, options: {max-size: 1m}}
    extra_hosts: ["h:10.0.0.1", "gw:host-gateway"]
    dns: 1.1.1.1
    dns_search: [a.b]
    dns_opt: ["ndots:2"]
    devices: ["/dev/fuse"]
    shm_size: 64m
    pids_limit: 50
    cpus: 1.5
    mem_limit: 128m
    mem_reservation: 64m
    pull_policy: if_not_present
    healthcheck: {test: "curl -f x", interval: 3s, timeout: 2s, retries: 4, start_period: 9s, start_interval: 1s}
`)
	want := cluster.TaskSpec{
		Image: "a", Command: []string{"-x", "y z"}, Entrypoint: []string{"/run", "me"}, WorkingDir: "/w", User: "1000:1000",
		GroupAdd: []string{"audio", "44"}, Hostname: "{{.Node.Hostname}}-web", Aliases: []string{"shop-web"}, Platform: "linux/arm64",
		Labels: map[string]string{"a": "b"}, NetworkMode: "none", StopSignal: "SIGINT", StopGrace: cluster.Duration(90 * time.Second),
		ReadOnly: true, CapAdd: []string{"NET_ADMIN"}, CapDrop: []string{"ALL"}, SecurityOpt: []string{"no-new-privileges:true"},
		Sysctls: map[string]string{"net.core.somaxconn": "1024"},
		Ulimits: []cluster.Ulimit{{Name: "nofile", Soft: 1, Hard: 2}, {Name: "nproc", Soft: 100, Hard: 100}},
		Mounts:  []cluster.Mount{{Type: "tmpfs", Target: "/tmp", TmpfsSize: 64 << 20, TmpfsMode: 0o1770}},
		Init:    true, StdinOpen: true, TTY: true, LogDriver: "json-file", LogOpts: map[string]string{"max-size": "1m"},
		ExtraHosts: []string{"gw:host-gateway", "h:10.0.0.1"}, DNS: []string{"1.1.1.1"}, DNSSearch: []string{"a.b"}, DNSOptions: []string{"ndots:2"},
		Devices: []string{"/dev/fuse:/dev/fuse:rwm"}, ShmSize: 64 << 20,
		Resources: cluster.Resources{LimitCPU: 1500, LimitMemory: 128 << 20, ReserveMemory: 64 << 20, LimitPids: 50},
		Health: &cluster.Health{
			Test: []string{"CMD-SHELL", "curl -f x"}, Interval: cluster.Duration(3 * time.Second), Timeout: cluster.Duration(2 * time.Second),
			Retries: 4, StartPeriod: cluster.Duration(9 * time.Second), StartInterval: cluster.Duration(time.Second),
		},
	}
	if d := cmp.Diff(want, r.Services["web"].Task); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestDeployKeys(t *testing.T) {
	r := load1(t, `name: shop
services:
  web:
    image: a
    deploy:
      replicas: 4
      endpoint_mode: dnsrr
      labels: {x: y}
      placement: {constraints: ["node.labels.zone == a"], preferences: [{spread: node.labels.rack}], max_replicas_per_node: 2}
      restart_policy: {condition: on-failure, delay: 5s, max_attempts: 3, window: 2m}
      update_config: {parallelism: 0, delay: 1s, failure_action: pause, monitor: 9s, max_failure_ratio: 0.1, order: stop-first}
      rollback_config: {parallelism: 2}
  all: {image: b, deploy: {mode: global}}
  once: {image: c, restart: "no"}
  retry: {image: c, restart: "on-failure:5"}
  migrate: {image: c}
  user: {image: c, depends_on: {migrate: {condition: service_completed_successfully}, gone: {condition: service_started, required: false}}}
`)
	want := cluster.ServiceSpec{
		Mode: cluster.Replicated, Replicas: 4, EndpointMode: "dnsrr", Labels: map[string]string{"x": "y"},
		Task:      cluster.TaskSpec{Image: "a", Networks: []cluster.NetworkRef{{Name: "shop_default"}}},
		Placement: cluster.Placement{Constraints: []string{"node.labels.zone==a"}, Spread: []string{"node.labels.rack"}, MaxPerNode: 2},
		Restart:   cluster.RestartPolicy{Condition: "on-failure", Delay: cluster.Duration(5 * time.Second), MaxAttempts: 3, Window: cluster.Duration(2 * time.Minute)},
		Update: cluster.UpdatePolicy{
			Parallelism: maxReplicas, Delay: cluster.Duration(time.Second), FailureAction: "pause", Monitor: cluster.Duration(9 * time.Second),
			MaxFailureRatio: 0.1, Order: "stop-first",
		},
		Rollback: cluster.UpdatePolicy{Parallelism: 2}, Source: cluster.Source{File: "compose.yaml", Line: 3},
	}
	if d := cmp.Diff(want, r.Services["web"]); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if s := r.Services["all"]; s.Mode != cluster.Global || s.Replicas != 0 {
		t.Errorf("global: %+v", s)
	}
	for name, want := range map[cluster.ServiceName]cluster.RestartPolicy{
		"all": {}, "once": {Condition: "none"}, "retry": {Condition: "on-failure", MaxAttempts: 5}, "migrate": {Condition: "none"},
	} {
		if got := r.Services[name].Restart; got != want {
			t.Errorf("restart of %s: %+v", name, got)
		}
	}
	if d := cmp.Diff([]cluster.Dependency{{Service: "migrate", Condition: "service_completed_successfully"}}, r.Services["user"].DependsOn); d != "" {
		t.Error(d)
	}
}

func TestPorts(t *testing.T) {
	const compose = `name: shop
services:
  web:
    image: a
    ports:
      - "80:8080"
      - 443:8080
      - "5432:5432"
      - "53:53/udp"
      - "127.0.0.1:6000:60"
      - {target: 70, published: 7000, mode: host}
      - "9000"
    expose: [90, "91-92", "93/udp"]
`
	at := func(line int) cluster.Source { return cluster.Source{File: "compose.yaml", Line: line} }
	s := load1(t, compose).Services["web"]
	node := []cluster.PublishedPort{
		{Published: 6000, Target: 60, Protocol: "tcp", Mode: "node", HostIP: "127.0.0.1", Source: at(10)},
		{Published: 7000, Target: 70, Protocol: "tcp", Mode: "node", Source: at(11)},
	}
	wantPorts := append([]cluster.PublishedPort{
		{Published: 5432, Target: 5432, Protocol: "tcp", Mode: "gateway", Source: at(8)},
		{Published: 53, Target: 53, Protocol: "udp", Mode: "gateway", Source: at(9)},
	}, node...)
	if d := cmp.Diff(wantPorts, s.Ports); d != "" {
		t.Errorf("ports (-want +got)\n%s", d)
	}
	for i := range node {
		node[i].Source = cluster.Source{}
	}
	if d := cmp.Diff(node, s.Task.NodePorts); d != "" {
		t.Errorf("node ports (-want +got)\n%s", d)
	}
	if d := cmp.Diff([]cluster.Route{
		{Port: 8080, EntryPoints: []string{"web"}, Source: at(6)},
		{Port: 8080, EntryPoints: []string{"websecure"}, TLS: true, Source: at(7)},
	}, s.Routes); d != "" {
		t.Errorf("routes (-want +got)\n%s", d)
	}
	if d := cmp.Diff([]int{60, 70, 90, 91, 92, 5432, 8080, 9000}, s.Task.Expose); d != "" {
		t.Errorf("expose (-want +got)\n%s", d)
	}

	// where the gateways listen elsewhere, so do the routes
	r, err := Load(t.Context(), Options{Files: []string{write(t, in(`ports: ["8000:80", "80:81"]`))}, HTTPPort: 8000, HTTPSPort: 8443})
	if err != nil {
		t.Fatal(err)
	}
	if s := r.Services["web"]; len(s.Routes) != 1 || s.Routes[0].Port != 80 || len(s.Ports) != 1 || s.Ports[0].Published != 80 {
		t.Errorf("%+v", s)
	}
}

// Each port is said to stand where it does, in the long form too.
func TestPlacesOfPorts(t *testing.T) {
	s := load1(t, in(`ports:
  - {target: 53, published: 53}
  - {target: 53, published: 53, protocol: udp}
  - {target: 54, published: 54, host_ip: 127.0.0.1}
  - {target: 54, published: 54, host_ip: 127.0.0.2}
  - {target: 55, published: 55, protocol: udp, mode: host}
  - "56-57:56-57"`)).Services["web"]
	got := map[string]int{}
	for _, p := range s.Ports {
		got[fmt.Sprintf("%s:%d/%s %s", p.HostIP, p.Published, p.Protocol, p.Mode)] = p.Source.Line
	}
	want := map[string]int{
		":53/tcp gateway": 5, ":53/udp gateway": 6, "127.0.0.1:54/tcp node": 7, "127.0.0.2:54/tcp node": 8,
		":55/udp node": 9, ":56/tcp gateway": 10, ":57/tcp gateway": 10,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

// A line that moved must not replace a task.
func TestHashKnowsNoLines(t *testing.T) {
	const keys = "ports: ['127.0.0.1:1:2']\nvolumes: ['va:/x']\nlabels: {traefik.enable: 'true', traefik.http.routers.a.rule: 'Host(`a`)'}"
	a := load1(t, in(keys)+"volumes: {va: {}}\n").Services["web"]
	b := load1(t, "# moved\n\n"+in(strings.ReplaceAll(keys, "`a`", "`b`"))+"volumes: {va: {}}\n").Services["web"]
	if a.Task.Hash() != b.Task.Hash() {
		t.Errorf("%+v\n%+v", a.Task, b.Task)
	}
	if a.Routes[0].Source == b.Routes[0].Source || a.Routes[0].Host == b.Routes[0].Host {
		t.Error("the routes should differ")
	}
}

func TestRoutes(t *testing.T) {
	r, err := Load(t.Context(), Options{Domain: "example.com", Files: []string{write(t, `name: shop
services:
  my_web:
    image: a
    expose: [8080]
    x-fairlead:
      routes:
        - {}
        - {internal: true}
        - {host: Shop.Example.COM., path: /api, port: 81, tls: true}
        - {host: "*", path: /}
        - {host: "*.example.com"}
`)}})
	if err != nil {
		t.Fatal(err)
	}
	at := func(line int) cluster.Source { return cluster.Source{File: "compose.yaml", Line: line} }
	if d := cmp.Diff([]cluster.Route{
		{Host: "my-web.shop.example.com", Port: 8080, Source: at(8)},
		{Host: "my-web.shop.example.com", Port: 8080, Internal: true, Source: at(9)},
		{Host: "shop.example.com", Path: "/api", Port: 81, TLS: true, Source: at(10)},
		{Port: 8080, Source: at(11)},
		{Host: "*.example.com", Port: 8080, Source: at(12)},
	}, r.Services["my_web"].Routes); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

// A program that answers DNS and HTTP exposes one port that a route can mean.
func TestARouteNeverLeadsToUDP(t *testing.T) {
	s := load1(t, in("expose: ['53/udp', '80/tcp']\nx-fairlead: {routes: [{host: a.example.com}]}")).Services["web"]
	if len(s.Routes) != 1 || s.Routes[0].Port != 80 || !slices.Equal(s.Task.Expose, []int{80}) {
		t.Errorf("%+v, exposes %v", s.Routes, s.Task.Expose)
	}
}

func TestTemplatesInTheEnvironment(t *testing.T) {
	for value, warned := range map[string]bool{
		"{{.Node.Hostname}}-{{ .Task.Slot }}": false, "{{.Node.Nme}}": true, "{{ .Values.x }} {{range}}": false, "a{{- .Task.Version}}": true,
	} {
		r := load1(t, in("environment: {A: '"+value+"'}"))
		if got := r.Services["web"].Task.Env["A"]; got != value || (len(r.Warnings) == 1) != warned {
			t.Errorf("%s: %s, %v", value, got, r.Warnings)
		}
	}
}

func TestBindMountsThatAreNotMade(t *testing.T) {
	dir := project(t, map[string]string{"src/x": "x", "compose.yaml": in(`volumes:
  - {type: bind, source: /srv/a, target: /a, bind: {create_host_path: false}}
  - {type: bind, source: ./src, target: /b, bind: {create_host_path: false}}
  - {type: bind, source: /srv/c, target: /c, bind: {create_host_path: true}}
  - {type: bind, source: /srv/d, target: /d}
  - /srv/e:/e`)})
	r, err := Load(t.Context(), Options{Dir: dir, SingleNode: true})
	if err != nil {
		t.Fatal(err)
	}
	type made struct{ Never, Always bool } // neither: on an only node
	got := map[string]made{}
	for _, m := range r.Services["web"].Task.Mounts {
		got[m.Target] = made{m.NoCreate, m.Create}
	}
	if d := cmp.Diff(map[string]made{"/a": {Never: true}, "/b": {Never: true}, "/c": {Always: true}, "/d": {}, "/e": {}}, got); d != "" {
		t.Error(d)
	}
	said := func(r *Result, target string) (fails bool) {
		t.Helper()
		for _, w := range r.Warnings {
			if strings.Contains(w.String(), "/srv/"+target) {
				return strings.Contains(w.String(), "the task fails where it is not there")
			}
		}
		t.Errorf("no warning of /srv/%s", target)
		return false
	}
	if said(r, "a") || said(r, "c") || said(r, "e") {
		t.Errorf("on a single node: %v", r.Warnings)
	}
	dir = project(t, map[string]string{"compose.yaml": in(`volumes:
  - {type: bind, source: /srv/a, target: /a, bind: {create_host_path: false}}
  - {type: bind, source: /srv/c, target: /c, bind: {create_host_path: true}}
  - /srv/e:/e`)})
	if r, err = Load(t.Context(), Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	if !said(r, "a") || said(r, "c") || !said(r, "e") {
		t.Errorf("on several nodes: %v", r.Warnings)
	}
}

func TestRollbackConfig(t *testing.T) {
	r := load1(t, in("deploy:\n  rollback_config: {parallelism: 2, failure_action: pause, max_failure_ratio: 0.5}"))
	want := cluster.UpdatePolicy{Parallelism: 2, FailureAction: "pause", MaxFailureRatio: 0.5}
	if got := r.Services["web"].Rollback; len(r.Warnings) != 0 || got != want {
		t.Errorf("%+v, %v", got, r.Warnings)
	}
}

func TestBindMounts(t *testing.T) {
	files := map[string]string{
		"a.conf": "A\n", "big.bin": strings.Repeat("x", 1<<20+1), "src/x": "x",
		"compose.yaml": `name: shop
services:
  web:
    image: a
    volumes:
      - ./a.conf:/etc/a.conf:ro
      - {type: bind, source: ./a.conf, target: /etc/b.conf, read_only: true}
      - /srv/x:/x
  big: {image: a, volumes: ["./big.bin:/b:ro"]}
  rw: {image: a, volumes: ["./a.conf:/b"]}
  dir: {image: a, volumes: ["./src:/b:ro"]}
`,
	}
	dir := project(t, files)
	r, err := Load(t.Context(), Options{Dir: dir, SingleNode: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Configs) != 1 || string(r.Configs[0].Content) != "A\n" || r.Configs[0].App != "shop" || len(r.Configs[0].Hash) != 16 {
		t.Fatalf("configs %+v", r.Configs)
	}
	c := r.Configs[0]
	if err := cluster.ValidName("config", c.Name); err != nil {
		t.Error(err)
	}
	web := r.Services["web"].Task
	if d := cmp.Diff([]cluster.FileRef{
		{Name: c.Name, Version: c.Hash, Target: "/etc/a.conf", Mode: 0o444}, {Name: c.Name, Version: c.Hash, Target: "/etc/b.conf", Mode: 0o444},
	}, web.Configs); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]cluster.Mount{{Type: "bind", Source: "/srv/x", Target: "/x"}}, web.Mounts); d != "" {
		t.Error(d)
	}
	for name, src := range map[cluster.ServiceName]string{"big": "big.bin", "rw": "a.conf", "dir": "src"} {
		m := r.Services[name].Task.Mounts
		if len(m) != 1 || m[0].Type != "bind" || m[0].Source != filepath.Join(dir, src) {
			t.Errorf("%s: %+v", name, m)
		}
	}
	if len(r.Warnings) != 4 { // /srv/x, and the three that stay
		t.Errorf("warnings %v", r.Warnings)
	}
	_, err = Load(t.Context(), Options{Dir: dir})
	if d := cmp.Diff([]string{
		"compose.yaml:9: services.big.volumes",
		"compose.yaml:10: services.rw.volumes", "compose.yaml:11: services.dir.volumes",
	}, places(err)); d != "" {
		t.Errorf("on several nodes (-want +got)\n%s\n%v", d, err)
	}
}

// A path that begins with $PWD or $HOME is of this machine, though it is absolute
// once the variable is filled in.
func TestBindMountsOfVariables(t *testing.T) {
	t.Parallel()
	dir := project(t, map[string]string{"a.conf": "A\n", "src/x": "x", "compose.yaml": `services:
  web:
    image: a
    volumes:
      - ${PWD}/a.conf:/a:ro
      - {type: bind, source: $HOME/a.conf, target: /b, read_only: true}
      - "${HOME:-/root}/src:/c"
      - ${PWD}/src:/d
      - $PWDS/src:/e
      - /srv/$HOME:/f
      - here:/g
volumes: {here: {driver_opts: {type: none, o: bind, device: "$PWD/src"}}}
`})
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"PWD": dir, "HOME": dir, "PWDS": "/other"}
	r, err := Load(t.Context(), Options{Dir: dir, Env: env, SingleNode: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := len(r.Services["web"].Task.Configs); got != 2 || len(r.Configs) != 1 {
		t.Errorf("%d files are brought along: %v", got, r.Configs)
	}
	_, err = Load(t.Context(), Options{Dir: dir, Env: env})
	if d := cmp.Diff([]string{"compose.yaml:7: services.web.volumes", "compose.yaml:8: services.web.volumes", "compose.yaml:12: volumes.here.driver_opts.device"}, places(err)); d != "" {
		t.Errorf("on several nodes (-want +got)\n%s\n%v", d, err)
	}
}

// A volume that is a directory of this machine is what a mount of it is.
func TestVolumesThatAreDirectories(t *testing.T) {
	t.Parallel()
	dir := project(t, map[string]string{"d/x": "", "compose.yaml": `services:
  web: {image: a, volumes: ["rel:/r", "ro:/ro", "abs:/a", "gone:/g"]}
  two: {image: a, volumes: ["rel:/r"]}
volumes:
  rel: {driver: local, driver_opts: {type: none, o: bind, device: ./d}}
  ro: {driver_opts: {type: none, o: "ro,bind", device: d}}
  abs: {driver: local, driver_opts: {type: none, o: bind, device: /srv/d}}
  gone: {driver: local, driver_opts: {type: none, o: bind, device: "${GONE:-./d}"}}
`})
	r, err := Load(t.Context(), Options{Dir: dir, SingleNode: true})
	if err != nil {
		t.Fatal(err)
	}
	var devices, warned []string
	for _, m := range r.Services["web"].Task.Mounts {
		devices = append(devices, m.DriverOpts["device"])
	}
	for _, w := range r.Warnings {
		warned = append(warned, strings.ReplaceAll(w.String(), dir, "DIR"))
	}
	if d := cmp.Diff([]string{dir + "/d", dir + "/d", "/srv/d", dir + "/d"}, devices); d != "" {
		t.Error(d)
	}
	const note = `.driver_opts.device: "DIR/d" is a path of this machine: this works while there is one node; leave driver_opts out to keep data in a volume`
	if d := cmp.Diff([]string{"compose.yaml:5: volumes.rel" + note, "compose.yaml:6: volumes.ro" + note, "compose.yaml:8: volumes.gone" + note}, warned); d != "" {
		t.Error(d)
	}
	_, err = Load(t.Context(), Options{Dir: dir})
	if d := cmp.Diff([]string{"compose.yaml:5: volumes.rel.driver_opts.device", "compose.yaml:6: volumes.ro.driver_opts.device", "compose.yaml:8: volumes.gone.driver_opts.device"}, places(err)); d != "" {
		t.Errorf("on several nodes %s\n%v", d, err)
	}
	_, err = Load(t.Context(), Options{Dir: dir, SingleNode: true, Env: map[string]string{"GONE": "./gone"}})
	if err == nil || !strings.HasSuffix(err.Error(), `/gone" is not there; make it, or leave driver_opts out`) {
		t.Errorf("%v", err)
	}
}

// What a source brings is on no node, also not on the only one; what is said to be elsewhere is.
func TestDirectoriesOfASource(t *testing.T) {
	t.Parallel()
	file := map[string]string{"app/d/x": "", "app/a.conf": "", "app/compose.yaml": `services:
  web:
    image: a
    volumes:
      - ./d:/a
      - ../../out:/b
      - ${PWD}/d:/c
      - ${HOME}/d:/d
      - rel:/e
      - up:/f
      - pwd:/g
      - home:/h
      - ./a.conf:/i
      - ./a.conf:/j:ro
      - /srv/d:/k
volumes:
  rel: {driver_opts: {type: none, o: bind, device: ./d}}
  up: {driver: local, driver_opts: {type: none, o: bind, device: ../../out}}
  pwd: {driver: local, driver_opts: {type: none, o: rbind, device: "${PWD}/d"}}
  home: {driver: local, driver_opts: {type: none, o: bind, device: "${HOME}/d"}}
`}
	dir, err := filepath.EvalSymlinks(project(t, file))
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	o := Options{Dir: filepath.Join(dir, "app"), SingleNode: true, Env: map[string]string{"PWD": filepath.Join(dir, "app"), "HOME": home}, Tree: dir}
	_, err = Load(t.Context(), o)
	at := func(line int, what string) string { return fmt.Sprintf("compose.yaml:%d: %s", line, what) }
	const mount = "services.web.volumes"
	want := []string{at(5, mount), at(6, mount), at(7, mount), at(13, mount), at(17, "volumes.rel.driver_opts.device"), at(18, "volumes.up.driver_opts.device"), at(19, "volumes.pwd.driver_opts.device")}
	if d := cmp.Diff(want, places(err)); d != "" {
		t.Errorf("%s\n%v", d, err)
	}
	o.Tree = ""
	if _, err := Load(t.Context(), o); err != nil && strings.Contains(err.Error(), "of the source") {
		t.Errorf("where nothing was fetched: %v", err)
	}
}

// What a source does not have is said to be missing, and no directory of it.
func TestMountsThatASourceDoesNotHave(t *testing.T) {
	t.Parallel()
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := project(t, map[string]string{"app/d/x": "", "app/a.conf": ""})
	const missing, ofHome = " is not in the source; correct the path, or use a named volume for data", " is a path of a home directory, which a source does not have; use a named volume"
	for source, want := range map[string]string{
		"./misssing.conf:/x":    `"./misssing.conf"` + missing,
		"./misssing.conf:/x:ro": `"./misssing.conf"` + missing,
		"./a.conf/b:/x":         `"./a.conf/b"` + missing,
		"../out:/x":             `"../out"` + missing,
		"~/data:/x":             `"~/data"` + ofHome,
		"~:/x:ro":               `"~"` + ofHome,
		"./d:/x":                `"./d" is a directory of the source, which no node has; use a named volume`,
		"..:/x":                 `".." is a directory of the source, which no node has; use a named volume`,
		"./a.conf:/x":           `"./a.conf" is a file of the source, which no node has; append :ro`,
	} {
		file := filepath.Join(dir, "app", "compose.yaml")
		if err := os.WriteFile(file, []byte("services:\n  web:\n    image: a\n    volumes: [\""+source+"\"]\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, single := range []bool{true, false} {
			for _, tree := range []string{dir, home} {
				if tree == home && !strings.HasPrefix(source, "~") {
					continue // the source is in a home directory: ~ is none of its paths, either
				}
				_, err := Load(t.Context(), Options{Dir: filepath.Dir(file), SingleNode: single, Tree: tree})
				if err == nil || !strings.Contains(err.Error(), "compose.yaml:4: services.web.volumes: "+want) {
					t.Errorf("%s: %v", source, err)
				}
			}
		}
	}
}

// A package brings no directory, whatever way it is written.
func TestDirectoriesOfAPackage(t *testing.T) {
	t.Parallel()
	doc := Document{Name: "a/templates/app.yaml", Content: []byte("services:\n  web: {image: a, volumes: [\"data:/d\"]}\nvolumes:\n  data: {driver_opts: {type: none, o: bind, device: ./d}}\n")}
	_, err := Load(t.Context(), Options{App: "a", Packaged: []Document{doc}, SingleNode: true})
	if err == nil || !strings.Contains(err.Error(), `a/templates/app.yaml:4: volumes.data.driver_opts.device: "./d" is a path of the machine that installs the package`) {
		t.Errorf("%v", err)
	}
}

// A config that nothing has is pruned with the next release: a deploy that brought it again
// would differ from the app for ever.
func TestUnusedConfigsAreLeftOut(t *testing.T) {
	const file = `name: shop
services:
  web: {image: a, configs: [c]}
  off: {image: a, configs: [d], profiles: [never]}
  migrate: {image: a, configs: [e], x-fairlead: {hook: {on: [pre-upgrade]}}}
configs:
  c: {content: of web}
  d: {content: of nobody}
  e: {content: of a hook}
  f: {content: of nobody either}
`
	r, err := Load(t.Context(), packaged(file))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range r.Configs {
		got = append(got, c.Name)
	}
	if d := cmp.Diff([]string{"c", "e"}, got); d != "" {
		t.Error(d)
	}
	if s := string(r.Rendered); strings.Contains(s, "nobody") || !strings.Contains(s, "of web") || !strings.Contains(s, "of a hook") {
		t.Errorf("rendered is\n%s", s)
	}
	// What is wrong with one is still said.
	_, err = Load(t.Context(), packaged(strings.Replace(file, "  f: {content: of nobody either}", "  f: {template_driver: golang, content: x}", 1)))
	if err == nil || !strings.Contains(err.Error(), "configs.f.template_driver") {
		t.Errorf("%v", err)
	}
}

func TestFilesAndConfigs(t *testing.T) {
	dir := project(t, map[string]string{
		"c.txt": "from file",
		"compose.yaml": `name: shop
services:
  web:
    image: a
    configs: [c, {source: d, target: /etc/d, uid: "1", gid: "2", mode: 0400}, e]
    secrets: [pw, {source: ext, target: other, mode: 0440}]
configs:
  c: {file: c.txt}
  d: {content: "in ${X}"}
  e: {environment: E}
secrets:
  pw: {file: pw.txt}
  ext: {external: true, name: shared-pw}
  gen: {external: true, x-fairlead: {generate: 16}}
  there: {external: true, name: in-vault, x-fairlead: {vault: kv/shop/db#password}}
`,
	})
	r, err := Load(t.Context(), Options{Dir: dir, Env: map[string]string{"X": "x", "E": "e"}})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	hash := map[string]string{}
	for _, c := range r.Configs {
		got[c.Name], hash[c.Name] = string(c.Content), c.Hash
	}
	if d := cmp.Diff(map[string]string{"c": "from file", "d": "in x", "e": "e"}, got); d != "" {
		t.Error(d)
	}
	task := r.Services["web"].Task
	if d := cmp.Diff([]cluster.FileRef{
		{Name: "c", Version: hash["c"], Target: "/c"},
		{Name: "d", Version: hash["d"], Target: "/etc/d", UID: "1", GID: "2", Mode: 0o400},
		{Name: "e", Version: hash["e"], Target: "/e"},
	}, task.Configs); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]cluster.FileRef{
		{Name: "pw", Target: "/run/secrets/pw"}, {Name: "shared-pw", Target: "/run/secrets/other", Mode: 0o440},
	}, task.Secrets); d != "" {
		t.Error(d)
	}
	var decls []string
	for _, s := range r.Secrets {
		decls = append(decls, fmt.Sprintf("%s %v %d %v %d %s", s.Name, s.External, s.Generate, s.HasValue, s.Source.Line, s.Vault))
	}
	if d := cmp.Diff([]string{"gen true 16 false 14 ", "in-vault true 0 false 15 kv/shop/db#password", "pw false 0 false 12 ", "shared-pw true 0 false 13 "}, decls); d != "" {
		t.Error(d)
	}
	if len(r.Warnings) != 1 || r.Warnings[0].Line != 12 || !strings.Contains(r.Warnings[0].Advice, "fairlead secret set shop/pw") {
		t.Errorf("a missing secret file: %v", r.Warnings)
	}
}

func TestNetworksAndVolumes(t *testing.T) {
	s := load1(t, `name: shop
services:
  web:
    image: a
    networks:
      back: {aliases: [w]}
      front: {priority: 10}
      shared: {}
    volumes:
      - data:/d
      - old:/o:ro
      - nfs:/n
      - /anon
      - {type: tmpfs, target: /t, tmpfs: {size: 1m}}
networks: {front: {}, back: {internal: true}, shared: {external: true, name: proxy}}
volumes:
  data: {}
  old: {external: true, name: legacy_data}
  nfs: {driver: local, driver_opts: {type: nfs, o: "addr=1.2.3.4", device: ":/x"}}
`).Services["web"].Task
	if d := cmp.Diff([]cluster.NetworkRef{
		{Name: "shop_front"}, {Name: "shop_back", Aliases: []string{"w"}, Internal: true}, {Name: "proxy", External: true},
	}, s.Networks); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]cluster.Mount{
		{Type: "volume", Source: "shop_data", Target: "/d"},
		{Type: "volume", Source: "legacy_data", Target: "/o", ReadOnly: true, External: true},
		{Type: "volume", Source: "shop_nfs", Target: "/n", DriverOpts: map[string]string{"type": "nfs", "o": "addr=1.2.3.4", "device": ":/x"}},
		{Type: "volume", Target: "/anon"},
		{Type: "tmpfs", Target: "/t", TmpfsSize: 1 << 20},
	}, s.Mounts); d != "" {
		t.Error(d)
	}
}

func TestTraefikLabels(t *testing.T) {
	for _, c := range []struct {
		what, labels, want string
	}{
		{"a host", "http.routers.a.rule=Host(`A.b`)|http.services.a.loadbalancer.server.port=81", "a.b→81"},
		{"the exposed port", "http.routers.a.rule=Host(`a.b`)", "a.b→80"},
		{"enable alone", "enable=true", "web.shop.localhost→80"},
		{"enable and a port", "enable=true|http.services.x.loadbalancer.server.port=81", "web.shop.localhost→81"},
		{"off", "enable=false|http.routers.a.rule=Host(`a.b`)", ""},
		{"everything", "http.routers.a.rule=Host(`a.b`) && PathPrefix(`/x`)|http.routers.a.entrypoints=web,websecure|http.routers.a.priority=7|http.routers.a.tls=true|http.services.s.loadbalancer.server.port=81|http.services.s.loadbalancer.server.scheme=h2c", "Host(`a.b`) && PathPrefix(`/x`)→81 [web websecure] tls priority 7 h2c; warned"},
		{"TLS alone is HTTPS alone", "http.routers.a.rule=Host(`a.b`)|http.routers.a.tls=true", "a.b→80 [websecure] tls"},
		{"websecure is TLS", "http.routers.a.rule=Host(`a.b`)|http.routers.a.entrypoints=websecure", "a.b→80 [websecure] tls"},
		{"certresolver", "http.routers.a.rule=Host(`a.b`)|http.routers.a.tls.certresolver=le", "a.b→80 [websecure] tls; warned"},
		{"a certificate's options, and no TLS", "http.routers.a.rule=Host(`a.b`)|http.routers.a.tls=false|http.routers.a.tls.certresolver=le", "a.b→80; warned"},
		{"the same the other way round", "http.routers.a.rule=Host(`a.b`)|http.routers.a.tls.certresolver=le|http.routers.a.tls=false", "a.b→80; warned"},
		{"both entry points", "http.routers.a.rule=Host(`a.b`)|http.routers.a.entrypoints=web,websecure", "a.b→80 [web websecure] tls"},
		{"TLS in clear", "http.routers.a.rule=Host(`a.b`)|http.routers.a.entrypoints=web|http.routers.a.tls=true", "a.b→80 [web] tls; warned"},
		{"TLS and not", "http.routers.a.rule=Host(`a.b`)|HTTP.routers.a.tls=true|http.routers.a.tls=false", "7: differs from line 6 of compose.yaml"},
		{"case of keys", "HTTP.Routers.a.Rule=Host(`a.b`)", "a.b→80"},
		{"chosen service", "http.routers.a.rule=Host(`a.b`)|http.routers.a.service=t@docker|http.services.s.loadbalancer.server.port=81|http.services.t.loadbalancer.server.port=82", "a.b→82"},
		{"middlewares", "http.routers.a.rule=Host(`a.b`)|http.routers.a.middlewares=c,h@swarm|http.middlewares.c.chain.middlewares=s|http.middlewares.s.stripprefix.prefixes=/x|http.middlewares.h.headers.customrequestheaders.X-Who=me", "a.b→80 s{stripprefix/prefixes=/x} h{headers/customrequestheaders/X-Who=me}"},
		{"compress", "http.routers.a.rule=Host(`a.b`)|http.routers.a.middlewares=z|http.middlewares.z.compress=true", "a.b→80 z{compress=true}"},
		{"true in another way", "http.routers.a.rule=Host(`a.b`)|http.routers.a.middlewares=z|http.middlewares.z.redirectscheme.scheme=https|http.middlewares.z.redirectscheme.permanent=True", "a.b→80 z{redirectscheme/permanent=trueredirectscheme/scheme=https}"},
		{"one rule, two priorities", "http.routers.a.rule=Host(`a.b`)|http.routers.a.priority=-5|http.routers.b.rule=Host(`a.b`)|http.routers.b.priority=100000000", "a.b→80 priority -5 | a.b→80 priority 100000000"},
		{"one host, two lengths", "http.routers.a.rule=Host(`a.b`)|http.routers.b.rule=Host(`a.b`) && PathPrefix(`/`)", "a.b→80 | Host(`a.b`) && PathPrefix(`/`)→80"},
		{"docker network", "docker.network=x|http.routers.a.rule=Host(`a.b`)", "a.b→80; warned"},

		{"which service", "http.routers.a.rule=Host(`a.b`)|http.services.s.loadbalancer.server.port=81|http.services.t.loadbalancer.server.port=82", "5: which service? web defines s, t"},
		{"other provider", "http.routers.a.rule=Host(`a.b`)|http.routers.a.middlewares=auth@file", `6: the middleware "auth@file" is not one of this app`},
		{"unknown middleware", "http.routers.a.rule=Host(`a.b`)|http.routers.a.middlewares=auht|http.middlewares.auth.basicauth.users=a:b", `6: there is no middleware "auht" in this app's labels`},
		{"middleware option", "http.routers.a.rule=Host(`a.b`)|http.middlewares.m.basicauth.user=a:b", `6: the middleware basicauth has no option "user" that works here`},
		{"middleware value", "http.routers.a.rule=Host(`a.b`)|http.middlewares.m.ratelimit.average=many", `6: "many" is not a whole number`},
		{"middleware regex", "http.middlewares.m.redirectregex.regex=(", "5: \"(\" is not a regular expression: error parsing regexp: missing closing ): `(`"},
		{"no such middleware", "http.middlewares.m.basic.users=a:b", `5: "basic" is not a middleware of Traefik 3`},
		{"plugin", "http.middlewares.m.plugin.x.y=1", "5: the middleware plugin is not supported yet"},
		{"chain of itself", "http.routers.a.rule=Host(`a.b`)|http.routers.a.middlewares=c|http.middlewares.c.chain.middlewares=c", "7: chains of middlewares in a circle, or too deep"},
		{"entry point", "http.routers.a.rule=Host(`a.b`)|http.routers.a.entrypoints=https", `6: there is no entry point "https"`},
		{"rule", "http.routers.a.rule=Host(a.b)", "5: the arguments of Host are texts in backticks"},
		{"rule without an end", "http.routers.a.rule=Host(`a.b`", "5: the rule \"Host(`a.b`\" does not read as Matcher(`value`) joined by && and ||"},
		{"old matcher", "http.routers.a.rule=Headers(`a`, `b`)", "5: Headers is not an HTTP matcher of Traefik 3; write Header(`name`, `value`)"},
		{"old Host", "http.routers.a.rule=Host(`a`, `b`)", "5: Host takes one value in Traefik 3; write Host(`a`) || Host(`b`)"},
		{"old pattern", "http.routers.a.rule=HostRegexp(`{sub:[a-z]+}.b`)", "5: \"{sub:[a-z]+}.b\" of Traefik 2; write HostRegexp(`^…$`) with a plain regular expression"},
		{"old pattern further on", "http.routers.a.rule=HostRegexp(`www.{d:[a-z]+}.b`)", "5: \"www.{d:[a-z]+}.b\" of Traefik 2; write HostRegexp(`^…$`) with a plain regular expression"},
		{"TCP by name", "tcp.routers.db.rule=HostSNI(`*`)|tcp.routers.db.entrypoints=x", "5: Traefik's TCP router db is not supported yet"},
		{"sticky", "http.services.s.loadbalancer.sticky.cookie=true", `5: the service option "loadbalancer.sticky.cookie" is not supported yet`},
		{"unknown router option", "http.routers.a.rul=Host(`a`)", `5: the router option "rul" is not supported yet`},
		{"incomplete", "http.routers=x", "5: the label is incomplete"},
	} {
		t.Run(c.what, func(t *testing.T) {
			file := "name: shop\nservices: {web: {image: a, expose: [80],\n  deploy: {},\n  labels: [\n"
			for l := range strings.SplitSeq(c.labels, "|") {
				file += "    'traefik." + l + "',\n"
			}
			r, err := Load(t.Context(), Options{Files: []string{write(t, file+"]}}\n")}})
			if got := traefikSays(r, err); !slices.Contains(got, c.want) {
				t.Errorf("%s\nwant %s\nhave %s\n%v", c.labels, c.want, strings.Join(got, "\n     "), err)
			}
		})
	}
}

// traefikSays prints the routes in one line, or the refusals, one a line.
func traefikSays(r *Result, err error) []string {
	if p, is := err.(*Problems); is { //nolint:errorlint // Load returns it bare
		var out []string
		for _, x := range p.List {
			out = append(out, fmt.Sprintf("%d: %s", x.Line, x.Message))
		}
		return out
	}
	var out []string
	for _, x := range r.Services["web"].Routes {
		s := fmt.Sprintf("%s%s→%d", x.Host, x.Rule, x.Port)
		if x.EntryPoints != nil {
			s += fmt.Sprint(" ", x.EntryPoints)
		}
		if x.TLS {
			s += " tls"
		}
		if x.Priority != 0 {
			s += fmt.Sprint(" priority ", x.Priority)
		}
		if x.Scheme != "" {
			s += " " + x.Scheme
		}
		for _, m := range x.Middlewares {
			s += " " + m.Name + "{"
			for _, k := range slices.Sorted(maps.Keys(m.Options)) {
				s += k + "=" + m.Options[k]
			}
			s += "}"
		}
		out = append(out, s)
	}
	text := strings.Join(out, " | ")
	if len(r.Warnings) > 0 {
		text += "; warned"
	}
	return []string{text}
}

// The usual way to send www on: one router for both hosts, and one above it.
func TestTraefikPriorityWithinAnApp(t *testing.T) {
	r := load1(t, `name: shop
services:
  a:
    image: a
    expose: [80]
    labels:
      traefik.http.routers.main.rule: Host("e.com") || Host("www.e.com")
      traefik.http.routers.www.rule: Host("www.e.com")
      traefik.http.routers.www.priority: 100
      traefik.http.routers.www.middlewares: r
      traefik.http.middlewares.r.redirectregex.regex: ^https?://www\.(.*)
      traefik.http.middlewares.r.redirectregex.replacement: https://$${1}
`)
	routes := r.Services["a"].Routes
	if len(routes) != 2 || routes[0].Rule == "" || routes[1].Host != "www.e.com" || routes[1].Priority != 100 || len(routes[1].Middlewares) != 1 {
		t.Errorf("%+v", routes)
	}
}

// In Traefik a priority puts any router before any other; here a host goes first.
func TestTraefikPriorityThatDoesNothing(t *testing.T) {
	const file = `name: shop
services:
  a:
    image: a
    expose: [80]
    labels:
      traefik.http.routers.api.rule: PathPrefix("/api")
      traefik.http.routers.api.priority: %d
      traefik.http.routers.main.rule: Host("e.com") || Host("www.e.com")
`
	r := load1(t, fmt.Sprintf(file, 1000))
	want := "compose.yaml:7: services.a.labels.traefik.http.routers.api.rule: the priority 1000 does not put this router before that of a (compose.yaml:9); " +
		"a rule with Host goes before one with HostRegexp, that before one without a host, whatever their priorities: give this one a host"
	if len(r.Warnings) != 1 || r.Warnings[0].String() != want {
		t.Errorf("%v", r.Warnings)
	}
	if r := load1(t, fmt.Sprintf(file, 5)); len(r.Warnings) > 0 {
		t.Errorf("what is lower anyway: %v", r.Warnings)
	}
	if r := load1(t, strings.Replace(fmt.Sprintf(file, 1000), `PathPrefix`, `Host("x.com") && PathPrefix`, 1)); len(r.Warnings) > 0 {
		t.Errorf("hosts by name both: %v", r.Warnings)
	}
	r = load1(t, fmt.Sprintf(file, 1000)+"      traefik.http.routers.main.entrypoints: websecure\n      traefik.http.routers.api.entrypoints: web\n")
	if slices.ContainsFunc(r.Warnings, func(w Problem) bool { return strings.Contains(w.Message, "priority") }) {
		t.Errorf("they never meet: %v", r.Warnings)
	}
}

// Routers of one service may lead to another: names are those of the app, in
// labels and in deploy.labels.
func TestTraefikAcrossServices(t *testing.T) {
	r := load1(t, `name: shop
services:
  a:
    image: a
    deploy:
      labels:
        traefik.http.routers.r.rule: Host(`+"`x.y`"+`)
        traefik.http.routers.r.service: s
        traefik.http.routers.r.middlewares: m
  b:
    image: b
    labels:
      traefik.http.services.s.loadbalancer.server.port: "99"
      traefik.http.routers.q.rule: Host(`+"`q.y`"+`)
      traefik.http.middlewares.m.addprefix.prefix: /p
`)
	if n := len(r.Services["a"].Routes); n != 0 {
		t.Errorf("a has %d routes", n)
	}
	routes := r.Services["b"].Routes
	if len(routes) != 2 || routes[0].Host != "x.y" || routes[0].Port != 99 || len(routes[0].Middlewares) != 1 || routes[0].Source.Line != 7 || routes[1].Host != "q.y" {
		t.Errorf("%+v", routes)
	}
}

func TestProbe(t *testing.T) {
	s := load1(t, in("x-fairlead:\n  health: {http: /h, port: 8080, interval: 5s, retries: 2}")).Services["web"].Task
	if d := cmp.Diff(&cluster.Health{HTTPPath: "/h", HTTPPort: 8080, Interval: cluster.Duration(5 * time.Second), Retries: 2}, s.Health); d != "" {
		t.Error(d)
	}
	s = load1(t, in("x-fairlead:\n  health: {tcp: 5432}")).Services["web"].Task
	if d := cmp.Diff(&cluster.Health{TCPPort: 5432}, s.Health); d != "" {
		t.Error(d)
	}
}

func TestExampleShop(t *testing.T) {
	const file = "../examples/shop/compose.yaml"
	if _, err := os.Stat(file); err != nil {
		t.Skip("no example here")
	}
	r, err := Load(t.Context(), Options{Files: []string{file}})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Services) < 4 || len(r.Builds) < 4 || len(r.Warnings) != 0 {
		t.Errorf("%d services, %d builds, warnings %v", len(r.Services), len(r.Builds), r.Warnings)
	}
}

// What a template makes may be nothing, whole or in part, and what of it does nothing is said.
func TestWhatIsLeftOfTemplates(t *testing.T) {
	const other = "services:\n  web: {image: a}\n"
	read := func(text string) (*Result, error) {
		return Load(t.Context(), Options{App: "a", SingleNode: true, Packaged: []Document{{Name: "a.yaml", Content: []byte(text)}, {Name: "b.yaml", Content: []byte(other)}}})
	}
	for _, text := range []string{"", "\n", "---\n", "\n\n---\n\n", "# a comment\n", "# a comment\n---\n# another\n", "null\n", "~\n---\n", "---\n" + other, other + "---\n", "---\n" + other + "---\n---\n"} {
		r, err := read(text)
		if err != nil || len(r.Services) != 1 || len(r.Warnings) > 0 {
			t.Errorf("%q: %v, %+v", text, err, r)
		}
	}
	for text, want := range map[string]string{
		"services:\n  q: {image: a, profiles: [x]}\n":               "services.q.profiles: left out: nobody can choose the profile of a package's service; switch it by a value: {{ if .Values.… }}",
		"services:\n  q: {image: a, command: 'echo ${HOME:-x}'}\n":  "services.q.command: the variable HOME has its default for good: a package has values instead; write {{ .Values.… }}; a dollar sign itself, as a shell's, is written $$",
		"services:\n  q: {image: a, command: 'echo $${HOME:-x}'}\n": "",
	} {
		r, err := read(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		got := ""
		for _, w := range r.Warnings {
			_, what, _ := strings.Cut(w.String(), ": ")
			got += what
		}
		if got != want {
			t.Errorf("%q warns %q, not %q", text, got, want)
		}
	}
	if _, err := read("services:\n  q: {image: 'a:${TAG:?which}'}\n"); err == nil || !strings.Contains(err.Error(), "{{ required") {
		t.Errorf("a variable that must be set: %v", err)
	}
}
