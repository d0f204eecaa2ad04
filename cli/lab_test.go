package cli_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead/fairlead/lab"
)

// labs puts files of labs below a directory.
func labs(t *testing.T, content map[string]string) (root string) {
	t.Helper()
	root = t.TempDir()
	for name, text := range content {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const zooState = `{"spec": {"name": "zoo", "nodes": 2, "servers": 2, "gateways": 0, "engine": "distro", "domain": "localhost", "log_level": "info"}}`

// A lab that is half-made, or whose state is damaged, hides no other; what is no lab's is none.
func TestEveryLabIsShown(t *testing.T) {
	h := newHub(t)
	root := labs(t, map[string]string{
		"bad/.fairlead-lab": "", "bad/lab.json": "{", "half/.fairlead-lab": "", "half/bin/fairlead": "x",
		"ann/photo.jpg": "", "zoo/.fairlead-lab": "", "zoo/lab.json": zooState,
	})
	s := h.must("", "lab", "status", "--dir", root)
	var rows []string
	for line := range strings.Lines(s.out) {
		rows = append(rows, strings.Join(strings.Fields(line)[:2], " "))
	}
	if want := []string{"LAB NODE", "bad damaged", "half half-made", "zoo n1", "zoo n2"}; !slices.Equal(rows, want) {
		t.Errorf("rows %q, want %q\n%s", rows, want, s.all)
	}
	for _, want := range []string{"`fairlead lab --name half --dir " + root + " up`", "`fairlead lab --name half --dir " + root + " down`", "`fairlead lab --name bad --dir " + root + " down`"} {
		if !strings.Contains(s.err, want) {
			t.Errorf("it does not say %s:\n%s", want, s.err)
		}
	}
	var list []lab.Status
	if err := json.Unmarshal([]byte(h.must("", "lab", "status", "--dir", root, "-o", "json").out), &list); err != nil || len(list) != 3 {
		t.Fatalf("%v: %+v", err, list)
	}
	if list[0].HalfMade || !strings.Contains(list[0].Trouble, "state") || !list[1].HalfMade || list[1].Nodes == nil || list[2].HalfMade {
		t.Errorf("%+v", list)
	}
	var half lab.Status
	if err := json.Unmarshal([]byte(h.must("", "lab", "status", "--dir", root, "--name", "half", "-o", "json").out), &half); err != nil || !half.HalfMade {
		t.Errorf("%v: %+v", err, half)
	}
	// What needs a whole one says what to do; so does the wait for it.
	for _, args := range [][]string{{"kill", "n1"}, {"snapshot", "a"}, {"load", "a:1"}, {"status", "--wait", "1s"}} {
		s := h.cli("", append([]string{"lab", args[0], "--dir", root, "--name", "half"}, args[1:]...)...)
		if s.code == 0 || !strings.Contains(s.err, "half-made") {
			t.Errorf("%v: exit code %d: %s", args, s.code, s.all)
		}
	}
}

// One that cannot become ready ends the wait for it alone: all are shown, and what failed is said.
func TestTheWaitForAllLabs(t *testing.T) {
	h := newHub(t)
	root := labs(t, map[string]string{
		"bad/.fairlead-lab": "", "bad/lab.json": "{", "half/.fairlead-lab": "", "zoo/.fairlead-lab": "", "zoo/lab.json": zooState,
	})
	s := h.cli("", "lab", "status", "--dir", root, "--wait", "1s")
	for _, want := range []string{"bad damaged", "half half-made", "zoo n1", "zoo n2"} {
		if !strings.Contains(strings.Join(strings.Fields(s.out), " "), want) {
			t.Errorf("it does not show %s:\n%s", want, s.all)
		}
	}
	for _, want := range []string{"lab bad: read the lab's state", "lab half: the lab is half-made", "lab zoo: the lab ended"} {
		if strings.Count(s.err, want) != 1 {
			t.Errorf("it does not say once %s:\n%s", want, s.err)
		}
	}
	var list []lab.Status
	j := h.cli("", "lab", "status", "--dir", root, "--wait", "1s", "-o", "json")
	if err := json.Unmarshal([]byte(j.out), &list); err != nil || len(list) != 3 || s.code == 0 || j.code == 0 {
		t.Errorf("%v: exit codes %d, %d: %+v", err, s.code, j.code, list)
	}
	if s := h.must("", "lab", "status", "--dir", t.TempDir(), "--wait", "1s"); !strings.Contains(s.all, "no labs") {
		t.Errorf("of none it says\n%s", s.all)
	}
}

// What an interruption left under a name that no lab has goes with all.
func TestAllThatLabsLeftIsTakenDown(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	h := newHub(t)
	root := labs(t, map[string]string{".new.fairlead-lab/.fairlead-lab": "", "ann/photo.jpg": "a photo"})
	h.must("", "lab", "down", "--dir", root, "--all")
	if left, err := os.ReadDir(root); err != nil || len(left) != 1 || left[0].Name() != "ann" {
		t.Errorf("left are %v, %v", left, err)
	}
}

// Each server's socket is said: with the first one away, the others' are needed.
func TestSocketsOfAllServers(t *testing.T) {
	h := newHub(t)
	root := labs(t, map[string]string{"zoo/.fairlead-lab": "", "zoo/lab.json": zooState})
	d := lab.DirOf(root, "zoo")
	if s := h.must("", "lab", "status", "--dir", root, "-o", "wide"); !strings.Contains(s.out, d.APISocket("n1")) || !strings.Contains(s.out, d.APISocket("n2")) {
		t.Errorf("status says\n%s", s.out)
	}
	var list []lab.Status
	if err := json.Unmarshal([]byte(h.must("", "lab", "status", "--dir", root, "-o", "json").out), &list); err != nil || len(list) != 1 {
		t.Fatalf("%v: %+v", err, list)
	}
	if l := list[0]; l.Socket != d.APISocket("n1") || l.Nodes[0].Socket != l.Socket || l.Nodes[1].Socket != d.APISocket("n2") {
		t.Errorf("%+v", l)
	}
}
