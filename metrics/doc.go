// Package metrics measures what the containers of a node use, by reading the
// kernel's control groups (v1 and v2) directly.
//
// Invariants: CPU is the average over the interval between two readings, so the
// first reading of a container gives no sample; memory is what Kubernetes calls
// the working set, usage less inactive file cache; a container whose files cannot
// be read costs nothing but its own sample; a process that is not in its
// container's group (its number was given to another) is never measured.
package metrics
