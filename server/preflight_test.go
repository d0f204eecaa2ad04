package server

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// An upgrade brings the new Traefik to where services find theirs, and leaves none
// there that nobody runs any more.
func TestKeepTraefik(t *testing.T) {
	for _, c := range []struct {
		what, found string // below the root
		lib, want   []string
		says        string
	}{
		{what: "the first install", found: "home/.cache/fairlead/traefik-3.6.12", want: []string{"traefik-3.6.12"}, says: "installed"},
		{
			what: "an upgrade", found: "home/.cache/fairlead/traefik-3.10.0", lib: []string{"fairlead.service", "traefik-3.9.1"},
			want: []string{"fairlead.service", "traefik-3.10.0"}, says: "removed",
		},
		{what: "again", found: "lib/traefik-3.10.0", lib: []string{"traefik-3.10.0"}, want: []string{"traefik-3.10.0"}},
		{
			what: "after an upgrade that was killed", found: "lib/traefik-3.10.0", lib: []string{"traefik-3.10.0", "traefik-3.9.1"},
			want: []string{"traefik-3.10.0"}, says: "removed",
		},
		{
			what: "an older one by name", found: "home/.cache/fairlead/traefik-3.9.1", lib: []string{"traefik-3.10.0"},
			want: []string{"traefik-3.10.0", "traefik-3.9.1"}, says: "installed",
		},
		{what: "on PATH", found: "usr/bin/traefik", lib: []string{"traefik-3.9.1"}, want: []string{"traefik-3.9.1"}},
		{what: "no gateway", lib: []string{"traefik-3.9.1"}, want: []string{"traefik-3.9.1"}},
	} {
		root := t.TempDir()
		lib, found := filepath.Join(root, "lib"), ""
		files := []string{}
		for _, n := range c.lib {
			files = append(files, filepath.Join(lib, n))
		}
		if c.found != "" {
			found = filepath.Join(root, c.found)
			files = append(files, found)
		}
		for _, f := range files {
			if err := os.MkdirAll(filepath.Dir(f), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(f, []byte(f), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var out strings.Builder
		if err := keepTraefik(lib, found, &out); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		var got []string
		entries, _ := os.ReadDir(lib)
		for _, e := range entries {
			got = append(got, e.Name())
		}
		if !slices.Equal(got, c.want) || !strings.Contains(out.String(), c.says) || c.says == "" && out.Len() > 0 {
			t.Errorf("%s: %v, want %v; said %q", c.what, got, c.want, &out)
		}
		if _, err := os.Stat(found); c.found != "" && err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}
