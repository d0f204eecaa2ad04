package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	v1 "github.com/fairlead/fairlead/api/v1"
)

// moveOn is how long one server may take to be connected to where there are others.
const moveOn = 3 * time.Second

// servers are a cluster's servers, any of which answers. The one that did last is
// asked first.
type servers struct {
	conf *tls.Config

	mu   sync.Mutex
	list []string // host:port

	settling sync.Mutex // held while servers are asked which is current
	settled  bool       // the first is, or none is better
}

func (s *servers) add(others []string) {
	for _, o := range others {
		if o != "" && !slices.Contains(s.list, o) {
			s.list = append(s.list, o)
		}
	}
}

// dial connects to the first server that can be reached.
func (s *servers) dial(ctx context.Context) (net.Conn, error) {
	list := s.all()
	var failed []error
	for _, server := range list {
		conn, err := s.one(ctx, server, len(list) > 1)
		if err == nil {
			s.prefer(server)
			return conn, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if len(list) > 1 {
			err = fmt.Errorf("%s: %w", server, err)
		}
		failed = append(failed, err)
	}
	return nil, errors.Join(failed...)
}

func (s *servers) one(ctx context.Context, server string, others bool) (net.Conn, error) {
	if others {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, moveOn)
		defer cancel()
	}
	d := tls.Dialer{Config: s.conf}
	return d.DialContext(ctx, "tcp", server)
}

func (s *servers) prefer(server string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.list, server); i > 0 {
		s.list = slices.Insert(slices.Delete(s.list, i, i+1), 0, server)
	}
}

// settle looks, before the first change, whether the server at hand is current, and moves on
// to one that is: a change itself is asked for once, as whoever fails to answer may have made it.
func (c *Client) settle(ctx context.Context) {
	s := c.servers
	s.settling.Lock()
	defer s.settling.Unlock()
	if s.settled || len(s.all()) < 2 {
		return
	}
	req, err := c.request(ctx, http.MethodGet, "/v1/version", nil, nil)
	if err != nil {
		return
	}
	if s.settled = c.atHand(req); s.settled {
		return
	}
	for _, server := range s.others() {
		resp, err := s.ask(req, server)
		if err != nil {
			continue // where none answers the change will say so
		}
		_ = resp.Body.Close()
		if !doubtful(resp) {
			s.prefer(server)
			c.http.CloseIdleConnections() // they lead to the one before
			break
		}
	}
	s.settled = ctx.Err() == nil
}

// atHand reports whether the server that a request goes to without more is current. The
// connection is used again.
func (c *Client) atHand(req *http.Request) bool {
	ctx, cancel := context.WithTimeout(req.Context(), moveOn)
	defer cancel()
	resp, err := c.http.Do(req.Clone(ctx))
	if err != nil {
		return false
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	// A server may answer as it hears that nobody waits any more.
	return ctx.Err() == nil && !doubtful(resp)
}

func (s *servers) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list)
}

// current is the answer to req of the first server that is sure of it: resp, if the one at hand
// is, or if none is. Commands that follow then ask that one first.
func (c *Client) current(req *http.Request, resp *http.Response) *http.Response {
	if !doubtful(resp) {
		return resp
	}
	for _, server := range c.servers.others() {
		better, err := c.servers.ask(req, server)
		if err != nil {
			continue
		}
		if doubtful(better) {
			_ = better.Body.Close()
			continue
		}
		_ = resp.Body.Close()
		c.servers.prefer(server)
		c.http.CloseIdleConnections() // they lead to the one before
		return better
	}
	return resp
}

// doubtful reports whether another server may know better: this one has not heard from a
// majority for a while, or not at all since it started.
func doubtful(resp *http.Response) bool {
	_, old := staleFor(resp)
	return old || resp.StatusCode == http.StatusServiceUnavailable
}

// staleFor reads for how long an answer may be old already.
func staleFor(resp *http.Response) (time.Duration, bool) {
	n, err := strconv.Atoi(resp.Header.Get(v1.HeaderStale))
	return time.Duration(n) * time.Second, err == nil
}

// others are the servers but for the one that answered last.
func (s *servers) others() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list[1:])
}

// ask sends a request without a body to one server, which has a moment to answer. The
// connection ends with the answer's body.
func (s *servers) ask(req *http.Request, server string) (*http.Response, error) {
	ctx, cancel := context.WithCancel(req.Context())
	tr := &http.Transport{
		DialTLSContext:    func(ctx context.Context, _, _ string) (net.Conn, error) { return s.one(ctx, server, true) },
		DisableKeepAlives: true,
	}
	late := time.AfterFunc(moveOn, cancel)
	resp, err := tr.RoundTrip(req.Clone(ctx))
	if err == nil && !late.Stop() {
		_ = resp.Body.Close()
		err = context.DeadlineExceeded
	}
	if err != nil {
		late.Stop()
		cancel()
		return nil, err
	}
	resp.Body = &lastBody{resp.Body, cancel}
	return resp, nil
}

// lastBody is the body of the only answer on a connection.
type lastBody struct {
	io.ReadCloser
	end context.CancelFunc
}

func (b *lastBody) Close() error {
	defer b.end()
	return b.ReadCloser.Close()
}
