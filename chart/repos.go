package chart

import (
	"context"
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

// called is how a person knows it.
func (r Repository) called() string {
	if strings.HasPrefix(r.Name, unnamedPrefix) {
		return r.URL
	}
	return r.Name
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
	i, _, err := r.refreshed(ctx, x, Validator{})
	return i, err
}

// refreshed fetches the index of a repository, and keeps it, with what was said of it; nil:
// it is the one that is known.
func (r Repositories) refreshed(ctx context.Context, x Repository, known Validator) (*repo.IndexFile, Validator, error) {
	if err := os.MkdirAll(r.cache(), 0o700); err != nil {
		return nil, known, fmt.Errorf("keep an index: %w", err)
	}
	tmp := r.index(x.Name) + ".new"
	defer func() { _ = os.Remove(tmp) }() // gone when it is kept
	var said Validator
	if dir, local := strings.CutPrefix(x.URL, "file://"); local {
		i, err := repo.IndexDirectory(dir, x.URL)
		if err == nil {
			_, err = os.Stat(dir)
		}
		if err != nil {
			return nil, known, cluster.Invalidf("repository %s: %w", x.called(), err)
		}
		if err := i.WriteFile(tmp, 0o600); err != nil {
			return nil, known, fmt.Errorf("keep an index: %w", err)
		}
	} else {
		var b []byte
		var err error
		b, said, err = x.transfer().changed(ctx, strings.TrimSuffix(x.URL, "/")+"/index.yaml", known)
		if err != nil {
			return nil, known, fmt.Errorf("repository %s: %w", x.called(), err)
		}
		if b == nil {
			return nil, known, nil
		}
		if err := os.WriteFile(tmp, b, 0o600); err != nil {
			return nil, known, fmt.Errorf("keep an index: %w", err)
		}
	}
	i, err := repo.LoadIndexFile(tmp)
	if err != nil {
		return nil, known, cluster.Invalidf("repository %s: its index cannot be read: %w", x.called(), err)
	}
	if err := os.Rename(tmp, r.index(x.Name)); err != nil {
		return nil, known, fmt.Errorf("keep an index: %w", err)
	}
	return i, said, nil
}

// archive fetches a package of a repository by the names of both.
func (r Repositories) archive(ctx context.Context, name, version string, how Transfer) (archived, error) {
	repository, name, _ := strings.Cut(name, "/")
	x, err := r.find(repository)
	if err != nil {
		return archived{}, err
	}
	return r.from(ctx, x.with(how), name, version, how)
}

// inside fetches a package of the repository that t names: with the login that this was added
// with, if it was, and that of t says no other.
func (r Repositories) inside(ctx context.Context, name, version string, t Transfer) (archived, error) {
	u, err := url.Parse(t.Repo)
	switch {
	case err != nil || u.User != nil || u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "file":
		return archived{}, cluster.Invalidf("--repo %q: it takes the URL of a repository, https://… or file:///…; a package in a registry is named as oci://REGISTRY/PATH/NAME alone", t.Repo)
	case name == "" || strings.ContainsAny(name, "/:"):
		return archived{}, cluster.Invalidf("%.80q is no name of a package in %s: with --repo it is named alone", name, t.Repo)
	}
	f, err := r.load()
	if err != nil {
		return archived{}, err
	}
	x, err := r.dependency(f, t.Repo, t)
	if err != nil {
		return archived{}, err
	}
	if x == nil {
		x = unnamed(t.Repo, t)
	}
	own := x.with(t)
	i, err := r.refresh(ctx, own)
	if err != nil {
		return archived{}, err
	}
	return r.listed(ctx, own, i, name, version, t)
}

// with is a repository that is spoken to as t says, where it says something.
func (r Repository) with(t Transfer) Repository {
	if t.Username != "" {
		r.Username, r.Password = t.Username, t.Password
	}
	if t.CAFile != "" {
		r.CAFile = t.CAFile
	}
	r.Insecure = r.Insecure || t.Insecure
	return r
}

// from fetches a package of a repository by its name. Where the index that is
// kept does not have it, a fresh one is asked.
func (r Repositories) from(ctx context.Context, x Repository, name, version string, how Transfer) (archived, error) {
	i, err := repo.LoadIndexFile(r.index(x.Name))
	if err == nil {
		_, err = i.Get(name, version)
	}
	if err != nil {
		if i, err = r.refresh(ctx, x); err != nil {
			return archived{}, err
		}
	}
	return r.listed(ctx, x, i, name, version, how)
}

// listed fetches a package that the repository's index has, with the repository's login, and
// what it has no say in as how has it.
func (r Repositories) listed(ctx context.Context, x Repository, i *repo.IndexFile, name, version string, how Transfer) (archived, error) {
	o, err := x.offer(i, name, version)
	if err != nil {
		return archived{}, err
	}
	t := x.transfer()
	t.Keyring, t.PlainHTTP = how.Keyring, how.PlainHTTP
	return r.bring(ctx, x, o, t)
}

// offer is a package that an index has: where its archive is, and that archive's digest, "" where
// that is not said.
type offer struct{ version, at, digest string }

// offer finds a package in an index of the repository.
func (r Repository) offer(i *repo.IndexFile, name, version string) (offer, error) {
	v, err := i.Get(name, version)
	switch {
	case errors.Is(err, repo.ErrNoChartName):
		return offer{}, cluster.NotFoundf("the repository %s has no package %s", r.called(), name)
	case err != nil:
		return offer{}, cluster.NotFoundf("the repository %s has no version of %s that is %q: %w", r.called(), name, version, err)
	case len(v.URLs) == 0:
		return offer{}, cluster.Invalidf("the repository %s does not say where %s %s is", r.called(), name, v.Version)
	}
	at, err := repo.ResolveReferenceURL(r.URL, v.URLs[0])
	if err != nil {
		return offer{}, cluster.Invalidf("the repository %s: %w", r.called(), err)
	}
	if onDisk(at) && !onDisk(r.URL) { // whoever wrote the index chooses no files here
		return offer{}, cluster.Invalidf("the repository %s says that %s %s is %s: a file of this machine, which is not read for it", r.called(), name, v.Version, at)
	}
	o := offer{version: v.Version, at: at}
	if sum := strings.TrimPrefix(v.Digest, "sha256:"); sum != "" {
		o.digest = "sha256:" + sum
	}
	return o, nil
}

// bring fetches the archive of what is offered; t is the repository's own, and its password
// for no other host.
func (r Repositories) bring(ctx context.Context, x Repository, o offer, t Transfer) (archived, error) {
	if !sameHost(o.at, x.URL) {
		t.Username, t.Password = "", ""
	}
	a, err := r.at(ctx, o.at, o.version, t)
	if err != nil || a.data == nil || o.digest == "" {
		return a, err
	}
	if got := digestOf(a.data); got != o.digest {
		return a, cluster.Invalidf("%s is another archive than the repository's index says: its digest is %s, not %s", o.at, got, o.digest)
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
