package integration

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// TestMeshCostOfAChange: with 200 services of 5 tasks, changing one of them must
// not cost in proportion to all of them.
func TestMeshCostOfAChange(t *testing.T) {
	n := newMeshNode(t, "default")
	n.start()
	nets := []cluster.NetworkName{n.network(0)}
	sub := n.nets[0].Subnet.Addr().As4()
	task := func(service, slot int) cluster.Endpoint {
		return cluster.Endpoint{
			Task: cluster.TaskID(fmt.Sprintf("shop_s%d.%d.x", service, slot)), Slot: slot, Node: "n1",
			Addresses: map[cluster.NetworkName]string{nets[0]: fmt.Sprintf("%d.%d.%d.%d", sub[0], sub[1], sub[2], 2+(service*5+slot)%250)},
		}
	}
	id := func(s int) cluster.ServiceID {
		return cluster.ServiceID{App: "shop", Name: cluster.ServiceName(fmt.Sprintf("s%d", s))}
	}
	five := func(s int) []cluster.Endpoint {
		out := make([]cluster.Endpoint, 0, 5)
		for slot := range 5 {
			out = append(out, task(s, slot))
		}
		return out
	}
	n.mu.Lock()
	for s := range 199 {
		n.rev++
		n.eps[id(s)] = cluster.Endpoints{ServiceID: id(s), Address: n.vip(s), Networks: nets, Tasks: five(s), Rev: n.rev}
	}
	n.mu.Unlock()
	start := time.Now()
	n.serve(id(199), n.vip(199), nets, five(199)...)
	t.Logf("all of them: %v", time.Since(start))

	took := make([]time.Duration, 0, 50)
	for i := range 50 {
		s := i % 20
		tasks := five(s)
		if i/20%2 == 0 {
			tasks = tasks[1:] // one goes: UDP flows are looked at too; later it comes back
		}
		start := time.Now()
		n.serve(id(s), n.vip(s), nets, tasks...)
		took = append(took, time.Since(start))
	}
	slices.Sort(took)

	// Fifty at once: they share transactions. By turns with the whole table, three times, as a
	// machine that stands still for a moment makes either look dear.
	var resyncs, bursts []time.Duration
	for gone := range 3 {
		start = time.Now()
		if err := n.mesh.Resync(t.Context()); err != nil {
			t.Fatal(err)
		}
		resyncs = append(resyncs, time.Since(start))
		start = time.Now()
		for s := range 50 {
			n.set(id(s), n.vip(s), nets, five(s)[2+gone:]...)
		}
		n.serve(id(0), n.vip(0), nets, five(0)[1+gone:]...)
		bursts = append(bursts, time.Since(start))
	}
	slices.Sort(resyncs)
	all, burst := resyncs[1], slices.Min(bursts)
	t.Logf("whole table %v; a change alone: p50 %v, p90 %v, slowest %v; 50 changes at once %v", all, took[25], took[45], took[49], burst)
	if took[25] > 4*all || burst > 8*all {
		t.Errorf("changes cost as much as the whole table")
	}
}
