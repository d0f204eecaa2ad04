package e2e

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"helm.sh/helm/v4/pkg/repo/v1"

	"github.com/fairlead/fairlead/integration/registryd"
)

// registry starts a registry that lets one user in, whose password is where docker login
// keeps it.
func (n *node) registry(user, password string) *registryd.Registry {
	n.t.Helper()
	r := registryd.Start(n.t, user, password)
	if user != "" {
		login := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
		n.write(".docker/config.json", fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, r.Host, login))
	}
	return r
}

// repository serves a directory of packages over HTTP, to one user.
func (n *node) repository(dir, user, password string) string {
	n.t.Helper()
	files := http.FileServer(http.Dir(dir))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); u != user || p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="charts"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		files.ServeHTTP(w, r)
	}))
	n.t.Cleanup(srv.Close)
	return srv.URL
}

// TestPackageSources installs and upgrades a package from a real registry and from a
// repository over HTTP, and lets apps follow both.
func TestPackageSources(t *testing.T) {
	n := start(t)
	image := n.image()
	reg := n.registry("ann", "geheim")
	dist := filepath.Join(n.dir, "dist")
	if err := os.MkdirAll(dist, 0o755); err != nil {
		t.Fatal(err)
	}
	http := n.repository(dist, "ben", "secret")
	oci := "oci://" + reg.Host + "/charts"

	n.write("demo/Chart.yaml", "apiVersion: v2\nname: demo\nversion: 0.0.0\n")
	n.write("demo/values.yaml", "host: \"\"\n")
	// release packs a version, and brings it to both.
	release := func(version string) {
		t.Helper()
		n.write("demo/templates/app.yaml", strings.ReplaceAll(web(image, "APP", version, 1, ""), "APP.example.com", "{{ .Values.host }}"))
		n.do("chart", "package", filepath.Join(n.dir, "demo"), "--version", version, "-d", dist)
		n.do("chart", "push", filepath.Join(dist, "demo-"+version+".tgz"), oci, "--plain-http")
		index, err := repo.IndexDirectory(dist, "")
		if err == nil {
			err = index.WriteFile(filepath.Join(dist, "index.yaml"), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	serves := func(app, version string) {
		t.Helper()
		n.eventually(2*time.Minute, app+" serves "+version, func() error {
			body, err := n.answer("http://" + app + ".example.com/")
			if err == nil && !strings.HasPrefix(body, version+" ") {
				err = fmt.Errorf("it answers %q", body)
			}
			return err
		})
	}
	release("1.0.0")

	// From the registry, by hand.
	if out, err := n.try("install", "one", oci+"/nothing", "--plain-http"); exitCode(err) != 4 {
		t.Errorf("a package that is not there exits with %v:\n%s", err, out)
	}
	n.do("install", "one", oci+"/demo", "--plain-http", "--set", "host=one.example.com")
	serves("one", "1.0.0")
	// From the repository, by hand.
	add := n.command(t.Context(), "chart", "repo", "add", "stable", http, "--username", "ben")
	add.Stdin = strings.NewReader("wrong")
	if out, err := add.CombinedOutput(); err == nil {
		t.Errorf("with another password:\n%s", out)
	}
	add = n.command(t.Context(), "chart", "repo", "add", "stable", http, "--username", "ben")
	add.Stdin = strings.NewReader("secret")
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("repo add: %v\n%s", err, out)
	}
	n.do("install", "two", "stable/demo", "--set", "host=two.example.com")
	serves("two", "1.0.0")

	// By themselves.
	n.secret("three/registry", reg.Password)
	n.do("delivery", "create", "three", oci+"/demo", "--plain-http", "--semver", "1.x", "--user", reg.User, "--secret", "registry", "--set", "host=three.example.com", "--interval", "1h")
	serves("three", "1.0.0")
	n.secret("four/charts", "secret")
	n.do("delivery", "create", "four", http, "--chart", "demo", "--semver", "1.x", "--user", "ben", "--secret", "charts", "--set", "host=four.example.com", "--interval", "1h")
	serves("four", "1.0.0")

	release("1.1.0")
	release("2.0.0")
	n.do("upgrade", "one", oci+"/demo", "--plain-http", "--version", "^1", "--reuse-values")
	serves("one", "1.1.0")
	n.do("chart", "repo", "update")
	n.do("upgrade", "two", "stable/demo", "--version", "1.1.0", "--reuse-values")
	serves("two", "1.1.0")
	for _, app := range []string{"three", "four"} {
		n.do("delivery", "reconcile", app)
		serves(app, "1.1.0")
	}
	n.do("upgrade", "one", oci+"/demo", "--plain-http", "--reuse-values")
	serves("one", "2.0.0")
	for _, app := range []string{"one", "two", "three", "four"} {
		if out := n.do("history", app); strings.Contains(out, "geheim") || strings.Contains(out, "secret") {
			t.Errorf("a password is in the history of %s:\n%s", app, out)
		}
	}
	if out := n.do("trace", "three/web"); !strings.Contains(out, "demo") || !strings.Contains(out, "1.1.0") {
		t.Errorf("trace says\n%s", out)
	}
}
