// Command readme is what the README's Compose file runs beside its database: web,
// the public front that asks the API by name, and api, which keeps notes in
// PostgreSQL. The database's password comes as DB_PASSWORD.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

func main() {
	if err := run(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if len(os.Args) > 1 && os.Args[1] == "check" {
		return check()
	}
	if os.Getenv("DB_PASSWORD") == "" {
		return serve(ctx, http.HandlerFunc(front))
	}
	return serve(ctx, http.HandlerFunc(notes))
}

// check is the API's health: whether it reads from the database.
func check() error {
	resp, err := http.Get("http://127.0.0.1:8080/")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, b)
	}
	return err
}

func serve(ctx context.Context, h http.Handler) error {
	srv := &http.Server{Addr: ":8080", Handler: h, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = srv.Shutdown(grace)
	}()
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// front answers with what the API says.
func front(w http.ResponseWriter, r *http.Request) {
	req, err := http.NewRequestWithContext(r.Context(), r.Method, "http://api:8080/?"+r.URL.RawQuery, nil)
	if err == nil {
		var resp *http.Response
		if resp, err = http.DefaultClient.Do(req); err == nil {
			defer resp.Body.Close()
			w.WriteHeader(resp.StatusCode)
			_, _ = io.Copy(w, resp.Body)
			return
		}
	}
	http.Error(w, err.Error(), http.StatusBadGateway)
}

// notes keeps a note that is posted, and answers with all of them.
func notes(w http.ResponseWriter, r *http.Request) {
	all, err := read(r.Context(), r.Method == http.MethodPost, r.FormValue("note"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	for _, n := range all {
		fmt.Fprintln(w, n)
	}
}

func read(ctx context.Context, add bool, note string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	db := url.URL{Scheme: "postgres", User: url.UserPassword("postgres", os.Getenv("DB_PASSWORD")), Host: "db:5432", Path: "/postgres", RawQuery: "sslmode=disable"}
	conn, err := pgx.Connect(ctx, db.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, "create table if not exists notes (id serial primary key, note text)"); err != nil {
		return nil, err
	}
	if add {
		if _, err := conn.Exec(ctx, "insert into notes (note) values ($1)", note); err != nil {
			return nil, err
		}
	}
	rows, err := conn.Query(ctx, "select note || ', kept by ' || split_part(version(), ' ', 1) from notes order by id")
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}
