package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The image is used as the official one is: its entrypoint gives up root's rights.
const (
	redisDockerfile = `FROM fairlead-e2e-redis-root
COPY docker-entrypoint.sh /usr/local/bin/
WORKDIR /data
EXPOSE 6379
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["redis-server"]
`
	redisEntrypoint = `#!/bin/sh
set -e
if [ "$1" = redis-server ] && [ "$(id -u)" = 0 ]; then
	chown -R redis:redis /data
	exec setpriv --reuid=redis --regid=redis --clear-groups "$@"
fi
exec "$@"
`
)

// redis puts images of Redis under the official name on the node's own engine.
func (n *node) redis(tags ...string) {
	n.t.Helper()
	n.debian("redis")
	n.write("redis/docker-entrypoint.sh", redisEntrypoint)
	if err := os.Chmod(filepath.Join(n.dir, "redis", "docker-entrypoint.sh"), 0o755); err != nil {
		n.t.Fatal(err)
	}
	for _, tag := range tags {
		n.build("redis", redisDockerfile+"LABEL version="+tag+"\n", "redis:"+tag)
	}
}

func (n *node) build(dir, dockerfile, ref string) {
	n.t.Helper()
	n.write(dir+"/Dockerfile", dockerfile)
	n.imageOf(filepath.Join(n.dir, dir), ref)
}

// imageOf builds an image of what is in a directory.
func (n *node) imageOf(dir, ref string) {
	n.t.Helper()
	if out, err := n.docker("build", "-q", "-t", ref, dir).CombinedOutput(); err != nil {
		n.t.Fatalf("docker build: %v\n%s", err, out)
	}
}

// goes uninstalls an app, and looks for what is left of it.
func (n *node) goes(app string) {
	n.t.Helper()
	n.do("uninstall", app)
	if left := strings.Join(n.containers(app), ", "); left != "" {
		n.t.Errorf("containers of %s are left: %s", app, left)
	}
	if out, err := n.try("history", app); err == nil {
		n.t.Errorf("its history is there:\n%s", out)
	}
}

// hookedPackage writes a package whose hooks say what they do to the log.
func (n *node) hookedPackage(version, migrate, after string) string {
	n.write("hooked/Chart.yaml", "apiVersion: v2\nname: hooked\nversion: "+version+"\n")
	n.write("hooked/templates/app.yaml", fmt.Sprintf(`services:
  web:
    image: redis:7.4
    command: [sh, -c, "exec redis-server --protected-mode no"]
    environment: {VERSION: %q}
    secrets: [password]
    deploy: {update_config: {monitor: 1s}}
  migrate:
    image: redis:7.4
    command: [sh, -c, %q]
    secrets: [password]
    x-fairlead: {hook: {on: [pre-install, pre-upgrade], weight: 1}}
  after:
    image: redis:7.4
    command: [sh, -c, %q]
    x-fairlead: {hook: {on: [post-install, post-upgrade, post-rollback, pre-delete]}}
  smoke:
    image: redis:7.4
    command: [sh, -c, "echo asks; redis-cli -h web ping"]
    x-fairlead: {hook: {on: [test], delete: [hook-succeeded]}}
secrets:
  password: {external: true, x-fairlead: {generate: 32}}
`, version, migrate, after))
	return filepath.Join(n.dir, "hooked")
}

// Hooks run on a real engine, and go on where a killed server left them.
func TestHooks(t *testing.T) {
	n, _ := startApart(t)
	n.redis("7.4")
	const good = `test \"$$(wc -c </run/secrets/password)\" = 32 && echo migrates`
	unquoted := strings.ReplaceAll(good, `\"`, `"`)
	dir := n.hookedPackage("1.0.0", unquoted, "echo after")
	version := func(want string) {
		t.Helper()
		if out := n.do("exec", "hooked/web", "--", "printenv", "VERSION"); strings.TrimSpace(out) != want {
			t.Errorf("version %q runs, not %s", out, want)
		}
	}
	out := n.do("install", "hooked", dir, "--timeout", "3m")
	if !strings.Contains(out, "pre-install hook, complete") || !strings.Contains(out, "post-install hook, complete") {
		t.Errorf("install says\n%s", out)
	}
	version("1.0.0")
	if out := n.do("logs", "hooked/migrate"); !strings.Contains(out, "migrates") {
		t.Errorf("the hook's log is %q", out)
	}
	if out := n.do("ps", "hooked", "--all"); !strings.Contains(out, "pre-install hook") {
		t.Errorf("ps says\n%s", out)
	}
	if out := n.do("chart", "test", "hooked", "--logs"); !strings.Contains(out, "complete") || !strings.Contains(out, "PONG") {
		t.Errorf("chart test says\n%s", out)
	}

	// One that fails before the change leaves all as it was.
	n.hookedPackage("1.1.0", "echo no such table; exit 3", "echo after")
	if out, err := n.try("upgrade", "hooked", dir, "--timeout", "3m"); err == nil || !strings.Contains(out, "pre-upgrade hook migrate failed") || !strings.Contains(out, "no such table") {
		t.Errorf("a failed hook: %v\n%s", err, out)
	}
	version("1.0.0")
	if out := n.do("history", "hooked"); !strings.Contains(out, "pre-upgrade hook migrate failed") {
		t.Errorf("history says\n%s", out)
	}

	// One that fails behind it takes an atomic change back.
	n.hookedPackage("1.2.0", unquoted, `test -e /none`)
	if out, err := n.try("upgrade", "hooked", dir, "--atomic", "--timeout", "3m"); err == nil || !strings.Contains(out, "goes back to release 1") {
		t.Errorf("an atomic upgrade: %v\n%s", err, out)
	}
	version("1.0.0")
	if out := n.do("ps", "hooked", "--all"); !strings.Contains(out, "post-rollback hook") {
		t.Errorf("nothing ran behind the rollback:\n%s", out)
	}

	// The command and the server are killed while a hook runs.
	n.hookedPackage("2.0.0", "echo begins; sleep 8; echo ends", "echo after")
	up := n.command(t.Context(), "upgrade", "hooked", dir, "--timeout", "3m")
	if err := up.Start(); err != nil {
		t.Fatal(err)
	}
	n.eventually(time.Minute, "the hook runs", func() error {
		if out, err := n.try("logs", "hooked/migrate"); err != nil || !strings.Contains(out, "begins") {
			return fmt.Errorf("its log is %q, %w", out, err)
		}
		return nil
	})
	_ = up.Process.Kill()
	_ = up.Wait()
	n.stop(syscall.SIGKILL)
	n.up()
	n.eventually(2*time.Minute, "the upgrade is done", func() error {
		out, err := n.try("exec", "hooked/web", "--", "printenv", "VERSION")
		if err == nil && strings.TrimSpace(out) != "2.0.0" {
			err = fmt.Errorf("%s runs", out)
		}
		return err
	})
	n.eventually(time.Minute, "it is said to be complete", func() error {
		out, err := n.try("history", "hooked", "-o", "json")
		if err == nil && strings.Count(out, `"running"`) > 0 {
			err = fmt.Errorf("history says %s", out)
		}
		return err
	})
	if out := n.do("logs", "hooked/migrate"); strings.Count(out, "begins") != 1 || !strings.Contains(out, "ends") {
		t.Errorf("the hook ran otherwise than once:\n%s", out)
	}
	n.do("uninstall", "hooked", "--keep-history")
	if out := n.do("ps", "hooked", "--all"); !strings.Contains(out, "pre-delete hook") {
		t.Errorf("nothing ran ahead of the removal:\n%s", out)
	}
	n.do("rollback", "hooked", "--timeout", "3m")
	if out := n.do("ps", "hooked", "--all"); !strings.Contains(out, "post-rollback hook") {
		t.Errorf("nothing ran behind the rollback:\n%s", out)
	}
	version("2.0.0")
	n.goes("hooked")
}
