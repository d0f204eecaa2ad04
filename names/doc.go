// Package names keeps the names inside containers answered by a process of its
// own, the same program as "fairlead names DIR", which outlives the server: a
// crash, a stop or an upgrade of the server fails no lookup.
//
// Names is the server's side: it starts that process, or takes over the one that
// an earlier server left, and feeds it over a unix socket. The other side is in
// resolver.go, around a dns.Server.
//
// Invariants:
//   - What Serving reports, the process serves and has kept: its directory is on
//     tmpfs, and a process that starts there begins where the last one was.
//   - The server holds copies of the sockets that are asked. What is asked while
//     no process reads them waits, and the next process answers it.
//   - At most one process is fed; one that is not is ended. Two read the same
//     sockets only while one takes over from the other.
//   - Nothing runs periodically, on either side.
package names
