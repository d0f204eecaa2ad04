package api_test

import (
	"net/http"
	"slices"
	"testing"
	"time"

	v1 "github.com/fairlead/fairlead/api/v1"
)

// A server that has not heard from a majority says so with what it shows.
func TestWhatMayBeOldIsMarked(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct {
		stale time.Duration
		path  string
		want  []string
	}{
		{0, "/v1/tasks", nil},
		{42*time.Second + 300*time.Millisecond, "/v1/tasks", []string{"42", "n1"}},
		{42 * time.Second, "/v1/status", []string{"42", "n1"}},
		{42 * time.Second, "/v1/nodes", []string{"42", "n1"}},
		{42 * time.Second, "/v1/events", []string{"42", "n1"}},
		{42 * time.Second, "/v1/apps/none", []string{"42", "n1"}}, // that it is not there may be old as well
		{42 * time.Second, "/v1/health", nil},
		{42 * time.Second, "/openapi.json", nil},
	} {
		b.stale.Store(int64(c.stale))
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.url+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		var got []string
		for _, h := range []string{v1.HeaderStale, v1.HeaderStaleServer} {
			got = append(got, resp.Header.Values(h)...)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s, stale for %s: %q, want %q", c.path, c.stale, got, c.want)
		}
	}
}
