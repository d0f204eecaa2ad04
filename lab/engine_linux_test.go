package lab

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// An engine that starts takes connections a while before it answers: it is none that works.
func TestAnEngineThatStartsDoesNotWork(t *testing.T) {
	root, err := os.MkdirTemp("", "fl") //nolint:usetesting // a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(root) //nolint:errcheck // a temporary directory
	for what, c := range map[string]struct {
		code  int // 0: no answer, -1: nobody listens
		works bool
	}{"nobody": {-1, false}, "starting": {0, false}, "broken": {http.StatusInternalServerError, false}, "good": {http.StatusOK, true}} {
		socket := filepath.Join(root, what)
		if c.code >= 0 {
			l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close() //nolint:errcheck // a test's own
			if c.code > 0 {
				s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path != "/_ping" {
						t.Errorf("asked for %s", r.URL.Path)
					}
					w.WriteHeader(c.code)
				})}
				go s.Serve(l)   //nolint:errcheck // ends with the test
				defer s.Close() //nolint:errcheck // a test's own
			}
		}
		if got := engineAnswers(t.Context(), socket); got != c.works {
			t.Errorf("%s: works %v", what, got)
		}
	}
}
