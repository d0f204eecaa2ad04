package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/client"

	"github.com/fairlead/fairlead/cluster"
)

// ErrAway says that the engine did not answer. It says nothing about containers.
var ErrAway = errors.New("the Docker engine does not answer")

// Engine is a Docker engine.
type Engine struct {
	cli *client.Client
}

// Info is what an engine says about itself and its host.
type Info struct {
	Version   string
	OS, Arch  string
	CPU       int64 // thousandths of a core
	Memory    int64 // bytes
	Labels    map[string]string
	LogDriver string // the engine's default
	Hostname  string
	ImageDirs []string // that it keeps images in
}

// New makes a client of the engine at host ("unix:///var/run/docker.sock").
// With "" it takes DOCKER_HOST, else the usual socket. It does not connect.
func New(host string) (*Engine, error) {
	// More idle connections than the default two: an agent runs eight requests at a time.
	transport := &http.Transport{MaxIdleConns: 64, MaxIdleConnsPerHost: 32, IdleConnTimeout: 90 * time.Second}
	if host == "" {
		host = os.Getenv(client.EnvOverrideHost)
	}
	if host == "" {
		host = client.DefaultDockerHost
	}
	cli, err := client.NewClientWithOpts(
		client.WithHTTPClient(&http.Client{Transport: transport}), client.WithHost(host), client.WithAPIVersionNegotiation())
	if err != nil {
		return nil, cluster.Invalidf("Docker address %q: %w", host, err)
	}
	return &Engine{cli: cli}, nil
}

// Close frees the idle connections.
func (e *Engine) Close() error { return e.cli.Close() }

// Info asks the engine about itself.
func (e *Engine) Info(ctx context.Context) (Info, error) {
	i, err := e.cli.Info(ctx)
	if err != nil {
		return Info{}, kind(err)
	}
	labels := map[string]string{}
	for _, l := range i.Labels {
		k, v, _ := strings.Cut(l, "=")
		labels[k] = v
	}
	return Info{
		Version: i.ServerVersion, OS: i.OSType, Arch: arch(i.Architecture), CPU: int64(i.NCPU) * 1000,
		Memory: i.MemTotal, Labels: labels, LogDriver: i.LoggingDriver, Hostname: i.Name,
		ImageDirs: imageDirs(i),
	}, nil
}

// arch turns the kernel's name of an architecture into Go's, which images use.
func arch(a string) string {
	switch a {
	case "x86_64":
		return "amd64"
	case "aarch64":
		return "arm64"
	}
	return a
}

// Accepts reports whether the engine takes new connections. An engine that is
// shutting down does not, while connections it already has still work.
func (e *Engine) Accepts(ctx context.Context) bool {
	conn, err := e.cli.Dialer()(ctx)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// Started returns when the engine's process, or else its machine, was started;
// the zero time where that cannot be told (an engine on another machine).
func (e *Engine) Started(ctx context.Context) time.Time {
	u, err := url.Parse(e.cli.DaemonHost())
	if err != nil || u.Scheme != "unix" {
		return time.Time{}
	}
	boot := booted()
	conn, err := e.cli.Dialer()(ctx)
	if err != nil {
		return boot
	}
	defer func() { _ = conn.Close() }()
	if s := peerStarted(conn); s.After(boot) {
		return s
	}
	return boot
}

// kind gives err the kind of what went wrong.
func kind(err error) error {
	var nerr net.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return err
	case client.IsErrConnectionFailed(err), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, context.DeadlineExceeded), errors.As(err, &nerr):
		return &cluster.Error{Kind: cluster.KindTransient, Err: fmt.Errorf("%w: %w", ErrAway, err)}
	case cerrdefs.IsNotFound(err):
		return &cluster.Error{Kind: cluster.KindNotFound, Err: err}
	case cerrdefs.IsConflict(err):
		return &cluster.Error{Kind: cluster.KindConflict, Err: err}
	case cerrdefs.IsInvalidArgument(err):
		return &cluster.Error{Kind: cluster.KindInvalid, Err: err}
	case cerrdefs.IsUnavailable(err):
		return &cluster.Error{Kind: cluster.KindTransient, Err: err}
	}
	return err
}

// Message is the engine's own words about err, for people.
func Message(err error) string {
	if errors.Is(err, ErrAway) {
		return ErrAway.Error()
	}
	s := strings.TrimPrefix(err.Error(), "Error response from daemon: ")
	return strings.TrimSpace(strings.ReplaceAll(s, "\n", "; "))
}
