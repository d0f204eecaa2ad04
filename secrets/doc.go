// Package secrets turns references to secrets into values, and decides which
// node gets which of them: the broker.
//
// Providers live in packages of their own: secrets/sealed keeps values in the
// cluster's store, encrypted with a key that only servers have; secrets/vault
// reads them from HashiCorp Vault.
//
// Invariants: a value is a cluster.Secret, which redacts itself, or lives in a
// function's local variable; no error, log line or note of this package holds
// one; Plan is pure and never sees a value; what leaves this package is
// encrypted to the public key of the one node that needs it.
package secrets
