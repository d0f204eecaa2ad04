// Package atomicfile replaces a file in one step.
//
// Invariant: after a crash at any instant the file is the old or the new one,
// whole, and readable by its owner alone.
package atomicfile

import (
	"os"
	"path/filepath"
)

// Write replaces the file at path, which has one writer at a time. Once it
// returns nil the new content survives a loss of power.
func Write(path string, b []byte) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600) //nolint:gosec // the caller's own directory
	if err != nil {
		return err
	}
	_, err = f.Write(b)
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
