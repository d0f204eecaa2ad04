// Package v1 is what travels over Fairlead's HTTP API, version 1: the types of
// requests and answers, RFC 9457 problems, and the frames of upgraded
// connections. Server and client share it.
//
// It imports only the standard library and package cluster, so that a program
// that embeds the client links nothing of the server.
//
// Invariants: a field that is added is optional; no answer ever holds a secret
// value; what a request carries of one (Plain) redacts itself when printed.
package v1
