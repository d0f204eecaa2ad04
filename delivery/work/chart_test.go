package work_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery/work"
)

// The password of a repository of packages is in memory alone.
func TestPasswordOfARepository(t *testing.T) {
	f := newForge(t)
	packed := archive(t, map[string]string{"shop/Chart.yaml": "apiVersion: v2\nname: shop\nversion: 1.0.0\n", "shop/templates/app.yaml": compose("c:1")})
	asked := 0
	charts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); u != "ann" || p != "geheim" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.URL.Path == "/index.yaml" {
			_, _ = w.Write([]byte("apiVersion: v1\nentries:\n  shop:\n  - {apiVersion: v2, name: shop, version: 1.0.0, urls: [shop-1.0.0.tgz]}\n"))
			return
		}
		asked++
		_ = filepath.WalkDir(f.w.Dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			if b, err := os.ReadFile(path); err != nil || bytes.Contains(b, []byte("geheim")) {
				t.Errorf("it is in %s (%v)", path, err)
			}
			return nil
		})
		_, _ = w.Write([]byte(packed))
	}))
	t.Cleanup(charts.Close)
	d := cluster.Delivery{Name: "shop", App: "shop", Source: cluster.SourceSpec{Kind: cluster.SourceChart, URL: charts.URL, Chart: "shop", User: "ann", Secret: "pw"}}
	task := work.Task{Delivery: d, Password: []byte("geheim\n"), Release: 1}
	sum := sha256.Sum256([]byte(packed))
	if r := f.must(task); r.Origin.Revision != "1.0.0@sha256:"+hex.EncodeToString(sum[:]) || r.Origin.Ref != "shop" || r.Bundle.Services["web"].Task.Image != "c:1" || asked != 1 {
		t.Errorf("%+v, asked %d times", r.Origin, asked)
	}
	task.Password = []byte("wrong")
	f.refused(task, cluster.KindForbidden, "401")
	task.Password, task.Delivery.Source.Chart = []byte("geheim"), "gone"
	f.refused(task, cluster.KindNotFound, "no package gone")

	// What was made before that was refused sends it over no network.
	for says, src := range map[string]cluster.SourceSpec{
		"use https":    {Kind: cluster.SourceChart, URL: "http://192.0.2.1/charts", Chart: "shop"},
		"--plain-http": {Kind: cluster.SourceOCI, URL: "oci://192.0.2.1/config", PlainHTTP: true},
	} {
		task.Delivery.Source = src
		f.refused(task, cluster.KindInvalid, "a password is not sent", says)
	}
}

// TestARepositoryIsNotFetchedAgain: what is known is not fetched, and a version that is published
// again is another revision.
func TestARepositoryIsNotFetchedAgain(t *testing.T) {
	f := newForge(t)
	packed, asked := "", 0
	publish := func(image string) {
		packed = archive(t, map[string]string{"shop/Chart.yaml": "apiVersion: v2\nname: shop\nversion: 1.0.0\n", "shop/templates/app.yaml": compose(image)})
	}
	charts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.Sum256([]byte(packed))
		if r.URL.Path == "/index.yaml" {
			_, _ = fmt.Fprintf(w, "apiVersion: v1\nentries:\n  shop:\n  - {apiVersion: v2, name: shop, version: 1.0.0, urls: [shop-1.0.0.tgz], digest: %x}\n", sum)
			return
		}
		asked++
		_, _ = w.Write([]byte(packed))
	}))
	t.Cleanup(charts.Close)
	publish("c:1")
	task := work.Task{Release: 1, Delivery: cluster.Delivery{Name: "shop", App: "shop", Source: cluster.SourceSpec{Kind: cluster.SourceChart, URL: charts.URL, Chart: "shop"}}}
	first := f.must(task)
	task.Known, task.Package = first.Origin.Revision, first.Package
	if r := f.must(task); r.Bundle != nil || r.Origin.Revision != first.Origin.Revision || asked != 1 {
		t.Errorf("%+v, asked %d times", r, asked)
	}
	publish("c:2")
	if r := f.must(task); r.Bundle == nil || r.Origin.Revision == first.Origin.Revision || r.Bundle.Services["web"].Task.Image != "c:2" || asked != 2 {
		t.Errorf("%+v, asked %d times", r, asked)
	}
	task.Known = "" // other images are chosen: it is rendered again
	if r := f.must(task); r.Bundle == nil {
		t.Errorf("%+v", r)
	}
}
