// Package sealed is the built-in secret store: values lie in the cluster's store,
// encrypted with a key that only servers have (the file secrets.key).
//
// Invariants: every sealed value is bound to its context, so it cannot be moved
// to another name; a value sealed with another key is told apart from one that
// was changed; the key is never printed.
package sealed
