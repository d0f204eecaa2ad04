package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/agent"
	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

func TestAgentStartsACrashedContainerAgainInPlace(t *testing.T) {
	n := newAgentNode(t)
	n.start()
	p := n.placement("web", 1, cluster.TaskSpec{Networks: netRef(n), Health: &cluster.Health{TCPPort: 8080}})
	p.Restart.Delay = cluster.Duration(300 * time.Millisecond)
	n.place(p)
	first := n.await(p.Task, "ready", 20*time.Second, ready)
	_, _ = n.get(first, p.Spec.Networks[0].Name, "/exit?code=7")
	s := n.await(p.Task, "backing off", 5*time.Second, inState(cluster.StateStarting))
	if !strings.HasPrefix(s.Reason, "exited with code 7") || s.Ready || s.ExitCode != 7 || len(s.LogTail) == 0 || len(s.Addresses) > 0 {
		t.Errorf("while it backs off: %s", show(s))
	}
	s = n.await(p.Task, "ready again", 20*time.Second, ready)
	if s.Restarts != 1 || s.Container != first.Container || !s.Started.After(first.Started) {
		t.Errorf("first %s\nthen %s", show(first), show(s))
	}
}

// impatient calls a task sick after two failures, but leaves it the time to start
// that a slow machine needs: one that does not listen yet would be given up as that.
var impatient = &cluster.Health{
	HTTPPath: "/healthz", HTTPPort: 8080,
	Interval: cluster.Duration(100 * time.Millisecond), Retries: 2, StartPeriod: cluster.Duration(15 * time.Second),
}

func TestAgentGivesUpOnWhatNeverWorks(t *testing.T) {
	n := newAgentNode(t)
	n.start()
	crash := n.placement("crash", 1, cluster.TaskSpec{Command: []string{"exit", "4"}, NetworkMode: "none"})
	crash.Restart.Delay = cluster.Duration(50 * time.Millisecond)
	crash.Restart.MaxAttempts = 2
	sick := n.placement("sick", 1, cluster.TaskSpec{
		Networks: netRef(n), Env: map[string]string{"SICK": "1"},
		Health: impatient,
	})
	away := n.placement("away", 1, cluster.TaskSpec{Image: "127.0.0.1:1/fairlead/nothing:1", NetworkMode: "none"})
	never := n.placement("never", 1, cluster.TaskSpec{Image: "fairlead-no-such-image", PullPolicy: "never", NetworkMode: "none"})
	program := n.placement("program", 1, cluster.TaskSpec{Entrypoint: []string{"/no/such/program"}, NetworkMode: "none"})
	n.place(crash, sick, away, never, program)
	for _, c := range []struct {
		p      cluster.NodePlacement
		within time.Duration
		reason string
	}{
		{crash, 20 * time.Second, "exited with code 4"},
		{sick, 20 * time.Second, "health check failed: GET /healthz: 503 Service Unavailable: not feeling well"},
		{never, 20 * time.Second, "image fairlead-no-such-image is not present on this node, and its pull policy is never"},
		{program, 40 * time.Second, "no such file or directory"},
	} {
		s := n.await(c.p.Task, "failed", c.within, inState(cluster.StateFailed))
		if !strings.Contains(s.Reason, c.reason) {
			t.Errorf("%s: reason %q, want %q", c.p.Name, s.Reason, c.reason)
		}
	}
	// By now what counts would have been tried often enough: a registry that refuses may come back.
	n.await(away.Task, "waiting for its registry", time.Minute, func(s cluster.Status) bool {
		return s.State == cluster.StatePulling && strings.Contains(s.Reason, "image 127.0.0.1:1/fairlead/nothing:1 not present and cannot be pulled: ")
	})
	if s, _ := n.status(crash.Task); s.Restarts != 2 || len(s.LogTail) == 0 {
		t.Errorf("crash: %s", show(s))
	}
	for _, c := range n.containers() {
		if c.Live() {
			t.Errorf("%s runs although its task failed", c.Name)
		}
	}
}

func TestAgentUsesDockersOwnHealthCheckAndDoesNotWaitForItsFirstTurn(t *testing.T) {
	n := newAgentNode(t)
	n.start()
	p := n.placement("web", 1, cluster.TaskSpec{
		Networks: netRef(n), Env: map[string]string{"READY_AFTER": "500ms"},
		Health: &cluster.Health{Test: []string{"CMD", "testapp", "check"}, Interval: cluster.Duration(time.Hour)},
	})
	sick := n.placement("sick", 1, cluster.TaskSpec{
		Networks: netRef(n), Env: map[string]string{"SICK": "1"},
		// What does not listen yet when its time is up is called sick for that.
		Health: &cluster.Health{Test: []string{"CMD", "testapp", "check"}, Interval: cluster.Duration(time.Second), Retries: 2, StartPeriod: cluster.Duration(10 * time.Second)},
	})
	n.place(p, sick)
	s := n.await(p.Task, "ready", 30*time.Second, ready)
	if took := s.ReadySince.Sub(s.Started); took < 400*time.Millisecond {
		t.Errorf("ready after %s, though its check cannot have passed before 500ms", took)
	}
	s = n.await(sick.Task, "failed", 60*time.Second, inState(cluster.StateFailed))
	if s.Reason != "health check failed: healthz: 503 Service Unavailable" {
		t.Errorf("reason %q", s.Reason)
	}
}

func TestAgentRestartsWhatFellSick(t *testing.T) {
	n := newAgentNode(t)
	n.start()
	p := n.placement("web", 1, cluster.TaskSpec{
		Networks: netRef(n),
		Health:   impatient,
	})
	p.Restart.Delay = cluster.Duration(100 * time.Millisecond)
	n.place(p)
	s := n.await(p.Task, "ready", 20*time.Second, ready)
	if _, err := n.get(s, p.Spec.Networks[0].Name, "/sick"); err != nil {
		t.Fatal(err)
	}
	s = n.await(p.Task, "ready again", 30*time.Second, func(s cluster.Status) bool { return ready(s) && s.Restarts == 1 })
	if _, err := n.get(s, p.Spec.Networks[0].Name, "/healthz"); err != nil {
		t.Error(err)
	}
}

func TestAgentAdoptsItsContainersWithoutTouchingThem(t *testing.T) {
	n := newAgentNode(t)
	n.start()
	p := n.placement("web", 1, cluster.TaskSpec{Networks: netRef(n), Health: &cluster.Health{HTTPPath: "/healthz", HTTPPort: 8080}})
	n.place(p)
	before := n.await(p.Task, "ready", 20*time.Second, ready)
	n.stop()
	c, err := n.engine.Inspect(t.Context(), before.Container)
	if err != nil || c.State != docker.Running {
		t.Fatalf("after the agent's end: %+v, %v", c, err)
	}
	// Every change of the status is seen: it must never be not ready.
	seen := n.st.Watch(t.Context(), store.StatusPrefix(n.node), n.rev())
	n.start()
	n.until("the agent knows its container", 10*time.Second, func() bool { return len(n.agent.Containers()) == 1 }, func() string { return "" })
	select {
	case b := <-seen:
		for _, e := range b.Events {
			var s cluster.Status
			_ = json.Unmarshal(e.Value, &s)
			if !ready(s) {
				t.Errorf("the restart showed: %s", show(s))
			}
		}
	case <-time.After(time.Second):
	}
	after, err := n.engine.Inspect(t.Context(), before.Container)
	if err != nil || after.Pid != c.Pid || !after.Started.Equal(c.Started) {
		t.Errorf("before %+v\nafter %+v, %v", c, after, err)
	}
	// And what ends while no agent looks is taken care of by the next one.
	n.stop()
	if err := n.engine.Signal(t.Context(), before.Container, "SIGKILL"); err != nil {
		t.Fatal(err)
	}
	n.start()
	n.await(p.Task, "started again", 20*time.Second, func(s cluster.Status) bool { return ready(s) && s.Started.After(before.Started) })
}

func (n *agentNode) rev() int64 {
	n.t.Helper()
	_, rev, err := n.st.List(n.t.Context(), store.Root)
	if err != nil {
		n.t.Fatal(err)
	}
	return rev
}

func TestAgentRemovesOrphansOnceTheStoreWasReadAndNothingElse(t *testing.T) {
	n := newAgentNode(t)
	other := n.clusterI + "x"
	make := func(name, clusterID string, node cluster.NodeID) string {
		id, err := n.engine.Create(t.Context(), docker.Create{
			Name: name, Image: testImage, Spec: &cluster.TaskSpec{NetworkMode: "none"},
			Labels: map[string]string{cluster.LabelCluster: clusterID, cluster.LabelNode: string(node), cluster.LabelTask: name},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = n.engine.Remove(t.Context(), id) })
		if err := n.engine.Start(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		return id
	}
	orphan := make(n.clusterI+"_web.1.orphan", n.clusterI, n.node)
	strangers := []string{
		make(n.clusterI+"_web.1.node", n.clusterI, "n2"), make(n.clusterI+"_web.1.cluster", other, n.node),
	}
	defer func() {
		for _, s := range strangers {
			_ = n.engine.Remove(t.Context(), s)
		}
	}()
	n.st.Down(true)
	n.start()
	time.Sleep(700 * time.Millisecond)
	if c, err := n.engine.Inspect(t.Context(), orphan); err != nil || c.State != docker.Running {
		t.Fatalf("touched before the placements were read: %+v, %v", c, err)
	}
	n.st.Down(false)
	n.until("the orphan is gone", 20*time.Second, func() bool { return len(n.containers()) == 0 }, func() string { return "" })
	for _, s := range strangers {
		if c, err := n.engine.Inspect(t.Context(), s); err != nil || c.State != docker.Running {
			t.Errorf("a stranger was touched: %+v, %v", c, err)
		}
	}
}

func TestAgentBringsContainersBackWithoutAStore(t *testing.T) {
	n := newAgentNode(t)
	n.start()
	p := n.placement("web", 1, cluster.TaskSpec{
		Networks: netRef(n), Secrets: []cluster.FileRef{{Name: "pw", Target: "/run/secrets/pw"}},
	})
	n.seal(p.Task, cluster.Payload{Secrets: map[string][]byte{"pw": []byte("hunter2")}})
	n.place(p)
	n.await(p.Task, "ready", 20*time.Second, ready)
	n.stop()
	st, err := os.Stat(filepath.Join(n.state, "assignment.json"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("assignment: %v, %v", st, err)
	}
	b, _ := os.ReadFile(filepath.Join(n.state, "assignment.json"))
	if strings.Contains(string(b), "hunter2") {
		t.Error("the secret is on disk")
	}
	// A reboot: memory is lost, containers have ended, and no server is there.
	for _, c := range n.containers() {
		if err := n.engine.Remove(t.Context(), c.ID); err != nil {
			t.Fatal(err)
		}
	}
	if err := agent.CleanRunDir(n.run); err != nil {
		t.Fatal(err)
	}
	n.st.Down(true)
	n.start()
	n.until("it runs again", 20*time.Second, func() bool { return len(n.agent.Containers()) == 1 }, func() string { return "" })
	n.st.Down(false)
	s := n.await(p.Task, "its new container is known", 20*time.Second, func(s cluster.Status) bool {
		return ready(s) && len(n.agent.Containers()) == 1 && s.Container == n.agent.Containers()[0].Container
	})
	if body, err := n.get(s, p.Spec.Networks[0].Name, "/file?path=/run/secrets/pw"); err != nil || body != "hunter2" {
		t.Errorf("secret %q, %v", body, err)
	}
}

// A container keeps its address for life: what routes and endpoints say stays
// true across stops in any order, a reboot, and a container that is made again.
func TestAgentContainersKeepTheirAddresses(t *testing.T) {
	n := newAgentNode(t)
	n.start()
	var ps []cluster.NodePlacement
	for i := 1; i <= 4; i++ {
		p := n.placement("web", i, cluster.TaskSpec{Networks: append(netRef(n), cluster.NetworkRef{Name: cluster.NetworkName(n.clusterI + "_back")})})
		ps = append(ps, p)
	}
	n.place(ps...)
	first := map[cluster.TaskID]cluster.Status{}
	seen := map[string]bool{}
	for _, p := range ps {
		s := n.await(p.Task, "ready", 20*time.Second, ready)
		first[p.Task] = s
		for _, ip := range s.Addresses {
			if seen[ip] {
				t.Fatalf("%s is had twice", ip)
			}
			seen[ip] = true
		}
		if len(s.Addresses) != 2 {
			t.Fatalf("addresses %v", s.Addresses)
		}
	}
	same := func(what string, tasks ...cluster.NodePlacement) {
		t.Helper()
		for _, p := range tasks {
			s := n.await(p.Task, what, 30*time.Second, func(s cluster.Status) bool {
				return ready(s) && s.Started.After(first[p.Task].Started)
			})
			if fmt.Sprint(s.Addresses) != fmt.Sprint(first[p.Task].Addresses) {
				t.Errorf("%s: %s had %v and has %v", what, p.Task, first[p.Task].Addresses, s.Addresses)
			}
		}
	}
	// A reboot: all stop, and come back one after the other in another order.
	n.stop()
	for _, p := range ps {
		if out, err := exec.Command("docker", "stop", "-t", "0", first[p.Task].Container).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	// One container is gone altogether, and is made anew.
	if err := n.engine.Remove(t.Context(), first[ps[2].Task].Container); err != nil {
		t.Fatal(err)
	}
	// Somebody takes an address of the network meanwhile: none of ours.
	name := string(ps[0].Spec.Networks[0].Name)
	out, err := exec.Command("docker", "run", "-d", "--label", cluster.LabelCluster+"="+n.clusterI, "--label", cluster.LabelNode+"=bare",
		"--network", name, testImage).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	n.start()
	same("after a reboot", ps...)

	// Somebody asks for an address of ours while its container is stopped: the
	// task gets another one, and goes on.
	n.stop()
	victim := first[ps[0].Task]
	if out, err := exec.Command("docker", "stop", "-t", "0", victim.Container).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	taken := victim.Addresses[ps[0].Spec.Networks[0].Name]
	out, err = exec.Command("docker", "run", "-d", "--label", cluster.LabelCluster+"="+n.clusterI, "--label", cluster.LabelNode+"=bare",
		"--network", name, "--ip", taken, testImage).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	n.start()
	s := n.await(ps[0].Task, "it runs with another address", 40*time.Second, func(s cluster.Status) bool {
		return ready(s) && s.Container != victim.Container
	})
	if ip := s.Addresses[ps[0].Spec.Networks[0].Name]; ip == taken || ip == "" {
		t.Errorf("it has %q", ip)
	}
}
