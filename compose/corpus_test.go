package compose

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// corpusDir finds the folder of real Compose files, or skips.
func corpusDir(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("FAIRLEAD_CORPUS")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared", "corpus")
	}
	if !directory(dir) {
		t.Skip("no corpus of Compose files here")
	}
	return dir
}

// corpus says of every file of the corpus whether it is planned, on one node, or
// refused, and then with which keys and lines.
var corpus = map[string][]string{
	"awesome-compose/apache-php/compose.yaml":              nil,
	"awesome-compose/django/compose.yaml":                  nil,
	"awesome-compose/fastapi/compose.yaml":                 nil,
	"awesome-compose/flask/compose.yaml":                   nil,
	"awesome-compose/minecraft/compose.yaml":               nil,
	"awesome-compose/nextcloud-redis-mariadb/compose.yaml": nil,
	"awesome-compose/nginx-flask-mongo/compose.yaml":       nil,
	"awesome-compose/nginx-golang/compose.yaml":            nil,
	"awesome-compose/nginx-golang-mysql/compose.yaml":      nil,
	"awesome-compose/nginx-wsgi-flask/compose.yaml":        nil,
	"awesome-compose/postgresql-pgadmin/compose.yaml":      nil,
	"awesome-compose/react-express-mongodb/compose.yaml":   nil,
	"awesome-compose/react-java-mysql/compose.yaml":        nil,
	"awesome-compose/react-rust-postgres/compose.yaml":     nil,
	"awesome-compose/sparkjava/compose.yaml":               nil,
	"awesome-compose/wireguard/compose.yaml":               nil,
	// needs the variable PLEX_MEDIA_PATH; with it the file is planned, see below
	"awesome-compose/plex/compose.yaml": {"compose.yaml:10: services.plex.volumes[0]"},
	// a Traefik of its own
	"awesome-compose/traefik-golang/compose.yaml": {"compose.yaml:10: services.frontend.volumes"},
	// another runtime than Linux containers
	"awesome-compose/wasmedge-kafka-mysql/compose.yml": {
		"compose.yml:23: services.etl.platform", "compose.yml:32: services.etl.runtime",
	},
	"traefik-best-practice/docker-swarm-traefik/docker-compose.yml": {
		"docker-compose.yml:9: services.traefik.ports", "docker-compose.yml:13: services.traefik.ports",
		"docker-compose.yml:20: services.traefik.volumes",
		"docker-compose.yml:48: services.traefik.deploy.labels.traefik.http.routers.mydashboard.service",
	},
	"traefik-best-practice/docker-traefik-dashboard-letsencrypt/docker-compose.yml": {
		"docker-compose.yml:10: services.traefik.volumes",
		"docker-compose.yml:32: services.traefik.labels.traefik.http.routers.mydashboard.service",
	},
	"traefik-best-practice/docker-traefik-tcp/docker-compose.yml": {
		"docker-compose.yml:14: services.traefik.ports", "docker-compose.yml:18: services.traefik.ports",
		"docker-compose.yml:29: services.traefik.volumes",
		"docker-compose.yml:52: services.traefik.labels.traefik.http.routers.mydashboard.service",
		"docker-compose.yml:72: services.tcpecho-le.labels.traefik.tcp.routers.tcpecho-le.entrypoints",
		"docker-compose.yml:75: services.tcpecho-le.labels.traefik.tcp.services.tcpecho-le.loadbalancer.server.port",
		"docker-compose.yml:83: services.tcpecho-plain.labels.traefik.tcp.routers.tcpecho-plain.entrypoints",
		"docker-compose.yml:85: services.tcpecho-plain.labels.traefik.tcp.services.tcpecho-plain.loadbalancer.server.port",
	},
}

// atLeast is how many files of the corpus must be planned completely.
const atLeast = 16

func TestCorpus(t *testing.T) {
	dir := corpusDir(t)
	var files []string
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if ext := filepath.Ext(p); ext == ".yaml" || ext == ".yml" {
			files = append(files, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	planned := 0
	for _, f := range files {
		name, err := filepath.Rel(dir, f)
		if err != nil {
			t.Fatal(err)
		}
		want, listed := corpus[name]
		if !listed {
			t.Errorf("%s is not in the table", name)
			continue
		}
		r, err := Load(t.Context(), Options{Files: []string{f}, SingleNode: true})
		if d := cmp.Diff(want, places(err)); d != "" {
			t.Errorf("%s: refusals (-want +got)\n%s\n%v", name, d, err)
		}
		if err == nil {
			planned++
			complete(t, name, r)
		}
	}
	if len(files) < len(corpus) {
		t.Errorf("%d files of %d are there", len(files), len(corpus))
	}
	if planned < atLeast {
		t.Errorf("%d files are planned completely; at least %d must be", planned, atLeast)
	}
	t.Logf("corpus: %d files, %d planned, %d refused with key and line", len(files), planned, len(files)-planned)
}

// places are the places of the problems of an error: "file:line: key".
func places(err error) []string {
	var p *Problems
	if !errors.As(err, &p) {
		if err != nil {
			return []string{err.Error()}
		}
		return nil
	}
	var out []string
	for _, x := range p.List {
		out = append(out, fmt.Sprintf("%s:%d: %s", x.File, x.Line, x.Path))
	}
	return out
}

// complete checks what every planned file must have.
func complete(t *testing.T, name string, r *Result) {
	t.Helper()
	if len(r.Services) == 0 || len(r.Rendered) == 0 {
		t.Errorf("%s: nothing planned", name)
	}
	for s, spec := range r.Services {
		if spec.Task.Image == "" || spec.Source.Line == 0 || spec.Source.File == "" {
			t.Errorf("%s: %s has no image or source: %+v", name, s, spec)
		}
	}
	for _, w := range r.Warnings {
		if w.File == "" || w.Line == 0 {
			t.Errorf("%s: a warning without a place: %s", name, w)
		}
	}
}

func TestCorpusPlexWithItsVariable(t *testing.T) {
	f := filepath.Join(corpusDir(t), "awesome-compose/plex/compose.yaml")
	r, err := Load(t.Context(), Options{Files: []string{f}, SingleNode: true, Env: map[string]string{"PLEX_MEDIA_PATH": "/srv/media"}})
	if err != nil {
		t.Fatal(err)
	}
	if m := r.Services["plex"].Task.Mounts; len(m) != 1 || m[0].Source != "/srv/media" || m[0].Target != "/media" {
		t.Errorf("mounts: %+v", m)
	}
}

// Without the services that the refusals name, the labels of the others work.
func TestCorpusTraefikLabelsWithoutTraefik(t *testing.T) {
	dir := corpusDir(t)
	for name, want := range map[string][]string{
		"awesome-compose/traefik-golang/compose.yaml":                                   {"Path(`/`) → 80"},
		"traefik-best-practice/docker-swarm-traefik/docker-compose.yml":                 {"whoami.example.com → 80"},
		"traefik-best-practice/docker-traefik-dashboard-letsencrypt/docker-compose.yml": {"Host(`whoami.example.com`) || Host(`www.whoami.example.com`) → 80 mywwwredirect"},
	} {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		var routes []string
		r, err := Load(t.Context(), Options{Files: []string{write(t, without(string(content)))}, SingleNode: true})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, s := range r.Services {
			for _, x := range s.Routes {
				text := fmt.Sprintf("%s%s → %d", x.Host, x.Rule, x.Port)
				for _, m := range x.Middlewares {
					text += " " + m.Name
				}
				routes = append(routes, text)
			}
		}
		if d := cmp.Diff(want, routes); d != "" {
			t.Errorf("%s: routes (-want +got)\n%s", name, d)
		}
	}
}

// without removes the services traefik and frontend from a Compose file.
func without(s string) string {
	var out []string
	skip := false
	for line := range strings.Lines(s) {
		if in := len(line) - len(strings.TrimLeft(line, " ")); in <= 2 && strings.TrimSpace(line) != "" {
			skip = slices.Contains([]string{"traefik:", "frontend:"}, strings.TrimSpace(line))
		}
		if !skip {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}
