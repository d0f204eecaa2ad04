package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/cluster"
)

// List are the labs below root, by name.
func List(root string) ([]string, error) {
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, errRoot
	}
	var out []string
	for _, e := range entries {
		if !e.IsDir() || ValidName(e.Name()) != nil {
			continue
		}
		is, err := isLab(DirOf(root, e.Name()))
		if errors.Is(err, fs.ErrPermission) && requireRoot() != nil {
			return nil, errRoot
		}
		if is {
			out = append(out, e.Name())
		}
	}
	return out, err
}

// Look returns what a lab looks like, also when it does not run or is half-made.
func Look(ctx context.Context, d Dir) (Status, error) {
	st, err := Read(d)
	if err != nil {
		if is, _ := isLab(d); is {
			return unreadStatus(d, err), nil
		}
		return Status{}, err
	}
	s, err := Ask(ctx, d, Request{Op: OpStatus})
	if err != nil {
		s = newStatus(d, st)
		s.Trouble, s.Snapshots = err.Error(), snapshots(d)
	}
	return s, nil
}

// snapshots are the names of a lab's snapshots.
func snapshots(d Dir) []string {
	entries, _ := os.ReadDir(filepath.Dir(d.snapshot("x"))) // none is there before the first
	out := []string{}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), partial) {
			out = append(out, e.Name())
		}
	}
	return out
}

// Enter becomes a program on a node, as nsenter does; it returns only when it
// could not.
func Enter(root, name, node string, args, env []string) error {
	args, env, err := entering(root, name, node, here(args), env)
	if err != nil {
		return err
	}
	return unix.Exec(args[0], args, env)
}

// entering is what runs a program on a node, and its environment.
func entering(root, name, node string, args, env []string) (_, _ []string, err error) {
	if err := requireRoot(); err != nil {
		return nil, nil, err
	}
	d := DirOf(root, name)
	st, err := Read(d)
	if err != nil {
		return nil, nil, err
	}
	if _, err := st.Spec.Machine(node); err != nil {
		return nil, nil, err
	}
	found := labProcesses("machine", d, node)
	if len(found) == 0 {
		return nil, nil, cluster.Transientf("%s has no power: `%s` gives it some", node, d.command("start "+node))
	}
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		return nil, nil, cluster.Invalidf("nsenter is not on this machine: install the package util-linux")
	}
	own := Environment(d, st, node)
	env = slices.DeleteFunc(slices.Clone(env), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return strings.HasPrefix(name, "DOCKER_") || strings.HasPrefix(name, "FAIRLEAD_") ||
			slices.ContainsFunc(own, func(o string) bool { return strings.HasPrefix(o, name+"=") })
	})
	in := []string{nsenter, "--target", strconv.Itoa(found[0].PID), "--mount", "--uts", "--ipc", "--net", "--pid", "--"}
	return slices.Concat(in, args), append(env, own...), nil
}

// here is a program that is run in this directory, by its name: it is the node's own,
// where it has one.
func here(args []string) []string {
	dir, err := os.Getwd()
	if err != nil {
		dir = "/"
	}
	return append([]string{"/bin/sh", "-c", `cd -- "$0" 2>/dev/null; exec "$@"`, dir}, args...)
}

// LoadImage copies an image of this machine's engine to the engines of nodes; with
// none named, to all that have power.
func LoadImage(ctx context.Context, d Dir, image string, nodes []string) ([]string, error) {
	if _, err := Read(d); err != nil {
		return nil, err
	}
	s, err := Look(ctx, d)
	if err != nil {
		return nil, err
	}
	var to []NodeStatus
	for _, n := range s.Nodes {
		if n.Docker && (len(nodes) == 0 || slices.Contains(nodes, n.Name)) {
			to = append(to, n)
		}
	}
	for _, n := range nodes {
		if !slices.ContainsFunc(to, func(t NodeStatus) bool { return t.Name == n }) {
			return nil, cluster.Transientf("on node %s no engine answers", n)
		}
	}
	if len(to) == 0 {
		return nil, cluster.Transientf("on no node an engine answers: `%s` says why", d.command("status"))
	}
	from, err := docker.New("")
	if err != nil {
		return nil, err
	}
	defer from.Close() //nolint:errcheck // only asked
	source, err := from.Image(ctx, image)
	if err != nil {
		return nil, fmt.Errorf("image %s of this machine's Docker: %w", image, err)
	}
	want := cluster.ImageWant{Content: source.Content}
	if source.Named(image) { // it may be an ID
		want.Ref = image
	}
	var g errgroup.Group
	var loaded []string
	for _, n := range to {
		loaded = append(loaded, n.Name)
		g.Go(func() error {
			engine, err := docker.New(n.DockerHost)
			if err != nil {
				return err
			}
			defer engine.Close() //nolint:errcheck // it has said all
			have, err := engine.Have(ctx, source.Layers)
			if err != nil {
				return err
			}
			tar, err := from.Save(ctx, image, have)
			if err != nil {
				return err
			}
			defer tar.Close() //nolint:errcheck // only read
			return engine.Load(ctx, tar, want)
		})
	}
	return loaded, g.Wait()
}
