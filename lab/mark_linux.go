package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fairlead/fairlead/cluster"
)

// markText tells who looks into the directory.
const markText = "This directory is a lab's of Fairlead: `fairlead lab down` removes it with all that is in it.\n"

// passing is the name that a lab's directory has for an instant, before it is there and
// when it is gone: it holds the mark at most.
func (d Dir) passing() Dir {
	dir, name := filepath.Split(string(d))
	return Dir(filepath.Join(dir, "."+name+markName))
}

// strange refuses a directory that is there, holds something, and is no lab's. advice ends
// what it says.
func strange(d Dir, advice string) error {
	if is, err := isLab(d); is || err != nil {
		return err
	}
	at, err := os.Lstat(string(d))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !at.IsDir():
		return cluster.Invalidf("%s is there and is no directory of a lab: %s", d, advice)
	}
	entries, err := os.ReadDir(string(d))
	if err != nil || len(entries) == 0 {
		return err
	}
	const some = 3
	var names []string
	for _, e := range entries[:min(some, len(entries))] {
		names = append(names, e.Name())
	}
	holds := strings.Join(names, ", ")
	if more := len(entries) - len(names); more > 0 {
		holds += fmt.Sprintf(" and %d more", more)
	}
	return cluster.Invalidf("%s is there and is no lab's, it holds %s: %s", d, holds, advice)
}

// claim makes a lab's directory with its mark, in one step. Of one whose making was
// interrupted it leaves the mark alone.
func claim(d Dir) error {
	if err := dropPassing(d); err != nil {
		return err
	}
	if is, err := isLab(d); is || err != nil {
		return errors.Join(err, empty(d))
	}
	p := d.passing()
	if err := os.Mkdir(string(p), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(p.mark(), []byte(markText), 0o600); err != nil {
		return err
	}
	// An empty directory that is there gives way; one that has got something meanwhile does not.
	if err := unix.Rename(string(p), string(d)); err != nil {
		return fmt.Errorf("make %s: %w", d, err)
	}
	return nil
}

// remove removes a lab's directory. The state goes first: what is left by an interruption is
// half-made. The mark goes last: it can be removed until then.
func remove(d Dir) error {
	if _, err := os.Lstat(d.mark()); errors.Is(err, fs.ErrNotExist) { // of an earlier version
		if err := os.WriteFile(d.mark(), []byte(markText), 0o600); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(d.state()); err != nil {
		return err
	}
	if err := empty(d); err != nil {
		return err
	}
	if err := unix.Rename(string(d), string(d.passing())); err != nil {
		return fmt.Errorf("remove %s: %w", d, err)
	}
	return dropPassing(d)
}

// empty removes all that is in a lab's directory but the mark.
func empty(d Dir) error {
	entries, err := os.ReadDir(string(d))
	for _, e := range entries {
		if e.Name() != markName {
			err = errors.Join(err, os.RemoveAll(d.path(e.Name())))
		}
	}
	return err
}

// dropPassing removes what an interruption left of a lab's directory, and nothing else.
func dropPassing(d Dir) error {
	p := d.passing()
	for _, path := range []string{p.mark(), string(p)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
