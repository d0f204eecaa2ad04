package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
)

// node is a cluster of one, as "fairlead server" starts it, with nothing else on it.
type node struct {
	bin, dir string
	http     int
	cmd      *exec.Cmd
	ended    chan struct{} // closed when the server has ended
	log      *os.File
	client   *client.Client
	api      string // its socket, where it is not below dir
}

func (n *node) data() string { return filepath.Join(n.dir, "data") }
func (n *node) run() string  { return filepath.Join(n.dir, "run") }

// with runs f on a new cluster and removes every trace of it, however f ends.
func (b *bench) with(ctx context.Context, f func(*node) error) (err error) {
	bin, err := b.binary(ctx)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(b.dir, "n")
	if err != nil {
		return err
	}
	n := &node{bin: bin, dir: dir}
	defer func() {
		end := n.remove()
		if err != nil && ctx.Err() == nil {
			err = fmt.Errorf("%w\nthe end of the server's log:\n%s", err, n.tail())
		}
		if end == nil {
			end = os.RemoveAll(dir)
		}
		if end != nil { // what was measured stays true; the next run tries again
			b.left = append(b.left, end)
			fmt.Fprintln(os.Stderr, "error:", end)
		}
	}()
	if err := n.start(ctx); err != nil {
		return err
	}
	return f(n)
}

func (n *node) start(ctx context.Context) (err error) {
	ports, err := freePorts(ctx, 5)
	if err != nil {
		return err
	}
	if n.http, err = strconv.Atoi(ports[0]); err != nil {
		return err
	}
	if n.log, err = os.Create(filepath.Join(n.dir, "server.log")); err != nil {
		return err
	}
	// Not CommandContext: it must be stopped with a signal, so that it cleans up.
	n.cmd = exec.Command(n.bin, "server", "--data-dir", n.data(), "--run-dir", n.run(), "--node", "bench", //nolint:noctx // see above
		"--listen", "none", "--domain", "localhost", "--http-port", ports[0], "--https-port", ports[1], "--internal-port", ports[2],
		"--etcd-client-port", ports[3], "--etcd-peer-port", ports[4], "--pool", "10.243.0.0/16", "--service-range", "10.242.0.0/16")
	n.cmd.Stdout, n.cmd.Stderr = n.log, n.log
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := n.cmd.Start(); err != nil {
		return err
	}
	n.ended = make(chan struct{})
	go func() { _ = n.cmd.Wait(); close(n.ended) }()
	if n.client, err = client.New(client.Options{Socket: n.socket()}); err != nil {
		return err
	}
	return until(ctx, time.Minute, 50*time.Millisecond, "the server answers", func() error {
		select {
		case <-n.ended:
			return fmt.Errorf("the server ended")
		default:
		}
		_, err := n.fairlead(ctx, "system", "status", "--run-dir", n.run())
		return err
	})
}

func (n *node) socket() string {
	if n.api != "" {
		return n.api
	}
	return filepath.Join(n.run(), "fairlead.sock")
}

func (n *node) pid() int { return n.cmd.Process.Pid }

// fairlead runs a command of the command line against this cluster.
func (n *node) fairlead(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, n.bin, args...)
	cmd.Env = append(os.Environ(), "FAIRLEAD_SOCKET="+n.socket(), "HOME="+n.dir)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("fairlead %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out.Bytes()))
	}
	return out.String(), nil
}

// compose writes a Compose file and returns its path.
func (n *node) compose(content any) (string, error) {
	b, err := json.MarshalIndent(content, "", "  ") // JSON is YAML
	if err != nil {
		return "", err
	}
	path := filepath.Join(n.dir, "compose.yaml")
	return path, os.WriteFile(path, b, 0o600)
}

// ready waits until an app's service has as many ready tasks as wanted.
func (n *node) ready(ctx context.Context, app cluster.AppName, service cluster.ServiceName, want int) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	enough := errors.New("enough")
	last := 0
	err := n.client.Watch(ctx, app, 0, nil, func(p v1.Progress) error {
		for _, s := range p.Services {
			if s.Service == service {
				if last = s.Ready; s.Ready >= want && s.Wanted == want {
					return enough
				}
			}
		}
		return nil
	})
	if errors.Is(err, enough) {
		return nil
	}
	return fmt.Errorf("%d of %d replicas of %s/%s were ready in the end: %w", last, want, app, service, err)
}

// remove stops the server and removes what it made.
func (n *node) remove() error {
	if n.client != nil {
		n.client.Close()
	}
	if n.ended != nil {
		_ = n.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-n.ended:
		case <-time.After(40 * time.Second):
			_ = n.cmd.Process.Kill()
			<-n.ended
		}
	}
	if n.log != nil {
		_ = n.log.Close()
	}
	return n.uninstall()
}

func (n *node) uninstall() error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, n.bin, "system", "uninstall", "--purge", "--yes",
		"--data-dir", n.data(), "--run-dir", n.run()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("remove the cluster: %w: %s", err, out)
	}
	return nil
}

func (n *node) tail() string {
	b, _ := os.ReadFile(filepath.Join(n.dir, "server.log"))
	return string(b[max(0, len(b)-2048):])
}

// traefik is a client that reaches the gateway's public port whatever host a URL names.
func (n *node) traefik(keepAlive bool) *http.Client {
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: !keepAlive, MaxIdleConnsPerHost: 4,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", n.http))
		},
	}}
}

// freePorts are n ports that nothing listens on, no two the same.
func freePorts(ctx context.Context, n int) (ports []string, err error) {
	var lc net.ListenConfig
	for range n {
		l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }() // after all of them are found
		_, port, err := net.SplitHostPort(l.Addr().String())
		if err != nil {
			return nil, err
		}
		ports = append(ports, port)
	}
	return ports, nil
}

// until polls f until it returns nil.
func until(ctx context.Context, limit, every time.Duration, what string, f func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := f()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: not within %s: %w", what, limit, err)
		}
		if err := pause(ctx, every); err != nil {
			return err
		}
	}
}
