package docker

import (
	"testing"

	"github.com/docker/docker/api/types/system"
	"github.com/google/go-cmp/cmp"
)

func TestCanonical(t *testing.T) {
	const sum = "@sha256:4a5e1a5d1e9c1b2f3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3"
	for ref, want := range map[string]string{
		"nginx": "nginx:latest", "docker.io/library/nginx:1.27": "nginx:1.27", "127.0.0.1:5000/shop/web": "127.0.0.1:5000/shop/web:latest",
		"nginx" + sum: "nginx" + sum, "docker.io/library/nginx:1.27" + sum: "nginx" + sum, sum[1:]: sum[1:], "": "", "No Reference": "No Reference",
	} {
		if got := Canonical(ref); got != want {
			t.Errorf("%q: %q, want %q", ref, got, want)
		}
	}
}

func TestWhereImagesAreKept(t *testing.T) {
	snapshotter := [][2]string{{"driver-type", "io.containerd.snapshotter.v1"}}
	of := func(address string, status [][2]string) system.Info {
		return system.Info{DockerRootDir: "/data/docker", DriverStatus: status, Containerd: &system.ContainerdInfo{Address: address}}
	}
	for name, c := range map[string]struct {
		info system.Info
		want []string
	}{
		"the engine's own store":              {of("/run/containerd/containerd.sock", nil), []string{"/data/docker"}},
		"an old engine":                       {system.Info{DockerRootDir: "/data/docker"}, []string{"/data/docker"}},
		"containerd's":                        {of("/run/containerd/containerd.sock", snapshotter), []string{"/data/docker", "/var/lib/containerd"}},
		"containerd's that the engine starts": {of("/var/run/docker/containerd/containerd.sock", snapshotter), []string{"/data/docker"}},
	} {
		if d := cmp.Diff(c.want, imageDirs(c.info)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func TestHasName(t *testing.T) {
	for name, c := range map[string]struct {
		info ImageInfo
		want bool
	}{
		"none": {ImageInfo{}, false}, "a tag": {ImageInfo{Tags: []string{"app:1"}}, true}, "a digest": {ImageInfo{Digests: []string{"app@sha256:1"}}, true},
		"an engine's word for none": {ImageInfo{Digests: []string{"<none>@sha256:1", "moby-dangling@sha256:1"}}, false},
	} {
		if c.info.HasName() != c.want {
			t.Error(name)
		}
	}
}
