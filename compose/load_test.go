package compose

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/fairlead/fairlead/cluster"
)

// write puts a Compose file into a directory named shop.
func write(tb testing.TB, content string) string {
	tb.Helper()
	return filepath.Join(project(tb, map[string]string{"compose.yaml": content}), "compose.yaml")
}

// project writes files into a directory named shop, and returns it.
func project(tb testing.TB, files map[string]string) string {
	tb.Helper()
	dir := filepath.Join(tb.TempDir(), "shop")
	for name, content := range files {
		f := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(f), 0o755); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(f, []byte(content), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

func load1(t *testing.T, content string) *Result {
	t.Helper()
	r, err := Load(t.Context(), Options{Files: []string{write(t, content)}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// The file of the README, which must simply work.
const readme = `name: shop
services:
  web:
    image: registry.example.com/shop/web:${TAG:-1.4}
    depends_on: {api: {condition: service_healthy}}
    deploy: {resources: {reservations: {cpus: "0.25", memory: 64M}}}
    x-fairlead:
      routes: [{host: shop.example.com, port: 8080}]
      autoscale: {min: 2, max: 10, cpu: 70%}
  api:
    build: ./api
    healthcheck: {test: [CMD, /api, check]}
    secrets: [db-password]
    x-fairlead: {secret_env: {DB_PASSWORD: db-password}}
  db:
    image: postgres:16
    environment: {POSTGRES_PASSWORD_FILE: /run/secrets/db-password}
    secrets: [db-password]
    volumes: ["data:/var/lib/postgresql/data"]
volumes: {data: {}}
secrets: {db-password: {external: true, x-fairlead: {generate: 32}}}
`

func TestReadme(t *testing.T) {
	dir := project(t, map[string]string{"compose.yaml": readme, "api/Dockerfile": "FROM scratch\n"})
	r, err := Load(t.Context(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	net := []cluster.NetworkRef{{Name: "shop_default"}}
	secret := []cluster.FileRef{{Name: "db-password", Target: "/run/secrets/db-password"}}
	src := func(line int) cluster.Source { return cluster.Source{File: "compose.yaml", Line: line} }
	want := &Result{
		App: "shop", Domain: "localhost", Files: []string{"compose.yaml"},
		Services: map[cluster.ServiceName]cluster.ServiceSpec{
			"web": {
				Mode: cluster.Replicated, Replicas: 2, Source: src(3),
				Task: cluster.TaskSpec{
					Image: "registry.example.com/shop/web:1.4", Networks: net,
					Resources: cluster.Resources{ReserveCPU: 250, ReserveMemory: 64 << 20},
				},
				DependsOn: []cluster.Dependency{{Service: "api", Condition: "service_healthy"}},
				Routes:    []cluster.Route{{Host: "shop.example.com", Port: 8080, Source: src(8)}},
				Autoscale: &cluster.Autoscale{Min: 2, Max: 10, CPUPercent: 70},
			},
			"api": {
				Mode: cluster.Replicated, Replicas: 1, Source: src(10),
				Task: cluster.TaskSpec{
					Image: "fairlead/shop-api", PullPolicy: "never", Networks: net, Secrets: secret,
					SecretEnv: map[string]string{"DB_PASSWORD": "db-password"},
					Health:    &cluster.Health{Test: []string{"CMD", "/api", "check"}},
				},
			},
			"db": {
				Mode: cluster.Replicated, Replicas: 1, Source: src(15),
				Task: cluster.TaskSpec{
					Image: "postgres:16", Networks: net, Secrets: secret,
					Env:    map[string]string{"POSTGRES_PASSWORD_FILE": "/run/secrets/db-password"},
					Mounts: []cluster.Mount{{Type: "volume", Source: "shop_data", Target: "/var/lib/postgresql/data"}},
				},
			},
		},
		Secrets: []SecretDecl{{Name: "db-password", External: true, Generate: 32, Source: src(21)}},
		Builds: []Build{{
			Service: "api", Image: "fairlead/shop-api", Context: filepath.Join(dir, "api"),
			Dockerfile: filepath.Join(dir, "api", "Dockerfile"), Source: src(11),
		}},
	}
	rendered := r.Rendered
	r.Rendered = nil
	if d := cmp.Diff(want, r, cmp.Comparer(func(a, b cluster.Secret) bool { return string(a.Reveal()) == string(b.Reveal()) })); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if !strings.Contains(string(rendered), "registry.example.com/shop/web:1.4") {
		t.Errorf("the rendered document is not interpolated:\n%s", rendered)
	}
}

func TestAppName(t *testing.T) {
	const body = "services: {web: {image: a}}\n"
	for _, c := range []struct {
		what, name string
		app        cluster.AppName
		dir        string
		want       cluster.AppName
		refused    string
	}{
		{"given", "name: other\n", "mine", "d", "mine", ""},
		{"of the file", "name: other\n", "", "d", "other", ""},
		{"interpolated", "name: a-${X:-b}\n", "", "d", "a-b", ""},
		{"of the directory", "", "", "My_Shop", "my-shop", ""},
		{"with an underscore", "name: my_shop\n", "", "d", "", "compose.yaml:1: name: \"my_shop\" cannot name an app: use 1 to 40 lower-case letters, digits and -, starting with a letter or digit; for example name: my-shop"},
		{"hostile", "name: ../../etc\n", "", "d", "", "compose.yaml:1: name: \"../../etc\" cannot name an app: use 1 to 40 lower-case letters, digits and -, starting with a letter or digit; for example name: etc"},
	} {
		dir := filepath.Join(t.TempDir(), c.dir)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte(c.name+body), 0o644); err != nil {
			t.Fatal(err)
		}
		r, err := Load(t.Context(), Options{Dir: dir, App: c.app})
		if c.refused != "" {
			if err == nil || err.Error() != c.refused {
				t.Errorf("%s: %v", c.what, err)
			}
			continue
		}
		if err != nil || r.App != c.want {
			t.Errorf("%s: %v %v", c.what, r, err)
		}
	}
}

// The place of everything survives several files, extends, anchors and include.
func TestPlacesSurviveMerging(t *testing.T) {
	dir := project(t, map[string]string{
		"compose.yaml": `include: [more/part.yaml]
x-log: &log
  driver: gelf
services:
  web:
    extends: {file: base.yaml, service: tmpl}
    image: a
    logging: *log
    ports: ["9000:90"]
    volumes: ["va:/a"]
volumes: {va: {}, vb: {}}
`,
		"compose.override.yaml": `services:
  web:
    ports:
      - "9001:91"
      - "9002:92"
    volumes:
      - vb:/b
    x-fairlead:
      routes:
        - {port: 80}
`,
		"base.yaml": `services:
  other: {image: x, nonsense: true}
  root:
    attach: false
  tmpl:
    extends: root
    ports: ["9100:1"]
    annotations: {a: b}
`,
		"more/part.yaml": `services:
  inc:
    image: i
    ports:
      - "9200:2"
    cpu_shares: 5
`,
	})
	r, err := Load(t.Context(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	got := map[int]cluster.Source{}
	for _, s := range r.Services {
		for _, p := range s.Ports {
			got[p.Published] = p.Source
		}
	}
	want := map[int]cluster.Source{
		9000: {File: "compose.yaml", Line: 9}, 9001: {File: "compose.override.yaml", Line: 4}, 9002: {File: "compose.override.yaml", Line: 5},
		9100: {File: "base.yaml", Line: 7}, 9200: {File: "more/part.yaml", Line: 5},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("ports (-want +got)\n%s", d)
	}
	if at := r.Services["web"].Routes[0].Source; at != (cluster.Source{File: "compose.override.yaml", Line: 10}) {
		t.Errorf("route at %v", at)
	}
	var warned []string
	for _, w := range r.Warnings {
		warned = append(warned, strings.SplitAfter(w.String(), ": ")[0]+w.Path)
	}
	wantWarned := []string{
		"base.yaml:8: services.tmpl.annotations", "compose.yaml:3: services.web.logging.driver", "more/part.yaml:6: services.inc.cpu_shares",
	}
	if d := cmp.Diff(wantWarned, warned); d != "" {
		t.Errorf("warnings (-want +got)\n%s", d)
	}
	if d := cmp.Diff([]string{"compose.yaml", "compose.override.yaml", "more/part.yaml", "base.yaml"}, r.Files); d != "" {
		t.Errorf("files (-want +got)\n%s", d)
	}
}

// What a stronger file takes back is as if it had never been written, whatever stands
// behind !reset, and also where it alone would be refused.
func TestReset(t *testing.T) {
	t.Parallel()
	keys := "services:\n  web:\n    image: a\n"
	resets := keys
	for _, k := range []struct{ key, value, reset string }{
		{"ports", `["1:1"]`, "[]"},
		{"read_only", "true", "null"},
		{"mem_limit", "64M", "null"},
		{"stop_grace_period", "3s", ""},
		{"cpus", "0.5", "none"},
		{"scale", "3", "null"},
		{"userns_mode", "host", "null"},
		{"gpus", "all", "null"},
		{"volumes", `["data:/data"]`, `["x:/y"]`},
		{"healthcheck", "{test: [CMD, x]}", "{}"},
		{"deploy", "{replicas: 3}", "{replicas: x}"},
		{"command", "[a, b]", "null"},
		{"environment", "{A: b}", "null"},
		{"init", "true", "false"},
		{"expose", "[80]", "null"},
		{"pids_limit", "3", "null"},
	} {
		keys += "    " + k.key + ": " + k.value + "\n"
		resets += "    " + k.key + ": !reset " + k.reset + "\n"
	}
	keys += "volumes: {data: {}}\n"
	load := func(files map[string]string) *Result {
		t.Helper()
		r, err := Load(t.Context(), Options{Dir: project(t, files), App: "shop"})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	want := load(map[string]string{"compose.yaml": "services: {web: {image: a}}\n"})
	got := load(map[string]string{"compose.yaml": keys, "compose.override.yaml": resets})
	if d := cmp.Diff(want.Services, got.Services, cmpopts.IgnoreTypes(cluster.Source{})); d != "" || len(got.Warnings) > 0 {
		t.Errorf("reset, it is not as if it had not been written (-want +got)\n%s\n%v", d, got.Warnings)
	}
}

// The place of a route is that of its item, whatever files its list comes from.
func TestPlacesOfRoutes(t *testing.T) {
	t.Parallel()
	dir := project(t, map[string]string{
		"c1.yaml":  "services:\n  web:\n    image: a\n    extends: {file: base.yaml, service: tmpl}\n    x-fairlead:\n      routes:\n        - {host: c1.x, port: 1}\n        - {host: twice.x, port: 1}\n",
		"c2.yaml":  "services:\n  web:\n    x-fairlead:\n      routes:\n        - {host: twice.x, port: 1}\n        - {host: c2.x, port: 1}\n",
		"c3.yaml":  "services:\n  web:\n    x-fairlead:\n      routes: !override\n        - {host: c3.x, port: 1}\n",
		"bad.yaml": "services:\n  web:\n    image: a\n\n\n    x-fairlead:\n      routes: [{host: bad host, port: 1}]\n",
		"base.yaml": "services:\n  tmpl:\n    x-fairlead:\n      routes:\n        - {host: base.x, port: 1}\n    extends: root\n" +
			"  root:\n    x-fairlead: {routes: [{host: root.x, port: 1}]}\n",
	})
	load := func(names ...string) (*Result, error) {
		var files []string
		for _, n := range names {
			files = append(files, filepath.Join(dir, n))
		}
		return Load(t.Context(), Options{Files: files})
	}
	at := func(file string, line int) cluster.Source { return cluster.Source{File: file, Line: line} }
	for _, c := range []struct {
		files []string
		want  map[string]cluster.Source
	}{
		{[]string{"c1.yaml", "c2.yaml"}, map[string]cluster.Source{
			"root.x": at("base.yaml", 8), "base.x": at("base.yaml", 5), "c1.x": at("c1.yaml", 7), "twice.x": at("c1.yaml", 8), "c2.x": at("c2.yaml", 6),
		}},
		{[]string{"c1.yaml", "c3.yaml"}, map[string]cluster.Source{"c3.x": at("c3.yaml", 5)}},
	} {
		r, err := load(c.files...)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]cluster.Source{}
		for _, rt := range r.Services["web"].Routes {
			got[rt.Host] = rt.Source
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%v (-want +got)\n%s", c.files, d)
		}
	}
	if _, err := load("bad.yaml", "c2.yaml"); err == nil || !strings.HasPrefix(err.Error(), `bad.yaml:7: services.web.x-fairlead.routes: "bad host"`) {
		t.Errorf("%v", err)
	}
}

func TestEnvironmentFilesAndProfiles(t *testing.T) {
	dir := project(t, map[string]string{
		".env":    "A=env\nB=env\n",
		"web.env": "FROM_FILE=yes\nA=file\n",
		"compose.yaml": `services:
  web:
    image: a:${A}-${B}
    env_file: web.env
    environment: [A=own, PASSED, ABSENT]
  debug: {image: d, profiles: [debug]}
`,
	})
	r, err := Load(t.Context(), Options{Dir: dir, Env: map[string]string{"A": "arg", "PASSED": "p"}})
	if err != nil {
		t.Fatal(err)
	}
	s := r.Services["web"].Task
	if s.Image != "a:arg-env" {
		t.Errorf("image %s", s.Image)
	}
	if d := cmp.Diff(map[string]string{"FROM_FILE": "yes", "A": "own", "PASSED": "p"}, s.Env); d != "" {
		t.Errorf("env (-want +got)\n%s", d)
	}
	if _, there := r.Services["debug"]; there {
		t.Error("a service of a profile that was not chosen")
	}
	r, err = Load(t.Context(), Options{Dir: dir, Profiles: []string{"debug"}})
	if err != nil || len(r.Services) != 2 {
		t.Errorf("%v %v", r, err)
	}
}

// The file is that of the nearest directory above, whose name and .env count;
// what .env below says is stronger.
func TestFileAbove(t *testing.T) {
	t.Parallel()
	dir := project(t, map[string]string{
		"compose.yaml": "services: {web: {image: \"a:$A-$B\", env_file: e.env}}\n", "e.env": "", ".env": "A=above\nB=above\n",
		"src/deep/.env": "A=here\n",
	})
	below := filepath.Join(dir, "src", "deep")
	r, err := Load(t.Context(), Options{Dir: below})
	if err != nil {
		t.Fatal(err)
	}
	if s := r.Services["web"]; r.App != "shop" || s.Task.Image != "a:here-above" || s.Source != (cluster.Source{File: "compose.yaml", Line: 1}) {
		t.Errorf("%s %s %v", r.App, s.Task.Image, s.Source)
	}
	if here, ok := AppIn(below, nil); !ok || here.App != "shop" || here.Err != nil {
		t.Errorf("%+v", here)
	}
}

func TestStandardInput(t *testing.T) {
	t.Parallel()
	dir := project(t, map[string]string{"e.env": "A=1\n"})
	in := func(s string) Options { return Options{Dir: dir, Files: []string{"-"}, Stdin: strings.NewReader(s)} }
	r, err := Load(t.Context(), in("services:\n  web: {image: a, env_file: e.env}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if s := r.Services["web"]; r.App != "shop" || s.Task.Env["A"] != "1" || s.Source.Line != 2 {
		t.Errorf("%s %+v", r.App, s)
	}
	if _, err = Load(t.Context(), in("services:\n  web: {imag: a}\n")); err == nil || !strings.HasPrefix(err.Error(), "-:2: services.web.imag: unknown key") {
		t.Errorf("%v", err)
	}
	if _, err = Load(t.Context(), in(strings.Repeat("#", maxFileSize+1))); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("%v", err)
	}
	if _, err = Load(t.Context(), Options{Dir: dir, Files: []string{"-"}}); err == nil || err.Error() != "-: cannot read the file: it is not there" {
		t.Errorf("%v", err)
	}
}

// An env file of format raw is taken as docker run takes it.
func TestRawEnvFile(t *testing.T) {
	t.Parallel()
	dir := project(t, map[string]string{
		"raw.env":      "\ufeff# no\n\n  A=\"quoted\" # kept $X \nB=a=b\nX\nABSENT\r\nC=\n",
		"bad.env":      "A=1\nsome words=2\n",
		"compose.yaml": "services:\n  web:\n    image: a\n    env_file:\n      - {path: \"${F:-raw.env}\", format: raw}\n",
	})
	r, err := Load(t.Context(), Options{Dir: dir, Env: map[string]string{"X": "x"}})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string]string{"A": `"quoted" # kept $X `, "B": "a=b", "X": "x", "C": ""}, r.Services["web"].Task.Env); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	_, err = Load(t.Context(), Options{Dir: dir, Env: map[string]string{"F": "bad.env"}})
	if err == nil || err.Error() != "compose.yaml:5: services.web.env_file: bad.env: line 2 is not NAME=VALUE" {
		t.Errorf("%v", err)
	}
}

// A secret that is there, and empty, sets nothing: that is said where it stands.
func TestEmptySecret(t *testing.T) {
	t.Parallel()
	dir := project(t, map[string]string{
		"compose.yaml": "services: {web: {image: a, secrets: [f, v]}}\nsecrets:\n  f: {file: pw.txt}\n  v: {environment: PW}\n", "pw.txt": "",
	})
	r, err := Load(t.Context(), Options{Dir: dir, Env: map[string]string{"PW": ""}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range r.Warnings {
		got = append(got, strings.TrimSuffix(w.String(), "; "+w.Advice))
	}
	want := []string{
		"compose.yaml:3: secrets.f.file: the file pw.txt is empty; tasks wait until the secret is there",
		"compose.yaml:4: secrets.v: the variable PW is empty; tasks wait until the secret is there",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// Several usual names: Docker Compose's choice, and a word on each that is not read.
func TestUsualNames(t *testing.T) {
	t.Parallel()
	file := func(image string) string { return "services: {web: {image: " + image + "}}\n" }
	for _, c := range []struct {
		what   string
		files  map[string]string
		image  string
		warned []string
	}{
		{"the older override of a newer file", map[string]string{"compose.yaml": file("a"), "docker-compose.override.yml": file("b")}, "b", nil},
		{
			"two overrides",
			map[string]string{"compose.yml": file("a"), "compose.override.yaml": file("b"), "compose.override.yml": file("c")},
			"c",
			[]string{"compose.override.yaml: not read: compose.override.yml is; name the files with -f to choose"},
		},
		{
			"two files",
			map[string]string{"docker-compose.yaml": file("a"), "docker-compose.yml": file("b")},
			"b",
			[]string{"docker-compose.yaml: not read: docker-compose.yml is; name the files with -f to choose"},
		},
	} {
		r, err := Load(t.Context(), Options{Dir: project(t, c.files)})
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		var warned []string
		for _, w := range r.Warnings {
			warned = append(warned, w.String())
		}
		if d := cmp.Diff(c.warned, warned); d != "" || r.Services["web"].Task.Image != c.image {
			t.Errorf("%s: image %s %s", c.what, r.Services["web"].Task.Image, d)
		}
	}
}

// An include of several files: the directory of the first is that of all, whatever they
// extend, and the last one's word counts and is where it stands.
func TestIncludeOfSeveralFiles(t *testing.T) {
	t.Parallel()
	dir := project(t, map[string]string{
		"compose.yaml":         "include: [{path: [one/a.yaml, one/b.yaml]}]\n",
		"one/a.yaml":           "services:\n  api:\n    extends: {file: common/base.yaml, service: tmpl}\n    cpus: 1\n",
		"one/b.yaml":           "services:\n  web:\n    extends: {file: base2.yaml, service: tmpl}\n  api:\n\n    cpus: 2\n",
		"one/base2.yaml":       "services: {tmpl: {image: b}}\n",
		"one/common/base.yaml": "services: {tmpl: {image: a}}\n",
	})
	r, err := Load(t.Context(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if r.Services["api"].Task.Image != "a" || r.Services["web"].Task.Image != "b" {
		t.Errorf("%v", r.Services)
	}
	if err := os.WriteFile(filepath.Join(dir, "one/b.yaml"), []byte("services: {api: {cpus: 1000000}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(t.Context(), Options{Dir: dir}); err == nil || !strings.HasPrefix(err.Error(), "one/b.yaml:1: services.api.cpus: ") {
		t.Errorf("%v", err)
	}
}

// The variable that a secret of an included file names is looked for
// in that file's env files too; what is set outside is stronger.
func TestVariablesOfAnIncludedFile(t *testing.T) {
	t.Parallel()
	dir := project(t, map[string]string{
		"compose.yaml": "include: [{path: db/db.yaml, env_file: db.env}, own/own.yaml]\nservices: {web: {image: a}}\nsecrets: {main: {environment: PW}}\n",
		"db.env":       "PW=of-the-db\nSTRONG=weak\nCONF=for-the-db\n",
		"db/db.yaml":   "services: {db: {image: a, secrets: [pw, strong], configs: [c, d]}}\nsecrets: {pw: {environment: PW}, strong: {environment: STRONG}}\nconfigs: {c: {environment: CONF}, d: {environment: STRONG}}\n",
		"own/.env":     "CONF=its-own\n",
		"own/own.yaml": "services: {own: {image: a, configs: [e]}}\nconfigs: {e: {environment: CONF}}\n",
	})
	r, err := Load(t.Context(), Options{Dir: dir, Env: map[string]string{"STRONG": "strong"}})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, s := range r.Secrets {
		got[s.Name] = string(s.Value.Reveal())
	}
	if d := cmp.Diff(map[string]string{"main": "", "pw": "of-the-db", "strong": "strong"}, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if len(r.Warnings) != 1 || r.Warnings[0].Line != 3 || strings.Contains(string(r.Rendered), "of-the-db") {
		t.Errorf("%v\n%s", r.Warnings, r.Rendered)
	}
	got = map[string]string{}
	for _, c := range r.Configs {
		got[c.Name] = string(c.Content)
	}
	if d := cmp.Diff(map[string]string{"c": "for-the-db", "d": "strong", "e": "its-own"}, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	// What no file sets is refused where it is asked for.
	bad := project(t, map[string]string{
		"compose.yaml": "include: [db/db.yaml]\nservices: {web: {image: a}}\n",
		"db/db.yaml":   "services: {db: {image: a, configs: [c]}}\nconfigs:\n  c: {environment: CONF}\n",
	})
	_, err = Load(t.Context(), Options{Dir: bad})
	if err == nil || err.Error() != "db/db.yaml:3: configs.c.environment: the variable CONF is not set" {
		t.Errorf("%v", err)
	}
}

func TestSecretValuesStayOut(t *testing.T) {
	dir := project(t, map[string]string{
		"pw.txt": "correct-horse\n",
		"compose.yaml": `services:
  web:
    image: a
    environment: {URL: "db://user:${PW}@db"}
    secrets: [pw, tok]
secrets:
  pw: {environment: PW}
  tok: {file: pw.txt}
`,
	})
	r, err := Load(t.Context(), Options{Dir: dir, Env: map[string]string{"PW": "battery-staple"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{"battery-staple", "correct-horse"} {
		if strings.Contains(string(r.Rendered), v) {
			t.Errorf("%s is in the rendered document:\n%s", v, r.Rendered)
		}
	}
	if string(r.Secrets[0].Value.Reveal()) != "battery-staple" || string(r.Secrets[1].Value.Reveal()) != "correct-horse\n" {
		t.Errorf("secrets %q %q", r.Secrets[0].Value.Reveal(), r.Secrets[1].Value.Reveal())
	}
	if len(r.Warnings) != 1 || r.Warnings[0].Line != 4 {
		t.Errorf("a variable that holds a secret must be warned of: %v", r.Warnings)
	}
}
