package chart

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
	helmchart "helm.sh/helm/v4/pkg/chart/v2"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	repo "helm.sh/helm/v4/pkg/repo/v1"

	"github.com/fairlead/fairlead/cluster"
)

// Within is a package's directory in a tree of files, such as a commit of Git. What
// charts/ lacks of its dependencies is in other directories of the tree, or remote.
type Within struct {
	Root *os.Root // nothing outside of it is read
	Dir  string
	// Loose lets a dependency without Chart.lock be the newest in its range, and names of
	// repositories be those that were added here. Without it both are refused: the same files
	// would mean something else tomorrow, or elsewhere.
	Loose bool
	// Refuse, if not nil, is asked ahead of each directory that is read.
	Refuse func(dir string) error
}

// Remote is a package that another one depends on: of a repository by http or https, or of a
// registry.
type Remote struct {
	Repository, Name string
	Version          string // or a range
}

// Bounds of one package.
const (
	maxWithin = 256 // directories that are read
	maxRemote = 64
)

// Remotes lists what is to be fetched.
func (w Within) Remotes() (list []Remote, err error) {
	_, err = w.all(func(x Remote) ([]File, error) {
		if !slices.Contains(list, x) {
			list = append(list, x)
		}
		if len(list) > maxRemote {
			return nil, cluster.Invalidf("chart %s depends on more than %d packages that it does not hold", w.Dir, maxRemote)
		}
		return nil, nil
	})
	return list, err
}

// Files reads the package with all that it depends on; fetched is what Remotes named.
func (w Within) Files(fetched map[Remote][]File) ([]File, error) {
	return w.all(func(x Remote) ([]File, error) {
		files, is := fetched[x]
		if !is {
			return nil, cluster.Invalidf("%s %s of %s was not fetched", x.Name, x.Version, x.Repository)
		}
		return files, nil
	})
}

func (w Within) all(remote func(Remote) ([]File, error)) ([]File, error) {
	r := reading{Within: w, remote: remote, left: limits{left: MaxSize, files: maxFiles}}
	return r.chart(path.Clean(w.Dir), 0)
}

// reading is one way through a package and those of its tree that it depends on.
type reading struct {
	Within
	remote func(Remote) ([]File, error)
	left   limits // of all of them
	read   int    // directories
}

func (r *reading) chart(dir string, depth int) ([]File, error) {
	if depth > maxNested {
		return nil, cluster.Invalidf("chart %s: charts depend on each other, more than %d deep", r.Dir, maxNested)
	}
	if r.read++; r.read > maxWithin {
		return nil, cluster.Invalidf("chart %s is made of more than %d directories with charts", r.Dir, maxWithin)
	}
	if r.Refuse != nil {
		if err := r.Refuse(dir); err != nil {
			return nil, err
		}
	}
	root, err := r.Root.OpenRoot(dir)
	if err != nil {
		return nil, cluster.NotFoundf("there is no chart %s: %w", dir, err)
	}
	defer func() { _ = root.Close() }() // read only
	files, err := readRoot(root, dir, &r.left)
	if err != nil {
		return nil, err
	}
	c, err := load(files)
	if err != nil {
		return files, nil //nolint:nilerr // whoever renders it says so
	}
	lacks := missing(c)
	for _, d := range c.Metadata.Dependencies {
		if !slices.Contains(lacks, d.Name) || d.Repository == "" {
			continue
		}
		own, version, err := r.dependency(c, d, dir, depth)
		if err != nil {
			return nil, fmt.Errorf("dependency %s of %s: %w", d.Name, dir, err)
		}
		for _, f := range own {
			files = append(files, File{Name: path.Join("charts", d.Name+"-"+version, f.Name), Data: f.Data})
		}
	}
	return files, nil
}

func (r *reading) dependency(c *helmchart.Chart, d *helmchart.Dependency, dir string, depth int) (files []File, version string, err error) {
	if d.Name != path.Base(path.Clean("/"+d.Name)) {
		return nil, "", cluster.Invalidf("%.80q is no name of a package", d.Name)
	}
	scheme, at, isURL := strings.Cut(d.Repository, "://")
	switch {
	case isURL && scheme == "file":
		at = path.Join(dir, at)
		if strings.HasPrefix(d.Repository, "file:///") || at == ".." || strings.HasPrefix(at, "../") {
			return nil, "", cluster.Invalidf("%s leads out of the source", d.Repository)
		}
		if files, err = r.chart(at, depth+1); err != nil {
			return nil, "", err
		}
		info, err := Describe(files)
		if err == nil && (info.Name != d.Name || !chartutil.IsCompatibleRange(d.Version, info.Version)) {
			err = cluster.Invalidf("%s has %s %s, which is not %s %s", at, info.Name, info.Version, d.Name, d.Version)
		}
		return files, info.Version, err
	case isURL && slices.Contains([]string{"http", "https", "oci"}, scheme):
	case r.Loose && isNamed(d.Repository):
	default:
		return nil, "", cluster.Invalidf("the repository %.100q is none that is known here: name it by its URL, https://… or oci://…, or keep the package in charts/", d.Repository)
	}
	if version, err = r.version(c, d); err != nil {
		return nil, "", err
	}
	if files, err = r.remote(Remote{d.Repository, d.Name, version}); err != nil || files == nil {
		return nil, version, err
	}
	for _, f := range files {
		if err := r.left.take(r.Dir, int64(len(f.Data))); err != nil {
			return nil, "", err
		}
	}
	info, err := Describe(files)
	if err == nil && info.Name != d.Name { // Helm finds it by that
		err = cluster.Invalidf("%s has %s, which is called %s", d.Repository, d.Name, info.Name)
	}
	return files, info.Version, err
}

// version is the one of Chart.lock. Where there is none, Chart.yaml itself may name one.
func (r *reading) version(c *helmchart.Chart, d *helmchart.Dependency) (string, error) {
	if c.Lock != nil {
		for _, l := range c.Lock.Dependencies {
			if l.Name == d.Name && l.Repository == d.Repository && chartutil.IsCompatibleRange(d.Version, l.Version) {
				return l.Version, nil
			}
		}
		return "", cluster.Invalidf("Chart.lock has none that fits Chart.yaml: `fairlead chart dependency update` writes it anew")
	}
	if _, err := semver.StrictNewVersion(strings.TrimPrefix(d.Version, "v")); err != nil && !r.Loose {
		return "", cluster.Invalidf("%q is a range, and without Chart.lock another version would run one day with no commit: keep what `fairlead chart dependency update` writes, Chart.lock or all of charts/, beside Chart.yaml", d.Version)
	}
	return d.Version, nil
}

// FetchRemotes fetches packages that others depend on, each with the login that its repository
// was added with or, of a registry, that of docker login.
func (r Repositories) FetchRemotes(ctx context.Context, list []Remote) (map[Remote][]File, error) {
	indexes := map[string]*repo.IndexFile{}
	out := map[Remote][]File{}
	left := limits{left: MaxSize, files: maxFiles} // of all of them, ahead of who makes one package of it
	for _, x := range list {
		a, err := r.fetchRemote(ctx, x, indexes)
		if err == nil {
			out[x], err = ReadArchive(a.name, bytes.NewReader(a.data))
		}
		for _, f := range out[x] {
			if err == nil {
				err = left.take(x.Name, int64(len(f.Data)))
			}
		}
		if err != nil {
			return nil, fmt.Errorf("dependency %s: %w", x.Name, err)
		}
	}
	return out, nil
}

func (r Repositories) fetchRemote(ctx context.Context, x Remote, indexes map[string]*repo.IndexFile) (archived, error) {
	if strings.HasPrefix(x.Repository, "oci://") {
		return r.at(ctx, strings.TrimSuffix(x.Repository, "/")+"/"+x.Name, x.Version, Transfer{})
	}
	known, err := r.load()
	if err != nil {
		return archived{}, err
	}
	from, err := r.dependency(known, x.Repository, Transfer{})
	if err != nil {
		return archived{}, err
	}
	if indexes[x.Repository] == nil {
		if indexes[x.Repository], err = r.refresh(ctx, *from); err != nil {
			return archived{}, err
		}
	}
	return r.listed(ctx, *from, indexes[x.Repository], x.Name, x.Version, Transfer{})
}
