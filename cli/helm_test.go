package cli_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// TestHelmsFlags: what Helm's users type works, or has no meaning here.
func TestHelmsFlags(t *testing.T) {
	h := newHub(t)
	h.must("", "chart", "create", "demo")
	h.write("base.yaml", "replicas: 2\n")
	h.write("more.yaml", "port: 81\n")
	h.must("", "install", "shop", "demo", "--wait=false", "-f", "base.yaml,more.yaml", "--set", "environment.BIG=12345678",
		"--create-namespace", "--wait-for-jobs", "--cleanup-on-fail", "--skip-crds", "--debug", "--render-subchart-notes")
	svc, _ := read[cluster.Service](h, store.ServiceKey(shopWeb))
	if svc.Spec.Replicas != 2 || svc.Spec.Task.Env["BIG"] != "12345678" {
		t.Errorf("%d replicas, %v", svc.Spec.Replicas, svc.Spec.Task.Env)
	}
	s := h.must("", "upgrade", "shop", "demo", "--reset-then-reuse-values", "--set", "replicas=3", "--detach", "--history-max", "10")
	if !strings.Contains(s.err, "the last 50 releases are kept") {
		t.Errorf("--history-max says %s", s.err)
	}
	svc, _ = read[cluster.Service](h, store.ServiceKey(shopWeb))
	if svc.Spec.Replicas != 3 || svc.Spec.Task.Env["BIG"] != "12345678" {
		t.Errorf("%d replicas, %v", svc.Spec.Replicas, svc.Spec.Task.Env)
	}
	for _, args := range [][]string{{"--wait=false", "--atomic"}, {"--detach", "--rollback-on-failure"}} {
		if s := h.cli("", append([]string{"upgrade", "shop", "demo"}, args...)...); s.code != 2 || !strings.Contains(s.err, "--atomic waits") {
			t.Errorf("%v: %d %s", args, s.code, s.all)
		}
	}
	for _, args := range [][]string{{"repo", "add", "x", "https://charts.example.com"}, {"template", "demo"}, {"lint"}, {"dependency", "update"}, {"dep"}, {"package"}, {"pull"}, {"push"}, {"show"}, {"create"}, {"test"}} {
		if s := h.cli("", args...); s.code != 2 || !strings.Contains(s.err, "`fairlead chart "+args[0]) {
			t.Errorf("%v: %d %s", args, s.code, s.all)
		}
	}
	if s := h.cli("", "secret", "lint"); strings.Contains(s.err, "chart") {
		t.Errorf("%s", s.all)
	}
}

// TestHelmsFlagsOfRollbackAndUninstall: as those of install; what would be ignored wrongly is refused.
func TestHelmsFlagsOfRollbackAndUninstall(t *testing.T) {
	h := newHub(t)
	h.must("", "chart", "create", "demo")
	h.must("", "install", "shop", "demo", "--wait=false")
	h.must("", "upgrade", "shop", "demo", "--wait=false", "--set", "replicas=2")
	refused := func(says string, args ...string) {
		t.Helper()
		before := h.dump()
		if s := h.cli("", args...); s.code != 2 || !strings.Contains(s.err, says) {
			t.Errorf("%v: %d %s", args, s.code, s.all)
		}
		if diff := cmp.Diff(before, h.dump()); diff != "" {
			t.Errorf("%v changed\n%s", args, diff)
		}
	}
	refused("fairlead history APP", "rollback", "shop", "1", "--dry-run")
	refused("fairlead restart APP", "rollback", "shop", "1", "--recreate-pods")
	refused("no namespace", "rollback", "shop", "1", "-n", "prod")
	refused("--timeout 0s", "rollback", "shop", "1", "--wait", "--timeout", "0s")
	refused("fairlead status NAME", "uninstall", "shop", "--dry-run=server")
	refused("no namespace", "uninstall", "shop", "--namespace", "prod")
	refused("do not outlive it", "uninstall", "shop", "--cascade", "orphan")

	s := h.must("", "rollback", "shop", "1", "--wait=false", "--timeout", "5m", "--dry-run=none", "--no-hooks", "--cleanup-on-fail", "--wait-for-jobs", "--force", "--debug", "--history-max", "10")
	if !strings.Contains(s.err, "the last 50 releases are kept") {
		t.Errorf("--history-max says %s", s.err)
	}
	if svc, _ := read[cluster.Service](h, store.ServiceKey(shopWeb)); svc.Spec.Replicas != 1 || svc.Release != 3 {
		t.Errorf("%d replicas of release %d", svc.Spec.Replicas, svc.Release)
	}

	h.run("shop", "web")
	h.must("", "uninstall", "shop", "--wait=false", "--keep-history") // its task is there still: it would wait
	h.must("", "rollback", "shop", "3", "--detach")
	h.must("", "uninstall", "shop", "-d", "--cascade", "foreground", "--debug", "--no-hooks", "--timeout", "1m")
	h.must("", "install", "blog", "demo", "--wait=false")
	s = h.must("", "uninstall", "none", "blog", "--wait", "--ignore-not-found", "--description", "gone")
	if !strings.Contains(s.err, "there is no app none") || !strings.Contains(s.err, "not described") || !strings.Contains(s.out, "removed service") {
		t.Errorf("%s", s.all)
	}
	if s := h.must("", "uninstall", "none", "--ignore-not-found", "-o", "json"); strings.TrimSpace(s.out) != "[]" {
		t.Errorf("%s", s.all)
	}
	if s := h.cli("", "uninstall", "none"); s.code != 4 {
		t.Errorf("%d %s", s.code, s.all)
	}
}

// TestSeveralAreLinted: what is found in which, and those that cannot be installed.
func TestSeveralAreLinted(t *testing.T) {
	h := newHub(t)
	for _, name := range []string{"a", "b", "c"} {
		h.must("", "chart", "create", name)
	}
	if s := h.must("", "chart", "lint", "a", "b"); s.out != "a, b are fine\n" {
		t.Errorf("%s", s.all)
	}
	for _, name := range []string{"b", "c"} {
		h.write(name+"/templates/wrong.yaml", "services: {web: {image: [}}\n")
	}
	s := h.cli("", "chart", "lint", "a", "b", "c")
	if s.code != 2 || !strings.Contains(s.err, "b, c cannot be installed as they are") || !strings.Contains(s.out, "b: ") || !strings.Contains(s.out, "c: ") || strings.Contains(s.out, "a: ") {
		t.Errorf("%d %s", s.code, s.all)
	}
	if s := h.cli("", "chart", "lint", "a", "nowhere"); s.code == 0 || !strings.Contains(s.err, "nowhere") {
		t.Errorf("%d %s", s.code, s.all)
	}
}
