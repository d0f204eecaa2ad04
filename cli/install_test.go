package cli_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

var shopWeb = cluster.ServiceID{App: "shop", Name: "web"}

func TestInstallUpgradeUninstall(t *testing.T) {
	h := newHub(t)
	h.must("", "chart", "create", "demo")
	h.must("", "chart", "package", "demo", "--version", "0.2.0")

	if s := h.must("", "plan", "shop", "demo", "--set", "replicas=2"); !strings.Contains(s.out, "+ package demo-0.1.0") || !strings.Contains(s.out, "+ service web") {
		t.Errorf("plan says\n%s", s.out)
	}
	if s := h.must("", "install", "shop", "demo", "--dry-run"); !strings.Contains(s.out, "+ service web") {
		t.Errorf("--dry-run says\n%s", s.out)
	}
	if s := h.must("", "ls"); s.out != "no apps\n" && strings.Contains(s.out, "shop") {
		t.Errorf("a plan made something:\n%s", s.out)
	}
	s := h.must("", "install", "shop", "demo", "--set", "replicas=2", "--detach", "--wait", "--note", "first")
	if !strings.Contains(s.out, "demo v1.11.0 is the app shop.") || !strings.Contains(s.err, "shop: release 1") {
		t.Errorf("install says\n%s", s.all)
	}
	svc, _ := read[cluster.Service](h, store.ServiceKey(shopWeb))
	if svc.Spec.Replicas != 2 || svc.Spec.Task.Image != "docker.io/traefik/whoami:v1.11.0" || svc.Spec.Source.File != "demo/templates/app.yaml" {
		t.Errorf("the service is %+v", svc.Spec)
	}
	if s := h.cli("", "install", "shop", "demo"); s.code != 2 || !strings.Contains(s.err, "upgrade shop demo") {
		t.Errorf("installed twice: %d %s", s.code, s.all)
	}

	// No value given: those of before; some given: those alone, unless asked.
	values := func(want string) {
		t.Helper()
		if s := h.must("", "get", "values", "shop"); s.out != want {
			t.Errorf("the values are %q, not %q", s.out, want)
		}
	}
	values("replicas: 2\n")
	h.must("", "upgrade", "shop", "demo-0.2.0.tgz", "--detach")
	values("replicas: 2\n")
	h.must("", "upgrade", "shop", "demo-0.2.0.tgz", "--detach", "--set", "host=shop.example.com", "--reuse-values")
	values("host: shop.example.com\nreplicas: 2\n")
	// What changes is said before it is changed.
	s = h.must("", "upgrade", "shop", "demo-0.2.0.tgz", "--detach", "--set", "host=shop.example.com")
	if !strings.HasPrefix(s.err, "shop: release 3 → 4\n  ~ package demo-0.2.0") || !strings.Contains(s.err, "replicas: 2 → 1") {
		t.Errorf("before it upgrades it says\n%s", s.err)
	}
	values("host: shop.example.com\n")
	h.must("", "upgrade", "shop", "demo-0.2.0.tgz", "--detach", "--reset-values")
	values("")

	s = h.must("", "history", "shop", "-o", "json")
	if !strings.Contains(s.out, `"chart": "demo-0.2.0"`) || !strings.Contains(s.out, `"chart": "demo-0.1.0"`) || !strings.Contains(s.out, `"note": "first"`) {
		t.Errorf("history says\n%s", s.out)
	}
	if s := h.must("", "get", "manifest", "shop", "--release", "1"); !strings.Contains(s.out, "image: docker.io/traefik/whoami:v1.11.0") {
		t.Errorf("the manifest is\n%s", s.out)
	}
	if s := h.must("", "get", "notes", "shop", "--revision", "3"); !strings.Contains(s.out, "http://shop.example.com/") {
		t.Errorf("the notes are\n%s", s.out)
	}
	if s := h.must("", "ls", "-o", "wide"); !strings.Contains(s.out, "PACKAGE") || !strings.Contains(s.out, "demo-0.2.0") {
		t.Errorf("ls says\n%s", s.out)
	}
	if s := h.must("", "status", "shop"); !strings.Contains(s.out, "package demo-0.2.0") {
		t.Errorf("status says\n%s", s.out)
	}
	h.must("", "rollback", "shop", "1", "--detach")
	values("replicas: 2\n")

	s = h.must("", "uninstall", "shop", "--keep-history")
	if !strings.Contains(s.out, "removed service") {
		t.Errorf("uninstall says\n%s", s.out)
	}
	if s := h.must("", "ls", "-o", "json"); !strings.Contains(s.out, `"state": "uninstalled"`) {
		t.Errorf("ls says\n%s", s.out)
	}
	if s := h.cli("", "install", "shop", "demo"); s.code != 2 || !strings.Contains(s.err, "rollback shop") {
		t.Errorf("installed over its history: %d %s", s.code, s.all)
	}
	if s := h.cli("", "upgrade", "shop", "demo"); s.code != 2 || !strings.Contains(s.err, "--install installs over it") {
		t.Errorf("upgraded though it was uninstalled: %d %s", s.code, s.all)
	}
	h.must("", "upgrade", "shop", "demo", "--install", "--detach")
	values("")
	h.must("", "uninstall", "shop", "--keep-history")
	h.must("", "upgrade", "shop", "demo", "--install", "--reuse-values", "--set", "replicas=3", "--detach")
	values("replicas: 3\n")
	h.must("", "uninstall", "shop")
	if s := h.cli("", "history", "shop"); s.code != 4 {
		t.Errorf("its history is there: %s", s.all)
	}
}

func TestUpgradeChecksAsItShould(t *testing.T) {
	h := newHub(t)
	h.must("", "chart", "create", "demo")
	if s := h.cli("", "upgrade", "shop", "demo"); s.code != 4 || !strings.Contains(s.err, "--install") {
		t.Errorf("%d %s", s.code, s.all)
	}
	h.must("", "upgrade", "shop", "demo", "--install", "--detach")
	if s := h.must("", "upgrade", "shop", "demo", "--detach"); !strings.Contains(s.err, "nothing to change") {
		t.Errorf("the same again:\n%s", s.all)
	}
	if s := h.cli("", "plan", "shop", "demo", "--set", "replicas=4", "--exit-code"); s.code != 10 || !strings.Contains(s.out, "replicas: 1 → 4") {
		t.Errorf("%d %s", s.code, s.all)
	}
	h.write("more.yaml", "replicas: 6\n")
	if s := h.must("", "plan", "shop", "demo", "-f", "more.yaml"); !strings.Contains(s.out, "replicas: 1 → 6") {
		t.Errorf("%s", s.all)
	}
	h.write("less.yaml", "replicas: 5\n")
	for _, c := range []struct {
		want string
		args []string
	}{
		{"1 → 5", []string{"-f", "more.yaml,less.yaml"}},
		{"1 → 6", []string{"--values", "less.yaml", "-f", "more.yaml"}},
		{"1 → 5", []string{"-f", "more.yaml", "--values", "less.yaml"}},
		{"1 → 6", []string{"--values", "more.yaml,less.yaml", "-f", "less.yaml,more.yaml"}},
	} {
		if s := h.must("", append([]string{"plan", "shop", "demo"}, c.args...)...); !strings.Contains(s.out, "replicas: "+c.want) {
			t.Errorf("%v: %s", c.args, s.all)
		}
	}
	if s := h.must("", "plan", "--help"); strings.Contains(s.out, "(default [])") {
		t.Errorf("%s", s.out)
	}
	if s := h.cli("", "plan", "shop", "--set", "a=b"); s.code != 2 {
		t.Errorf("%d %s", s.code, s.all)
	}
	// From a Compose file to a package and back.
	h.write("compose.yaml", "services: {web: {image: \"a/b:1\"}}\n")
	if s := h.must("", "plan", "shop"); !strings.Contains(s.out, "package demo-0.1.0 (remove)") {
		t.Errorf("%s", s.all)
	}
}

// What was changed by hand is shown where a package's own texts are, and by plan; the next
// upgrade makes the app what the package says.
func TestEditsByHandAreShown(t *testing.T) {
	h := newHub(t)
	h.must("", "chart", "create", "demo")
	h.must("", "install", "shop", "demo", "--set", "replicas=2", "--detach")
	shows := func(want string, args ...string) {
		t.Helper()
		for _, part := range []string{"manifest", "values", "all"} {
			s := h.must("", append([]string{"get", part, "shop"}, args...)...)
			if want == "" && strings.Contains(s.err, "by hand") || !strings.Contains(s.err, want) {
				t.Errorf("get %s %v says %q, not %q", part, args, s.err, want)
			}
		}
		s := h.must("", append([]string{"get", "all", "shop", "-o", "json"}, args...)...)
		if strings.Contains(s.out, `"edits"`) != (want != "") || s.err != "" {
			t.Errorf("%v:\n%s", args, s.all)
		}
		for _, part := range []string{"manifest", "values"} {
			if s := h.must("", append([]string{"get", part, "shop", "-o", "yaml"}, args...)...); strings.Contains(s.out, "edits") || !strings.Contains(s.err, want) {
				t.Errorf("get %s %v -o yaml says\n%s", part, args, s.all)
			}
		}
	}
	shows("")
	h.must("", "update", "shop", "--image", "web=shop/other:7", "--detach")
	h.must("", "restart", "shop", "--detach")
	shows("changed by hand since, which this does not show: update web=shop/other:7\n")
	shows("", "--release", "1")
	if s := h.cli("", "plan", "shop", "demo", "--set", "replicas=2", "--exit-code"); s.code != 10 || !strings.Contains(s.out, "shop/other:7 → ") {
		t.Errorf("%d %s", s.code, s.all)
	}
	h.must("", "upgrade", "shop", "demo", "--set", "replicas=2", "--detach")
	shows("")
	if svc, _ := read[cluster.Service](h, store.ServiceKey(shopWeb)); strings.Contains(svc.Spec.Task.Image, "other") {
		t.Errorf("%s runs", svc.Spec.Task.Image)
	}
	h.must("", "rollback", "shop", "2", "--detach")
	shows("update web=shop/other:7")
	h.must("", "upgrade", "shop", "demo", "--set", "replicas=2", "--detach")
	h.must("", "scale", "shop/web=3")
	shows("scale web=3")
}

func TestAtomicUndoesAllOfIt(t *testing.T) {
	h := newHub(t)
	h.hooks()
	h.must("", "chart", "create", "demo")
	fail := func(args ...string) said {
		t.Helper()
		done := make(chan said)
		before := release(h)
		go func() { done <- h.cli("", args...) }()
		h.waitRelease(before + 1)
		h.ends(shopWeb, cluster.RolloutFailed, "it does not start")
		h.settles(shopWeb, "it does not start")
		if before > 0 {
			h.waitRelease(before + 2)
			h.outcome("shop", cluster.ReleaseOutcome{State: "running", Settled: true})
		}
		s := <-done
		if s.code != 1 {
			t.Errorf("%d %s", s.code, s.all)
		}
		return s
	}
	if s := fail("install", "shop", "demo", "--atomic"); !strings.Contains(s.err, "shop is removed again") || !strings.Contains(s.err, "it does not start; it is removed again") {
		t.Errorf("%s", s.all)
	}
	if s := h.cli("", "history", "shop"); s.code != 4 {
		t.Errorf("it is there: %s", s.all)
	}
	h.must("", "install", "shop", "demo", "--detach")
	if s := fail("upgrade", "shop", "demo", "--set", "replicas=5", "--atomic"); !strings.Contains(s.err, "shop goes back to release 1") {
		t.Errorf("%s", s.all)
	}
	if s := h.must("", "history", "shop", "-o", "json"); !strings.Contains(s.out, `"note": "rollback to 1"`) {
		t.Errorf("%s", s.all)
	}
}

// A change that fails after one that had failed goes back past both, and the values of a
// release that failed are not taken again.
func TestFailuresAreNotGoneBackTo(t *testing.T) {
	h := newHub(t)
	h.hooks()
	h.must("", "chart", "create", "demo")
	h.must("", "install", "shop", "demo", "--set", "replicas=2", "--detach")
	h.outcome("shop", cluster.ReleaseOutcome{State: "complete", Ended: today})
	h.must("", "upgrade", "shop", "demo", "--set", "replicas=7", "--detach")
	h.outcome("shop", cluster.ReleaseOutcome{State: "failed", Message: "it does not start", Ended: today})
	for _, more := range [][]string{nil, {"--reuse-values", "--set", "host=shop.example.com"}} {
		s := h.must("", append([]string{"plan", "shop", "demo"}, more...)...)
		if !strings.Contains(s.out, "replicas: 7 → 2") || !strings.Contains(s.err, "release 2 failed: the values of release 1 are taken") {
			t.Errorf("%v:\n%s", more, s.all)
		}
	}
	done := make(chan said)
	go func() { done <- h.cli("", "upgrade", "shop", "demo", "--set", "replicas=5", "--atomic") }()
	h.waitRelease(3)
	h.ends(shopWeb, cluster.RolloutFailed, "it does not start")
	h.settles(shopWeb, "it does not start")
	h.waitRelease(4)
	h.outcome("shop", cluster.ReleaseOutcome{State: "running", Settled: true})
	if s := <-done; s.code != 1 || !strings.Contains(s.err, "shop goes back to release 1") {
		t.Errorf("%d %s", s.code, s.all)
	}
	if svc, _ := read[cluster.Service](h, store.ServiceKey(shopWeb)); svc.Spec.Replicas != 2 {
		t.Errorf("%d replicas", svc.Spec.Replicas)
	}
}

// What was rendered is of the release before it: when another one came meanwhile, neither
// is lost.
func TestUpgradesAtOnce(t *testing.T) {
	h := newHub(t)
	h.must("", "chart", "create", "demo")
	h.must("", "install", "shop", "demo", "--detach")
	other := func(r *http.Request) { // made between rendering and this request
		if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/apps/shop/deploy") {
			h.before.Store(nil)
			h.must("", "upgrade", "shop", "demo", "--set", "replicas=4", "--detach")
		}
	}
	h.before.Store(&other)
	if s := h.cli("", "upgrade", "shop", "demo", "--set", "replicas=5", "--detach"); s.code != 1 || !strings.Contains(s.err, "app shop is at release 2, not 1") {
		t.Errorf("%d %s", s.code, s.all)
	}
}

// release is the current release of the app shop.
func release(h *hub) int {
	a, _ := read[cluster.App](h, store.AppKey("shop"))
	return a.Release
}

// waitRelease waits until the app shop is at a release.
func (h *hub) waitRelease(n int) {
	h.t.Helper()
	for {
		changed := h.mirror.Changed()
		if release(h) >= n {
			return
		}
		select {
		case <-changed:
		case <-h.t.Context().Done():
			h.t.Fatalf("no release %d", n)
		}
	}
}

func TestInstallTakesValuesAsHelmDoes(t *testing.T) {
	h := newHub(t)
	h.must("", "chart", "create", "demo")
	h.write("demo/templates/app.yaml", "services:\n  web:\n    image: shop/web:1\n    deploy: {replicas: {{ .Values.replicas }}}\n"+
		"    environment:\n{{- range $k, $v := .Values.env }}\n      {{ $k }}: {{ printf \"%v %T\" $v $v | quote }}\n{{- end }}\n")
	h.write("base.yaml", "replicas: 2\nenv: {A: base, B: base, C: base}\n")
	h.write("prod.yaml", "env: {B: prod}\n")
	h.write("text.txt", "two\nlines")
	h.must("", "install", "shop", "demo", "--detach", "-f", "base.yaml", "--values", "prod.yaml",
		"--set", "env.N=7", "--set-string", "env.S=7", "--set-file", "env.F=text.txt", "--set-json", `env.J=[1]`, "--set-literal", "env.L=a,b=c")
	svc, _ := read[cluster.Service](h, store.ServiceKey(shopWeb))
	want := map[string]string{"A": "base string", "B": "prod string", "C": "base string", "N": "7 int64", "S": "7 string", "F": "two\nlines string", "J": "[1] []interface {}", "L": "a,b=c string"}
	if d := cmp.Diff(want, svc.Spec.Task.Env); d != "" || svc.Spec.Replicas != 2 {
		t.Errorf("%d replicas; -want +got\n%s", svc.Spec.Replicas, d)
	}
	// A password among them is kept in clear, which is said.
	for set, warned := range map[string]string{"auth.adminPassword=x": "the value auth.adminPassword looks like a password", "env.API_KEY=x": "env.API_KEY", "passwordSecret=db": "", "token=": ""} {
		if s := h.must("", "plan", "shop", "demo", "--set", set, "--set", "env.A=b"); strings.Contains(s.err, "looks like a password") != (warned != "") || !strings.Contains(s.err, warned) {
			t.Errorf("%s: %s", set, s.err)
		}
	}
	if s := h.cli("", "upgrade", "shop", "demo", "--reuse-values", "--set-file", "env.F=none.txt"); s.code != 2 || !strings.Contains(s.err, "none.txt") || release(h) != 1 {
		t.Errorf("a file that is not there: %d %s", s.code, s.all)
	}
}

// A change that is not healthy in time says so, and goes on.
func TestInstallNotInTime(t *testing.T) {
	h := newHub(t)
	h.must("", "chart", "create", "demo")
	for _, args := range [][]string{{"install", "shop", "demo"}, {"upgrade", "shop", "demo", "--set", "replicas=3"}} {
		before := release(h)
		if s := h.cli("", append(args, "--timeout", "1s")...); s.code != 5 || !strings.Contains(s.err, "not healthy after 1s; the change goes on") || release(h) != before+1 {
			t.Errorf("%s: %d, release %d after %d\n%s", args[0], s.code, release(h), before, s.all)
		}
	}
}
