// Package proxy lets nodes into an etcd that is an operator's: it keeps no users for
// them there. It speaks etcd's protocol to nodes, by TLS with their certificates, and
// passes on what a node may do.
//
// Invariants: what a node may do is decided by store.NodeGrants and store.Allows
// alone, of which the embedded etcd's roles are made too; each read and each write
// is a transaction that compares the node's record (nodes/<node>/spec) with the one
// that it was decided on, so that a node is refused from the moment that its record is
// gone, whichever server removed it and however late another one hears of it; what
// stands (watches) ends when the record goes or gives it less or more; what is not
// listed here is refused. Nothing is cached or merged: revisions, order and progress
// are etcd's own, one stream of a node is one stream of etcd.
package proxy
