package tunnel

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

// Path is where a server takes tunnels.
const Path = "/v1/node/tunnel"

// Dialer keeps a tunnel open to one server.
type Dialer struct {
	// Server is host:port of its API.
	Server string
	// TLS shows the node's certificate and trusts the cluster's authority alone.
	TLS     *tls.Config
	Handler http.Handler
	// Node is set on a server: its certificate names no node.
	Node cluster.NodeID
	// Instance tells this start of the agent from one on a copy of the machine.
	Instance string
	// Retry is the first pause before another try, doubled up to 5s; 0 means 200ms.
	Retry time.Duration
	Log   hclog.Logger

	connected atomic.Bool
}

// Connected reports whether the tunnel stands.
func (d *Dialer) Connected() bool { return d.connected.Load() }

const (
	firstRetry = 200 * time.Millisecond
	maxRetry   = 5 * time.Second
	// A server that refuses this node may be one that has not read its store yet:
	// what it says must be said again before it counts.
	refusals    = 4
	dialTimeout = 10 * time.Second
)

// Run keeps the tunnel until ctx ends, and returns the context's cause; or, as
// KindForbidden, that the server knows this node no more.
func (d *Dialer) Run(ctx context.Context) error {
	first := d.Retry
	if first <= 0 {
		first = firstRetry
	}
	wait, said, refused := first, "", 0
	for ctx.Err() == nil {
		conn, err := d.open(ctx)
		if err == nil {
			d.Log.Info("connected to a server", "server", d.Server)
			wait, said, refused = first, "", 0
			d.connected.Store(true)
			Serve(ctx, conn, d.Handler)
			d.connected.Store(false)
			_ = conn.Close()
			if ctx.Err() == nil {
				d.Log.Info("the tunnel to a server ended; will open it again", "server", d.Server)
			}
		} else if ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			d.Log.Warn("cannot open the tunnel to a server; will retry", "server", d.Server, "error", err)
		}
		if cluster.KindOf(err) == cluster.KindForbidden {
			if refused++; refused >= refusals {
				return err
			}
		}
		t := time.NewTimer(wait + rand.N(wait)) //nolint:gosec,forbidigo // spreads agents; nothing is decided by it
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
		wait = min(2*wait, maxRetry)
	}
	return context.Cause(ctx)
}

// open connects and turns the connection into a tunnel.
func (d *Dialer) open(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conf := d.TLS.Clone()
	conf.NextProtos = []string{"http/1.1"}
	conn, err := (&tls.Dialer{NetDialer: &net.Dialer{}, Config: conf}).DialContext(ctx, "tcp", d.Server)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	tunnelled, err := d.upgrade(ctx, conn)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return tunnelled, nil
}

func (d *Dialer) upgrade(ctx context.Context, conn net.Conn) (net.Conn, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+d.Server+Path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", v1.ProtocolTunnel)
	if d.Node != "" {
		req.Header.Set(v1.HeaderNode, string(d.Node))
	}
	if d.Instance != "" {
		req.Header.Set(v1.HeaderInstance, d.Instance)
	}
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return &buffered{Conn: conn, r: br}, nil
	}
	defer func() { _ = resp.Body.Close() }()
	var p v1.Problem
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	err = errors.New(resp.Status)
	if json.Unmarshal(b, &p) == nil && p.Detail != "" {
		err = errors.New(p.Detail)
	}
	kind := cluster.KindTransient
	if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden {
		kind = cluster.KindForbidden
	}
	return nil, &cluster.Error{Kind: kind, Msg: fmt.Sprintf("the server at %s refuses the tunnel", d.Server), Err: err}
}

// buffered reads what came with the answer's header first.
type buffered struct {
	net.Conn
	r *bufio.Reader
}

func (b *buffered) Read(p []byte) (int, error) { return b.r.Read(p) }
