// Package taskinit is the first program in a container whose environment holds
// secrets: it reads them from a file in memory and becomes the program that the
// image or the user named.
//
// It runs in every program that imports it, the fairlead binary above all, when
// that is mounted at Program and called with Command.
//
// Invariants: it imports nothing but the standard library's smallest parts, so
// that it costs a container's start as little as possible; it needs nothing of
// the image, not even a shell or a passwd file; it prints no value.
package taskinit
