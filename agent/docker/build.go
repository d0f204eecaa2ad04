package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/build"

	"github.com/fairlead/fairlead/cluster"
)

// Build is an image to build.
type Build struct {
	Context    io.Reader // a tar stream
	Tags       []string
	Dockerfile string // path in the context; "" means Dockerfile
	Target     string
	Args       map[string]string
	Labels     map[string]string
	Platform   string
	NoCache    bool
	Pull       bool
	Network    string
	ExtraHosts []string // "name:ip"
	ShmSize    int64
	CacheFrom  []string
	Progress   io.Writer
}

// Build builds an image and returns its ID. As Docker's own command does, it uses buildx
// where that is installed, else the engine's classic builder.
func (e *Engine) Build(ctx context.Context, b Build) (string, error) {
	if len(b.Tags) == 0 {
		return "", cluster.Invalidf("a built image needs a name")
	}
	if bin, ok := findBuildx(ctx); ok {
		return e.buildx(ctx, bin, b)
	}
	r, err := e.cli.ImageBuild(ctx, b.Context, b.options())
	if err != nil {
		if noBuilder(err) {
			return "", cluster.Invalidf("the engine that builds has no classic builder: %s", installBuildx)
		}
		return "", kind(err)
	}
	defer func() { _ = r.Body.Close() }()
	id, err := buildOutput(r.Body, b.Progress)
	if err != nil {
		if strings.Contains(err.Error(), "BuildKit") {
			err = fmt.Errorf("%w: %s", err, installBuildx)
		}
		return "", err
	}
	if id == "" || !strings.HasPrefix(id, "sha256:") || len(id) < 71 {
		return e.ImageID(ctx, b.Tags[0])
	}
	return id, nil
}

const installBuildx = "install buildx for the docker command there (the package docker-buildx-plugin, docker-buildx on Debian)"

// findBuildx returns the docker command, when it has buildx. It is asked for each build:
// somebody may install it any time, and it answers at once.
func findBuildx(ctx context.Context) (bin string, ok bool) {
	bin, err := exec.LookPath("docker")
	if err != nil {
		return "", false
	}
	return bin, exec.CommandContext(ctx, bin, "buildx", "version").Run() == nil
}

func (b Build) options() build.ImageBuildOptions {
	args := make(map[string]*string, len(b.Args))
	for k, v := range b.Args {
		args[k] = &v
	}
	return build.ImageBuildOptions{
		Tags: b.Tags, Dockerfile: b.Dockerfile, Target: b.Target, BuildArgs: args, Labels: b.Labels, Platform: b.Platform,
		NetworkMode: b.Network, ExtraHosts: b.ExtraHosts, ShmSize: b.ShmSize, CacheFrom: b.CacheFrom,
		NoCache: b.NoCache, PullParent: b.Pull, Remove: true, ForceRemove: true, Version: build.BuilderV1,
	}
}

// noBuilder reports that an engine refused the classic builder before it read the context.
func noBuilder(err error) bool {
	s := err.Error()
	return strings.Contains(s, "classic builder") || strings.Contains(s, "builder version") || strings.Contains(s, "not supported by this daemon")
}

func buildOutput(body io.Reader, progress io.Writer) (string, error) {
	var id string
	dec := json.NewDecoder(body)
	for {
		var m struct {
			Stream string `json:"stream"`
			Status string `json:"status"`
			Error  string `json:"error"`
			Aux    struct {
				ID string `json:"ID"`
			} `json:"aux"`
		}
		if err := dec.Decode(&m); errors.Is(err, io.EOF) {
			return id, nil
		} else if err != nil {
			return "", kind(err)
		}
		if m.Error != "" {
			return "", cluster.Invalidf("build failed: %s", m.Error)
		}
		if m.Aux.ID != "" {
			id = m.Aux.ID
		}
		text := m.Stream
		if m.Status != "" {
			text = m.Status + "\n"
		}
		if _, err := io.WriteString(progress, text); err != nil {
			return "", err
		}
	}
}

func (e *Engine) buildx(ctx context.Context, bin string, b Build) (string, error) {
	cmd := exec.CommandContext(ctx, bin, append([]string{"-H", e.cli.DaemonHost()}, b.buildxArgs()...)...) //nolint:gosec // a fixed program, arguments never pass a shell
	var why string
	said := reason(&why)
	out := io.MultiWriter(b.Progress, said)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = b.Context, out, out
	cmd.WaitDelay = 5 * time.Second // buildx is a child of the command's: it may outlive it
	if err := errors.Join(cmd.Run(), said.flush()); err != nil {
		return "", cluster.Invalidf("build failed: %s (buildx: %w)", strings.TrimPrefix(why, buildErr), err)
	}
	return e.ImageID(ctx, b.Tags[0])
}

const buildErr = "ERROR: "

// reason keeps what says why a build failed, of what buildx prints: the last error, else
// the last line that is not empty. Hints may come after an error.
func reason(why *string) *lines {
	return &lines{emit: func(l cluster.LogLine) error {
		text := strings.TrimSpace(l.Text)
		if text != "" && (strings.HasPrefix(text, buildErr) || !strings.HasPrefix(*why, buildErr)) {
			*why = text
		}
		return nil
	}}
}

func (b Build) buildxArgs() []string {
	// The engine's own BuildKit, and one image without attestations beside it.
	args := []string{"buildx", "build", "--builder", "default", "--load", "--provenance", "false", "--progress", "plain"}
	add := func(flag, v string) {
		if v != "" {
			args = append(args, flag, v)
		}
	}
	for _, t := range b.Tags {
		add("-t", t)
	}
	add("-f", b.Dockerfile)
	add("--target", b.Target)
	add("--platform", b.Platform)
	add("--network", b.Network)
	for _, h := range b.ExtraHosts {
		add("--add-host", h)
	}
	if b.ShmSize > 0 {
		add("--shm-size", strconv.FormatInt(b.ShmSize, 10))
	}
	for _, image := range b.CacheFrom {
		add("--cache-from", image)
	}
	for k, v := range b.Args {
		add("--build-arg", k+"="+v)
	}
	for k, v := range b.Labels {
		add("--label", k+"="+v)
	}
	if b.NoCache {
		args = append(args, "--no-cache")
	}
	if b.Pull {
		args = append(args, "--pull")
	}
	return append(args, "-")
}
