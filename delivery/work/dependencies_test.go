package work_test

import (
	"crypto/sha256"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery/work"
)

// depot has packages that others depend on: a repository and a registry, of one host.
type depot struct {
	url, host string
	down      atomic.Int32 // status of all answers
	asked     atomic.Int32 // for the index
}

func newDepot(t *testing.T) *depot {
	t.Helper()
	d := &depot{}
	packed := map[string]string{} // once: the order of the files in an archive is any
	for _, v := range []string{"18.4.3", "18.4.2"} {
		packed[v] = archive(t, map[string]string{"redis/Chart.yaml": "apiVersion: v2\nname: redis\nversion: " + v + "\n", "redis/templates/app.yaml": "services:\n  cache:\n    image: redis:" + v + "\n"})
	}
	images := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		version, is := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, "/charts/redis-"), ".tgz")
		switch status := d.down.Load(); {
		case status != 0:
			w.WriteHeader(int(status))
		case strings.HasPrefix(r.URL.Path, "/v2/"):
			images.ServeHTTP(w, r)
		case is:
			_, _ = io.WriteString(w, packed[version])
		default:
			d.asked.Add(1)
			index := "apiVersion: v1\nentries:\n  redis:\n"
			for _, v := range []string{"18.4.3", "18.4.2"} {
				index += fmt.Sprintf("  - {apiVersion: v2, name: redis, version: %s, urls: [redis-%s.tgz], digest: %x}\n", v, v, sha256.Sum256([]byte(packed[v])))
			}
			_, _ = io.WriteString(w, index)
		}
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	d.url, d.host = srv.URL+"/charts", strings.TrimPrefix(srv.URL, "https://")
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", ca)

	file := filepath.Join(t.TempDir(), "queue-1.0.0.tgz")
	queue := archive(t, map[string]string{"queue/Chart.yaml": "apiVersion: v2\nname: queue\nversion: 1.0.0\n", "queue/templates/app.yaml": "services:\n  queue:\n    image: queue:1\n"})
	if err := os.WriteFile(file, []byte(queue), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (chart.Repositories{Dir: t.TempDir()}).Push(t.Context(), file, "oci://"+d.host+"/parts", chart.Transfer{CAFile: ca}); err != nil {
		t.Fatal(err)
	}
	return d
}

// A package in Git is deployed with what it depends on, as it is when it comes of a repository.
func TestDependenciesOfAPackageInGit(t *testing.T) {
	f, depot := newForge(t), newDepot(t)
	at := "repository: '" + depot.url + "'}\n"
	depends := func(version string) {
		f.write("apps/shop/Chart.yaml", "apiVersion: v2\nname: shop\nversion: 1.0.0\ndependencies:\n"+
			"- {name: redis, version: "+version+", alias: cache, "+at+
			"- {name: common, version: 1.x.x, repository: 'file://../../lib/common'}\n")
	}
	depends("18.4.2")
	f.write("apps/shop/templates/app.yaml", "services:\n  web:\n    image: {{ include \"image\" . }}\n")
	f.write("lib/common/Chart.yaml", "apiVersion: v2\nname: common\nversion: 1.2.0\ntype: library\ndependencies:\n- {name: queue, version: 1.0.0, repository: 'oci://"+depot.host+"/parts'}\n")
	f.write("lib/common/templates/_image.tpl", "{{- define \"image\" -}}web:1{{- end -}}\n")
	first := f.push("it depends on others")
	d := f.local()
	d.Path, d.Package = "apps", "shop"
	task := work.Task{Delivery: d, Release: 1}
	ran := func(r work.Result, redis string) {
		t.Helper()
		got := ""
		for _, name := range []cluster.ServiceName{"web", "cache", "queue"} {
			got += r.Bundle.Services[name].Task.Image + " "
		}
		if got != "web:1 redis:"+redis+" queue:1 " || len(r.Bundle.Services) != 3 {
			t.Errorf("%s of %d services", got, len(r.Bundle.Services))
		}
	}
	r := f.must(task)
	ran(r, "18.4.2")
	if again := f.must(task); again.Bundle.Package.Input != r.Bundle.Package.Input {
		t.Error("rendered from other things the second time")
	}
	asked := depot.asked.Load()
	task.Known = first
	if r := f.must(task); r.Bundle != nil || depot.asked.Load() != asked {
		t.Errorf("what is known was fetched again: %+v", r)
	}
	task.Known = ""

	depends("^18")
	f.push("a range")
	f.refused(task, cluster.KindInvalid, "dependency redis of apps/shop", `"^18" is a range`, "Chart.lock")
	f.write("apps/shop/Chart.lock", "dependencies:\n- {name: redis, version: 18.4.2, "+at+"- {name: common, version: 1.2.0, repository: 'file://../../lib/common'}\ndigest: sha256:x\n")
	f.push("with a lock")
	ran(f.must(task), "18.4.2")

	for status, kind := range map[int]cluster.Kind{http.StatusServiceUnavailable: cluster.KindTransient, http.StatusUnauthorized: cluster.KindForbidden} {
		depot.down.Store(int32(status))
		says := []string{"apps/shop: dependency "}
		if kind == cluster.KindForbidden {
			says = append(says, "keep the package in charts/")
		}
		f.refused(task, kind, says...)
	}
	depot.down.Store(0)
	depends("18.4.9")
	if err := os.Remove(filepath.Join(f.tree, "apps/shop/Chart.lock")); err != nil {
		t.Fatal(err)
	}
	f.push("a version that nobody made")
	f.refused(task, cluster.KindNotFound, "apps/shop: dependency redis", "18.4.9")
	f.git(f.tree, "update-index", "--add", "--cacheinfo", "160000,"+first+",lib/other")
	f.write("apps/shop/Chart.yaml", "apiVersion: v2\nname: shop\nversion: 1.0.0\ndependencies:\n- {name: common, version: 1.x.x, repository: 'file://../../lib/other/common'}\n")
	f.git(f.tree, "commit", "-q", "-m", "of a submodule", "apps/shop/Chart.yaml")
	f.git(f.tree, "commit", "-q", "-m", "a submodule")
	f.git(f.tree, "push", "-q", "origin", "HEAD")
	f.refused(task, cluster.KindInvalid, "lib/other: it is a submodule of Git")
}

// An archive in Git is a package, too, and holds what it depends on.
func TestAnArchiveInGit(t *testing.T) {
	f := newForge(t)
	f.write("apps/shop-1.0.0.tgz", archive(t, map[string]string{"shop/Chart.yaml": "apiVersion: v2\nname: shop\nversion: 1.0.0\n", "shop/templates/app.yaml": compose("web:1")}))
	f.push("packed")
	d := f.local()
	d.Path, d.Package = "apps", "shop-1.0.0.tgz"
	if r := f.must(work.Task{Delivery: d, Release: 1}); r.Bundle.Services["web"].Task.Image != "web:1" {
		t.Errorf("%+v", r.Bundle.Services)
	}
}

// A person who installs from Git asks for it, as of a directory; then a range may be the newest.
func TestDependenciesOfAnInstallationFromGit(t *testing.T) {
	f, depot := newForge(t), newDepot(t)
	f.write("apps/shop/Chart.yaml", "apiVersion: v2\nname: shop\nversion: 1.0.0\ndependencies:\n"+
		"- {name: redis, version: ^18, repository: '"+depot.url+"'}\n- {name: common, version: 1.x.x, repository: 'file://../../lib/common'}\n")
	f.write("lib/common/Chart.yaml", "apiVersion: v2\nname: common\nversion: 1.2.0\ntype: library\n")
	f.push("it depends on others")
	g := work.GitPackage{URL: "file://" + f.dir, Dir: "apps/shop"}
	with := func(repos *chart.Repositories) string {
		t.Helper()
		files, _, err := g.Fetch(t.Context(), "", chart.Transfer{}, repos)
		if err != nil {
			t.Fatal(err)
		}
		list, err := chart.Dependencies(files)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, d := range list {
			got += d.Name + " " + d.Status + ", "
		}
		for _, file := range files {
			if strings.HasPrefix(file.Name, "charts/redis-") && strings.HasSuffix(file.Name, "/Chart.yaml") {
				got += file.Name
			}
		}
		return got
	}
	if got := with(nil); got != "redis missing, common missing, " {
		t.Error(got)
	}
	// The trust of a process is read once: another one's server is added by its certificate.
	repos := chart.Repositories{Dir: t.TempDir()}
	if err := repos.Add(t.Context(), chart.Repository{Name: "depot", URL: depot.url, CAFile: os.Getenv("SSL_CERT_FILE")}, false); err != nil {
		t.Fatal(err)
	}
	if got := with(&repos); got != "redis ok, common ok, charts/redis-18.4.3/Chart.yaml" {
		t.Error(got)
	}
	if err := os.Symlink("../../..", filepath.Join(f.tree, "apps/shop/out")); err != nil {
		t.Fatal(err)
	}
	f.push("a link out")
	if _, _, err := g.Fetch(t.Context(), "", chart.Transfer{}, &repos); err == nil || !strings.Contains(err.Error(), `a link "apps/shop/out" that leads out`) {
		t.Error(err)
	}
	g.Dir = "lib/common" // it is none of this one's
	if _, _, err := g.Fetch(t.Context(), "", chart.Transfer{}, &repos); err != nil {
		t.Error(err)
	}
}
