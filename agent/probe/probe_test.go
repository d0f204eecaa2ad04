package probe

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

type verdict struct {
	After time.Duration
	Result
}

// watch runs a probe for a while in fake time; ok says what the check sees when.
func watch(t *testing.T, c Config, good bool, length time.Duration, ok func(time.Duration) bool) ([]verdict, int) {
	t.Helper()
	var out []verdict
	checks := 0
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), length)
		defer cancel()
		Run(ctx, c, good, func(context.Context) error {
			checks++
			if ok(time.Since(began)) {
				return nil
			}
			return errors.New("sick")
		}, func(r Result) { out = append(out, verdict{time.Since(began), r}) })
	})
	return out, checks
}

func TestRun(t *testing.T) {
	second := time.Second
	for name, c := range map[string]struct {
		cfg    Config
		good   bool
		ok     func(time.Duration) bool
		want   []verdict
		checks int
	}{
		"good at once": {
			Config{Interval: 10 * second},
			false, func(time.Duration) bool { return true },
			[]verdict{{0, Result{Good: true}}},
			6,
		},
		"known to be good": {
			Config{Interval: 10 * second}, true, func(time.Duration) bool { return true }, nil, 6,
		},
		"good after a while, seen soon": {
			Config{Interval: 10 * second, StartInterval: 100 * time.Millisecond},
			false, func(d time.Duration) bool { return d > 2*second },
			[]verdict{{0, Result{Starting: true, Reason: "sick"}}, {2100 * time.Millisecond, Result{Good: true}}},
			27,
		},
		"never good: start period and retries first": {
			Config{Interval: 2 * second, StartPeriod: 5 * second, Retries: 3, StartInterval: 2 * second},
			false, func(time.Duration) bool { return false },
			[]verdict{{0, Result{Starting: true, Reason: "sick"}}, {12 * second, Result{Reason: "sick"}}},
			30,
		},
		"falls sick: as many failures as allowed, then well again": {
			Config{Interval: 5 * second, Retries: 2},
			false, func(d time.Duration) bool { return d < 10*second || d > 30*second },
			[]verdict{{0, Result{Good: true}}, {15 * second, Result{Reason: "sick"}}, {35 * second, Result{Good: true}}},
			12,
		},
		"one failure is none": {
			Config{Interval: 10 * second, Retries: 2}, true, func(d time.Duration) bool { return d != 20*second }, nil, 6,
		},
	} {
		got, checks := watch(t, c.cfg, c.good, 59500*time.Millisecond, c.ok)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", name, diff)
		}
		if checks != c.checks {
			t.Errorf("%s: %d checks, want %d", name, checks, c.checks)
		}
	}
}

func TestRunGivesACheckItsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var last Result
		Run(ctx, Config{Interval: 5 * time.Second, Timeout: time.Second, Retries: 1}, true,
			func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, func(r Result) { last = r })
		if want := (Result{Reason: "no answer within 1s"}); last != want {
			t.Errorf("%+v, want %+v", last, want)
		}
	})
}

func TestHTTPAndTCP(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/bad", http.StatusFound)
		case "/bad":
			http.Error(w, "database\nis away", http.StatusServiceUnavailable)
		}
	}))
	addr := srv.Listener.Addr().String()
	for path, want := range map[string]string{
		"/good": "", "": "", "/moved": "", "/bad": "GET /bad: 503 Service Unavailable: database is away",
	} {
		err := HTTP(t.Context(), addr, path)
		if got := text(err); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	if err := TCP(t.Context(), addr); err != nil {
		t.Error(err)
	}
	srv.Close()
	for name, err := range map[string]error{"http": HTTP(t.Context(), addr, "/"), "tcp": TCP(t.Context(), addr)} {
		if err == nil || !strings.Contains(err.Error(), "connection refused") || strings.Contains(err.Error(), "->") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
