package docker

import (
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
)

// What is copied to a tmpfs would land below it, and be lost without a word.
func TestTmpfsOf(t *testing.T) {
	h := &container.HostConfig{
		Tmpfs: map[string]string{"/run": ""},
		Mounts: []mount.Mount{
			{Type: mount.TypeTmpfs, Target: "/tmp/"},
			{Type: mount.TypeVolume, Target: "/run/data"},
			{Type: mount.TypeVolume, Target: "/data"},
			{Type: mount.TypeTmpfs, Target: "/data/cache"},
		},
	}
	for p, want := range map[string]string{
		"/": "", "/etc": "", "/tmpx": "", "/tmp": "/tmp", "tmp/a": "/tmp", "/tmp/../etc": "", "/run": "/run", "/run/x/y": "/run",
		"/run/data": "", "/run/data/x": "", "/data": "", "/data/x": "", "/data/cache/x": "/data/cache",
	} {
		if got := tmpfsOf(h, p); got != want {
			t.Errorf("%s is on the tmpfs %q, want %q", p, got, want)
		}
	}
}
