// Package scheduler decides which node runs which task, and why a task runs on
// none.
//
// Plan is pure: all it knows is in the Snapshot. A task that should run and has
// no placement is given the best of the nodes that no filter refuses; desires of
// tasks are copied into their placements; placements of tasks that have ended
// are removed. Choosing, evicting and replacing tasks is the rollout's part: a
// task is placed once, and never moves.
//
// # Choice of a node
//
// Filters, in the order in which they are asked and named: ready (alive, not
// paused or drained), platform, constraints, volume (a task stays with the data of
// its slot), ports (of the node), max_per_node, resources (reservations). A task
// of a global service is offered its own node only. Of the nodes that remain, the
// best has
//
//  1. the fewest tasks of the service in its branch, for each spread preference;
//  2. the fewest tasks of the service;
//  3. the best fit: the least reserved with this task on it (in steps of 5 %),
//     then the one whose CPU and memory it fills most evenly; tasks that reserve
//     nothing go where the fewest tasks are;
//  4. the first name.
//
// Tasks in the same slot do not count in 1, 2 and max_per_node: of two tasks in
// one slot one is about to go.
//
// What decided is told with the placement, in a cluster of up to 64 nodes.
//
// # Invariants
//
//   - Of the tasks that should run, each is placed or in the plan as Unplaced.
//   - No task is placed on a node that is dead, drained or refused by a filter,
//     and the reservations on a node never exceed it.
//   - A desire only moves forward.
//   - A second plan, on the first one applied, changes nothing.
//   - The order of the input does not matter, and the input is not changed.
//   - The work is in proportion to the input and to services × nodes, never to
//     tasks × nodes.
package scheduler
