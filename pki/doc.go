// Package pki keeps a cluster's certificate authority, the certificates of one
// machine, its age identity and the cluster's ID, as files.
//
// Invariants: every file is 0600 in a directory that is 0700 and is replaced in
// one step, so that a crash leaves the old or the new one; what is there is
// used, what is missing is made, what is damaged is an error and never replaced
// silently when others depend on it (authority, identity, cluster ID); a
// certificate and its key are in one file, so that a reader never sees halves.
//
// Common names: "root" is the control plane (etcd's own name for who may do
// everything), "node:<id>" a node, "peer" a member of the embedded etcd towards
// the others. A certificate is for one of these uses only.
package pki
