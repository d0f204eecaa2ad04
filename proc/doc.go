// Package proc starts programs that must outlive this one, and finds them
// again: Traefik, the name server; and such as must not.
//
// Invariants:
//   - A process is known by its PID and the time it started. A PID alone may be
//     another's by now, and is never signalled.
//   - One that is tied to this process ends with it, and not with a thread of it.
//   - To wait for a process's end costs nothing meanwhile: no thread, except a tied
//     one's, and no wake-up.
package proc
