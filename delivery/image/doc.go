// Package image chooses images among the tags of a repository, and writes them into YAML.
//
// Invariants: the same tags lead to the same choice, in whatever order they come. A file
// that is written differs in the marked values and in nothing else, which is checked by
// reading it again.
package image
