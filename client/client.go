package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

// Options say where the server is and how to prove who is asking.
type Options struct {
	// Socket is the path of the server's local socket. It wins over URL.
	Socket string
	// URL is "https://host:port".
	URL   string
	Token string
	// CACert is the PEM of the authority that signed the server's certificate.
	// Without it and without Fingerprint the system's authorities decide.
	CACert []byte
	// Fingerprint is the hex SHA-256 of the server's certificate or of its
	// authority's; colons and a leading "sha256:" are allowed.
	Fingerprint string
	// Others are more servers of the cluster, host:port, that are asked when the one
	// of URL cannot be reached. They are used with Fingerprint alone, which all share.
	Others []string
	// Learn is told where the cluster's servers are when a server says something
	// else than URL and Others; nil: nobody is. It must not block.
	Learn func(servers []string)
	// Stale is told when an answer may be old, before it is read: the server that gives it
	// has not heard from a majority for a time, nor is there another that has. nil: nobody is.
	Stale func(server string, since time.Duration)
	// Timeout bounds calls that are not streams; 0 means 60s.
	Timeout time.Duration
}

// Client speaks to one server. It may be used by several goroutines.
type Client struct {
	base  *url.URL
	http  *http.Client
	dial  func(ctx context.Context) (net.Conn, error)
	token string
	learn func(servers []string)
	stale func(server string, since time.Duration)
	// servers are where another server may be asked; nil: there is one alone.
	servers *servers
	where   string
	limit   time.Duration
}

// New makes a client. It does not connect yet.
func New(o Options) (*Client, error) {
	c := &Client{token: o.Token, limit: o.Timeout, learn: o.Learn, stale: o.Stale}
	if c.limit == 0 {
		c.limit = 60 * time.Second
	}
	if o.Socket != "" {
		c.base, c.where = &url.URL{Scheme: "http", Host: "fairlead"}, o.Socket
		c.dial = func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", o.Socket)
		}
		c.http = &http.Client{Transport: &http.Transport{
			DialContext:           func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
			ExpectContinueTimeout: expectTime,
		}}
		return c, nil
	}
	u, err := url.Parse(o.URL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, cluster.Invalidf("server address %q: write https://host:port", o.URL)
	}
	c.base, c.where = &url.URL{Scheme: u.Scheme, Host: u.Host}, u.Host
	if u.Scheme == "http" {
		c.dial = func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", withPort(u.Host, "80"))
		}
		c.http = &http.Client{Transport: &http.Transport{ExpectContinueTimeout: expectTime}}
		return c, nil
	}
	conf, err := tlsConfig(o)
	if err != nil {
		return nil, err
	}
	servers := &servers{conf: conf, list: []string{withPort(u.Host, "443")}}
	if o.Fingerprint != "" {
		servers.add(o.Others)
	}
	if c.dial = servers.dial; len(servers.list) > 1 {
		c.where, c.servers = strings.Join(servers.list, ", "), servers
	}
	// HTTP/1.1 alone: exec and port-forward take over the connection, which HTTP/2
	// does not allow.
	c.http = &http.Client{Transport: &http.Transport{
		DialTLSContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
		ExpectContinueTimeout: expectTime,
	}}
	return c, nil
}

// expectTime is how long a body that must be asked for waits for that.
const expectTime = 5 * time.Second

func withPort(host, port string) string {
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), port)
}

func tlsConfig(o Options) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(o.CACert) > 0 {
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(o.CACert) {
			return nil, cluster.Invalidf("the authority's certificate holds no PEM certificate")
		}
	}
	if o.Fingerprint == "" {
		return conf, nil
	}
	want, err := hex.DecodeString(strings.ReplaceAll(strings.TrimPrefix(o.Fingerprint, "sha256:"), ":", ""))
	if err != nil || len(want) != sha256.Size {
		return nil, cluster.Invalidf("fingerprint %q: 64 hex digits of a SHA-256 are needed", o.Fingerprint)
	}
	// The pinned certificate takes the place of the chain: it says exactly which server this is.
	conf.InsecureSkipVerify = true
	conf.VerifyConnection = func(s tls.ConnectionState) error { return pinned(s.PeerCertificates, want) }
	return conf, nil
}

// pinned accepts a leaf with the fingerprint, or one that a certificate with the fingerprint signed.
func pinned(certs []*x509.Certificate, want []byte) error {
	for i, cert := range certs {
		sum := sha256.Sum256(cert.Raw)
		if subtle.ConstantTimeCompare(sum[:], want) != 1 {
			continue
		}
		if i == 0 {
			return nil
		}
		roots := x509.NewCertPool()
		roots.AddCert(cert)
		between := x509.NewCertPool()
		for _, c := range certs[1:] {
			between.AddCert(c)
		}
		_, err := certs[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between})
		return err
	}
	return errors.New("the server's certificate does not have the expected fingerprint: it is another server, or someone is in between")
}

// Where names the server in messages: a socket's path, or host and port.
func (c *Client) Where() string { return c.where }

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func path(parts ...string) string {
	var b strings.Builder
	b.WriteString("/v1")
	for _, p := range parts {
		b.WriteString("/")
		b.WriteString(url.PathEscape(p))
	}
	return b.String()
}

// request makes a request. A body that is an io.Reader is sent as it is, another one as JSON.
func (c *Client) request(ctx context.Context, method, p string, q url.Values, body any) (*http.Request, error) {
	u := c.base.String() + p
	if len(q) > 0 {
		u += "?" + q.Encode()
	}
	var r io.Reader
	contentType := ""
	switch b := body.(type) {
	case nil:
	case io.Reader:
		r, contentType = b, "application/x-tar"
	default:
		enc, err := json.Marshal(b)
		if err != nil {
			return nil, fmt.Errorf("encode the request: %w", err)
		}
		r, contentType = bytes.NewReader(enc), "application/json"
	}
	req, err := http.NewRequestWithContext(ctx, method, u, r)
	if err != nil {
		return nil, cluster.Invalidf("make the request: %w", err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	return req, nil
}

// send sends a request and turns every answer that is not a success into an error.
func (c *Client) send(req *http.Request) (*http.Response, error) {
	if req.Method != http.MethodGet && c.servers != nil {
		c.settle(req.Context())
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(req.Context(), err)
	}
	if req.Method == http.MethodGet && c.servers != nil {
		resp = c.current(req, resp)
	}
	if since, old := staleFor(resp); old && c.stale != nil {
		c.stale(resp.Header.Get(v1.HeaderStaleServer), since)
	}
	if list := resp.Header.Get(v1.HeaderServers); list != "" && c.learn != nil {
		c.learn(strings.Split(list, ","))
	}
	if resp.StatusCode >= 300 {
		defer func() { _ = resp.Body.Close() }()
		return nil, decodeError(resp)
	}
	return resp, nil
}

func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if ue, ok := errors.AsType[*url.Error](err); ok {
		err = ue.Err
	}
	return cluster.Transientf("cannot reach the server at %s: %w", c.where, err)
}

// call sends in as JSON and decodes the answer; in may be nil.
func call[T any](ctx context.Context, c *Client, method, p string, q url.Values, in any) (T, error) {
	var out T
	ctx, cancel := context.WithTimeoutCause(ctx, c.limit,
		cluster.Transientf("the server at %s did not answer within %s", c.where, c.limit))
	defer cancel()
	req, err := c.request(ctx, method, p, q, in)
	if err != nil {
		return out, err
	}
	resp, err := c.send(req)
	if err != nil {
		return out, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusNoContent {
		return out, nil
	}
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		if ctx.Err() != nil {
			return out, context.Cause(ctx)
		}
		return out, cluster.Transientf("read the answer of %s: %w", c.where, err)
	}
	return out, nil
}

type nothing struct{}

// remove sends a DELETE, which has no answer.
func remove(ctx context.Context, c *Client, p string, q url.Values) error {
	_, err := call[nothing](ctx, c, http.MethodDelete, p, q, nil)
	return err
}
