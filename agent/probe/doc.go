// Package probe checks running tasks from outside: HTTP, TCP, or any function.
//
// Invariants: a task is good after one success; it is bad after as many
// failures in a row as allowed, and before its first success not before the
// start period and that many intervals have passed, however often it is asked
// meanwhile.
package probe
