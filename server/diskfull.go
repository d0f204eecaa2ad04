package server

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// explainFull says which disk is full, and what to do, where that ended the
// server: etcd's own words tell neither, and come as text at times.
func explainFull(err error, dir string) error {
	if err == nil {
		return nil
	}
	for _, full := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT} {
		if errors.Is(err, full) || strings.Contains(err.Error(), full.Error()) {
			return fmt.Errorf("the disk of %s is full: make room on it and start the server again, which systemd does by itself; no acknowledged change is lost: %w", dir, err)
		}
	}
	return err
}
