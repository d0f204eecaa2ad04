package docker

import (
	"context"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/system"

	"github.com/fairlead/fairlead/cluster"
)

// Canonical is a reference as the engine writes it: "nginx:latest" of docker.io/library/nginx,
// and "nginx@sha256:…" of one with a digest, whose tag means nothing. What is no reference,
// such as an ID, stays as it is.
func Canonical(ref string) string {
	n, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ref
	}
	if d, ok := n.(reference.Digested); ok {
		return reference.FamiliarName(n) + "@" + d.Digest().String()
	}
	return reference.FamiliarString(reference.TagNameOnly(n))
}

// ImageUses are the IDs of the images that containers are made of, anybody's and stopped
// ones too, and the names that they were made by.
func (e *Engine) ImageUses(ctx context.Context) (map[string]bool, error) {
	list, err := e.cli.ContainerList(ctx, container.ListOptions{All: true})
	if err != nil {
		return nil, kind(err)
	}
	out := make(map[string]bool, 2*len(list))
	for _, c := range list {
		out[c.ImageID], out[Canonical(c.Image)] = true, true
	}
	return out, nil
}

// RemoveImage takes a name, a tag or "name@sha256:…", from its image, and removes the image
// with its last one. The engine refuses that (KindConflict) while a container uses it. A name
// that is gone already is no error.
func (e *Engine) RemoveImage(ctx context.Context, ref string) error {
	_, err := e.cli.ImageRemove(ctx, ref, image.RemoveOptions{})
	if err = kind(err); cluster.KindOf(err) == cluster.KindNotFound {
		return nil
	}
	return err
}

// imageDirs are the directories that an engine keeps images in.
func imageDirs(i system.Info) []string {
	dirs := []string{i.DockerRootDir}
	snapshots := slices.ContainsFunc(i.DriverStatus, func(s [2]string) bool { return strings.HasPrefix(s[1], "io.containerd.snapshotter") })
	// A containerd that Docker runs itself keeps them below Docker's own directory.
	if c := i.Containerd; snapshots && c != nil && strings.HasSuffix(c.Address, "/containerd/containerd.sock") && !strings.Contains(c.Address, "/docker/") {
		dirs = append(dirs, "/var/lib/containerd")
	}
	return dirs
}
