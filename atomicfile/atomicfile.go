// Package atomicfile replaces a file in one step.
//
// Invariant: after a crash at any instant the file is the old or the new one,
// whole, with the permissions that its writer gave it.
package atomicfile

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
)

// Write replaces the file at path, which has one writer at a time, by one that its owner
// alone reads. Once it returns nil the new content survives a loss of power.
func Write(path string, b []byte) error { return Copy(path, bytes.NewReader(b), 0o600) }

// Copy is Write of what from has, with these permissions whatever the umask.
func Copy(path string, from io.Reader, mode os.FileMode) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600) //nolint:gosec // the caller's own directory
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	return dir.Sync()
}
