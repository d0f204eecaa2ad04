// Package load makes requests at a bounded rate while a test does something, and
// counts those that fail.
package load

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Load is requests from several workers, and what became of them.
type Load struct {
	requests, failed atomic.Int64
	mu               sync.Mutex
	failures         []failure
	stop             context.CancelFunc
	done             sync.WaitGroup
}

// failure is when a request that failed was made, and when it had failed.
type failure struct {
	from, to time.Time
	text     string
}

// Request is one kind of request that a load makes.
type Request struct {
	Name, Method, URL, Body string
	KeepAlive               bool
}

// EveryKind is GET and POST, with connections kept and not.
func EveryKind(url string) []Request {
	return []Request{
		{"GET kept", http.MethodGet, url, "", true},
		{"GET new", http.MethodGet, url, "", false},
		{"POST kept", http.MethodPost, url, "hello", true},
		{"POST new", http.MethodPost, url, "hello", false},
	}
}

// limit is how long a load goes on when nobody ends it.
const limit = 6 * time.Minute

// Start makes each request every 10 ms, one worker a kind, until End is called.
// client makes the client of a worker.
func Start(tb testing.TB, client func(keepAlive bool) *http.Client, kinds []Request) *Load {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	l := &Load{stop: cancel}
	for _, k := range kinds {
		c := client(k.KeepAlive)
		l.done.Go(func() {
			defer c.CloseIdleConnections()
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				l.one(c, k)
			}
		})
	}
	tb.Cleanup(func() { cancel(); l.done.Wait() })
	return l
}

func (l *Load) one(client *http.Client, k Request) {
	l.requests.Add(1)
	start := time.Now()
	if err := Fetch(client, k); err != nil {
		l.failed.Add(1)
		f := failure{from: start, to: time.Now()}
		f.text = fmt.Sprintf("%s %s after %s: %v", start.Format("15:04:05.000"), k.Name, f.to.Sub(start).Round(time.Millisecond), err)
		l.mu.Lock()
		l.failures = append(l.failures, f)
		l.mu.Unlock()
	}
}

// Get fetches a URL.
func Get(client *http.Client, url string) error {
	return Fetch(client, Request{Method: http.MethodGet, URL: url})
}

// Fetch makes a request; an answer other than 200, or a part of one, is an error.
func Fetch(client *http.Client, k Request) error {
	req, err := http.NewRequest(k.Method, k.URL, strings.NewReader(k.Body))
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.100s", resp.Status, b)
	}
	return err
}

// End stops the load and returns how many requests were made and failed.
func (l *Load) End() (requests, failed int64) {
	l.stop()
	l.done.Wait()
	return l.requests.Load(), l.failed.Load()
}

// Span is a time in which requests may fail.
type Span struct{ From, To time.Time }

// WantNone ends the load and fails the test if any request failed that no span
// touches. It logs how many were made, and failed.
func (l *Load) WantNone(tb testing.TB, what string, but ...Span) {
	tb.Helper()
	l.WantAtMost(tb, what, 0, but...)
}

// WantAtMost is WantNone where so many requests may fail.
func (l *Load) WantAtMost(tb testing.TB, what string, most int, but ...Span) {
	tb.Helper()
	requests, failed := l.End()
	tb.Logf("%s: %d requests, %d failed", what, requests, failed)
	if requests < 100 {
		tb.Errorf("%s: only %d requests were made: the load proves nothing", what, requests)
	}
	var bad []string
	for _, f := range l.failures {
		if !slices.ContainsFunc(but, func(s Span) bool { return f.from.Before(s.To) && f.to.After(s.From) }) {
			bad = append(bad, f.text)
		}
	}
	if len(bad) > most {
		tb.Errorf("%s: %d of %d requests failed that were not on what was killed, at most %d may:\n%s", what, len(bad), requests, most, strings.Join(bad[:min(len(bad), 10)], "\n"))
	}
}
