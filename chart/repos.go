package chart

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	repo "helm.sh/helm/v4/pkg/repo/v1"

	"github.com/fairlead/fairlead/cluster"
)

// Repositories are those that a person named, in Helm's own file format.
type Repositories struct {
	Dir string // of the file, and of what was learnt of each
}

// Repository is a place of packages with an index: an HTTP server, or a directory of
// archives (file:///path).
type Repository struct {
	Name     string `json:"name"`
	URL      string `json:"url"`
	Username string `json:"username,omitempty"`
	Password string `json:"-"`
	CAFile   string `json:"ca_file,omitempty"`
	Insecure bool   `json:"insecure,omitempty"`
	// Packages is how many its index has, Updated when that was fetched; of a list.
	Packages int       `json:"packages"`
	Updated  time.Time `json:"updated,omitzero"`
}

func (r Repository) transfer() Transfer {
	return Transfer{Username: r.Username, Password: r.Password, CAFile: r.CAFile, Insecure: r.Insecure}
}

const repositoriesFile = "repositories.yaml"

var repositoryRE = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

func (r Repositories) file() string             { return filepath.Join(r.Dir, repositoriesFile) }
func (r Repositories) cache() string            { return filepath.Join(r.Dir, "cache") }
func (r Repositories) index(name string) string { return filepath.Join(r.cache(), name+"-index.yaml") }

func (r Repositories) load() (*repo.File, error) {
	f, err := repo.LoadFile(r.file())
	if errors.Is(err, fs.ErrNotExist) {
		return repo.NewFile(), nil
	}
	if err != nil {
		return nil, cluster.Invalidf("%s: %w; mend or remove it", r.file(), err)
	}
	return f, nil
}

func (r Repositories) save(f *repo.File) error {
	if err := os.MkdirAll(r.Dir, 0o700); err != nil {
		return fmt.Errorf("keep the repositories: %w", err)
	}
	if err := f.WriteFile(r.file(), 0o600); err != nil {
		return fmt.Errorf("keep the repositories: %w", err)
	}
	return nil
}

func known(e *repo.Entry) Repository {
	return Repository{Name: e.Name, URL: e.URL, Username: e.Username, Password: e.Password, CAFile: e.CAFile, Insecure: e.InsecureSkipTLSVerify}
}

// List returns the repositories, by name.
func (r Repositories) List() ([]Repository, error) {
	f, err := r.load()
	if err != nil {
		return nil, err
	}
	out := []Repository{}
	for _, e := range f.Repositories {
		x := known(e)
		if info, err := os.Stat(r.index(x.Name)); err == nil {
			x.Updated = info.ModTime().UTC()
		}
		if i, err := repo.LoadIndexFile(r.index(x.Name)); err == nil {
			x.Packages = len(i.Entries)
		}
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b Repository) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func (r Repositories) find(name string) (Repository, error) {
	f, err := r.load()
	if err != nil {
		return Repository{}, err
	}
	if e := f.Get(name); e != nil {
		return known(e), nil
	}
	return Repository{}, cluster.NotFoundf("there is no repository %q: `fairlead chart repo ls` lists them, `fairlead chart repo add %s URL` adds one", name, name)
}

// Add keeps a repository once its index was read.
func (r Repositories) Add(ctx context.Context, x Repository, force bool) error {
	if !repositoryRE.MatchString(x.Name) {
		return cluster.Invalidf("%.80q cannot name a repository: use lower-case letters, digits, -, _ and .", x.Name)
	}
	u, err := url.Parse(x.URL)
	switch {
	case err != nil:
		return cluster.Invalidf("%q is no URL", x.URL)
	case u.Scheme == "oci":
		return cluster.Invalidf("a registry needs no adding: name the package as %s/NAME; `docker login` keeps its password", strings.TrimSuffix(x.URL, "/"))
	case u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "file":
		return cluster.Invalidf("%q is no URL of a repository: write https://…, or file:///… for a directory of archives", x.URL)
	case u.User != nil:
		return cluster.Invalidf("the password does not belong into the URL: give --username")
	}
	f, err := r.load()
	if err != nil {
		return err
	}
	if have := f.Get(x.Name); have != nil && have.URL != x.URL && !force {
		return cluster.Invalidf("the repository %s is %s already; --force-update replaces it", x.Name, have.URL)
	}
	if _, err := r.refresh(ctx, x); err != nil {
		return err
	}
	f.Update(&repo.Entry{Name: x.Name, URL: x.URL, Username: x.Username, Password: x.Password, CAFile: x.CAFile, InsecureSkipTLSVerify: x.Insecure})
	return r.save(f)
}

// Remove forgets a repository.
func (r Repositories) Remove(name string) error {
	if _, err := r.find(name); err != nil {
		return err
	}
	f, err := r.load()
	if err != nil {
		return err
	}
	f.Remove(name)
	_ = os.Remove(r.index(name)) // a copy
	return r.save(f)
}

// Update fetches the index of one repository.
func (r Repositories) Update(ctx context.Context, name string) error {
	x, err := r.find(name)
	if err != nil {
		return err
	}
	_, err = r.refresh(ctx, x)
	return err
}

// refresh fetches the index of a repository, and keeps it.
func (r Repositories) refresh(ctx context.Context, x Repository) (*repo.IndexFile, error) {
	if err := os.MkdirAll(r.cache(), 0o700); err != nil {
		return nil, fmt.Errorf("keep an index: %w", err)
	}
	tmp := r.index(x.Name) + ".new"
	defer func() { _ = os.Remove(tmp) }() // gone when it is kept
	if dir, local := strings.CutPrefix(x.URL, "file://"); local {
		i, err := repo.IndexDirectory(dir, x.URL)
		if err == nil {
			_, err = os.Stat(dir)
		}
		if err != nil {
			return nil, cluster.Invalidf("repository %s: %w", x.Name, err)
		}
		if err := i.WriteFile(tmp, 0o600); err != nil {
			return nil, fmt.Errorf("keep an index: %w", err)
		}
	} else {
		b, err := x.transfer().get(ctx, strings.TrimSuffix(x.URL, "/")+"/index.yaml")
		if err != nil {
			return nil, fmt.Errorf("repository %s: %w", x.Name, err)
		}
		if err := os.WriteFile(tmp, b, 0o600); err != nil {
			return nil, fmt.Errorf("keep an index: %w", err)
		}
	}
	i, err := repo.LoadIndexFile(tmp)
	if err != nil {
		return nil, cluster.Invalidf("repository %s: its index cannot be read: %w", x.Name, err)
	}
	if err := os.Rename(tmp, r.index(x.Name)); err != nil {
		return nil, fmt.Errorf("keep an index: %w", err)
	}
	return i, nil
}

// FetchFrom reads a package of a repository that need not be among those that are kept.
func (r Repositories) FetchFrom(ctx context.Context, x Repository, name, version string) ([]File, error) {
	a, err := r.from(ctx, x, name, version, Transfer{})
	if err != nil {
		return nil, err
	}
	return ReadArchive(a.name, bytes.NewReader(a.data))
}

// archive fetches a package of a repository by the names of both.
func (r Repositories) archive(ctx context.Context, name, version string, how Transfer) (archived, error) {
	repository, name, _ := strings.Cut(name, "/")
	x, err := r.find(repository)
	if err != nil {
		return archived{}, err
	}
	return r.from(ctx, x, name, version, how)
}

// from fetches a package of a repository by its name. Where the index that is
// kept does not have it, a fresh one is asked. Of how, the keyring alone counts: the
// repository has a login of its own.
func (r Repositories) from(ctx context.Context, x Repository, name, version string, how Transfer) (archived, error) {
	repository := x.Name
	i, err := repo.LoadIndexFile(r.index(repository))
	var v *repo.ChartVersion
	if err == nil {
		v, err = i.Get(name, version)
	}
	if err != nil {
		if i, err = r.refresh(ctx, x); err != nil {
			return archived{}, err
		}
		v, err = i.Get(name, version)
	}
	switch {
	case errors.Is(err, repo.ErrNoChartName):
		return archived{}, cluster.NotFoundf("the repository %s has no package %s", repository, name)
	case err != nil:
		return archived{}, cluster.NotFoundf("the repository %s has no version of %s that is %q: %w", repository, name, version, err)
	case len(v.URLs) == 0:
		return archived{}, cluster.Invalidf("the repository %s does not say where %s %s is", repository, name, v.Version)
	}
	at, err := repo.ResolveReferenceURL(x.URL, v.URLs[0])
	if err != nil {
		return archived{}, cluster.Invalidf("the repository %s: %w", repository, err)
	}
	if onDisk(at) && !onDisk(x.URL) { // whoever wrote the index chooses no files here
		return archived{}, cluster.Invalidf("the repository %s says that %s %s is %s: a file of this machine, which is not read for it", repository, name, v.Version, at)
	}
	t := x.transfer()
	t.Keyring = how.Keyring
	if !sameHost(at, x.URL) {
		t.Username, t.Password = "", "" // no other host is told
	}
	a, err := r.at(ctx, at, v.Version, t)
	if err != nil {
		return a, err
	}
	if want := strings.TrimPrefix(v.Digest, "sha256:"); want != "" {
		sum := sha256.Sum256(a.data)
		if got := hex.EncodeToString(sum[:]); got != want {
			return a, cluster.Invalidf("%s is another archive than the repository's index says: its digest is %s, not %s", at, got, want)
		}
	}
	return a, nil
}

func onDisk(at string) bool {
	u, err := url.Parse(at)
	return err == nil && strings.EqualFold(u.Scheme, "file")
}

func sameHost(a, b string) bool {
	x, err := url.Parse(a)
	y, err2 := url.Parse(b)
	return err == nil && err2 == nil && x.Host == y.Host && x.Scheme == y.Scheme
}
