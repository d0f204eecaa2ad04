package integration

import (
	"context"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/cluster"
)

// TestAgentStartsManyNearTheEnginesOwnTime compares, in one run, the agent with bare
// engine calls at the same concurrency, to notice when it does something once for each
// container that the engine need not. How much it is exactly, bench measures. One is measured
// after the other, on a machine that may stand still in between: the best of three times counts.
func TestAgentStartsManyNearTheEnginesOwnTime(t *testing.T) {
	const most = 2.5
	n := newAgentNode(t)
	n.start()
	spec := cluster.TaskSpec{Image: testImage, Networks: netRef(n)}
	warm := n.placement("warm", 1, spec)
	n.place(warm)
	n.await(warm.Task, "ready", 30*time.Second, ready)
	nets, err := n.engine.Networks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var network string
	for _, x := range nets {
		if x.Labels[cluster.LabelCluster] == n.clusterI {
			network = x.ID
		}
	}

	least := startRatio(t, n, network, spec)
	for i := 1; i < 3 && least > most; i++ {
		least = min(least, startRatio(t, n, network, spec))
	}
	if least > most {
		t.Errorf("the agent takes %.2f times the engine's own time, more than %.2f", least, most)
	}
}

// startRatio starts and removes containers by the engine alone, then by the agent, and
// returns how many times as long that takes to start them.
func startRatio(t *testing.T, n *agentNode, network string, spec cluster.TaskSpec) float64 {
	t.Helper()
	const replicas = 20
	began := time.Now()
	ids := bare(t, n, network, spec, replicas)
	floor := time.Since(began)
	began = time.Now()
	var g errgroup.Group
	g.SetLimit(8)
	for _, id := range ids {
		g.Go(func() error { return n.engine.Remove(context.Background(), id) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	floorRemove := time.Since(began)

	var ps []cluster.NodePlacement
	for i := range replicas {
		ps = append(ps, n.placement("web", i+1, spec))
	}
	began = time.Now()
	n.place(ps...)
	for _, p := range ps {
		n.await(p.Task, "ready", 2*time.Minute, ready)
	}
	took := time.Since(began)
	began = time.Now()
	for i := range ps {
		ps[i].Desire = cluster.DesireStop
	}
	n.place(ps...)
	for _, p := range ps {
		n.await(p.Task, "stopped", 2*time.Minute, inState(cluster.StateStopped))
	}
	stopped := time.Since(began)
	ratio := took.Seconds() / floor.Seconds()
	t.Logf("start: engine alone %s, agent %s, ratio %.2f; remove: engine alone %s, agent %s, ratio %.2f",
		floor, took, ratio, floorRemove, stopped, stopped.Seconds()/floorRemove.Seconds())
	for _, p := range ps {
		n.unplace(p.Task)
	}
	return ratio
}

func bare(t *testing.T, n *agentNode, network string, spec cluster.TaskSpec, replicas int) []string {
	t.Helper()
	ids := make([]string, replicas)
	var g errgroup.Group
	g.SetLimit(8)
	for i := range replicas {
		g.Go(func() error {
			id, err := n.engine.Create(t.Context(), docker.Create{
				Name: fmt.Sprintf("%s_bare.%d", n.clusterI, i), Image: testImage, Spec: &spec, Networks: []docker.Attachment{{ID: network}},
				// Not the node's: the agent would take it for an orphan.
				Labels: map[string]string{cluster.LabelCluster: n.clusterI, cluster.LabelNode: "bare"},
			})
			if err != nil {
				return err
			}
			ids[i] = id
			return n.engine.Start(t.Context(), id)
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return ids
}
