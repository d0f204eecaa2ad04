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

	"github.com/fairlead/fairlead/chart/charttest"
	"github.com/fairlead/fairlead/integration/follow"
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

// TestPackageSources installs and upgrades a signed package from a real registry, from a
// repository over HTTP and from Git, and lets apps follow the first two.
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
	ann, eve := charttest.NewSigner(t, "ann"), charttest.NewSigner(t, "eve")
	git := follow.NewForge(t, n.dir)
	t.Setenv("GIT_SSL_CAINFO", git.CA)
	n.write(".gitconfig", "[credential]\n\thelper = store\n")
	n.write(".git-credentials", strings.Replace(strings.TrimSuffix(git.URL, "/pub.git"), "://", "://ann:"+git.Password+"@", 1)+"\n")

	n.write("demo/Chart.yaml", "apiVersion: v2\nname: demo\nversion: 0.0.0\n")
	n.write("demo/values.yaml", "host: \"\"\n")
	// release packs a version, and brings it to both.
	release := func(version string) {
		t.Helper()
		n.write("demo/templates/app.yaml", strings.ReplaceAll(web(image, "APP", version, 1, ""), "APP.example.com", "{{ .Values.host }}"))
		n.do("chart", "package", filepath.Join(n.dir, "demo"), "--version", version, "-d", dist, "--sign", "--keyring", ann.Secret)
		n.do("chart", "push", filepath.Join(dist, "demo-"+version+".tgz"), oci, "--plain-http")
		index, err := repo.IndexDirectory(dist, "")
		if err == nil {
			err = index.WriteFile(filepath.Join(dist, "index.yaml"), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range []string{"Chart.yaml", "values.yaml", "templates/app.yaml"} {
			b, err := os.ReadFile(filepath.Join(n.dir, "demo", f))
			if err == nil {
				err = git.Write("charts/demo/"+f, string(b))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if _, err = git.Commit(t.Context(), "version "+version); err == nil {
			_, err = git.Git(t.Context(), "tag", "v"+version)
		}
		if err == nil {
			_, err = git.Git(t.Context(), "push", "-q", "--tags", "origin", "HEAD")
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
	if out, err := n.try("install", "one", oci+"/demo", "--plain-http", "--verify", "--keyring", eve.Keyring); exitCode(err) != 2 || !strings.Contains(out, "by none of the keys") {
		t.Errorf("by another key it exits with %v:\n%s", err, out)
	}
	if out := n.do("install", "one", oci+"/demo", "--plain-http", "--verify", "--keyring", ann.Keyring, "--set", "host=one.example.com"); !strings.Contains(out, "signed by ann <ann@example.com>") {
		t.Errorf("who signed it is not said:\n%s", out)
	}
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
	n.do("install", "two", "stable/demo", "--verify", "--keyring", ann.Keyring, "--set", "host=two.example.com")
	serves("two", "1.0.0")
	// From Git, with the login that the user's git has.
	fromGit := "git+" + git.URL + "//charts/demo"
	if out, err := n.try("install", "five", fromGit+"?ref=none"); exitCode(err) != 4 {
		t.Errorf("a branch that is not there exits with %v:\n%s", err, out)
	}
	n.do("install", "five", fromGit, "--set", "host=five.example.com")
	serves("five", "1.0.0")

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
	n.do("upgrade", "five", fromGit, "--version", "^1", "--reuse-values")
	serves("five", "1.1.0")
	if out := n.do("trace", "five/web"); !strings.Contains(out, "//charts/demo?ref=") || strings.Contains(out, git.Password) {
		t.Errorf("trace says\n%s", out)
	}
	for _, app := range []string{"three", "four"} {
		n.do("delivery", "reconcile", app)
		serves(app, "1.1.0")
	}
	n.do("upgrade", "one", oci+"/demo", "--plain-http", "--reuse-values")
	serves("one", "2.0.0")
	// What somebody put in place of it is refused, also where the index says the same.
	changed := filepath.Join(dist, "demo-2.0.0.tgz")
	n.do("chart", "package", filepath.Join(n.dir, "demo"), "--version", "2.0.0", "--app-version", "changed", "-d", dist)
	if index, err := repo.IndexDirectory(dist, ""); err != nil {
		t.Fatal(err)
	} else if err := index.WriteFile(filepath.Join(dist, "index.yaml"), 0o644); err != nil {
		t.Fatal(err)
	}
	n.do("chart", "repo", "update")
	for _, ref := range []string{"stable/demo", changed} {
		if out, err := n.try("upgrade", "two", ref, "--verify", "--keyring", ann.Keyring, "--reuse-values"); exitCode(err) != 2 || !strings.Contains(out, "another archive than the one that was signed") {
			t.Errorf("%s, changed, exits with %v:\n%s", ref, err, out)
		}
	}
	serves("two", "1.1.0")
	for _, app := range []string{"one", "two", "three", "four", "five"} {
		if out := n.do("history", app); strings.Contains(out, "geheim") || strings.Contains(out, "secret") {
			t.Errorf("a password is in the history of %s:\n%s", app, out)
		}
	}
	if out := n.do("trace", "three/web"); !strings.Contains(out, "demo") || !strings.Contains(out, "1.1.0") {
		t.Errorf("trace says\n%s", out)
	}
}
