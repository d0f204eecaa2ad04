package gateway

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// traefiks makes programs that say what their name does, in a directory.
func traefiks(t *testing.T, dir string, names ...string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		script := fmt.Sprintf("#!/bin/sh\necho 'Version:      %s'\n", n[len("traefik-"):])
		if err := os.WriteFile(filepath.Join(dir, n), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

func TestKeptTraefiks(t *testing.T) {
	for _, c := range []struct {
		what          string
		lib, cache    []string
		want          []string
		older, olders string // than the one of lib that older names
	}{
		{what: "none"},
		{
			what: "a new release's", lib: []string{"traefik-3.6.12"}, cache: []string{"traefik-3.7.1"},
			want: []string{"cache/traefik-3.7.1", "lib/traefik-3.6.12"},
		},
		{
			what: "by numbers", lib: []string{"traefik-3.9.0", "traefik-3.10.2", "traefik-3.10.10"},
			want:  []string{"lib/traefik-3.10.10", "lib/traefik-3.10.2", "lib/traefik-3.9.0"},
			older: "traefik-3.10.2", olders: "[lib/traefik-3.9.0]",
		},
		{
			what: "the installed one of two that are the same", lib: []string{"traefik-3.6.12"}, cache: []string{"traefik-3.6.12", "traefik-3.5.0"},
			want:  []string{"lib/traefik-3.6.12", "cache/traefik-3.6.12", "cache/traefik-3.5.0"},
			older: "traefik-3.6.12", olders: "[]",
		},
		{
			what: "another major version", lib: []string{"traefik-3.6.12", "traefik-2.11.0"}, cache: []string{"traefik-4.0.0", "traefik-30.1.0"},
			want:  []string{"lib/traefik-3.6.12"},
			older: "traefik-3.6.12", olders: "[]",
		},
		{
			what: "half written, or something else", lib: []string{"traefik-3.6.12", "traefik-3.x", "fairlead.service"},
			cache: []string{"traefik-3.7.0.new", "traefik-3.8.0-rc.1.new", "traefik-3.7.0-rc.1"},
			want:  []string{"cache/traefik-3.7.0-rc.1", "lib/traefik-3.6.12"},
			older: "traefik-3.7.0", olders: "[]",
		},
	} {
		root := t.TempDir()
		lib, cache := filepath.Join(root, "lib"), filepath.Join(root, "cache")
		for dir, names := range map[string][]string{lib: c.lib, cache: c.cache} {
			for _, n := range names {
				if err := os.MkdirAll(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, n), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		below := func(path string) string { p, _ := filepath.Rel(root, path); return p }
		var got []string
		for _, k := range kept(lib, cache) {
			got = append(got, below(k.path))
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: %s", c.what, d)
		}
		olders := []string{}
		for _, p := range Older(lib, filepath.Join(lib, c.older)) {
			olders = append(olders, below(p))
		}
		if c.older != "" && fmt.Sprint(olders) != c.olders {
			t.Errorf("%s: older than %s are %v, want %s", c.what, c.older, olders, c.olders)
		}
	}
}

// What does not run, or is another version than its name says, is passed over.
func TestFindTakesTheHighestThatRuns(t *testing.T) {
	root := t.TempDir()
	for _, e := range []string{"PATH", "HOME", "XDG_CACHE_HOME"} {
		t.Setenv(e, filepath.Join(root, e))
	}
	one, two := filepath.Join(root, "one"), filepath.Join(root, "two")
	// Above all that this machine may have installed.
	traefiks(t, one, "traefik-3.1009.0", "traefik-4.0.0")
	traefiks(t, two, "traefik-3.1010.0", "traefik-3.9999.0.new")
	if err := os.WriteFile(filepath.Join(two, "traefik-3.1011.0"), []byte("#!/bin/sh\necho 'Version: 4.1.0'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(two, "traefik-3.1012.0"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, caches := range [][]string{{one, two}, {two, one}} {
		path, version, err := Find(t.Context(), "", caches...)
		if err != nil || path != filepath.Join(two, "traefik-3.1010.0") || version != "3.1010.0" {
			t.Errorf("in %v: %s, %s, %v", caches, path, version, err)
		}
	}
}
