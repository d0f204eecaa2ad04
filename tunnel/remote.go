package tunnel

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/fairlead/fairlead/api"
	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

// Remote is a node at the other end of a tunnel.
type Remote struct {
	id       cluster.NodeID
	instance string
	conn     net.Conn
	rt       http.RoundTripper

	mu      sync.Mutex
	samples []cluster.Sample
}

var (
	_ api.TaskHost  = (*Remote)(nil)
	_ api.ImageHost = (*Remote)(nil)
)

// reply is the answer of a call: a stream of bytes, then a result.
type reply struct {
	node   cluster.NodeID
	body   io.ReadCloser
	cancel context.CancelFunc
	buf    []byte
	rest   []byte
	result json.RawMessage
	ended  error
}

// lost is what a call ends with when its tunnel fails.
func lost(node cluster.NodeID, err error) error {
	return cluster.Transientf("the tunnel to node %s failed (%w); the node opens another by itself: try again in some seconds", node, err)
}

// call makes a call. The caller closes the reply, which ends the call.
func (r *Remote) call(ctx context.Context, path string, a args, body io.Reader) (*reply, error) {
	b, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	cctx, cancel := context.WithCancel(ctx)
	u := url.URL{Scheme: "http", Host: "node", Path: "/" + path, RawQuery: url.Values{argsParam: {string(b)}}.Encode()}
	req, err := http.NewRequestWithContext(cctx, http.MethodPost, u.String(), body)
	if err != nil {
		cancel()
		return nil, err
	}
	resp, err := r.rt.RoundTrip(req)
	if err != nil {
		cancel()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, lost(r.id, err)
	}
	if resp.StatusCode != http.StatusOK {
		msg, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		_ = resp.Body.Close()
		cancel()
		return nil, fmt.Errorf("node %s does not understand %s (does it run another version?): %s %s", r.id, path, resp.Status, bytes.TrimSpace(msg))
	}
	return &reply{node: r.id, body: resp.Body, cancel: cancel, buf: make([]byte, v1.MaxFrame)}, nil
}

// Close ends the call.
func (r *reply) Close() error {
	r.cancel()
	return r.body.Close()
}

// next reads a frame of data; io.EOF after the last, when the result is there.
func (r *reply) next() (v1.FrameType, []byte, error) {
	if r.ended != nil {
		return 0, nil, r.ended
	}
	t, p, err := v1.ReadFrame(r.body, r.buf)
	switch {
	case err != nil:
		r.ended = lost(r.node, err)
	case t == v1.FrameExit:
		r.result, r.ended = bytes.Clone(p), io.EOF
	case t == v1.FrameError:
		var f failure
		if err := json.Unmarshal(p, &f); err != nil {
			r.ended = fmt.Errorf("node %s failed, and its error does not decode: %w", r.node, err)
			break
		}
		r.ended = &cluster.Error{Kind: f.Kind, Msg: f.Msg}
	default:
		return t, p, nil
	}
	return 0, nil, r.ended
}

// Read implements io.Reader over the data of the answer.
func (r *reply) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		_, b, err := r.next()
		if err != nil {
			return 0, err
		}
		r.rest = b
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// finish reads the answer to its end, with its data to w, and decodes the result.
func (r *reply) finish(w io.Writer, result any) error {
	if w == nil {
		w = io.Discard
	}
	if _, err := io.Copy(w, r); err != nil {
		return err
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(r.result, result)
}

// simple makes a call that reads nothing but a body.
func (r *Remote) simple(ctx context.Context, path string, a args, body io.Reader, progress io.Writer, result any) error {
	rep, err := r.call(ctx, path, a, body)
	if err != nil {
		return err
	}
	defer func() { _ = rep.Close() }()
	return rep.finish(progress, result)
}

// Logs implements api.TaskHost.
func (r *Remote) Logs(ctx context.Context, task cluster.TaskID, o cluster.LogOptions, emit func(cluster.LogLine) error) error {
	rep, err := r.call(ctx, callLogs, args{Task: task, Logs: o}, nil)
	if err != nil {
		return err
	}
	defer func() { _ = rep.Close() }()
	lines := rep.values(maxLogLine)
	for {
		var l cluster.LogLine
		switch err := lines.next(&l); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return err
		}
		if err := emit(l); err != nil {
			return err
		}
	}
}

// Exec implements api.TaskHost.
func (r *Remote) Exec(ctx context.Context, task cluster.TaskID, o cluster.ExecOptions, s api.Streams) (int, error) {
	in, feed := io.Pipe()
	defer func() { _ = feed.Close() }()
	o.Stdin = s.Stdin != nil
	rep, err := r.call(ctx, callExec, args{Task: task, Exec: o}, in)
	if err != nil {
		return 0, err
	}
	defer func() { _ = rep.Close() }()
	var mu sync.Mutex
	if s.Stdin != nil {
		go v1.SendInput(feed, &mu, s.Stdin)
	}
	done := make(chan struct{})
	defer close(done)
	if s.Resize != nil {
		go v1.SendSizes(feed, &mu, s.Resize, done)
	}
	for {
		t, p, err := rep.next()
		if errors.Is(err, io.EOF) {
			var code int
			return code, json.Unmarshal(rep.result, &code)
		}
		if err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return 0, err
		}
		w := s.Stdout
		if t == v1.FrameStderr {
			w = s.Stderr
		}
		if w == nil {
			continue
		}
		if _, err := w.Write(p); err != nil {
			return 0, err
		}
	}
}

// CopyTo implements api.TaskHost.
func (r *Remote) CopyTo(ctx context.Context, task cluster.TaskID, dir string, tar io.Reader) error {
	return r.simple(ctx, callCopyTo, args{Task: task, Path: dir}, tar, nil, nil)
}

// CopyFrom implements api.TaskHost.
func (r *Remote) CopyFrom(ctx context.Context, task cluster.TaskID, path string) (io.ReadCloser, error) {
	return r.tar(ctx, callCopyFrom, args{Task: task, Path: path})
}

// Save implements api.ImageHost.
func (r *Remote) Save(ctx context.Context, ref string, have cluster.ImageHave) (io.ReadCloser, error) {
	return r.tar(ctx, callSave, args{Ref: ref, Have: have})
}

// Load implements api.ImageHost.
func (r *Remote) Load(ctx context.Context, tar io.Reader, want cluster.ImageWant) error {
	return r.simple(ctx, callLoad, args{Want: want}, tar, nil, nil)
}

// ImageLayers implements api.ImageHost.
func (r *Remote) ImageLayers(ctx context.Context, ref string) (layers []string, err error) {
	err = r.simple(ctx, callLayers, args{Ref: ref}, nil, nil, &layers)
	return layers, err
}

// Have implements api.ImageHost.
func (r *Remote) Have(ctx context.Context, layers []string) (have cluster.ImageHave, err error) {
	err = r.simple(ctx, callHave, args{Layers: layers}, nil, nil, &have)
	return have, err
}

func (r *Remote) tar(ctx context.Context, path string, a args) (io.ReadCloser, error) {
	rep, err := r.call(ctx, path, a, nil)
	if err != nil {
		return nil, err
	}
	// A missing file is an answer, not the end of a stream.
	if _, _, err := rep.next(); err != nil {
		_ = rep.Close()
		return nil, err
	}
	return rep, nil
}

// Dial implements api.TaskHost.
func (r *Remote) Dial(ctx context.Context, task cluster.TaskID, port int) (net.Conn, error) {
	in, feed := io.Pipe()
	// The connection outlives the call that opened it.
	cctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel)
	rep, err := r.call(cctx, callDial, args{Task: task, Port: port}, in)
	if err == nil {
		if _, _, err = rep.next(); err != nil {
			_ = rep.Close()
		}
	}
	if !stop() && err == nil {
		_ = rep.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		cancel()
		return nil, err
	}
	return &dialed{reply: rep, feed: feed, cancel: cancel, remote: r.conn.RemoteAddr(), local: r.conn.LocalAddr()}, nil
}

// dialed is a connection to a task's port through the tunnel.
type dialed struct {
	*reply
	feed          *io.PipeWriter
	cancel        context.CancelFunc
	remote, local net.Addr
}

func (d *dialed) Write(p []byte) (int, error) { return d.feed.Write(p) }

// CloseWrite tells the task that nothing more comes.
func (d *dialed) CloseWrite() error { return d.feed.Close() }

func (d *dialed) Close() error {
	_ = d.feed.CloseWithError(net.ErrClosed)
	err := d.reply.Close()
	d.cancel()
	return err
}

func (d *dialed) LocalAddr() net.Addr              { return d.local }
func (d *dialed) RemoteAddr() net.Addr             { return d.remote }
func (d *dialed) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (d *dialed) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (d *dialed) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

// Build implements api.ImageHost.
func (r *Remote) Build(ctx context.Context, tar io.Reader, o v1.BuildOptions, progress io.Writer) (id string, err error) {
	err = r.simple(ctx, callBuild, args{Build: o}, tar, progress, &id)
	return id, err
}

// Tag implements api.ImageHost.
func (r *Remote) Tag(ctx context.Context, id, ref string) error {
	return r.simple(ctx, callTag, args{ID: id, Ref: ref}, nil, nil, nil)
}

// Images implements api.ImageHost.
func (r *Remote) Images(ctx context.Context) ([]cluster.Image, error) {
	rep, err := r.call(ctx, callImages, args{}, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rep.Close() }()
	var out []cluster.Image
	if err := rep.values(maxImages).next(&out); err != nil {
		return nil, err
	}
	return out, rep.finish(nil, nil)
}

// Identity implements api.ImageHost.
func (r *Remote) Identity(ctx context.Context, ref string) (out cluster.ImageIdentity, err error) {
	var said json.RawMessage
	if err := r.simple(ctx, callImageID, args{Ref: ref, Identity: true}, nil, nil, &said); err != nil {
		return out, err
	}
	if json.Unmarshal(said, &out.ID) == nil {
		return out, nil // an older node
	}
	return out, json.Unmarshal(said, &out)
}

// followSamples keeps the node's newest measurements until the tunnel ends.
func (r *Remote) followSamples(ctx context.Context) error {
	rep, err := r.call(ctx, callSamples, args{}, nil)
	if err != nil {
		return err
	}
	defer func() { _ = rep.Close() }()
	all := rep.values(maxSamples)
	for {
		var s []cluster.Sample
		if err := all.next(&s); err != nil {
			return err
		}
		s = said(r.id, s)
		r.mu.Lock()
		r.samples = s
		r.mu.Unlock()
	}
}
