package agent

import (
	"slices"
	"strings"
	"time"

	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/cluster"
)

// Report derives a task's status from the same facts as Next. prev is the last
// status; its times are kept where nothing changed.
func Report(d Desired, o Observed, next Step, prev cluster.Status, now time.Time) cluster.Status {
	p, c, m := d.Placement, o.Container, o.Memory
	s := cluster.Status{
		Task: p.Task, Node: p.Node, ServiceID: p.ServiceID, Slot: p.Slot, Version: p.Version,
		State: prev.State, Restarts: m.Restarts, At: prev.At, Started: prev.Started, ReadySince: prev.ReadySince,
		Container: prev.Container, ImageID: prev.ImageID, ImageDigest: prev.ImageDigest,
	}
	if e := m.Ended; e != nil {
		s.State, s.ExitCode, s.Reason, s.LogTail, s.Container = e.State, e.ExitCode, e.Reason, prev.LogTail, prev.Container
		s.ReadySince = time.Time{}
		return s
	}
	if !o.Engine {
		s = prev
		s.Task, s.Node, s.ServiceID, s.Slot, s.Version = p.Task, p.Node, p.ServiceID, p.Slot, p.Version
		if s.State == "" {
			s.State = cluster.StateAccepted
		}
		if o.Away && s.State != cluster.StateRunning {
			s.Reason = docker.ErrAway.Error()
		}
		if o.Gone && s.Ready {
			s.Ready, s.ReadySince, s.Reason = false, time.Time{}, cluster.ProcessEnded
		}
		return s
	}
	reportContainer(&s, d, o, next)
	if !s.Ready {
		s.ReadySince = time.Time{}
	} else if s.ReadySince.IsZero() {
		s.ReadySince = now
	}
	if c != nil && c.Live() {
		s.Addresses = o.Addresses
	}
	if s.State == cluster.StateStarting && (c != nil && c.State == docker.Exited || m.Faults > 0) {
		s.LogTail = prev.LogTail
	}
	if s.State == cluster.StateRunning && m.Restarts > 0 {
		// How it ended the last time is why it was started again: a rollout that
		// looks only now must be able to say so.
		s.ExitCode, s.LogTail = prev.ExitCode, prev.LogTail
	}
	return s
}

func reportContainer(s *cluster.Status, d Desired, o Observed, next Step) {
	p, c, m := d.Placement, o.Container, o.Memory
	if c != nil {
		s.Container, s.ImageID, s.ImageDigest, s.Started = c.ID, c.ImageID, c.ImageDigest, c.Started
	}
	switch {
	case p.Desire == cluster.DesireStop:
		s.State = cluster.StateStopping
		if m.SignalAt.IsZero() && c != nil && c.Live() && !o.Quiet {
			s.Reason = "waiting for its connections to end"
		}
	case c == nil:
		s.State, s.Reason = preparing(d, m, next)
	case c.State == docker.Running && m.SignalAt.IsZero():
		s.State, s.Ready = cluster.StateRunning, !o.Gone && (o.Health == HealthNone || o.Health == HealthGood)
		if o.Gone {
			s.Reason = cluster.ProcessEnded
		} else if !s.Ready {
			s.Reason = o.HealthReason
		}
	case c.State == docker.Paused:
		s.State, s.Reason = cluster.StateRunning, "its container is paused"
	default:
		s.State, s.ExitCode = cluster.StateStarting, c.ExitCode
		s.Reason = startingReason(o, next)
	}
}

func startingReason(o Observed, next Step) string {
	c, m := o.Container, o.Memory
	end, ends := next.(End)
	switch {
	case m.Fault != "":
		return m.Fault
	case o.Interrupted:
		return "starting again: the engine or the machine was stopped"
	case m.Unhealthy != "":
		return m.Unhealthy
	case c.State == docker.Exited && end.State == cluster.StateComplete:
		return cluster.ProcessEnded
	case c.State == docker.Exited && ends: // which the next report says
		return exitReason(c, m)
	case c.State == docker.Exited:
		return exitReason(c, m) + "; starting again"
	}
	return ""
}

func preparing(d Desired, m Memory, next Step) (cluster.TaskState, string) {
	if w := waitsFor(d); w != "" {
		return cluster.StateWaiting, w
	}
	if _, pull := next.(Pull); pull || m.NeedsPull {
		reason := m.Fault
		if reason == "" {
			reason = "pulling " + d.Placement.Spec.Image
			if m.Pulling != "" {
				reason += ": " + m.Pulling
			}
		}
		return cluster.StatePulling, reason
	}
	return cluster.StateStarting, m.Fault
}

// waitsFor names what has not been delivered yet.
func waitsFor(d Desired) string {
	s := &d.Placement.Spec
	if d.Payload || !s.NeedsPayload() {
		return ""
	}
	var names []string
	for _, f := range s.Secrets {
		names = append(names, "secret "+f.Name)
	}
	for _, f := range s.Configs {
		names = append(names, "config "+f.Name)
	}
	slices.Sort(names)
	return "waits for " + strings.Join(slices.Compact(names), ", ")
}
