package agent

import (
	"time"

	"github.com/fairlead/fairlead/agent/docker"
)

// maxRecent bounds what is remembered of restarts.
const maxRecent = 32

// faulted remembers that a step failed.
func (m *Memory) faulted(why string, fatal bool, now time.Time) {
	if m.Faults == 0 {
		m.FaultSince = now
	}
	m.Fault, m.FaultAt, m.FaultFatal = why, now, fatal
	m.Faults++
}

// delayed remembers that a step failed for what passes without anybody's doing anything
// about the task: a registry, a server or another node does not answer.
func (m *Memory) delayed(why string, now time.Time) {
	m.faulted(why, false, now)
	m.Delays++
}

// worked forgets the faults.
func (m *Memory) worked() {
	m.Fault, m.Faults, m.Delays, m.FaultFatal, m.FaultSince = "", 0, 0, false, time.Time{}
}

// givenUp reports whether steps have failed so often, or for so long, that the task has.
func (m *Memory) givenUp(now time.Time) bool {
	return m.FaultFatal || m.Faults-m.Delays >= maxFaults || m.Delays > 0 && m.Faults >= maxFaults && now.Sub(m.FaultSince) >= maxDelayed
}

// created begins with a fresh container.
func (m *Memory) created() {
	m.forgetSignals()
	m.Recreate = false
}

// started remembers a start, and counts it when the container had crashed.
func (m *Memory) started(s Start, crashed *docker.Container, now time.Time) {
	m.forgetSignals()
	if !s.Again {
		return
	}
	m.Streak = streak(crashed, *m) + 1
	m.Restarts++
	m.Recent = append(m.Recent, now)
	if n := len(m.Recent); n > maxRecent {
		m.Recent = m.Recent[n-maxRecent:]
	}
}

func (m *Memory) forgetSignals() {
	m.SignalAt, m.KillAt, m.Unhealthy = time.Time{}, time.Time{}, ""
}

// signalled remembers that the container was told to end.
func (m *Memory) signalled(s Signal, now time.Time) {
	if s.Because != "" {
		m.Unhealthy = "health check failed: " + s.Because
	}
	if m.SignalAt.IsZero() {
		m.SignalAt = now
	} else {
		m.KillAt = now
	}
}
