// Package api is Fairlead's HTTP API: JSON over the operations of api/v1, an
// OpenAPI description made from the Go types, RFC 9457 problems, server-sent
// events for what goes on, and upgraded connections for exec and port-forward.
//
// It reads a mirror of the store and is the writer of what people ask for:
// apps, services, counts, releases, configs, secrets, certificates, logins and
// what operators say about nodes. What a deploy means is decided in api/plan.
//
// Invariants: everything is validated before anything is written; every write
// compares the revisions it was decided on, and a lost race means a fresh
// decision, a bounded number of times; after a write the mirror has caught up
// before the answer is sent, so a client reads what it wrote; no answer, log
// line or error holds a secret value; a request's body has a bound; a stream
// ends with its request's context.
package api
