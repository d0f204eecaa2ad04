// Package load makes requests at a bounded rate while a test does something, and
// counts those that fail.
package load

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
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
	failures         []Failure
	underWay         map[time.Time]int // requests, by when they began
	stop             context.CancelFunc
	done             sync.WaitGroup
}

// Failure is when a request that failed was made, and when it had failed.
type Failure struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
	Text string    `json:"text"`
}

// Request is one kind of request that a load makes.
type Request struct {
	Name, Method, URL, Body string
	KeepAlive               bool
	Every                   time.Duration // 0 is 20 ms: what a machine can do is not what is tested
}

// EveryKind is GET and POST, with connections kept and not.
func EveryKind(url string) []Request {
	return []Request{
		{Name: "GET kept", Method: http.MethodGet, URL: url, Body: "", KeepAlive: true},
		{Name: "GET new", Method: http.MethodGet, URL: url, Body: "", KeepAlive: false},
		{Name: "POST kept", Method: http.MethodPost, URL: url, Body: "hello", KeepAlive: true},
		{Name: "POST new", Method: http.MethodPost, URL: url, Body: "hello", KeepAlive: false},
	}
}

// limit is how long a load goes on when nobody ends it.
const limit = 30 * time.Minute

// Start makes each request again and again, one worker a kind, until End is called.
// client makes the client of a worker.
func Start(tb testing.TB, client func(keepAlive bool) *http.Client, kinds []Request) *Load {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	l := &Load{stop: cancel, underWay: map[time.Time]int{}}
	for _, k := range kinds {
		c := client(k.KeepAlive)
		l.done.Go(func() {
			defer c.CloseIdleConnections()
			tick := time.NewTicker(cmp.Or(k.Every, 20*time.Millisecond))
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
	l.mu.Lock()
	l.underWay[start]++
	l.mu.Unlock()
	err := Fetch(client, k)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failed.Add(1)
		l.failures = append(l.failures, Failure{From: start, To: time.Now(), Text: fmt.Sprintf("%s: %v", k.Name, err)})
	}
	if l.underWay[start]--; l.underWay[start] == 0 {
		delete(l.underWay, start)
	}
}

func (f Failure) String() string {
	return fmt.Sprintf("%s after %s %s", f.From.Format("15:04:05.000"), f.To.Sub(f.From).Round(time.Millisecond), f.Text)
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

// touches reports whether a request was under way at some time of the span.
func (s Span) touches(f Failure) bool { return f.From.Before(s.To) && f.To.After(s.From) }

// Outside are the failures of requests that no span touches.
func Outside(failures []Failure, spans ...Span) []Failure {
	return slices.DeleteFunc(slices.Clone(failures), func(f Failure) bool {
		return slices.ContainsFunc(spans, func(s Span) bool { return s.touches(f) })
	})
}

// Some are the first of failures, one a line.
func Some(failures []Failure) string {
	var b strings.Builder
	for _, f := range failures[:min(len(failures), 10)] {
		fmt.Fprintf(&b, "\n%s", f)
	}
	return b.String()
}

// Failures are those of requests that were begun until now; it waits for how they end.
func (l *Load) Failures() []Failure {
	now := time.Now()
	for {
		l.mu.Lock()
		waits := slices.ContainsFunc(slices.Collect(maps.Keys(l.underWay)), now.After)
		failures := slices.Clone(l.failures)
		l.mu.Unlock()
		if !waits {
			return slices.DeleteFunc(failures, func(f Failure) bool { return f.From.After(now) })
		}
		time.Sleep(time.Millisecond)
	}
}

// Made is how many requests were made until now.
func (l *Load) Made() int64 { return l.requests.Load() }

// WantNone ends the load and fails the test if any request failed that no span
// touches. It logs how many were made, and failed.
func (l *Load) WantNone(tb testing.TB, what string, but ...Span) {
	tb.Helper()
	l.WantAtMost(tb, what, 0, but...)
}

// enough requests say something.
const enough = 100

// WantAtMost is WantNone where so many requests may fail.
func (l *Load) WantAtMost(tb testing.TB, what string, most int, but ...Span) {
	tb.Helper()
	// What is over in a moment leaves time for few: it goes on until there are enough.
	for end := time.Now().Add(10 * time.Second); l.Made() < enough && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	requests, failed := l.End()
	tb.Logf("%s: %d requests, %d failed", what, requests, failed)
	if requests < enough {
		tb.Errorf("%s: only %d requests were made: the load proves nothing", what, requests)
	}
	if bad := Outside(l.Failures(), but...); len(bad) > most {
		tb.Errorf("%s: %d of %d requests failed that were not on what was killed, at most %d may:%s", what, len(bad), requests, most, Some(bad))
	}
}
