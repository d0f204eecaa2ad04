package cli_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/chart"
)

// TestPackageOfARepositoryThatWasNotAdded: --repo, and pre-releases with --devel.
func TestPackageOfARepositoryThatWasNotAdded(t *testing.T) {
	h := newHub(t)
	h.must("", "chart", "create", "demo")
	for _, version := range []string{"1.0.0", "1.1.0", "2.0.0-rc1"} {
		h.must("", "chart", "package", "demo", "--version", version, "-d", "dist")
	}
	h.must("", "chart", "create", "other")
	h.must("", "chart", "package", "other", "-d", "dist")
	repo := "file://" + filepath.Join(h.dir, "dist")
	h.must("", "install", "shop", "demo", "--repo", repo, "--wait=false") // though a directory is called so too
	if s := h.must("", "get", "all", "shop"); !strings.Contains(s.out, "PACKAGE: demo 1.1.0\nRELEASE: 1\n") || !strings.Contains(s.out, "\nMANIFEST:\n") || !strings.Contains(s.out, "\nNOTES:\n") || strings.Contains(s.out, "VALUES:") {
		t.Errorf("get all says\n%s", s.out)
	}
	h.must("", "upgrade", "shop", "demo", "--repo", repo, "--devel", "--wait=false", "--set", "replicas=2")
	if s := h.must("", "get", "all", "shop"); !strings.Contains(s.out, "PACKAGE: demo 2.0.0-rc1\n") || !strings.Contains(s.out, "\nVALUES:\nreplicas: 2\n") {
		t.Errorf("get all says\n%s", s.out)
	}
	var p v1.PackageDetail
	if err := json.Unmarshal([]byte(h.must("", "get", "all", "shop", "-o", "json").out), &p); err != nil || p.From != "file:///home/ann/shop/dist/demo" { // as the hub calls its directory
		t.Errorf("it is from %s, %v", p.From, err)
	}
	h.must("", "upgrade", "shop", "demo", "--repo", repo, "--devel", "--version", "1.0.0", "--wait=false")
	if s := h.must("", "get", "all", "shop", "-o", "json"); !strings.Contains(s.out, `"1.0.0"`) {
		t.Errorf("--version beside --devel: %s", s.out)
	}
	if s := h.must("", "chart", "template", "x", "other", "--repo", repo); !strings.Contains(s.out, "# Source: other/templates") {
		t.Errorf("%s", s.out)
	}
	for says, args := range map[string][]string{
		"has no package none":          {"none", "--repo", repo},
		"is no name of a package":      {"./demo", "--repo", repo},
		"oci://REGISTRY/PATH/NAME":     {"demo", "--repo", "oci://registry.example.com/charts"},
		"repository file:///not/there": {"demo", "--repo", "file:///not/there"},
	} {
		if s := h.cli("", append([]string{"chart", "template"}, args...)...); s.code == 0 || !strings.Contains(s.err, says) {
			t.Errorf("%v: %d %s", args, s.code, s.all)
		}
	}
}

// TestMissingDependenciesAreFetched before a package is rendered, when asked to.
func TestMissingDependenciesAreFetched(t *testing.T) {
	h := newHub(t)
	h.must("", "chart", "create", "demo")
	h.write("parent/Chart.yaml", "apiVersion: v2\nname: parent\nversion: 1.0.0\ndependencies:\n- {name: demo, version: '>=0', repository: 'file://../demo'}\n")
	if s := h.cli("", "chart", "template", "parent"); s.code != 2 || !strings.Contains(s.err, "missing in charts/ directory: demo") {
		t.Errorf("without: %d %s", s.code, s.all)
	}
	if s := h.must("", "chart", "template", "parent", "--dependency-update"); !strings.Contains(s.out, "# Source: parent/charts/demo/templates") {
		t.Errorf("%s", s.all)
	}
	h.must("", "plan", "shop", "parent") // they are there now
}

func TestSeveralAreUninstalled(t *testing.T) {
	h := newHub(t)
	h.must("", "chart", "create", "demo")
	for _, name := range []string{"a", "b", "c"} {
		h.must("", "install", name, "demo", "--wait=false")
	}
	if s := h.cli("", "uninstall", "a", "none", "b"); s.code != 4 || !strings.Contains(s.err, "none") || !strings.Contains(s.out, "removed service") {
		t.Errorf("%d %s", s.code, s.all)
	}
	var list []v1.RemoveResult
	if err := json.Unmarshal([]byte(h.must("", "uninstall", "b", "c", "-o", "json").out), &list); err != nil || len(list) != 2 || list[1].App != "c" {
		t.Errorf("%+v, %v", list, err)
	}
	if s := h.must("", "ls"); strings.Contains(s.out, "demo") {
		t.Errorf("left: %s", s.out)
	}
}

// TestUpdateGoesOnPastARepositoryThatIsAway: the others are fetched, and it is named.
func TestUpdateGoesOnPastARepositoryThatIsAway(t *testing.T) {
	h := newHub(t)
	h.must("", "chart", "create", "demo")
	h.must("", "chart", "package", "demo", "-d", "dist")
	repo := "file://" + filepath.Join(h.dir, "dist")
	var away atomic.Bool
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if away.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		_, _ = w.Write([]byte("apiVersion: v1\nentries: {}\n"))
	}))
	t.Cleanup(srv.Close)
	h.must("", "chart", "repo", "add", "a", repo)
	h.must("", "chart", "repo", "add", "b", srv.URL)
	h.must("", "chart", "repo", "add", "c", repo)
	away.Store(true)
	h.must("", "chart", "package", "demo", "--version", "7.0.0", "-d", "dist")
	h.must("", "chart", "create", "other")
	h.must("", "chart", "package", "other", "-d", "dist")
	s := h.cli("", "chart", "repo", "update")
	if s.code != 1 || !strings.Contains(s.err, "1 of 3 repositories were not updated: b") || !strings.Contains(s.err, "502") {
		t.Errorf("%d %s", s.code, s.all)
	}
	var list []chart.Repository
	if err := json.Unmarshal([]byte(h.must("", "chart", "repo", "ls", "-o", "json").out), &list); err != nil || list[0].Packages != 2 || list[2].Packages != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	if s := h.cli("", "chart", "repo", "update", "b"); s.code == 0 || !strings.Contains(s.err, "502") {
		t.Errorf("alone: %d %s", s.code, s.all)
	}
}
