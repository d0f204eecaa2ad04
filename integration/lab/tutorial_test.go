package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/integration/need"
	"github.com/fairlead/fairlead/integration/registryd"
)

// insideTutorial says that the test runs where it may write what the tutorial writes.
const insideTutorial = "FAIRLEAD_TEST_TUTORIAL"

// Every command of docs/tutorial.md, exactly as it stands there and in that order, in one
// shell on a machine with Docker and Fairlead, where the user's name is known to Git.
func TestTutorial(t *testing.T) {
	if os.Getenv(insideTutorial) == "" {
		ownMounts(t)
		return
	}
	b := newBed(t)
	b.do("up", "--nodes", "1")
	b.aliveSoon("n1")
	b.registryImage()

	said := b.follow(filepath.Join(need.Root(t), "docs", "tutorial.md"))
	for section, wants := range map[string][]string{
		"4": {`Hello, says version 1\.0\.0 on`},
		"5": {`Good morning, says version 1\.0\.0 on`, `A friendlier greeting`},
		"6": {`Good morning, says version 1\.1\.0 on`, `image: localhost:5000/hello:1\.1\.0 # `},
		"7": {`FAILED: fairlead delivery reconcile hello\nexit code 1`, `(?s)version 1\.1\.0 on.*A slip.*version 1\.1\.0 on`},
		"8": {`commit +hello: web 1\.1\.0`, `since then +main [0-9a-f]{8} “The right path” by Operator`, `image +localhost:5000/hello:1\.1\.0`, `digest +localhost:5000/hello@sha256:[0-9a-f]{64}`},
	} {
		for _, want := range wants {
			if !regexp.MustCompile(want).MatchString(said[section]) {
				t.Errorf("section %s does not say %s", section, want)
			}
		}
	}
	// One command is to fail, and says so.
	for section, text := range said {
		text = strings.Replace(text, "FAILED: fairlead delivery reconcile hello\nexit code 1\n", "", 1)
		if strings.Contains(text, "FAILED: ") {
			t.Errorf("in section %s a command failed", section)
		}
	}
	if t.Failed() {
		for i := range 10 {
			t.Logf("== section %d\n%s", i, said[fmt.Sprint(i)])
		}
	}
}

// ownMounts runs the test again where /srv is its own.
func ownMounts(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		need.Skip(t, "needs root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "sh", "-c",
		`mount -t tmpfs tmpfs /srv && mkdir /srv/git && exec "$0" "$@"`, os.Args[0], "-test.run=^TestTutorial$", "-test.v")
	cmd.Env = append(os.Environ(), insideTutorial+"=1")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	out, err := output(cmd)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Log(out)
}

// registryImage makes the image that the tutorial would fetch: the same program, under
// the same name.
func (b *bed) registryImage() {
	b.t.Helper()
	dir := b.t.TempDir()
	registryd.Image(b.t, dir)
	b.do("exec", "n1", "--", "docker", "build", "-q", "-t", "registry:3", dir)
}

// follow runs the commands of a document in one shell on n1, and returns what they
// printed by section. A simple command that fails is named after FAILED.
func (b *bed) follow(path string) map[string]string {
	b.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		b.t.Fatal(err)
	}
	script, section := "trap 'echo \"FAILED: $BASH_COMMAND\"' ERR\n", ""
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(line, "## "); ok {
			section, _, _ = strings.Cut(name, ".")
			script += fmt.Sprintf("echo '== section %s'\n", section)
		}
		if command, ok := strings.CutPrefix(line, "    "); ok {
			script += command
		} else if line == "\n" {
			script += line
		}
	}
	home := b.t.TempDir()
	file := filepath.Join(home, "tutorial.sh")
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(b.t.Context(), 8*time.Minute)
	defer cancel()
	cmd := b.command(ctx, "exec", "n1", "--", "env", "HOME="+home, "PATH="+filepath.Dir(fairlead)+":"+os.Getenv("PATH"),
		"GIT_AUTHOR_NAME=Operator", "GIT_AUTHOR_EMAIL=operator@example.com", "GIT_COMMITTER_NAME=Operator", "GIT_COMMITTER_EMAIL=operator@example.com",
		"GOCACHE="+cache(b.t), "bash", file)
	cmd.Dir = home
	out, err := output(cmd)
	if err != nil {
		b.t.Errorf("the shell ends with %v", err)
	}
	said := map[string]string{}
	for _, part := range strings.Split(out, "== section ")[1:] {
		name, rest, _ := strings.Cut(part, "\n")
		said[name] = rest
	}
	return said
}

// cache is Go's own of this machine: the commands have another home.
func cache(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "env", "GOCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
