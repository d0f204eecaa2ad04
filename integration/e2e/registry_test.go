package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead/fairlead/integration/registryd"
)

// registry is an image registry with one image, for one user.
type registry struct {
	user, password string

	mu       sync.Mutex
	contents map[string][]byte // by digest; the manifest also by its tag
	manifest string            // its digest
	refused  int
	pulled   int // manifests fetched
}

const manifestType = "application/vnd.docker.distribution.manifest.v2+json"

func (r *registry) add(b []byte) string {
	sum := sha256.Sum256(b)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	r.contents[digest] = b
	return digest
}

// newRegistry serves an image of the program /app and returns its address.
func newRegistry(t *testing.T, user, password string) (*registry, string) {
	t.Helper()
	program, err := os.ReadFile(app)
	if err != nil {
		t.Fatal(err)
	}
	r := &registry{user: user, password: password, contents: map[string][]byte{}}
	var plain, packed bytes.Buffer
	w := tar.NewWriter(&plain)
	_ = w.WriteHeader(&tar.Header{Name: "app", Mode: 0o755, Size: int64(len(program))})
	_, _ = w.Write(program)
	_ = w.Close()
	z := gzip.NewWriter(&packed)
	_, _ = z.Write(plain.Bytes())
	_ = z.Close()
	sum := sha256.Sum256(plain.Bytes())
	config, err := json.Marshal(map[string]any{
		"architecture": "amd64", "os": "linux", "config": map[string]any{"Entrypoint": []string{"/app"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(sum[:])}},
	})
	if err != nil {
		t.Fatal(err)
	}
	part := func(typ string, b []byte) map[string]any {
		return map[string]any{"mediaType": "application/vnd.docker." + typ, "size": len(b), "digest": r.add(b)}
	}
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": manifestType, "config": part("container.image.v1+json", config),
		"layers": []any{part("image.rootfs.diff.tar.gzip", packed.Bytes())},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.manifest = r.add(manifest)
	l, err := net.Listen("tcp", "127.0.0.1:0") // the engine asks registries of the loopback without TLS
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: r, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	return r, l.Addr().String()
}

func (r *registry) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	if u, p, _ := q.BasicAuth(); u != r.user || p != r.password {
		r.refused++
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	name := q.URL.Path[strings.LastIndex(q.URL.Path, "/")+1:]
	isManifest := strings.Contains(q.URL.Path, "/manifests/")
	if isManifest {
		if name == "1" {
			name = r.manifest
		}
		r.pulled++
		w.Header().Set("Content-Type", manifestType)
		w.Header().Set("Docker-Content-Digest", name)
	}
	switch b, known := r.contents[name]; {
	case q.URL.Path == "/v2/":
	case !known:
		w.WriteHeader(http.StatusNotFound)
	default:
		w.Header().Set("Content-Length", fmt.Sprint(len(b)))
		_, _ = w.Write(b)
	}
}

func (r *registry) counts() (refused, pulled int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refused, r.pulled
}

// A login is sealed in the store and used when a node pulls; an image that is
// there is asked for again only where its policy says so.
func TestPrivateRegistry(t *testing.T) {
	const password = "a-password-of-a-registry"
	r, at := newRegistry(t, "ci", password)
	image := at + "/shop/web:1"
	t.Cleanup(func() { _ = exec.Command("docker", "rmi", "-f", image).Run() })
	n := start(t)
	file := func(policy, version string) string {
		return n.write("shop/compose.yaml", fmt.Sprintf(`name: shop
services:
  web: {image: "%s", pull_policy: %s, environment: {VERSION: "%s"}, healthcheck: %s}
`, image, policy, version, healthcheck))
	}
	out, err := n.try("deploy", "-f", file("missing", "1"), "--timeout", "60s")
	if refused, _ := r.counts(); err == nil || refused == 0 || !strings.Contains(out, "cannot be pulled") {
		t.Fatalf("without a login: %v, the registry refused %d times\n%s", err, refused, out)
	}
	login := n.command(t.Context(), "image", "login", at, "-u", "ci")
	login.Stdin = strings.NewReader(password)
	if out, err := login.CombinedOutput(); err != nil {
		t.Fatalf("image login: %v\n%s", err, out)
	}
	n.do("deploy", "-f", file("missing", "2"), "--timeout", "90s")
	_, first := r.counts()
	if first == 0 {
		t.Fatal("nothing was pulled")
	}
	n.do("deploy", "-f", file("missing", "3"), "--timeout", "90s")
	if _, again := r.counts(); again != first {
		t.Errorf("the registry was asked about an image that is there: %d manifests, then %d", first, again)
	}
	n.do("deploy", "-f", file("always", "4"), "--timeout", "90s")
	if _, again := r.counts(); again <= first {
		t.Error("pull_policy: always did not ask the registry")
	}
	err = filepath.WalkDir(n.data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if b, err := os.ReadFile(path); err == nil && bytes.Contains(b, []byte(password)) {
			t.Errorf("%s holds the password in clear", path)
		}
		return nil
	})
	if err != nil {
		t.Log(err)
	}
}

// askedFor checks who asked for tokens since the last time, and for what; anybody else asked for
// nothing that was given.
func askedFor(t *testing.T, reg *registryd.Registry, what, user, scope string) {
	t.Helper()
	found := false
	all := reg.Tokens.Asked()
	for _, a := range all {
		found = found || a.User == user && a.Given && slices.Contains(a.Scopes, scope)
		if a.User != user {
			t.Errorf("%s: a token is asked for as %q", what, a.User)
		}
	}
	if !found {
		t.Errorf("%s: for a token of %q for %s nobody asked: %+v", what, user, scope, all)
	}
}

// TestRegistryWithTokens: a registry sends its clients elsewhere with their password, as those
// of Docker Hub, GitHub and GitLab do. The node pulls from it, a delivery follows it, and
// packages come and go.
func TestRegistryWithTokens(t *testing.T) {
	const password = "a-password-for-tokens"
	reg := registryd.StartTokens(t, "ci", password, "pub/web")
	image := reg.Host + "/shop/web:"
	t.Cleanup(func() {
		for _, ref := range []string{image + "1.0.0", image + "1.1.0", reg.Host + "/pub/web:1.0.0"} {
			_ = exec.Command("docker", "rmi", "-f", ref).Run()
		}
	})
	for _, tag := range []string{"1.0.0", "1.1.0"} {
		reg.Push("shop/web", app, []string{"IMAGE=" + tag}, tag)
	}
	reg.Push("pub/web", app, nil, "1.0.0")
	n := start(t)
	reg.Tokens.Asked()
	deploy := func(name, image string) (string, error) {
		return n.try("deploy", "-f", n.write(name+"/compose.yaml", web(image, name, name, 1, "")), "--timeout", "60s")
	}
	login := func(password string) {
		t.Helper()
		c := n.command(t.Context(), "image", "login", reg.Host, "-u", "ci")
		c.Stdin = strings.NewReader(password)
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("image login: %v\n%s", err, out)
		}
	}

	// A node.
	if out, err := deploy("pub", reg.Host+"/pub/web:1.0.0"); err != nil {
		t.Fatalf("what is public: %v\n%s", err, out)
	}
	askedFor(t, reg, "what is public", "", "repository:pub/web:pull")
	if out, err := deploy("shop", image+"1.0.0"); err == nil || !strings.Contains(out, "cannot be pulled") {
		t.Errorf("without a login: %v\n%s", err, out)
	}
	reg.Tokens.Asked()
	login("wrong")
	if out, err := deploy("shop", image+"1.0.0"); err == nil || !strings.Contains(out, "cannot be pulled") || !strings.Contains(out, "incorrect username or password") {
		t.Errorf("with another password: %v\n%s", err, out)
	}
	reg.Tokens.Asked()
	login(password)
	if out, err := deploy("shop", image+"1.0.0"); err != nil {
		t.Fatalf("with the login: %v\n%s", err, out)
	}
	askedFor(t, reg, "with the login", "ci", "repository:shop/web:pull")

	// A delivery, and the images that it follows.
	reg.PushFiles("shop/config", map[string]string{"compose.yaml": web(image+"1.0.0", "six", "six", 1, "")}, "latest")
	reg.Tokens.Asked()
	n.do("delivery", "create", "six", "oci://"+reg.Host+"/shop/config", "--image", "web="+image[:len(image)-1]+" semver 1.x")
	askedFor(t, reg, "a delivery", "ci", "repository:shop/config:pull")
	if out := n.do("ps", "six", "-o", "json"); !strings.Contains(out, "/shop/web:1.1.0") {
		t.Errorf("the delivery brings\n%s", out)
	}

	// Packages, with a password that is given, and with one that docker login keeps.
	n.write("demo/Chart.yaml", "apiVersion: v2\nname: demo\nversion: 1.0.0\n")
	n.write("demo/templates/app.yaml", web(image+"1.0.0", "demo", "demo", 1, ""))
	n.do("chart", "package", filepath.Join(n.dir, "demo"), "-d", n.dir)
	given := func(args ...string) {
		t.Helper()
		c := n.command(t.Context(), append(args, "--plain-http", "--username", "ci")...)
		c.Stdin = strings.NewReader(password)
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	at := "oci://" + reg.Host + "/charts"
	if out, err := n.try("chart", "push", filepath.Join(n.dir, "demo-1.0.0.tgz"), at, "--plain-http"); err == nil {
		t.Errorf("anybody may push:\n%s", out)
	}
	reg.Tokens.Asked()
	given("chart", "push", filepath.Join(n.dir, "demo-1.0.0.tgz"), at)
	askedFor(t, reg, "chart push", "ci", "repository:charts/demo:pull,push")
	given("chart", "pull", at+"/demo", "-d", n.dir)
	n.write(".docker/config.json", fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, reg.Host, base64.StdEncoding.EncodeToString([]byte("ci:"+password))))
	n.do("install", "demo", at+"/demo", "--plain-http")
	askedFor(t, reg, "install", "ci", "repository:charts/demo:pull")
	n.eventually(time.Minute, "what was installed answers", func() error {
		_, err := n.answer("http://demo.example.com/")
		return err
	})
}
