package chart_test

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/integration/registryd"
)

// TestRegistriesWithTokens: a registry sends its clients elsewhere with their password, as
// those of Docker Hub, GitHub and GitLab do.
func TestRegistriesWithTokens(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	tokens := registryd.NewTokens(t, "ann", "geheim", "pub/shop")
	inside := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: ociRegistry(t)})
	var short atomic.Bool // each token is over by the next manifest
	srv := httptest.NewServer(tokens.Guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inside.ServeHTTP(w, r)
		if short.Load() && !strings.Contains(r.URL.Path, "/blobs/") {
			tokens.Expire()
		}
	})))
	t.Cleanup(srv.Close)
	host := strings.TrimPrefix(srv.URL, "http://")
	dir := t.TempDir()
	r := chart.Repositories{Dir: filepath.Join(dir, "charts")}
	f := filepath.Join(dir, "shop.tgz")
	if err := os.WriteFile(f, archiveOf(t, "shop", "1.0.0"), 0o600); err != nil {
		t.Fatal(err)
	}
	nobody := chart.Transfer{PlainHTTP: true}
	ann, eve := nobody, nobody
	ann.Username, ann.Password, eve.Username, eve.Password = "ann", "geheim", "ann", "wrong"
	asked := func(what, user, scope string) {
		t.Helper()
		all := tokens.Asked()
		for _, a := range all {
			if a.User != user || !slices.Contains(a.Scopes, scope) {
				t.Errorf("%s: it is asked for %v as %q", what, a.Scopes, a.User)
			}
		}
		if len(all) == 0 {
			t.Errorf("%s: no token is asked for", what)
		}
	}
	refused := func(what string, err error, words ...string) {
		t.Helper()
		if cluster.KindOf(err) != cluster.KindForbidden {
			t.Fatalf("%s: %v", what, err)
		}
		for _, w := range words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q does not say %q", what, err, w)
			}
		}
	}
	for _, below := range []string{"/charts", "/pub"} {
		at, pull := "oci://"+host+below, "repository:"+below[1:]+"/shop:pull"
		_, err := r.Push(t.Context(), f, at, nobody)
		refused("a push by nobody", err, "--username")
		asked("a push by nobody", "", pull+",push")
		_, err = r.Push(t.Context(), f, at, eve)
		refused("a push with another password", err, tokens.Realm(), "incorrect username or password")
		asked("a push with another password", "ann", pull+",push")
		if _, err := r.Push(t.Context(), f, at, ann); err != nil {
			t.Fatal(err)
		}
		asked("a push", "ann", pull+",push")

		_, err = r.Fetch(t.Context(), at+"/shop", "", eve)
		refused("a pull with another password", err, tokens.Realm())
		asked("a pull with another password", "ann", pull)
		files, err := r.Fetch(t.Context(), at+"/shop", "", nobody)
		if below == "/pub" {
			if got := version(t, files, err); got != "1.0.0" {
				t.Errorf("what is public is %s", got)
			}
		} else {
			refused("a pull by nobody", err, "--username")
		}
		asked("a pull by nobody", "", pull)
		for _, is := range []bool{false, true} {
			short.Store(is)
			files, err = r.Fetch(t.Context(), at+"/shop", "", ann)
			if got := version(t, files, err); got != "1.0.0" {
				t.Errorf("it is %s", got)
			}
			asked("a pull", "ann", pull)
		}
		short.Store(false)
	}

	// On another port of the registry's address; and what is not there is not the package.
	realm, err := url.Parse(tokens.Realm())
	if err != nil {
		t.Fatal(err)
	}
	tokens.Name("http://127.0.0.1:" + realm.Port() + "/token")
	if _, err := r.Fetch(t.Context(), "oci://"+host+"/charts/shop", "", ann); err != nil {
		t.Error(err)
	}
	none := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(none.Close)
	tokens.Name(none.URL + "/token")
	if _, err := r.Fetch(t.Context(), "oci://"+host+"/charts/shop", "1.0.0", ann); cluster.KindOf(err) != cluster.KindTransient || !strings.Contains(err.Error(), none.URL) {
		t.Errorf("without a place for tokens: %v", err)
	}
}
