package integration

import (
	"context"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead/fairlead/agent"
	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/cluster"

	"github.com/fairlead/fairlead/integration/dockerd"
)

func TestAgentStartsAgainWhatARestartedEngineStopped(t *testing.T) {
	for name, sig := range map[string]syscall.Signal{"killed": syscall.SIGKILL, "stopped": syscall.SIGTERM} {
		for _, away := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, agent away %v", name, away), func(t *testing.T) { engineRestart(t, sig, away) })
		}
	}
}

func engineRestart(t *testing.T, sig syscall.Signal, away bool) {
	t.Helper()
	n := newAgentNode(t)
	d := dockerd.New(t)
	n.useEngine(d.Host())
	n.start()
	web := n.placement("web", 1, cluster.TaskSpec{Networks: netRef(n), Health: &cluster.Health{Test: []string{"CMD", "testapp", "check"}}})
	web.Restart.MaxAttempts = 1
	// A job that has not ended must begin again, not count as failed or done.
	job := n.placement("job", 1, cluster.TaskSpec{NetworkMode: "none"})
	job.Restart.Condition = "none"
	done := n.placement("done", 1, cluster.TaskSpec{NetworkMode: "none", Command: []string{"exit", "0"}})
	done.Restart.Condition = "none"
	n.place(web, job, done)
	first := n.await(web.Task, "ready", 60*time.Second, ready)
	n.await(job.Task, "running", 30*time.Second, ready)
	ended := n.await(done.Task, "complete", 30*time.Second, inState(cluster.StateComplete))
	began := time.Now()
	for range 2 {
		if away {
			n.stop()
		}
		d.End(sig)
		if !away {
			time.Sleep(1500 * time.Millisecond)
			for _, p := range []cluster.NodePlacement{web, job} {
				if s, _ := n.status(p.Task); s.State.Terminal() {
					t.Fatalf("ended because the engine is away: %s", show(s))
				}
			}
		}
		d.Start()
		if away {
			n.start()
		}
		for _, p := range []cluster.NodePlacement{web, job} {
			s := n.await(p.Task, "runs again", 60*time.Second, func(s cluster.Status) bool { return ready(s) && s.Started.After(began) })
			if s.Restarts != 0 {
				t.Errorf("%s: the engine's restart was counted as a crash: %s", p.Name, show(s))
			}
		}
		began = time.Now()
	}
	if s, _ := n.status(web.Task); s.Container != first.Container {
		t.Errorf("made a new container: %s", show(s))
	}
	if s, _ := n.status(done.Task); !s.At.Equal(ended.At) {
		t.Errorf("what was done was touched: %s", show(s))
	}
}

// useEngine has the node's agent use another engine, with the test image on it.
func (n *agentNode) useEngine(host string) {
	n.t.Helper()
	e, err := docker.New(host)
	if err != nil {
		n.t.Fatal(err)
	}
	bin, err := testapp()
	if err != nil {
		n.t.Fatal(err)
	}
	_, err = e.Build(context.Background(), docker.Build{
		Tags: []string{testImage}, Progress: io.Discard,
		Context: tarOf(map[string][]byte{
			"Dockerfile": []byte("FROM scratch\nCOPY testapp /bin/testapp\nENTRYPOINT [\"testapp\"]\nCMD [\"serve\"]\n"), "testapp": bin,
		}),
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.engine = e
	n.t.Cleanup(n.clean) // before the engine is stopped
}

func TestAgentStartsBeforeItsEngine(t *testing.T) {
	n := newAgentNode(t)
	d := dockerd.New(t)
	n.useEngine(d.Host())
	d.End(syscall.SIGTERM)
	n.start(func(c *agent.Config) { c.TTL = time.Second })
	p := n.placement("web", 1, cluster.TaskSpec{Networks: netRef(n)})
	n.place(p)
	s := n.await(p.Task, "accepted", 10*time.Second, inState(cluster.StateAccepted))
	if !strings.Contains(s.Reason, "does not answer") {
		t.Errorf("reason %q", s.Reason)
	}
	d.Start()
	n.await(p.Task, "ready", 60*time.Second, ready)
}
