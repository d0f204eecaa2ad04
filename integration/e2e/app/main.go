// Command app is what the end-to-end tests deploy: a web server whose health and
// speed the environment sets, and a caller that counts failed calls from inside.
//
//	VERSION   what it answers with
//	BROKEN    "health": never healthy; "crash": exits with 3 after a moment
//	UPSTREAM  host:port that it calls all the time, counting; GET /calls tells
//	EVERY     how often each of its callers does, 10ms
//	FIRST     name that it looks up before anything else; GET /first tells
//
// `app burn 1m` keeps all cores busy for so long, `app wait 1m` none.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "check" {
		resp, err := http.Get("http://127.0.0.1:8080/health")
		if err != nil {
			fmt.Println("not healthy:", err)
			os.Exit(1)
		}
		if resp.StatusCode != http.StatusOK {
			b, _ := io.ReadAll(resp.Body)
			fmt.Printf("not healthy: %s", b)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "once" {
		fmt.Println("done")
		return
	}
	if len(os.Args) > 2 && (os.Args[1] == "burn" || os.Args[1] == "wait") {
		d, err := time.ParseDuration(os.Args[2])
		if err != nil {
			fmt.Println(err)
			os.Exit(2)
		}
		if os.Args[1] == "wait" {
			time.Sleep(d)
			return
		}
		end := time.Now().Add(d)
		var all sync.WaitGroup
		for range runtime.NumCPU() {
			all.Go(func() {
				for time.Now().Before(end) {
				}
			})
		}
		all.Wait()
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	host, _ := os.Hostname()
	if os.Getenv("BROKEN") == "crash" {
		fmt.Println("this version cannot start")
		os.Exit(3)
	}
	first := ""
	if name := os.Getenv("FIRST"); name != "" {
		first = lookup(ctx, name)
	}
	calls := newCalls(host, os.Getenv("UPSTREAM"), os.Getenv("EVERY"))
	go calls.run(ctx)

	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%s %s\n", os.Getenv("VERSION"), host)
	})
	mux.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) {
		if os.Getenv("BROKEN") == "health" {
			http.Error(w, "this version is broken", http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("/burn", func(w http.ResponseWriter, _ *http.Request) {
		for end := time.Now().Add(20 * time.Millisecond); time.Now().Before(end); {
		}
	})
	mux.HandleFunc("/from", func(w http.ResponseWriter, r *http.Request) {
		from, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprint(w, from)
	})
	mux.HandleFunc("/env", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, os.Getenv(r.FormValue("name"))) })
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		b, err := os.ReadFile(r.FormValue("name"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
		}
		_, _ = w.Write(b)
	})
	mux.HandleFunc("/fetch", func(w http.ResponseWriter, r *http.Request) {
		client := http.Client{Timeout: patience(r), Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Get(r.FormValue("url"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		_, _ = io.Copy(w, resp.Body)
	})
	mux.HandleFunc("/calls", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(calls.report()) })
	mux.HandleFunc("/first", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, first) })
	mux.HandleFunc("/lookup", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, lookup(r.Context(), r.FormValue("name"))) })
	mux.HandleFunc("/dial", func(w http.ResponseWriter, r *http.Request) {
		c, err := net.DialTimeout("tcp", r.FormValue("addr"), patience(r))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		c.Close()
	})
	// A kept connection that is closed while it is idle may have a request on its way.
	// So callers are asked to let go first, in the answers that they get meanwhile.
	srv := &http.Server{Addr: ":8080", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ctx.Err() != nil {
			w.Header().Set("Connection", "close")
		}
		mux.ServeHTTP(w, r)
	})}
	kept := &kept{since: map[net.Conn]time.Time{}}
	srv.ConnState = kept.note
	go func() {
		<-ctx.Done()
		kept.letGo()
		grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = srv.Shutdown(grace)
	}()
	fmt.Println("listening")
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		fmt.Println(err)
		os.Exit(1)
	}
}

// kept are the connections that wait for another request, and since when.
type kept struct {
	mu    sync.Mutex
	since map[net.Conn]time.Time
}

func (k *kept) note(c net.Conn, s http.ConnState) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if delete(k.since, c); s == http.StateIdle {
		k.since[c] = time.Now()
	}
}

// letGo gives callers a second, and those that asked all the time longer: a machine that
// has stood still for a moment still has their next request to come.
func (k *kept) letGo() {
	told := time.Now()
	busy := func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		for _, since := range k.since {
			if since.After(told.Add(-2 * time.Second)) {
				return true
			}
		}
		return false
	}
	for time.Sleep(time.Second); busy() && time.Since(told) < 3*time.Second; {
		time.Sleep(50 * time.Millisecond)
	}
}

// patience is how long a request wants something waited for: short, unless it says so.
func patience(r *http.Request) time.Duration {
	if d, err := time.ParseDuration(r.FormValue("wait")); err == nil {
		return d
	}
	return 2 * time.Second
}

// lookup says what a name is, or why it is nothing.
func lookup(ctx context.Context, name string) string {
	ctx, cancel := context.WithTimeout(ctx, 12*time.Second)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", name)
	var derr *net.DNSError
	switch {
	case errors.As(err, &derr) && derr.IsNotFound:
		return "not found"
	case err != nil:
		return err.Error()
	}
	return strings.Trim(fmt.Sprint(addrs), "[]")
}

// calls are requests from inside: by name with new connections, by name with
// kept ones, and to the address that the name had at the start.
type calls struct {
	host, upstream               string
	every                        time.Duration
	requests, failed, unresolved atomic.Int64
	lookups, late                atomic.Int64 // of the name alone; not answered within a second
	mu                           sync.Mutex
	examples                     []string
	failures                     []failure
}

// failure is when a call that failed was made, and when it had failed.
type failure struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
	Text string    `json:"text"`
}

const mostFailures = 500 // that are told

type report struct {
	Host       string    `json:"host"` // whose calls they are
	Requests   int64     `json:"requests"`
	Failed     int64     `json:"failed"`
	Unresolved int64     `json:"unresolved"` // of the failed ones, those that got no address for the name
	Lookups    int64     `json:"lookups"`
	Late       int64     `json:"late"`
	Examples   []string  `json:"examples"`
	Failures   []failure `json:"failures"`
}

func newCalls(host, upstream, every string) *calls {
	c := &calls{host: host, upstream: upstream, every: 10 * time.Millisecond}
	if d, err := time.ParseDuration(every); err == nil && d > 0 {
		c.every = d
	}
	return c
}

func (c *calls) report() report {
	c.mu.Lock()
	defer c.mu.Unlock()
	return report{c.host, c.requests.Load(), c.failed.Load(), c.unresolved.Load(), c.lookups.Load(), c.late.Load(), c.examples, slices.Clone(c.failures)}
}

func (c *calls) run(ctx context.Context) {
	host, port, err := net.SplitHostPort(c.upstream)
	if err != nil {
		return
	}
	var ips []string
	for len(ips) == 0 && ctx.Err() == nil {
		ips, _ = net.DefaultResolver.LookupHost(ctx, host)
		time.Sleep(50 * time.Millisecond)
	}
	if len(ips) == 0 {
		return
	}
	once := net.JoinHostPort(ips[0], port)
	go c.lookUp(ctx, host)
	go c.worker(ctx, "by name, new", c.upstream, true)
	go c.worker(ctx, "by name, kept", c.upstream, false)
	go c.worker(ctx, "resolved once", once, true)
}

// lookUp asks for the name as fast as answers come, at most as often as callers call.
func (c *calls) lookUp(ctx context.Context, host string) {
	tick := time.NewTicker(c.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		soon, cancel := context.WithTimeout(ctx, time.Second)
		c.lookups.Add(1)
		if _, err := net.DefaultResolver.LookupHost(soon, host); err != nil && ctx.Err() == nil {
			c.late.Add(1)
		}
		cancel()
	}
}

func (c *calls) worker(ctx context.Context, name, addr string, fresh bool) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: fresh}}
	tick := time.NewTicker(c.every)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		c.requests.Add(1)
		began := time.Now()
		var err error
		var resp *http.Response
		if n%2 == 0 {
			resp, err = client.Get("http://" + addr + "/")
		} else {
			resp, err = client.Post("http://"+addr+"/", "text/plain", strings.NewReader("hello"))
		}
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if err == nil && resp.StatusCode != http.StatusOK {
				err = errors.New(resp.Status)
			}
		}
		if err != nil && ctx.Err() == nil {
			c.failed.Add(1)
			if dns := new(net.DNSError); errors.As(err, &dns) {
				c.unresolved.Add(1)
			}
			c.mu.Lock()
			if len(c.examples) < 10 {
				c.examples = append(c.examples, time.Now().Format("15:04:05.000 ")+name+": "+err.Error())
			}
			if len(c.failures) < mostFailures {
				c.failures = append(c.failures, failure{began, time.Now(), name + ": " + err.Error()})
			}
			c.mu.Unlock()
		}
	}
}
