// Package charttest holds the cases that show whether a template means here what it
// means to Helm, and Helm's own answer to each.
//
// Invariants:
//   - Oracle uses Helm's library alone, along the way that `helm template` takes:
//     nothing of package chart is in it.
//   - A case says what must be in its answer, so that two empty answers are no success.
package charttest
