package server

import (
	"context"
	"time"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/metrics"
)

// samplesPerLook is how often usage is measured for each look of the autoscaler.
const samplesPerLook = 3

// startUsage measures this node's containers, three times for each look of the autoscaler.
func (n *nodeParts) startUsage() {
	n.usage = metrics.New(metrics.Config{Now: n.now, Log: n.Log.Named("metrics")})
	every := max(n.AutoscalePeriod.D()/samplesPerLook, time.Second)
	n.g.Go(func() error {
		return n.usage.Run(n.ctx, every, func(context.Context) ([]metrics.Target, error) {
			var out []metrics.Target
			for _, r := range n.agent.Containers() {
				out = append(out, metrics.Target{Task: r.Task, Container: r.Container, Pid: r.Pid})
			}
			return out, nil
		})
	})
}

// samples are the newest measurements of this node and, on a server, of those
// connected to it.
func (n *nodeParts) samples() []cluster.Sample {
	out := n.ownSamples()
	for i := range out {
		out[i].Node = cluster.NodeID(n.Node)
	}
	if n.hub != nil {
		out = append(out, n.hub.Samples()...)
	}
	return out
}

// ownSamples are those of this node alone.
func (n *nodeParts) ownSamples() []cluster.Sample {
	if n.usage == nil {
		return nil
	}
	return n.usage.Samples()
}
