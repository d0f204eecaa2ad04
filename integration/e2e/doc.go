// Package e2e tests the fairlead program as its users run it: the built binary,
// a real Docker engine, a real Traefik, requests over loopback.
//
// Each test starts a cluster of its own (data and run directories, ports,
// address ranges, cluster ID) and removes all of it, also after a failure. The
// tests need root, Docker and Traefik, and skip where one is missing.
package e2e
