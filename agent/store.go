package agent

import (
	"context"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// Store is what an agent needs of the cluster's state. control.AgentStore
// implements it over a store.Store.
type Store interface {
	// Follow calls on with all placements and sealed payloads of the node, first
	// once they have been read and then after each change, until ctx ends. It
	// waits out a store that does not answer.
	Follow(ctx context.Context, node cluster.NodeID, on func([]cluster.NodePlacement, []cluster.Sealed)) error
	// Statuses returns what the node's agent wrote last.
	Statuses(ctx context.Context, node cluster.NodeID) ([]cluster.Status, error)
	// WriteStatus puts statuses and deletes those of the tasks in gone.
	WriteStatus(ctx context.Context, node cluster.NodeID, put []cluster.Status, gone []cluster.TaskID) error
	// WriteInfo puts what the node says about itself.
	WriteInfo(ctx context.Context, info cluster.NodeInfo) error
	// Beat keeps the node's heartbeat under a lease, until ctx ends or the lease is lost.
	Beat(ctx context.Context, node cluster.NodeID, ttl time.Duration) error
}
