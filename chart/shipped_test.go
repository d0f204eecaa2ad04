package chart_test

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/compose"
)

// names are what a project makes: services, hooks, secrets with where they are in a
// container, volumes.
func names(t *testing.T, r chart.Request) []string {
	t.Helper()
	got, err := chart.Render(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	p, err := got.Compose(t.Context(), "demo", compose.Options{Domain: "example.test"})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	of := func(kind string, name cluster.ServiceName, s cluster.ServiceSpec) {
		line := fmt.Sprint(kind, " ", name)
		for _, f := range s.Task.Secrets {
			line += fmt.Sprint(" ", f.Name, ":", f.Target)
		}
		for _, m := range s.Task.Mounts {
			if m.Type == cluster.MountVolume {
				line += fmt.Sprint(" ", m.Source, ":", m.Target)
			}
		}
		for _, n := range s.Task.Networks {
			line += " " + string(n.Name)
		}
		out = append(out, line)
	}
	for _, n := range slices.Sorted(maps.Keys(p.Services)) {
		of("service", n, p.Services[n])
	}
	for _, h := range p.Hooks {
		of("hook", h.Service, h.Spec)
	}
	return out
}

func shipped(t *testing.T, name string) []chart.File {
	t.Helper()
	files, err := chart.Read(filepath.Join("..", "packages", name))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestShippedNames: what the packages make is called so in the apps that there are; another
// name is another, empty volume.
func TestShippedNames(t *testing.T) {
	for name, c := range map[string]struct {
		set  []string
		want []string
	}{
		"whoami": {nil, []string{"service web demo_default"}},
		"redis": {[]string{"network=cache"}, []string{
			"service redis password:/run/secrets/password demo_data:/data demo_default cache",
			"hook test password:/run/secrets/password demo_default",
		}},
		"postgres": {[]string{"network=pg"}, []string{
			"service db password:/run/secrets/password demo_data:/var/lib/postgresql/data demo_default pg",
			"hook test password:/run/secrets/password demo_default",
		}},
		"registry": {[]string{"auth=true"}, []string{"service registry http-secret:/run/secrets/http-secret htpasswd:/run/secrets/htpasswd demo_data:/var/lib/registry demo_default"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := names(t, chart.Request{Files: shipped(t, name), Values: chart.Values{Set: c.set}, Release: chart.Release{Name: "demo", Revision: 1}})
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestShippedWithinOthers: each of them may be in a package several times, beside others.
func TestShippedWithinOthers(t *testing.T) {
	yaml := "apiVersion: v2\nname: umb\nversion: 1.0.0\ndependencies:\n"
	var files []chart.File
	for _, d := range []string{"redis", "postgres users", "postgres orders", "registry images", "registry charts", "whoami a", "whoami b", "redis sessions"} {
		name, alias, is := strings.Cut(d, " ")
		values := name
		if is {
			values = alias
		}
		yaml += fmt.Sprintf("  - {name: %s, version: \">0\", alias: %q, condition: %s.enabled}\n", name, alias, values)
		for _, f := range shipped(t, name) {
			f.Name = "charts/" + name + "/" + f.Name
			if !slices.ContainsFunc(files, func(have chart.File) bool { return have.Name == f.Name }) {
				files = append(files, f)
			}
		}
	}
	files = append(files, chart.File{Name: "Chart.yaml", Data: []byte(yaml)})
	r := chart.Request{Files: files, Release: chart.Release{Name: "demo", Revision: 1}, Values: chart.Values{Set: []string{
		"users.database=users,users.enabled=true,users.network=pg,orders.database=orders,orders.network=pg", "images.auth=true,charts.auth=true", "sessions.enabled=false",
	}}}
	want := []string{
		"service a demo_default",
		"service b demo_default",
		"service charts charts-http-secret:/run/secrets/charts-http-secret charts-htpasswd:/run/secrets/htpasswd demo_charts-data:/var/lib/registry demo_default",
		"service images images-http-secret:/run/secrets/images-http-secret images-htpasswd:/run/secrets/htpasswd demo_images-data:/var/lib/registry demo_default",
		"service orders orders-password:/run/secrets/password demo_orders-data:/var/lib/postgresql/data demo_default pg",
		"service redis redis-password:/run/secrets/password demo_redis-data:/data demo_default",
		"service users users-password:/run/secrets/password demo_users-data:/var/lib/postgresql/data demo_default pg",
		"hook orders-test orders-password:/run/secrets/password demo_default",
		"hook redis-test redis-password:/run/secrets/password demo_default",
		"hook users-test users-password:/run/secrets/password demo_default",
	}
	if d := cmp.Diff(want, names(t, r)); d != "" {
		t.Error(d)
	}
	got, err := chart.Render(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	for file, line := range map[string]string{"users": "psql -h users -U postgres -d users ", "orders": "psql -h orders -U postgres -d orders ", "redis": "redis-cli -h redis "} {
		if text := got.Files["umb/charts/"+file+"/templates/app.yaml"]; !strings.Contains(text, line) {
			t.Errorf("%s asks not with %q:\n%s", file, line, text)
		}
	}
}
