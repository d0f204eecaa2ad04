// Package embedded runs an etcd server inside the process.
//
// Invariants: clients and peers show certificates of the cluster's authority,
// peers one that is for peers alone; the advertised peer address is one that
// other machines can reach, from the first start, so that joining later changes
// nothing; nodes may use keys and leases, and nothing else that etcd serves; one process a data directory; etcd never ends the process by itself,
// Run returns instead.
package embedded
