// Package lab tests labs: real namespaces, engines, Traefik. Each test has labs of
// its own, which no other test and nothing of the machine sees.
package lab
