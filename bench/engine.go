package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// engine is the Docker API without anything between: the floor that Fairlead is
// compared with.
type engine struct{ http *http.Client }

const (
	floorLabel  = "io.fairlead.bench" // on what the floor makes; the value is the run's directory
	concurrency = 8
)

func newEngine() *engine {
	socket := strings.TrimPrefix(os.Getenv("DOCKER_HOST"), "unix://")
	if !strings.HasPrefix(socket, "/") {
		socket = "/var/run/docker.sock"
	}
	return engineAt(socket)
}

// engineAt is the engine behind a socket.
func engineAt(socket string) *engine {
	return &engine{http: &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		MaxIdleConnsPerHost: concurrency,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}}
}

// call makes one request and decodes its answer, if out is set.
func (e *engine) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://docker/v1.41"+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := e.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode >= 300:
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, bytes.TrimSpace(b))
	case out == nil:
		return nil
	}
	if raw, ok := out.(*[]byte); ok {
		*raw = b
		return nil
	}
	return json.Unmarshal(b, out)
}

func (e *engine) version() string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var v struct{ Version string }
	if err := e.call(ctx, http.MethodGet, "/version", nil, &v); err != nil {
		return "none"
	}
	return v.Version
}

// template is a container as Fairlead made it, to be made again without Fairlead.
type template struct {
	Config     map[string]any
	HostConfig map[string]any
}

func (e *engine) template(ctx context.Context, id string) (template, error) {
	var t template
	err := e.call(ctx, http.MethodGet, "/containers/"+id+"/json", nil, &t)
	return t, err
}

// network makes a bridge network as Fairlead has one for each app.
func (e *engine) network(ctx context.Context, run string) (string, error) {
	var r struct{ ID string }
	err := e.call(ctx, http.MethodPost, "/networks/create", map[string]any{
		"Name": run + "-floor", "Driver": "bridge", "Labels": map[string]string{floorLabel: run},
	}, &r)
	return r.ID, err
}

// start makes and starts n containers like t, eight at a time, and returns them.
func (e *engine) start(ctx context.Context, t template, network, run string, n int) ([]string, error) {
	body := maps.Clone(t.Config)
	delete(body, "Hostname") // the engine's, from the container's ID
	// Fairlead's labels have ten entries too; its own would make the agent remove these.
	labels := map[string]string{floorLabel: run}
	for i := range 9 {
		labels[fmt.Sprintf("io.fairlead.bench.%d", i)] = run
	}
	host := maps.Clone(t.HostConfig)
	host["NetworkMode"] = network
	body["Labels"], body["HostConfig"] = labels, host
	ids := make([]string, n)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(concurrency)
	for i := range n {
		g.Go(func() error {
			var r struct{ ID string }
			q := url.Values{"name": {fmt.Sprintf("%s-%d", run, i)}}
			if err := e.call(gctx, http.MethodPost, "/containers/create?"+q.Encode(), body, &r); err != nil {
				return err
			}
			ids[i] = r.ID
			return e.call(gctx, http.MethodPost, "/containers/"+r.ID+"/start", nil, nil)
		})
	}
	return ids, g.Wait()
}

// remove kills and removes containers, eight at a time.
func (e *engine) remove(ctx context.Context, ids []string) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(concurrency)
	for _, id := range ids {
		g.Go(func() error { return e.call(gctx, http.MethodDelete, "/containers/"+id+"?force=1&v=1", nil, nil) })
	}
	return g.Wait()
}

// clean removes everything that the floor of a run made.
func (e *engine) clean(ctx context.Context, run string) error {
	q := url.Values{"all": {"1"}, "filters": {fmt.Sprintf(`{"label":[%q]}`, floorLabel+"="+run)}}.Encode()
	var list []struct{ ID string }
	if err := e.call(ctx, http.MethodGet, "/containers/json?"+q, nil, &list); err != nil {
		return err
	}
	ids := make([]string, len(list))
	for i, c := range list {
		ids[i] = c.ID
	}
	if err := e.remove(ctx, ids); err != nil {
		return err
	}
	list = nil
	if err := e.call(ctx, http.MethodGet, "/networks?"+q, nil, &list); err != nil {
		return err
	}
	for _, n := range list {
		if err := e.call(ctx, http.MethodDelete, "/networks/"+n.ID, nil, nil); err != nil {
			return err
		}
	}
	return nil
}

// logged returns when a container printed a line, as the engine noted it.
func (e *engine) logged(ctx context.Context, id, line string) (time.Time, error) {
	var raw []byte
	if err := e.call(ctx, http.MethodGet, "/containers/"+id+"/logs?stdout=1&timestamps=1", nil, &raw); err != nil {
		return time.Time{}, err
	}
	for l := range strings.Lines(string(raw)) {
		if len(l) < 8 { // the header that says which stream and how long
			continue
		}
		stamp, text, _ := strings.Cut(strings.TrimSpace(l[8:]), " ")
		if text == line {
			return time.Parse(time.RFC3339Nano, stamp)
		}
	}
	return time.Time{}, fmt.Errorf("container %.12s did not print %q", id, line)
}
