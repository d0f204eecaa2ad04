// Package chart turns packages in Helm's chart format into Compose projects.
//
// Helm's own library loads them, merges values, checks schemas and renders; this
// package bounds what that may take and touch, and reads what it made.
//
// Invariants:
//   - A template means what it means to Helm: the text of each rendered file, and of
//     each refusal, is Helm's own (charttest holds the cases that show it).
//   - Nothing of a package is written or rendered before all of it was looked at:
//     paths that lead out, links, and contents that unpack to too much are refused.
//   - Templates run in a process of their own (Renderer), within bounds of time,
//     memory and output. One that loops ends with an error, and takes nothing along.
//   - Rendering opens no file, resolves no name and calls nobody: equal files,
//     values and release give equal output, functions of chance and time aside.
package chart
