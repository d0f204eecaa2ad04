package compose

import (
	"errors"
	"strings"
	"testing"

	"github.com/fairlead/fairlead/cluster"
)

// What does nothing, or does more than it seems, is not passed over in silence: each is
// a warning or a refusal that names the line.
func TestNothingIsIgnoredSilently(t *testing.T) {
	for _, c := range []struct{ what, file, want string }{
		{"host network", in("network_mode: host"), "compose.yaml:4: services.web.network_mode: public"},
		{"restart twice", in("restart: \"no\"\ndeploy: {restart_policy: {delay: 5s}}"), "compose.yaml:4: services.web.restart: deploy.restart_policy says otherwise"},
		{"fewer attempts", in("restart: on-failure:3\ndeploy: {restart_policy: {condition: on-failure}}"), "compose.yaml:4: services.web.restart: deploy.restart_policy says otherwise"},
		{"the same twice", in("restart: always\ndeploy: {restart_policy: {delay: 5s}}"), ""},
		{"attempts of always", in("restart: always:5"), `compose.yaml:4: services.web.restart: "always:5" is not a restart policy`},
		{"strange attempts", in("restart: on-failure:3x"), `compose.yaml:4: services.web.restart: "3x" is not a number of attempts`},
		{"tiny quota", in("cpu_quota: 50"), "compose.yaml:4: services.web.cpu_quota: is less than a thousandth of a processor"},
		{"period alone", in("cpu_period: 50000"), "compose.yaml:4: services.web.cpu_period: does nothing without cpu_quota"},
		{"Docker's own network", in("networks: [n]") + "networks: {n: {external: true, name: host}}\n", "compose.yaml:5: networks.n: Docker's own network host"},
		{"name of an own secret", in("secrets: [pw]") + "secrets: {pw: {environment: PW, name: other}}\n", "compose.yaml:5: secrets.pw.name: ignored"},
		{"name of an own config", in("configs: [c]") + "configs: {c: {content: x, name: other}}\n", "compose.yaml:5: configs.c.name: ignored"},
		{"name of an external secret", in("secrets: [pw]") + "secrets: {pw: {external: true, name: other}}\n", ""},
		{"gateway's port on the loopback", in(`ports: ["127.0.0.1:80:80"]`), "compose.yaml:4: services.web.ports: port 80 of this node is the gateway's"},
		{"all addresses, then one", in(`ports: ["5432:1"]`) + "  x:\n    image: b\n    ports: ['127.0.0.1:5432:1']\n", "compose.yaml:7: services.x.ports: port 5432/tcp is taken by web"},
		{"one address, then all", in(`ports: ["127.0.0.1:5432:1"]`) + "  x:\n    image: b\n    ports: ['5432:1']\n", "compose.yaml:7: services.x.ports: port 5432/tcp is taken by web"},
		{"two addresses", in(`ports: ["127.0.0.1:5432:1"]`) + "  x:\n    image: b\n    ports: ['127.0.0.2:5432:1']\n", ""},
		{"TLS of what is internal", in("x-fairlead:\n  routes:\n    - {internal: true, tls: true, port: 80}"), "compose.yaml:6: services.web.x-fairlead.routes: tls is ignored: the internal entry point speaks HTTP"},
		{"no swapping", in("mem_swappiness: 0"), "compose.yaml:4: services.web.mem_swappiness: ignored; not set"},
		{"the usual swapping", in("mem_swappiness: -1"), ""},
		{"a umask of nothing", in("umask: 0"), "compose.yaml:4: services.web.umask: not supported; set it in the image's entrypoint"},
		{"no umask", in("umask:"), ""},
		{"not its own name", in("networks: {default: {use_service_name_alias: false}}"), "compose.yaml:4: services.web.networks.default.use_service_name_alias: not supported; a service always has its name"},
		{"its own name", in("networks: {default: {use_service_name_alias: true}}"), ""},
		{"no IPv4", in("") + "networks: {default: {enable_ipv4: false}}\n", "compose.yaml:5: networks.default.enable_ipv4: ignored; networks have IPv4"},
		{"IPv4", in("") + "networks: {default: {enable_ipv4: true}}\n", ""},
		{"two devices at one path", in("devices:\n  - /dev/null:/dev/x\n  - /dev/zero:/dev/x:r"), `compose.yaml:6: services.web.devices: "/dev/x" is mounted twice (first on line 5)`},
		{"two sizes of a tmpfs", in("tmpfs:\n  - /run:size=1m\n  - /run:size=2m"), `compose.yaml:6: services.web.tmpfs: "/run" is mounted twice (first on line 5)`},
		{"two secrets at one path", in("secrets:\n  - a\n  - {source: b, target: /run/secrets/a}") + "secrets: {a: {external: true}, b: {external: true}}\n", `compose.yaml:6: services.web.secrets: "/run/secrets/a" is mounted twice (first on line 5)`},
		{"a config twice", in("configs:\n  - a\n  - {source: a, mode: 0400}") + "configs: {a: {content: x}}\n", "compose.yaml:6: services.web.configs: /a is set twice (first on line 5): this value counts"},
		{"a secret at two paths", in("secrets:\n  - a\n  - {source: a, target: b}") + "secrets: {a: {external: true}}\n", ""},
		{"a sysctl twice", in("sysctls:\n  - net.core.somaxconn=1\n  - net.core.somaxconn=2"), "compose.yaml:6: services.web.sysctls: net.core.somaxconn is set twice (first on line 5): this value counts"},
		{"a build argument twice", in("build:\n  context: /\n  args:\n    - A=1\n    - A=2"), "compose.yaml:8: services.web.build.args: A is set twice (first on line 7): this value counts"},
		{"memory in fractions", in("mem_limit: 1.5"), `compose.yaml:4: services.web.mem_limit: "1.5" is not a whole number of bytes; write for example 64M or 1.5G`},
		{"a port of this node alone", in(`ports: ["127.0.0.1::6000"]`), `compose.yaml:4: services.web.ports: no fixed port is given: 6000 is reachable from inside only; write "127.0.0.1:6000:6000" to publish it`},
		{"strange tmpfs", in("tmpfs: '/a:x:y'"), `compose.yaml:4: services.web.tmpfs: "/a:x:y" is not a path and its options`},
	} {
		r, err := Load(t.Context(), Options{Files: []string{write(t, c.file)}, SingleNode: true, HTTPPort: 80, HTTPSPort: 443})
		var said []string
		if err != nil {
			if p := (*Problems)(nil); !errors.As(err, &p) {
				t.Fatalf("%s: %v", c.what, err)
			}
			said = strings.Split(err.Error(), "\n")
		} else {
			for _, w := range r.Warnings {
				said = append(said, w.String())
			}
		}
		got := strings.Join(said, "\n")
		if (c.want == "" && got != "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: says\n%s\nwant\n%s", c.what, got, c.want)
		}
	}
}

// What Docker takes is taken, and what it would get wrong is said.
func TestSmallThings(t *testing.T) {
	t.Parallel()
	const off = "depends_on: {db: {condition: service_healthy}}"
	tmp := func(mode string) string {
		return in("volumes:\n  - type: tmpfs\n    target: /t\n    tmpfs: {mode: " + mode + "}")
	}
	files := func(mode string) string {
		return in("secrets:\n  - source: pw\n    mode: "+mode+"\nconfigs:\n  - {source: c, target: /c, mode: "+mode+"}") +
			"secrets: {pw: {external: true}}\nconfigs: {c: {content: x}}\n"
	}
	modes := func(secret, config int) func(cluster.TaskSpec) bool {
		return func(s cluster.TaskSpec) bool { return s.Secrets[0].Mode == secret && s.Configs[0].Mode == config }
	}
	for _, c := range []struct {
		what, file, want string
		holds            func(cluster.TaskSpec) bool
	}{
		{"certificates", in(`ports: ["443:443"]`), "compose.yaml:4: services.web.ports: the gateway ends TLS, and speaks HTTPS to the service, whose certificate it does not check; better publish the service's plain HTTP port", nil},
		{"no label file", in("label_file:\n  - nope.labels"), "compose.yaml:5: services.web.label_file: cannot read nope.labels: it is not there", nil},
		{"NONE", in(off) + "  db: {image: b, healthcheck: {test: [NONE]}}\n", "compose.yaml:4: services.web.depends_on.db: db has its health check disabled and can never be healthy; write condition: service_started", nil},
		{"a probe instead", in(off) + "  db: {image: b, healthcheck: {test: [NONE]}, x-fairlead: {health: {tcp: 1}}}\n", "", nil},
		{"label twice", in("labels:\n  - a=1\n  - b=1\n  - a=2"), "compose.yaml:7: services.web.labels: a is set twice (first on line 5): this value counts", func(s cluster.TaskSpec) bool { return s.Labels["a"] == "2" }},
		{"label of deploy twice", in("deploy:\n  labels:\n    - a=1\n    - a=2"), "compose.yaml:7: services.web.deploy.labels: a is set twice (first on line 6): this value counts", nil},
		{"signal", in("stop_signal: sigterm"), "", func(s cluster.TaskSpec) bool { return s.StopSignal == "SIGTERM" }},
		{"strange signal", in("stop_signal: sig-x"), `compose.yaml:4: services.web.stop_signal: "sig-x" is not a signal; write for example SIGTERM`, nil},
		{"mode", tmp("01777"), "", func(s cluster.TaskSpec) bool { return s.Mounts[0].TmpfsMode == 0o1777 }},
		{"mode with an o", tmp("0o700"), "", func(s cluster.TaskSpec) bool { return s.Mounts[0].TmpfsMode == 0o700 }},
		{"quoted mode", tmp(`"${M:-1777}"`), "", func(s cluster.TaskSpec) bool { return s.Mounts[0].TmpfsMode == 0o1777 }},
		{"decimal mode", tmp("1777"), "compose.yaml:7: services.web.volumes[0].tmpfs.mode: 1777 is read as octal; docker compose would take it for a decimal number; write 01777", func(s cluster.TaskSpec) bool { return s.Mounts[0].TmpfsMode == 0o1777 }},
		{"no mode", tmp("99999"), `compose.yaml:7: services.web.volumes[0].tmpfs.mode: "99999" is not a mode such as 01777`, nil},
		{"a file's mode", files("0440"), "", modes(0o440, 0o440)},
		{"a file's mode with an o", files("0o440"), "", modes(0o440, 0o440)},
		{"a file's quoted mode", files(`"0440"`), "", modes(0o440, 0o440)},
		{"a file's quoted mode without a nought", files(`"440"`), "", modes(0o440, 0o440)},
		{"a file's quoted mode with an o", files(`"0o440"`), "", modes(0o440, 0o440)},
		{"a file's mode from a variable", files(`"${M:-440}"`), "", modes(0o440, 0o440)},
		{"a file's mode of nothing", files("0000"), `compose.yaml:6: services.web.secrets[0].mode: "0000" lets nobody read the file` + "\n" +
			`compose.yaml:8: services.web.configs[0].mode: "0000" lets nobody read the file`, nil},
		{"the same of a service named tmpfs", strings.Replace(files("0000"), "web:", "tmpfs:", 1), `compose.yaml:6: services.tmpfs.secrets[0].mode: "0000" lets nobody read the file` + "\n" +
			`compose.yaml:8: services.tmpfs.configs[0].mode: "0000" lets nobody read the file`, nil},
		{"a file's decimal mode", files("440"), "compose.yaml:6: services.web.secrets[0].mode: 440 is read as octal; docker compose would take it for a decimal number; write 0440\n" +
			"compose.yaml:8: services.web.configs[0].mode: 440 is read as octal; docker compose would take it for a decimal number; write 0440", modes(0o440, 0o440)},
		{"a file's mode that a tool printed", files("288"), "compose.yaml:6: services.web.secrets[0].mode: 288 is a decimal number, as docker compose takes it: the mode 0440; write 0440\n" +
			"compose.yaml:8: services.web.configs[0].mode: 288 is a decimal number, as docker compose takes it: the mode 0440; write 0440", modes(0o440, 0o440)},
		{"another that a tool printed", files("420"), "compose.yaml:6: services.web.secrets[0].mode: 420 is a decimal number, as docker compose takes it: the mode 0644; write 0644\n" +
			"compose.yaml:8: services.web.configs[0].mode: 420 is a decimal number, as docker compose takes it: the mode 0644; write 0644", modes(0o644, 0o644)},
		{"no mode of a file", files(`"rw-r--r--"`), `compose.yaml:6: services.web.secrets[0].mode: "rw-r--r--" is not a mode such as 0440` + "\n" +
			`compose.yaml:8: services.web.configs[0].mode: "rw-r--r--" is not a mode such as 0440`, nil},
		{"neither in octal nor in decimal", files("989"), `compose.yaml:6: services.web.secrets[0].mode: "989" is not a mode such as 0440` + "\n" +
			`compose.yaml:8: services.web.configs[0].mode: "989" is not a mode such as 0440`, nil},
		{"a mode too large", tmp("0o17777"), `compose.yaml:7: services.web.volumes[0].tmpfs.mode: "0o17777" is not a mode such as 01777`, nil},
	} {
		r, err := Load(t.Context(), Options{Files: []string{write(t, c.file)}, SingleNode: true})
		var said []string
		if err != nil {
			said = append(said, err.Error())
		} else {
			for _, w := range r.Warnings {
				said = append(said, w.String())
			}
		}
		if got := strings.Join(said, "\n"); got != c.want {
			t.Errorf("%s: says\n%s\nwant\n%s", c.what, got, c.want)
		}
		if c.holds != nil && (err != nil || !c.holds(r.Services["web"].Task)) {
			t.Errorf("%s: %+v", c.what, r)
		}
	}
}

// A profile that --profile names is one of the file's; what stands in COMPOSE_PROFILES
// may be meant for another.
func TestProfilesThatNobodyHas(t *testing.T) {
	t.Parallel()
	file := write(t, in("profiles: [debug]")+"  db: {image: b}\n")
	for _, c := range []struct {
		profiles []string
		env      string
		want     string
	}{
		{[]string{"debug"}, "", ""},
		{[]string{"*"}, "", ""},
		{nil, "other", ""},
		{[]string{"debgu"}, "", `compose.yaml: profiles: no service has the profile "debgu"; did you mean debug?`},
		{[]string{"debug", "other"}, "", `compose.yaml: profiles: no service has the profile "other"`},
	} {
		r, err := Load(t.Context(), Options{Files: []string{file}, Profiles: c.profiles, Env: map[string]string{"COMPOSE_PROFILES": c.env}})
		if err != nil {
			t.Fatal(err)
		}
		var said []string
		for _, w := range r.Warnings {
			if w.Path == "profiles" {
				said = append(said, w.String())
			}
		}
		if got := strings.Join(said, "\n"); got != c.want {
			t.Errorf("%v: %s, want %s", c.profiles, got, c.want)
		}
	}
}

// What one list says twice is said also where another file extends the service.
func TestTwiceInWhatIsExtended(t *testing.T) {
	t.Parallel()
	dir := project(t, map[string]string{
		"compose.yaml": "services: {web: {extends: {file: base.yaml, service: base}}}\nvolumes: {va: {}, vb: {}}\n",
		"base.yaml":    "services:\n  base:\n    image: a\n    volumes:\n      - va:/data\n      - vb:/data\n",
	})
	_, err := Load(t.Context(), Options{Dir: dir})
	want := `base.yaml:6: services.base.volumes: "/data" is mounted twice (first on line 5)`
	if err == nil || err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
}
