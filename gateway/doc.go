// Package gateway runs Traefik on a node, keeps it supplied with routes, and
// says which revision of them it serves.
//
// Traefik is a process of its own, in its own session: neither the death nor the
// orderly end of Fairlead interrupts a request. It reads its routes from an etcd
// endpoint on the loopback that this package serves from a copy of the cluster's
// Traefik tree; the copy is kept on disk, so a gateway that boots without the
// control plane serves the last routes it knew (docs/adr/0001).
//
// Every Traefik process listens on private ports. One nftables table maps the
// public ports to the process that serves, so a process is replaced by starting
// the next one, waiting until its API shows the revision marker, and changing
// the rules in one step; connections that exist stay where they are, and the old
// process ends when they have gone. A few such processes may live on for a day.
// A port that is published no more is unmapped, which needs no other process.
//
// Servers whose connections hang are passed by (docs/adr/0017).
//
// Invariants:
//   - Exactly one process is published at a time; a new one is published only
//     once it serves the routes, save when there is no other to serve them.
//   - A private port answers nothing that did not come through a public port.
//   - A revision is acknowledged only after every process that still serves
//     connections has shown it, twice.
//   - What cannot be told from the state file (a process started just before
//     Fairlead was killed) is found by its command line.
//   - Only the table and processes of this cluster ID and run directory are
//     ever touched.
package gateway
