// Package autoscaler decides how many replicas a service has, from what its
// tasks use.
//
// Plan is pure and has the semantics of Kubernetes' HorizontalPodAutoscaler v2
// with its default behaviour, checked against Kubernetes' own calculator
// (testdata/hpa.json):
//
//   - utilisation is what the tasks use, of what they reserve; the count that
//     would bring it to the target is the recommendation; within 10 % nothing
//     changes; of several metrics the one that asks for most decides, and where
//     one cannot be had the others may only raise the count;
//   - tasks that start up do not count, and in raising the count as using
//     nothing; tasks without a sample count as using what they reserve when the
//     count is lowered and nothing when it is raised;
//   - the count goes up to the lowest recommendation of the window up (0s), down
//     to the highest of the window down (5m), by at most 4 or to twice as many in
//     15 seconds, and never out of the bounds.
//
// It differs in three points: one task a slot counts, so that a rolling update
// does not look like more replicas; the count is not lowered while a rollout is
// under way; and a count that a person set is where the windows begin anew, so
// that it is not taken back before the window down has passed.
//
// # Invariants
//
//   - Only services that ask for it are scaled, and never out of their bounds.
//   - Without a usable sample the count stays.
//   - What must be remembered is in the State, which the store keeps: another
//     leader goes on where this one ended. A clock that went back is noticed.
//   - Equal input in any order gives equal output; the input is not changed.
package autoscaler
