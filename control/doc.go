// Package control fits the planners to the store: for each control loop it reads
// a mirror into the planner's snapshot and writes the planner's actions as
// transactions.
//
// Invariants: every write compares the revision it was decided on; a loop plans
// on a mirror that has caught up with the loop's own last write; planners never
// see the store, and the store never sees planners.
package control
