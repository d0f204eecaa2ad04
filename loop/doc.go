// Package loop is the one loop shape of the control plane: snapshot at a store
// revision, plan, apply, wait for a change, and a slow resync.
//
// Invariants: Plan is pure; what it decided is applied against the revision it
// was decided on; a conflict or an error means a fresh snapshot after a short
// back-off, never a retry of the old decision.
package loop
