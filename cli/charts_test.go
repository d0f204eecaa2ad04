package cli_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/chart/charttest"
	"github.com/fairlead/fairlead/cli"
)

// TestMain lets this program be the one that renders charts for its commands.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == cli.RenderCommand {
		charttest.AtOnce()
		os.Exit(cli.Main(context.Background(), os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Now: time.Now}))
	}
	os.Exit(m.Run())
}

func TestChartFromNothing(t *testing.T) {
	h := newHub(t)
	if s := h.must("", "chart", "create", "demo"); s.out != "demo\n" || !strings.Contains(s.err, "chart lint demo") {
		t.Errorf("create says %q, %q", s.out, s.err)
	}
	if s := h.must("", "chart", "lint", "demo"); s.out != "demo is fine\n" {
		t.Errorf("lint says %s", s.all)
	}
	if s := h.must("", "chart", "lint", "demo", "--strict", "-o", "json"); s.out != "[]\n" {
		t.Errorf("lint says %s", s.all)
	}
	s := h.must("", "chart", "template", "shop", "demo", "--set", "replicas=3", "--set-string", "config=price: $5", "--set", "host=shop.example.com", "--notes")
	for _, want := range []string{"# Source: demo/templates/app.yaml\n", "image: docker.io/traefik/whoami:v1.11.0\n", "replicas: 3\n", `content: "price: $$5"`, `host: "shop.example.com"`, "#   http"} {
		if !strings.Contains(strings.ReplaceAll(s.out, "# It answers at http", "#   http"), want) {
			t.Errorf("%q is not in\n%s", want, s.out)
		}
	}
	// What is printed deploys as it stands.
	h.write("compose.yaml", s.out)
	h.must("", "deploy", "shop", "--detach")
	if got := h.must("", "chart", "template", "demo", "-s", "templates/none.yaml", "-o", "json"); !strings.Contains(got.out, `"demo/templates/app.yaml"`) {
		t.Errorf("as JSON: %s", got.out)
	}
	h.must("", "chart", "package", "demo", "-d", "dist")
	first, err := os.ReadFile(filepath.Join(h.dir, "dist", "demo-0.1.0.tgz"))
	if err != nil {
		t.Fatal(err)
	}
	h.must("", "chart", "package", "demo", "-d", "again", "--version", "0.1.0")
	h.must("", "chart", "package", "demo", "-d", "dist")
	second, err := os.ReadFile(filepath.Join(h.dir, "dist", "demo-0.1.0.tgz"))
	if err != nil || string(first) != string(second) {
		t.Errorf("packed twice, the archives differ (%v)", err)
	}
	a, b := h.must("", "chart", "template", "x", "demo"), h.must("", "chart", "template", "x", "dist/demo-0.1.0.tgz")
	if d := cmp.Diff(a.out, b.out); d != "" {
		t.Error("the directory and its archive differ", d)
	}
	for part, want := range map[string]string{"chart": "version: 0.1.0", "values": "replicas: 1", "readme": "# demo", "all": "# demo"} {
		if s := h.must("", "chart", "show", part, "dist/demo-0.1.0.tgz"); !strings.Contains(s.out, want) {
			t.Errorf("show %s: %s", part, s.out)
		}
	}
	if s := h.must("", "chart", "show", "chart", "demo", "-o", "json"); !strings.Contains(s.out, `"app_version": "v1.11.0"`) {
		t.Errorf("as JSON: %s", s.out)
	}
}

func TestChartLintFindings(t *testing.T) {
	h := newHub(t)
	h.must("", "chart", "create", "demo")
	h.write("demo/templates/bad.yaml", "services:\n  web:\n    imagee: x\n---\nservices:\n  web: {container_name: a, links: [x]}\n")
	s := h.cli("", "chart", "lint", "demo")
	if s.code != 2 || !strings.Contains(s.out, "demo/templates/bad.yaml:3") || !strings.Contains(s.out, "did you mean image?") || !strings.Contains(s.err, "cannot be installed") {
		t.Errorf("%d %s", s.code, s.all)
	}
	h.write("demo/templates/bad.yaml", "{{ fail \"not like this\" }}")
	if s := h.cli("", "chart", "lint", "demo", "--strict"); s.code != 2 || !strings.Contains(s.out, "not like this") {
		t.Errorf("%d %s", s.code, s.all)
	}
	// Its own values are checked by its schema; those that it asks for may come later.
	h.must("", "chart", "create", "other")
	h.write("other/values.schema.json", `{"required": ["password"], "properties": {"replicas": {"type": "string"}}}`)
	if s := h.cli("", "chart", "lint", "other"); s.code != 2 || !strings.Contains(s.out, "'/replicas': got number, want string") || strings.Contains(s.out, "password") {
		t.Errorf("%d %s", s.code, s.all)
	}
	if s := h.must("", "chart", "lint", "other", "--set-string", "replicas=1"); s.out != "other is fine\n" {
		t.Errorf("%s", s.all)
	}
	if s := h.cli("", "chart", "lint", "other", "--set-string", "replicas=1", "--strict"); s.code != 2 || !strings.Contains(s.out, "missing property 'password'") {
		t.Errorf("%d %s", s.code, s.all)
	}
	h.write("other/values.schema.json", "{")
	if s := h.cli("", "chart", "lint", "other"); s.code != 2 || !strings.Contains(s.out, "values don't meet the specifications of the schema(s)") {
		t.Errorf("%d %s", s.code, s.all)
	}
}

// A part that makes what another makes may be looked at: that is how it is mended.
func TestChartTemplateShowsWhatClashes(t *testing.T) {
	h := newHub(t)
	h.must("", "chart", "create", "demo")
	for _, part := range []string{"a", "b"} {
		h.write("demo/charts/"+part+"/Chart.yaml", "apiVersion: v2\nname: "+part+"\nversion: 1.0.0\n")
		h.write("demo/charts/"+part+"/templates/app.yaml", "services: {db: {image: \""+part+":1\"}}\n")
	}
	if s := h.cli("", "chart", "template", "demo"); s.code != 2 || s.out != "" {
		t.Errorf("%d %s", s.code, s.all)
	}
	if s := h.must("", "chart", "template", "demo", "-s", "charts/b/templates/app.yaml"); s.out != "---\n# Source: demo/charts/b/templates/app.yaml\nservices: {db: {image: \"b:1\"}}\n" {
		t.Errorf("%s", s.all)
	}
	if s := h.must("", "chart", "template", "demo", "-s", "templates/app.yaml"); strings.Count(s.out, "# Source: ") != 1 || !strings.Contains(s.out, "# Source: demo/templates/app.yaml\n") {
		t.Errorf("%s", s.all)
	}
}

func TestChartRepositories(t *testing.T) {
	h := newHub(t)
	h.must("", "chart", "create", "demo")
	h.must("", "chart", "package", "demo", "-d", "packages")
	if s := h.must("", "chart", "repo", "ls"); s.out != "no repositories\n" {
		t.Errorf("%s", s.all)
	}
	h.must("", "chart", "repo", "add", "here", "file://"+filepath.Join(h.dir, "packages"))
	h.must("", "chart", "repo", "update")
	if s := h.must("", "chart", "repo", "ls", "-o", "json"); !strings.Contains(s.out, `"packages": 1`) {
		t.Errorf("%s", s.all)
	}
	if s := h.must("", "__complete", "chart", "repo", "rm", ""); !strings.HasPrefix(s.out, "here\n") {
		t.Errorf("rm offers %s", s.out)
	}
	h.must("", "chart", "pull", "here/demo", "--untar", "-d", "got")
	if s := h.must("", "chart", "show", "chart", "got/demo"); !strings.Contains(s.out, "name: demo") {
		t.Errorf("%s", s.all)
	}
	if s := h.must("", "chart", "pull", "here/demo", "-o", "json"); !strings.Contains(s.out, `"file": "demo-0.1.0.tgz"`) {
		t.Errorf("%s", s.all)
	}
	if s := h.must("", "chart", "template", "here/demo", "--version", "0.1.0"); !strings.Contains(s.out, "traefik/whoami:v1.11.0") {
		t.Errorf("%s", s.all)
	}
	if s := h.cli("", "chart", "pull", "here/demo", "--verify"); s.code != 2 || !strings.Contains(s.err, "by which keys?") {
		t.Errorf("%d %s", s.code, s.all)
	}
	h.must("", "chart", "repo", "rm", "here")
	if s := h.cli("", "chart", "repo", "rm", "here"); s.code != 4 {
		t.Errorf("%d %s", s.code, s.all)
	}
	h.write("demo/Chart.yaml", "apiVersion: v2\nname: demo\nversion: 0.1.0\ndependencies: [{name: lib, version: 1.x.x, repository: \"file://../lib\"}]\n")
	if s := h.must("", "chart", "dependency", "ls", "demo"); !strings.Contains(s.out, "missing") {
		t.Errorf("%s", s.all)
	}
	h.write("lib/Chart.yaml", "apiVersion: v2\nname: lib\nversion: 1.2.0\ntype: library\n")
	h.must("", "chart", "dependency", "update", "demo")
	if s := h.must("", "chart", "dep", "ls", "demo", "-o", "json"); !strings.Contains(s.out, `"status": "ok"`) {
		t.Errorf("%s", s.all)
	}
	h.must("", "chart", "dependency", "build", "demo")
}
