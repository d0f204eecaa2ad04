// Command testapp is the program in the containers of the agent's integration
// tests, and, as task-init, the init that starts it with its secrets.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	_ "github.com/fairlead/fairlead/agent/taskinit" // mounted as a task's init, it is one
)

func main() {
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

func run(args []string) (int, error) {
	if len(args) == 0 {
		return 2, errors.New("usage: testapp serve|exit CODE|crash-after DURATION CODE|check|sleep DURATION|env NAME")
	}
	switch args[0] {
	case "serve":
		return serve()
	case "exit":
		fmt.Println("about to exit")
		code, err := strconv.Atoi(args[1])
		return code, err
	case "sleep":
		d, err := time.ParseDuration(args[1])
		if err != nil {
			return 2, err
		}
		<-time.After(d)
		return 0, nil
	case "check":
		resp, err := http.Get("http://127.0.0.1:8080/healthz")
		if err != nil {
			return 1, err
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return 1, fmt.Errorf("healthz: %s", resp.Status)
		}
		return 0, nil
	case "env":
		fmt.Println(os.Getenv(args[1]))
		return 0, nil
	case "hash-cpu":
		for i := 0; ; i++ {
			_ = i * i
		}
	}
	return 2, fmt.Errorf("testapp: %q is no command", args[0])
}

// serve answers on PORT (8080), loopback only with LOOPBACK set. It is healthy
// READY_AFTER its start and until /sick is asked for; /exit?code=N ends it.
func serve() (int, error) {
	started := time.Now()
	after, _ := time.ParseDuration(os.Getenv("READY_AFTER"))
	sick := make(chan struct{})
	isSick := func() bool {
		select {
		case <-sick:
			return true
		default:
			return os.Getenv("SICK") != "" || time.Since(started) < after
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		if isSick() {
			http.Error(w, "not feeling well", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("/sick", func(http.ResponseWriter, *http.Request) { close(sick) })
	mux.HandleFunc("/env", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, os.Getenv(r.FormValue("name"))) })
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, r.FormValue("path")) })
	mux.HandleFunc("/exit", func(_ http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.FormValue("code"))
		os.Exit(code)
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		d, _ := time.ParseDuration(r.FormValue("for"))
		<-time.After(d)
		fmt.Fprint(w, "done")
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		host, _ := os.Hostname()
		fmt.Fprint(w, "hello from "+host)
	})
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	addr := ":" + port
	if os.Getenv("LOOPBACK") != "" {
		addr = "127.0.0.1" + addr
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return 1, err
	}
	fmt.Println("serving on", addr)
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM, syscall.SIGUSR1)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = srv.Serve(l) }()
	for s := range term {
		fmt.Println("got", s)
		if os.Getenv("IGNORE_TERM") != "" {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		return 0, srv.Shutdown(ctx)
	}
	return 0, nil
}
