package work_test

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery/work"
	"github.com/fairlead/fairlead/integration/registryd"
)

// askedFor checks who asked for tokens, and for what.
func askedFor(t *testing.T, tokens *registryd.Tokens, what, user, scope string, atLeast int) {
	t.Helper()
	asked := tokens.Asked()
	for _, a := range asked {
		if a.User != user || !slices.Contains(a.Scopes, scope) {
			t.Errorf("%s: it is asked for %v as %q", what, a.Scopes, a.User)
		}
	}
	if len(asked) < atLeast {
		t.Errorf("%s: it is asked %d times", what, len(asked))
	}
}

// TestRegistriesWithTokens: as those of Docker Hub, GitHub and GitLab, a registry sends its
// clients elsewhere with their password. What the shelf has is in it, too.
func TestRegistriesWithTokens(t *testing.T) {
	const password = "geheim"
	f, s := newForge(t), newShelf(t)
	tokens := registryd.NewTokens(t, "ci", password, "pub/web")
	s.push("shop/web", "1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.4.0", "1.5.0", "1.6.0")
	s.push("pub/web", "2.0.0")
	s.artifact("config", fluxConfig, nil, []string{"1.0.0"}, part{fluxContent, archive(t, map[string]string{"compose.yaml": compose("r.io/web:1")}), nil})
	srv := httptest.NewServer(tokens.Guard(s))
	t.Cleanup(srv.Close)
	s.host = strings.TrimPrefix(srv.URL, "http://")
	f.write("compose.yaml", compose(s.host+"/shop/web:0.1"))
	f.push("the first")
	elsewhere := strings.TrimSuffix(strings.TrimPrefix(tokens.Realm(), "http://"), "/token")
	ci := map[string]work.Login{s.host: {User: "ci", Password: []byte(password)}}
	wrong := map[string]work.Login{s.host: {User: "ci", Password: []byte("wrong")}}
	images := work.Task{Delivery: f.following(s.policy("web=shop/web semver 1.x")), Scan: true}
	public := work.Task{Delivery: f.following(s.policy("web=pub/web semver 2.x")), Scan: true}
	source := work.Task{Delivery: s.delivery("config")}

	for what, task := range map[string]work.Task{"images": images, "a source": source} {
		scope := map[string]string{"images": "repository:shop/web:pull", "a source": "repository:config:pull"}[what]
		f.refused(task, cluster.KindForbidden, "fairlead image login "+s.host)
		askedFor(t, tokens, what+" for nobody", "", scope, 1)
		task.Logins = wrong
		f.refused(task, cluster.KindForbidden, s.host, "the login that is kept may not", elsewhere+` refuses "ci"`)
		askedFor(t, tokens, what+" for who is not known", "ci", scope, 1)
		task.Logins = ci
		f.must(task)
		askedFor(t, tokens, what, "ci", scope, 1)
	}
	own := source
	own.Password, own.Delivery.Source.User = []byte(password+"\n"), "ci"
	f.must(own)
	askedFor(t, tokens, "a source with a login of its own", "ci", "repository:config:pull", 1)
	if r := f.must(public); r.Images[0].Tag != "2.0.0" {
		t.Errorf("of a public one there is %+v", r.Images)
	}
	askedFor(t, tokens, "a public one", "", "repository:pub/web:pull", 1)

	// A token that is over between two requests is asked for again: three pages of tags, a
	// manifest, and of a source its layer.
	tokens.Once(true)
	images.Logins, source.Logins = ci, ci
	for range 2 {
		if r := f.must(images); r.Images[0].Tag != "1.6.0" || r.Images[0].Failures > 0 {
			t.Errorf("with short tokens there is %+v", r.Images)
		}
		askedFor(t, tokens, "images, with short tokens", "ci", "repository:shop/web:pull", 4)
	}
	f.must(source)
	askedFor(t, tokens, "a source, with short tokens", "ci", "repository:config:pull", 3)
	tokens.Once(false)

	// Of a registry that is named by its address, on another port of that.
	tokens.Name("http://127.0.0.1:" + elsewhere[strings.LastIndex(elsewhere, ":")+1:] + "/token?kept=1")
	f.must(images)
	askedFor(t, tokens, "at another port", "ci", "repository:shop/web:pull", 1)
	f.must(source)
	askedFor(t, tokens, "at another port", "ci", "repository:config:pull", 1)
	images.Logins = wrong
	f.refused(images, cluster.KindForbidden, strings.Replace(elsewhere, "localhost", "127.0.0.1", 1)+` refuses "ci"`)
	askedFor(t, tokens, "at another port", "ci", "repository:shop/web:pull", 1)

	// A 404 from there is not one of the repository.
	images.Logins = ci
	images.Delivery.Images = []cluster.ImagePolicy{s.policy("web=shop/web digest edge")}
	if r := f.must(images); !strings.Contains(r.Images[0].Message, "has no ") {
		t.Errorf("of a tag that is not there: %+v", r.Images)
	}
	none := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(none.Close)
	tokens.Name(strings.Replace(none.URL, "127.0.0.1", "localhost", 1))
	f.refused(images, cluster.KindTransient, "404")
}

// TestPasswordsForTokensGoByTLS: where tokens are, the registry says; that a password goes
// there in clear is not for it to say.
func TestPasswordsForTokensGoByTLS(t *testing.T) {
	const password = "geheim"
	f := newForge(t)
	f.write("compose.yaml", compose("r.io/web:1"))
	f.push("the first")
	var mu sync.Mutex
	var told []string
	inClear := 0
	hear := func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if _, pw, is := r.BasicAuth(); is {
			told = append(told, pw)
		}
		if r.TLS == nil {
			inClear++
		}
		w.WriteHeader(http.StatusUnauthorized)
	}
	plain := httptest.NewServer(http.HandlerFunc(hear))
	t.Cleanup(plain.Close)
	safe := httptest.NewTLSServer(http.HandlerFunc(hear))
	t.Cleanup(safe.Close)
	leads := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, plain.URL+"/token?"+r.URL.RawQuery, http.StatusTemporaryRedirect)
	}))
	t.Cleanup(leads.Close)
	over := outside(t, http.HandlerFunc(hear))
	named := strings.Replace(plain.URL, "127.0.0.1", "localhost", 1)
	for name, c := range map[string]struct {
		tls   bool
		realm string
		goes  bool
		says  string
	}{
		"another place with TLS":            {true, safe.URL + "/token", true, strings.TrimPrefix(safe.URL, "https://") + ` refuses "ci"`},
		"another place without":             {true, named + "/token", false, "not allowed for a secure registry"},
		"another port without":              {true, plain.URL + "/token", false, "not allowed for a secure registry"},
		"over the network, without":         {true, "http://" + over + "/token", false, "not allowed for a secure registry"},
		"a place that leads to one without": {true, leads.URL + "/token", false, "refusing token-server redirect"},
		"another address":                   {true, "https://10.255.255.1/token", false, "private or link-local"},
		"this machine's, without":           {false, named + "/token", true, strings.TrimPrefix(named, "http://") + ` refuses "ci"`},
		"of this machine over the network":  {false, "http://" + over + "/token", false, "private or link-local"},
		"of this machine to a name":         {false, "http://tokens.example.com/token", false, "speaks no TLS"},
	} {
		tokens := registryd.NewTokens(t, "ci", password, "")
		tokens.Name(c.realm)
		front := httptest.NewUnstartedServer(tokens.Guard(http.NotFoundHandler()))
		certs, scheme := t.TempDir(), "http://"
		if front.Start(); c.tls {
			front.Close()
			front, scheme = httptest.NewTLSServer(tokens.Guard(http.NotFoundHandler())), "https://"
			dir := filepath.Join(certs, strings.TrimPrefix(front.URL, scheme))
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "ca.crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw}), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		t.Cleanup(front.Close)
		s := &shelf{t: t, host: strings.TrimPrefix(front.URL, scheme)}
		login := map[string]work.Login{s.host: {User: "ci", Password: []byte(password)}}
		own, mine := s.delivery("config"), s.delivery("config")
		own.Source.User, own.Source.Secret, own.Source.Tag, mine.Source.Tag = "ci", "token", "1", "1"
		mine.Source.PlainHTTP = !c.tls
		for kind, task := range map[string]work.Task{
			"images":                          {Delivery: f.following(s.policy("web=shop/web semver 1.x")), Scan: true, Logins: login},
			"a source":                        {Delivery: own, Password: []byte(password)},
			"a source by the cluster's login": {Delivery: mine, Logins: login},
		} {
			mu.Lock()
			told, inClear = nil, 0
			mu.Unlock()
			task.Certs = certs
			_ = f.refusal(task, cluster.KindForbidden, c.says)
			mu.Lock()
			if c.goes != slices.Contains(told, password) || (c.tls || !c.goes) && inClear > 0 {
				t.Errorf("%s, %s: it is told %v, in clear %d times", name, kind, told, inClear)
			}
			mu.Unlock()
		}
	}
}
