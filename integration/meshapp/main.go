// Command meshapp is the one program in the containers of the mesh's integration
// tests: a server that says its name, and clients whose findings are JSON.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Report is what a client found out.
type Report struct {
	Names  map[string]int `json:"names,omitempty"`  // answers by server
	From   map[string]int `json:"from,omitempty"`   // the caller's address, as servers saw it
	Errors map[string]int `json:"errors,omitempty"` // by kind
	Kept   map[string]int `json:"kept,omitempty"`   // answers on the one connection that was kept
	Addrs  []string       `json:"addrs,omitempty"`
	Millis int64          `json:"millis"` // of the slowest attempt
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("usage: meshapp serve|dial|udp|forge|load|lookup …")
	}
	ctx := context.Background()
	r := &recorder{Report: Report{Names: map[string]int{}, From: map[string]int{}, Errors: map[string]int{}, Kept: map[string]int{}}}
	switch cmd, args := args[0], args[1:]; {
	case cmd == "serve":
		return serve(os.Getenv("NAME"))
	case cmd == "dial" && len(args) >= 2: // ADDRESS COUNT [TIMEOUT]
		n, _ := strconv.Atoi(args[1])
		limit := wait
		if len(args) > 2 {
			var err error
			if limit, err = time.ParseDuration(args[2]); err != nil {
				return err
			}
		}
		for range n {
			r.once(ctx, args[0], limit)
		}
	case cmd == "udp" && len(args) >= 2: // ADDRESS COUNT ["keep": one socket, until another server answers]
		n, _ := strconv.Atoi(args[1])
		udp(ctx, r, args[0], n, len(args) > 2)
	case cmd == "forge" && len(args) == 2: // SOURCE ADDRESS
		return forge(args[0], args[1])
	case cmd == "load" && len(args) == 2: // ADDRESS DURATION
		d, err := time.ParseDuration(args[1])
		if err != nil {
			return err
		}
		load(ctx, r, args[0], d)
	case cmd == "lookup" && len(args) >= 1: // NAME [SERVER:PORT [NETWORK]]
		lookup(ctx, r, args)
	default:
		return fmt.Errorf("unknown arguments %q", args)
	}
	return json.NewEncoder(os.Stdout).Encode(r.Report)
}

func serve(name string) error {
	ctx := context.Background()
	pc, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp4", ":7001")
	if err != nil {
		return err
	}
	go func() {
		buf := make([]byte, 1500)
		for {
			_, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(from.String())
			_, _ = pc.WriteTo([]byte(name+" "+host), from)
		}
	}()
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp4", ":7000")
	if err != nil {
		return err
	}
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			for in := bufio.NewScanner(c); in.Scan(); {
				if _, err := fmt.Fprintf(c, "%s %s\n", name, host); err != nil {
					return
				}
			}
		}()
	}
}

type recorder struct {
	mu sync.Mutex
	Report
}

func (r *recorder) ok(name, from string, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Names[name]++
	r.From[from]++
	r.Millis = max(r.Millis, took.Milliseconds())
}

func (r *recorder) fail(err error, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Errors[kind(err)]++
	r.Millis = max(r.Millis, took.Milliseconds())
}

func kind(err error) string {
	var dnsErr *net.DNSError
	var netErr net.Error
	switch {
	case errors.As(err, &dnsErr) && dnsErr.IsNotFound:
		return "not found"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.As(err, &netErr) && netErr.Timeout():
		return "timeout"
	}
	return err.Error()
}

const (
	wait   = 3 * time.Second  // where nothing may come, which takes as long
	answer = 15 * time.Second // where one must come, from a machine that may be slow
)

// once makes a new connection and asks once.
func (r *recorder) once(ctx context.Context, addr string, limit time.Duration) {
	start := time.Now()
	c, err := (&net.Dialer{Timeout: limit}).DialContext(ctx, "tcp4", addr)
	if err != nil {
		r.fail(err, time.Since(start))
		return
	}
	defer c.Close()
	name, from, err := ask(c, bufio.NewReader(c), limit)
	if err != nil {
		r.fail(err, time.Since(start))
		return
	}
	r.ok(name, from, time.Since(start))
}

func ask(c net.Conn, in *bufio.Reader, limit time.Duration) (name, from string, err error) {
	_ = c.SetDeadline(time.Now().Add(limit))
	if _, err := fmt.Fprintln(c, "hello"); err != nil {
		return "", "", err
	}
	line, err := in.ReadString('\n')
	if err != nil {
		return "", "", err
	}
	_, err = fmt.Sscan(line, &name, &from)
	return name, from, err
}

func udp(ctx context.Context, r *recorder, addr string, n int, one bool) {
	var c net.Conn
	for range n {
		start := time.Now()
		if c == nil || !one {
			var err error
			if c, err = (&net.Dialer{}).DialContext(ctx, "udp4", addr); err != nil {
				r.fail(err, 0)
				return
			}
			defer c.Close()
		}
		_ = c.SetDeadline(time.Now().Add(answer))
		buf := make([]byte, 1500)
		_, err := c.Write([]byte("hello"))
		var k int
		if err == nil {
			k, err = c.Read(buf)
		}
		if err != nil {
			r.fail(err, time.Since(start))
			continue
		}
		var name, from string
		_, _ = fmt.Sscan(string(buf[:k]), &name, &from)
		r.ok(name, from, time.Since(start))
		if one {
			if len(r.Names) > 1 && r.Names[name] >= 10 {
				return
			}
			<-time.After(20 * time.Millisecond)
		}
	}
}

// load makes new connections without a pause, and asks on one that it keeps.
func load(ctx context.Context, r *recorder, addr string, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		c, err := (&net.Dialer{Timeout: answer}).DialContext(context.WithoutCancel(ctx), "tcp4", addr)
		if err != nil {
			r.fail(fmt.Errorf("kept connection: %w", err), 0)
			return
		}
		defer c.Close()
		in := bufio.NewReader(c)
		for ctx.Err() == nil {
			name, _, err := ask(c, in, answer)
			if err != nil {
				r.fail(fmt.Errorf("kept connection: %w", err), 0)
				return
			}
			r.mu.Lock()
			r.Kept[name]++
			r.mu.Unlock()
			<-time.After(5 * time.Millisecond)
		}
	})
	for range 2 {
		wg.Go(func() {
			for ctx.Err() == nil {
				r.once(context.WithoutCancel(ctx), addr, answer)
			}
		})
	}
	wg.Wait()
}

func lookup(ctx context.Context, r *recorder, args []string) {
	res := &net.Resolver{PreferGo: true}
	if len(args) > 1 {
		res.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			if len(args) > 2 {
				network = args[2]
			}
			return (&net.Dialer{}).DialContext(ctx, network, args[1])
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*wait)
	defer cancel()
	start := time.Now()
	var err error
	if net.ParseIP(args[0]) != nil {
		r.Addrs, err = res.LookupAddr(ctx, args[0])
	} else {
		r.Addrs, err = res.LookupHost(ctx, args[0])
	}
	slices.Sort(r.Addrs)
	r.Millis = time.Since(start).Milliseconds()
	if err != nil {
		r.Errors[kind(err)]++
	}
}
