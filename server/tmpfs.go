package server

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// ensureTmpfs makes sure that dir is in memory: secrets and keys are written
// below it. /run is where systemd runs; elsewhere a tmpfs is mounted.
func ensureTmpfs(dir string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("look at the run directory: %w", err)
	}
	if fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.RAMFS_MAGIC {
		return nil
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=256m"); err != nil {
		return fmt.Errorf("mount a tmpfs on the run directory %s, which is on a disk: %w", dir, err)
	}
	return nil
}

// unmount takes away the tmpfs that ensureTmpfs may have mounted.
func unmount(dir string) {
	for unix.Unmount(dir, unix.MNT_DETACH) == nil {
	}
}
