package cli_test

import (
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

// printing are commands with what their table must hold; silent ones print
// nothing that a program would read.
var printing = map[string]struct {
	in    string
	args  []string
	table string
}{
	"deploy":           {args: []string{"-d"}, table: "shop: release 1"},
	"plan":             {table: "+ service web"},
	"rm":               {args: []string{"idle", "-y"}, table: "removed service"},
	"ls":               {table: "store"},
	"ps":               {table: "store/front.1"},
	"status":           {args: []string{"store"}, table: "front"},
	"service ls":       {table: "store/pump"},
	"inspect":          {args: []string{"store/front.1"}, table: `"slot": 1`},
	"explain":          {args: []string{"store/front"}, table: "store/front"},
	"scale":            {args: []string{"store/front=3"}, table: "store/front   3"},
	"restart":          {args: []string{"store/front", "-d"}, table: "store: release"},
	"update":           {args: []string{"store", "--image", "front=store/front:2", "-d"}, table: "store: release"},
	"rollback":         {args: []string{"twice", "-d"}, table: "twice: release 3"},
	"history":          {args: []string{"store"}, table: "RELEASE"},
	"exposure":         {table: "shop.example.com"},
	"logs":             {args: []string{"store/front"}, table: "store_front.1 | hello"},
	"secret set":       {in: "v", args: []string{"store/new"}, table: "store/new"},
	"secret ls":        {table: "store/pw"},
	"secret inspect":   {args: []string{"store/pw"}, table: "store/pw"},
	"cert add":         {args: []string{"b", "--cert", "b.pem", "--key", "b.key"}, table: "b.example.com"},
	"cert ls":          {table: "a.example.com"},
	"token create":     {args: []string{"ci"}, table: ""},
	"token ls":         {table: "TOKEN"},
	"image ls":         {table: "store/front:1"},
	"image login":      {in: "pw", args: []string{"registry.example.com", "-u", "ci"}, table: "registry.example.com"},
	"node ls":          {table: "n1"},
	"node inspect":     {args: []string{"n1"}, table: `"id": "n1"`},
	"node label":       {args: []string{"n1", "zone=a"}, table: "zone=a"},
	"node pause":       {args: []string{"n1"}, table: "pause"},
	"node drain":       {args: []string{"n1", "-d"}, table: "drain"},
	"node activate":    {args: []string{"n1"}, table: "active"},
	"node invite":      {table: "| sudo fairlead system install --join 203.0.113.1:7420"},
	"node rm":          {},
	"agent":            {},
	"server ls":        {table: "n1"},
	"server invite":    {table: "203.0.113.1:7420 --server"},
	"server rm":        {},
	"context ls":       {table: "prod"},
	"version":          {table: "client"},
	"system status":    {}, // asks the server of this machine: integration/e2e
	"exec":             {}, // prints what the command prints
	"port-forward":     {},
	"cp":               {},
	"secret rm":        {},
	"cert rm":          {},
	"token rm":         {},
	"image logout":     {},
	"image push":       {}, // of a Docker engine: integration/e2e
	"context add":      {args: []string{"away", "--local", "/nonexistent", "--no-check"}, table: "added context away"},
	"context use":      {},
	"context rm":       {},
	"lab status":       {args: []string{"--dir", "none"}, table: "no labs"},
	"lab up":           {}, // these need root and a lab: integration/lab
	"lab load":         {},
	"lab exec":         {},
	"lab shell":        {},
	"lab kill":         {},
	"lab start":        {},
	"lab cut":          {},
	"lab heal":         {},
	"lab slow":         {},
	"lab snapshot":     {},
	"lab restore":      {},
	"lab down":         {},
	"server":           {},
	"system install":   {},
	"system uninstall": {},
	"help":             {},

	"install":                 {args: []string{"new", "demo", "-d"}, table: "new: release 1"},
	"upgrade":                 {args: []string{"pkg", "demo", "--set", "replicas=2", "-d"}, table: "pkg: release 2"},
	"uninstall":               {args: []string{"pkg"}, table: "removed service"},
	"get values":              {args: []string{"pkg"}, table: "replicas: 3"},
	"get manifest":            {args: []string{"pkg"}, table: "traefik/whoami:v1.11.0"},
	"get notes":               {args: []string{"pkg"}, table: "is the app pkg"},
	"get all":                 {args: []string{"pkg"}, table: "VALUES:\nreplicas: 3"},
	"chart create":            {args: []string{"another"}, table: "another"},
	"chart lint":              {args: []string{"demo"}, table: "demo is fine"},
	"chart template":          {args: []string{"demo"}, table: "# Source: demo/templates/app.yaml"},
	"chart package":           {args: []string{"demo", "-d", "out"}, table: "out/demo-0.1.0.tgz"},
	"chart show chart":        {args: []string{"demo"}, table: "name: demo"},
	"chart show values":       {args: []string{"demo"}, table: "replicas: 1"},
	"chart show readme":       {args: []string{"demo"}, table: "# demo"},
	"chart show all":          {args: []string{"demo"}, table: "# demo"},
	"chart pull":              {args: []string{"here/demo", "-d", "out"}, table: "out/demo-0.1.0.tgz"},
	"chart test":              {}, // runs hooks: integration/e2e
	"chart push":              {}, // into a registry: chart/repos_test.go
	"chart repo add":          {},
	"chart repo ls":           {table: "here"},
	"chart repo update":       {},
	"chart repo rm":           {},
	"chart dependency ls":     {args: []string{"demo"}, table: "demo depends on nothing"},
	"chart dependency update": {},
	"chart dependency build":  {},

	"delivery create":    {args: []string{"new", "https://git.example.com/new.git", "-d"}, table: "new        new"},
	"delivery get":       {table: "store"},
	"delivery describe":  {args: []string{"store"}, table: "git https://git.example.com/store.git"},
	"delivery diff":      {}, // fetches: integration/e2e
	"delivery history":   {args: []string{"store"}, table: "nothing happened yet"},
	"delivery reconcile": {args: []string{"store", "-d"}, table: "REQUEST"},
	"delivery suspend":   {args: []string{"store"}, table: "suspended"},
	"delivery resume":    {args: []string{"store"}, table: "store"},
	"delivery rm":        {},
	"trace":              {args: []string{"store/front"}, table: "store_front.1"},
}

// furnished is a hub with something of everything: also a package, a repository of it,
// and an app that is made of it.
func furnished(t *testing.T) *hub {
	t.Helper()
	h := newHub(t)
	h.templates = inProcess{}
	withFront(h)
	h.deploy("name: idle\nservices: {web: {image: a}}\n")
	h.deploy("name: twice\nservices: {web: {image: a}}\n")
	h.deploy("name: twice\nservices: {web: {image: b}}\n")
	h.host.lines = []cluster.LogLine{{Task: cluster.TaskID("store_front.1.abc"), Stream: "stdout", Time: today, Text: "hello"}}
	h.host.images = []cluster.Image{{ID: "sha256:0123456789abcdef", Tags: []string{"store/front:1"}, Size: 3 << 20, Created: today}}
	for _, n := range []string{"a", "b"} {
		c := newCertificate(t, []string{n + ".example.com"}, today.AddDate(1, 0, 0))
		h.write(n+".pem", c.chain)
		h.write(n+".key", c.key)
	}
	h.must("", "cert", "add", "a", "--cert", "a.pem", "--key", "a.key")
	h.must("", "context", "add", "prod", "--server", "https://203.0.113.5:7420", "--no-check")
	h.must("", "token", "create", "ann")
	h.must("", "chart", "create", "demo")
	h.must("", "chart", "package", "demo", "-d", "packages")
	h.must("", "chart", "repo", "add", "here", "file://"+filepath.Join(h.dir, "packages"))
	h.must("", "install", "pkg", "demo", "--set", "replicas=3", "-d")
	h.must("", "delivery", "create", "store", "https://git.example.com/store.git", "-d")
	h.write("compose.yaml", web("tty: true"))
	return h
}

func TestEveryOutput(t *testing.T) {
	h := furnished(t)
	again := h.keep()
	walk(tree(), "", func(path string, c *cobra.Command) {
		if c.HasSubCommands() || strings.HasPrefix(path, "completion") {
			return
		}
		row, known := printing[path]
		if !known {
			t.Errorf("fairlead %s: say what it prints", path)
			return
		}
		if row.table == "" && row.args == nil {
			return
		}
		t.Run(path, func(t *testing.T) {
			args := append(strings.Fields(path), row.args...)
			run := func(format string) said {
				again(t)
				return h.must(row.in, append(args, "-o", format)...)
			}
			if s := run("table"); !strings.Contains(s.all, row.table) {
				t.Errorf("the table lacks %q:\n%s", row.table, s.all)
			}
			if s := run("wide"); !strings.Contains(s.all, row.table) {
				t.Errorf("the wide table lacks %q:\n%s", row.table, s.all)
			}
			j, y := documents(t, run("json").out, false), documents(t, run("yaml").out, true)
			if len(j) == 0 {
				t.Error("nothing is printed for programs")
			}
			if path != "token create" && path != "chart repo ls" { // others each time
				if d := cmp.Diff(j, y); d != "" {
					t.Errorf("JSON and YAML differ (-json +yaml)\n%s", d)
				}
			}
		})
	})
}

// documents decodes everything there is.
func documents(t *testing.T, s string, isYAML bool) []any {
	t.Helper()
	decode := json.NewDecoder(strings.NewReader(s)).Decode
	if isYAML {
		dec := yaml.NewDecoder(strings.NewReader(s))
		decode = func(v any) error {
			var raw any
			if err := dec.Decode(&raw); err != nil {
				return err
			}
			b, err := json.Marshal(raw) // numbers are of one type then
			if err != nil {
				return err
			}
			return json.Unmarshal(b, v)
		}
	}
	var out []any
	for {
		var v any
		err := decode(&v)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, s)
		}
		out = append(out, v)
	}
}

func TestTables(t *testing.T) {
	h := newHub(t)
	if s := h.must("", "ls"); !strings.HasPrefix(s.out, "no apps: ") {
		t.Errorf("%q", s.out)
	}
	if s := h.must("", "ls", "-o", "json"); s.out != "[]\n" {
		t.Errorf("no apps as JSON: %q", s.out)
	}
	withFront(h)
	id := h.run("store", "front")
	narrow := strings.Split(h.must("", "ps", "store").out, "\n")
	wide := strings.Split(h.must("", "ps", "store", "-o", "wide").out, "\n")
	if d := cmp.Diff([]string{
		"TASK            STATE     READY   NODE   AGE   RESTARTS   IMAGE           REASON",
		"store/front.1   running   yes     n1     60m   0          store/front:1   -",
		"",
	}, narrow); d != "" {
		t.Error(d)
	}
	if len(wide[0]) <= len(narrow[0]) || !strings.Contains(wide[1], string(id)) || strings.Contains(narrow[1], string(id)) {
		t.Errorf("wide shows\n%s", strings.Join(wide, "\n"))
	}
	// What programs print stays within its row.
	h.host.lines = []cluster.LogLine{{Task: id, Time: today, Text: "x"}}
	h.put("fairlead/v1/status/n1/"+string(id), cluster.Status{
		Task: id, Node: "n1", ServiceID: cluster.ServiceID{App: "store", Name: "front"}, Slot: 1, State: cluster.StateFailed, Reason: "one\ntwo\x1b[31m\tthree",
	})
	out := h.must("", "ps", "store", "--all").out
	if strings.Count(out, "\n") != 2 || strings.Contains(out, "\x1b") || !strings.Contains(out, "one two [31m three") {
		t.Errorf("%q", out)
	}
}

func TestPlanOutput(t *testing.T) {
	h := newHub(t)
	first := "services:\n  web:\n    image: shop/web:1\n    ports: [\"5432:5432\"]\n    x-fairlead: {routes: [{host: shop.example.com, port: 80}]}\n  old:\n    image: shop/old:1\nsecrets: {key: {external: true, x-fairlead: {generate: 32}}}\n"
	h.write("compose.yaml", first)
	before := h.dump()
	s := h.must("", "plan")
	if d := cmp.Diff(`shop: release 0 → 1
  + service old: shop/old:1
  + service web: shop/web:1
  PUBLIC http://shop.example.com/ → web (compose.yaml:5)  (new)
  PUBLIC :5432 → web (compose.yaml:4)  (new)
`, without(s.out, "secret")); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(before, h.dump()); d != "" {
		t.Errorf("plan changed the store\n%s", d)
	}
	if s := h.cli("", "plan", "--exit-code"); s.code != 10 {
		t.Errorf("exit code %d with changes", s.code)
	}
	h.must("", "deploy", "-d")
	if s := h.cli("", "plan", "--exit-code"); s.code != 0 || without(s.out, "PUBLIC") != "shop: nothing to change (release 1)\n" {
		t.Errorf("%d %s", s.code, s.all)
	}
	h.write("compose.yaml", "services:\n  web:\n    image: shop/web:2\n    x-fairlead: {routes: [{host: shop.example.com, port: 80}]}\n")
	s = h.must("", "plan")
	for _, want := range []string{"shop: release 1 → 2\n", "  ~ service web: its tasks are replaced", "      task.image: shop/web:1 → shop/web:2\n", "  - service old", "  closed: PUBLIC :5432 → web"} {
		if !strings.Contains(s.out, want) {
			t.Errorf("no %q in\n%s", want, s.out)
		}
	}
	var p v1.Plan
	if err := json.Unmarshal([]byte(h.must("", "plan", "-o", "json").out), &p); err != nil || p.Next != 2 {
		t.Errorf("%+v %v", p, err)
	}
}

// without leaves out lines that hold a word.
func without(s, word string) string {
	var b strings.Builder
	for l := range strings.Lines(s) {
		if !strings.Contains(l, word) {
			b.WriteString(l)
		}
	}
	return b.String()
}

func TestPlanSaysWhatWouldWait(t *testing.T) {
	h := newHub(t) // 8 GiB
	h.loops()
	h.deploy("name: big\nservices: {db: {image: a, deploy: {resources: {reservations: {memory: 6G}}}}}\n")
	h.placed("big")
	h.write("compose.yaml", "services:\n  web:\n    image: shop/web:1\n    deploy: {replicas: 3, resources: {reservations: {memory: 1G}}}\n")
	const want = "1 of 3 replicas of web would wait: no suitable node (insufficient resources on 1 node, n1: needs 1G of memory, 0B free)"
	if s := h.must("", "plan"); !strings.Contains(s.out, "\n  ! "+want+"\n") {
		t.Errorf("plan says\n%s", s.all)
	}
	var p v1.Plan
	if err := json.Unmarshal([]byte(h.must("", "plan", "-o", "json").out), &p); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]cluster.Wait{{
		ServiceID: cluster.ServiceID{App: "shop", Name: "web"}, Wanted: 3, Waiting: 1,
		Reason:   "no suitable node (insufficient resources on 1 node, n1: needs 1G of memory, 0B free)",
		Refusals: []cluster.Refusal{{Filter: "resources", Nodes: 1, Examples: []string{"n1: needs 1G of memory, 0B free"}}},
	}}, p.Waits); d != "" {
		t.Error(d)
	}
	if s := h.must("", "deploy", "-d"); !strings.Contains(s.err, "warning: "+want) {
		t.Errorf("deploy says\n%s", s.all)
	}
	h.must("", "node", "drain", "n1", "-d")
	h.write("compose.yaml", "name: small\nservices: {web: {image: a}}\n")
	if s := h.must("", "plan"); !strings.Contains(s.out, "  ! the one replica of web would wait: no suitable node (1 node drained)\n") {
		t.Errorf("plan says\n%s", s.all)
	}
}

// -p chooses of the images those that the app uses.
func TestImagesOfAnApp(t *testing.T) {
	h := newHub(t)
	withFront(h)
	h.deploy("name: idle\nservices: {web: {image: a}, db: {image: docker.io/library/a:latest}}\n")
	h.host.images = []cluster.Image{{ID: "sha256:1", Tags: []string{"store/front:1"}}, {ID: "sha256:2", Tags: []string{"a:latest"}}, {ID: "sha256:3", Tags: []string{"nobodys:1"}}}
	for app, want := range map[string][]string{"store": {"store/front:1"}, "idle": {"a:latest"}, "": {"store/front:1", "a:latest", "nobodys:1"}} {
		var got []string
		for _, tag := range []string{"store/front:1", "a:latest", "nobodys:1"} {
			if strings.Contains(h.must("", "image", "ls", "-p", app).out, tag) {
				got = append(got, tag)
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("-p %q: %s", app, d)
		}
	}
	if s := h.must("", "image", "ls", "-p", "idle"); !strings.Contains(s.out, "idle/db idle/web\n") {
		t.Errorf("%s", s.out)
	}
	if s := h.cli("", "image", "ls", "-p", "nosuch"); s.code != 4 {
		t.Errorf("%d %s", s.code, s.all)
	}
}
