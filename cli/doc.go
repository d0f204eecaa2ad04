// Package cli is the command line: commands, output and progress. It speaks to
// the server only through package client.
//
// Invariants: every command has an example, honours -o, and ends with one of
// the exit codes of docs/adr/0003-command-tree.md; what is wrong is said with
// its place and what to do about it; nothing is asked when there is no terminal.
package cli
