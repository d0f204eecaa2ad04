package client_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/pki"
)

// old makes a server's answers old.
func old(name string, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(v1.HeaderStale, "42")
		w.Header().Set(v1.HeaderStaleServer, name)
		next(w, r)
	}
}

func named(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_ = json.NewEncoder(w).Encode(map[string]string{"version": name})
	}
}

func starting(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }

// What a server says that is cut off from the majority is asked of another one; where none
// is current, it is said that it may be old.
func TestAsksAServerThatIsCurrent(t *testing.T) {
	for name, c := range map[string]struct {
		servers []http.HandlerFunc
		want    string // what answers
		then    string // what answers the next question
		said    string
	}{
		"current":               {servers: []http.HandlerFunc{named("n1"), named("n2")}, want: "n1", then: "n1"},
		"cut off":               {servers: []http.HandlerFunc{old("n1", named("n1")), named("n2")}, want: "n2", then: "n2"},
		"the second too":        {servers: []http.HandlerFunc{old("n1", named("n1")), old("n2", named("n2")), named("n3")}, want: "n3", then: "n3"},
		"all of them":           {servers: []http.HandlerFunc{old("n1", named("n1")), old("n2", named("n2"))}, want: "n1", then: "n1", said: "n1 42s"},
		"the only one":          {servers: []http.HandlerFunc{old("n1", named("n1"))}, want: "n1", then: "n1", said: "n1 42s"},
		"it has read nothing":   {servers: []http.HandlerFunc{starting, named("n2")}, want: "n2", then: "n2"},
		"the other one has not": {servers: []http.HandlerFunc{old("n1", named("n1")), starting}, want: "n1", then: "n1", said: "n1 42s"},
	} {
		t.Run(name, func(t *testing.T) {
			said := ""
			cl := clusterOf(t, client.Options{Stale: func(server string, since time.Duration) { said = server + " " + since.String() }}, c.servers...)
			got, err := cl.Server(t.Context())
			if err != nil || got.Version != c.want || said != c.said {
				t.Fatalf("asked %q, %v, and said %q; want %s and %q", got.Version, err, said, c.want, c.said)
			}
			if next, err := cl.Server(t.Context()); err != nil || next.Version != c.then {
				t.Errorf("then asked %q, %v; want %s", next.Version, err, c.then)
			}
		})
	}
}

// A change is asked for once, as it may have been made: of a server that is current, where
// there is one.
func TestAsksForAChangeOnce(t *testing.T) {
	for name, c := range map[string]struct {
		servers []http.HandlerFunc
		want    string // who is asked for the changes
		looked  int    // how often it is asked who is current
	}{
		"current":             {servers: []http.HandlerFunc{named("n1"), named("n2")}, want: "11", looked: 1},
		"cut off":             {servers: []http.HandlerFunc{old("n1", named("n1")), named("n2")}, want: "22", looked: 2},
		"it has read nothing": {servers: []http.HandlerFunc{starting, named("n2")}, want: "22", looked: 2},
		"all of them":         {servers: []http.HandlerFunc{old("n1", named("n1")), old("n2", named("n2"))}, want: "11", looked: 2},
		"the only one":        {servers: []http.HandlerFunc{old("n1", named("n1"))}, want: "11"},
		"it fails":            {servers: []http.HandlerFunc{failing, named("n2")}, want: "11", looked: 1},
	} {
		t.Run(name, func(t *testing.T) {
			asked, looked := "", 0
			for i, next := range c.servers {
				c.servers[i] = func(w http.ResponseWriter, r *http.Request) {
					if r.Method == http.MethodGet {
						looked++
					} else {
						asked += fmt.Sprint(i + 1)
					}
					next(w, r)
				}
			}
			cl := clusterOf(t, client.Options{}, c.servers...)
			for range 2 {
				_, _ = cl.Rollback(t.Context(), "shop", 0)
			}
			if asked != c.want || looked != c.looked {
				t.Errorf("%s were asked for two changes, want %s; %d looks, want %d", asked, c.want, looked, c.looked)
			}
		})
	}
}

func failing(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }

// clusterOf is a client of servers that share an authority.
func clusterOf(t *testing.T, o client.Options, handlers ...http.HandlerFunc) *client.Client {
	t.Helper()
	p, err := pki.Open(filepath.Join(t.TempDir(), "pki"), pki.Host{Node: "n1"}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	o.Fingerprint = p.Fingerprint()
	for i, h := range handlers {
		s := servingBy(t, p, h)
		if i == 0 {
			o.URL = s.URL
		}
		o.Others = append(o.Others, strings.TrimPrefix(s.URL, "https://"))
	}
	cl, err := client.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// A server that takes a connection and says nothing is moved on from.
func TestMovesOnFromAServerThatHangs(t *testing.T) {
	end := make(chan struct{})
	hangs := func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-end:
		case <-r.Context().Done():
		}
	}
	var mu sync.Mutex
	var changes []string
	of := func(name string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet {
				mu.Lock()
				changes = append(changes, name)
				mu.Unlock()
			}
			named(name)(w, r)
		}
	}
	cl := clusterOf(t, client.Options{}, hangs, old("n2", of("n2")), of("n3"))
	defer close(end) // before the servers are closed
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() { _, _ = cl.Rollback(t.Context(), "shop", 0) })
	}
	both.Wait()
	if fmt.Sprint(changes) != "[n3 n3]" {
		t.Errorf("asked for two changes at once are %v", changes)
	}
}
