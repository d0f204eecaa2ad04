// Package rollout decides which tasks a service should have: which to create,
// to drain, to stop, to record the end of and to forget. It keeps the rollout's
// record of each service and the outcome of each release.
//
// Plan is pure: all it knows is in the Snapshot. What it must remember is in
// the record (cluster.Rollout) and in the tasks themselves, so that another
// leader goes on where this one ended. Times that it compares were written by
// leaders, never by the clocks of other nodes, with one exception that is
// bounded (see late). One that lies ahead is taken back to now, and written: the
// clock of another leader was ahead, or this one's was set back (see rewind).
//
// # How a service moves
//
// A slot is filled, updated or emptied; a task only moves forward: run, drain,
// stop, ended (Outcome), forgotten. Empty slots are filled at once. Parallelism
// limits only replacements: at most so many slots are in progress, where a slot
// is in progress until its old task is gone, so that a service never has more
// than replicas + parallelism tasks. With start-first the old task is drained
// when the new one is ready. An update is complete when every slot has had a
// ready task of the target version for the monitor period.
//
// A slot has failed when a task that this rollout made there ended as failed,
// was started again, or is not ready in time (start period + retries × interval
// + 1 minute after its container started; 10 minutes until then, for pulls). It is
// late only when a leader has seen it there and not ready for as long: a node that is
// cut off or boots, an engine or a server that is restarted, are no version's fault.
// More failed slots than the policy's ratio of all: the service goes back to
// the last version that completed (or pauses, or goes on, as the policy says). On
// the way back the rollback policy's ratio holds; of more failed slots than that it
// pauses, goes on with the others, or by default tries those that failed again first.
//
// The first deploy of a service has nothing to go back to. It is then failed,
// and its tasks are tried again with a back-off, so that it heals, and becomes
// complete, when what was wrong outside is put right. Such a service may start
// its container again twice before it counts as failed: services that come up
// together often need that.
//
// A restart policy with max_attempts is a bound on all tries of a slot: when
// they are used up the slot stays empty until a new release.
//
// # Invariants
//
//   - With start-first no task is drained for an update before a task of the
//     goal version is ready in its slot.
//   - A task that may be receiving requests is drained first, and stopped only
//     when every live node and gateway serves endpoints without it, or the bound
//     has passed, which is put on record as a decision.
//   - Tasks with a local volume never run beside one another in a slot, and are
//     not replaced when their node is lost: their data is there, until it is given
//     up with the node.
//   - A target that was rolled back is not tried again until the service's
//     version or release changes.
//   - Equal input in any order gives equal output; the input is not changed.
package rollout
