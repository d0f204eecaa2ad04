package work_test

import (
	"bytes"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery/work"
)

// TestPasswordsAreNotCarriedElsewhere: a source's host sends whoever has its password to
// another port of its name, with TLS and without. The password does not go along.
func TestPasswordsAreNotCarriedElsewhere(t *testing.T) {
	f := newForge(t)
	for name, tls := range map[string]bool{"without TLS": false, "another port": true} {
		for kind, rest := range map[string]string{"git": "/shop.git", "oci": "/shop/config", "chart": ""} {
			t.Run(kind+" "+name, func(t *testing.T) {
				var mu sync.Mutex
				asked, let := 0, false
				var told []string
				other := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					mu.Lock()
					defer mu.Unlock()
					asked++
					told = append(told, r.Header.Values("Authorization")...)
					w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
					w.WriteHeader(http.StatusUnauthorized)
				}))
				if tls {
					other.StartTLS()
				} else {
					other.Start()
				}
				t.Cleanup(other.Close)
				front := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					_, pw, ok := r.BasicAuth()
					if !ok {
						w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
						w.WriteHeader(http.StatusUnauthorized)
						return
					}
					mu.Lock()
					defer mu.Unlock()
					let = let || pw == "geheim"
					http.Redirect(w, r, other.URL+r.URL.RequestURI(), http.StatusTemporaryRedirect)
				}))
				t.Cleanup(front.Close)
				var ca bytes.Buffer
				_ = pem.Encode(&ca, &pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw})
				scheme, path := "https", rest
				if kind == "oci" {
					scheme = "oci"
				}
				d := f.local()
				d.Source = cluster.SourceSpec{
					Kind: kind, URL: strings.Replace(front.URL, "https", scheme, 1) + path, CA: ca.String(), Secret: "token", User: "ann",
				}
				if kind == "chart" {
					d.Source.Chart = "shop"
				}
				_, err := f.run(work.Task{Delivery: d, Password: []byte("geheim")})
				mu.Lock()
				defer mu.Unlock()
				if err == nil || !let {
					t.Fatalf("it is not asked with the password: %v", err)
				}
				if len(told) > 0 {
					t.Errorf("another is told %v", told)
				}
				if !tls && kind != "oci" && asked > 0 { // of this machine a registry may be without
					t.Errorf("it is followed to where there is no TLS: %v", err)
				}
			})
		}
	}
}
