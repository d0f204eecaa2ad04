// Package agent turns the placements of one node into containers, and reports
// what it observes.
//
// Each task has a small state machine: Next, a pure function, names the next
// step from what is wanted, what is observed and the time; the task's goroutine
// does it and looks again. Steps are idempotent, so that an agent that is
// killed between any two of them goes on where it was.
//
// Invariants: nothing is ever done to a container, network or volume that does
// not carry this cluster's and this node's labels; a container without a
// placement is removed only once the placements were really read from the
// store; an engine that does not answer fails no task; the end of Run leaves
// every container running; secrets are in clear in memory and on tmpfs only.
package agent
