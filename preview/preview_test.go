package preview_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/preview"
)

const mib = 1 << 20

var start = time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)

// state is a cluster that a test furnishes, and a change of the app shop.
type state struct {
	preview.Snapshot
	change preview.Change
}

func newState(memory ...int64) *state {
	s := &state{Snapshot: preview.Snapshot{Now: start}, change: preview.Change{App: "shop"}}
	for i, m := range memory {
		id := cluster.NodeID(fmt.Sprintf("n%d", i+1))
		s.Nodes = append(s.Nodes, cluster.Node{
			NodeSpec: cluster.NodeSpec{ID: id}, Alive: true,
			Info: cluster.NodeInfo{ID: id, CPU: 4000, Memory: m * mib, Roles: []string{"agent"}},
		})
	}
	return s
}

func spec(image string, replicas int, memory int64, more ...func(*cluster.ServiceSpec)) cluster.ServiceSpec {
	s := cluster.ServiceSpec{
		Mode: cluster.Replicated, Replicas: replicas,
		Task: cluster.TaskSpec{Image: image, Resources: cluster.Resources{ReserveMemory: memory * mib}},
	}
	for _, f := range more {
		f(&s)
	}
	return s
}

func service(app, name string, spec cluster.ServiceSpec) cluster.Service {
	return cluster.Service{
		ServiceID: cluster.ServiceID{App: cluster.AppName(app), Name: cluster.ServiceName(name)},
		Version:   spec.Task.Hash(), Release: 1, Spec: spec, Created: 5,
	}
}

// has puts a service with tasks on nodes in turn, as they stand after a rollout.
func (s *state) has(app, name string, spec cluster.ServiceSpec) {
	svc := service(app, name, spec)
	s.Services = append(s.Services, svc)
	s.Scales = append(s.Scales, cluster.Scale{ServiceID: svc.ServiceID, Replicas: spec.Replicas})
	stable := spec.Task
	s.Rollouts = append(s.Rollouts, cluster.Rollout{
		ServiceID: svc.ServiceID, Target: svc.Version, Release: 1, State: cluster.RolloutComplete, Created: 5,
		Stable: &stable, StableRelease: 1, NextTask: int64(spec.Replicas + 1),
	})
	for slot := 1; slot <= spec.Replicas; slot++ {
		node := s.Nodes[(slot-1)%len(s.Nodes)].ID
		t := cluster.Task{
			ID: cluster.NewTaskID(svc.ServiceID, slot, 5, int64(slot), ""), ServiceID: svc.ServiceID, Slot: slot, Version: svc.Version,
			Spec: spec.Task, Desire: cluster.DesireRun, N: int64(slot), Created: start, Since: start,
		}
		s.Tasks = append(s.Tasks, t)
		s.Placements = append(s.Placements, cluster.NodePlacement{
			Task: t.ID, Node: node, ServiceID: t.ServiceID, Slot: slot, Version: t.Version, Spec: t.Spec, Desire: cluster.DesireRun,
		})
		s.Statuses = append(s.Statuses, cluster.Status{
			Task: t.ID, Node: node, ServiceID: t.ServiceID, Slot: slot, Version: t.Version, State: cluster.StateRunning, Ready: true, ReadySince: start,
		})
	}
}

// wants adds a service to the change.
func (s *state) wants(name string, spec cluster.ServiceSpec) {
	svc := service("shop", name, spec)
	svc.Release = 2
	s.change.Services = append(s.change.Services, svc)
	s.change.Scales = append(s.change.Scales, cluster.Scale{ServiceID: svc.ServiceID, Replicas: spec.Replicas})
}

func (s *state) waits() []string {
	var out []string
	for _, w := range preview.Waits(s.Snapshot, s.change) {
		out = append(out, w.String())
	}
	return out
}

func stopFirst(s *cluster.ServiceSpec) { s.Update.Order = "stop-first" }

func nodePort(s *cluster.ServiceSpec) {
	s.Task.NodePorts = []cluster.PublishedPort{{Published: 5432, Target: 5432, Protocol: "tcp", Mode: "node"}}
}

func volume(s *cluster.ServiceSpec) {
	s.Task.Mounts = []cluster.Mount{{Type: cluster.MountVolume, Source: "shop_data", Target: "/data"}}
}

func after(name, condition string) func(*cluster.ServiceSpec) {
	return func(s *cluster.ServiceSpec) {
		s.DependsOn = append(s.DependsOn, cluster.Dependency{Service: cluster.ServiceName(name), Condition: condition})
	}
}

const oneMore = "; the task before it stops only when the new one is ready: that takes room for one more, or update_config: {order: stop-first}"

func TestWaits(t *testing.T) {
	for name, c := range map[string]struct {
		memory []int64
		make   func(s *state)
		want   []string
	}{
		"room for all": {memory: []int64{1000}, make: func(s *state) {
			s.wants("web", spec("a", 5, 200))
		}},
		"room for three of five": {memory: []int64{700}, make: func(s *state) {
			s.wants("web", spec("a", 5, 200))
		}, want: []string{"2 of 5 replicas of web would wait: no suitable node (insufficient resources on 1 node, n1: needs 200M of memory, 100M free)"}},
		"others have taken it": {memory: []int64{1000, 1000}, make: func(s *state) {
			s.has("store", "big", spec("b", 2, 700))
			s.wants("web", spec("a", 1, 500))
		}, want: []string{"the one replica of web would wait: no suitable node (insufficient resources on 2 nodes)"}},
		"the node is drained": {memory: []int64{1000}, make: func(s *state) {
			s.Nodes[0].Availability = cluster.Drain
			s.wants("web", spec("a", 1, 0))
		}, want: []string{"the one replica of web would wait: no suitable node (1 node drained)"}},
		"an update of what has its volume on a node that is paused": {memory: []int64{1000, 1000}, make: func(s *state) {
			s.has("shop", "db", spec("a", 2, 0, volume))
			s.Nodes[0].Availability = cluster.Pause
			s.wants("db", spec("b", 2, 0, volume))
		}, want: []string{"1 of 2 replicas of db would wait: shop/db.1 is not replaced: node n1, which has its volume, takes no tasks now"}},
		"a service that was removed, its volume on a node that is paused": {memory: []int64{1000, 1000}, make: func(s *state) {
			s.Nodes[0].Availability = cluster.Pause
			s.Kept = []cluster.VolumePlaces{{
				ServiceID: cluster.ServiceID{App: "shop", Name: "db"}, Slots: map[int]cluster.VolumePlace{1: {Node: "n1", Volumes: []string{"shop_data"}}},
			}}
			s.wants("db", spec("a", 1, 0, volume))
		}, want: []string{"the one replica of db would wait: no suitable node (1 node paused; volume shop_data is on node n1, not on 1 node)"}},
		"a port of another app": {memory: []int64{1000}, make: func(s *state) {
			s.has("store", "db", spec("b", 1, 0, nodePort))
			s.wants("db", spec("a", 1, 0, nodePort))
		}, want: []string{"the one replica of db would wait: no suitable node (host-mode port already in use on 1 node, n1: 5432/tcp in use)"}},
		"a port of a service that goes with the change": {memory: []int64{1000}, make: func(s *state) {
			s.has("shop", "db", spec("b", 1, 0, nodePort))
			s.wants("postgres", spec("a", 1, 0, nodePort))
		}},
		"an update that has room for one more": {memory: []int64{1000}, make: func(s *state) {
			s.has("shop", "web", spec("a", 4, 200))
			s.wants("web", spec("b", 4, 200))
		}},
		"an update that has not": {memory: []int64{900}, make: func(s *state) {
			s.has("shop", "web", spec("a", 4, 200))
			s.wants("web", spec("b", 4, 200))
		}, want: []string{"4 of 4 replicas of web would wait: no suitable node (insufficient resources on 1 node, n1: needs 200M of memory, 100M free)" + oneMore}},
		"an update that stops first": {memory: []int64{900}, make: func(s *state) {
			s.has("shop", "web", spec("a", 4, 200, stopFirst))
			s.wants("web", spec("b", 4, 200, stopFirst))
		}},
		"an update in the middle of which the room ends": {memory: []int64{1000}, make: func(s *state) {
			s.has("shop", "web", spec("a", 4, 150))
			s.wants("web", spec("b", 4, 250))
		}, want: []string{"2 of 4 replicas of web would wait: no suitable node (insufficient resources on 1 node, n1: needs 250M of memory, 200M free)" + oneMore}},
		"scaled up beyond the room": {memory: []int64{900}, make: func(s *state) {
			s.has("shop", "web", spec("a", 4, 200))
			s.wants("web", spec("a", 6, 200))
		}, want: []string{"2 of 6 replicas of web would wait: no suitable node (insufficient resources on 1 node, n1: needs 200M of memory, 100M free)"}},
		"what waits for it waits too": {memory: []int64{500}, make: func(s *state) {
			s.wants("db", spec("a", 1, 600))
			s.wants("web", spec("a", 2, 10, after("db", "service_healthy")))
		}, want: []string{
			"the one replica of db would wait: no suitable node (insufficient resources on 1 node, n1: needs 600M of memory, 500M free)",
			"2 of 2 replicas of web would wait: waits for db to be healthy",
		}},
		"a job makes room when it is done": {memory: []int64{500}, make: func(s *state) {
			s.wants("migrate", spec("a", 1, 400, func(s *cluster.ServiceSpec) { s.Restart.Condition = "none" }))
			s.wants("web", spec("a", 1, 400, after("migrate", "service_completed_successfully")))
		}},
		"a global service on each node but one": {memory: []int64{500, 500}, make: func(s *state) {
			s.has("store", "big", spec("b", 1, 400))
			s.wants("pump", spec("a", 0, 200, func(s *cluster.ServiceSpec) { s.Mode = cluster.Global }))
		}, want: []string{"1 of 2 replicas of pump would wait: no suitable node (insufficient resources on 1 node, n1: needs 200M of memory, 100M free)"}},
		"a task that failed before": {memory: []int64{500}, make: func(s *state) {
			s.has("shop", "web", spec("a", 1, 400))
			s.Statuses[0].State, s.Statuses[0].Ready = cluster.StateFailed, false
			s.wants("web", spec("b", 1, 400))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newState(c.memory...)
			c.make(s)
			before := fmt.Sprintf("%+v", s)
			if d := cmp.Diff(c.want, s.waits()); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
			if fmt.Sprintf("%+v", s) != before {
				t.Error("the input was changed")
			}
			if d := cmp.Diff(s.waits(), s.waits()); d != "" {
				t.Errorf("twice the same is not the same\n%s", d)
			}
		})
	}
}

// TestNothingWaitsThatRuns is the law: what is as asked has nothing to wait for,
// and what waits plus what is placed is what is wanted.
func TestNothingWaitsThatRuns(t *testing.T) {
	for room := range int64(12) {
		s := newState(room*100+50, 350)
		s.wants("web", spec("a", 9, 100))
		got := preview.Waits(s.Snapshot, s.change)
		fit := min(9, int(room+3))
		switch {
		case fit == 9 && len(got) > 0:
			t.Errorf("room for %d: %v", room+3, got)
		case fit < 9 && (len(got) != 1 || got[0].Waiting != 9-fit || got[0].Wanted != 9):
			t.Errorf("room for %d of 9: %v", fit, got)
		}
		s = newState(1000)
		s.has("shop", "web", spec("a", int(room), 50))
		s.wants("web", spec("a", int(room), 50))
		s.change.Services[0].Release = 1
		if got := preview.Waits(s.Snapshot, s.change); len(got) > 0 {
			t.Errorf("%d that run: %v", room, got)
		}
	}
}

// TestManySmallBatches is about the bound: an update in more batches than are
// simulated is not told to wait.
func TestManySmallBatches(t *testing.T) {
	s := newState(100000)
	one := func(s *cluster.ServiceSpec) { s.Update.Parallelism = 1 }
	s.has("shop", "web", spec("a", 120, 10, one))
	s.wants("web", spec("b", 120, 10, one))
	if got := s.waits(); len(got) > 0 {
		t.Error(strings.Join(got, "\n"))
	}
}
