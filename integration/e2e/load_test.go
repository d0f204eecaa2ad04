package e2e

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

// load is requests at a bounded rate from several workers, and what became of them.
type load struct {
	requests, failed atomic.Int64
	mu               sync.Mutex
	examples         []string
	failures         []failure
	stop             context.CancelFunc
	done             sync.WaitGroup
}

// failure is when a request that failed was made, and when it had failed.
type failure struct {
	from, to time.Time
	text     string
}

// request is one kind of request that a load makes.
type request struct {
	name      string
	method    string
	url       string
	body      string
	keepAlive bool
}

// everyKind is GET and POST, with connections kept and not.
func everyKind(url string) []request {
	return []request{
		{"GET kept", http.MethodGet, url, "", true},
		{"GET new", http.MethodGet, url, "", false},
		{"POST kept", http.MethodPost, url, "hello", true},
		{"POST new", http.MethodPost, url, "hello", false},
	}
}

// startLoad makes each request every 5 ms, one worker a kind, until end is called
// or four minutes have passed.
func (n *node) startLoad(kinds []request) *load {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	l := &load{stop: cancel}
	for _, k := range kinds {
		client := n.client(k.keepAlive)
		l.done.Go(func() {
			defer client.CloseIdleConnections()
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				l.one(client, k)
			}
		})
	}
	n.t.Cleanup(func() { cancel(); l.done.Wait() })
	return l
}

func (l *load) one(client *http.Client, k request) {
	l.requests.Add(1)
	start := time.Now()
	if err := fetch(client, k); err != nil {
		l.failed.Add(1)
		f := failure{from: start, to: time.Now()}
		f.text = fmt.Sprintf("%s %s after %s: %v", start.Format("15:04:05.000"), k.name, f.to.Sub(start).Round(time.Millisecond), err)
		l.mu.Lock()
		if l.failures = append(l.failures, f); len(l.examples) < 10 {
			l.examples = append(l.examples, f.text)
		}
		l.mu.Unlock()
	}
}

func fetch(client *http.Client, k request) error {
	req, err := http.NewRequest(k.method, k.url, strings.NewReader(k.body))
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

// end stops the load and returns how many requests were made and failed.
func (l *load) end() (requests, failed int64) {
	l.stop()
	l.done.Wait()
	return l.requests.Load(), l.failed.Load()
}

// span is a time in which requests may fail.
type span struct{ from, to time.Time }

// outside returns the failures of requests that no span touches.
func (l *load) outside(spans ...span) (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.failures {
		if !slices.ContainsFunc(spans, func(s span) bool { return f.from.Before(s.to) && f.to.After(s.from) }) {
			out = append(out, f.text)
		}
	}
	return out
}

// wantNone ends the load and fails the test if any request failed.
func (l *load) wantNone(t *testing.T, what string) {
	t.Helper()
	requests, failed := l.end()
	t.Logf("%s: %d requests, %d failed", what, requests, failed)
	if failed > 0 {
		t.Errorf("%s: %d of %d requests failed:\n%s", what, failed, requests, strings.Join(l.examples, "\n"))
	}
	if requests < 100 {
		t.Errorf("%s: only %d requests were made: the load proves nothing", what, requests)
	}
}
