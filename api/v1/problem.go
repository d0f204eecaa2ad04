package v1

import (
	"fmt"
	"strings"

	"github.com/fairlead/fairlead/cluster"
)

// Problem is an error as RFC 9457 describes it, sent as application/problem+json.
type Problem struct {
	Type   string `json:"type,omitempty" doc:"urn:fairlead:<kind>"`
	Title  string `json:"title" doc:"the kind of error, in words"`
	Status int    `json:"status" doc:"the HTTP status"`
	Detail string `json:"detail" doc:"what was wrong and what to do about it"`
	// Kind is cluster.Kind as text: "not found", "conflict", "invalid", "transient", "forbidden", "other".
	Kind   string   `json:"kind"`
	Errors []Detail `json:"errors,omitempty" doc:"one entry for each thing that is wrong"`
}

// Detail is one thing that is wrong with a request.
type Detail struct {
	Message string `json:"message"`
	// Field is a path into the request or the user's file ("services.web.routes[0].host").
	Field string `json:"field,omitempty"`
	File  string `json:"file,omitempty"`
	Line  int    `json:"line,omitempty"`
}

func (d Detail) String() string {
	switch {
	case d.File != "" && d.Line > 0:
		return fmt.Sprintf("%s:%d: %s", d.File, d.Line, d.Message)
	case d.Field != "":
		return d.Field + ": " + d.Message
	}
	return d.Message
}

// Invalid is a refusal of a request with all that is wrong with it. Its kind is invalid.
type Invalid []Detail

func (e Invalid) Error() string {
	lines := make([]string, len(e))
	for i, d := range e {
		lines[i] = d.String()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives cluster.KindOf its kind.
func (e Invalid) Unwrap() error {
	return &cluster.Error{Kind: cluster.KindInvalid, Msg: "the request is not valid"}
}

// Kinds maps the words of Problem.Kind to kinds.
func Kinds() map[string]cluster.Kind {
	out := map[string]cluster.Kind{}
	for _, k := range []cluster.Kind{
		cluster.KindOther, cluster.KindNotFound, cluster.KindConflict,
		cluster.KindInvalid, cluster.KindTransient, cluster.KindForbidden,
	} {
		out[k.String()] = k
	}
	return out
}
