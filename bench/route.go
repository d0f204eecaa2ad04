package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// measureRoute deploys one routed replica after the other, and asks Traefik for
// each every few milliseconds from before it exists.
func measureRoute(ctx context.Context, b *bench) error {
	image, err := b.app(ctx)
	if err != nil {
		return err
	}
	return b.with(ctx, func(n *node) error {
		var ms []float64
		for i := range b.samples {
			took, err := b.routeLive(ctx, n, image, fmt.Sprintf("route%d", i))
			if err != nil {
				return err
			}
			ms = append(ms, float64(took.Microseconds())/1000)
		}
		b.say("  %d samples, %.0f to %.0f ms", len(ms), quantile(ms, 0), quantile(ms, 1))
		b.set("route_live_ms_p50", quantile(ms, 0.5))
		b.set("route_live_ms_p99", quantile(ms, 0.99))
		return nil
	})
}

// routeLive is the time from when a container serves to the first answer
// through Traefik.
func (b *bench) routeLive(ctx context.Context, n *node, image, app string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	host := app + ".example.com"
	web := service(image, "1", 1)
	web["x-fairlead"].(map[string]any)["routes"] = []map[string]any{{"host": host, "port": 8080}}
	path, err := n.compose(file(app, map[string]any{"web": web}))
	if err != nil {
		return 0, err
	}
	type first struct {
		at  time.Time
		err error
	}
	answered := make(chan first, 1)
	go func() {
		at, err := n.firstAnswer(ctx, "http://"+host+"/")
		answered <- first{at, err}
	}()
	if _, err := n.fairlead(ctx, "deploy", "--detach", "-f", path); err != nil {
		return 0, err
	}
	f := <-answered
	if f.err != nil {
		return 0, f.err
	}
	tasks, err := n.client.Tasks(ctx, cluster.AppName(app), false)
	if err != nil {
		return 0, err
	}
	// The application prints this just before it listens; the engine notes when.
	serves, err := b.engine.logged(ctx, tasks[0].Container, "listening")
	if err != nil {
		return 0, err
	}
	_, err = n.fairlead(ctx, "rm", app, "--yes")
	return f.at.Sub(serves), err
}

// firstAnswer asks every 4 ms until the answer is good.
func (n *node) firstAnswer(ctx context.Context, url string) (time.Time, error) {
	c := n.traefik(true)
	defer c.CloseIdleConnections()
	tick := time.NewTicker(4 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := good(ctx, c, http.MethodGet, url, nil); err == nil && ok {
			return time.Now(), nil
		}
		select {
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("no answer from %s: %w", url, ctx.Err())
		case <-tick.C:
		}
	}
}

// good reports whether a request is answered with 200 and a whole body.
func good(ctx context.Context, c *http.Client, method, url string, body io.Reader) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return false, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return false, err
	}
	defer func() { _ = resp.Body.Close() }()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode == http.StatusOK, err
}
