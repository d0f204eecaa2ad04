package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

const problemType = "application/problem+json"

// problem is a v1.Problem as huma writes it.
type problem struct {
	v1.Problem
}

func (p *problem) Error() string { return p.Detail }

// GetStatus implements huma.StatusError.
func (p *problem) GetStatus() int { return p.Status }

// ContentType implements huma.ContentTypeFilter.
func (p *problem) ContentType(string) string { return problemType }

var _ huma.StatusError = (*problem)(nil)

// status maps what a caller should do about an error to HTTP.
func status(k cluster.Kind) int {
	switch k {
	case cluster.KindNotFound:
		return http.StatusNotFound
	case cluster.KindConflict:
		return http.StatusConflict
	case cluster.KindInvalid:
		return http.StatusUnprocessableEntity
	case cluster.KindTransient:
		return http.StatusServiceUnavailable
	case cluster.KindForbidden:
		return http.StatusForbidden
	case cluster.KindOther:
	}
	return http.StatusInternalServerError
}

func newProblem(code int, kind cluster.Kind, detail string) *problem {
	return &problem{v1.Problem{
		Type: "urn:fairlead:" + kindSlug(kind), Title: kind.String(), Status: code, Detail: detail, Kind: kind.String(),
	}}
}

func kindSlug(k cluster.Kind) string {
	if k == cluster.KindNotFound {
		return "not-found"
	}
	return k.String()
}

// problemOf makes an error into what the client is told.
func problemOf(err error) *problem {
	var p *problem
	if errors.As(err, &p) {
		return p
	}
	kind := cluster.KindOf(err)
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		kind = cluster.KindTransient
	}
	p = newProblem(status(kind), kind, err.Error())
	if details, ok := errors.AsType[v1.Invalid](err); ok {
		p.Errors = details
		p.Detail = "nothing was changed; what is wrong:"
		if len(details) == 1 {
			p.Detail = details[0].String()
		}
	}
	return p
}

// asProblem turns huma's own errors (malformed JSON, unknown fields, wrong
// types) into problems of our shape. Values are not echoed: one may be a secret.
func asProblem(_ huma.Context, _ string, v any) (any, error) {
	m, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	kind := cluster.KindInvalid
	switch {
	case m.Status == http.StatusNotFound:
		kind = cluster.KindNotFound
	case m.Status >= http.StatusInternalServerError:
		kind = cluster.KindOther
	}
	p := newProblem(m.Status, kind, m.Detail)
	for _, e := range m.Errors {
		p.Errors = append(p.Errors, v1.Detail{Message: e.Message, Field: e.Location})
	}
	if m.Detail == "validation failed" {
		p.Detail = "the request is not what the API takes:"
		if len(p.Errors) == 1 {
			p.Detail = p.Errors[0].String()
		}
	}
	return p, nil
}

// writeProblem answers outside huma.
func writeProblem(w http.ResponseWriter, p *problem) {
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p.Problem)
}
