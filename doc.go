// Package fairlead is the root of Fairlead, a lightweight standalone
// orchestrator for Docker hosts. It holds no code but a test of the direction
// of imports; the binary is cmd/fairlead.
package fairlead
