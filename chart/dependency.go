package chart

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	"helm.sh/helm/v4/pkg/downloader"
	"helm.sh/helm/v4/pkg/getter"
	repo "helm.sh/helm/v4/pkg/repo/v1"

	"github.com/fairlead/fairlead/cluster"
)

// Dependency is what Chart.yaml says of another chart, and whether charts/ has it.
type Dependency struct {
	Name       string `json:"name"`
	Alias      string `json:"alias,omitempty"`
	Version    string `json:"version"`
	Repository string `json:"repository,omitempty"`
	Condition  string `json:"condition,omitempty"`
	Status     string `json:"status"` // ok, missing, or "has 1.2.3"
}

// Dependencies lists what a chart depends on.
func Dependencies(files []File) ([]Dependency, error) {
	c, err := load(files)
	if err != nil {
		return nil, cluster.Invalidf("%w", err)
	}
	out := []Dependency{}
	for _, d := range c.Metadata.Dependencies {
		x := Dependency{d.Name, d.Alias, d.Version, d.Repository, d.Condition, "missing"}
		for _, have := range c.Dependencies() {
			switch {
			case have.Name() != d.Name:
			case chartutil.IsCompatibleRange(d.Version, have.Metadata.Version):
				x.Status = "ok"
			case x.Status == "missing":
				x.Status = "has " + have.Metadata.Version
			}
		}
		out = append(out, x)
	}
	return out, nil
}

// UpdateDependencies fetches into dir/charts what Chart.yaml names: the newest that fit,
// which are written to Chart.lock, or with locked those that are written there.
func (r Repositories) UpdateDependencies(ctx context.Context, dir string, locked bool, t Transfer) error {
	if _, err := Read(dir); err != nil {
		return err
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return cluster.Invalidf("%s is no directory: dependencies are fetched into one", dir)
	}
	if err := os.MkdirAll(r.cache(), 0o700); err != nil {
		return fmt.Errorf("dependencies: %w", err)
	}
	own, err := r.dependencies(ctx, dir, t)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(own) }() // passwords are in it
	c, err := r.registry(ctx, t)
	if err != nil {
		return err
	}
	m := &downloader.Manager{
		Out: io.Discard, ChartPath: dir, Verify: downloader.VerifyNever, RegistryClient: c, RepositoryConfig: own, RepositoryCache: r.cache(),
		ContentCache: filepath.Join(r.cache(), "content"), SkipUpdate: true, // the indexes are fresh
		Getters: getter.Getters(getter.WithPlainHTTP(t.PlainHTTP), getter.WithRegistryClient(c)),
	}
	run := m.Update
	if locked {
		run = m.Build
	}
	if err := run(); err != nil {
		said := strings.NewReplacer("helm dependency", "fairlead chart dependency", "helm repo", "fairlead chart repo").Replace(err.Error())
		return cluster.Invalidf("dependencies of %s: %s", dir, said)
	}
	_, err = Read(dir) // what came is looked at
	return err
}

// MissingDependencies fetches the dependencies of a package's directory, where charts/ lacks
// one of them; of any other package it fetches none.
func (r Repositories) MissingDependencies(ctx context.Context, dir string, t Transfer) error {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() || t.Repo != "" {
		return nil
	}
	files, err := Read(dir)
	if err != nil {
		return err
	}
	deps, err := Dependencies(files)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(deps, func(d Dependency) bool { return d.Status == "missing" }) {
		return nil
	}
	return r.UpdateDependencies(ctx, dir, false, t)
}

// dependencies writes a file of the repositories that a chart's dependencies are in, for
// Helm's manager, and fetches their indexes: with the login that they were added with, or
// with that of t.
func (r Repositories) dependencies(ctx context.Context, dir string, t Transfer) (file string, err error) {
	files, err := Read(dir)
	if err != nil {
		return "", err
	}
	c, err := load(files)
	if err != nil {
		return "", cluster.Invalidf("%w", err)
	}
	have, err := r.load()
	if err != nil {
		return "", err
	}
	f, hosts := repo.NewFile(), map[string]bool{}
	for _, d := range c.Metadata.Dependencies {
		x, err := r.dependency(have, d.Repository, t)
		if err != nil {
			return "", fmt.Errorf("dependency %s of %s: %w", d.Name, dir, err)
		}
		u, _ := url.Parse(d.Repository) // what is none has no host
		if u != nil && u.Host != "" && (x == nil || !have.Has(x.Name)) {
			hosts[u.Host] = true
		}
		if x == nil || f.Has(x.Name) {
			continue
		}
		f.Add(&repo.Entry{Name: x.Name, URL: x.URL, Username: x.Username, Password: x.Password, CAFile: x.CAFile, InsecureSkipTLSVerify: x.Insecure})
	}
	if t.Username != "" && len(hosts) > 1 {
		return "", cluster.Invalidf("--username %s: of which of %s? `fairlead chart repo add` and `docker login` take a login for each",
			t.Username, strings.Join(slices.Sorted(maps.Keys(hosts)), ", "))
	}
	for _, e := range f.Repositories { // after that: no host is told what is not for it
		if _, err := r.refresh(ctx, known(e)); err != nil {
			return "", fmt.Errorf("dependencies of %s: %w", dir, err)
		}
	}
	tmp, err := os.CreateTemp(r.cache(), "dependencies-")
	if err != nil {
		return "", fmt.Errorf("dependencies: %w", err)
	}
	_ = tmp.Close() // nothing was written to it
	if err := f.WriteFile(tmp.Name(), 0o600); err != nil {
		_ = os.Remove(tmp.Name()) // as far as it came
		return "", fmt.Errorf("dependencies: %w", err)
	}
	return tmp.Name(), nil
}

// dependency is the repository that a dependency names, by the name of one that was added
// or by its URL; nil: it is in a registry, or on disk.
func (r Repositories) dependency(have *repo.File, ref string, t Transfer) (*Repository, error) {
	if isNamed(ref) {
		x, err := r.find(strings.TrimPrefix(strings.TrimPrefix(ref, "@"), "alias:"))
		return &x, err
	}
	if !strings.HasPrefix(ref, "http://") && !strings.HasPrefix(ref, "https://") {
		return nil, nil
	}
	for _, e := range have.Repositories {
		if strings.TrimRight(e.URL, "/") == strings.TrimRight(ref, "/") {
			x := known(e)
			return &x, nil
		}
	}
	return unnamed(ref, t), nil
}

// isNamed reports whether a repository is meant that was added, by its name.
func isNamed(ref string) bool { return strings.HasPrefix(ref, "@") || strings.HasPrefix(ref, "alias:") }

const unnamedPrefix = "url-"

// unnamed is a repository that was not added.
func unnamed(at string, t Transfer) *Repository {
	sum := sha256.Sum256([]byte(at))
	return &Repository{
		Name: unnamedPrefix + hex.EncodeToString(sum[:8]), URL: at, Username: t.Username, Password: t.Password, CAFile: t.CAFile, Insecure: t.Insecure,
	}
}
