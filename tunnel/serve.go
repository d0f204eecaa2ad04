package tunnel

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/fairlead/fairlead/api"
	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

// Node is what an agent offers to its servers.
type Node struct {
	Tasks  api.TaskHost
	Images api.ImageHost
	// Samples are the newest measurements of this node's containers.
	Samples func() []cluster.Sample
	// SampleEvery is how often they are sent.
	SampleEvery time.Duration
}

// Calls, each a path. Arguments are JSON in the query; the request's body is what
// the call reads, the answer is frames: data, and at the end a result or an error.
const (
	callLogs     = "logs"
	callExec     = "exec"
	callCopyTo   = "copy-to"
	callCopyFrom = "copy-from"
	callDial     = "dial"
	callBuild    = "build"
	callTag      = "tag"
	callImages   = "images"
	callSave     = "save"
	callLoad     = "load"
	callLayers   = "image-layers"
	callHave     = "have"
	callImageID  = "image-id"
	callSamples  = "samples"
)

const argsParam = "args"

// args are the arguments of all calls; each uses some.
type args struct {
	Task  cluster.TaskID      `json:"task,omitempty"`
	Logs  cluster.LogOptions  `json:"logs,omitzero"`
	Exec  cluster.ExecOptions `json:"exec,omitzero"`
	Path  string              `json:"path,omitempty"`
	Port  int                 `json:"port,omitempty"`
	Build v1.BuildOptions     `json:"build,omitzero"`
	ID    string              `json:"id,omitempty"`
	Ref   string              `json:"ref,omitempty"`
	Have  cluster.ImageHave   `json:"have,omitzero"`
	// Layers are diff IDs, the lowest first.
	Layers []string          `json:"layers,omitempty"`
	Want   cluster.ImageWant `json:"want,omitzero"`
	// Identity asks an image-id call for more than the ID, which is all that older nodes say.
	Identity bool `json:"identity,omitempty"`
}

// failure is an error on its way through the tunnel.
type failure struct {
	Kind cluster.Kind `json:"kind"`
	Msg  string       `json:"msg"`
}

// Handler answers a server's calls on this node.
func (n Node) Handler() http.Handler {
	mux := http.NewServeMux()
	for path, f := range map[string]func(context.Context, *call) (any, error){
		callLogs: n.logs, callExec: n.exec, callCopyTo: n.copyTo, callCopyFrom: n.copyFrom, callDial: n.dial,
		callBuild: n.build, callTag: n.tag, callImages: n.images, callSave: n.save, callLoad: n.load,
		callLayers: n.imageLayers, callHave: n.have, callImageID: n.imageID, callSamples: n.samples,
	} {
		mux.HandleFunc("POST /"+path, func(w http.ResponseWriter, r *http.Request) { answer(w, r, f) })
	}
	return mux
}

// call is one call being answered.
type call struct {
	args
	in  io.Reader
	out flusher
	mu  sync.Mutex // of out
}

// flusher sends each frame at once.
type flusher struct {
	w  io.Writer
	rc *http.ResponseController
}

func (f flusher) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err != nil {
		return n, err
	}
	return n, f.rc.Flush()
}

// data is a writer of the call's answer.
func (c *call) data(t v1.FrameType) io.Writer { return v1.FrameWriter{W: c.out, Type: t, Mu: &c.mu} }

// begin sends an empty frame: what the call asked for is there.
func (c *call) begin() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return v1.WriteFrame(c.out, v1.FrameStdout, nil)
}

func answer(w http.ResponseWriter, r *http.Request, f func(context.Context, *call) (any, error)) {
	c := &call{in: r.Body, out: flusher{w, http.NewResponseController(w)}}
	if err := json.Unmarshal([]byte(r.URL.Query().Get(argsParam)), &c.args); err != nil {
		http.Error(w, "the call's arguments do not decode: "+err.Error(), http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusOK)
	if err := c.out.rc.Flush(); err != nil {
		return
	}
	result, err := f(r.Context(), c)
	c.mu.Lock()
	defer c.mu.Unlock()
	kind, payload := v1.FrameExit, any(result)
	if err != nil {
		kind, payload = v1.FrameError, failure{Kind: kindOf(err), Msg: err.Error()}
	}
	b, err := json.Marshal(payload)
	if err != nil || len(b) > v1.MaxFrame {
		kind, b = v1.FrameError, []byte(`{"msg":"the node's answer is too long"}`)
	}
	_ = v1.WriteFrame(c.out, kind, b) // a server that is gone needs no answer
}

func kindOf(err error) cluster.Kind {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return cluster.KindTransient
	}
	return cluster.KindOf(err)
}

func (n Node) logs(ctx context.Context, c *call) (any, error) {
	enc := json.NewEncoder(c.data(v1.FrameStdout))
	return nil, n.Tasks.Logs(ctx, c.Task, c.Logs, func(l cluster.LogLine) error { return enc.Encode(l) })
}

func (n Node) exec(ctx context.Context, c *call) (any, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stdin, feed := io.Pipe()
	defer func() { _ = stdin.Close() }()
	sizes := make(chan [2]uint, 1)
	go func() {
		defer cancel() // a server that goes away ends the command
		v1.ReadInput(c.in, feed, sizes)
	}()
	s := api.Streams{Stdout: c.data(v1.FrameStdout), Stderr: c.data(v1.FrameStderr), Resize: sizes}
	if c.Exec.Stdin {
		s.Stdin = stdin
	}
	return n.Tasks.Exec(ctx, c.Task, c.Exec, s)
}

func (n Node) copyTo(ctx context.Context, c *call) (any, error) {
	return nil, n.Tasks.CopyTo(ctx, c.Task, c.Path, c.in)
}

func (n Node) copyFrom(ctx context.Context, c *call) (any, error) {
	return c.send(n.Tasks.CopyFrom(ctx, c.Task, c.Path))
}

func (n Node) save(ctx context.Context, c *call) (any, error) {
	return c.send(n.Images.Save(ctx, c.Ref, c.Have))
}

func (n Node) load(ctx context.Context, c *call) (any, error) {
	return nil, n.Images.Load(ctx, c.in, c.Want)
}

func (n Node) imageLayers(ctx context.Context, c *call) (any, error) {
	return n.Images.ImageLayers(ctx, c.Ref)
}

func (n Node) have(ctx context.Context, c *call) (any, error) {
	return n.Images.Have(ctx, c.Layers)
}

// send sends a tar; an empty frame first says that there is one.
func (c *call) send(tar io.ReadCloser, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	defer func() { _ = tar.Close() }()
	if err := c.begin(); err != nil {
		return nil, err
	}
	_, err = io.Copy(c.data(v1.FrameStdout), tar)
	return nil, err
}

func (n Node) dial(ctx context.Context, c *call) (any, error) {
	conn, err := n.Tasks.Dial(ctx, c.Task, c.Port)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer func() { _ = conn.Close() }()
	if err := c.begin(); err != nil {
		return nil, err
	}
	go func() {
		_, err := io.Copy(conn, c.in)
		if cw, ok := conn.(interface{ CloseWrite() error }); ok && err == nil {
			_ = cw.CloseWrite()
			return
		}
		_ = conn.Close()
	}()
	_, err = io.Copy(c.data(v1.FrameStdout), conn)
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return nil, err
}

func (n Node) build(ctx context.Context, c *call) (any, error) {
	return n.Images.Build(ctx, c.in, c.Build, c.data(v1.FrameStdout))
}

func (n Node) tag(ctx context.Context, c *call) (any, error) {
	return nil, n.Images.Tag(ctx, c.ID, c.Ref)
}

func (n Node) images(ctx context.Context, c *call) (any, error) {
	list, err := n.Images.Images(ctx)
	if err != nil {
		return nil, err
	}
	return nil, json.NewEncoder(c.data(v1.FrameStdout)).Encode(list)
}

func (n Node) imageID(ctx context.Context, c *call) (any, error) {
	i, err := n.Images.Identity(ctx, c.Ref)
	if err == nil && c.Identity {
		return i, nil
	}
	return i.ID, err
}

// samples sends the newest measurements until the server goes away.
func (n Node) samples(ctx context.Context, c *call) (any, error) {
	enc := json.NewEncoder(c.data(v1.FrameStdout))
	tick := time.NewTicker(n.SampleEvery)
	defer tick.Stop()
	for {
		if err := enc.Encode(n.Samples()); err != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// Serve answers calls on a connection to a server until it or ctx ends.
func Serve(ctx context.Context, conn net.Conn, h http.Handler) {
	w := &watched{Conn: conn, closed: make(chan struct{})}
	stop := context.AfterFunc(ctx, func() { _ = w.Close() })
	defer stop()
	srv := &http.Server{
		Handler: h, Protocols: http2Only(), ReadHeaderTimeout: 10 * time.Second,
		HTTP2:       &http.HTTP2Config{MaxConcurrentStreams: 4096, SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	_ = srv.Serve(&single{conn: w}) // returns when the connection has ended
	_ = srv.Close()
}

// single is a listener with one connection, which it hands out once.
type single struct {
	conn *watched
	once sync.Once
}

// Accept implements net.Listener: after the connection comes its end.
func (s *single) Accept() (conn net.Conn, err error) {
	s.once.Do(func() { conn = s.conn })
	if conn != nil {
		return conn, nil
	}
	<-s.conn.closed
	return nil, net.ErrClosed
}

// Close implements net.Listener.
func (s *single) Close() error { return nil }

// Addr implements net.Listener.
func (s *single) Addr() net.Addr { return s.conn.LocalAddr() }

// A connection that is silent is asked whether it still stands.
const (
	pingAfter   = 10 * time.Second
	pingTimeout = 5 * time.Second
)
