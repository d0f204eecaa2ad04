package chart

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"

	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	"helm.sh/helm/v4/pkg/downloader"
	"helm.sh/helm/v4/pkg/getter"

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
	c, err := r.registry(ctx, t)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(r.cache(), 0o700); err != nil {
		return fmt.Errorf("dependencies: %w", err)
	}
	f, err := r.load()
	if err != nil {
		return err
	}
	if err := r.save(f); err != nil { // Helm's manager wants it to be there
		return err
	}
	var said bytes.Buffer
	m := &downloader.Manager{
		Out: &said, ChartPath: dir, Verify: downloader.VerifyNever, RegistryClient: c, RepositoryConfig: r.file(), RepositoryCache: r.cache(),
		ContentCache: filepath.Join(r.cache(), "content"),
		Getters:      getter.Getters(getter.WithPlainHTTP(t.PlainHTTP), getter.WithRegistryClient(c)),
	}
	run := m.Update
	if locked {
		run = m.Build
	}
	if err := run(); err != nil {
		return cluster.Invalidf("dependencies of %s: %w", dir, err)
	}
	_, err = Read(dir) // what came is looked at
	return err
}
