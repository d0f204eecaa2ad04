// Package gitd is a Git server over https for tests and benchmarks: git's own
// http-backend, with a password. Run runs git as all of them do.
package gitd

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

// Backend is git's program that speaks to clients.
const Backend = "/usr/lib/git-core/git-http-backend"

// Server serves one repository, and has a work tree of it.
type Server struct {
	URL, Password string
	CA            string // a file with its certificate
	Tree          string // the work tree

	handler http.Handler
	srv     *httptest.Server
	behind  atomic.Pointer[func(w http.ResponseWriter, r *http.Request, next http.Handler)]
	asks    atomic.Int64
}

// New makes an empty repository NAME.git below dir, and serves it until Close.
func New(ctx context.Context, dir, name, password string) (*Server, error) {
	if _, err := os.Stat(Backend); err != nil {
		return nil, fmt.Errorf("git's http-backend is needed: %w", err)
	}
	s := &Server{Password: password, Tree: filepath.Join(dir, "tree"), CA: filepath.Join(dir, "git-ca.pem")}
	bare := filepath.Join(dir, "git", name+".git")
	for _, args := range [][]string{
		{"init", "-q", "--bare", "-b", "main", bare},
		{"-C", bare, "config", "http.receivepack", "true"},
		{"clone", "-q", bare, s.Tree},
		{"-C", s.Tree, "checkout", "-q", "-B", "main"},
	} {
		if _, err := Run(ctx, dir, args...); err != nil {
			return nil, err
		}
	}
	h := &cgi.Handler{Path: Backend, Env: []string{"GIT_PROJECT_ROOT=" + filepath.Dir(bare), "GIT_HTTP_EXPORT_ALL=1"}, Stderr: io.Discard}
	s.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asks.Add(1)
		if _, got, _ := r.BasicAuth(); got != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r)
	})
	s.Behind(nil)
	s.srv = httptest.NewTLSServer(s)
	s.URL = s.srv.URL + "/" + name + ".git"
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.srv.Certificate().Raw})
	if err := os.WriteFile(s.CA, b, 0o600); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Close ends the server. What was pushed stays.
func (s *Server) Close() { s.srv.Close() }

// Up serves again after Close, at the same address.
func (s *Server) Up(ctx context.Context) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", s.srv.Listener.Addr().String())
	if err != nil {
		return err
	}
	s.srv = &httptest.Server{Listener: l, Config: &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}}
	s.srv.StartTLS() // with the certificate of every such server
	return nil
}

// Behind lets another handler have the requests from now on, which may pass them on; nil is
// none.
func (s *Server) Behind(f func(w http.ResponseWriter, r *http.Request, next http.Handler)) {
	if f == nil {
		f = func(w http.ResponseWriter, r *http.Request, next http.Handler) { next.ServeHTTP(w, r) }
	}
	s.behind.Store(&f)
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	(*s.behind.Load())(w, r, s.handler)
}

// Requests is how many there were.
func (s *Server) Requests() int64 { return s.asks.Load() }

// Write writes a file of the work tree.
func (s *Server) Write(name, content string) error {
	path := filepath.Join(s.Tree, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(content), 0o600)
}

// Commit commits what is in the work tree, and returns the commit.
func (s *Server) Commit(ctx context.Context, message string) (string, error) {
	if _, err := s.Git(ctx, "add", "-A"); err != nil {
		return "", err
	}
	if _, err := s.Git(ctx, "commit", "-q", "-m", message); err != nil {
		return "", err
	}
	return s.Git(ctx, "rev-parse", "HEAD")
}

// Push pushes what was committed.
func (s *Server) Push(ctx context.Context) error {
	_, err := s.Git(ctx, "push", "-q", "origin", "HEAD")
	return err
}

// Git runs git in the work tree.
func (s *Server) Git(ctx context.Context, args ...string) (string, error) {
	return Run(ctx, s.Tree, args...)
}

// Run runs git in a directory, as Ann, with nothing of the settings of this machine.
func Run(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_AUTHOR_NAME=Ann", "GIT_AUTHOR_EMAIL=ann@example.com", "GIT_COMMITTER_NAME=Ann",
		"GIT_COMMITTER_EMAIL=ann@example.com", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}
