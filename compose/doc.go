// Package compose reads Compose files into the cluster's vocabulary.
//
// compose-go interpolates, merges, extends and includes; this package knows
// where each key was written, what Fairlead honours, and what a key means on a
// cluster of nodes instead of one machine.
//
// Invariants:
//   - Every complaint carries the file and the line of the key it is about, also
//     after several files, extends, anchors and include (the index, see index.go).
//   - No key is dropped in silence: it is honoured, warned of, or refused, by the
//     table in keys.go that docs/compose.md repeats and a test compares.
//   - A refused file is reported completely: Problems lists all that is wrong.
//   - Load reads files and nothing else: no process environment, no clock, no
//     network. Equal input gives equal output.
//   - A secret's value is only ever in SecretDecl.Value.
//   - No input makes it panic; size, depth and expansion of a file are bounded
//     before anything else looks at it.
package compose
