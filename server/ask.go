package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"time"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

// askServers asks the servers in turn until one answers.
func askServers[T any](ctx context.Context, j *joined, method, path string, body any) (out T, err error) {
	return askAt[T](ctx, j.member.TLS(), j.servers(), method, path, body)
}

// askAt asks servers in turn, as the node that conf is of, until one answers.
func askAt[T any](ctx context.Context, conf *tls.Config, servers []string, method, path string, body any) (out T, err error) {
	err = cluster.Transientf("this node knows no server")
	tr := &http.Transport{TLSClientConfig: conf}
	defer tr.CloseIdleConnections()
	for _, s := range servers {
		if out, err = ask[T](ctx, tr, method, "https://"+s+path, body); cluster.KindOf(err) != cluster.KindTransient {
			return out, err
		}
	}
	return out, err
}

// ask sends a request of a node to a server and decodes the answer.
func ask[T any](ctx context.Context, tr http.RoundTripper, method, url string, body any) (out T, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	resp, err := send(ctx, tr, method, url, body)
	if err != nil {
		return out, err
	}
	if resp.StatusCode != http.StatusOK {
		return out, refusal(resp)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return out, cluster.Transientf("read the server's answer: %w", err)
	}
	return out, json.Unmarshal(b, &out)
}

// send sends a request with body as JSON, or without one when it is nil.
func send(ctx context.Context, tr http.RoundTripper, method, url string, body any) (*http.Response, error) {
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, in)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := (&http.Client{Transport: tr}).Do(req)
	switch {
	case cluster.KindOf(err) == cluster.KindInvalid: // a certificate that is not to be trusted
		return nil, err
	case err != nil:
		return nil, cluster.Transientf("%w", err)
	}
	return resp, nil
}

// refusal makes a server's answer into an error of the same kind.
func refusal(resp *http.Response) error {
	defer func() { _ = resp.Body.Close() }()
	var p v1.Problem
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil || json.Unmarshal(b, &p) != nil || p.Detail == "" {
		p.Detail = resp.Status
	}
	kind := cluster.KindInvalid
	switch {
	case resp.StatusCode >= http.StatusInternalServerError:
		kind = cluster.KindTransient
	case resp.StatusCode == http.StatusNotFound:
		kind = cluster.KindNotFound
	case resp.StatusCode == http.StatusForbidden, resp.StatusCode == http.StatusUnauthorized:
		kind = cluster.KindForbidden
	}
	return &cluster.Error{Kind: kind, Msg: p.Detail}
}
