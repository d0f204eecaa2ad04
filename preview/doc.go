// Package preview says what of an app would wait, were it changed so: it runs the
// planners of rollout and scheduler over the cluster as it is with the change
// made to it, and plays the agents, whose tasks all become ready.
//
// # Invariants
//
//   - What it says comes from the same functions that will decide, in their words.
//   - It is pure: no I/O, no clock, and its input is not changed.
//   - It is no promise. Others take room meanwhile, and tasks fail; what it names
//     would wait if nothing else happened.
package preview
