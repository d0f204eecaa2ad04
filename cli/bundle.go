package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/go-archive"
	"github.com/moby/patternmatcher/ignorefile"
	"github.com/spf13/cobra"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/compose"
	"github.com/fairlead/fairlead/delivery/work"
)

// sourceFlags say which Compose files describe the app.
type sourceFlags struct {
	files, profiles, envFiles []string
}

func (s *sourceFlags) register(c *cobra.Command) {
	f := c.Flags()
	f.StringArrayVarP(&s.files, "file", "f", nil, "Compose file; repeat to merge several (default: those of COMPOSE_FILE, else compose.yaml here or above); - is standard input")
	f.StringArrayVarP(&s.files, "compose-file", "c", nil, "the same as --file, as docker stack deploy has it")
	f.StringArrayVar(&s.profiles, "profile", nil, "switch a profile on (default: those of COMPOSE_PROFILES)")
	f.StringArrayVar(&s.envFiles, "env-file", nil, "file with variables for interpolation (default: those of COMPOSE_ENV_FILES, else .env beside the Compose file)")
	_ = c.MarkFlagFilename("file", "yaml", "yml")
}

// load reads the Compose files and prints their warnings.
func (a *app) load(ctx context.Context, s sourceFlags, args []string, info v1.ServerInfo) (*compose.Result, error) {
	opts := compose.Options{
		Files: s.files, Stdin: a.in, Profiles: s.profiles, EnvFiles: s.envFiles, Env: environment(),
		Domain: info.Domain, SingleNode: info.Nodes <= 1, HTTPPort: info.Web, HTTPSPort: info.WebSecure,
	}
	if len(s.files) == 0 {
		opts.Dir = a.dir
	}
	if a.appFlag != "" {
		opts.App = cluster.AppName(a.appFlag)
	}
	if len(args) > 0 {
		opts.App = cluster.AppName(args[0])
	}
	r, err := compose.Load(ctx, opts)
	if err != nil {
		return nil, &exitError{code: codeUsage, err: err}
	}
	for _, w := range r.Warnings {
		a.note("warning: %s", w)
	}
	return r, nil
}

func environment() map[string]string {
	env := map[string]string{}
	for _, kv := range os.Environ() {
		if k, v, ok := strings.Cut(kv, "="); ok {
			env[k] = v
		}
	}
	return env
}

// bundle is what travels to the server.
func bundle(r *compose.Result) v1.Bundle { return work.Bundle(r) }

// checkBuilds refuses what cannot be built here.
func checkBuilds(r *compose.Result) error {
	for _, b := range r.Builds {
		at := fmt.Sprintf("%s:%d: services.%s.build", b.Source.File, b.Source.Line, b.Service)
		st, err := os.Stat(b.Context)
		switch {
		case errors.Is(err, os.ErrNotExist):
			return usagef("%s: there is no directory %s; correct it, or use the images built before with --no-build", at, b.Context)
		case err != nil:
			return usagef("%s: %w", at, err)
		case !st.IsDir():
			return usagef("%s: %s is not a directory", at, b.Context)
		}
		if _, _, err := findDockerfile(b); err != nil {
			return usagef("%s: %w; name another one with dockerfile:", at, err)
		}
	}
	return nil
}

// build builds the images of the services that say how, and pins each to what was built.
func (a *app) build(ctx context.Context, cl *client.Client, r *compose.Result, noCache, pull bool) error {
	for _, b := range r.Builds {
		a.note("build %s", b.Service)
		res, err := a.buildOne(ctx, cl, r.App, b, noCache, pull)
		if err != nil {
			return failedf("%s:%d: build %s: %w", b.Source.File, b.Source.Line, b.Service, err)
		}
		if c := res.Copy; c != nil && c.Error != "" {
			a.note("warning: %s:%d: what was built for %s is on %s alone, and starts nowhere else while that node is away (%s); deploy again to have it on a second one",
				b.Source.File, b.Source.Line, b.Service, res.Node, c.Error)
		} else if c != nil && c.Bytes > 0 {
			a.note("  copied to %s, %s", c.Node, size(c.Bytes))
		}
		for _, name := range runs(r, b) {
			spec := r.Services[name]
			spec.Task.Image, spec.Task.ImageID = res.Ref, res.ID
			r.Services[name] = spec
		}
	}
	return nil
}

// runs are the services that run what b builds: its own, and those that name the
// image without building it, as a worker beside its web server does.
func runs(r *compose.Result, b compose.Build) []cluster.ServiceName {
	out := []cluster.ServiceName{b.Service}
	builds := func(name cluster.ServiceName) bool {
		return slices.ContainsFunc(r.Builds, func(x compose.Build) bool { return x.Service == name })
	}
	for name, s := range r.Services {
		if s.Task.Image == b.Image && s.Task.PullPolicy != "always" && !builds(name) {
			out = append(out, name)
		}
	}
	slices.Sort(out[1:])
	return out
}

func (a *app) buildOne(ctx context.Context, cl *client.Client, app cluster.AppName, b compose.Build, noCache, pull bool) (v1.BuildResult, error) {
	tar, dockerfile, err := packContext(b)
	if err != nil {
		return v1.BuildResult{}, err
	}
	defer tar.Close() //nolint:errcheck // only read
	opts := buildOptions(app, b, dockerfile)
	opts.NoCache, opts.Pull = opts.NoCache || noCache, opts.Pull || pull
	var log strings.Builder
	out := io.Writer(&log)
	if a.terminal() {
		out = io.MultiWriter(&log, a.errw)
	}
	res, err := cl.Build(ctx, opts, tar, out)
	if err != nil && !a.terminal() {
		a.note("%s", tail(log.String(), 30))
	}
	return res, err
}

// buildOptions are what the file says about a build.
func buildOptions(app cluster.AppName, b compose.Build, dockerfile string) v1.BuildOptions {
	return v1.BuildOptions{
		App: app, Service: b.Service, Dockerfile: dockerfile, Target: b.Target, Args: b.Args,
		Labels: b.Labels, Platform: b.Platform, NoCache: b.NoCache, Pull: b.Pull, Tags: b.Tags,
		Network: b.Network, ExtraHosts: b.ExtraHosts, ShmSize: b.ShmSize, CacheFrom: b.CacheFrom,
	}
}

// strayDockerfile is the name under which a Dockerfile that is not in the context travels.
const strayDockerfile = ".fairlead.Dockerfile"

// packContext makes the tar of a build context, less what .dockerignore names,
// and says which file in it is the Dockerfile.
func packContext(b compose.Build) (tar io.ReadCloser, dockerfile string, err error) {
	dockerfile, content, err := findDockerfile(b)
	if err != nil {
		return nil, "", err
	}
	excluded, err := ignored(b.Context, dockerfile)
	if err != nil {
		return nil, "", err
	}
	tar, err = archive.TarWithOptions(b.Context, &archive.TarOptions{ExcludePatterns: excluded, ChownOpts: &archive.ChownOpts{}})
	if err == nil && content != "" {
		tar = withFile(tar, dockerfile, content)
	}
	return tar, dockerfile, err
}

// findDockerfile returns the Dockerfile's path in the context or, when it is
// inline or elsewhere, its content and the name it travels under.
func findDockerfile(b compose.Build) (name, content string, err error) {
	if b.DockerfileInline != "" {
		return strayDockerfile, b.DockerfileInline, nil
	}
	name = b.Dockerfile
	if name == "" {
		name = "Dockerfile"
	}
	if filepath.IsAbs(name) {
		if name, err = filepath.Rel(b.Context, name); err != nil {
			return "", "", err
		}
	}
	path := filepath.Join(b.Context, name)
	data, err := os.ReadFile(path) //nolint:gosec // the user's own Dockerfile
	if errors.Is(err, os.ErrNotExist) {
		return "", "", cluster.Invalidf("there is no %s", path)
	}
	if err == nil && !filepath.IsLocal(name) {
		return strayDockerfile, string(data), nil
	}
	return name, "", err
}

// ignored reads <dockerfile>.dockerignore, else .dockerignore. The Dockerfile itself always travels.
func ignored(dir, dockerfile string) ([]string, error) {
	for _, name := range []string{dockerfile + ".dockerignore", ".dockerignore"} {
		f, err := os.Open(filepath.Join(dir, name)) //nolint:gosec // the user's own context
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		patterns, err := ignorefile.ReadAll(f)
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
		return append(patterns, "!"+dockerfile, "!.dockerignore"), nil
	}
	return nil, nil
}
