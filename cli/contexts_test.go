package cli_test

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestContexts(t *testing.T) {
	h := newHub(t)
	t.Setenv("FAIRLEAD_SOCKET", "")
	file := filepath.Join(h.home, ".config", "fairlead", "contexts.json")
	h.must("tok-123\n", "context", "add", "prod", "--server", "https://203.0.113.5:7420", "--token-stdin", "--no-check")
	if s := h.must("", "context", "add", "here", "--local", h.socket); !strings.Contains(s.out, "`fairlead context use here` makes it the current one") {
		t.Errorf("%s", s.all)
	}
	st, err := os.Stat(file)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", st, err)
	}
	if st, err := os.Stat(filepath.Dir(file)); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", st, err)
	}
	rows := func() string { return strings.Join(strings.Fields(h.must("", "context", "ls").out), " ") }
	if got := rows(); got != "NAME CURRENT SERVER here no /run/fairlead/fairlead.sock prod yes https://203.0.113.5:7420" {
		t.Errorf("the first is the current one: %s", got)
	}
	if strings.Contains(h.must("", "context", "ls", "-o", "json").out, "tok-123") {
		t.Error("the token is shown")
	}
	h.must("", "context", "use", "here")
	h.must("", "ls")
	h.must("", "context", "add", "away", "--local", "/nonexistent", "--use", "--no-check")
	if s := h.cli("", "ls"); s.code != 3 {
		t.Errorf("--use: %d %s", s.code, s.all)
	}
	h.must("", "ls", "--context", "here") // a flag wins over the current one,
	t.Setenv("FAIRLEAD_CONTEXT", "here")  // as the environment does,
	h.must("", "ls")
	if s := h.cli("", "ls", "--context", "away"); s.code != 3 { // and over that.
		t.Errorf("%d %s", s.code, s.all)
	}
	t.Setenv("FAIRLEAD_SOCKET", "/nonexistent")
	h.must("", "ls", "--context", "here")
	const set = "FAIRLEAD_SOCKET is set: commands here talk to /nonexistent"
	for _, args := range [][]string{{"context", "ls"}, {"context", "use", "away"}} {
		if s := h.must("", args...); !strings.Contains(s.err, set) {
			t.Errorf("%s: %s", args, s.all)
		}
	}
	if s := h.must("", "context", "ls", "-o", "json"); s.err != "" {
		t.Errorf("-o json: %s", s.err)
	}
	h.must("", "context", "rm", "away")
	t.Setenv("FAIRLEAD_SOCKET", "")
	t.Setenv("FAIRLEAD_CONTEXT", "")
	if got := rows(); strings.Contains(got, "away") || strings.Contains(got, "yes") {
		t.Errorf("%s", got)
	}
	if b, err := os.ReadFile(file); err != nil || !strings.Contains(string(b), "tok-123") {
		t.Errorf("the other's token is gone: %s %v", b, err)
	}
}

// A context is written once its server has answered, and never takes another's
// name by accident.
func TestContextIsChecked(t *testing.T) {
	h := newHub(t)
	t.Setenv("FAIRLEAD_SOCKET", "")
	srv := httptest.NewUnstartedServer(h.api)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that are to fail
	srv.StartTLS()
	t.Cleanup(srv.Close)
	sum := sha256.Sum256(srv.Certificate().Raw)
	ca, token := hex.EncodeToString(sum[:]), strings.TrimSpace(h.must("", "token", "create", "laptop", "--socket", h.socket).out)
	h.names = append(h.names, srv.Listener.Addr().String(), "203.0.113.5:7420")
	for _, c := range []struct {
		what, token, server, ca string
		code                    int
		says                    string
	}{
		{"a wrong token", "fl_wrong", srv.URL, ca, 3, "203.0.113.5:7420 refuses the token: `fairlead token create NAME`"},
		{"no token", "", srv.URL, ca, 3, "--token-stdin takes it"},
		{"another authority", token, srv.URL, strings.Repeat("00", 32), 3, "expected fingerprint"},
		{"an authority that is not given", token, srv.URL, "", 3, "with --ca"},
		{"nobody there", token, "https://127.0.0.1:1", ca, 3, "check the address"},
	} {
		args := []string{"context", "add", "prod", "--server", c.server, "--ca", c.ca}
		if c.token != "" {
			args = append(args, "--token-stdin")
		}
		s := h.cli(c.token+"\n", args...)
		if s.code != c.code || !strings.Contains(s.all, c.says) || !strings.Contains(s.all, "context prod is not added (--no-check adds it anyway)") {
			t.Errorf("%s: exit code %d\n%s", c.what, s.code, s.all)
		}
	}
	if s := h.must("", "context", "ls"); !strings.Contains(s.all, "no contexts") {
		t.Errorf("something was added:\n%s", s.all)
	}
	add := []string{"context", "add", "prod", "--server", srv.URL, "--ca", ca, "--token-stdin"}
	if s := h.must(token, add...); s.out != "added context prod, of https://203.0.113.5:7420; it is the current one\n" {
		t.Errorf("%s", s.all)
	}
	h.must(token, add...) // the same again
	local := []string{"context", "add", "prod", "--local", h.socket}
	if s := h.cli("", local...); s.code != 2 || !strings.Contains(s.all, `there is a context "prod", of https://203.0.113.5:7420: --replace`) {
		t.Errorf("exit code %d\n%s", s.code, s.all)
	}
	h.must("", "ls")
	h.must("", append(local, "--replace")...)
}

// The line that uses a token elsewhere can be pasted as it is.
func TestTokenLine(t *testing.T) {
	h := newHub(t)
	s := h.must("", "token", "create", "ci")
	if !strings.Contains(s.err, "no other machine can use it yet") || strings.Contains(s.err, "context add") {
		t.Errorf("a server that listens nowhere: %s", s.err)
	}
	h.api.URL, h.api.CA = "https://203.0.113.1:7420", "3f9a"
	s = h.must("", "token", "create", "laptop")
	want := "echo " + strings.TrimSpace(s.out) + " | fairlead context add laptop --server https://203.0.113.1:7420 --ca 3f9a --token-stdin\n"
	if !strings.HasSuffix(s.err, want) {
		t.Errorf("%s, want the line %s", s.err, want)
	}
}

// TestContextAddByTheFlagsOfOtherCommands: those say where one command goes, and would be
// taken and forgotten.
func TestContextAddByTheFlagsOfOtherCommands(t *testing.T) {
	h := newHub(t)
	for flag, says := range map[string]string{"--url": "is given with --server URL", "--socket": "is given with --local SOCKET"} {
		s := h.cli("", "context", "add", "prod", flag, "https://203.0.113.5:7420", "--no-check")
		if s.code != 2 || !strings.Contains(s.err, flag+" is which server one command asks") || !strings.Contains(s.err, says) {
			t.Errorf("%s: %d %q", flag, s.code, s.err)
		}
	}
	if s := h.must("", "context", "ls", "-o", "json"); strings.Contains(s.out, "prod") {
		t.Errorf("%q", s.out)
	}
}
