package chart_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/chart"
)

// shelf is a repository of one package that counts what it is asked for, and answers 304.
type shelf struct {
	index, archive    string
	etags, times      bool
	changed           time.Time
	indexes, archives int // sent whole
}

func (s *shelf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, sent := s.archive, &s.archives
	if r.URL.Path == "/index.yaml" {
		body, sent = s.index, &s.indexes
	}
	if s.etags {
		tag := fmt.Sprintf("%q", digest([]byte(body)))
		w.Header().Set("ETag", tag)
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	if s.times {
		w.Header().Set("Last-Modified", s.changed.UTC().Format(http.TimeFormat))
		if r.Header.Get("If-Modified-Since") == s.changed.UTC().Format(http.TimeFormat) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	*sent++
	_, _ = io.WriteString(w, body)
}

// TestOnlyWhatChangedIsFetched: a repository is asked again and again, as deliveries do.
func TestOnlyWhatChangedIsFetched(t *testing.T) {
	first, second := string(archiveOf(t, "shop", "1.0.0")), string(archiveOf(t, "shop", "1.0.0-again"))
	index := func(archive string, digests bool, more string) string {
		sum := ""
		if digests {
			sum = strings.TrimPrefix(digest([]byte(archive)), "sha256:")
		}
		return fmt.Sprintf("apiVersion: v1\nentries:\n  shop:\n  - {apiVersion: v2, name: shop, version: 1.0.0, urls: [shop.tgz], digest: %q}\n%s", sum, more)
	}
	const other = "  other:\n  - {apiVersion: v2, name: other, version: 2.0.0, urls: [other.tgz], digest: \"00\"}\n"
	old := time.Now().Add(-time.Hour)
	for _, tc := range []struct {
		what                  string
		digests, etags, times bool
		changed               time.Time
		indexes, archives     [4]int // sent whole, of each look
	}{
		{"etags", true, true, false, old, [4]int{1, 0, 1, 1}, [4]int{1, 0, 0, 1}},
		{"times", true, false, true, old, [4]int{1, 0, 1, 1}, [4]int{1, 0, 0, 1}},
		{"a time of just now", true, false, true, time.Now(), [4]int{1, 1, 1, 1}, [4]int{1, 0, 0, 1}},
		{"neither", true, false, false, old, [4]int{1, 1, 1, 1}, [4]int{1, 0, 0, 1}},
		{"no digests, etags", false, true, false, old, [4]int{1, 1, 1, 1}, [4]int{1, 0, 0, 1}},
		{"no digests, nothing", false, false, false, old, [4]int{1, 1, 1, 1}, [4]int{1, 1, 1, 1}},
	} {
		t.Run(tc.what, func(t *testing.T) {
			s := &shelf{archive: first, index: index(first, tc.digests, ""), etags: tc.etags, times: tc.times, changed: tc.changed}
			srv := httptest.NewServer(s)
			t.Cleanup(srv.Close)
			var seen chart.Seen
			for n, change := range []func(){
				func() {},
				func() {},
				func() { s.index, s.changed = index(first, tc.digests, other), s.changed.Add(time.Second) },
				func() {
					s.archive, s.index, s.changed = second, index(second, tc.digests, other), s.changed.Add(time.Second)
				},
			} {
				change()
				s.indexes, s.archives = 0, 0
				x := chart.Repository{Name: "x", URL: srv.URL}
				files, now, err := chart.Repositories{Dir: t.TempDir()}.Newer(t.Context(), x, "shop", "", seen)
				if err != nil {
					t.Fatal(err)
				}
				if fresh := n == 0 || n == 3; (files != nil) != fresh {
					t.Errorf("look %d: %d files", n, len(files))
				}
				if now.Version != "1.0.0" || now.Digest != digest([]byte(s.archive)) {
					t.Errorf("look %d: %+v", n, now)
				}
				if s.indexes != tc.indexes[n] || s.archives != tc.archives[n] {
					t.Errorf("look %d: %d indexes and %d archives were sent, not %d and %d", n, s.indexes, s.archives, tc.indexes[n], tc.archives[n])
				}
				seen = now
			}
		})
	}
}
