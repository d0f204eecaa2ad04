package e2e

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead/fairlead/integration/follow"
)

// TestDeliveryRunsHooks lets an app follow a package in Git whose hooks run before and
// after, and whose secret is an encrypted file of it: a hook that fails keeps its commit
// away, and a server that is killed goes on.
func TestDeliveryRunsHooks(t *testing.T) {
	n := start(t)
	image := n.image()
	f := follow.NewForge(t, n.dir)
	n.secret("hooked/git", f.Password)
	n.secret("hooked/age", sopsFile(t, "key.txt"))
	const token = "the-token-of-the-package"
	// push commits a version, with what its hook ahead of a change does.
	push := func(version, migrate string) string {
		t.Helper()
		templates := strings.TrimPrefix(web(image, "hooked", version, 1, ""), "\nname: hooked\n") + fmt.Sprintf(`
  migrate:
    image: %s
    %s
    x-fairlead: {hook: {on: [pre-install, pre-upgrade]}}
  greet:
    image: %[1]s
    command: [once]
    x-fairlead: {hook: {on: [post-install, post-upgrade]}}
`, image, migrate)
		if err := f.Write("pkg/Chart.yaml", "apiVersion: v2\nname: hooked\nversion: "+version+".0.0\n"); err != nil {
			t.Fatal(err)
		}
		templates = strings.Replace(templates, "    x-fairlead: {health", "    secrets: [token]\n    x-fairlead: {health", 1) + "secrets:\n  token: {file: files/token}\n"
		if err := f.Write("pkg/templates/app.yaml", templates); err != nil {
			t.Fatal(err)
		}
		if err := f.Write("pkg/files/token.age", sealed(t, token)); err != nil {
			t.Fatal(err)
		}
		return f.Publish("# none\n", "version "+version)
	}
	at := func(phase, commit, version string) func() error {
		return func() error {
			d := get[deliveryStatus](n, "delivery", "get", "hooked")
			if d.State.Phase != phase || d.State.Applied.Origin.Revision != commit {
				return fmt.Errorf("it is %s at %s: %s", d.State.Phase, d.State.Applied.Origin.Revision, d.State.Message)
			}
			body, err := n.answer("http://hooked.example.com/")
			if err == nil && !strings.HasPrefix(body, version+" ") {
				err = fmt.Errorf("it answers %q", body)
			}
			return err
		}
	}
	first := push("1", "command: [once]")
	n.do("delivery", "create", "hooked", f.URL, "--secret", "git", "--ca", f.CA, "--package", "pkg", "--decrypt", "age", "--interval", "1h", "--on-failure", "rollback")
	n.eventually(time.Minute, "the first commit", at("ready", first, "1"))
	for _, h := range []string{"migrate", "greet"} {
		if out := n.do("logs", "hooked/"+h); !strings.Contains(out, "done") {
			t.Errorf("%s wrote\n%s", h, out)
		}
	}
	if body, err := n.answer("http://hooked.example.com/file?name=/run/secrets/token"); err != nil || body != token {
		t.Errorf("the secret is %q, %v", body, err)
	}
	if out := n.do("get", "manifest", "hooked") + n.do("get", "values", "hooked") + n.do("delivery", "describe", "hooked"); strings.Contains(out, token) {
		t.Errorf("what is kept of it shows the secret:\n%s", out)
	}
	bad := push("2", "environment: {BROKEN: crash}")
	if out, err := n.try("delivery", "reconcile", "hooked"); exitCode(err) != 1 || !strings.Contains(out, "migrate") {
		t.Errorf("a hook that fails exits with %v:\n%s", err, out)
	}
	n.eventually(time.Minute, "it is held", at("held", bad, "1"))

	good := push("3", "command: [wait, 20s]") // long enough to be seen on a slow machine
	n.do("delivery", "reconcile", "hooked", "--detach")
	n.eventually(time.Minute, "its hook runs", func() error {
		tasks := get[[]task](n, "ps", "hooked", "--all")
		if !slices.ContainsFunc(tasks, func(t task) bool { return strings.HasPrefix(t.ID, "hooked_migrate.") && t.State == "running" }) {
			return fmt.Errorf("the tasks are %+v", tasks)
		}
		return nil
	})
	n.stop(syscall.SIGKILL)
	n.up()
	n.eventually(2*time.Minute, "the good one", at("ready", good, "3"))
}
