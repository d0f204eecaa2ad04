package integration

import (
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

func netRef(n *agentNode) []cluster.NetworkRef {
	return []cluster.NetworkRef{{Name: cluster.NetworkName(n.clusterI + "_default")}}
}

func TestAgentRunsServesStopsAndForgets(t *testing.T) {
	n := newAgentNode(t)
	n.start()
	p := n.placement("web", 1, cluster.TaskSpec{
		Networks: netRef(n), Health: &cluster.Health{HTTPPath: "/healthz", HTTPPort: 8080},
		Hostname: "{{.Service.Name}}-{{.Task.Slot}}-{{.Node.ID}}", StopGrace: cluster.Duration(5 * time.Second),
	})
	n.place(p)
	s := n.await(p.Task, "running and ready", 20*time.Second, ready)
	body, err := n.get(s, p.Spec.Networks[0].Name, "/")
	if want := "hello from " + string(p.App) + "_web-1-n1"; err != nil || body != want {
		t.Fatalf("got %q, %v; want %q", body, err, want)
	}
	p.Desire = cluster.DesireStop
	n.place(p)
	n.await(p.Task, "stopped", 20*time.Second, inState(cluster.StateStopped))
	if c := n.containers(); len(c) != 0 {
		t.Errorf("containers are left: %v", c)
	}
	n.unplace(p.Task)
	n.until("status gone", 5*time.Second, func() bool { _, ok := n.status(p.Task); return !ok }, func() string { return "" })
}

func TestAgentSaysWhyATaskFailed(t *testing.T) {
	n := newAgentNode(t)
	n.start()
	p := n.placement("job", 1, cluster.TaskSpec{Command: []string{"exit", "3"}, NetworkMode: "none"})
	p.Restart.Condition = "none"
	n.place(p)
	s := n.await(p.Task, "failed", 20*time.Second, inState(cluster.StateFailed))
	if s.Reason != "exited with code 3" || s.ExitCode != 3 || strings.Join(s.LogTail, "|") != "about to exit" {
		t.Errorf("reason %q, code %d, tail %q", s.Reason, s.ExitCode, s.LogTail)
	}
	ok := n.placement("job", 1, cluster.TaskSpec{Command: []string{"exit", "0"}, NetworkMode: "none"})
	ok.Restart.Condition = "on-failure"
	n.place(ok)
	n.await(ok.Task, "complete", 20*time.Second, inState(cluster.StateComplete))
}
