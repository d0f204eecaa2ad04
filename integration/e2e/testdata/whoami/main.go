// Whoami tells who asks it, with the flags and the paths of traefik/whoami that the
// package of that name uses.
package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"
)

func main() {
	port := flag.String("port", "80", "to listen on")
	name := flag.String("name", "", "in front of each answer")
	flag.Parse()
	host, err := os.Hostname()
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("/health", func(http.ResponseWriter, *http.Request) {})
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if *name != "" {
			_, _ = fmt.Fprintln(w, "Name:", *name)
		}
		_, _ = fmt.Fprintln(w, "Hostname:", host)
		_, _ = fmt.Fprintln(w, "RemoteAddr:", r.RemoteAddr)
		_ = r.Write(w)
	})
	s := http.Server{Addr: ":" + *port, ReadHeaderTimeout: 10 * time.Second}
	log.Fatal(s.ListenAndServe())
}
