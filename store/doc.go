// Package store is the only client of etcd: keys, codec, transactions, leases,
// watches, elections.
//
// Invariants: every key is made by a function in keys.go and has one writer,
// named in the table of owners there; every change is a transaction that compares
// the revisions it was decided on; a lost comparison is a KindConflict error
// and the caller decides again on a fresh snapshot.
//
// Two implementations pass one conformance suite (storetest): Memory, for tests
// and simulation, and Etcd.
package store
