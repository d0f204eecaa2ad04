// Command shop is the example's four services; the name it is called by chooses one.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// ports of the services that listen; "check" asks the one of the called name.
var ports = map[string]string{"web": "8080", "api": "8081", "store": "8082"}

func main() {
	log.SetFlags(0)
	name := filepath.Base(os.Args[0])
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case len(os.Args) > 1 && os.Args[1] == "check":
		err = check(ctx, ports[name])
	case name == "worker":
		err = work(ctx, os.Getenv("API_URL"))
	case name == "web":
		err = serve(ctx, name, newWeb(os.Getenv("API_URL")))
	case name == "api":
		err = serve(ctx, name, newAPI(os.Getenv("STORE_URL"), os.Getenv("STORE_PASSWORD")))
	case name == "store":
		var h http.Handler
		if h, err = newStore("/data/orders.json", os.Getenv("STORE_PASSWORD_FILE")); err == nil {
			err = serve(ctx, name, h)
		}
	default:
		err = fmt.Errorf("called as %q: want web, api, worker or store", name)
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		log.Fatal(err)
	}
}

// serve answers until it is told to stop, then finishes what it has begun.
func serve(ctx context.Context, name string, h http.Handler) error {
	srv := &http.Server{Addr: ":" + ports[name], Handler: letGo(ctx, h), ReadHeaderTimeout: 5 * time.Second}
	done := make(chan error, 1)
	go func() { done <- srv.ListenAndServe() }()
	log.Printf("%s listens on %s", name, srv.Addr)
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	log.Printf("%s stops", name)
	time.Sleep(time.Second)
	grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return srv.Shutdown(grace)
}

// letGo asks callers to close their kept connections once ctx has ended. A server that
// closes them while they are idle can meet a request that is on its way.
func letGo(ctx context.Context, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ctx.Err() != nil {
			w.Header().Set("Connection", "close")
		}
		h.ServeHTTP(w, r)
	})
}

func check(ctx context.Context, port string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := fetch(ctx, "http://127.0.0.1:"+port+"/healthz", "")
	return err
}
