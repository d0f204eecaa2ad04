package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/integration/load"
	"github.com/fairlead/fairlead/integration/need"
)

// traefikState is what the gateway notes of its Traefik.
type traefikState struct {
	Current *struct {
		PID     int            `json:"pid"`
		Ports   map[string]int `json:"ports"`
		Program string         `json:"program"`
	} `json:"current"`
	Old []json.RawMessage `json:"old"`
}

func (n *node) traefik() (s traefikState, err error) {
	b, err := os.ReadFile(filepath.Join(n.data, "gateway", "state.json"))
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err == nil && s.Current == nil {
		err = errors.New("no Traefik runs")
	}
	return s, err
}

// replaced waits until another Traefik than pid is published.
func (n *node) replaced(pid int) traefikState {
	n.t.Helper()
	var s traefikState
	n.eventually(time.Minute, "another Traefik serves", func() (err error) {
		if s, err = n.traefik(); err == nil && s.Current.PID == pid {
			err = fmt.Errorf("PID %d still does", pid)
		}
		return err
	})
	return s
}

// traefikCopy copies the Traefik that the machine has to a file of the test's own.
func traefikCopy(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("../../scripts/traefik").Output()
	if err != nil {
		t.Fatalf("find Traefik: %v", err)
	}
	path := filepath.Join(t.TempDir(), "traefik")
	install(t, strings.TrimSpace(string(out)), path)
	return path
}

// install puts a program in place in one step, as an upgrade does.
func install(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close(), os.Rename(to+".new", to)); err != nil {
		t.Fatal(err)
	}
}

// Traefik is replaced when an app publishes a port, when the port goes again, and
// when the program's file changes. None of it costs a request, of whatever kind.
func TestTraefikReplacedUnderLoad(t *testing.T) {
	program := traefikCopy(t)
	n := start(t, "--traefik", program)
	image := n.image()
	n.do("deploy", "-f", n.write("compose.yaml", web(image, "steady", "1", 2, "")))
	n.serves("http://steady.example.com/")
	first, err := n.traefik()
	if err != nil {
		t.Fatal(err)
	}
	l := n.startLoad(load.EveryKind("http://steady.example.com/"))

	port := need.Port(t)
	n.do("deploy", "-f", n.write("ports/compose.yaml", publishing(image, port)))
	if err := load.Get(http.DefaultClient, fmt.Sprintf("http://127.0.0.1:%d/", port)); err != nil {
		t.Errorf("right after the deploy: %v", err)
	}
	second := n.replaced(first.Current.PID)
	if entry := fmt.Sprintf("tcp-%d", port); second.Current.Ports[entry] == 0 {
		t.Errorf("no entry point %s: %v", entry, second.Current.Ports)
	}

	install(t, program, program)
	third := n.replaced(second.Current.PID)
	if third.Current.Program != program {
		t.Errorf("the program is %s, want %s", third.Current.Program, program)
	}

	// What is published no more replaces nothing: it would end others' connections sooner
	// or later. Its port is free at once.
	n.do("rm", "taken", "--yes")
	n.eventually(time.Minute, "the port is free", func() error {
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err == nil {
			err = l.Close()
		}
		return err
	})
	n.eventually(2*time.Minute, "the replaced ones have ended", func() error {
		s, err := n.traefik()
		if err == nil && len(s.Old) > 0 {
			err = fmt.Errorf("%d run on", len(s.Old))
		}
		return err
	})
	if last, err := n.traefik(); err != nil || last.Current.PID != third.Current.PID {
		t.Errorf("Traefik was replaced as a port went: %v", err)
	}
	l.WantNone(t, "while Traefik was replaced twice")
}
