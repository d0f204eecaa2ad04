package lab

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// A shell whose processes are in a namespace of their own has job control at the user's
// terminal, whichever it is, and ends with its own exit code; the terminal is as it was.
func TestShellsAtATerminal(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a namespace of processes needs root")
	}
	for _, shell := range []string{"/bin/sh", "/bin/dash", "/bin/bash"} {
		t.Run(shell, func(t *testing.T) {
			path, err := exec.LookPath(shell)
			if err != nil {
				t.Skip(err)
			}
			user, ours, err := openTerminal()
			if err != nil {
				t.Fatal(err)
			}
			defer user.Close() //nolint:errcheck // the test's own
			if err := unix.IoctlSetWinsize(int(ours.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 77}); err != nil {
				t.Fatal(err)
			}
			before, err := term.GetState(int(ours.Fd()))
			if err != nil {
				t.Fatal(err)
			}
			var shown bytes.Buffer
			var wg sync.WaitGroup
			wg.Go(func() { _, _ = io.Copy(&shown, user) })
			if _, err := io.WriteString(user, "stty size\n[ -t 0 ] && echo tty-$((40+2))\nset -m && sleep 0 && echo jobs-$((40+2))\nexit 3\n"); err != nil {
				t.Fatal(err)
			}
			args := append([]string{"--pid", "--fork", "--mount-proc", "--"}, ownSession(here([]string{path}))...)
			cmd := exec.CommandContext(t.Context(), "unshare", args...)
			cmd.Env = append(os.Environ(), "ENV=", "HOME="+t.TempDir())
			code, err := atTerminal(cmd, Streams{In: ours, Out: ours})
			after, serr := term.GetState(int(ours.Fd()))
			_, _ = io.WriteString(user, "\n") // wakes who still reads what is typed
			_ = ours.Close()
			wg.Wait()
			out := strings.ReplaceAll(shown.String(), "\r\n", "\n")
			if err != nil || code != 3 {
				t.Errorf("exit code %d, %v; want 3", code, err)
			}
			for _, want := range []string{"33 77\n", "tty-42\n", "jobs-42\n"} {
				if !strings.Contains(out, want) {
					t.Errorf("no %q", want)
				}
			}
			if strings.Contains(out, "tty process group") || strings.Contains(out, "job control turned off") {
				t.Error("no job control")
			}
			if serr != nil || *after != *before {
				t.Errorf("the user's terminal is not as it was: %v", serr)
			}
			if t.Failed() {
				t.Log(out)
			}
		})
	}
}
