package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

func (s *Server) registerInside(api huma.API) {
	exec := op(http.MethodPost, "/apps/{app}/services/{service}/exec", "exec", "inside", "Run a command in a task's container; upgrades to "+v1.ProtocolExec)
	exec.BodyReadTimeout = -1 // a deadline would outlive the request's body on this connection
	handleUpgrade(api, exec, v1.ProtocolExec, s.exec)
	handleUpgrade(api, op(http.MethodPost, "/apps/{app}/services/{service}/forward", "forward", "inside", "Connect to a port of a task; upgrades to "+v1.ProtocolTCP), v1.ProtocolTCP, s.forward)
	s.registerFiles(api)
	s.registerPush(api)
}

// SlotPath names one task of a service.
type SlotPath struct {
	ServicePath
	Slot int `query:"slot" minimum:"0" doc:"0 lets the server choose a task that is ready, else one that runs"`
}

// host finds the task that a request is about, and its node.
func (s *Server) host(in SlotPath) (cluster.TaskID, TaskHost, error) {
	m := s.read(in.app())
	var best cluster.Task
	var why string
	score := 0
	for _, t := range m.ofService[in.id()] {
		if in.Slot > 0 && t.Slot != in.Slot {
			continue
		}
		ts := m.task(t)
		n := 0
		switch {
		case m.nodeOf(t) == "" || ts.Ended():
		case ts.Ready && t.Desire == cluster.DesireRun:
			n = 3
		case cluster.TaskState(ts.State) == cluster.StateRunning:
			n = 2
		default:
			n = 1 // starting: its container may answer already
		}
		if n == 0 && ts.Reason != "" {
			why = ": " + ts.Reason
		}
		if n > score {
			best, score = t, n
		}
	}
	if score == 0 {
		if _, known := m.byID[in.id()]; !known && len(m.ofService[in.id()]) == 0 {
			return "", nil, noService(m, in.id())
		}
		a := cluster.Address{App: in.app(), Service: in.id().Name, Slot: in.Slot}
		if why == "" {
			why = fmt.Sprintf("; `fairlead ps %s -a` lists those there are and were", a.App)
		}
		if a.Slot > 0 {
			return "", nil, cluster.NotFoundf("task %s does not run%s", a, why)
		}
		return "", nil, cluster.NotFoundf("no task of %s runs%s", a, why)
	}
	h, err := s.Hosts.Tasks(m.nodeOf(best))
	return best.ID, h, err
}

// handleUpgrade registers an operation that takes over its connection. open
// checks the request and answers with an error as any operation does, or returns
// what serves the connection, which is closed after it.
func handleUpgrade[I any](api huma.API, o huma.Operation, protocol string, open func(ctx context.Context, in *I) (func(context.Context, *upgraded), error)) {
	addProblem(api, &o)
	o.Responses["101"] = &huma.Response{Description: "The connection speaks " + protocol + " from here"}
	o.Responses["200"] = &huma.Response{Description: "Never"}
	o.DefaultStatus = http.StatusOK
	huma.Register(api, o, func(ctx context.Context, in *I) (*huma.StreamResponse, error) {
		serve, err := open(ctx, in)
		if err != nil {
			return nil, problemOf(err)
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			r, w := humago.Unwrap(hc)
			if !strings.EqualFold(r.Header.Get("Upgrade"), protocol) {
				w.Header().Set("Upgrade", protocol)
				writeProblem(w, newProblem(http.StatusUpgradeRequired, cluster.KindInvalid, "ask for Upgrade: "+protocol+" over HTTP/1.1"))
				return
			}
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				writeProblem(w, newProblem(http.StatusHTTPVersionNotSupported, cluster.KindInvalid, "this needs HTTP/1.1: "+err.Error()))
				return
			}
			defer func() { _ = conn.Close() }()
			_ = conn.SetDeadline(time.Time{})
			if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+protocol+"\r\n\r\n"); err != nil {
				return
			}
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer stop()
			// What the server has read ahead comes first, then the connection itself:
			// its own reader would end the request's context with the client's half.
			ahead, _ := rw.Peek(rw.Reader.Buffered())
			serve(ctx, &upgraded{Conn: conn, r: io.MultiReader(bytes.NewReader(ahead), conn), cancel: cancel})
		}}, nil
	})
}

// upgraded is a connection that was taken over. cancel ends what it serves.
type upgraded struct {
	net.Conn
	r      io.Reader
	cancel context.CancelFunc
}

func (u *upgraded) Read(p []byte) (int, error) { return u.r.Read(p) }

type execInput struct {
	SlotPath
	Body cluster.ExecOptions
}

func (s *Server) exec(_ context.Context, in *execInput) (func(context.Context, *upgraded), error) {
	if len(in.Body.Command) == 0 {
		return nil, cluster.Invalidf("name a command to run")
	}
	task, h, err := s.host(in.SlotPath)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, u *upgraded) {
		var mu sync.Mutex
		stdin, feed := io.Pipe()
		sizes := make(chan [2]uint, 1)
		go func() {
			defer u.cancel() // a client that goes away ends the command
			v1.ReadInput(u, feed, sizes)
		}()
		streams := Streams{
			Stdout: v1.FrameWriter{W: u, Type: v1.FrameStdout, Mu: &mu},
			Stderr: v1.FrameWriter{W: u, Type: v1.FrameStderr, Mu: &mu},
			Resize: sizes,
		}
		if in.Body.Stdin {
			streams.Stdin = stdin
		} else {
			_ = stdin.Close()
		}
		s.Log.Info("runs a command in a container", "task", task, "by", who(ctx))
		code, err := h.Exec(ctx, task, in.Body, streams)
		_ = stdin.Close()
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			if b, e := json.Marshal(problemOf(err).Problem); e == nil {
				_ = v1.WriteFrame(u, v1.FrameError, b[:min(len(b), v1.MaxFrame)])
			}
			return
		}
		_ = v1.WriteFrame(u, v1.FrameExit, v1.Uint32s(uint32(int32(code)))) //nolint:gosec // the sign travels in the same 4 bytes
	}, nil
}

type forwardInput struct {
	SlotPath
	Port int `query:"port" required:"true" minimum:"1" maximum:"65535"`
}

func (s *Server) forward(ctx context.Context, in *forwardInput) (func(context.Context, *upgraded), error) {
	task, h, err := s.host(in.SlotPath)
	if err != nil {
		return nil, err
	}
	// Connecting before the upgrade lets a refused connection be an answer.
	to, err := h.Dial(ctx, task, in.Port)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, u *upgraded) {
		stop := context.AfterFunc(ctx, func() { _ = to.Close() })
		defer stop()
		defer func() { _ = to.Close() }()
		var wg sync.WaitGroup
		wg.Go(func() { pipe(to, u) })
		wg.Go(func() { pipe(u, to) })
		wg.Wait()
	}, nil
}

// pipe copies one direction and passes its end on. Where an end cannot be passed
// on alone, the whole connection ends.
func pipe(dst, src net.Conn) {
	_, err := io.Copy(dst, src)
	if u, ok := dst.(*upgraded); ok {
		dst = u.Conn
	}
	if cw, ok := dst.(interface{ CloseWrite() error }); ok && (err == nil || errors.Is(err, io.EOF)) {
		if cw.CloseWrite() == nil {
			return
		}
	}
	_ = dst.Close()
	_ = src.Close()
}
