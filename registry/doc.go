// Package registry decides which tasks serve a service now, and which stable
// address the service has inside the cluster.
//
// A task is an endpoint if and only if its agent says it is ready, it is wanted
// to run (not drained), its placement stands, its node is alive, and it has an
// address. Anything else withdraws it at the next plan, but for a node that could
// not be heard of while no server led: see Grace.
//
// Invariants:
//   - Plan is pure: its output does not depend on the order of its input, and a
//     second plan after applying the first is empty.
//   - A service keeps its address from its first plan until it and its last task
//     are gone; no two services ever hold the same one.
//   - What is published of a node that joined leads to that node alone: to addresses of
//     its own blocks, on networks that its tasks were placed with, and to its host. Of a
//     network of others (external) it knows the addresses alone: there any is believed
//     that is not the cluster's, and means the same machine to whoever asks.
//   - The endpoints of a service that was removed stay in the store, shrinking,
//     until its last task is gone: their revision is what nodes and gateways
//     acknowledge before a task may stop.
package registry
