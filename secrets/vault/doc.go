// Package vault reads secrets from HashiCorp Vault's key/value engine, version 2.
// It is the only package that imports Vault.
//
// A reference is "MOUNT/PATH#FIELD": "kv/shop/db#password" is the field password
// of the secret shop/db in the engine mounted at kv.
//
// Invariants: nothing is asked of Vault but reads and its own login; a token of
// AppRole is had anew once Vault refuses it; a Vault that does not answer is asked
// once in a few seconds, whoever waits; errors name path and field, never a
// value.
package vault
