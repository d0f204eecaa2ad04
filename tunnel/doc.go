// Package tunnel carries what a server asks of a node's agent: logs, commands,
// copies, connections, images, and the usage that the agent measures.
//
// The agent opens one connection to each server and never listens, so a node
// behind address translation works. On that connection the roles turn round: the
// server is the client of HTTP/2, the agent answers.
//
// Invariants:
//   - Nothing that is decided goes through a tunnel; losing one changes no decision.
//   - A node has one tunnel a server: a new one replaces the old.
//   - Every call ends: with its result, its error, or the end of the connection,
//     which pings find within seconds.
//   - What a node answers is passed on as it comes, or kept up to a bound: one that answers
//     without end fills no server's memory. Its usage is its own, whatever it says.
//   - An error keeps its cluster.Kind across the tunnel.
package tunnel
