package agent

import (
	"fmt"
	"time"

	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/cluster"
)

// Desired is what is wanted of a task.
type Desired struct {
	// Placement is nil when the task is placed here no more, which is certain
	// only when Synced: the placements were read from the store.
	Placement *cluster.NodePlacement
	Synced    bool
	// Payload says that the secrets and configs it needs are at hand.
	Payload bool
}

// Health is the verdict about a running container.
type Health uint8

// Verdicts.
const (
	HealthNone     Health = iota // nothing is checked: running is enough
	HealthStarting               // not proven yet
	HealthGood
	HealthBad // failed as often in a row as the check allows
)

// Observed is what is known of a task's container.
type Observed struct {
	Engine    bool              // the engine answers, and Container is what it said
	Away      bool              // it does not answer
	Container *docker.Container // nil: there is none
	// Interrupted: the container ended because the engine or the machine was stopped.
	Interrupted  bool
	Health       Health
	HealthReason string
	// Gone: its process has ended, though the engine has not said so yet.
	Gone bool
	// Quiet: no established inbound connection in its network namespace.
	Quiet     bool
	Addresses map[cluster.NetworkName]string
	Memory    Memory
}

// Memory is what an agent remembers of its own doings about a task.
type Memory struct {
	Ended     *End
	EverReady bool
	Restarts  int         // in all
	Recent    []time.Time // of restarts, newest last, bounded
	Streak    int         // crashes in a row, each soon after a start

	NeedsPull bool   // the image is not here, or its policy asks for a pull
	Pulling   string // how far the pull is
	Recreate  bool   // the container can never start again: make another

	// Fault is why the last step failed; Faults counts failures in a row, and Delays those of
	// them that pass without anybody's doing anything about the task.
	Fault      string
	Faults     int
	Delays     int
	FaultAt    time.Time
	FaultSince time.Time // the first of them
	FaultFatal bool      // no attempt can succeed

	StopSince time.Time // since when it should stop
	SignalAt  time.Time // its stop signal was sent
	KillAt    time.Time
	Unhealthy string // why it was stopped by its health check
}

const (
	defaultGrace = 10 * time.Second
	firstDelay   = time.Second
	maxDelay     = 30 * time.Second
	// settled is how long a container must have run for its end to be the first of a new streak.
	settled = 30 * time.Second
	// maxFaults is how often in a row a step may fail before the task does.
	maxFaults = 4
	// maxDelayed is for how long it may where something else is away: as long as a rollout waits
	// for a container to start. Then another task is made, which another node may get.
	maxDelayed = 10 * time.Minute
	// maxStarts is how often a container that was never ready is started again
	// where the restart policy has no bound: after that the rollout must know.
	maxStarts  = 3
	killAgain  = 10 * time.Second
	quietCheck = 50 * time.Millisecond
)

// Next names the next step for a task. It has no side effects; an error means
// that the input contradicts itself.
func Next(d Desired, o Observed, now time.Time) (Step, error) {
	p := d.Placement
	switch {
	case p != nil && o.Container != nil && o.Container.Task() != "" && o.Container.Task() != p.Task:
		return nil, fmt.Errorf("container %s belongs to task %s, not %s", o.Container.ID, o.Container.Task(), p.Task)
	case !o.Engine:
		return Wait{}, nil
	case p == nil && !d.Synced:
		return Wait{}, nil
	case p == nil:
		return nextGone(o, now), nil
	case o.Memory.Ended != nil:
		return Wait{}, nil // the scheduler takes the placement away
	case p.Desire == cluster.DesireStop:
		return nextStop(p, o, now), nil
	}
	return nextRun(d, o, now), nil
}

func nextGone(o Observed, now time.Time) Step {
	switch {
	case o.Container == nil:
		return Forget{}
	case o.Container.Live():
		grace := o.Container.StopTimeout
		if grace == 0 {
			grace = defaultGrace
		}
		return stopStep(o, grace, now)
	}
	return retried(Remove{}, o, now)
}

func nextStop(p *cluster.NodePlacement, o Observed, now time.Time) Step {
	switch {
	case o.Container == nil:
		return End{State: cluster.StateStopped}
	case o.Container.Live():
		return stopStep(o, grace(p), now)
	}
	return retried(Remove{}, o, now)
}

// stopStep stops a container that runs: quiet or grace, signal, grace, kill.
func stopStep(o Observed, grace time.Duration, now time.Time) Step {
	m := o.Memory
	switch {
	case m.SignalAt.IsZero() && !o.Quiet && now.Before(m.StopSince.Add(grace)):
		return Wait{Until: now.Add(quietCheck)}
	case m.SignalAt.IsZero():
		return Signal{Signal: o.Container.StopSignal}
	}
	return killStep(m, grace, now)
}

func killStep(m Memory, grace time.Duration, now time.Time) Step {
	switch kill := m.SignalAt.Add(grace); {
	case m.KillAt.IsZero() && now.Before(kill):
		return Wait{Until: kill}
	case m.KillAt.IsZero(), !now.Before(m.KillAt.Add(killAgain)):
		return Signal{Signal: "SIGKILL"}
	}
	return Wait{Until: m.KillAt.Add(killAgain)}
}

func nextRun(d Desired, o Observed, now time.Time) Step {
	p, m, c := d.Placement, o.Memory, o.Container
	drain := p.Desire == cluster.DesireDrain
	switch {
	case m.givenUp(now):
		return End{State: cluster.StateFailed, Reason: m.Fault}
	case (c == nil || c.State == docker.Created) && drain:
		return End{State: cluster.StateStopped, Reason: "it did not run when it was told to drain"}
	case c == nil && p.Spec.NeedsPayload() && !d.Payload:
		return Wait{}
	case c == nil && m.NeedsPull:
		return retried(Pull{}, o, now)
	case c == nil:
		return retried(Create{}, o, now)
	case c.State == docker.Dead, m.Recreate && !c.Live():
		return retried(Remove{}, o, now)
	case c.State == docker.Created:
		return retried(Start{}, o, now)
	case c.Live() && !m.SignalAt.IsZero():
		return killStep(m, grace(p), now)
	case c.Live() && o.Health == HealthBad && !drain:
		return Signal{Signal: c.StopSignal, Because: o.HealthReason}
	case c.State == docker.Exited:
		return nextExited(p, o, now)
	}
	return Wait{}
}

// nextExited decides about a container that ended without being asked to.
func nextExited(p *cluster.NodePlacement, o Observed, now time.Time) Step {
	m, c := o.Memory, o.Container
	why := exitReason(c, m)
	switch {
	case p.Desire == cluster.DesireDrain && (o.Interrupted || c.ExitCode == 0):
		return End{State: cluster.StateStopped, ExitCode: c.ExitCode, Reason: "it ended while it drained"}
	case p.Desire == cluster.DesireDrain:
		return End{State: cluster.StateFailed, ExitCode: c.ExitCode, Reason: why}
	case o.Interrupted:
		return retried(Start{}, o, now)
	case m.Unhealthy != "" && !m.EverReady:
		return End{State: cluster.StateFailed, ExitCode: c.ExitCode, Reason: why}
	}
	if m.Unhealthy == "" && c.ExitCode == 0 && !c.OOM {
		switch p.Restart.Condition {
		case "none", "on-failure":
			return End{State: cluster.StateComplete}
		}
	}
	if p.Restart.Condition == "none" || attempts(p.Restart, m, now) >= allowed(p.Restart, m) {
		return End{State: cluster.StateFailed, ExitCode: c.ExitCode, Reason: why}
	}
	if m.Faults > 0 {
		return retried(Start{Again: true}, o, now)
	}
	if at := c.Finished.Add(backoff(p.Restart, streak(c, m))); now.Before(at) {
		return Wait{Until: at}
	}
	return Start{Again: true}
}

// retried is step, put off while the back-off after a fault lasts.
func retried(s Step, o Observed, now time.Time) Step {
	if m := o.Memory; m.Faults > 0 {
		if at := m.FaultAt.Add(doubled(firstDelay, m.Faults-1)); now.Before(at) {
			return Wait{Until: at}
		}
	}
	return s
}

func grace(p *cluster.NodePlacement) time.Duration {
	if g := p.Spec.StopGrace.D(); g > 0 {
		return g
	}
	return defaultGrace
}

// streak is how many crashes in a row came before this one.
func streak(c *docker.Container, m Memory) int {
	if c.Finished.Sub(c.Started) >= settled {
		return 0
	}
	return m.Streak
}

func backoff(r cluster.RestartPolicy, streak int) time.Duration {
	first := r.Delay.D()
	if first <= 0 {
		first = firstDelay
	}
	return doubled(first, streak)
}

func doubled(d time.Duration, times int) time.Duration {
	for ; times > 0 && d < maxDelay; times-- {
		d *= 2
	}
	return min(d, maxDelay)
}

// attempts counts the restarts that the policy's bound is about.
func attempts(r cluster.RestartPolicy, m Memory, now time.Time) int {
	if r.Window <= 0 {
		return m.Restarts
	}
	n := 0
	for _, t := range m.Recent {
		if now.Sub(t) <= r.Window.D() {
			n++
		}
	}
	return n
}

func allowed(r cluster.RestartPolicy, m Memory) int {
	switch {
	case r.MaxAttempts > 0:
		return r.MaxAttempts
	case m.EverReady:
		return int(^uint(0) >> 1)
	}
	return maxStarts
}

func exitReason(c *docker.Container, m Memory) string {
	switch {
	case m.Unhealthy != "":
		return m.Unhealthy
	case c.Error != "":
		return c.Error
	case c.OOM:
		return fmt.Sprintf("ran out of memory (exit code %d)", c.ExitCode)
	}
	return fmt.Sprintf("exited with code %d", c.ExitCode)
}
