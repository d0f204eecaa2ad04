// Package client is the Go client of Fairlead's API. It can be imported alone:
// besides the standard library it needs packages cluster and api/v1 only.
//
// Invariants: a refusal of the server is an *Error with its kind and all its
// details, and cluster.KindOf answers for it; a server that cannot be reached is
// of KindTransient; no call is repeated by itself; every stream ends with its
// context, and one that the server cut short is an error, never an end. Whoever says
// so has a log that is followed, and a watch, go on where another server, or the same
// one, answers.
package client
