package gateway

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/Masterminds/semver/v3"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/proc"
)

// program is a Traefik on this machine.
type program struct {
	path    string
	version string
	// id changes when the file does: its size and time of change.
	id string
}

var versionRE = regexp.MustCompile(`(?m)^Version:\s+v?(\S+)`)

// LibDir is where `fairlead system install` puts a Traefik that it found in a
// user's cache, so that a service without a home finds it.
const LibDir = "/usr/local/lib/fairlead"

// Find returns the path and version of the Traefik 3 that a gateway would run;
// caches are further directories to look in.
func Find(ctx context.Context, configured string, caches ...string) (path, version string, err error) {
	p, err := findTraefik(ctx, configured, caches...)
	return p.path, p.version, err
}

// findTraefik looks for Traefik 3: the configured program alone when there is
// one, else on PATH, else the highest version where it was installed and in the
// user's cache: what a new Fairlead builds there is newer than what an old one installed.
func findTraefik(ctx context.Context, configured string, caches ...string) (program, error) {
	if configured != "" {
		return probe(ctx, configured)
	}
	var tried []string
	if p, err := exec.LookPath("traefik"); err == nil {
		tried = append(tried, p)
	}
	dirs := append([]string{LibDir}, caches...)
	if dir, err := os.UserCacheDir(); err == nil {
		dirs = append(dirs, filepath.Join(dir, "fairlead"))
	}
	for _, k := range kept(dirs...) {
		tried = append(tried, k.path)
	}
	for _, p := range tried {
		if prog, err := probe(ctx, p); err == nil {
			return prog, nil
		}
	}
	return program{}, cluster.Invalidf("gateway: no Traefik 3 found (tried %v): install one on PATH, name it with --traefik, or build it with `make traefik`", tried)
}

// keptProgram is a Traefik 3 with its version in its name.
type keptProgram struct {
	path    string
	version *semver.Version
}

// kept are the Traefiks 3 in directories, the highest version first, then in the order
// of the directories. One of another major version is none of them, nor is what is not
// written to its end yet.
func kept(dirs ...string) []keptProgram {
	var all []keptProgram
	for _, dir := range dirs {
		paths, _ := filepath.Glob(filepath.Join(dir, "traefik-3.*"))
		for _, p := range paths {
			if v, err := semver.NewVersion(strings.TrimPrefix(filepath.Base(p), "traefik-")); err == nil && !strings.HasSuffix(p, ".new") {
				all = append(all, keptProgram{p, v})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b keptProgram) int { return b.version.Compare(a.version) })
	return all
}

// Older are the Traefiks in a directory whose version is below that of one there.
func Older(dir, than string) []string {
	all := kept(dir)
	at := slices.IndexFunc(all, func(k keptProgram) bool { return k.path == than })
	if at < 0 {
		return nil
	}
	var older []string
	for _, k := range all[at:] {
		if k.version.LessThan(all[at].version) {
			older = append(older, k.path)
		}
	}
	return older
}

func probe(ctx context.Context, path string) (program, error) {
	id := proc.FileID(path)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "version").Output()
	if err != nil {
		return program{}, cluster.Invalidf("gateway: %s version: %w", path, err)
	}
	m := versionRE.FindSubmatch(out)
	if m == nil {
		return program{}, cluster.Invalidf("gateway: %s does not say which version it is", path)
	}
	// One built from its Go module calls itself "dev".
	if v := string(m[1]); v != "dev" && v[0] != '3' {
		return program{}, cluster.Invalidf("gateway: %s is Traefik %s; version 3 is needed", path, v)
	}
	return program{path: path, version: string(m[1]), id: id}, nil
}
