package main

import (
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Order is one order of the shop.
type Order struct {
	ID   int       `json:"id"`
	Item string    `json:"item"`
	At   time.Time `json:"at"`
}

// Orders is what the store answers: how many there are, and the newest.
type Orders struct {
	Total  int     `json:"total"`
	Newest []Order `json:"newest"`
	API    string  `json:"api,omitempty"` // the replica of api that answered
}

func healthy(mux *http.ServeMux) {
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
}

var page = template.Must(template.New("").Parse(`<!doctype html><meta charset="utf-8"><title>The shop</title>
<style>body{font:16px/1.5 system-ui;margin:3rem auto;max-width:40rem;color:#223}td{padding:.1rem 1rem .1rem 0}footer{color:#667;margin-top:2rem}</style>
<h1>The shop</h1><p>{{.Orders.Total}} orders so far. The newest:</p>
<table>{{range .Orders.Newest}}<tr><td>#{{.ID}}<td>{{.Item}}<td>{{.At.Format "15:04:05"}}{{end}}</table>
<footer>served by {{.Web}}, asked {{.Orders.API}}</footer>
`))

// newWeb is the public front: it asks the api by its name for every page.
func newWeb(api string) http.Handler {
	host, _ := os.Hostname()
	mux := http.NewServeMux()
	healthy(mux)
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		body, err := fetch(r.Context(), api+"/orders", "")
		var orders Orders
		if err == nil {
			err = json.Unmarshal(body, &orders)
		}
		if err != nil {
			log.Print(err)
			http.Error(w, "the shop's api does not answer", http.StatusBadGateway)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		if err := page.Execute(w, map[string]any{"Orders": orders, "Web": host}); err != nil {
			log.Print(err)
		}
	})
	// Work keeps a processor busy for some milliseconds, to see the front scale.
	mux.HandleFunc("GET /work", func(w http.ResponseWriter, r *http.Request) {
		ms, _ := strconv.Atoi(r.FormValue("ms"))
		end := time.Now().Add(time.Duration(min(max(ms, 1), 1000)) * time.Millisecond)
		n := 0
		for time.Now().Before(end) {
			n++
		}
		fmt.Fprintln(w, n)
	})
	return mux
}

// newAPI stands between the front and the store, and holds the store's password.
func newAPI(store, password string) http.Handler {
	host, _ := os.Hostname()
	mux := http.NewServeMux()
	healthy(mux)
	mux.HandleFunc("GET /orders", func(w http.ResponseWriter, r *http.Request) {
		body, err := fetch(r.Context(), store+"/orders", password)
		var orders Orders
		if err == nil {
			err = json.Unmarshal(body, &orders)
		}
		if err != nil {
			log.Print(err)
			http.Error(w, "the store does not answer", http.StatusBadGateway)
			return
		}
		orders.API = host
		_ = json.NewEncoder(w).Encode(orders)
	})
	mux.HandleFunc("POST /orders", func(w http.ResponseWriter, r *http.Request) {
		if err := post(r.Context(), store+"/orders", password, r.Body); err != nil {
			log.Print(err)
			http.Error(w, "the store does not take the order", http.StatusBadGateway)
		}
	})
	return mux
}

// newStore keeps the orders in a file, and refuses whoever lacks the password.
func newStore(path, passwordFile string) (http.Handler, error) {
	password, err := os.ReadFile(passwordFile)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var all []Order
	if b, err := os.ReadFile(path); err == nil {
		if err := json.Unmarshal(b, &all); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	log.Printf("%d orders in %s", len(all), path)
	allowed := func(w http.ResponseWriter, r *http.Request) bool {
		given := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		ok := subtle.ConstantTimeCompare([]byte(given), bytes.TrimSpace(password)) == 1
		if !ok {
			http.Error(w, "wrong password", http.StatusUnauthorized)
		}
		return ok
	}
	mux := http.NewServeMux()
	healthy(mux)
	mux.HandleFunc("GET /orders", func(w http.ResponseWriter, r *http.Request) {
		if !allowed(w, r) {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		_ = json.NewEncoder(w).Encode(Orders{Total: len(all), Newest: all[max(0, len(all)-5):]})
	})
	mux.HandleFunc("POST /orders", func(w http.ResponseWriter, r *http.Request) {
		if !allowed(w, r) {
			return
		}
		var o Order
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&o); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		o.ID = len(all) + 1
		all = append(all, o)
		if err := save(path, all); err != nil {
			all = all[:len(all)-1]
			log.Print(err)
			http.Error(w, "could not save the order", http.StatusInternalServerError)
		}
	})
	return mux, nil
}

// save replaces the file in one step, so that a crash leaves the old or the new one.
func save(path string, all []Order) error {
	b, err := json.Marshal(all)
	if err != nil {
		return err
	}
	tmp := filepath.Join(filepath.Dir(path), ".orders.new")
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// work places an order every few seconds.
func work(ctx context.Context, api string) error {
	items := []string{"rope", "lantern", "compass", "oilskin", "biscuits"}
	tick := time.NewTicker(3 * time.Second)
	defer tick.Stop()
	for i := 0; ; i++ {
		b, err := json.Marshal(Order{Item: items[i%len(items)], At: time.Now().UTC()})
		if err != nil {
			return err
		}
		if err := post(ctx, api+"/orders", "", bytes.NewReader(b)); err != nil {
			log.Printf("no order placed: %v", err)
		} else {
			log.Printf("ordered: %s", items[i%len(items)])
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

var client = &http.Client{Timeout: 5 * time.Second}

func fetch(ctx context.Context, url, password string) ([]byte, error) {
	return do(ctx, http.MethodGet, url, password, nil)
}

func post(ctx context.Context, url, password string, body io.Reader) error {
	_, err := do(ctx, http.MethodPost, url, password, body)
	return err
}

func do(ctx context.Context, method, url, password string, body io.Reader) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, err
	}
	if password != "" {
		req.Header.Set("Authorization", "Bearer "+password)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, bytes.TrimSpace(b))
	}
	return b, err
}
