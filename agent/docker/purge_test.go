package docker

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A network that the engine will not give up is named, with what helps only when
// nothing is on it.
func TestPurgeOfANetworkThatTheEngineMiscounts(t *testing.T) {
	for containers, want := range map[string]string{
		`{}`: "restart Docker", `{"1": {"Name": "someone's"}}`: "has active endpoints",
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			path := r.URL.Path
			if strings.HasPrefix(path, "/v1.") {
				path = path[strings.Index(path[1:], "/")+1:]
			}
			answer := "[]"
			switch {
			case r.Method == http.MethodDelete:
				w.WriteHeader(http.StatusForbidden)
				answer = `{"message": "network web has active endpoints"}`
			case path == "/networks":
				answer = `[{"Id": "n1", "Name": "web"}]`
			case path == "/networks/n1":
				answer = `{"Id": "n1", "Name": "web", "Containers": ` + containers + `}`
			case path == "/volumes":
				answer = "{}"
			}
			_, _ = io.WriteString(w, answer)
		}))
		defer srv.Close()
		e, err := New("tcp://" + srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close() //nolint:errcheck // of a test
		removed, err := e.Purge(t.Context(), "c1")
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "web") {
			t.Errorf("with containers %s: error %v, want one that says %q", containers, err, want)
		}
		if len(removed) != 0 {
			t.Errorf("with containers %s: it says that it removed %v", containers, removed)
		}
	}
}

// An image that somebody gave a name of their own stays theirs.
func TestBuiltTags(t *testing.T) {
	own, others := builtTags([]string{"fairlead/shop-web:latest", "mine/web:2", "fairlead/shop-web:8f5a39"})
	if strings.Join(own, " ") != "fairlead/shop-web:latest fairlead/shop-web:8f5a39" || strings.Join(others, " ") != "mine/web:2" {
		t.Errorf("%v, %v", own, others)
	}
}
