package cli_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// TestFlagsOfHelmsChartCommands: what Helm's users type with chart does what it
// says, means nothing here, or is refused with what to do.
func TestFlagsOfHelmsChartCommands(t *testing.T) {
	h := newHub(t)
	h.must("", "chart", "create", "demo")
	h.write("demo/templates/tests.yaml", "services:\n  check:\n    image: shop/check:1\n    x-fairlead: {hook: {on: [test]}}\n  migrate:\n    image: shop/migrate:1\n    x-fairlead: {hook: {on: [pre-upgrade]}}\n")
	for flag, left := range map[string]string{"--debug": "check migrate", "--skip-tests": "migrate", "--no-hooks": "", "--include-crds": "check migrate"} {
		s := h.must("", "chart", "template", "demo", flag)
		for _, name := range []string{"check", "migrate"} {
			if strings.Contains(s.out, "shop/"+name+":1") != strings.Contains(left, name) || !strings.Contains(s.out, "traefik/whoami") {
				t.Errorf("%s:\n%s", flag, s.out)
			}
		}
	}
	if s := h.cli("", "chart", "template", "demo", "--output-dir", "out"); s.code != 2 || !strings.Contains(s.err, "`fairlead chart template demo >compose.yaml`") {
		t.Errorf("%d %s", s.code, s.all)
	}
	h.write("demo/crds/x.yaml", "kind: CustomResourceDefinition\n")
	if s := h.cli("", "chart", "template", "demo", "--include-crds"); s.code != 2 || !strings.Contains(s.err, "demo/crds has what Kubernetes is taught") {
		t.Errorf("%d %s", s.code, s.all)
	}
	if err := os.RemoveAll("demo/crds"); err != nil {
		t.Fatal(err)
	}

	h.write("demo/Chart.yaml", "apiVersion: v2\nname: demo\nversion: 0.1.0\n") // neither described nor with an appVersion
	h.must("", "chart", "template", "demo", "--set-string", "tag=1")
	if s := h.must("", "chart", "lint", "demo", "--set-string", "tag=1", "--with-subcharts", "--debug"); !strings.Contains(s.out, "there is no description:") {
		t.Errorf("%s", s.all)
	}
	if s := h.must("", "chart", "lint", "demo", "--set-string", "tag=1", "--quiet"); s.all != "" {
		t.Errorf("%s", s.all)
	}
	h.write("demo/templates/wrong.yaml", "services: {web: {image: [}}\n")
	if s := h.cli("", "chart", "lint", "demo", "--set-string", "tag=1", "--quiet"); s.code != 2 || !strings.Contains(s.out, "error") || strings.Contains(s.out, "info") {
		t.Errorf("%d %s", s.code, s.all)
	}

	h.must("", "chart", "create", "lib")
	h.write("parent/Chart.yaml", "apiVersion: v2\nname: parent\nversion: 1.0.0\ndependencies:\n- {name: lib, version: '>=0', repository: 'file://../lib'}\n")
	h.must("", "chart", "package", "parent", "-u", "-d", "dist")
	if s := h.must("", "chart", "template", "dist/parent-1.0.0.tgz"); !strings.Contains(s.out, "# Source: parent/charts/lib/templates") {
		t.Errorf("%s", s.all)
	}
	h.must("", "chart", "package", "lib", "--dependency-update", "--debug", "-d", "dist") // it depends on nothing
	if s := h.must("", "chart", "dependency", "list", "parent"); !strings.Contains(s.out, "lib") {
		t.Errorf("%s", s.all)
	}

	repo := "file://" + filepath.Join(h.dir, "dist")
	h.must("", "chart", "repo", "add", "here", repo)
	h.must("", "chart", "repo", "add", "here", repo)
	if s := h.cli("", "chart", "repo", "add", "here", repo+"/"); s.code != 2 || !strings.Contains(s.err, "--force-update replaces it") {
		t.Errorf("%d %s", s.code, s.all)
	}
	h.must("", "chart", "repo", "add", "here", repo+"/", "--force-update")
	if s := h.must("", "chart", "repo", "list"); !strings.Contains(s.out, "/dist/ ") {
		t.Errorf("%s", s.all)
	}
	h.must("", "chart", "repo", "remove", "here")
	if s := h.must("", "chart", "repo", "ls"); s.out != "no repositories\n" {
		t.Errorf("%s", s.all)
	}
}

// TestDryRunsAndHistoryAsInHelm: --dry-run with the words of its versions, history --max.
func TestDryRunsAndHistoryAsInHelm(t *testing.T) {
	h := newHub(t)
	h.must("", "chart", "create", "lib")
	h.must("", "install", "shop", "lib", "--detach", "--dry-run=false")
	h.must("", "upgrade", "shop", "lib", "--detach", "--set", "replicas=2")
	for _, how := range []string{"true", "client", "server"} {
		if s := h.must("", "upgrade", "shop", "lib", "--set", "replicas=3", "--dry-run="+how); !strings.Contains(s.out, "replicas: 2 → 3") || release(h) != 2 {
			t.Errorf("--dry-run=%s: release %d, %s", how, release(h), s.all)
		}
	}
	if s := h.cli("", "install", "blog", "lib", "--dry-run=perhaps"); s.code != 2 {
		t.Errorf("%d %s", s.code, s.all)
	}
	var list []v1.ReleaseSummary
	if err := json.Unmarshal([]byte(h.must("", "history", "shop", "--max", "1", "-o", "json").out), &list); err != nil || len(list) != 1 || list[0].Number != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	if s := h.must("", "history", "shop", "--max", "9"); strings.Count(s.out, "\n") != 3 {
		t.Errorf("%s", s.all)
	}
	if s := h.cli("", "history", "shop", "--max", "-1"); s.code != 2 {
		t.Errorf("%d %s", s.code, s.all)
	}
}

// TestSchemaIsPassedOver where that is asked for.
func TestSchemaIsPassedOver(t *testing.T) {
	h := newHub(t)
	h.must("", "chart", "create", "demo")
	h.write("demo/values.schema.json", `{"properties": {"replicas": {"maximum": 1}}}`)
	for _, args := range [][]string{{"plan", "shop", "demo"}, {"chart", "template", "demo"}, {"install", "shop", "demo", "--detach"}, {"upgrade", "shop", "demo", "--detach"}} {
		args = append(args, "--set", "replicas=2")
		if s := h.cli("", args...); s.code == 0 || args[0] != "upgrade" && !strings.Contains(s.err, "/replicas") {
			t.Errorf("%v: %d %s", args, s.code, s.all)
		}
		h.must("", append(args, "--skip-schema-validation")...)
	}
}

// TestHooksAreNotRun of an installation and an upgrade, where that is asked for.
func TestHooksAreNotRun(t *testing.T) {
	h := newHub(t) // with no loop that would run them
	h.must("", "chart", "create", "demo")
	h.write("demo/templates/migrate.yaml", "services:\n  migrate:\n    image: shop/migrate:1\n    x-fairlead: {hook: {on: [pre-install, pre-upgrade]}}\n")
	for i, args := range [][]string{{"install", "shop", "demo"}, {"upgrade", "shop", "demo", "--set", "replicas=2"}} {
		if s := h.must("", append(args, "--dry-run")...); !strings.Contains(s.out, "hook migrate runs") {
			t.Errorf("%s", s.all)
		}
		if s := h.must("", append(args, "--no-hooks", "--dry-run")...); strings.Contains(s.out, "migrate") {
			t.Errorf("%s", s.all)
		}
		h.must("", append(args, "--no-hooks", "--detach")...)
		if svc, _ := read[cluster.Service](h, store.ServiceKey(shopWeb)); release(h) != i+1 || svc.Spec.Replicas != i+1 {
			t.Errorf("%v: release %d", args, release(h))
		}
	}
	// One that changes nothing runs none, but where a value that nothing asks for is another one.
	h.must("", "upgrade", "shop", "demo", "--set", "replicas=2", "--no-hooks", "--detach")
	if s := h.must("", "plan", "shop", "demo"); strings.Contains(s.out, "migrate") || !strings.Contains(s.out, "nothing to change") {
		t.Errorf("%s", s.all)
	}
	if s := h.must("", "plan", "shop", "demo", "--reuse-values", "--set", "again=1"); !strings.Contains(s.out, "pre-upgrade hook migrate runs") {
		t.Errorf("%s", s.all)
	}
}

// TestTemplatesAreTold what they run on, and whether this is an upgrade.
func TestTemplatesAreTold(t *testing.T) {
	h := newHub(t)
	h.must("", "chart", "create", "demo")
	h.write("demo/templates/app.yaml", "services:\n  web:\n    image: shop/web:1\n    environment:\n      KUBE: {{ .Capabilities.KubeVersion.Version }}\n"+
		"      X: '{{ .Capabilities.APIVersions.Has \"x.example.com/v1\" }} {{ .Capabilities.APIVersions.Has \"fairlead.dev/v1\" }}'\n      UP: '{{ .Release.IsUpgrade }} {{ .Release.IsInstall }}'\n")
	if s := h.must("", "chart", "template", "demo"); !strings.Contains(s.out, "X: 'false true'") || !strings.Contains(s.out, "UP: 'false true'") || strings.Contains(s.out, "v1.99.3") {
		t.Errorf("%s", s.all)
	}
	s := h.must("", "chart", "template", "demo", "--kube-version", "1.99.3", "--api-versions", "y/v1,x.example.com/v1", "--is-upgrade")
	if !strings.Contains(s.out, "KUBE: v1.99.3") || !strings.Contains(s.out, "X: 'true true'") || !strings.Contains(s.out, "UP: 'true false'") {
		t.Errorf("%s", s.all)
	}
	if s := h.cli("", "chart", "template", "demo", "--kube-version", "new"); s.code != 2 || !strings.Contains(s.err, `"new"`) {
		t.Errorf("%d %s", s.code, s.all)
	}
}

// TestPackagesAreWarnedOf: one that is deprecated, and one that is another each time.
func TestPackagesAreWarnedOf(t *testing.T) {
	h := newHub(t)
	h.must("", "chart", "create", "demo")
	h.must("", "install", "shop", "demo", "--detach")
	if s := h.must("", "plan", "shop", "demo"); strings.Contains(s.err, "warning") {
		t.Errorf("%s", s.all)
	}
	h.write("demo/Chart.yaml", "apiVersion: v2\nname: demo\nversion: 0.1.0\nappVersion: v1.11.0\ndeprecated: true\n")
	h.write("demo/templates/more.yaml", "services: {web: {environment: {PW: \"{{ randAlphaNum 20 }}\"}}}\n")
	for _, args := range [][]string{{"plan", "shop", "demo"}, {"upgrade", "shop", "demo", "--detach"}, {"install", "blog", "demo", "--detach"}, {"chart", "template", "demo"}} {
		s := h.must("", args...)
		if !strings.Contains(s.err, "warning: the package demo is deprecated") || !strings.Contains(s.err, "warning: demo/templates/more.yaml: it is another one each time") || !strings.Contains(s.err, "generate: 32") || strings.Contains(s.err, "app.yaml: it is another") {
			t.Errorf("%v: %s", args, s.err)
		}
	}
	if s := h.must("", "chart", "lint", "demo"); !strings.Contains(s.out, "demo/templates/more.yaml") || !strings.Contains(s.out, "it is another one each time") {
		t.Errorf("%s", s.all)
	}
}

// TestNotesOfParts are kept with the release, where they are asked for.
func TestNotesOfParts(t *testing.T) {
	h := newHub(t)
	h.must("", "chart", "create", "demo")
	h.write("demo/charts/db/Chart.yaml", "apiVersion: v2\nname: db\nversion: 1.0.0\n")
	h.write("demo/charts/db/templates/NOTES.txt", "the database of {{ .Release.Name }}\n")
	h.must("", "install", "shop", "demo", "--detach")
	if s := h.must("", "get", "notes", "shop"); strings.Contains(s.out, "database") {
		t.Errorf("%s", s.out)
	}
	if s := h.must("", "upgrade", "shop", "demo", "--render-subchart-notes", "--detach"); !strings.Contains(s.out, "is the app shop.") || !strings.HasSuffix(s.out, "\n\nthe database of shop\n") {
		t.Errorf("%s", s.all)
	}
	if s := h.must("", "get", "notes", "shop"); !strings.HasSuffix(s.out, "\n\nthe database of shop\n") {
		t.Errorf("%s", s.out)
	}
	if s := h.must("", "plan", "shop", "demo", "--render-subchart-notes"); !strings.Contains(s.out, "nothing to change") {
		t.Errorf("%s", s.out)
	}
	if s := h.must("", "chart", "template", "shop", "demo", "--notes", "--render-subchart-notes"); !strings.Contains(s.out, "# the database of shop\n") {
		t.Errorf("%s", s.out)
	}
}
