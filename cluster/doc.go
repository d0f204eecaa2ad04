// Package cluster is Fairlead's vocabulary: nodes, services, tasks, placements,
// endpoints, routes, releases, and the kinds of errors. Every other package
// speaks it.
//
// It takes no decisions, does no I/O and imports only the standard library.
//
// Units, unless a field says otherwise: CPU in thousandths of a core, memory in
// bytes, durations as Go durations (nanoseconds in JSON under keys ending in
// "_ns" are never used; durations marshal as text such as "10s" through
// Duration). Slots count from 1.
package cluster
