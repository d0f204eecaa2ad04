package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

// Watch calls emit with how far an app's change has come, at each change, until
// it is done; release 0 means the current one. The last Progress says how it ended.
func (c *Client) Watch(ctx context.Context, app cluster.AppName, release int, emit func(v1.Progress) error) error {
	q := url.Values{"release": {strconv.Itoa(release)}}
	return stream(ctx, c, path("apps", string(app), "watch"), q, "progress", emit)
}

// LogQuery selects log lines.
type LogQuery struct {
	cluster.LogOptions
	// Task, when set, is the one task to read, whatever the address.
	Task cluster.TaskID
}

// Logs calls emit with the log lines of an app (empty service), a service or a
// slot. Without Follow the lines of all tasks come in the order of their times;
// with Follow as they arrive, also from tasks that start later.
func (c *Client) Logs(ctx context.Context, a cluster.Address, o LogQuery, emit func(cluster.LogLine) error) error {
	q := addressQuery(a)
	q.Set("tail", strconv.Itoa(o.Tail))
	if o.Follow {
		q.Set("follow", "true")
	}
	if !o.Since.IsZero() {
		q.Set("since", o.Since.Format(time.RFC3339Nano))
	}
	if o.Task != "" {
		q.Set("task", string(o.Task))
	}
	return stream(ctx, c, path("apps", string(a.App), "logs"), q, "line", emit)
}

// Events calls emit with every change in the cluster (or of an app) until ctx ends.
func (c *Client) Events(ctx context.Context, app cluster.AppName, emit func(v1.Event) error) error {
	return stream(ctx, c, path("events"), appQuery(app), "change", emit)
}

// stream reads server-sent events of one type until the server says "end".
func stream[T any](ctx context.Context, c *Client, p string, q url.Values, event string, emit func(T) error) error {
	req, err := c.request(ctx, http.MethodGet, p, q, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "text/event-stream")
	resp, err := c.send(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	err = readEvents(resp.Body, func(name string, data []byte) (bool, error) {
		switch name {
		case event:
			var v T
			if err := json.Unmarshal(data, &v); err != nil {
				return false, fmt.Errorf("read an event of %s: %w", c.where, err)
			}
			return false, emit(v)
		case "error":
			e := &Error{}
			if err := json.Unmarshal(data, &e.Problem); err != nil {
				return false, fmt.Errorf("read an error of %s: %w", c.where, err)
			}
			return false, e
		}
		return name == "end", nil
	})
	if broken, ok := errors.AsType[*brokenError](err); ok {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return cluster.Transientf("the server at %s ended the stream: %w", c.where, broken.err)
	}
	return err
}

// brokenError is the connection's end, as opposed to what the caller's emit returned.
type brokenError struct{ err error }

func (e *brokenError) Error() string { return e.err.Error() }
func (e *brokenError) Unwrap() error { return e.err }

// readEvents calls f with every event until f says it is over.
func readEvents(r io.Reader, f func(name string, data []byte) (over bool, err error)) error {
	br := bufio.NewReaderSize(r, 32<<10)
	var name string
	var data []byte
	for {
		line, err := br.ReadBytes('\n')
		if err != nil {
			return &brokenError{err}
		}
		line = bytes.TrimRight(line, "\r\n")
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "event":
			name = string(value)
		case "data":
			if data != nil {
				data = append(data, '\n')
			}
			data = append(data, value...)
		case "":
			if len(line) > 0 || name == "" { // a comment, or nothing gathered yet
				continue
			}
			over, err := f(name, data)
			if over || err != nil {
				return err
			}
			name, data = "", nil
		}
	}
}
