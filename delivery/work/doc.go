// Package work fetches a delivery's source and makes of it what is deployed, in a
// process of its own: what comes from elsewhere is bounded in time, memory, disk and
// output, and once it is fetched the process sees nothing of the machine but it.
//
// Invariants: credentials reach the process by its standard input, and leave it for the
// source's host alone. No file is written outside of the directory that the process was
// given. An ssh host whose key is not among the known ones is not spoken to.
package work
