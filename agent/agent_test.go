package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/cluster"
)

// settleDown waits until nothing more happens within d of fake time.
func settleDown(d time.Duration) {
	time.Sleep(d) // fake time
	synctest.Wait()
}

func TestStartingATaskTakesThreeCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNode(t)
		_, stop := n.start()
		settleDown(time.Second)
		n.engine.took()
		p, q := fakeTask(1), fakeTask(2)
		n.store.set(true, p)
		settleDown(10 * time.Second)
		if diff := cmp.Diff([]string{"image img", "create", "start", "inspect"}, n.engine.took()); diff != "" {
			t.Errorf("the first: -want +got:\n%s", diff)
		}
		n.store.set(true, p, q)
		settleDown(10 * time.Second)
		if diff := cmp.Diff([]string{"create", "start", "inspect"}, n.engine.took()); diff != "" {
			t.Errorf("the second: -want +got:\n%s", diff)
		}
		p.Desire = cluster.DesireStop
		n.store.set(true, p, q)
		settleDown(10 * time.Second)
		if diff := cmp.Diff([]string{"SIGTERM", "remove"}, n.engine.took()); diff != "" {
			t.Errorf("stop: -want +got:\n%s", diff)
		}
		want := []string{"starting ready=false ", "running ready=true ", "stopped ready=false "}
		got := slices.DeleteFunc(n.store.states[p.Task], func(s string) bool { return strings.HasPrefix(s, "stopping") })
		if diff := cmp.Diff(want, slices.Compact(got)); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		stop()
	})
}

func TestManyTasksAreBoundedAndTheirStatusesShareWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNode(t)
		_, stop := n.start()
		settleDown(time.Second)
		var ps []cluster.NodePlacement
		for i := range 50 {
			ps = append(ps, fakeTask(i+1))
		}
		n.store.set(true, ps...)
		settleDown(time.Minute)
		running := 0
		for _, p := range ps {
			if s := n.store.status(p.Task); s.State == cluster.StateRunning && s.Ready {
				running++
			}
		}
		if running != 50 || n.engine.mostBusy != 8 {
			t.Errorf("%d of 50 run, %d were made at a time", running, n.engine.mostBusy)
		}
		// Seven rounds of eight, each of which changes all its statuses at once.
		if n.store.writes > 25 {
			t.Errorf("%d writes", n.store.writes)
		}
		stop()
	})
}

func TestAnEngineThatIsAwayFailsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNode(t)
		p, job, later := fakeTask(1), fakeTask(2), fakeTask(3)
		p.Restart.MaxAttempts = 1
		job.Restart.Condition = "none"
		n.store.set(true, p, job)
		_, stop := n.start()
		settleDown(10 * time.Second)
		before := n.store.status(p.Task)
		for round := range 3 {
			n.engine.goAway()
			n.engine.end(string(p.Task), 137, false)
			n.engine.end(string(job.Task), 0, false)
			settleDown(time.Minute)
			for _, x := range []cluster.NodePlacement{p, job} {
				if s := n.store.status(x.Task); s.State != cluster.StateRunning {
					t.Fatalf("round %d: while the engine is away: %s", round, show(s))
				}
			}
			n.engine.comeBack(time.Now())
			settleDown(10 * time.Second)
			for _, x := range []cluster.NodePlacement{p, job} {
				s := n.store.status(x.Task)
				if s.State != cluster.StateRunning || !s.Ready || s.Restarts != 0 || !s.Started.After(before.Started) {
					t.Fatalf("round %d: after it came back: %s", round, show(s))
				}
			}
		}
		// One that crashes at once after the engine's return crashes by itself.
		n.engine.goAway()
		n.engine.end(string(p.Task), 137, false)
		n.engine.exitWith[string(p.Task)] = 9
		n.engine.comeBack(time.Now())
		settleDown(time.Minute)
		if s := n.store.status(p.Task); s.State != cluster.StateFailed || s.Reason != "exited with code 9" || s.Restarts != 1 {
			t.Errorf("crashing: %s", show(s))
		}
		// Placed while it is away: started when it is back.
		n.engine.goAway()
		n.store.set(true, p, job, later)
		settleDown(time.Minute)
		if s := n.store.status(later.Task); s.State.Terminal() || s.Ready || s.Reason != docker.ErrAway.Error() {
			t.Error(show(s))
		}
		n.engine.comeBack(time.Now())
		settleDown(10 * time.Second)
		if s := n.store.status(later.Task); !s.Ready {
			t.Error(show(s))
		}
		stop()
	})
}

func TestAnExitWhileTheEngineShutsDownIsNotTheTasksOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNode(t)
		p := fakeTask(1)
		p.Restart.Condition = "none"
		n.store.set(true, p)
		_, stop := n.start()
		settleDown(10 * time.Second)
		// Its last connections still work, and bring the event; new ones are refused.
		c := n.engine.boxes[string(p.Task)]
		n.engine.end(string(p.Task), 0, false)
		n.engine.mu.Lock()
		n.engine.refuses = true
		n.engine.mu.Unlock()
		n.engine.tell(c, "die")
		settleDown(5 * time.Second)
		if s := n.store.status(p.Task); s.State.Terminal() {
			t.Fatal(show(s))
		}
		n.engine.goAway()
		n.engine.comeBack(time.Now())
		settleDown(10 * time.Second)
		if s := n.store.status(p.Task); !s.Ready || s.Restarts != 0 {
			t.Error(show(s))
		}
		stop()
	})
}

func TestACrashCountsAndAnEndWhileTheAgentIsAwayToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNode(t)
		p, job := fakeTask(1), fakeTask(2)
		job.Restart.Condition = "on-failure"
		n.store.set(true, p, job)
		_, stop := n.start()
		settleDown(time.Minute)
		n.engine.end(string(p.Task), 1, true)
		settleDown(30 * time.Second)
		if s := n.store.status(p.Task); !s.Ready || s.Restarts != 1 {
			t.Errorf("after a crash: %s", show(s))
		}
		stop()
		n.engine.end(string(p.Task), 1, false)
		n.engine.end(string(job.Task), 0, false)
		_, stop = n.start()
		settleDown(30 * time.Second)
		if s := n.store.status(p.Task); !s.Ready || s.Restarts != 2 {
			t.Errorf("after a crash that nobody saw: %s", show(s))
		}
		if s := n.store.status(job.Task); s.State != cluster.StateComplete || !slices.Equal(s.LogTail, []string{"last words"}) {
			t.Errorf("a job that ended while nobody looked: %s %q", show(s), s.LogTail)
		}
		// What has ended stays ended, though its container could be started again.
		stop()
		_, stop = n.start()
		settleDown(30 * time.Second)
		if s := n.store.status(job.Task); s.State != cluster.StateComplete {
			t.Errorf("a job that had ended: %s", show(s))
		}
		stop()
	})
}

// A node that was off says that its tasks do not serve before it says that it is alive,
// though its engine is not up yet: the two together would call clients to nobody. An
// agent that was only restarted leaves them serving.
func TestANodeThatWasOffVouchesForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNode(t)
		p := fakeTask(1)
		n.store.set(true, p)
		_, stop := n.start()
		settleDown(10 * time.Second)
		if s := n.store.status(p.Task); !s.Ready {
			t.Fatal(show(s))
		}
		stop()
		n.engine.goAway() // the fake's processes are none of this machine's
		var vouched []cluster.Status
		n.store.beats = func() { vouched = append(vouched, n.store.status(p.Task)) }
		_, stop = n.start()
		settleDown(10 * time.Second)
		if len(vouched) != 1 || vouched[0].Ready || vouched[0].Reason != cluster.ProcessEnded || !vouched[0].ReadySince.IsZero() {
			t.Errorf("the heartbeat vouches for %+v", vouched)
		}
		stop()
	})
}

func TestIsContainer(t *testing.T) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	_, group, _ := strings.Cut(strings.TrimSpace(string(own)), "/")
	if !isContainer(os.Getpid(), group) {
		t.Error("a process of the container")
	}
	if isContainer(os.Getpid(), strings.Repeat("0123", 16)) {
		t.Error("another process has its number now")
	}
	if isContainer(1<<30, "") {
		t.Error("no process has that number")
	}
}

func TestOrphansWaitForTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNode(t)
		p, gone := fakeTask(1), fakeTask(2)
		n.store.set(true, p, gone)
		_, stop := n.start()
		settleDown(10 * time.Second)
		stop()
		if err := os.Remove(filepath.Join(n.state, "assignment.json")); err != nil {
			t.Fatal(err)
		}
		n.store.set(false)
		n.engine.took()
		_, stop = n.start()
		settleDown(10 * time.Minute)
		for _, c := range n.engine.took() {
			switch c {
			case "start", "create", "remove", "SIGTERM", "SIGKILL":
				t.Errorf("%s before the placements were read", c)
			}
		}
		n.store.set(true, p)
		settleDown(30 * time.Second)
		if _, left := n.engine.boxes[string(gone.Task)]; left || n.engine.boxes[string(p.Task)].State != docker.Running {
			t.Errorf("%+v", n.engine.boxes)
		}
		if s := n.store.status(gone.Task); s.Task != "" {
			t.Errorf("its status is left: %s", show(s))
		}
		stop()
	})
}

func TestPullsAreSharedShownAndBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNode(t)
		n.engine.pullable["far"] = docker.ImageInfo{ID: "sha256:2"}
		n.change = func(c *Config) {
			c.Credentials = func(_ context.Context, host string) (string, string, error) { return "me@" + host, "x", nil }
		}
		var ps []cluster.NodePlacement
		for i := range 5 {
			p := fakeTask(i + 1)
			p.Spec.Image = "far"
			ps = append(ps, p)
		}
		absent, moved, always := fakeTask(11), fakeTask(12), fakeTask(13)
		absent.Spec.Image = "nowhere"
		moved.Spec.Image, moved.Spec.ImageID = "img", "sha256:old"
		always.Spec.PullPolicy = "always"
		n.engine.pullable["img"] = docker.ImageInfo{ID: "sha256:1"}
		n.store.set(true, append(ps, absent, moved, always)...)
		_, stop := n.start()
		settleDown(4 * time.Second)
		if s := n.store.status(ps[3].Task); s.State != cluster.StatePulling || s.Reason != "pulling far: 1 of 2 layers" {
			t.Error(show(s))
		}
		settleDown(2 * time.Minute)
		pulls := map[string]int{}
		for _, c := range n.engine.took() {
			if strings.HasPrefix(c, "pull ") {
				pulls[c]++
			}
		}
		want := map[string]int{"pull far as me@docker.io": 1, "pull nowhere as me@docker.io": 1, "pull img as me@docker.io": 1}
		if diff := cmp.Diff(want, pulls); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		for _, p := range append(ps, always) {
			if s := n.store.status(p.Task); !s.Ready {
				t.Error(show(s))
			}
		}
		if s := n.store.status(absent.Task); s.State != cluster.StateFailed || s.Reason != "image nowhere not present and cannot be pulled: manifest unknown" {
			t.Error(show(s))
		}
		if s := n.store.status(moved.Task); s.State != cluster.StateFailed || !strings.Contains(s.Reason, "is now sha256:1, not sha256:old") {
			t.Error(show(s))
		}
		stop()
	})
}

// What was built is in no registry, and its policy is never: the node that built it
// has it, and no registry is asked.
func TestABuiltImageComesFromAnotherNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNode(t)
		asked, off := 0, true
		n.change = func(c *Config) {
			c.Fetch = func(_ context.Context, ask cluster.ImageAsk) (cluster.ImageSent, error) {
				sends := func(what string) (cluster.ImageSent, error) {
					return cluster.ImageSent{ReadCloser: io.NopCloser(strings.NewReader(what)), From: "n2"}, nil
				}
				switch {
				case ask.Ref != "built":
					return cluster.ImageSent{}, cluster.NotFoundf("no other node has the image %s", ask.Ref)
				case off:
					off = false
					return cluster.ImageSent{}, cluster.Transientf("no server answers")
				}
				if !ask.Whole { // layers that were there have gone meanwhile
					return sends(partial)
				}
				asked++
				return sends(ask.Ref)
			}
		}
		built, absent := fakeTask(1), fakeTask(2)
		built.Spec.Image, built.Spec.PullPolicy = "built", "never"
		absent.Spec.Image, absent.Spec.PullPolicy = "absent", "never"
		n.store.set(true, built, absent)
		_, stop := n.start()
		settleDown(2 * time.Minute)
		if s := n.store.status(built.Task); !s.Ready || asked != 1 {
			t.Errorf("asked %d times: %s", asked, show(s))
		}
		if s := n.store.status(absent.Task); s.State != cluster.StateFailed || !strings.Contains(s.Reason, "not present on this node") {
			t.Error(show(s))
		}
		for _, c := range n.engine.took() {
			if strings.HasPrefix(c, "pull ") {
				t.Errorf("a registry was asked: %s", c)
			}
		}
		stop()
	})
}

// A node that was taken over says of any image that it has it. What it sends is not taken, and
// the next node is asked; what is asked for by a registry's digest comes from there.
func TestAnotherImageThanTheOneAskedForIsNotTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNode(t)
		var asked []string
		n.change = func(c *Config) {
			c.Fetch = func(_ context.Context, ask cluster.ImageAsk) (cluster.ImageSent, error) {
				asked = append(asked, fmt.Sprint(ask.Ref, ask.Not))
				what, from := "evil", cluster.NodeID("n2")
				switch {
				case slices.Contains(ask.Not, from) && ask.Ref == "nowhere":
					return cluster.ImageSent{}, cluster.NotFoundf("no other node has it")
				case slices.Contains(ask.Not, from):
					what, from = ask.Ref, "n3"
				}
				return cluster.ImageSent{ReadCloser: io.NopCloser(strings.NewReader(what)), From: from, Content: "of " + ask.Ref}, nil
			}
		}
		n.engine.pullable["nowhere"] = docker.ImageInfo{ID: "sha256:nowhere"}
		digested := "exact@sha256:" + strings.Repeat("1", 64)
		n.engine.pullable[digested] = docker.ImageInfo{ID: "sha256:exact"}
		built, pushed, nowhere, exact, never := fakeTask(1), fakeTask(2), fakeTask(3), fakeTask(4), fakeTask(5)
		never.Spec.Image, never.Spec.PullPolicy = "never"+digested[len("exact"):], "never"
		built.Spec.Image, built.Spec.ImageID, built.Spec.PullPolicy = "built", "sha256:built", "never"
		pushed.Spec.Image, nowhere.Spec.Image, exact.Spec.Image = "pushed", "nowhere", digested
		n.engine.pullable[never.Spec.Image] = docker.ImageInfo{ID: "sha256:never"}
		n.store.set(true, built, pushed, nowhere, exact, never)
		_, stop := n.start()
		settleDown(time.Minute)
		for _, p := range []cluster.NodePlacement{built, pushed, nowhere, exact} {
			if s := n.store.status(p.Task); !s.Ready {
				t.Error(show(s))
			}
		}
		if s := n.store.status(never.Task); s.State != cluster.StateFailed || !strings.Contains(s.Reason, "its pull policy is never") {
			t.Error(show(s))
		}
		slices.Sort(asked)
		if got := strings.Join(asked, " "); got != "built[] built[n2] nowhere[] nowhere[n2] pushed[] pushed[n2]" {
			t.Errorf("asked for %s", got)
		}
		stop()
	})
}

// A task's status has the digest that its image was pulled by: the engine is asked for it no
// more often than before, and by an agent that takes over such containers once for each at most.
func TestTheDigestOfAnImageIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		digest := "@sha256:" + strings.Repeat("2", 64)
		n := newFakeNode(t)
		n.engine.pullable["reg.test/far:1"] = docker.ImageInfo{ID: "sha256:2", Digests: []string{"mirror.test/far" + digest, "reg.test/far" + digest}}
		n.engine.images["built"] = docker.ImageInfo{ID: "sha256:3", Digests: []string{"built" + digest}}
		var pulled []cluster.NodePlacement
		for i := range 3 {
			p := fakeTask(i + 1)
			p.Spec.Image = "reg.test/far:1"
			pulled = append(pulled, p)
		}
		local, built := fakeTask(11), fakeTask(12)
		built.Spec.Image, built.Spec.ImageID, built.Spec.PullPolicy = "built", "sha256:3", "never"
		n.store.set(true, append(pulled, local, built)...)
		asked := func() (count int) {
			for _, c := range n.engine.took() {
				if strings.HasPrefix(c, "image sha256:") {
					count++
				}
			}
			return count
		}
		says := func(when string) {
			t.Helper()
			for _, p := range append(pulled, local, built) {
				want := ""
				if p.Spec.Image == "reg.test/far:1" {
					want = "reg.test/far" + digest
				}
				if s := n.store.status(p.Task); !s.Ready || s.ImageID == "" || s.ImageDigest != want {
					t.Errorf("%s: image %s, digest %q, not %q: %s", when, s.ImageID, s.ImageDigest, want, show(s))
				}
			}
		}
		_, stop := n.start()
		settleDown(time.Minute)
		says("after the start")
		if c := asked(); c != 0 {
			t.Errorf("the engine was asked %d times by image ID", c)
		}
		n.engine.end(string(pulled[0].Task), 1, true)
		settleDown(time.Minute)
		says("after a crash")
		stop()
		n.engine.took()

		// Of an agent that said no digest yet, and kept its statuses.
		path := filepath.Join(n.state, "assignment.json")
		kept, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		older := strings.ReplaceAll(string(kept), `"image_digest":"reg.test/far`+digest+`",`, "")
		if older == string(kept) {
			t.Fatalf("no digest is kept in %s", kept)
		}
		if err := os.WriteFile(path, []byte(older), 0o600); err != nil {
			t.Fatal(err)
		}
		_, stop = n.start()
		settleDown(time.Minute)
		says("after the other version took over")
		if c := asked(); c > 4 {
			t.Errorf("the engine was asked %d times about four containers that were pulled or loaded", c)
		}
		stop()
	})
}

func TestAStopEndsAPull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNode(t)
		p := fakeTask(1)
		p.Spec.Image = "far"
		n.engine.pullErr = cluster.Transientf("registry is slow")
		n.store.set(true, p)
		_, stop := n.start()
		settleDown(time.Minute)
		p.Desire = cluster.DesireStop
		n.store.set(true, p)
		settleDown(time.Second)
		if s := n.store.status(p.Task); s.State != cluster.StateStopped {
			t.Errorf("after the stop: %s", show(s))
		}
		stop()
	})
}

// What cannot be had now is waited for, and said, for as long as a rollout waits for it; what
// no attempt changes is not.
func TestARegistryThatIsAwayIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNode(t)
		n.engine.pullable["far"] = docker.ImageInfo{ID: "sha256:far"}
		n.engine.pullErr = cluster.Transientf("connection refused")
		p := fakeTask(1)
		p.Spec.Image = "far"
		n.store.set(true, p)
		_, stop := n.start()
		settleDown(9 * time.Minute)
		const says = "image far not present and cannot be pulled: connection refused"
		if s := n.store.status(p.Task); s.State != cluster.StatePulling || s.Reason != says {
			t.Errorf("while it is away: %s", show(s))
		}
		pulls := 0
		for _, c := range n.engine.took() {
			if strings.HasPrefix(c, "pull ") {
				pulls++
			}
		}
		if pulls < 10 || pulls > 30 { // each takes five seconds here, and there are thirty between them
			t.Errorf("it was asked %d times", pulls)
		}
		n.engine.fails(nil)
		settleDown(time.Minute)
		if s := n.store.status(p.Task); !s.Ready || s.Reason != "" {
			t.Errorf("when it is back: %s", show(s))
		}
		n.engine.fails(cluster.Transientf("connection refused"))
		q := fakeTask(2)
		q.Spec.Image = "farther"
		n.store.set(true, p, q)
		settleDown(maxDelayed + 2*maxDelay)
		if s := n.store.status(q.Task); s.State != cluster.StateFailed || s.Reason != "image farther not present and cannot be pulled: connection refused" {
			t.Errorf("when it never is: %s", show(s))
		}
		stop()
	})
}

func TestNetworksAreMadeNamedAndTidied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNode(t)
		var told []Network
		n.change = func(c *Config) { c.OnNetworks = func(x []Network) { told = x } }
		// docker compose left a network of the same name, and uses our first subnet.
		n.engine.nets = []docker.Network{{ID: "theirs", Name: "a_default", Subnets: prefixes("10.213.0.0/24")}}
		p := fakeTask(1)
		p.Spec.NetworkMode, p.Spec.Networks = "", []cluster.NetworkRef{{Name: "a_default"}, {Name: "shared", External: true}}
		n.engine.nets = append(n.engine.nets, docker.Network{ID: "shared-id", Name: "shared", Bridge: "br-x", Subnets: prefixes("10.9.0.0/24"), Gateway: prefixes("10.9.0.1/24")[0].Addr()})
		n.store.set(true, p)
		a, stop := n.start()
		settleDown(20 * time.Second)
		if !n.store.status(p.Task).Ready || len(told) != 2 {
			t.Fatalf("%s, %+v", show(n.store.status(p.Task)), told)
		}
		if x := told[0]; x.Name != "a_default" || x.Subnet.String() != "10.213.1.0/24" || x.Gateway.String() != "10.213.1.1" || x.External || len(x.Bridge) > 15 {
			t.Errorf("%+v", x)
		}
		if x := told[1]; x.Name != "shared" || !x.External || x.Bridge != "br-x" {
			t.Errorf("%+v", x)
		}
		if got := a.nets.named(map[string]string{"net-2": "10.213.1.2", "theirs": "10.213.0.9"}); len(got) != 1 || got["a_default"] != "10.213.1.2" {
			t.Errorf("named %v", got)
		}
		if name := n.engine.nets[2].Name; !strings.HasPrefix(name, "a_default.") {
			t.Errorf("a second network named %s", name)
		}
		bridge := told[0].Bridge
		p.Desire = cluster.DesireStop
		n.store.set(true, p)
		settleDown(time.Second)
		n.store.set(true)
		settleDown(2 * time.Minute)
		var left []string
		for _, x := range n.engine.nets {
			left = append(left, x.ID)
		}
		if diff := cmp.Diff([]string{"theirs", "shared-id"}, left); diff != "" || len(told) != 0 {
			t.Errorf("left %v, told %v", left, told)
		}
		if a.nets.bridge("a_default") != bridge {
			t.Error("the bridge's name changes")
		}
		stop()
	})
}

func prefixes(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, x := range s {
		out = append(out, netip.MustParsePrefix(x))
	}
	return out
}

// show prints a status in full; its String method names the service only.
func show(s cluster.Status) string {
	b, err := json.Marshal(s)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
