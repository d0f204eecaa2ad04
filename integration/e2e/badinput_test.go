package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	badInputsFile = "../../docs/bad-inputs.md"
	engineMark    = "\n<!-- from here on: integration/e2e/badinput_test.go -->\n"
	engineHead    = `
## What only shows when it runs

With a real engine and gateway. Nothing of what ran before is touched; names that
change from run to run are shown as they were once.

| input | what you see | exit |
|---|---|---|
`
)

// TestBadInputs holds the rows of docs/bad-inputs.md that need an engine. Others
// need none: cli/badinput_test.go.
func TestBadInputs(t *testing.T) {
	n := start(t)
	image := n.image()
	var rows strings.Builder
	rows.WriteString(engineHead)
	row := func(what, command, out string, err error, code int, says ...string) {
		t.Helper()
		got := 0
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			got = exit.ExitCode()
		}
		if got != code {
			t.Errorf("%s: exit code %d, want %d\n%s", what, got, code, out)
		}
		for _, s := range says {
			if !strings.Contains(out, s) {
				t.Errorf("%s: it does not say %q:\n%s", what, s, out)
			}
		}
		out = n.lasting(strings.ReplaceAll(out, image, "shop/web:1"))
		var cells []string
		for l := range strings.Lines(strings.ReplaceAll(out, "|", `\|`)) {
			if l = strings.TrimRight(l, "\n"); l != "" && !passing.MatchString(l) {
				cells = append(cells, "`` "+l+" ``")
			}
		}
		fmt.Fprintf(&rows, "| %s<br>`%s` | %s | %d |\n", what, command, strings.Join(cells, "<br>"), got)
	}

	t.Run("absent image", func(t *testing.T) {
		f := n.write("absent.yaml", "name: absent\nservices:\n  web: {image: \"fairlead-e2e/absent:1\", pull_policy: never}\n")
		out, err := n.try("deploy", "-f", f, "--timeout", "60s")
		row("an image that is nowhere, and must not be pulled", "fairlead deploy", out, err, 1, "fairlead-e2e/absent:1")
	})
	t.Run("missing secret and volume", func(t *testing.T) {
		f := n.write("waits.yaml", fmt.Sprintf("name: waits\nservices:\n  web:\n    image: %s\n    secrets: [pw]\nsecrets: {pw: {external: true}}\n", image))
		out, err := n.try("deploy", "-f", f, "--timeout", "20s")
		row("a secret that is not set (accepted: it waits)", "fairlead deploy --timeout 20s", out, err, 5, "waits/pw")

		f = n.write("volume.yaml", fmt.Sprintf("name: volume\nservices:\n  web:\n    image: %s\n    volumes: [\"data:/data\"]\nvolumes: {data: {external: true, name: fairlead-e2e-absent}}\n", image))
		out, err = n.try("deploy", "-f", f, "--timeout", "60s")
		row("an external volume that is not there", "fairlead deploy", out, err, 1, "fairlead-e2e-absent", "docker volume create")
		if out, err := exec.Command("docker", "volume", "inspect", "fairlead-e2e-absent").CombinedOutput(); err == nil {
			t.Errorf("the external volume was made: %s", out)
		}
	})
	t.Run("missing network", func(t *testing.T) {
		f := n.write("network.yaml", fmt.Sprintf("name: network\nservices:\n  web:\n    image: %s\n    networks: [front]\nnetworks: {front: {external: true, name: fairlead-e2e-absent}}\n", image))
		out, err := n.try("deploy", "-f", f, "--timeout", "60s")
		row("an external network that no app declares, and that is not there", "fairlead deploy", out, err, 1, "fairlead-e2e-absent", "docker network create")
		if out, err := exec.Command("docker", "network", "inspect", "fairlead-e2e-absent").CombinedOutput(); err == nil {
			t.Errorf("the external network was made: %s", out)
		}
	})
	t.Run("port of another program", func(t *testing.T) {
		l, err := net.Listen("tcp", ":0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		port := l.Addr().(*net.TCPAddr).Port
		f := n.write("port.yaml", fmt.Sprintf("name: port\nservices:\n  web:\n    image: %s\n    ports: [\"%d:8080\"]\n", image, port))
		out, err := n.try("deploy", "-f", f, "--timeout", "60s")
		_, out, _ = strings.Cut(strings.ReplaceAll(out, fmt.Sprint(port), "5432"), "error: ")
		row("a published port that another program of the node has (it keeps it)", "fairlead deploy", "error: "+out, err, 1, "port.yaml:5", "in use by", "stop that program")
		if out, err = n.try("status"); err != nil {
			t.Fatal(err, out)
		}
		conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
		if err != nil {
			t.Fatalf("the other program lost its port: %v", err)
		}
		conn.Close()
		var alarm []string
		for s := range strings.Lines(out) {
			if strings.HasPrefix(s, "alarm") && strings.Contains(s, "gateway n1") {
				alarm = append(alarm, strings.ReplaceAll(s, fmt.Sprint(port), "5432"))
			}
		}
		row("the same, afterwards", "fairlead status", strings.Join(alarm, ""), err, 0, "in use by", "stop that program")
	})
	if t.Failed() {
		return
	}
	held(t, rows.String())
}

var (
	// passing is progress that one run shows and another is too quick for.
	passing = regexp.MustCompile(`^ .* ready, (pending.*|running(: .* is starting: .*|: [^ ]+ waits for secret [^ /]+)?)$`)
	taskID  = regexp.MustCompile(`(\.[0-9]+\.)[0-9a-z]{6,}`)
	pid     = regexp.MustCompile(`PID [0-9]+`)
	prog    = regexp.MustCompile(`by [a-z0-9.]+ \(PID`)
)

// lasting puts names that stay the same in place of those of this run.
func (n *node) lasting(out string) string {
	out = strings.ReplaceAll(out, n.dir+"/", "")
	out = taskID.ReplaceAllString(out, "${1}4xk2p9")
	return prog.ReplaceAllString(pid.ReplaceAllString(out, "PID 812"), "by postgres (PID")
}

// held compares the end of the document, or writes it.
func held(t *testing.T, rows string) {
	t.Helper()
	b, err := os.ReadFile(badInputsFile)
	if err != nil {
		t.Fatal(err)
	}
	head, old, _ := strings.Cut(string(b), engineMark)
	if os.Getenv("FAIRLEAD_UPDATE") != "" {
		if err := os.WriteFile(badInputsFile, []byte(head+engineMark+rows), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(strings.Split(old, "\n"), strings.Split(rows, "\n")); d != "" {
		t.Errorf("%s differs from what is seen; when that is right, FAIRLEAD_UPDATE=1 writes it (-document +seen)\n%s", badInputsFile, d)
	}
}
