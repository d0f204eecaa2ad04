// Package hook decides about changes of apps whose packages have hooks: which hook
// runs next, as which task, what its end means for the change, and when what is
// left of it goes.
//
// Plan is pure: all it knows is in the Snapshot. What it must remember is in the
// record (cluster.ChangeRecord) and in the tasks, so that another leader goes on
// where this one ended.
//
// # How a change goes
//
//	before ─▶ apply ─▶ settle ─▶ after ─▶ (finish) ─▶ done
//
// The API writes a cluster.PendingChange and the release that it would make.
// Hooks ahead of it run one after the other (before). Then the API writes the
// services (apply), rollout makes them healthy, or removes them (settle), and hooks
// behind it run (after). A removal ends with the API's removing what is left
// (finish). Who acts in a stage reads in the record that it has begun, and the
// others see in the store that it was done: nobody calls anybody.
//
// What fails before apply, or is refused there, has touched nothing, and ends there. What
// fails later ends failed; a change that is atomic is taken back by another one, which the
// API writes (undo). Where that is refused too, the change ends failed as it is.
//
// # Invariants
//
//   - At most one hook of an app runs at a time.
//   - A hook's task is made in the transaction that puts its run on record: no hook
//     runs twice in a change, whoever leads.
//   - A hook that neither ends nor can end any more fails when its time is up: no
//     change waits for ever in a stage in which others are refused. What the API refuses
//     in its stages ends the change as well.
//   - A task of a hook that no running change waits for is stopped.
//   - Equal input in any order gives equal output; the input is not changed.
package hook
