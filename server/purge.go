package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/gateway"
	"github.com/fairlead/fairlead/mesh"
	"github.com/fairlead/fairlead/names"
)

// removeEverything removes what carries this cluster's ID from the machine:
// Traefik, names and rules, containers, networks, volumes, built images, data.
func removeEverything(ctx context.Context, cfg Config, out io.Writer) error {
	id, err := os.ReadFile(filepath.Join(cfg.DataDir, "pki", "cluster-id"))
	if errors.Is(err, os.ErrNotExist) {
		return removeDirs(cfg) // it never got so far as to make anything
	}
	if err != nil {
		return err
	}
	m := &local{Config: cfg, now: time.Now, cluster: strings.TrimSpace(string(id))} //nolint:forbidigo // the command's own clock
	err = errors.Join(
		gateway.Shutdown(ctx, m.gatewayConfig(), hclog.NewNullLogger()),
		names.Shutdown(ctx, m.namesDir(), hclog.NewNullLogger()),
		mesh.Cleanup(ctx, m.cluster),
	)
	if _, serr := os.Stat(m.agentDir()); errors.Is(serr, os.ErrNotExist) && err == nil {
		return removeDirs(cfg) // no agent ever ran here, and there may be no engine
	}
	engine, derr := docker.New(cfg.Docker)
	if derr != nil {
		return errors.Join(err, derr)
	}
	removed, derr := engine.Purge(ctx, m.cluster)
	for _, r := range removed {
		_, _ = fmt.Fprintln(out, "removed", r)
	}
	if err = errors.Join(err, derr, engine.Close()); err != nil {
		return err // the data stays, so that this can be done again
	}
	return removeDirs(cfg)
}

func removeDirs(cfg Config) error {
	unmount(cfg.RunDir)
	return errors.Join(removeDir(cfg.DataDir, os.RemoveAll), removeDir(cfg.RunDir, os.RemoveAll))
}

// removeDir removes a directory with all that is in it; one that is a mount stays, empty.
func removeDir(dir string, remove func(string) error) error {
	err := remove(dir)
	if !errors.Is(err, syscall.EBUSY) {
		return err
	}
	if left, rerr := os.ReadDir(dir); rerr == nil && len(left) == 0 {
		return nil
	}
	return err
}
