package work

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"

	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/cluster"
)

// Bounds of a source.
const (
	MaxTree   = 128 << 20 // bytes
	maxFiles  = 20_000
	maxTarget = 4096 // of a link
	chartDir  = "chart"
)

// fetch brings the source into the directory tree.
func fetch(ctx context.Context, t *Task, images []cluster.ImageState, tree string) (r Result, err error) {
	if src := t.Delivery.Source; len(t.Password) > 0 && src.Kind != cluster.SourceGit && src.Clear() { // it was made when that was not refused
		return Result{Images: images}, cluster.InClear(src)
	}
	switch src := t.Delivery.Source; {
	case src.Kind == cluster.SourceOCI, src.Kind == cluster.SourceChart && src.Transport() == "oci":
		r, err = fetchOCI(ctx, t, tree)
	case src.Kind == cluster.SourceChart:
		r, err = fetchChart(ctx, *t, tree)
	default:
		return fetchGit(ctx, *t, images, tree)
	}
	r.Images = images
	return r, err
}

// fetchChart brings a package of a repository, unless it is the one that is known. A version may
// be published again with other content: the archive's digest is a part of the revision.
func fetchChart(ctx context.Context, t Task, tree string) (Result, error) {
	src := t.Delivery.Source
	from := chart.Repository{Name: "source", URL: src.URL} // not kept, as its password would be
	if len(t.Password) > 0 {
		from.Username, from.Password = src.User, strings.TrimSpace(string(t.Password))
	}
	if src.CA != "" {
		from.CAFile = filepath.Join(t.Dir, "ca.pem")
		if err := os.WriteFile(from.CAFile, []byte(src.CA), 0o600); err != nil {
			return Result{}, fmt.Errorf("fetch: %w", err)
		}
	}
	var seen chart.Seen
	if t.Known != "" {
		seen = t.Package
	}
	repos := chart.Repositories{Dir: filepath.Join(t.Dir, "charts")}
	files, now, err := repos.Newer(ctx, from, src.Chart, src.Semver, seen)
	if err != nil {
		return Result{}, err
	}
	r := Result{Package: now, Origin: cluster.Origin{Delivery: t.Delivery.Name, URL: src.URL, Ref: src.Chart, Revision: now.Version + "@" + now.Digest}}
	if files == nil {
		return r, nil
	}
	info, err := unpackChart(files, tree)
	r.Origin.Ref = info.Name
	return r, err
}

func unpackChart(files []chart.File, tree string) (chart.Info, error) {
	info, err := chart.Describe(files)
	if err != nil {
		return info, err
	}
	at, err := chart.Unpack(files, tree)
	if err == nil {
		err = os.Rename(at, filepath.Join(tree, chartDir))
	}
	return info, err
}

// astray is a link that leads out of the source, or a submodule: another repository within this
// one, which is not fetched.
type astray struct {
	name, target string
	submodule    bool
}

func (l astray) why() string {
	if l.submodule {
		return "it is a submodule of Git, another repository, which is not fetched: keep what is used of it in the source itself"
	}
	return fmt.Sprintf("it is a link of the source that leads out of it, to %.100q", l.target)
}

func (l astray) refusal() error {
	if l.submodule {
		return cluster.Invalidf("%s: %s", l.name, l.why())
	}
	return cluster.Invalidf("the source has a link %.100q that leads out of it, to %.100q", l.name, l.target)
}

// checkout writes the files of a commit's tree below dir. Links that lead out of it, and
// submodules, are returned: each is a link to itself there, so that nobody can use it, or pass it
// over.
func checkout(top *object.Tree, commit plumbing.Hash, dir string) (out []astray, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("fetch: %w", err)
	}
	defer func() { _ = root.Close() }() // nothing is buffered
	if err := countFiles(top); err != nil {
		return nil, err
	}
	left := int64(MaxTree)
	walk := object.NewTreeWalker(top, true, nil)
	defer walk.Close()
	for {
		name, entry, err := walk.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, cluster.Invalidf("read commit %s: %w", commit, err)
		}
		if bad(name) {
			return nil, cluster.Invalidf("the source has a file %.100q, which leads out of it", name)
		}
		switch entry.Mode {
		case filemode.Dir:
			err = root.MkdirAll(name, 0o700)
		case filemode.Submodule:
			out = append(out, astray{name: name, submodule: true})
			err = root.Symlink(path.Base(name), name)
		default:
			err = write(root, top, name, &entry, &left)
		}
		if l, is := errors.AsType[*leadsOut](err); is {
			out = append(out, l.astray)
			err = root.Symlink(path.Base(name), name)
		}
		if err != nil {
			return nil, err
		}
	}
}

// countFiles refuses a tree of too many files and directories before any is read or
// written, which takes long.
func countFiles(top *object.Tree) error {
	walk := object.NewTreeWalker(top, true, nil)
	defer walk.Close()
	for range maxFiles + 1 {
		_, _, err := walk.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return cluster.Invalidf("read the source: %w", err)
		}
	}
	return cluster.Invalidf("the source has more than %d files", maxFiles)
}

func bad(name string) bool {
	parts := strings.Split(name, "/")
	return path.IsAbs(name) || slices.Contains(parts, "..") || slices.Contains(parts, ".") || slices.Contains(parts, "") || strings.ContainsRune(name, 0)
}

func write(root *os.Root, top *object.Tree, name string, entry *object.TreeEntry, left *int64) error {
	f, err := top.TreeEntryFile(entry)
	if err != nil {
		return cluster.Invalidf("read %.100q: %w", name, err)
	}
	if *left -= f.Size; *left < 0 || f.Size < 0 {
		return tooLarge()
	}
	r, err := f.Reader()
	if err != nil {
		return cluster.Invalidf("read %.100q: %w", name, err)
	}
	defer func() { _ = r.Close() }() // read only
	if entry.Mode == filemode.Symlink {
		return link(root, name, r)
	}
	out, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return cluster.Invalidf("write %.100q: %w", name, err)
	}
	_, err = io.Copy(out, io.LimitReader(r, f.Size))
	return unwritten(name, errors.Join(err, out.Close()))
}

// unwritten says what was not written, and whether another try is worth it: a full disk is
// none of the source's faults.
func unwritten(name string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC):
		return cluster.Transientf("write %.100q: %w", name, err)
	}
	return cluster.Invalidf("write %.100q: %w", name, err)
}

// leadsOut refuses a link.
type leadsOut struct{ astray }

func (l *leadsOut) Error() string { return l.refusal().Error() }
func (l *leadsOut) Unwrap() error { return l.refusal() }

func link(root *os.Root, name string, r io.Reader) error {
	b, err := io.ReadAll(io.LimitReader(r, maxTarget+1))
	if err != nil {
		return cluster.Invalidf("read %.100q: %w", name, err)
	}
	target := string(b)
	to := path.Join(path.Dir(name), target)
	if path.IsAbs(target) || to == ".." || strings.HasPrefix(to, "../") || len(b) > maxTarget || strings.ContainsRune(target, 0) {
		return &leadsOut{astray{name: name, target: target}}
	}
	return root.Symlink(target, name)
}
