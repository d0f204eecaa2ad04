package server

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/gateway"
	"github.com/fairlead/fairlead/pki"
)

// preflight looks for what the server needs before anything of the machine is
// changed, and says at once what is missing.
func preflight(ctx context.Context, cfg Config) (traefik string, err error) {
	if _, err := exec.LookPath("nft"); err != nil {
		return "", cluster.Invalidf("nft is not on this machine: install the package nftables; service addresses and the gateway need it")
	}
	if err := cfg.chooseRanges(cfg.ownNets); err != nil {
		return "", err
	}
	if _, err := cfg.keptName(); err != nil {
		return "", err
	}
	if s, err := readSettings(cfg.DataDir); err == nil {
		if err := cfg.otherwise(s.Node, s.Pool, s.ServiceRange); err != nil {
			return "", err
		}
	}
	if err := pki.Clock(filepath.Join(cfg.DataDir, "pki"), time.Now()); err != nil { //nolint:forbidigo // the command's own clock
		return "", err
	}
	if !cfg.NoAgent {
		if err := engineAnswers(ctx, cfg); err != nil {
			return "", err
		}
	}
	if cfg.NoGateway {
		return "", nil
	}
	traefik, _, err = gateway.Find(ctx, cfg.Traefik, callersCache()...)
	return traefik, err
}

func engineAnswers(ctx context.Context, cfg Config) error {
	engine, err := docker.New(cfg.Docker)
	if err != nil {
		return err
	}
	defer engine.Close() //nolint:errcheck // only asked
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if _, err := engine.Info(ctx); err != nil {
		return cluster.Invalidf("no Docker engine answers: install Docker and start it, or name its address with --docker: %w", err)
	}
	return nil
}

// callersCache is the cache of the user who called sudo, where `make traefik`
// left what it built.
func callersCache() []string {
	u, err := user.Lookup(os.Getenv("SUDO_USER"))
	if err != nil {
		return nil
	}
	return []string{filepath.Join(u.HomeDir, ".cache", "fairlead")}
}

// keepTraefik copies a Traefik from a user's cache to dir, where a service finds it,
// and removes older ones there: a server that runs one of them replaces it.
func keepTraefik(dir, path string, out io.Writer) error {
	to := filepath.Join(dir, filepath.Base(path))
	switch {
	case path == to:
	case path == "" || !strings.Contains(path, "/.cache/"):
		return nil
	default:
		if err := copyMissing(path, to, out); err != nil {
			return err
		}
	}
	for _, old := range gateway.Older(dir, to) {
		if err := os.Remove(old); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(out, "removed", old); err != nil {
			return err
		}
	}
	return nil
}

func copyMissing(path, to string, out io.Writer) error {
	if _, err := os.Stat(to); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil { //nolint:gosec // programs, for everyone
		return err
	}
	if err := copyProgram(path, to); err != nil {
		return err
	}
	_, err := fmt.Fprintln(out, "installed", to)
	return err
}
