package scheduler

import (
	"fmt"
	"testing"

	"github.com/fairlead/fairlead/cluster"
)

// BenchmarkPlan measures placements a second of the planner alone.
func BenchmarkPlan(b *testing.B) {
	for _, size := range []struct {
		name                   string
		nodes, services, tasks int
		change                 func(*cluster.ServiceSpec)
	}{
		{"1000_nodes_10000_tasks_1_service", 1000, 1, 10_000, nil},
		{"1000_nodes_10000_tasks_100_services", 1000, 100, 10_000, nil},
		{"1000_nodes_10000_tasks_10000_services", 1000, 10_000, 10_000, nil},
		{"1000_nodes_100000_tasks_1000_services", 1000, 1000, 100_000, nil},
		{"5000_nodes_100000_tasks_constraint", 5000, 100, 100_000, func(s *cluster.ServiceSpec) {
			s.Placement.Constraints = []string{"node.labels.zone!=zone-3"}
		}},
		{"1000_nodes_10000_tasks_spread", 1000, 100, 10_000, func(s *cluster.ServiceSpec) {
			s.Placement.Spread = []string{"node.labels.zone", "node.hostname"}
		}},
	} {
		b.Run(size.name, func(b *testing.B) {
			s := big(size.nodes, size.services, size.tasks, size.change)
			for b.Loop() {
				if acts := Plan(s); len(acts) != size.tasks {
					b.Fatalf("%d actions", len(acts))
				}
			}
			b.ReportMetric(float64(size.tasks)*float64(b.N)/b.Elapsed().Seconds(), "placements/s")
		})
	}
	b.Run("nothing_to_do_100000_tasks", func(b *testing.B) {
		s := big(1000, 1000, 100_000, nil)
		s = applyAll(s)
		for b.Loop() {
			if acts := Plan(s); len(acts) != 0 {
				b.Fatalf("%d actions", len(acts))
			}
		}
	})
	b.Run("90000_of_100000_tasks_do_not_fit", func(b *testing.B) {
		s := big(100, 1000, 100_000, nil)
		for b.Loop() {
			Plan(s)
		}
	})
}

func big(nodes, services, tasks int, change func(*cluster.ServiceSpec)) Snapshot {
	var s Snapshot
	for i := range nodes {
		s.Nodes = append(s.Nodes, cluster.Node{
			NodeSpec: cluster.NodeSpec{ID: cluster.NodeID(fmt.Sprintf("node-%04d", i)), Labels: map[string]string{"zone": fmt.Sprint("zone-", i%7)}},
			Info:     cluster.NodeInfo{Hostname: fmt.Sprint("host", i), CPU: 16_000, Memory: 64 << 30, OS: "linux", Arch: "amd64"},
			Alive:    true,
		})
	}
	for i := range services {
		svc := cluster.Service{ServiceID: cluster.ServiceID{App: "app", Name: cluster.ServiceName(fmt.Sprint("svc", i))}}
		if change != nil {
			change(&svc.Spec)
		}
		s.Services = append(s.Services, svc)
	}
	for i := range tasks {
		id := s.Services[i%services].ServiceID
		slot := i/services + 1
		s.Tasks = append(s.Tasks, cluster.Task{
			ID: cluster.NewTaskID(id, slot, 1, int64(i), ""), ServiceID: id, Slot: slot, Version: "v", N: int64(i), Desire: cluster.DesireRun,
			Spec: cluster.TaskSpec{Image: "image", Resources: cluster.Resources{ReserveCPU: 150, ReserveMemory: 64 << 20}},
		})
	}
	return s
}

func applyAll(s Snapshot) Snapshot {
	for _, a := range Plan(s) {
		if p, ok := a.(Place); ok {
			s.Placements = append(s.Placements, p.Placement)
			s.Statuses = append(s.Statuses, cluster.Status{Task: p.Placement.Task, Node: p.Placement.Node, State: cluster.StateRunning})
		}
	}
	return s
}
