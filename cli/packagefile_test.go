package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestManifestIsAFile: what get manifest prints, read again, is the app.
func TestManifestIsAFile(t *testing.T) {
	h := newHub(t)
	h.must("", "chart", "create", "demo")
	h.must("", "install", "shop", "demo", "--detach", "--set-string", "config=home is $HOME", "--set", "environment.A=$HOME")
	text := h.must("", "get", "manifest", "shop").out
	if !strings.Contains(text, "home is $$HOME") {
		t.Errorf("it is\n%s", text)
	}
	h.write("compose.yaml", text)
	if s := h.must("", "plan", "-p", "shop"); !strings.Contains(s.out, "- package demo-0.1.0") || strings.Contains(s.out, "  ~ ") || strings.Contains(s.out, "  + ") {
		t.Errorf("it would change\n%s", s.all)
	}
	if s := h.must("", "get", "manifest", "shop", "-o", "json"); !strings.Contains(s.out, "home is $$HOME") {
		t.Errorf("as JSON it is\n%s", s.out)
	}
}

// TestWhatAPackageMadeIsAFile: of each package that comes with Fairlead, what chart template and
// get manifest print, read as a file, is the app. Its hooks are left out, and which is said.
func TestWhatAPackageMadeIsAFile(t *testing.T) {
	dir, err := filepath.Abs("../packages")
	if err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	hooks := map[string]string{"redis": "test", "postgres": "test"}
	h := newHub(t)
	seen := 0
	for _, e := range list {
		if !e.IsDir() {
			continue
		}
		name := e.Name()
		seen++
		h.must("", "install", name, filepath.Join(dir, name), "--detach")
		for command, args := range map[string][]string{"chart template": {"chart", "template", name, filepath.Join(dir, name)}, "get manifest": {"get", "manifest", name}} {
			h.write("compose.yaml", h.must("", args...).out)
			s := h.must("", "plan", "-p", name)
			if !strings.Contains(s.out, "- package "+name) || strings.Contains(s.out, "  ~ ") || strings.Contains(s.out, "  + ") || strings.Contains(s.out, "- service") {
				t.Errorf("%s of %s would change\n%s", command, name, s.all)
			}
			says := "compose.yaml:"
			if hooks[name] != "" {
				says = "services." + hooks[name] + ".x-fairlead.hook: the service is left out"
			}
			if strings.Contains(s.err, "warning: ") != (hooks[name] != "") || hooks[name] != "" && !strings.Contains(s.err, says) {
				t.Errorf("%s of %s says\n%s", command, name, s.err)
			}
			h.must("", "deploy", "-f", "compose.yaml", "-p", name, "--detach")
			h.must("", "upgrade", name, filepath.Join(dir, name), "--detach")
		}
		without := h.must("", "chart", "template", name, filepath.Join(dir, name), "--no-hooks")
		h.write("compose.yaml", without.out)
		if s := h.must("", "plan", "-p", name); s.err != "" || strings.Contains(without.out, "hook:") {
			t.Errorf("%s without hooks says\n%s", name, s.all)
		}
	}
	if seen != 4 {
		t.Errorf("%d packages", seen)
	}
}
