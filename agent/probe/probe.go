package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// Config says how often to check, and what makes a verdict.
type Config struct {
	Interval    time.Duration // between checks of a task that is good; 0 means 10s
	Timeout     time.Duration // of one check; 0 means 3s
	Retries     int           // failures in a row that make it bad; 0 means 3
	StartPeriod time.Duration // failures before do not count
	// StartInterval is the pause between checks before the first success; 0
	// means 50ms, growing to the interval or a second.
	StartInterval time.Duration
}

// Of returns the configuration that a health declaration asks for.
func Of(h cluster.Health) Config {
	return Config{
		Interval: h.Interval.D(), Timeout: h.Timeout.D(), Retries: h.Retries,
		StartPeriod: h.StartPeriod.D(), StartInterval: h.StartInterval.D(),
	}
}

func (c Config) withDefaults() Config {
	if c.Interval <= 0 {
		c.Interval = 10 * time.Second
	}
	if c.Timeout <= 0 {
		c.Timeout = 3 * time.Second
	}
	if c.Retries <= 0 {
		c.Retries = 3
	}
	return c
}

// Result is a verdict that differs from the one before.
type Result struct {
	Good bool
	// Starting: no verdict yet. Reason says what the last check saw.
	Starting bool
	Reason   string
}

// Run checks until ctx ends and calls report with the first verdict, with every
// change of it, and while starting when the reason changes. good says that the
// task is known to be good already.
func Run(ctx context.Context, c Config, good bool, check func(context.Context) error, report func(Result)) {
	c = c.withDefaults()
	starting, failures := !good, 0
	pause := c.firstPause()
	grace := time.NewTimer(c.StartPeriod + time.Duration(c.Retries)*c.Interval)
	defer grace.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	expired, last := false, ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-grace.C:
			expired = true
			continue
		case <-timer.C:
		}
		err := c.once(ctx, check)
		if ctx.Err() != nil {
			return
		}
		switch {
		case err == nil:
			if !good {
				report(Result{Good: true})
			}
			good, starting, failures = true, false, 0
			pause = c.Interval
		case starting && !expired:
			if s := err.Error(); s != last {
				last = s
				report(Result{Starting: true, Reason: s})
			}
			pause = c.grow(pause)
		default:
			failures++
			if starting {
				failures = c.Retries // those of the start have been waited out
			}
			if failures == c.Retries {
				report(Result{Reason: err.Error()})
				good = false
			}
			starting = false
			pause = c.Interval
		}
		timer.Reset(pause)
	}
}

func (c Config) firstPause() time.Duration {
	if c.StartInterval > 0 {
		return c.StartInterval
	}
	return min(50*time.Millisecond, c.Interval)
}

func (c Config) grow(p time.Duration) time.Duration {
	if c.StartInterval > 0 {
		return c.StartInterval
	}
	return min(p*3/2, time.Second, c.Interval)
}

func (c Config) once(ctx context.Context, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	err := check(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %s", c.Timeout)
	}
	return err
}

// TCP succeeds when a connection to addr can be opened.
func TCP(ctx context.Context, addr string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return dialError(err)
	}
	return conn.Close()
}

// HTTP succeeds when a GET of the path at addr answers with a status from 200 to 399.
func HTTP(ctx context.Context, addr, path string) error {
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "fairlead-probe")
	req.Close = true // a kept connection would count as a client when the task stops
	// A redirect is an answer; and no proxy stands between a node and its containers.
	client := http.Client{
		Transport:     &http.Transport{Proxy: nil, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return dialError(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
	if resp.StatusCode < 200 || resp.StatusCode > 399 {
		if text := strings.Join(strings.Fields(string(body)), " "); text != "" {
			return fmt.Errorf("GET %s: %s: %s", path, resp.Status, text)
		}
		return fmt.Errorf("GET %s: %s", path, resp.Status)
	}
	return nil
}

// dialError leaves out the addresses that differ from attempt to attempt.
func dialError(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Addr != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			return context.DeadlineExceeded
		}
		return fmt.Errorf("%s %s: %w", op.Op, op.Addr, op.Err)
	}
	return err
}
