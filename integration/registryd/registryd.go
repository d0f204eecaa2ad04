// Package registryd runs an image registry of a test's own: distribution, on loopback,
// for everybody, for who has a password, or for who has a token that a password is given for.
package registryd

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/bcrypt"

	"github.com/fairlead/fairlead/integration/need"
	"github.com/fairlead/fairlead/proc"
)

// Registry is one registry.
type Registry struct {
	// Host is its address, as images name it.
	Host           string
	User, Password string // "": everybody may
	// Tokens is where it sends its clients; nil: they give it the password itself.
	Tokens *Tokens

	t       testing.TB
	dir     string
	program string
	cmd     *exec.Cmd
	ended   <-chan error
}

// Start starts a registry that ends with the test. With a user it wants the password.
func Start(tb testing.TB, user, password string) *Registry {
	tb.Helper()
	r := prepare(tb, user, password)
	auth := ""
	if user != "" {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			tb.Fatal(err)
		}
		users := filepath.Join(r.dir, "users")
		r.write(users, user+":"+string(hash)+"\n")
		auth = fmt.Sprintf("auth: {htpasswd: {realm: test, path: %s}}\n", users)
	}
	r.start(auth)
	return r
}

// StartTokens starts a registry that ends with the test, and wants tokens; public is the
// repository that anybody may pull.
func StartTokens(tb testing.TB, user, password, public string) *Registry {
	tb.Helper()
	r := prepare(tb, user, password)
	r.Tokens = NewTokens(tb, user, password, public)
	keys := filepath.Join(r.dir, "keys.json")
	r.write(keys, r.Tokens.keys())
	r.start(fmt.Sprintf("auth: {token: {realm: %q, service: %q, issuer: %q, jwks: %s}}\n", r.Tokens.Realm(), service, issuer, keys))
	return r
}

func prepare(tb testing.TB, user, password string) *Registry {
	tb.Helper()
	program := build(tb)
	return &Registry{Host: fmt.Sprintf("127.0.0.1:%d", need.Port(tb)), User: user, Password: password, t: tb, dir: tb.TempDir(), program: program}
}

func (r *Registry) start(auth string) {
	r.t.Helper()
	r.write(filepath.Join(r.dir, "config.yml"), fmt.Sprintf("version: 0.1\nlog: {level: warn}\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}\nhttp: {addr: %q, secret: test}\n%s", filepath.Join(r.dir, "data"), r.Host, auth))
	r.t.Cleanup(r.Kill)
	r.Up()
}

// build returns the program, which is built first where it has to be.
func build(tb testing.TB) string {
	tb.Helper()
	out, err := exec.Command("bash", filepath.Join(need.Root(tb), "scripts/registry")).Output()
	program := strings.TrimSpace(string(out))
	if err != nil || program == "" {
		need.Skip(tb, "no registry (scripts/registry): %v", err)
	}
	return program
}

// Where the official image has its configuration.
const imageConfig = "version: 0.1\nstorage: {filesystem: {rootdirectory: /var/lib/registry}}\nhttp: {addr: \":5000\"}\n"

// Image fills a directory with what an image like the official one is built from, with
// more lines of its Dockerfile.
func Image(tb testing.TB, dir string, lines ...string) {
	tb.Helper()
	program := build(tb)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	if out, err := exec.Command("cp", program, filepath.Join(dir, "registry")).CombinedOutput(); err != nil {
		tb.Fatalf("%v: %s", err, out)
	}
	for name, text := range map[string]string{
		"config.yml": imageConfig,
		"Dockerfile": "FROM scratch\nCOPY registry /\nCOPY config.yml /etc/distribution/config.yml\n" + strings.Join(lines, "\n") +
			"\nENTRYPOINT [\"/registry\"]\nCMD [\"serve\", \"/etc/distribution/config.yml\"]\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
}

func (r *Registry) write(path, content string) {
	r.t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// Up starts the program, again after Kill, and waits until it answers.
func (r *Registry) Up() {
	r.t.Helper()
	log, err := os.OpenFile(filepath.Join(r.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	defer log.Close()
	r.cmd = exec.Command(r.program, "serve", filepath.Join(r.dir, "config.yml"))
	r.cmd.Env, r.cmd.Stdout, r.cmd.Stderr = append(os.Environ(), "OTEL_TRACES_EXPORTER=none"), log, log
	if r.ended, err = proc.StartTied(r.cmd); err != nil {
		r.cmd = nil
		r.t.Fatal(err)
	}
	for deadline := time.Now().Add(need.Patience * 20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		res, err := http.Get("http://" + r.Host + "/v2/")
		if err == nil {
			_ = res.Body.Close()
			return
		}
		if time.Now().After(deadline) {
			b, _ := os.ReadFile(log.Name())
			r.t.Fatalf("the registry does not answer: %v\n%s", err, b)
		}
	}
}

// Kill ends the program; what was pushed stays.
func (r *Registry) Kill() {
	if r.cmd != nil {
		_ = r.cmd.Process.Kill()
		<-r.ended
		r.cmd = nil
	}
}

// PushFiles pushes files as Flux does, and returns the artifact's digest.
func (r *Registry) PushFiles(repository string, files map[string]string, tags ...string) string {
	r.t.Helper()
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	w := tar.NewWriter(z)
	for name, content := range files {
		_ = w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))})
		_, _ = w.Write([]byte(content))
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		r.t.Fatal(err)
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), "application/vnd.cncf.flux.config.v1+json")
	img, err := mutate.AppendLayers(base, static.NewLayer(packed.Bytes(), "application/vnd.cncf.flux.content.v1.tar+gzip"))
	if err != nil {
		r.t.Fatal(err)
	}
	return r.pushed(repository, img, tags)
}

// Push makes an image of one program, which it starts with these variables, pushes it and
// returns its digest.
func (r *Registry) Push(repository, program string, env []string, tags ...string) string {
	r.t.Helper()
	b, err := os.ReadFile(program)
	if err != nil {
		r.t.Fatal(err)
	}
	var packed bytes.Buffer
	w := tar.NewWriter(&packed)
	_ = w.WriteHeader(&tar.Header{Name: "app", Mode: 0o755, Size: int64(len(b))})
	_, _ = w.Write(b)
	_ = w.Close()
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(packed.Bytes())), nil })
	if err != nil {
		r.t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		r.t.Fatal(err)
	}
	file, err := img.ConfigFile()
	if err != nil {
		r.t.Fatal(err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", "amd64"
	file.Config.Entrypoint, file.Config.Env = []string{"/app"}, env
	if img, err = mutate.ConfigFile(img, file); err != nil {
		r.t.Fatal(err)
	}
	return r.pushed(repository, img, tags)
}

// pushed pushes an image, and returns its digest.
func (r *Registry) pushed(repository string, img v1.Image, tags []string) string {
	r.t.Helper()
	repo, err := name.NewRepository(r.Host + "/" + repository)
	if err != nil {
		r.t.Fatal(err)
	}
	auth := authn.Anonymous
	if r.User != "" {
		auth = authn.FromConfig(authn.AuthConfig{Username: r.User, Password: r.Password})
	}
	for _, tag := range tags {
		if err := remote.Write(repo.Tag(tag), img, remote.WithAuth(auth)); err != nil {
			r.t.Fatal(err)
		}
	}
	d, err := img.Digest()
	if err != nil {
		r.t.Fatal(err)
	}
	return d.String()
}
