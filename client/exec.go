package client

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

// ExecStreams are what a command reads and writes.
type ExecStreams struct {
	Stdin  io.Reader // nil: the command reads nothing
	Stdout io.Writer
	Stderr io.Writer
	// Resize delivers new sizes of the terminal, width first; nil: never.
	Resize <-chan [2]uint
}

// Exec runs a command in a task's container and returns its exit code. Slot 0
// lets the server choose a task that runs.
func (c *Client) Exec(ctx context.Context, a cluster.Address, o cluster.ExecOptions, s ExecStreams) (int, error) {
	o.Stdin = s.Stdin != nil
	conn, br, err := c.upgrade(ctx, path("apps", string(a.App), "services", string(a.Service), "exec"), slotQuery(a), v1.ProtocolExec, o)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	done := make(chan struct{})
	defer close(done)

	var mu sync.Mutex
	if s.Stdin != nil {
		go v1.SendInput(conn, &mu, s.Stdin)
	}
	if s.Resize != nil {
		go v1.SendSizes(conn, &mu, s.Resize, done)
	}
	code, err := receive(br, s)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return code, err
}

func receive(r io.Reader, s ExecStreams) (int, error) {
	buf := make([]byte, v1.MaxFrame)
	for {
		t, p, err := v1.ReadFrame(r, buf)
		if err != nil {
			return 0, cluster.Transientf("the connection ended before the command did: %w", err)
		}
		switch t {
		case v1.FrameStdout:
			err = writeTo(s.Stdout, p)
		case v1.FrameStderr:
			err = writeTo(s.Stderr, p)
		case v1.FrameExit:
			if len(p) != 4 {
				return 0, errors.New("the server sent a malformed exit code")
			}
			return int(int32(binary.BigEndian.Uint32(p))), nil //nolint:gosec // the sign travels in the same 4 bytes
		case v1.FrameError:
			e := &Error{}
			if err := json.Unmarshal(p, &e.Problem); err != nil {
				return 0, fmt.Errorf("read the server's error: %w", err)
			}
			return 0, e
		case v1.FrameStdin, v1.FrameStdinEOF, v1.FrameResize:
		}
		if err != nil {
			return 0, err
		}
	}
}

func writeTo(w io.Writer, p []byte) error {
	if w == nil {
		return nil
	}
	_, err := w.Write(p)
	return err
}

// Dial connects to a port of a task; slot 0 lets the server choose a ready one.
func (c *Client) Dial(ctx context.Context, a cluster.Address, port int) (net.Conn, error) {
	q := slotQuery(a)
	q.Set("port", strconv.Itoa(port))
	conn, br, err := c.upgrade(ctx, path("apps", string(a.App), "services", string(a.Service), "forward"), q, v1.ProtocolTCP, nil)
	if err != nil {
		return nil, err
	}
	return &forwarded{Conn: conn, r: br}, nil
}

// forwarded reads what came with the answer's header first.
type forwarded struct {
	net.Conn
	r *bufio.Reader
}

func (f *forwarded) Read(p []byte) (int, error) { return f.r.Read(p) }

// CloseWrite tells the other side that nothing more comes.
func (f *forwarded) CloseWrite() error {
	if cw, ok := f.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return nil
}

// upgrade opens a connection of its own and switches it to a protocol.
func (c *Client) upgrade(ctx context.Context, p string, q url.Values, protocol string, body any) (net.Conn, *bufio.Reader, error) {
	req, err := c.request(ctx, http.MethodPost, p, q, body)
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", protocol)
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, nil, c.unreachable(ctx, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := req.Write(conn); err != nil {
		_ = conn.Close()
		return nil, nil, c.unreachable(ctx, err)
	}
	br := bufio.NewReaderSize(conn, 64<<10)
	resp, err := http.ReadResponse(br, req)
	if err != nil {
		_ = conn.Close()
		return nil, nil, c.unreachable(ctx, err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer func() { _ = conn.Close() }()
		defer func() { _ = resp.Body.Close() }()
		return nil, nil, decodeError(resp)
	}
	return conn, br, nil
}

// CopyTo unpacks a tar below a directory of a task's container.
func (c *Client) CopyTo(ctx context.Context, a cluster.Address, dir string, tar io.Reader) error {
	req, err := c.request(ctx, http.MethodPut, path("apps", string(a.App), "services", string(a.Service), "files"), fileQuery(a, dir), tar)
	if err != nil {
		return err
	}
	// Files that are not wanted need not travel; a server that does not say so in
	// time gets them.
	req.Header.Set("Expect", "100-continue")
	resp, err := c.send(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// CopyFrom is a tar of a file or directory of a task's container. The caller
// closes it; a read error says why it was cut short.
func (c *Client) CopyFrom(ctx context.Context, a cluster.Address, p string) (io.ReadCloser, error) {
	req, err := c.request(ctx, http.MethodGet, path("apps", string(a.App), "services", string(a.Service), "files"), fileQuery(a, p), nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.send(req)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

func fileQuery(a cluster.Address, p string) url.Values {
	q := slotQuery(a)
	q.Set("path", p)
	return q
}

// slotQuery is for paths that name the service themselves.
func slotQuery(a cluster.Address) url.Values {
	return addressQuery(cluster.Address{Slot: a.Slot})
}
