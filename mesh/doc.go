// Package mesh puts service addresses into the kernel of one node: a new
// connection from a container to a service's stable address goes to one ready
// task of the service on the caller's own network, by rules of nftables.
//
// Invariants:
//   - Rules is pure: endpoints and networks in, the whole ruleset out. What is
//     written is the difference to what was written before, in one transaction
//     of nft; at the start, slowly, and after a failure, the whole table.
//   - Only the table named after the cluster's ID is ever touched.
//   - A service address never leaves the node: what is not sent to a task is
//     refused at once.
//   - What comes from a bridge of this cluster has an address of that bridge, or goes nowhere:
//     other nodes trust it.
//   - Which nodes' containers are not reached, by a route or on the way, is told.
//   - A revision is reported only when the kernel serves it.
//   - The table outlives the process: containers go on talking while Fairlead
//     is away. Cleanup removes it.
package mesh
