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
	"reflect"
	"strconv"
	"time"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

// Watch calls emit with how far an app's change has come, at each change, until it is done;
// release 0 means the current one. The last Progress says how it ended. With told a stream that
// breaks goes on through another server, or the same when it is back; it is told once each time why,
// and what such a server has not heard of yet is asked for again for a while.
func (c *Client) Watch(ctx context.Context, app cluster.AppName, release int, told func(error), emit func(v1.Progress) error) error {
	r := request{path: path("apps", string(app), "watch"), event: "progress"}
	b := broken{told: told, pause: firstPause}
	if told != nil {
		r.silence = silence
	}
	var last v1.Progress
	for missing := 0; ; {
		r.query = url.Values{"release": {strconv.Itoa(release)}}
		var refused error
		err := stream(ctx, c, r, func(p v1.Progress) error {
			if !reflect.DeepEqual(p, last) { // else the next one breaks as well
				b.said, b.pause = false, firstPause
			}
			last, release, missing = p, p.Release, 0
			refused = emit(p)
			return refused
		})
		switch kind := cluster.KindOf(err); {
		case err == nil || refused != nil || told == nil || ctx.Err() != nil:
			return err
		case last.Done:
			return nil
		case kind == cluster.KindNotFound && b.said && missing < behind:
			missing++
		case kind != cluster.KindTransient:
			return err
		}
		if err := b.wait(ctx, err); err != nil {
			return err
		}
	}
}

// firstPause and lastPause are between attempts to go on with a stream.
const (
	firstPause = 200 * time.Millisecond
	lastPause  = 2 * time.Second
)

// behind is how often in a row a server may not know what another one did: it may have just come back.
const behind = 5

// broken is a stream that no server goes on with yet.
type broken struct {
	told  func(error)
	pause time.Duration
	said  bool
}

// wait says why it broke, and waits a little before the next attempt, longer each time.
func (b *broken) wait(ctx context.Context, err error) error {
	if !b.said {
		b.said = true
		b.told(err)
	}
	t := time.NewTimer(b.pause)
	defer t.Stop()
	b.pause = min(2*b.pause, lastPause)
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// LogQuery selects log lines.
type LogQuery struct {
	cluster.LogOptions
	// Task, when set, is the one task to read, whatever the address.
	Task cluster.TaskID
	// Broken, when set, makes a log that is followed go on through another server, or the
	// same when it is back, from where it was: nothing is lost, nothing repeated. It is told
	// once each time why the log stopped.
	Broken func(error)
}

// Events calls emit with every change in the cluster (or of an app) until ctx ends.
func (c *Client) Events(ctx context.Context, app cluster.AppName, emit func(v1.Event) error) error {
	return stream(ctx, c, request{path: path("events"), query: appQuery(app), event: "change"}, emit)
}

// request is a question that is answered by a stream of events.
type request struct {
	path  string
	query url.Values
	event string // their name
	// silence is how long the server may say nothing at all; 0: for ever.
	silence time.Duration
	// began is told when the server answered, by the server's own clock; may be nil.
	began func(time.Time)
}

// stream reads server-sent events of one type until the server says "end".
func stream[T any](ctx context.Context, c *Client, r request, emit func(T) error) error {
	sctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := c.request(sctx, http.MethodGet, r.path, r.query, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "text/event-stream")
	resp, err := c.send(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if at, err := http.ParseTime(resp.Header.Get("Date")); err == nil && r.began != nil {
		r.began(at)
	}
	body := io.Reader(resp.Body)
	if r.silence > 0 {
		body = &heard{body, r.silence, cancel}
	}
	err = readEvents(body, func(name string, data []byte) (bool, error) {
		switch name {
		case r.event:
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

// heard is a stream that ends when nothing comes for a time: a server whose machine lost
// its power does not say that it is gone.
type heard struct {
	io.Reader
	silence time.Duration
	end     func()
}

func (h *heard) Read(b []byte) (int, error) {
	t := time.AfterFunc(h.silence, h.end)
	defer t.Stop()
	return h.Reader.Read(b)
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
