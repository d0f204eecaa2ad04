package taskinit

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A child of the test becomes the init: run replaces it by its command.
func TestMain(m *testing.M) {
	if f := os.Getenv("TASKINIT_TEST"); f != "" {
		code, err := run(os.Args[1:], f)
		_, _ = os.Stderr.WriteString(err.Error())
		os.Exit(code)
	}
	os.Exit(m.Run())
}

func TestRunBecomesTheCommandWithTheSecrets(t *testing.T) {
	b, err := EncodeEnv(map[string]string{"PW": "a=b\nc", "EMPTY": "", "OLD": "new"})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	init := func(args ...string) (string, int) {
		cmd := exec.CommandContext(t.Context(), exe, args...)
		cmd.Env = append(os.Environ(), "TASKINIT_TEST="+file, "OLD=old", "KEPT=yes")
		out, _ := cmd.CombinedOutput()
		return string(out), cmd.ProcessState.ExitCode()
	}
	out, code := init("sh", "-c", `printf '%s|%s|%s|%s|%s|%s' "$PW" "${EMPTY-unset}" "$OLD" "$KEPT" "$0" "$1"; exit 3`, "zero", "one")
	if want := "a=b\nc||new|yes|zero|one"; out != want || code != 3 {
		t.Errorf("%q, code %d; want %q", out, code, want)
	}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{nil, exitUsage, "no command"},
		{[]string{"no-such-program"}, exitNotFound, "not found"},
		{[]string{"/no/such/program"}, exitCannotRun, "no such file"},
	} {
		out, code := init(c.args...)
		if code != c.code || !strings.Contains(out, c.says) || strings.Contains(out, "a=b") {
			t.Errorf("%v: %q, code %d", c.args, out, code)
		}
	}
	file += ".absent"
	if out, code := init("sh"); code != exitUsage || !strings.Contains(out, "secrets") {
		t.Errorf("without a file: %q, %d", out, code)
	}
}

func TestEncodeEnvRefusesWhatCannotBe(t *testing.T) {
	for _, env := range []map[string]string{{"": "x"}, {"A=B": "x"}, {"A": "x\x00y"}, {"A\x00": "x"}} {
		if _, err := EncodeEnv(env); err == nil {
			t.Errorf("%q: no error", env)
		}
	}
	if _, err := merge(nil, []byte("broken\x00")); err == nil {
		t.Error("a damaged file: no error")
	}
}

func TestMergeReplacesEveryOccurrence(t *testing.T) {
	got, err := merge([]string{"A=1", "AB=2", "A=3"}, []byte("A=4\x00"))
	if want := []string{"AB=2", "A=4"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}
