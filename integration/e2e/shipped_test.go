package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead/fairlead/integration/need"
)

// redisRoot is how a root directory with Redis is made of Debian's packages.
var redisRoot = []string{
	"--variant=essential", "--include=redis-server", `--aptopt=APT::Install-Recommends "false"`,
	"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/man/*",
	`--customize-hook=rm -rf "$1"/var/lib/apt/lists "$1"/var/cache/*`,
	"bookworm",
}

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
	registryConfig = `version: 0.1
storage: {filesystem: {rootdirectory: /var/lib/registry}}
http: {addr: ":5000"}
`
)

// redis puts images of Redis under the official name on the node's own engine.
func (n *node) redis(tags ...string) {
	n.t.Helper()
	n.debian("redis", redisRoot)
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
	if out, err := n.docker("build", "-q", "-t", ref, filepath.Join(n.dir, dir)).CombinedOutput(); err != nil {
		n.t.Fatalf("docker build: %v\n%s", err, out)
	}
}

// goProgram builds a program of another module into the directory that its image is made from.
func (n *node) goProgram(dir, module, version, pkg string) {
	n.t.Helper()
	src := filepath.Join(n.dir, dir+"-src")
	n.write(dir+"-src/go.mod", fmt.Sprintf("module x\n\ngo 1.24\n\nrequire %s %s\n", module, version))
	out := filepath.Join(n.dir, dir, filepath.Base(pkg))
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		n.t.Fatal(err)
	}
	build := exec.CommandContext(n.t.Context(), "go", "build", "-mod=mod", "-trimpath", "-ldflags", "-s -w", "-o", out, pkg)
	build.Dir, build.Env = src, append(os.Environ(), "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		need.Skip(n.t, "cannot build %s: %v\n%s", pkg, err, said)
	}
}

// whoami, and distribution below, put images on the node's own engine, each tag another version.
func (n *node) whoami(tags ...string) {
	n.t.Helper()
	n.goProgram("whoami", "github.com/traefik/whoami", "v1.11.0", "github.com/traefik/whoami")
	for _, tag := range tags {
		n.build("whoami", "FROM scratch\nCOPY whoami /\nLABEL version="+tag+"\nENTRYPOINT [\"/whoami\"]\n", "traefik/whoami:"+tag)
	}
}

func (n *node) distribution(tags ...string) {
	n.t.Helper()
	n.goProgram("registry", "github.com/distribution/distribution/v3", "v3.1.2", "github.com/distribution/distribution/v3/cmd/registry")
	n.write("registry/config.yml", registryConfig)
	for _, tag := range tags {
		n.build("registry", "FROM scratch\nCOPY registry /\nCOPY config.yml /config.yml\nLABEL version="+tag+"\nENTRYPOINT [\"/registry\"]\nCMD [\"serve\", \"/config.yml\"]\n", "registry:"+tag)
	}
}

// shipped is the directory of a package that comes with Fairlead.
func shipped(t *testing.T, name string) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", "..", "packages", name))
	if err != nil {
		t.Fatal(err)
	}
	return dir
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

// Each package that comes with Fairlead is installed, upgraded, rolled back and
// uninstalled, with images of the names that its values have.
func TestShippedPackages(t *testing.T) {
	n, _ := startApart(t)
	for _, name := range []string{"whoami", "redis", "postgres", "registry"} {
		if out := n.do("chart", "lint", shipped(t, name)); !strings.Contains(out, "is fine") {
			t.Errorf("%s:\n%s", name, out)
		}
	}
	t.Run("whoami", func(t *testing.T) { shippedWhoami(t, n) })
	t.Run("redis", func(t *testing.T) { shippedRedis(t, n) })
	t.Run("postgres", func(t *testing.T) { shippedPostgres(t, n) })
	t.Run("registry", func(t *testing.T) { shippedRegistry(t, n) })
}

func shippedWhoami(t *testing.T, n *node) {
	n.whoami("v1.11.0", "v1.11.1")
	dir := shipped(t, "whoami")
	says := func(want string) {
		t.Helper()
		n.eventually(time.Minute, "it answers "+want, func() error {
			body, err := n.answer("http://hello.example.com/")
			if err == nil && !strings.Contains(body, want) {
				err = fmt.Errorf("it answers %q", body)
			}
			return err
		})
	}
	n.do("install", "hello", dir, "--set", "host=hello.example.com,name=first")
	says("Name: first")
	n.do("upgrade", "hello", dir, "--reuse-values", "--set", "name=second,tag=v1.11.1,replicas=3")
	says("Name: second")
	n.do("rollback", "hello")
	says("Name: first")
	n.goes("hello")
}

func shippedRedis(t *testing.T, n *node) {
	n.redis("7.4", "7.5")
	dir := shipped(t, "redis")
	ask := func(command string) string {
		t.Helper()
		return strings.TrimSpace(n.do("exec", "cache/redis", "--", "sh", "-c", `REDISCLI_AUTH="$(cat /run/secrets/password)" redis-cli `+command))
	}
	n.do("install", "cache", dir)
	if got := ask("set k v"); got != "OK" {
		t.Errorf("set says %q", got)
	}
	if out := n.do("exec", "cache/redis", "--", "redis-cli", "get", "k"); !strings.Contains(out, "NOAUTH") {
		t.Errorf("without a password it says %q", out)
	}
	if out := n.do("chart", "test", "cache", "--logs"); !strings.Contains(out, "complete") || !strings.Contains(out, "written and read") {
		t.Errorf("its tests say\n%s", out)
	}
	noSecretSeen(t, n, "cache", "redis", "password")
	n.do("upgrade", "cache", dir, "--set", "tag=7.5,maxmemory=64mb")
	if got := ask("get k"); got != "v" {
		t.Errorf("after the upgrade k is %q", got)
	}
	if got := ask("config get maxmemory"); !strings.Contains(got, "67108864") {
		t.Errorf("maxmemory is %q", got)
	}
	n.do("rollback", "cache")
	if got := ask("get k"); got != "v" {
		t.Errorf("after the rollback k is %q", got)
	}
	n.goes("cache")
}

func shippedPostgres(t *testing.T, n *node) {
	n.postgres()
	if out, err := n.docker("tag", "postgres:16", "postgres:16.1").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	dir := shipped(t, "postgres")
	ask := func(sql string) string {
		t.Helper()
		return strings.TrimSpace(n.do("exec", "pg/db", "--", "psql", "-U", "postgres", "-Atc", sql))
	}
	n.do("install", "pg", dir)
	ask("CREATE TABLE notes (note text)")
	ask("INSERT INTO notes VALUES ('kept')")
	if out := n.do("chart", "test", "pg", "--logs"); !strings.Contains(out, "complete") || !strings.Contains(out, "answers, version 15") {
		t.Errorf("its tests say\n%s", out)
	}
	noSecretSeen(t, n, "pg", "db", "password")
	n.do("upgrade", "pg", dir, "--set", "tag=16.1,parameters.work_mem=8MB")
	if got := ask("SELECT note FROM notes"); got != "kept" {
		t.Errorf("after the upgrade there is %q", got)
	}
	n.do("rollback", "pg")
	if got := ask("SELECT note FROM notes"); got != "kept" {
		t.Errorf("after the rollback there is %q", got)
	}
	if out := n.do("chart", "test", "pg"); !strings.Contains(out, "complete") {
		t.Errorf("its tests say\n%s", out)
	}
	n.goes("pg")
}

func shippedRegistry(t *testing.T, n *node) {
	n.distribution("3", "3.1")
	dir := shipped(t, "registry")
	content := strings.Repeat("layer ", 1000)
	sum := sha256.Sum256([]byte(content))
	digest := "sha256:" + hex.EncodeToString(sum[:])
	kept := func() {
		t.Helper()
		n.eventually(time.Minute, "the layer is there", func() error {
			got, err := n.answer("http://images.example.com/v2/shop/blobs/" + digest)
			if err == nil && got != content {
				err = fmt.Errorf("it has %d bytes", len(got))
			}
			return err
		})
	}
	n.do("install", "images", dir, "--set", "host=images.example.com,tls=false")
	c := n.client(false)
	resp, err := c.Post("http://images.example.com/v2/shop/blobs/uploads/", "", nil)
	if err != nil || resp.StatusCode != http.StatusAccepted {
		t.Fatalf("an upload: %v %+v", err, resp)
	}
	_ = resp.Body.Close()
	at := resp.Header.Get("Location")
	if !strings.HasPrefix(at, "http") {
		at = "http://images.example.com" + at
	}
	put, err := http.NewRequestWithContext(t.Context(), http.MethodPut, at+"&digest="+digest, strings.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	if resp, err = c.Do(put); err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("an upload: %v %+v", err, resp)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	kept()
	n.do("upgrade", "images", dir, "--reuse-values", "--set", "tag=3.1,delete=true")
	kept()
	n.do("rollback", "images")
	kept()
	n.goes("images")
}

// hookedPackage writes a package whose hooks say what they do to the log.
func (n *node) hookedPackage(version, migrate, after string) string {
	n.write("hooked/Chart.yaml", "apiVersion: v2\nname: hooked\nversion: "+version+"\n")
	n.write("hooked/templates/app.yaml", fmt.Sprintf(`services:
  web:
    image: redis:7.4
    command: [sh, -c, "exec redis-server"]
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
	n.goes("hooked")
}
