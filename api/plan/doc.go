// Package plan decides what a deploy does: the current state of an app and a
// bundle in, the list of changes and the values to write out.
//
// Invariants: it is pure (no I/O, clock or randomness; the input is not
// changed); everything is validated before anything is decided, and all that is
// wrong is said at once; planning what a plan has made gives an empty plan; no
// plan removes a volume or a secret.
package plan
