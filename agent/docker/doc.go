// Package docker is the only package that speaks to a container engine.
//
// It offers what an agent needs of Docker in the words of package cluster, and
// no more: containers, networks, volumes, images, events and streams.
//
// Invariants: nothing is decided here; every error carries a cluster.Kind, and
// an engine that does not answer is KindTransient wrapping ErrAway, so that
// callers never take its absence for a failed task; nothing without a Fairlead
// label is changed or removed unless the caller names it by ID.
package docker
