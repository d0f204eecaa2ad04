package main

import (
	"context"
	"time"

	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/integration/quorum"
	"github.com/fairlead/fairlead/lab"
)

// kills is how often the leading server loses its power.
const kills = 10

// measureLeaders takes the power of the server that leads, again and again, and
// cuts each off once, while labels are written without a pause through whichever
// server accepts them.
func measureLeaders(ctx context.Context, b *bench) error {
	if err := sweepLabs(ctx, b); err != nil {
		return err
	}
	return b.lab(ctx, func(l *bed) error {
		w, err := newWriter(l)
		if err != nil {
			return err
		}
		defer w.Close()
		var took []float64
		for range kills {
			leader, err := w.Voters(ctx, votersWithin)
			if err != nil {
				return err
			}
			d, err := w.Without(ctx, leader, func() error { _, err := l.lab(ctx, "kill", leader); return err })
			if err != nil {
				return err
			}
			took = append(took, d.Seconds())
			if _, err := l.lab(ctx, "start", leader); err != nil {
				return err
			}
		}
		l.b.say("  a leader's power lost to the first accepted write: %.2f s", took)
		var cuts []float64
		for _, n := range l.status.Nodes {
			if _, err := w.Voters(ctx, votersWithin); err != nil {
				return err
			}
			d, err := w.Without(ctx, n.Name, func() error { _, err := l.lab(ctx, "cut", n.Name); return err })
			if err != nil {
				return err
			}
			cuts = append(cuts, d.Seconds())
			if _, err := l.lab(ctx, "heal", n.Name); err != nil {
				return err
			}
		}
		l.b.say("  a server cut off to the first accepted write: %.2f s", cuts)
		if _, err := w.Voters(ctx, votersWithin); err != nil {
			return err
		}
		lost, err := w.Lost(ctx)
		if err != nil {
			return err
		}
		b.set("leader_kills", float64(len(took)))
		b.set("leader_failover_s_p50", median(took))
		b.set("leader_acked_writes", float64(w.Acked()))
		b.set("leader_acked_writes_lost", float64(len(lost)))
		return nil
	}, "--servers", "3", "--gateways", "0")
}

// votersWithin is how long a server that was harmed may take to vote again.
const votersWithin = 2 * time.Minute

// newWriter writes through the servers of a lab.
func newWriter(l *bed) (*quorum.Writer, error) {
	servers := map[string]*client.Client{}
	for _, n := range l.status.Nodes {
		c, err := client.New(client.Options{Socket: lab.DirOf(l.root, labName).APISocket(n.Name)})
		if err != nil {
			return nil, err
		}
		servers[n.Name] = c
	}
	return quorum.New("n1", servers), nil
}
