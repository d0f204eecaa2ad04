// Package registryd starts a registry of images for tests and benchmarks:
// distribution, as scripts/registry makes it.
package registryd

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// Registry is one on loopback, without TLS.
type Registry struct {
	Host           string // ADDRESS:PORT
	User, Password string // none: it asks for none

	cmd  *exec.Cmd
	done chan struct{}
}

// Start starts one on a port of loopback, with its data below dir, until Close. With a
// user it lets nobody else in. root is the project's directory.
func Start(ctx context.Context, root, dir string, port int, user, password string) (*Registry, error) {
	out, err := exec.CommandContext(ctx, "bash", filepath.Join(root, "scripts/registry")).Output()
	if err != nil {
		return nil, fmt.Errorf("scripts/registry: %w", err)
	}
	dir = filepath.Join(dir, "registry")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	r := &Registry{Host: fmt.Sprintf("127.0.0.1:%d", port), User: user, Password: password, done: make(chan struct{})}
	conf := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s/data}, delete: {enabled: true}}\nhttp: {addr: %q}\n", dir, r.Host)
	if user != "" {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			return nil, err
		}
		users := filepath.Join(dir, "htpasswd")
		if err := os.WriteFile(users, fmt.Appendf(nil, "%s:%s\n", user, hash), 0o600); err != nil {
			return nil, err
		}
		conf += fmt.Sprintf("auth: {htpasswd: {realm: test, path: %s}}\n", users)
	}
	file := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the process has it
	// Not CommandContext: it ends with Close, after what still speaks to it.
	r.cmd = exec.Command(strings.TrimSpace(string(out)), "serve", file)
	r.cmd.Env, r.cmd.Stdout, r.cmd.Stderr = append(os.Environ(), "OTEL_TRACES_EXPORTER=none"), log, log
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { _ = r.cmd.Wait(); close(r.done) }()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.Host+"/v2/", nil)
		if err != nil {
			r.Close()
			return nil, err
		}
		res, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = res.Body.Close()
			return r, nil
		}
		select {
		case <-r.done:
			said, _ := os.ReadFile(log.Name())
			return nil, fmt.Errorf("the registry ended: %s", said)
		default:
		}
		if time.Now().After(deadline) {
			r.Close()
			return nil, fmt.Errorf("the registry does not answer: %w", err)
		}
	}
}

// Close ends it.
func (r *Registry) Close() {
	_ = r.cmd.Process.Kill()
	<-r.done
}
