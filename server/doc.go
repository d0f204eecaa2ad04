// Package server wires the parts of Fairlead into one process: embedded etcd (or
// a client of an external one), control loops on the elected leader, API, agent,
// service addresses and names, gateway.
//
// Invariants: parts meet in the store alone; the loops run only while this
// process leads; ending Run leaves containers and Traefik running, so that a
// restart of Fairlead interrupts no request.
package server
