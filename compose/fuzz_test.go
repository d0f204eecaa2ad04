package compose

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead/fairlead/cluster"
)

// FuzzLoad: no input makes Load panic, return a refusal without a place, or
// give a service that cannot be one.
func FuzzLoad(f *testing.F) {
	f.Add(readme)
	for _, c := range bad {
		f.Add(c.file)
	}
	f.Add("services:\n  a:\n    image: x\n    ulimits: {nofile: {soft: a, hard: [1]}}\n")
	f.Add("services:\n  a: &a\n    image: x\n    ports: [1-65535:1-65535]\n  b: {<<: *a}\n")
	f.Add("services: {a: {image: x, volumes: [{type: bind, source: ., target: /x}], labels: ['traefik.http.routers.a.rule=Host(`a`)']}}\n")
	f.Fuzz(func(t *testing.T, content string) {
		file := filepath.Join(t.TempDir(), "compose.yaml")
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Skip()
		}
		r, err := Load(t.Context(), Options{Files: []string{file}, App: "fuzz", SingleNode: len(content)%2 == 0})
		var p *Problems
		switch {
		case err == nil:
			for n, s := range r.Services {
				if s.Task.Image == "" || cluster.ValidServiceName(n) != nil || s.Source.Line == 0 {
					t.Errorf("service %q: %+v", n, s)
				}
				for _, x := range s.Routes {
					if x.Port < 1 || x.Port > 65535 || x.Source.Line == 0 || strings.ContainsAny(x.Host+x.Path, "`\n") {
						t.Errorf("route %+v", x)
					}
				}
			}
		case errors.As(err, &p):
			for _, x := range p.List {
				if x.File == "" || x.Message == "" || strings.ContainsAny(x.String(), "\x00\x1b\n") {
					t.Errorf("problem %q", x)
				}
			}
		default:
			t.Errorf("an error that is no refusal: %v", err)
		}
	})
}
