package agent

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/cluster"
)

var t0 = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func placed(desire cluster.Desire, change ...func(*cluster.NodePlacement)) *cluster.NodePlacement {
	p := &cluster.NodePlacement{Task: "a_b.1.x", Desire: desire, Spec: cluster.TaskSpec{Image: "img"}}
	for _, f := range change {
		f(p)
	}
	return p
}

func box(state string, change ...func(*docker.Container)) *docker.Container {
	c := &docker.Container{
		ID: "c1", State: state, StopSignal: "SIGTERM", Started: t0.Add(-time.Minute),
		Labels: map[string]string{cluster.LabelTask: "a_b.1.x"},
	}
	if state == docker.Exited {
		c.Finished = t0
	}
	for _, f := range change {
		f(c)
	}
	return c
}

func code(n int) func(*docker.Container) { return func(c *docker.Container) { c.ExitCode = n } }

func restart(r cluster.RestartPolicy) func(*cluster.NodePlacement) {
	return func(p *cluster.NodePlacement) { p.Restart = r }
}

func TestNext(t *testing.T) {
	run, stop, drain := placed(cluster.DesireRun), placed(cluster.DesireStop), placed(cluster.DesireDrain)
	secret := placed(cluster.DesireRun, func(p *cluster.NodePlacement) { p.Spec.Secrets = []cluster.FileRef{{Name: "s"}} })
	none := placed(cluster.DesireRun, restart(cluster.RestartPolicy{Condition: "none"}))
	onFailure := placed(cluster.DesireRun, restart(cluster.RestartPolicy{Condition: "on-failure", MaxAttempts: 2}))
	quick := func(c *docker.Container) { c.Started = t0.Add(-time.Second) }
	failed := func(code int, reason string) Step {
		return End{State: cluster.StateFailed, ExitCode: code, Reason: reason}
	}
	for name, c := range map[string]struct {
		d    Desired
		o    Observed
		want Step
	}{
		"engine away":                {Desired{Placement: run, Synced: true}, Observed{}, Wait{}},
		"new":                        {Desired{Placement: run}, Observed{Engine: true}, Create{}},
		"without its secret":         {Desired{Placement: secret}, Observed{Engine: true}, Wait{}},
		"with its secret":            {Desired{Placement: secret, Payload: true}, Observed{Engine: true}, Create{}},
		"image missing":              {Desired{Placement: run}, Observed{Engine: true, Memory: Memory{NeedsPull: true}}, Pull{}},
		"pull failed once":           {Desired{Placement: run}, Observed{Engine: true, Memory: Memory{NeedsPull: true, Faults: 1, FaultAt: t0}}, Wait{Until: t0.Add(time.Second)}},
		"pull failed for good":       {Desired{Placement: run}, Observed{Engine: true, Memory: Memory{Faults: 1, FaultFatal: true, Fault: "no"}}, failed(0, "no")},
		"failed too often":           {Desired{Placement: run}, Observed{Engine: true, Memory: Memory{Faults: maxFaults, Fault: "port taken"}}, failed(0, "port taken")},
		"a registry is away":         {Desired{Placement: run}, Observed{Engine: true, Memory: Memory{NeedsPull: true, Faults: 20, Delays: 20, FaultAt: t0, FaultSince: t0.Add(-9 * time.Minute)}}, Wait{Until: t0.Add(30 * time.Second)}},
		"a registry away for ever":   {Desired{Placement: run}, Observed{Engine: true, Memory: Memory{NeedsPull: true, Faults: 24, Delays: 24, FaultAt: t0, FaultSince: t0.Add(-10 * time.Minute), Fault: "refused"}}, failed(0, "refused")},
		"away, and then no image":    {Desired{Placement: run}, Observed{Engine: true, Memory: Memory{NeedsPull: true, Faults: 24, Delays: 23, FaultSince: t0, FaultFatal: true, Fault: "no"}}, failed(0, "no")},
		"failed and away":            {Desired{Placement: run}, Observed{Engine: true, Memory: Memory{Faults: 20 + maxFaults, Delays: 20, FaultSince: t0, Fault: "port taken"}}, failed(0, "port taken")},
		"made":                       {Desired{Placement: run}, Observed{Engine: true, Container: box(docker.Created)}, Start{}},
		"runs":                       {Desired{Placement: run}, Observed{Engine: true, Container: box(docker.Running)}, Wait{}},
		"paused by a person":         {Desired{Placement: run}, Observed{Engine: true, Container: box(docker.Paused)}, Wait{}},
		"sick":                       {Desired{Placement: run}, Observed{Engine: true, Container: box(docker.Running), Health: HealthBad, HealthReason: "503"}, Signal{Signal: "SIGTERM", Because: "503"}},
		"sick while it drains":       {Desired{Placement: drain}, Observed{Engine: true, Container: box(docker.Running), Health: HealthBad}, Wait{}},
		"crashed after long":         {Desired{Placement: run}, Observed{Engine: true, Container: box(docker.Exited, code(1)), Memory: Memory{Streak: 5, EverReady: true}}, Wait{Until: t0.Add(time.Second)}},
		"crashed again soon":         {Desired{Placement: run}, Observed{Engine: true, Container: box(docker.Exited, code(1), quick), Memory: Memory{Streak: 3, EverReady: true}}, Wait{Until: t0.Add(8 * time.Second)}},
		"back-off over":              {Desired{Placement: run}, Observed{Engine: true, Container: box(docker.Exited, code(1), func(c *docker.Container) { c.Finished = t0.Add(-time.Second) })}, Start{Again: true}},
		"never worked":               {Desired{Placement: run}, Observed{Engine: true, Container: box(docker.Exited, code(3)), Memory: Memory{Restarts: maxStarts}}, failed(3, "exited with code 3")},
		"worked once":                {Desired{Placement: run}, Observed{Engine: true, Container: box(docker.Exited, code(3), func(c *docker.Container) { c.Finished = t0.Add(-time.Minute) }), Memory: Memory{Restarts: 100, EverReady: true}}, Start{Again: true}},
		"no restarts":                {Desired{Placement: none}, Observed{Engine: true, Container: box(docker.Exited, code(3))}, failed(3, "exited with code 3")},
		"done":                       {Desired{Placement: none}, Observed{Engine: true, Container: box(docker.Exited)}, End{State: cluster.StateComplete}},
		"out of memory is no end":    {Desired{Placement: none}, Observed{Engine: true, Container: box(docker.Exited, func(c *docker.Container) { c.OOM = true })}, failed(0, "ran out of memory (exit code 0)")},
		"attempts used":              {Desired{Placement: onFailure}, Observed{Engine: true, Container: box(docker.Exited, code(3)), Memory: Memory{Restarts: 2, EverReady: true}}, failed(3, "exited with code 3")},
		"interrupted job":            {Desired{Placement: none}, Observed{Engine: true, Container: box(docker.Exited), Interrupted: true}, Start{}},
		"interrupted, worn out":      {Desired{Placement: onFailure}, Observed{Engine: true, Container: box(docker.Exited, code(137)), Interrupted: true, Memory: Memory{Restarts: 9}}, Start{}},
		"never healthy":              {Desired{Placement: run}, Observed{Engine: true, Container: box(docker.Exited), Memory: Memory{Unhealthy: "health check failed: 503", SignalAt: t0}}, failed(0, "health check failed: 503")},
		"was healthy":                {Desired{Placement: run}, Observed{Engine: true, Container: box(docker.Exited), Memory: Memory{Unhealthy: "x", SignalAt: t0, EverReady: true}}, Wait{Until: t0.Add(time.Second)}},
		"stop, with clients":         {Desired{Placement: stop}, Observed{Engine: true, Container: box(docker.Running), Memory: Memory{StopSince: t0}}, Wait{Until: t0.Add(quietCheck)}},
		"stop, clients stay":         {Desired{Placement: stop}, Observed{Engine: true, Container: box(docker.Running), Memory: Memory{StopSince: t0.Add(-defaultGrace)}}, Signal{Signal: "SIGTERM"}},
		"stop, quiet":                {Desired{Placement: stop}, Observed{Engine: true, Quiet: true, Container: box(docker.Running, func(c *docker.Container) { c.StopSignal = "SIGINT" }), Memory: Memory{StopSince: t0}}, Signal{Signal: "SIGINT"}},
		"stop, asked":                {Desired{Placement: stop}, Observed{Engine: true, Container: box(docker.Running), Memory: Memory{SignalAt: t0}}, Wait{Until: t0.Add(defaultGrace)}},
		"stop, nearly deaf":          {Desired{Placement: stop}, Observed{Engine: true, Container: box(docker.Running), Memory: Memory{SignalAt: t0.Add(1 - defaultGrace)}}, Wait{Until: t0.Add(1)}},
		"stop, deaf":                 {Desired{Placement: stop}, Observed{Engine: true, Container: box(docker.Running), Memory: Memory{SignalAt: t0.Add(-defaultGrace)}}, Signal{Signal: "SIGKILL"}},
		"stop, killed":               {Desired{Placement: stop}, Observed{Engine: true, Container: box(docker.Running), Memory: Memory{SignalAt: t0.Add(-defaultGrace), KillAt: t0}}, Wait{Until: t0.Add(killAgain)}},
		"stop, ended":                {Desired{Placement: stop}, Observed{Engine: true, Container: box(docker.Exited)}, Remove{}},
		"stop, removed":              {Desired{Placement: stop}, Observed{Engine: true}, End{State: cluster.StateStopped}},
		"drain, crashed":             {Desired{Placement: drain}, Observed{Engine: true, Container: box(docker.Exited, code(2))}, failed(2, "exited with code 2")},
		"drain before it had begun":  {Desired{Placement: drain}, Observed{Engine: true}, End{State: cluster.StateStopped, Reason: "it did not run when it was told to drain"}},
		"ended":                      {Desired{Placement: run}, Observed{Engine: true, Memory: Memory{Ended: &End{State: cluster.StateFailed}}}, Wait{}},
		"perhaps an orphan":          {Desired{}, Observed{Engine: true, Container: box(docker.Running)}, Wait{}},
		"an orphan":                  {Desired{Synced: true}, Observed{Engine: true, Quiet: true, Container: box(docker.Running)}, Signal{Signal: "SIGTERM"}},
		"an orphan that has ended":   {Desired{Synced: true}, Observed{Engine: true, Container: box(docker.Exited)}, Remove{}},
		"nothing left":               {Desired{Synced: true}, Observed{Engine: true}, Forget{}},
		"its network went away":      {Desired{Placement: run}, Observed{Engine: true, Container: box(docker.Exited), Memory: Memory{Recreate: true}}, Remove{}},
		"half removed by the engine": {Desired{Placement: run}, Observed{Engine: true, Container: box(docker.Dead)}, Remove{}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Next(c.d, c.o, t0)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestNextRefusesAnotherTasksContainer(t *testing.T) {
	c := box(docker.Running, func(c *docker.Container) { c.Labels = map[string]string{cluster.LabelTask: "other"} })
	if _, err := Next(Desired{Placement: placed(cluster.DesireRun)}, Observed{Engine: true, Container: c}, t0); err == nil {
		t.Error("no error")
	}
}

func TestRestartsWithinTheWindowCount(t *testing.T) {
	r := cluster.RestartPolicy{MaxAttempts: 2, Window: cluster.Duration(time.Minute)}
	m := Memory{EverReady: true, Restarts: 50, Recent: []time.Time{t0.Add(-time.Hour), t0.Add(-30 * time.Second)}}
	p := placed(cluster.DesireRun, restart(r))
	old := box(docker.Exited, code(1), func(c *docker.Container) { c.Finished = t0.Add(-time.Minute) })
	if got, _ := Next(Desired{Placement: p}, Observed{Engine: true, Container: old, Memory: m}, t0); got != (Start{Again: true}) {
		t.Errorf("one restart within the window of two allowed: %#v", got)
	}
	m.Recent = append(m.Recent, t0.Add(-time.Second))
	got, _ := Next(Desired{Placement: p}, Observed{Engine: true, Container: old, Memory: m}, t0)
	if e, ok := got.(End); !ok || e.State != cluster.StateFailed {
		t.Errorf("two restarts within the window of two allowed: %#v", got)
	}
}

// world is a model of one task's container and of everything that may happen to it.
type world struct {
	t   *rapid.T
	now time.Time
	d   Desired
	o   Observed
	// deaf containers ignore the stop signal.
	deaf  bool
	made  int
	signs []string
}

// do is what the real do makes of a step, in the model.
func (w *world) do(s Step) {
	c, m := w.o.Container, &w.o.Memory
	check := func(ok bool, what string) {
		if !ok {
			w.t.Fatalf("%s: step %#v with container %+v, desired %+v, memory %+v", what, s, c, w.d.Placement, *m)
		}
	}
	check(w.o.Engine, "acted without an engine")
	check(w.d.Placement != nil || w.d.Synced, "acted on a task that may only not have been read yet")
	w.signs = append(w.signs, fmt.Sprintf("%T", s))
	if m.Ended != nil && w.d.Placement != nil {
		w.t.Fatalf("step %#v after the end %+v", s, *m.Ended)
	}
	switch s := s.(type) {
	case Create:
		check(c == nil, "made a second container")
		check(w.d.Placement.Desire == cluster.DesireRun, "made a container for a task that is not to run")
		if rapid.Bool().Draw(w.t, "create works") {
			w.made++
			w.o.Container = &docker.Container{ID: fmt.Sprint("c", w.made), State: docker.Created, StopSignal: "SIGTERM"}
			w.o.Interrupted = false
			m.created()
			m.worked()
		} else {
			m.faulted("cannot", false, w.now)
		}
	case Pull:
		check(c == nil, "pulled for a container that is made")
		m.NeedsPull = false
		m.worked()
	case Start:
		check(c != nil && !c.Live(), "started what runs or is not there")
		check(w.d.Placement.Desire == cluster.DesireRun, "started a task that is not to run")
		if rapid.Bool().Draw(w.t, "start works") {
			x := *c
			m.started(s, c, w.now)
			m.worked()
			x.State, x.Started = docker.Running, w.now
			w.o.Container, w.o.Interrupted, w.o.Health = &x, false, HealthStarting
		} else {
			m.faulted("port taken", false, w.now)
		}
	case Signal:
		check(c != nil && c.Live(), "signalled what does not run")
		check(s.Signal != "SIGKILL" || !m.SignalAt.IsZero(), "killed without asking first")
		check(s.Signal != "SIGKILL" || w.now.Sub(m.SignalAt) >= defaultGrace, "killed before the grace was over")
		m.signalled(s, w.now)
		if s.Signal == "SIGKILL" || !w.deaf {
			w.end(map[bool]int{true: 137, false: 0}[s.Signal == "SIGKILL"])
		}
	case Remove:
		check(c != nil && !c.Live(), "removed what runs")
		w.o.Container = nil
		m.Recreate = false
	case End:
		check(c == nil || !c.Live(), "ended a task whose container runs")
		m.Ended = &s
	case Forget:
		check(c == nil, "forgot a container")
	case Wait:
	}
}

func (w *world) end(code int) {
	x := *w.o.Container
	x.State, x.ExitCode, x.Finished = docker.Exited, code, w.now
	w.o.Container = &x
}

// happen does something that is not the agent's doing.
func (w *world) happen() {
	c := w.o.Container
	live := c != nil && c.Live()
	switch rapid.SampledFrom([]string{"time", "crash", "sick", "well", "engine", "interrupt", "drain", "stop", "unplace", "remove"}).Draw(w.t, "event") {
	case "time":
		w.now = w.now.Add(time.Duration(rapid.IntRange(1, 40).Draw(w.t, "seconds")) * time.Second)
	case "crash":
		if live {
			w.end(rapid.IntRange(0, 3).Draw(w.t, "code"))
		}
	case "sick":
		if live {
			w.o.Health = HealthBad
		}
	case "well":
		if live {
			w.o.Health, w.o.Memory.EverReady = HealthGood, true
		}
	case "engine":
		w.o.Engine = !w.o.Engine
	case "interrupt":
		if live && w.o.Memory.SignalAt.IsZero() {
			w.end(143)
			w.o.Interrupted = true
		}
	case "drain":
		if p := w.d.Placement; p != nil && p.Desire == cluster.DesireRun {
			x := *p
			x.Desire = cluster.DesireDrain
			w.d.Placement = &x
		}
	case "stop":
		if w.d.Placement != nil {
			x := *w.d.Placement
			x.Desire = cluster.DesireStop
			w.d.Placement = &x
			w.stopping()
		}
	case "unplace":
		if w.d.Synced {
			w.d.Placement = nil
			w.stopping()
		} else {
			w.d.Synced = true
		}
	case "remove":
		if c != nil && rapid.Bool().Draw(w.t, "docker rm -f") {
			w.o.Container = nil
		}
	}
}

func (w *world) stopping() {
	if w.o.Container != nil && w.o.Container.Live() && w.o.Memory.StopSince.IsZero() {
		w.o.Memory.StopSince = w.now
	}
}

// turn asks Next until it waits; a task that never comes to rest is a bug.
func (w *world) turn() {
	for range 30 {
		step, err := Next(w.d, w.o, w.now)
		if err != nil {
			w.t.Fatal(err)
		}
		if x, ok := step.(Wait); ok {
			if !x.Until.IsZero() && !x.Until.After(w.now) {
				w.t.Fatalf("waits for a time that is over: %+v", x)
			}
			return
		}
		w.do(step)
		if _, ok := step.(Forget); ok {
			return
		}
	}
	w.t.Fatalf("never came to rest: %s", strings.Join(w.signs, " "))
}

func newWorld(t *rapid.T) *world {
	p := placed(cluster.DesireRun, restart(cluster.RestartPolicy{
		Condition:   rapid.SampledFrom([]string{"", "any", "on-failure", "none"}).Draw(t, "condition"),
		MaxAttempts: rapid.IntRange(0, 3).Draw(t, "attempts"),
	}))
	w := &world{t: t, now: t0, deaf: rapid.Bool().Draw(t, "deaf")}
	w.d = Desired{Placement: p, Payload: true}
	w.o = Observed{Engine: true, Memory: Memory{NeedsPull: rapid.Bool().Draw(t, "pull")}}
	return w
}

// TestNextKeepsItsLawsWhateverHappens: do checks the laws at each step.
func TestNextKeepsItsLawsWhateverHappens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for range rapid.IntRange(0, 40).Draw(t, "events") {
			w.turn()
			w.happen()
		}
		// Whatever went before: told to stop, with an engine and time, a task ends
		// and nothing of it is left once it is placed nowhere.
		w.o.Engine, w.d.Synced = true, true
		if w.d.Placement != nil {
			x := *w.d.Placement
			x.Desire = cluster.DesireStop
			w.d.Placement = &x
			w.stopping()
			for range 4 {
				w.turn()
				w.now = w.now.Add(40 * time.Second)
			}
			if w.o.Memory.Ended == nil {
				t.Fatalf("not ended: %+v", w.o)
			}
		}
		w.d.Placement = nil
		w.stopping()
		for range 4 {
			w.turn()
			w.now = w.now.Add(40 * time.Second)
		}
		if w.o.Container != nil {
			t.Fatalf("a container is left: %+v", w.o.Container)
		}
	})
}

// TestNextRunsWhatCanRun: a task whose container neither crashes nor is sick
// comes to run and stays as it is.
func TestNextRunsWhatCanRun(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for range 12 {
			w.turn()
			w.now = w.now.Add(40 * time.Second)
		}
		c := w.o.Container
		switch {
		case c != nil && c.State == docker.Running:
			before := len(w.signs)
			w.turn()
			if len(w.signs) != before {
				t.Fatalf("did %s to a container that runs", w.signs[before:])
			}
		case w.o.Memory.Ended == nil || w.o.Memory.Faults < maxFaults:
			t.Fatalf("neither runs nor failed after %d faults: %+v", maxFaults, w.o)
		}
	})
}
