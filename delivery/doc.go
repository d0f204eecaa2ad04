// Package delivery decides what comes next of each delivery: a look at its source, a
// deploy, the way back, a notification, or nothing yet.
//
// Invariants: all functions are pure, and time is an argument. A revision that was gone
// back from is not deployed again until what is asked for changes. A delivery that failed
// is tried again for ever. An event is in the history once, and in the outbox until it
// was sent or is too old.
package delivery
