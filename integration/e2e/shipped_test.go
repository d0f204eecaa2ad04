package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/fairlead/fairlead/integration/need"
	"github.com/fairlead/fairlead/integration/registryd"
)

// whoami puts images on the node's own engine, each tag another version: of a program that
// takes the flags of the real one, whose module is not everywhere.
func (n *node) whoami(tags ...string) {
	n.t.Helper()
	if err := need.Program(filepath.Join(n.dir, "whoami", "whoami"), "./testdata/whoami"); err != nil {
		n.t.Fatal(err)
	}
	for _, tag := range tags {
		n.build("whoami", "FROM scratch\nCOPY whoami /\nLABEL version="+tag+"\nENTRYPOINT [\"/whoami\"]\n", "traefik/whoami:"+tag)
	}
}

// distribution puts images of the registry under its official name on the node's own engine.
func (n *node) distribution(tags ...string) {
	n.t.Helper()
	dir := filepath.Join(n.dir, "registry")
	for _, tag := range tags {
		registryd.Image(n.t, dir, "LABEL version="+tag)
		n.imageOf(dir, "registry:"+tag)
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
	t.Run("together", func(t *testing.T) { shippedTogether(t, n) })
}

// As parts of another package they are things of their own, each with its data and password.
func shippedTogether(t *testing.T, n *node) {
	t.Helper()
	n.redis("7.4")
	n.postgres()
	yaml := "apiVersion: v2\nname: umb\nversion: 1.0.0\ndependencies:\n"
	for _, part := range []string{"redis", "postgres, alias: users", "postgres, alias: orders"} {
		name, _, _ := strings.Cut(part, ",")
		yaml += fmt.Sprintf("  - {name: %s, version: \">0\", repository: \"file://%s\"}\n", part, shipped(t, name))
	}
	n.write("umb/Chart.yaml", yaml)
	dir := filepath.Join(n.dir, "umb")
	n.do("chart", "dependency", "update", dir)
	n.do("install", "shop", dir)
	ask := func(service, sql string) string {
		t.Helper()
		return strings.TrimSpace(n.do("exec", "shop/"+service, "--", "psql", "-U", "postgres", "-Atc", sql))
	}
	passwords := map[string]bool{}
	for _, service := range []string{"users", "orders"} {
		ask(service, "CREATE TABLE only_"+service+" (note text)")
		if got := ask(service, "SELECT relname FROM pg_class WHERE relname LIKE 'only%'"); got != "only_"+service {
			t.Errorf("%s has %q", service, got)
		}
		passwords[n.do("exec", "shop/"+service, "--", "cat", "/run/secrets/password")] = true
	}
	passwords[n.do("exec", "shop/redis", "--", "cat", "/run/secrets/password")] = true
	if len(passwords) != 3 {
		t.Errorf("there are %d passwords", len(passwords))
	}
	if out := n.do("chart", "test", "shop", "--logs"); strings.Count(out, "answers, version 15") != 2 || !strings.Contains(out, "written and read") {
		t.Errorf("its tests say\n%s", out)
	}
	n.goes("shop")
}

func shippedWhoami(t *testing.T, n *node) {
	t.Helper()
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
	runs := func(tag string, replicas int) {
		t.Helper()
		n.eventually(time.Minute, fmt.Sprintf("%d of %s run", replicas, tag), func() error {
			tasks := get[[]struct {
				Image string `json:"image"`
				Ready bool   `json:"ready"`
			}](n, "ps", "hello")
			for _, x := range tasks {
				if !x.Ready || !strings.HasSuffix(x.Image, "traefik/whoami:"+tag) {
					return fmt.Errorf("there is %+v", x)
				}
			}
			if len(tasks) != replicas {
				return fmt.Errorf("there are %d", len(tasks))
			}
			return nil
		})
	}
	n.do("install", "hello", dir, "--set", "host=hello.example.com,name=first")
	says("Name: first")
	runs("v1.11.0", 2)
	secure := n.secured("hello.example.com")
	n.do("upgrade", "hello", dir, "--reuse-values", "--set", "name=second,tag=v1.11.1,replicas=3,tls=true")
	n.eventually(time.Minute, "it answers over TLS", func() error {
		body, err := n.answerTo(secure, "https://hello.example.com/")
		if err == nil && !strings.Contains(body, "Name: second") {
			err = fmt.Errorf("it answers %q", body)
		}
		return err
	})
	runs("v1.11.1", 3)
	n.do("rollback", "hello")
	says("Name: first")
	runs("v1.11.0", 2)
	n.goes("hello")
}

// secured gives the cluster a certificate for a host, and returns who trusts it.
func (n *node) secured(host string) *http.Client {
	n.t.Helper()
	chain, key, pool := n.certificate(host)
	n.do("cert", "add", strings.ReplaceAll(host, ".", "-"), "--cert", chain, "--key", key)
	return n.tlsClient(pool)
}

// greets opens a port of the gateways to the world, says something and returns what is answered.
func (n *node) greets(port int, say string) string {
	n.t.Helper()
	var answer string
	n.eventually(time.Minute, fmt.Sprintf("port %d answers", port), func() error {
		c, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(n.t.Context(), "tcp", net.JoinHostPort(n.addr, strconv.Itoa(port)))
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.WriteString(c, say); err != nil {
			return err
		}
		b := make([]byte, 64)
		got, err := c.Read(b)
		answer = string(b[:got])
		return err
	})
	return answer
}

func shippedRedis(t *testing.T, n *node) {
	t.Helper()
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
	has := func(when, maxmemory string) {
		t.Helper()
		if got := ask("get k"); got != "v" {
			t.Errorf("%s k is %q", when, got)
		}
		if got := strings.Fields(ask("config get maxmemory")); len(got) != 2 || got[1] != maxmemory {
			t.Errorf("%s maxmemory is %q", when, got)
		}
	}
	has("at first", "268435456")
	n.do("upgrade", "cache", dir, "--set", "tag=7.5,maxmemory=64mb,port=16379")
	has("after the upgrade", "67108864")
	if got := n.greets(16379, "PING\r\n"); !strings.HasPrefix(got, "-NOAUTH") {
		t.Errorf("at its port it says %q", got)
	}

	// Without persistent it keeps nothing, and what is in the volume stays there.
	n.do("upgrade", "cache", dir, "--reuse-values", "--set", "persistent=false")
	for _, again := range []bool{false, true} {
		if again {
			n.do("restart", "cache/redis")
		}
		if got := ask("get k"); got != "" {
			t.Errorf("without its volume k is %q", got)
		}
		if got := ask("config get save") + " " + ask("config get appendonly"); strings.Join(strings.Fields(got), " ") != "save appendonly no" {
			t.Errorf("without its volume its configuration is %q", got)
		}
		ask("set k another")
		for _, x := range n.ready("cache") {
			if out, err := n.docker("inspect", "-f", "{{range .Mounts}}{{.Type}} {{.Destination}}\n{{end}}", x.Cont).Output(); err != nil || strings.Contains(string(out), "volume") {
				t.Errorf("without its volume it has %v\n%s", err, out)
			}
		}
	}
	n.do("rollback", "cache", "1")
	has("after the rollback", "268435456")
	n.goes("cache")
}

func shippedPostgres(t *testing.T, n *node) {
	t.Helper()
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
	has := func(when, workMem string) {
		t.Helper()
		if got := ask("SELECT note FROM notes"); got != "kept" {
			t.Errorf("%s there is %q", when, got)
		}
		if got := ask("SHOW work_mem"); got != workMem {
			t.Errorf("%s work_mem is %q", when, got)
		}
	}
	has("at first", "4MB")
	n.do("upgrade", "pg", dir, "--set", "tag=16.1,parameters.work_mem=8MB,port=15432")
	has("after the upgrade", "8MB")
	if got := n.greets(15432, "\x00\x00\x00\x08\x04\xd2\x16\x2f"); got != "N" { // is there TLS?
		t.Errorf("at its port it says %q", got)
	}
	n.do("rollback", "pg")
	has("after the rollback", "4MB")
	if out := n.do("chart", "test", "pg"); !strings.Contains(out, "complete") {
		t.Errorf("its tests say\n%s", out)
	}
	n.goes("pg")
}

func shippedRegistry(t *testing.T, n *node) {
	t.Helper()
	n.distribution("3", "3.1")
	dir := shipped(t, "registry")
	c := n.client(false)
	ask := func(method, url, content string) *http.Response {
		t.Helper()
		if !strings.HasPrefix(url, "http") {
			url = "http://images.example.com" + url
		}
		req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		return resp
	}
	upload := func(content string) (blob string) {
		t.Helper()
		sum := sha256.Sum256([]byte(content))
		digest := "sha256:" + hex.EncodeToString(sum[:])
		begun := ask(http.MethodPost, "/v2/shop/blobs/uploads/", "")
		if begun.StatusCode != http.StatusAccepted {
			t.Fatalf("an upload: %+v", begun)
		}
		if resp := ask(http.MethodPut, begun.Header.Get("Location")+"&digest="+digest, content); resp.StatusCode != http.StatusCreated {
			t.Fatalf("an upload: %+v", resp)
		}
		return "/v2/shop/blobs/" + digest
	}
	content := strings.Repeat("layer ", 1000)
	n.do("install", "images", dir, "--set", "host=images.example.com,tls=false")
	blob := upload(content)
	kept := func() {
		t.Helper()
		n.eventually(time.Minute, "the layer is there", func() error {
			got, err := n.answer("http://images.example.com" + blob)
			if err == nil && got != content {
				err = fmt.Errorf("it has %d bytes", len(got))
			}
			return err
		})
	}
	deletes := func(when, blob string, want int) {
		t.Helper()
		if resp := ask(http.MethodDelete, blob, ""); resp.StatusCode != want {
			t.Errorf("%s a deletion is answered with %s", when, resp.Status)
		}
	}
	deletes("at first", blob, http.StatusMethodNotAllowed)
	kept()
	n.do("upgrade", "images", dir, "--reuse-values", "--set", "tag=3.1,delete=true")
	kept()
	deletes("after the upgrade", upload("another layer"), http.StatusAccepted)
	n.do("rollback", "images")
	kept()
	deletes("after the rollback", blob, http.StatusMethodNotAllowed)
	kept()
	n.secret("images/htpasswd", "ann:"+passwordHash(t, "geheim")+"\n")
	secure := n.secured("images.example.com")
	n.do("upgrade", "images", dir, "--reuse-values", "--set", "auth=true,tls=true")
	shutRegistry(t, n, secure)
	n.goes("images")
}

// shutRegistry pushes and pulls as clients of a registry do, with TLS and a password.
func shutRegistry(t *testing.T, n *node, secure *http.Client) {
	t.Helper()
	ref, err := name.NewTag("images.example.com/shop/web:1")
	if err != nil {
		t.Fatal(err)
	}
	img, err := random.Image(1024, 1)
	if err != nil {
		t.Fatal(err)
	}
	want, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	as := func(password string) []remote.Option {
		auth := authn.Anonymous
		if password != "" {
			auth = authn.FromConfig(authn.AuthConfig{Username: "ann", Password: password})
		}
		return []remote.Option{remote.WithContext(t.Context()), remote.WithTransport(secure.Transport), remote.WithAuth(auth)}
	}
	n.eventually(time.Minute, "who has the password pushes", func() error { return remote.Write(ref, img, as("geheim")...) })
	if got, err := remote.Head(ref, as("geheim")...); err != nil || got.Digest != want {
		t.Errorf("it has %+v, not %s: %v", got, want, err)
	}
	for _, password := range []string{"", "wrong"} {
		_, pulls := remote.Get(ref, as(password)...)
		for what, err := range map[string]error{"pulls": pulls, "pushes": remote.Write(ref, img, as(password)...)} {
			te, is := errors.AsType[*transport.Error](err)
			if !is || te.StatusCode != http.StatusUnauthorized {
				t.Errorf("who has the password %q %s: %v", password, what, err)
			}
		}
	}
}
