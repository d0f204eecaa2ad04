package cli_test

import (
	"strings"
	"testing"

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
