package work

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"

	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/cluster"
)

// fetchDependencies fetches what the package of a source depends on and does not hold. That
// takes the network, which is not there once the source is read.
func (t *Task) fetchDependencies(ctx context.Context, tree string) error {
	if !t.packaged() || t.Delivery.Source.Kind == cluster.SourceChart { // an archive holds them
		return nil
	}
	root, err := os.OpenRoot(tree)
	if err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	defer func() { _ = root.Close() }() // read only
	list, err := t.within(root, nil).Remotes()
	if err != nil {
		return nil //nolint:nilerr // said where the package is read, with its places
	}
	t.fetched, err = chart.Repositories{Dir: filepath.Join(t.Dir, "charts")}.FetchRemotes(ctx, list)
	if cluster.KindOf(err) == cluster.KindForbidden {
		err = fmt.Errorf("%w; a delivery has no login for it: keep the package in charts/", err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", orElse(path.Join(t.Delivery.Path, t.Delivery.Package), "the package"), err)
	}
	return nil
}

func (t *Task) within(root *os.Root, links []astray) chart.Within {
	return chart.Within{Root: root, Dir: path.Join(t.Delivery.Path, t.Delivery.Package), Refuse: refuse(links)}
}

// refuse refuses directories that are astray.
func refuse(links []astray) func(dir string) error {
	return func(dir string) error {
		for _, l := range links {
			if (locked{name: l.name}).is(dir) {
				return l.refusal()
			}
		}
		return nil
	}
}

// readPackage reads the package with what it depends on.
func (t *Task) readPackage(links []astray) ([]chart.File, error) {
	if t.Delivery.Source.Kind == cluster.SourceChart {
		return chart.Read(root(chartDir))
	}
	tree, err := os.OpenRoot(root())
	if err != nil {
		return nil, fmt.Errorf("read the source: %w", err)
	}
	defer func() { _ = tree.Close() }() // read only
	w := t.within(tree, links)
	if info, err := tree.Stat(w.Dir); err == nil && !info.IsDir() { // an archive holds them
		return chart.Read(root(w.Dir))
	}
	return w.Files(t.fetched)
}

// readWhole writes all of the commit to tree, as directories beside the package's may be a part
// of it, and reads the package with what it depends on.
func (g GitPackage) readWhole(ctx context.Context, commit plumbing.Hash, top *object.Tree, tree string, from chart.Repositories) ([]chart.File, error) {
	out, err := checkout(top, commit, tree)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(tree)
	if err != nil {
		return nil, fmt.Errorf("read the source: %w", err)
	}
	defer func() { _ = root.Close() }() // read only
	w := chart.Within{Root: root, Dir: g.Dir, Loose: true, Refuse: refuse(out)}
	list, err := w.Remotes()
	for _, l := range out { // that is why
		if err != nil && (g.Dir == "" || (locked{name: g.Dir}).is(l.name)) {
			return nil, l.refusal()
		}
	}
	if err != nil {
		return nil, err
	}
	fetched, err := from.FetchRemotes(ctx, list)
	if err != nil {
		return nil, err
	}
	return w.Files(fetched)
}
