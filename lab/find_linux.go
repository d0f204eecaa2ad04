package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/gateway"
)

// Find looks for all that a new lab needs on this machine, before anything is made.
func Find(ctx context.Context, root string, spec Spec, traefik string) (State, error) {
	st := State{Spec: spec, Ports: Ports(spec)}
	if err := errors.Join(requireRoot(), spec.Validate()); err != nil {
		return st, err
	}
	if n := len(DirOf(root, spec.Name).DockerSocket("n100")); n > 107 {
		return st, cluster.Invalidf("--dir %s: its path is too long for sockets below it, by %d bytes", root, n-107)
	}
	if err := onDisk(root); err != nil {
		return st, err
	}
	need := []string{"containerd", "nft", "iptables", "nsenter", "cp"}
	var err error
	if st.EngineDir, err = engineDir(spec.Engine); err != nil {
		return st, err
	}
	if st.EngineDir == "" {
		need = append(need, "dockerd", "runc")
	}
	for _, p := range need {
		if _, err := exec.LookPath(p); err != nil {
			return st, cluster.Invalidf("%s is not on this machine: labs need Docker, nftables, iptables and util-linux (`make setup` installs them)", p)
		}
	}
	if spec.Gateways > 0 {
		if st.Traefik, _, err = gateway.Find(ctx, traefik, caches()...); err != nil {
			return st, err
		}
	}
	return st, nil
}

// onDisk refuses a directory in memory: Docker's data would not fit, and its storage
// driver does not work on every such file system.
func onDisk(root string) error {
	dir := root
	for {
		if _, err := os.Stat(dir); err == nil || dir == "/" {
			break
		}
		dir = filepath.Dir(dir)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("look at %s: %w", dir, err)
	}
	if fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return cluster.Invalidf("--dir %s is not on a disk: Docker's data of the machines needs one", root)
	}
	return nil
}

// caches are where `make` leaves what it built: in the cache of this user, and of
// the one who called sudo.
func caches() []string {
	var out []string
	if dir, err := os.UserCacheDir(); err == nil {
		out = append(out, filepath.Join(dir, "fairlead"))
	}
	if u, err := user.Lookup(os.Getenv("SUDO_USER")); err == nil {
		out = append(out, filepath.Join(u.HomeDir, ".cache", "fairlead"))
	}
	return out
}

// engineDir is where an engine's programs are, "" when they are on PATH.
func engineDir(engine string) (string, error) {
	var found []string
	switch engine {
	case EngineDistro:
		return "", nil
	case EngineCurrent:
		for _, c := range caches() {
			built, _ := filepath.Glob(filepath.Join(c, "engine-*"))
			slices.Sort(built)
			slices.Reverse(built)
			found = append(found, built...)
		}
	default:
		if !filepath.IsAbs(engine) {
			return "", cluster.Invalidf("--engine %q: use distro, current, or the path of a directory with dockerd and runc", engine)
		}
		found = []string{engine}
	}
	for _, dir := range found {
		if _, err := os.Stat(filepath.Join(dir, "dockerd")); err == nil {
			return dir, nil
		}
	}
	if engine == EngineCurrent {
		return "", cluster.NotFoundf("no current Docker engine is built on this machine: `make engine` builds one, in about two minutes")
	}
	return "", cluster.NotFoundf("--engine %s: there is no dockerd in it", engine)
}
