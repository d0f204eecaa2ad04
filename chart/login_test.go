package chart_test

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/cluster"
)

// TestLoginGivenWithAPackage: what is given with REPOSITORY/NAME counts above what the
// repository was added with, for its index and for its archives.
func TestLoginGivenWithAPackage(t *testing.T) {
	var password, entries atomic.Pointer[string]
	password.Store(new("old"))
	entries.Store(new("entries: {}\n"))
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, pw, _ := r.BasicAuth()
		switch {
		case user != "ann" || pw != *password.Load():
			w.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path == "/index.yaml":
			_, _ = w.Write([]byte("apiVersion: v1\n" + *entries.Load()))
		default:
			_, _ = w.Write(archiveOf(t, "shop", "1.0.0"))
		}
	}))
	t.Cleanup(srv.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, []byte("none"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := chart.Repositories{Dir: t.TempDir()}
	if err := r.Add(t.Context(), chart.Repository{Name: "mine", URL: srv.URL, Username: "ann", Password: "old", Insecure: true}, false); err != nil {
		t.Fatal(err)
	}
	password.Store(new("new"))
	entries.Store(new("entries:\n  shop:\n  - {apiVersion: v2, name: shop, version: 1.0.0, urls: [shop-1.0.0.tgz]}\n"))
	if _, err := r.Fetch(t.Context(), "mine/shop", "", chart.Transfer{}); cluster.KindOf(err) != cluster.KindForbidden {
		t.Errorf("with the old one: %v", err)
	}
	login := chart.Transfer{Username: "ann", Password: "new"}
	for range 2 { // the second time the index is known, and the archive is not
		files, err := r.Fetch(t.Context(), "mine/shop", "", login)
		if got := version(t, files, err); got != "1.0.0" {
			t.Errorf("it is %s", got)
		}
	}
	if _, err := r.Fetch(t.Context(), "mine/shop", "", chart.Transfer{CAFile: ca}); err == nil || !strings.Contains(err.Error(), "no certificate is in it") {
		t.Errorf("--ca-file is passed over: %v", err)
	}
	if err := r.Add(t.Context(), chart.Repository{Name: "mine", URL: srv.URL, Username: "ann", Password: "new", Insecure: true}, true); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.Dir, "repositories.yaml"), []byte("apiVersion: v1\nrepositories:\n- {name: mine, url: \""+srv.URL+"\", username: ann, password: new}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Fetch(t.Context(), "mine/shop", "", chart.Transfer{}); err == nil {
		t.Error("any certificate is taken")
	}
	if _, err := r.Fetch(t.Context(), "mine/shop", "", chart.Transfer{Insecure: true}); err != nil {
		t.Errorf("--insecure-skip-tls-verify is passed over: %v", err)
	}
}

// TestExactVersionsAreNotListed: a registry with thousands of tags is asked for the one that is
// meant, with a v before it or without.
func TestExactVersionsAreNotListed(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	host, dir := ociRegistry(t), t.TempDir()
	var lists atomic.Int32
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: host})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/tags/list") {
			lists.Add(1)
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	at := "oci://" + strings.TrimPrefix(srv.URL, "http://") + "/charts"
	r, plain := chart.Repositories{Dir: filepath.Join(dir, "charts")}, chart.Transfer{PlainHTTP: true}
	for _, v := range []string{"1.0.0", "1.1.0+build.5", "v2.0.0"} {
		f := filepath.Join(dir, "shop.tgz")
		if err := os.WriteFile(f, archiveOf(t, "shop", v), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Push(t.Context(), f, at, plain); err != nil {
			t.Fatal(err)
		}
	}
	for asked, want := range map[string]string{"1.0.0": "1.0.0", "v1.0.0": "1.0.0", "1.1.0+build.5": "1.1.0+build.5", "2.0.0": "v2.0.0", "v2.0.0": "v2.0.0"} {
		files, err := r.Fetch(t.Context(), at+"/shop", asked, plain)
		if got := version(t, files, err); got != want {
			t.Errorf("%s is %s", asked, got)
		}
	}
	if _, err := r.Fetch(t.Context(), at+"/shop", "v3.0.0", plain); cluster.KindOf(err) != cluster.KindNotFound || !strings.Contains(err.Error(), "/charts/shop:v3.0.0") {
		t.Errorf("no such version: %v", err)
	}
	if n := lists.Load(); n != 0 {
		t.Errorf("its tags were listed %d times", n)
	}
	files, err := r.Fetch(t.Context(), at+"/shop", "1.0", plain)
	if got := version(t, files, err); got != "1.0.0" || lists.Load() != 1 {
		t.Errorf("of a range it is %s, listed %d times", got, lists.Load())
	}
}
