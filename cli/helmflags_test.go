package cli_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/fairlead/fairlead/chart"
)

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
