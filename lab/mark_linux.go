package lab

import (
	"context"
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
const markText = "This directory is a lab's of Fairlead: `fairlead lab down`, with its --name and --dir, removes it with all that is in it.\n"

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

// Sweep removes what interruptions left below root of labs that List does not show.
func Sweep(ctx context.Context, root string) error {
	if left, err := passed(root); err != nil || len(left) == 0 {
		return err
	}
	if err := requireRoot(); err != nil {
		return err
	}
	return sweep(ctx, root)
}

func sweep(ctx context.Context, root string) error {
	_, unlock, err := lock(ctx, root)
	if err != nil {
		return err
	}
	defer unlock()
	left, err := passed(root) // now that nobody is making one
	for _, d := range left {
		err = errors.Join(err, dropPassing(d))
	}
	return err
}

// passed are the labs below root whose passing directory is there and holds what an
// interruption leaves: the mark, or nothing.
func passed(root string) (out []Dir, err error) {
	entries, err := os.ReadDir(root)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case errors.Is(err, fs.ErrPermission) && requireRoot() != nil:
		return nil, errRoot
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(strings.TrimPrefix(e.Name(), "."), markName)
		d := DirOf(root, name)
		if !ok || !e.IsDir() || ValidName(name) != nil || string(d.passing()) != filepath.Join(root, e.Name()) {
			continue
		}
		in, rerr := os.ReadDir(string(d.passing()))
		if errors.Is(rerr, fs.ErrNotExist) {
			continue // it has its name now, or is gone
		}
		if err = errors.Join(err, rerr); rerr == nil && (len(in) == 0 || len(in) == 1 && in[0].Name() == markName && in[0].Type().IsRegular()) {
			out = append(out, d)
		}
	}
	return out, err
}
