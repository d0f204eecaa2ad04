package integration

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/integration/need"
)

// With buildx installed, files that need BuildKit are built; without it, it is said.
func TestBuildx(t *testing.T) {
	e, err := docker.New("")
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if _, err := e.Info(t.Context()); err != nil {
		need.Skip(t, "needs a Docker engine")
	}
	config := t.TempDir() // no plug-in of the user's
	t.Setenv("DOCKER_CONFIG", config)
	const tag = "fairlead-test-buildx:1"
	t.Cleanup(func() { _ = exec.Command("docker", "rmi", "-f", tag).Run() })
	var progress bytes.Buffer
	build := func(dockerfile string) (string, error) {
		progress.Reset()
		return e.Build(t.Context(), docker.Build{
			Tags: []string{tag}, Dockerfile: "sub/Dockerfile", Progress: &progress, Network: "none", Args: map[string]string{"WHO": "ann"},
			Labels: map[string]string{"io.fairlead.test": t.Name()}, Target: "last",
			Context: tarOf(map[string][]byte{"sub/Dockerfile": []byte(dockerfile), "prog": []byte("#!")}),
		})
	}
	const needsBuildKit = "FROM scratch AS last\nARG WHO\nCOPY --chmod=700 prog /bin/prog\nENV WHO=$WHO\nCMD [\"prog\"]\n"

	if exec.Command("docker", "buildx", "version").Run() != nil { // nor one of the machine's
		if _, err := build("FROM scratch AS last\nCOPY --chmod=700 prog /bin/prog\n"); err == nil || !strings.Contains(err.Error(), "install buildx") {
			t.Errorf("without buildx: %v", err)
		}
	}

	out, err := exec.Command("bash", filepath.Join(need.Root(t), "scripts/buildx")).Output()
	if err != nil {
		need.Skip(t, "no buildx (scripts/buildx): %v", err)
	}
	if err := os.Mkdir(filepath.Join(config, "cli-plugins"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(strings.TrimSpace(string(out)), filepath.Join(config, "cli-plugins", "docker-buildx")); err != nil {
		t.Fatal(err)
	}
	id, err := build(needsBuildKit)
	if err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
	img, err := exec.Command("docker", "image", "inspect", "-f", "{{.Id}} {{.Config.Env}} {{.Config.Labels}} {{len .RootFS.Layers}}", tag).Output()
	if got := string(img); err != nil || !strings.HasPrefix(got, id) || !strings.Contains(got, "WHO=ann") || !strings.Contains(got, "io.fairlead.test:TestBuildx] 1") {
		t.Errorf("built %s, but the engine has %s (%v)", id, got, err)
	}
	if !strings.Contains(progress.String(), "COPY --chmod=700 prog /bin/prog") {
		t.Errorf("the progress is\n%s", progress.String())
	}
	if _, err := build("FROM scratch AS last\nCOPY absent /\n"); err == nil || !strings.Contains(err.Error(), "build failed: ") || !strings.Contains(err.Error(), "absent") {
		t.Errorf("a file that is not there: %v", err)
	}
}
