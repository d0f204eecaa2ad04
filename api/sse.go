package api

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

const pingEvery = 15 * time.Second

func schemaOf[T any](reg huma.Registry) *huma.Schema {
	return reg.Schema(reflect.TypeFor[T](), true, "")
}

// events is one client's stream. Its methods are called by one goroutine.
type events struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

// send writes one event; flush it before waiting for the next one.
func (e *events) send(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	b := make([]byte, 0, len(name)+len(data)+20)
	b = append(b, "event: "...)
	b = append(b, name...)
	b = append(b, "\ndata: "...)
	b = append(b, data...)
	b = append(b, "\n\n"...)
	_, err = e.w.Write(b)
	return err
}

func (e *events) flush() error { return e.rc.Flush() }

// ping keeps what is between client and server from closing an idle connection.
func (e *events) ping() error {
	if _, err := e.w.Write([]byte(": ping\n\n")); err != nil {
		return err
	}
	return e.flush()
}

// handleEvents registers a stream of server-sent events of one type. open checks
// the request and answers with an error as any operation does, or returns what
// produces the stream until ctx ends or nothing more comes.
func handleEvents[I, T any](api huma.API, o huma.Operation, event string, open func(ctx context.Context, in *I) (func(ctx context.Context, e *events) error, error)) {
	addProblem(api, &o)
	o.Responses["200"] = &huma.Response{
		Description: "Events named " + event + ", then end; or error with a problem",
		Headers:     staleHeaders(),
		Content:     map[string]*huma.MediaType{"text/event-stream": {Schema: schemaOf[T](api.OpenAPI().Components.Schemas)}},
	}
	huma.Register(api, o, func(ctx context.Context, in *I) (*huma.StreamResponse, error) {
		produce, err := open(ctx, in)
		if err != nil {
			return nil, problemOf(err)
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			_, w := humago.Unwrap(hc)
			w.Header().Set("Content-Type", "text/event-stream")
			w.Header().Set("Cache-Control", "no-store")
			w.Header().Set("X-Accel-Buffering", "no")
			e := &events{w: w, rc: http.NewResponseController(w)}
			_ = e.rc.SetWriteDeadline(time.Time{}) // a stream lasts as long as its client wants
			if e.flush() != nil {
				return
			}
			switch err := produce(ctx, e); {
			case ctx.Err() != nil:
				return
			case err != nil:
				_ = e.send("error", problemOf(err).Problem)
			default:
				_ = e.send("end", struct{}{})
			}
			_ = e.flush()
		}}, nil
	})
}
