package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/agent/taskinit"
	"github.com/fairlead/fairlead/cluster"
)

// payloads writes tasks' secrets and configs as files in memory, from where they
// are mounted into containers.
type payloads struct {
	cfg *Config

	mu      sync.Mutex
	mounted bool
	done    map[cluster.TaskID][]docker.File
}

func newPayloads(cfg *Config) *payloads {
	return &payloads{cfg: cfg, done: map[cluster.TaskID][]docker.File{}}
}

func (p *payloads) root() string { return filepath.Join(p.cfg.RunDir, "tasks") }

func (p *payloads) dir(t cluster.TaskID) string { return filepath.Join(p.root(), string(t)) }

// write opens a task's payload and writes its files; files that are there stay.
func (p *payloads) write(pl *cluster.NodePlacement, sealed *cluster.Sealed) ([]docker.File, error) {
	if !pl.Spec.NeedsPayload() {
		return nil, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if files, ok := p.done[pl.Task]; ok {
		return files, nil
	}
	if sealed == nil {
		return nil, cluster.Transientf("its secrets and configs have not arrived")
	}
	if err := p.inMemory(); err != nil {
		return nil, err
	}
	plain, err := p.open(sealed)
	if err != nil {
		return nil, err
	}
	files, err := p.files(pl, plain)
	if err != nil {
		return nil, err
	}
	p.done[pl.Task] = files
	return files, nil
}

func (p *payloads) open(sealed *cluster.Sealed) (cluster.Payload, error) {
	r, err := age.Decrypt(bytes.NewReader(sealed.Data), p.cfg.Identity)
	if err != nil {
		return cluster.Payload{}, cluster.Transientf("its secrets are not sealed to this node's key: %w", err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return cluster.Payload{}, cluster.Transientf("its sealed secrets are damaged: %w", err)
	}
	return cluster.DecodePayload(bytes.NewReader(b))
}

func (p *payloads) files(pl *cluster.NodePlacement, plain cluster.Payload) ([]docker.File, error) {
	var out []docker.File
	for _, set := range []struct {
		dir   string
		refs  []cluster.FileRef
		value map[string][]byte
	}{{"secrets", pl.Spec.Secrets, plain.Secrets}, {"configs", pl.Spec.Configs, plain.Configs}} {
		for i, ref := range set.refs {
			content, ok := set.value[ref.Name]
			if !ok {
				return nil, cluster.Transientf("%s was not delivered", ref.Name)
			}
			if ref.Target == "" && set.dir == "secrets" && usedInEnv(pl.Spec.SecretEnv, ref.Name) {
				continue // only the environment wants it
			}
			target := ref.Target
			switch {
			case target == "" && set.dir == "secrets":
				target = "/run/secrets/" + ref.Name
			case target == "":
				target = "/" + ref.Name
			}
			// Numbered, so that one secret can be mounted at two places.
			path := filepath.Join(p.dir(pl.Task), set.dir, strconv.Itoa(i)+"-"+filepath.Base(ref.Name))
			if err := writeSecret(path, content, ref); err != nil {
				return nil, err
			}
			out = append(out, docker.File{Source: path, Target: target})
		}
	}
	if len(pl.Spec.SecretEnv) == 0 {
		return out, nil
	}
	env := map[string]string{}
	for _, k := range slices.Sorted(maps.Keys(pl.Spec.SecretEnv)) {
		v, ok := plain.Secrets[pl.Spec.SecretEnv[k]]
		if !ok {
			return nil, cluster.Transientf("secret %s was not delivered", pl.Spec.SecretEnv[k])
		}
		env[k] = string(v)
	}
	path := filepath.Join(p.dir(pl.Task), "env")
	b, err := taskinit.EncodeEnv(env)
	if err != nil {
		return nil, cluster.Invalidf("secret_env: %w", err)
	}
	// Readable to whatever user the container runs as; the directory is root's alone.
	if err := writeSecret(path, b, cluster.FileRef{Name: "environment"}); err != nil {
		return nil, err
	}
	return append(out, docker.File{Source: path, Target: taskinit.EnvFile}, docker.File{Source: p.cfg.Init, Target: taskinit.Program}), nil
}

func usedInEnv(env map[string]string, secret string) bool {
	for _, s := range env {
		if s == secret {
			return true
		}
	}
	return false
}

func writeSecret(path string, content []byte, ref cluster.FileRef) error {
	uid, uerr := owner(ref.UID)
	gid, gerr := owner(ref.GID)
	if err := errors.Join(uerr, gerr); err != nil {
		return cluster.Invalidf("%s: %w", ref.Name, err)
	}
	mode := os.FileMode(0o444)
	if ref.Mode != 0 {
		mode = os.FileMode(ref.Mode & 0o777)
	}
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		_ = os.Remove(path)
		err = os.WriteFile(path, content, 0o600)
	}
	if err == nil {
		err = os.Chown(path, uid, gid)
	}
	if err == nil {
		err = os.Chmod(path, mode)
	}
	if err != nil {
		return fmt.Errorf("write %s in memory: %w", ref.Name, err)
	}
	return nil
}

func owner(s string) (int, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("owner %q: use a number, names are the container's own", s)
	}
	return n, nil
}

// remove deletes a task's files.
func (p *payloads) remove(t cluster.TaskID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.done, t)
	if t == "" {
		return
	}
	if err := os.RemoveAll(p.dir(t)); err != nil {
		p.cfg.Log.Error("could not remove a task's secrets from memory", "task", t, "error", err)
	}
}

// inMemory makes sure that what is written never reaches a disk.
func (p *payloads) inMemory() error {
	if p.mounted {
		return nil
	}
	if err := os.MkdirAll(p.root(), 0o700); err != nil {
		return err
	}
	if !isTmpfs(p.root()) {
		if err := unix.Mount("tmpfs", p.root(), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0700,size=256m"); err != nil {
			return cluster.Transientf("%s is not in memory, and a tmpfs cannot be mounted there (%w): secrets would reach the disk", p.root(), err)
		}
		p.cfg.Log.Info("mounted a tmpfs for secrets", "path", p.root())
	}
	p.mounted = true
	return nil
}

const (
	tmpfsMagic = 0x01021994
	ramfsMagic = 0x858458f6
)

func isTmpfs(path string) bool {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return false
	}
	return uint32(st.Type) == tmpfsMagic || uint32(st.Type) == ramfsMagic //nolint:gosec // magic numbers have 32 bits
}

// CleanRunDir removes all tasks' files from memory and the tmpfs that an agent
// mounted for them. For when a node leaves for good: its containers are gone.
func CleanRunDir(runDir string) error {
	root := filepath.Join(runDir, "tasks")
	if err := unix.Unmount(root, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", root, err)
	}
	return os.RemoveAll(root)
}
