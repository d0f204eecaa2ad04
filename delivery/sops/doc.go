// Package sops reads files that SOPS encrypted to age: YAML, JSON, dotenv, INI and
// binary ones, each recognised by the metadata in it.
//
// Invariants: nothing of a file is given away before its MAC was found right. No error
// holds a value. The packages of SOPS itself are not used, since they bring the
// libraries of four clouds with them; its program makes the files of the tests.
package sops
