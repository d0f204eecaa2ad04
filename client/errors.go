package client

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

// Error is a refusal of the server.
type Error struct {
	v1.Problem
}

// Error says the problem and each of its details on a line of its own.
func (e *Error) Error() string {
	if len(e.Errors) == 0 {
		return e.Detail
	}
	lines := make([]string, 0, len(e.Errors)+1)
	if e.Detail != "" {
		lines = append(lines, e.Detail)
	}
	for _, d := range e.Errors {
		if s := d.String(); s != e.Detail {
			lines = append(lines, s)
		}
	}
	return strings.Join(lines, "\n")
}

// KindOf is the problem's kind.
func (e *Error) KindOf() cluster.Kind { return v1.Kinds()[e.Kind] }

// Unwrap lets cluster.KindOf answer for e.
func (e *Error) Unwrap() error { return &cluster.Error{Kind: e.KindOf(), Msg: e.Detail} }

// decodeError reads a problem, or makes one of an answer that came from
// something else (a proxy).
func decodeError(resp *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var p v1.Problem
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "application/problem+json") && json.Unmarshal(b, &p) == nil {
		return &Error{Problem: p}
	}
	p = v1.Problem{Title: resp.Status, Status: resp.StatusCode, Kind: kindOfStatus(resp.StatusCode).String()}
	p.Detail = "the server answered " + resp.Status
	if strings.Contains(string(b), "HTTP request to an HTTPS server") { // net/http's own words
		p.Detail = "the server speaks TLS: write https:// in its address"
		return &Error{Problem: p}
	}
	if text := strings.TrimSpace(string(b)); text != "" && len(text) < 500 {
		p.Detail += ": " + text
	}
	return &Error{Problem: p}
}

func kindOfStatus(code int) cluster.Kind {
	switch code {
	case http.StatusNotFound:
		return cluster.KindNotFound
	case http.StatusConflict:
		return cluster.KindConflict
	case http.StatusUnauthorized, http.StatusForbidden:
		return cluster.KindForbidden
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout, http.StatusTooManyRequests:
		return cluster.KindTransient
	}
	if code >= 400 && code < 500 {
		return cluster.KindInvalid
	}
	return cluster.KindOther
}
