package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/integration/load"
	"github.com/fairlead/fairlead/integration/need"
)

// The image is used as the official one is: a password from a file, the data in
// PGDATA, which is made at the first start, SCRAM for whoever comes by network.
const (
	postgresDockerfile = `FROM fairlead-e2e-postgres-root
COPY entrypoint.sh /usr/local/bin/entrypoint.sh
ENV PGDATA=/var/lib/postgresql/data PATH=/usr/lib/postgresql/15/bin:/usr/sbin:/usr/bin:/sbin:/bin
EXPOSE 5432
STOPSIGNAL SIGINT
ENTRYPOINT ["sh", "/usr/local/bin/entrypoint.sh"]
`
	postgresEntrypoint = `set -e
if [ "$(id -u)" = 0 ]; then
	mkdir -p "$PGDATA" /run/postgresql
	chown -R postgres:postgres "$PGDATA" /run/postgresql
	chmod 700 "$PGDATA"
	exec setpriv --reuid=postgres --regid=postgres --clear-groups sh "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
	: "${POSTGRES_PASSWORD_FILE:?names no file with the password}"
	initdb -D "$PGDATA" -U postgres --pwfile="$POSTGRES_PASSWORD_FILE" -E UTF8 --locale=C --auth-host=scram-sha-256 --auth-local=trust
	echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
fi
if [ "$1" = postgres ]; then shift; fi
exec postgres -D "$PGDATA" -c listen_addresses='*' -c jit=off "$@"
`
)

// postgres puts an image postgres:16 on the node's own engine: never on the
// machine's, where a real one may be.
func (n *node) postgres() {
	n.t.Helper()
	if n.engine == "" {
		n.t.Fatal("an engine of the test's own is needed")
	}
	n.debian("postgres")
	n.write("postgres/entrypoint.sh", postgresEntrypoint)
	n.write("postgres/Dockerfile", postgresDockerfile)
	if out, err := n.docker("build", "-q", "-t", "postgres:16", filepath.Join(n.dir, "postgres")).CombinedOutput(); err != nil {
		n.t.Fatalf("docker build: %v\n%s", err, out)
	}
}

// debian puts an image fairlead-e2e-NAME-root of Debian's packages on the node's engine.
func (n *node) debian(name string) {
	n.t.Helper()
	out, err := exec.CommandContext(n.t.Context(), "bash", filepath.Join(need.Root(n.t), "scripts/debian"), name).Output()
	path := strings.TrimSpace(string(out))
	if err != nil || path == "" {
		need.Skip(n.t, "no root directory with %s (scripts/debian): %v", name, err)
	}
	root, err := os.Open(path)
	if err != nil {
		n.t.Fatal(err)
	}
	defer root.Close()
	load := n.docker("import", "-", "fairlead-e2e-"+name+"-root")
	load.Stdin = root
	if out, err := load.CombinedOutput(); err != nil {
		n.t.Fatalf("docker import: %v\n%s", err, out)
	}
}

// readmeFile is the Compose file that README.md shows, as it stands there.
func readmeFile(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(b), "It works with a Compose file such as\n")
	var file strings.Builder
	for l := range strings.Lines(rest) {
		text, indented := strings.CutPrefix(l, "    ")
		if !indented && strings.TrimSpace(l) != "" {
			break
		}
		file.WriteString(text)
	}
	if !found || !strings.Contains(file.String(), "postgres:16") {
		t.Fatalf("README.md has no Compose file where it was:\n%s", file.String())
	}
	return strings.TrimLeft(file.String(), "\n")
}

// readmeImages makes the web image in two versions, and the directory that api is built from.
func (n *node) readmeImages() {
	n.t.Helper()
	if err := need.Program(filepath.Join(n.dir, "api", "api"), "./readme"); err != nil {
		n.t.Fatal(err)
	}
	dockerfile := "FROM scratch\nCOPY api /api\nENTRYPOINT [\"/api\"]\n"
	n.write("api/Dockerfile", dockerfile)
	for _, tag := range []string{"1.4", "1.5"} {
		cmd := n.docker("build", "-q", "-t", "registry.example.com/shop/web:"+tag, "-f", "-", filepath.Join(n.dir, "api"))
		cmd.Stdin = strings.NewReader(dockerfile + "LABEL version=" + tag + "\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			n.t.Fatalf("docker build: %v\n%s", err, out)
		}
	}
}

const kept = ", kept by PostgreSQL"

// notes are what web answers.
func (n *node) notes(want ...string) error {
	body, err := n.answer("http://shop.example.com/")
	if err != nil {
		return err
	}
	if all := strings.Join(want, kept+"\n") + kept + "\n"; body != all {
		return fmt.Errorf("it answers %q, want %q", body, all)
	}
	return nil
}

func (n *node) note(text string) {
	n.t.Helper()
	if err := load.Fetch(n.client(false), load.Request{Name: "note", Method: "POST", URL: "http://shop.example.com/?note=" + text}); err != nil {
		n.t.Fatalf("keep a note: %v", err)
	}
}

// The file that the README shows simply works: web asks api by name, api reads
// PostgreSQL with the generated password, and the data outlives what is done to
// the services.
func TestReadme(t *testing.T) {
	n, _ := startApart(t)
	n.postgres()
	n.readmeImages()
	file := n.write("compose.yaml", readmeFile(t))
	n.do("deploy", "-f", file)
	n.note("first")
	if err := n.notes("first"); err != nil {
		t.Error(err)
	}
	t.Run("no secret is seen from outside", func(t *testing.T) { noSecretSeen(t, n, "shop", "db", "db-password") })

	n.do("restart", "shop/db")
	n.eventually(time.Minute, "the notes are there after a restart of the database", func() error { return n.notes("first") })
	n.note("second")

	update := n.command(t.Context(), "deploy", "-f", file)
	update.Env = append(update.Env, "TAG=1.5")
	if out, err := update.CombinedOutput(); err != nil {
		t.Fatalf("deploy with TAG=1.5: %v\n%s", err, out)
	}
	if err := n.notes("first", "second"); err != nil {
		t.Errorf("after another release: %v", err)
	}
	n.note("third")
	n.do("rollback", "shop")
	if err := n.notes("first", "second", "third"); err != nil {
		t.Errorf("after a rollback: %v", err)
	}
	if out := n.do("ps", "shop", "-o", "wide"); !strings.Contains(out, "web:1.4") || strings.Contains(out, "web:1.5") {
		t.Errorf("after a rollback:\n%s", out)
	}
	n.do("rm", "shop", "--yes")
	n.do("deploy", "-f", file)
	if err := n.notes("first", "second", "third"); err != nil {
		t.Errorf("removed and deployed again: %v", err)
	}
	if out := n.do("exposure"); !strings.Contains(out, "shop.example.com") || strings.Contains(out, "shop/db") || strings.Contains(out, "shop/api") {
		t.Errorf("exposure prints\n%s", out)
	}
}
