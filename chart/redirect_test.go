package chart_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/fairlead/fairlead/chart"
)

// heard is a server that notes what it is told in Authorization.
type heard struct {
	mu   sync.Mutex
	asks int
	told []string
}

func (h *heard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asks++
	if a := r.Header.Get("Authorization"); a != "" {
		h.told = append(h.told, a)
	}
	w.WriteHeader(http.StatusNotFound)
}

// TestPasswordsAreNotCarriedElsewhere: a repository or registry with TLS sends its client to
// another port of its name, with TLS and without. To the former no password goes along, to the
// latter nothing goes.
func TestPasswordsAreNotCarriedElsewhere(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	for name, tls := range map[string]bool{"without TLS": false, "another port": true} {
		for _, kind := range []string{"repository", "archive", "registry", "token"} {
			t.Run(kind+" "+name, func(t *testing.T) {
				other := &heard{}
				target := httptest.NewUnstartedServer(other)
				if target.Start(); tls {
					target.Close()
					target = httptest.NewTLSServer(other)
				}
				t.Cleanup(target.Close)
				let := false
				front := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					switch _, pw, ok := r.BasicAuth(); {
					case kind == "token":
						w.Header().Set("WWW-Authenticate", `Bearer realm="`+target.URL+`/token",service="x"`)
						w.WriteHeader(http.StatusUnauthorized)
					case !ok:
						w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
						w.WriteHeader(http.StatusUnauthorized)
					default:
						let = pw == "pw"
						http.Redirect(w, r, target.URL+r.URL.Path, http.StatusTemporaryRedirect)
					}
				}))
				t.Cleanup(front.Close)
				r := chart.Repositories{Dir: t.TempDir()}
				with := chart.Transfer{Username: "ann", Password: "pw", Insecure: true}
				var err error
				switch kind {
				case "repository":
					err = r.Add(t.Context(), chart.Repository{Name: "stable", URL: front.URL, Username: "ann", Password: "pw", Insecure: true}, false)
				case "archive":
					_, err = r.Fetch(t.Context(), front.URL+"/shop-1.0.0.tgz", "", with)
				default:
					_, err = r.Fetch(t.Context(), "oci://"+strings.TrimPrefix(front.URL, "https://")+"/charts/shop", "", with)
				}
				if err == nil || (!let && kind != "token") {
					t.Fatalf("it is not asked with a password: %v", err)
				}
				if !tls && (other.asks > 0 || !strings.Contains(err.Error(), "without TLS") && !strings.Contains(err.Error(), "uses http")) {
					t.Errorf("%d requests without TLS: %v", other.asks, err)
				}
				if tls && other.asks == 0 {
					t.Errorf("it is not followed: %v", err)
				}
				if kind != "token" && len(other.told) > 0 { // whose server the registry chooses
					t.Errorf("it is told %v", other.told)
				}
			})
		}
	}
}
